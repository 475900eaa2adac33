//! Path patterns: "/a/b", "/a/{id}", "/a/**", "/a/{rest...}".

use std::{fmt, ops::Range, str::FromStr};

use smallvec::SmallVec;

use crate::http::path::{EncodedSlash, PathError, normalise};

/// A pattern over the segments of a normalised path. "/p/**" and "/p/{rest...}" match /p, /p/ and all
/// below; `{x}` matches one segment that is not empty, so "/a/{x}" does not match "/a/b/".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: Box<str>,
    segments: Box<[Segment]>,
    captures: Box<[Box<str>]>,
}

/// One segment of a pattern. The order of the variants is the order of routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    Literal(Box<str>),
    Capture,
    /// The rest, always last.
    Rest,
}

/// A part of a path, in bytes.
pub type PathRange = Range<u32>;

/// What a pattern captured, in the pattern's order.
pub type Captured = SmallVec<[PathRange; 6]>;

/// More than any path needs, and few enough to walk by recursion.
const MAX_SEGMENTS: usize = 64;

impl PathPattern {
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it is "/" and nothing below it.
    pub fn is_root(&self) -> bool {
        *self.text == *"/"
    }

    /// The names captured, in the pattern's order.
    pub fn captures(&self) -> &[Box<str>] {
        &self.captures
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a "%2F" or "%5C" stands in it: paths have that only where encoded slashes are kept.
    pub fn has_encoded_slash(&self) -> bool {
        let encoded = |literal: &str| literal.contains("%2F") || literal.contains("%5C");
        self.segments.iter().any(|segment| matches!(segment, Segment::Literal(text) if encoded(text)))
    }

    /// What it captures of a normalised path, if it matches. The table's trie does the same for many
    /// patterns at once.
    pub fn matches(&self, path: &str) -> Option<Captured> {
        let named_rest =
            self.captures.len() > self.segments.iter().filter(|s| **s == Segment::Capture).count();
        let mut captured = Captured::new();
        let mut at = 0;
        for segment in &self.segments {
            let next = segment_at(path, at);
            match (segment, next) {
                (Segment::Rest, next) => {
                    let start = next.map_or(at, |range| range.start);
                    if named_rest {
                        captured.push(range(start..path.len()));
                    }
                    return Some(captured);
                }
                (Segment::Literal(text), Some(next)) if path[next.clone()] == **text => at = next.end,
                (Segment::Capture, Some(next)) if !next.is_empty() => {
                    at = next.end;
                    captured.push(range(next));
                }
                _ => return None,
            }
        }
        (at == path.len()).then_some(captured)
    }
}

/// The segment that starts with the slash at this place; none at the path's end.
pub fn segment_at(path: &str, at: usize) -> Option<Range<usize>> {
    let rest = path.get(at + 1..)?;
    let length = rest.find('/').unwrap_or(rest.len());
    Some(at + 1..at + 1 + length)
}

pub fn range(range: Range<usize>) -> PathRange {
    let byte = |at: usize| u32::try_from(at).expect("a request's head is far smaller than 4 GiB");
    byte(range.start)..byte(range.end)
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(inner) = text.strip_prefix('/') else {
            return Err(format!("a path starts with \"/\": \"/{text}\" is meant?"));
        };
        if text.contains(['?', '#']) {
            return Err(
                "a path pattern has no query and no fragment: conditions on the query go under `query`"
                    .into(),
            );
        }
        let (mut segments, mut captures): (Vec<Segment>, Vec<Box<str>>) = (Vec::new(), Vec::new());
        let mut parts = inner.split('/').peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let (segment, name) = read(part, last, text)?;
            if segment == Segment::Rest && !last {
                return Err(format!(
                    "{part:?} stands for the whole rest and so comes last; \"{{name}}\" is one segment"
                ));
            }
            if let Some(name) = name {
                if captures.iter().any(|taken| **taken == *name) {
                    return Err(format!("{{{name}}} is captured twice"));
                }
                captures.push(name.into());
            }
            segments.push(segment);
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(format!("it has {} segments, more than {MAX_SEGMENTS}", segments.len()));
        }
        Ok(Self { text: text.into(), segments: segments.into(), captures: captures.into() })
    }
}

/// One segment with the name that it captures.
fn read<'a>(part: &'a str, last: bool, whole: &str) -> Result<(Segment, Option<&'a str>), String> {
    if part == "**" {
        return Ok((Segment::Rest, None));
    }
    if let Some(inner) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        let (name, segment) = match inner.strip_suffix("...") {
            Some(name) => (name, Segment::Rest),
            None => (inner, Segment::Capture),
        };
        check_name(name)?;
        return Ok((segment, Some(name)));
    }
    if part.contains(['{', '}']) {
        return Err(format!(
            "{part:?}: a capture is a whole segment, as in \"/{{name}}\"; parts of segments are captured by {{ regex: '...' }}"
        ));
    }
    if part.contains('*') {
        return Err(format!(
            "{part:?}: \"*\" means nothing here: \"{{name}}\" is one segment, \"**\" at the end all below"
        ));
    }
    if part.is_empty() && !last {
        return Err(format!("double slashes are merged in requests: {:?} is meant?", merged(whole)));
    }
    check_literal(part)?;
    Ok((Segment::Literal(part.into()), None))
}

