//! Cases as data: what stands in tests/cases, with its bytes in words.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;

/// The cases of a file under tests/cases.
#[track_caller]
pub fn cases<T: DeserializeOwned>(file: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(file);
    let cases: Vec<T> = serde_yaml::from_str(&fs::read_to_string(path).unwrap()).expect(file);
    assert!(!cases.is_empty());
    cases
}

/// A case whose request can also say that its client takes trailers.
pub trait AskTrailers: Clone {
    fn name(&mut self) -> &mut String;

    /// Adds `TE: trailers` to the request; whether that can be done without contradicting what the case is about.
    fn ask_trailers(&mut self) -> bool;
}

/// The cases as they stand, and after them each once more with `TE: trailers`, which must change no outcome.
pub fn with_and_without_te<T: AskTrailers>(mut cases: Vec<T>) -> Vec<T> {
    let mut asking = cases.clone();
    asking.retain_mut(AskTrailers::ask_trailers);
    assert!(!asking.is_empty());
    asking.iter_mut().for_each(|case| case.name().push_str(", with TE: trailers"));
    cases.append(&mut asking);
    cases
}

/// A request of HTTP/1 as cases write it, with `TE: trailers` behind its first line; none where it has a TE or no such line.
pub fn http1_with_te(request: &str) -> Option<String> {
    const END: &str = r"\r\n";
    let start = request.len() - request.trim_start_matches(END).len();
    let line = start + request[start..].find(END)? + END.len();
    if request.to_ascii_lowercase().contains(r"\r\nte:") {
        return None;
    }
    let (first, rest) = request.split_at(line);
    Some(format!(r"{first}TE: trailers\r\nConnection: TE\r\n{rest}"))
}

/// The bytes that a text stands for: `\r \n \t \0 \\ \xHH` are one each, `{a*300}` is a repetition.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\\' => {
                let (byte, after) = escape(rest);
                bytes.push(byte);
                rest = after;
            }
            '{' => {
                let (what, after) = rest.split_once('}').expect("a closing brace");
                let (unit, times) = what.rsplit_once('*').expect("a repetition");
                bytes.extend(unescape(unit).repeat(times.parse().unwrap()));
                rest = after;
            }
            _ => bytes.extend(character.to_string().bytes()),
        }
    }
    bytes
}

fn escape(rest: &str) -> (u8, &str) {
    match rest.as_bytes()[0] {
        b'r' => (b'\r', &rest[1..]),
        b'n' => (b'\n', &rest[1..]),
        b't' => (b'\t', &rest[1..]),
        b'0' => (0, &rest[1..]),
        b'x' => (u8::from_str_radix(&rest[1..3], 16).unwrap(), &rest[3..]),
        other => (other, &rest[1..]),
    }
}
