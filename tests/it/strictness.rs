//! tests/cases/http1: bytes that a strict HTTP/1.1 server refuses, or reads in one way only.
//!
//! A case is a line `case: what it is`, lines `> bytes` (joined as they are; \r \n \t \0 \\ \xHH stand for bytes,
//! `{a*300}` for repetition) and a line `expect: STATUS STATUS …`, one for each response; `400|501` takes either.
//! After an error the connection must be closed and nothing may have reached the origin; after success exactly as
//! many requests as there were. `origin: TEXT` is something that the last request at the origin must contain,
//! `origin-lacks: TEXT` what it must not. `keeps: yes` says that the connection may live on after an error (its framing
//! was clear), `begins: yes` that the origin may have seen the request begin, though never whole.

use std::{fs, path::Path, time::Duration};

use super::support::{Origin, Proxy};

#[derive(Debug, Default)]
struct Case {
    name: String,
    bytes: Vec<u8>,
    /// For each response, the statuses that will do.
    expected: Vec<Vec<u16>>,
    contains: Vec<String>,
    lacks: Vec<String>,
    keeps: bool,
    begins: bool,
}

#[test]
fn framing() {
    run("framing.txt");
}

#[test]
fn chunks() {
    run("chunks.txt");
}

#[test]
fn request_lines() {
    run("request_lines.txt");
}

#[test]
fn fields() {
    run("fields.txt");
}

#[test]
fn hosts() {
    run("hosts.txt");
}

/// Runs every case of a file and reports all that went wrong.
#[track_caller]
fn run(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/http1").join(file);
    let cases = parse(&fs::read_to_string(path).unwrap());
    assert!(!cases.is_empty());
    let origin = Origin::saying("reached");
    let proxy = Proxy::before(&origin);
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| Some(format!("{}: {}", case.name, try_case(case, &proxy, &origin).err()?)))
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases failed:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn try_case(case: &Case, proxy: &Proxy, origin: &Origin) -> Result<(), String> {
    let (bytes, requests) = (origin.bytes(), origin.requests().len());
    let mut client = proxy.client();
    client.patience(Duration::from_secs(10));
    // The proxy may refuse and close before all is sent.
    let _ = client.try_send(&case.bytes);
    let method = String::from_utf8_lossy(&case.bytes).split(' ').next().unwrap_or_default().to_owned();
    let mut forwarded = 0;
    let mut refused = false;
    for expected in &case.expected {
        let response = client.try_response_to(&method).map_err(|error| format!("no response: {error}"))?;
        if !expected.contains(&response.status) {
            return Err(format!("answered {} instead of {expected:?}", response.status));
        }
        forwarded +=
            usize::from(response.text() == "reached" || (method == "HEAD" && response.status == 200));
        refused = response.status >= 400;
    }
    if refused && !case.keeps && !client.is_closed() {
        return Err("the connection stays open".into());
    }
    if forwarded == 0 && !case.begins && origin.bytes() != bytes {
        return Err("bytes reached the origin".into());
    }
    let arrived = &origin.requests()[requests..];
    if arrived.len() != forwarded {
        return Err(format!("{} requests reached the origin instead of {forwarded}", arrived.len()));
    }
    let last =
        arrived.last().map(|request| String::from_utf8_lossy(&request.raw).into_owned()).unwrap_or_default();
    if let Some(text) = case.contains.iter().find(|text| !last.to_lowercase().contains(&text.to_lowercase()))
    {
        return Err(format!("the origin did not get {text:?} but\n{last}"));
    }
    if let Some(text) = case.lacks.iter().find(|text| last.to_lowercase().contains(&text.to_lowercase())) {
        return Err(format!("the origin got {text:?} in\n{last}"));
    }
    Ok(())
}

fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("case: ") {
            cases.push(Case { name: name.into(), ..Case::default() });
            continue;
        }
        let case = cases.last_mut().expect("a case before its lines");
        match line.split_once(' ').expect("a word and what it says") {
            (">", bytes) => case.bytes.extend(unescape(bytes)),
            ("expect:", list) => {
                let statuses = |one: &str| one.split('|').map(|status| status.parse().unwrap()).collect();
                case.expected = list.split(' ').map(statuses).collect();
            }
            ("origin:", text) => case.contains.push(String::from_utf8(unescape(text)).unwrap()),
            ("origin-lacks:", text) => case.lacks.push(String::from_utf8(unescape(text)).unwrap()),
            ("keeps:", "yes") => case.keeps = true,
            ("begins:", "yes") => case.begins = true,
            (word, _) => panic!("what is {word:?} in {}?", case.name),
        }
    }
    cases
}

fn unescape(text: &str) -> Vec<u8> {
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
