//! A route's pattern: over segments, or by regular expression.

use std::{fmt, sync::Arc};

use super::{
    path::{Captured, PathPattern, Segment},
    regex::PathRegex,
};

/// One of a route's patterns. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Pattern {
    Path(Arc<PathPattern>),
    Regex(Arc<PathRegex>),
}

/// What templates of a route with these patterns may use: the names that all of them capture, in the
/// order of the first. [`crate::value::Params`] go by this order, whichever pattern matched.
pub fn captures(patterns: &[Pattern]) -> Vec<&str> {
    let Some((first, others)) = patterns.split_first() else { return Vec::new() };
    let everywhere = |name: &&str| others.iter().all(|other| other.captures().iter().any(|o| **o == **name));
    first.captures().iter().map(|name| &**name).filter(everywhere).collect()
}

impl Pattern {
    pub fn path(text: &str) -> Result<Self, String> {
        text.parse().map(Arc::new).map(Self::Path)
    }

    pub fn regex(text: &str) -> Result<Self, String> {
        PathRegex::parse(text).map(Arc::new).map(Self::Regex)
    }

    /// Whether every path matches.
    pub fn takes_all(&self) -> bool {
        match self {
            Self::Path(path) => matches!(path.segments(), [Segment::Rest]),
            Self::Regex(regex) => regex.matches_all(),
        }
    }

    /// Whether it is the path "/" and nothing below it.
    pub fn is_root(&self) -> bool {
        matches!(self, Self::Path(path) if path.is_root())
    }

    /// The names captured, in the pattern's own order.
    pub fn captures(&self) -> &[Box<str>] {
        match self {
            Self::Path(pattern) => pattern.captures(),
            Self::Regex(regex) => regex.captures(),
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Path(pattern) => pattern.as_str(),
            Self::Regex(regex) => regex.as_str(),
        }
    }

    /// What it captures of a normalised path, if it matches.
    pub fn matches(&self, path: &str) -> Option<Captured> {
        match self {
            Self::Path(pattern) => pattern.matches(path),
            Self::Regex(regex) => regex.matches(path),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(pattern) => pattern.fmt(f),
            Self::Regex(regex) => write!(f, "regex {}", regex.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_captures_what_all_its_patterns_capture() {
        let patterns = [
            Pattern::path("/a/{x}/{only}/{y}").unwrap(),
            Pattern::path("/b/{y}/{x}").unwrap(),
            Pattern::regex("^/c/(?<y>.)(?<x>.)").unwrap(),
        ];
        assert_eq!(captures(&patterns), ["x", "y"]);
        assert_eq!(captures(&patterns[..1]), ["x", "only", "y"]);
        assert!(captures(&[]).is_empty());
    }
}
