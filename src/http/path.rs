//! Request paths, normalised once before routing. What is routed is what goes upstream: nothing behind
//! this step ever sees another spelling of the path.

use std::{borrow::Cow, fmt::Write as _};

use schemars::JsonSchema;
use serde::Deserialize;

/// What becomes of "%2F" and "%5C" in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodedSlash {
    /// The request is refused with 400
    #[default]
    Reject,
    /// It stays encoded and is part of its segment
    Keep,
    /// It becomes a slash and separates segments
    Decode,
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathError {
    #[error("a path starts with \"/\"")]
    NotAbsolute,
    #[error("a control character or space stands in it")]
    Control,
    #[error("an encoded NUL stands in it")]
    Nul,
    #[error("a byte outside ASCII stands in it unencoded")]
    NotAscii,
    #[error("\"%\" is not followed by two hexadecimal digits")]
    BadEscape,
    #[error("an encoded slash or a backslash stands in it")]
    EncodedSlash,
    #[error("\"?\" or \"#\" stands in it")]
    Delimiter,
}

/// The one spelling of a path (RFC 3986 section 6.2.2), borrowed where it has it already.
///
/// - Unreserved characters are decoded, all other escapes stay and are upper-cased; what may not stand
///   in a path unencoded (`"<>[]^{|}` and the backtick) is encoded.
/// - Then segments of no characters go (`//` is `/`), and dot segments are resolved, `%2e` counting as a
///   dot. A ".." too many stays at the root (section 5.2.4).
/// - A backslash, "%2F" and "%5C" go by `rule`: refused, kept as "%2F" and "%5C", or made slashes, before
///   the segments are looked at.
/// - Refused always: controls, spaces, an encoded NUL, raw bytes outside ASCII, "%" without two
///   hexadecimal digits.
///
/// The empty path of an absolute URI is "/" (RFC 9110 section 4.2.3).
pub fn normalise(raw: &str, rule: EncodedSlash) -> Result<Cow<'_, str>, PathError> {
    if is_normal(raw.as_bytes(), rule) {
        return Ok(Cow::Borrowed(raw));
    }
    match raw.as_bytes().first() {
        None => Ok(Cow::Borrowed("/")),
        Some(b'/') => resolve(&spell(raw, rule)?).map(Cow::Owned),
        Some(b'\\') if rule == EncodedSlash::Decode => resolve(&spell(raw, rule)?).map(Cow::Owned),
        Some(_) => Err(PathError::NotAbsolute),
    }
}

/// Whether dot segments stand in a path, in whatever spelling: who reads it as it came may be led elsewhere.
pub fn has_dot_segments(raw: &str) -> bool {
    let is_dots = |segment: &str| matches!(segment, "." | "..");
    spell(raw, EncodedSlash::Decode).map_or(true, |spelt| spelt.split('/').any(is_dots))
}

/// Whether nothing is to be done. Says no to some paths that come out unchanged or refused.
fn is_normal(raw: &[u8], rule: EncodedSlash) -> bool {
    let mut at = 0;
    if raw.first() != Some(&b'/') {
        return false;
    }
    while let Some(&byte) = raw.get(at) {
        at += match byte {
            b'/' if changes_segments(&raw[at + 1..]) => return false,
            b'/' => 1,
            b'%' if is_normal_escape(&raw[at..], rule) => 3,
            byte if is_pchar(byte) => 1,
            _ => return false,
        }
    }
    true
}

/// Whether what follows a slash is another slash or a dot segment.
fn changes_segments(rest: &[u8]) -> bool {
    matches!(rest, [b'/', ..] | [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..])
}

fn is_normal_escape(escape: &[u8], rule: EncodedSlash) -> bool {
    let [b'%', high, low, ..] = escape else { return false };
    if high.is_ascii_lowercase() || low.is_ascii_lowercase() {
        return false;
    }
    match decode(*high, *low) {
        Some(0) | None => false,
        Some(b'/' | b'\\') => rule == EncodedSlash::Keep,
        Some(byte) => !is_unreserved(byte),
    }
}

/// The path with every character in its one spelling.
fn spell(raw: &str, rule: EncodedSlash) -> Result<String, PathError> {
    let mut out = String::with_capacity(raw.len() + 8);
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let escape = bytes.next().zip(bytes.next());
                let escaped = escape.and_then(|(high, low)| decode(high, low));
                match escaped.ok_or(PathError::BadEscape)? {
                    0 => return Err(PathError::Nul),
                    slash @ (b'/' | b'\\') => spell_slash(slash, rule, &mut out)?,
                    byte if is_unreserved(byte) => out.push(char::from(byte)),
                    byte => encode(byte, &mut out),
                }
            }
            b'\\' => spell_slash(byte, rule, &mut out)?,
            b'?' | b'#' => return Err(PathError::Delimiter),
            0..=b' ' | 0x7F => return Err(PathError::Control),
            0x80.. => return Err(PathError::NotAscii),
            b'/' => out.push('/'),
            byte if is_pchar(byte) => out.push(char::from(byte)),
            byte => encode(byte, &mut out),
        }
    }
    Ok(out)
}

fn spell_slash(slash: u8, rule: EncodedSlash, out: &mut String) -> Result<(), PathError> {
    match rule {
        EncodedSlash::Reject => return Err(PathError::EncodedSlash),
        EncodedSlash::Keep => encode(slash, out),
        EncodedSlash::Decode => out.push('/'),
    }
    Ok(())
}