pub fn check_name(name: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    match first && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is no name for a capture: letters, digits, '_' and '-', first a letter or '_'"
        )),
    }
}

/// A literal that no normalised path has would never match.
fn check_literal(part: &str) -> Result<(), String> {
    if matches!(part, "." | "..") {
        return Err(format!("{part:?} is resolved in requests and never matches"));
    }
    let encoded: String = part.chars().map(escape_other).collect();
    match normalise(&format!("/{encoded}"), EncodedSlash::Keep) {
        Ok(normal) if normal[1..] == *part => Ok(()),
        Ok(normal) => Err(format!("requests have {part:?} as {:?}: write that", &normal[1..])),
        Err(PathError::BadEscape) => {
            Err(format!("{part:?}: \"%\" takes two hexadecimal digits; the character itself is \"%25\""))
        }
        Err(error) => Err(format!("{part:?} is in no path: {error}")),
    }
}

/// A character as a browser sends it.
fn escape_other(c: char) -> String {
    match c {
        ' ' | '\u{80}'.. => c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
        c => c.into(),
    }
}

fn merged(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    merged
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(pattern: &str, path: &str) -> Option<Vec<String>> {
        let pattern: PathPattern = pattern.parse().unwrap_or_else(|e| panic!("{pattern}: {e}"));
        let texts = |range: &PathRange| path[range.start as usize..range.end as usize].to_owned();
        pattern.matches(path).map(|captured| captured.iter().map(texts).collect())
    }

    #[test]
    fn literals_and_captures_match_whole_segments() {
        assert!(captured("/", "/").is_some());
        assert!(captured("/", "/a").is_none());
        assert!(captured("/a/b", "/a/b").is_some());
        assert!(captured("/a", "/a/").is_none());
        assert!(captured("/a/", "/a/").is_some());
        assert!(captured("/a/", "/a").is_none());
        assert_eq!(captured("/a/{x}/c/{y}", "/a/1/c/%2F").unwrap(), ["1", "%2F"]);
        assert!(captured("/a/{x}", "/a/").is_none());
        assert!(captured("/a/{x}", "/a/b/").is_none());
        assert!(captured("/{x}", "/").is_none());
    }

    #[test]
    fn the_rest_matches_the_prefix_and_all_below() {
        for (path, rest) in [("/p", ""), ("/p/", ""), ("/p/a", "a"), ("/p/a/b/", "a/b/")] {
            assert_eq!(captured("/p/{rest...}", path).unwrap(), [rest], "{path}");
            assert_eq!(captured("/p/**", path).unwrap(), [""; 0], "{path}");
        }
        assert!(captured("/p/**", "/pa").is_none());
        assert_eq!(captured("/{all...}", "/").unwrap(), [""]);
        assert_eq!(captured("/{all...}", "/a").unwrap(), ["a"]);
        assert_eq!(captured("/{x}/{rest...}", "/a/b").unwrap(), ["a", "b"]);
    }

    #[test]
    fn what_cannot_match_is_refused_with_what_is_meant() {
        for (text, hint) in [
            ("", "\"/\" is meant"),
            ("a", "\"/a\" is meant"),
            ("/a//b", "\"/a/b\" is meant"),
            ("/**/a", "comes last"),
            ("/{r...}/a", "comes last"),
            ("/{a}/{a}", "captured twice"),
            ("/{a}/{a...}", "captured twice"),
            ("/a{b}", "whole segment"),
            ("/{a}b", "whole segment"),
            ("/{a", "whole segment"),
            ("/{}", "no name"),
            ("/{...}", "no name"),
            ("/{a.b}", "no name"),
            ("/{a...b}", "no name"),
            ("/*", "\"{name}\" is one segment"),
            ("/a*", "\"{name}\" is one segment"),
            ("/a/./b", "resolved in requests"),
            ("/a/..", "resolved in requests"),
            ("/%61", "as \"a\""),
            ("/%c3", "as \"%C3\""),
            ("/ä", "as \"%C3%A4\""),
            ("/a b", "as \"a%20b\""),
            ("/100%", "%25"),
            ("/%00", "NUL"),
            ("/a?b", "under `query`"),
            ("/a\\b", "as \"a%5Cb\""),
            ("/a\tb", "control"),
        ] {
            let error = text.parse::<PathPattern>().unwrap_err();
            assert!(error.contains(hint), "{text:?}: {error}");
        }
        assert!("/a".repeat(MAX_SEGMENTS + 1).parse::<PathPattern>().is_err());
    }

    #[test]
    fn encoded_slashes_are_known() {
        assert!("/a%2Fb".parse::<PathPattern>().unwrap().has_encoded_slash());
        assert!(!"/a%20b".parse::<PathPattern>().unwrap().has_encoded_slash());
    }
}