/// The path without empty and dot segments.
fn resolve(spelt: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(spelt.len());
    let mut ends_in_directory = false;
    for segment in spelt.split('/') {
        ends_in_directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            name => {
                out.push('/');
                out.push_str(name);
            }
        }
    }
    if ends_in_directory {
        out.push('/');
    }
    Ok(out)
}

fn decode(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn encode(byte: u8, out: &mut String) {
    write!(out, "%{byte:02X}").expect("a String takes all that is written");
}

/// RFC 3986 section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What may stand in a segment unencoded (RFC 3986 section 3.3).
const fn is_pchar(byte: u8) -> bool {
    PCHAR[byte as usize]
}

/// A table, since every byte of every path is asked for.
const PCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x80 {
        table[byte] = is_unreserved(byte as u8);
        byte += 1;
    }
    let others = b"!$&'()*+,;=:@";
    let mut place = 0;
    while place < others.len() {
        table[others[place] as usize] = true;
        place += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> String {
        normalise(raw, EncodedSlash::Keep).unwrap_or_else(|e| panic!("{raw:?}: {e}")).into_owned()
    }

    #[test]
    fn normal_paths_are_borrowed() {
        for path in ["/", "/a", "/a/", "/a/b.c/..d/.e/...", "/%C3%A4/%25", "/a;b=c/d@e:f,(g)*+!$&'~"] {
            for rule in [EncodedSlash::Reject, EncodedSlash::Keep, EncodedSlash::Decode] {
                assert!(matches!(normalise(path, rule), Ok(Cow::Borrowed(same)) if same == path), "{path}");
            }
        }
    }

    #[test]
    fn dot_segments_and_double_slashes_are_resolved() {
        for (raw, wanted) in [
            ("", "/"),
            ("//", "/"),
            ("/.", "/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a//../b", "/b"),
            ("//a///b//", "/a/b/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%2e", "/"),
        ] {
            assert_eq!(normal(raw), wanted, "{raw}");
        }
    }

    #[test]
    fn escapes_have_one_spelling() {
        for (raw, wanted) in [
            ("/%61%7e", "/a~"),
            ("/%c3%a4", "/%C3%A4"),
            ("/%252e", "/%252e"),
            ("/a{b}", "/a%7Bb%7D"),
            ("/%7b", "/%7B"),
            ("/%21!", "/%21!"),
            ("/a\"<>[]^`|", "/a%22%3C%3E%5B%5D%5E%60%7C"),
        ] {
            assert_eq!(normal(raw), wanted, "{raw}");
        }
    }

    #[test]
    fn encoded_slashes_go_by_the_rule() {
        for raw in ["/a%2fb", "/a%5Cb", "/a\\b"] {
            assert_eq!(normalise(raw, EncodedSlash::Reject), Err(PathError::EncodedSlash));
            assert_eq!(normalise(raw, EncodedSlash::Decode).unwrap(), "/a/b");
        }
        assert_eq!(normal("/a%2fb"), "/a%2Fb");
        assert_eq!(normal("/a\\b"), "/a%5Cb");
        assert_eq!(normal("/a/..%2fb"), "/a/..%2Fb");
        assert_eq!(normalise("/a/b%2F..%2F..%2fc", EncodedSlash::Decode).unwrap(), "/c");
        assert_eq!(normalise("\\a", EncodedSlash::Decode).unwrap(), "/a");
    }

    #[test]
    fn what_has_no_business_in_a_path_is_refused() {
        for (raw, wanted) in [
            ("a", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("\\a", PathError::NotAbsolute),
            ("/%00", PathError::Nul),
            ("/\0", PathError::Control),
            ("/a b", PathError::Control),
            ("/\t", PathError::Control),
            ("/\u{7f}", PathError::Control),
            ("/ä", PathError::NotAscii),
            ("/%", PathError::BadEscape),
            ("/%4", PathError::BadEscape),
            ("/%zz", PathError::BadEscape),
            ("/%+1", PathError::BadEscape),
            ("/a?b", PathError::Delimiter),
            ("/a#b", PathError::Delimiter),
        ] {
            assert_eq!(normalise(raw, EncodedSlash::Keep), Err(wanted), "{raw:?}");
        }
    }

    fn any_rule() -> impl Strategy<Value = EncodedSlash> {
        prop_oneof![Just(EncodedSlash::Reject), Just(EncodedSlash::Keep), Just(EncodedSlash::Decode)]
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(
            raw in "/([a-c./\\\\{;%]|%2[eEfF5]|%5[cC]|%6[1f]|%C3|//|/\\.\\./|/\\./){0,24}",
            rule in any_rule(),
        ) {
            if let Ok(once) = normalise(&raw, rule) {
                prop_assert!(is_normal(once.as_bytes(), rule), "{once} is not seen as normal");
                prop_assert_eq!(normalise(&once, rule).unwrap(), &*once);
                prop_assert!(!once.split('/').any(|segment| matches!(segment, "." | "..")));
                prop_assert!(!once.contains("//"));
            }
        }

        #[test]
        fn any_text_gets_an_answer(raw in "\\PC{0,40}", rule in any_rule()) {
            if let Ok(path) = normalise(&raw, rule) {
                prop_assert!(path.starts_with('/') && path.is_ascii());
            }
        }
    }
}
