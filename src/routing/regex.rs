//! Paths by regular expression.

use regex_syntax::hir::{Look, literal::Extractor};

use super::path::{Captured, check_name, range};

/// A regular expression over the normalised path; its named groups are captures.
#[derive(Clone, Debug)]
pub struct PathRegex {
    regex: regex::Regex,
    captures: Box<[Box<str>]>,
    /// What every path that matches starts with, one of these; none where that is not known.
    prefixes: Option<Box<[Box<[u8]>]>>,
}

impl PathRegex {
    pub fn parse(text: &str) -> Result<Self, String> {
        let regex = regex::Regex::new(text).map_err(|error| error.to_string())?;
        let captures: Box<[Box<str>]> = regex.capture_names().flatten().map(Box::from).collect();
        captures.iter().try_for_each(|name| check_name(name))?;
        Ok(Self { regex, captures, prefixes: prefixes(text) })
    }

    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// The names of its groups.
    pub fn captures(&self) -> &[Box<str>] {
        &self.captures
    }

    pub fn is_match(&self, path: &str) -> bool {
        self.regex.is_match(path)
    }

    /// What the named groups captured, if it matches; a group that took no part is empty.
    pub fn matches(&self, path: &str) -> Option<Captured> {
        if self.captures.is_empty() {
            return self.is_match(path).then(Captured::new);
        }
        let groups = self.regex.captures(path)?;
        let group = |name: &str| groups.name(name).map_or(0..0, |group| range(group.range()));
        Some(self.captures.iter().map(|name| group(name)).collect())
    }

    /// Whether it is seen from what they start with that no path matches both.
    pub fn excludes(&self, other: &Self) -> bool {
        let (Some(ours), Some(theirs)) = (&self.prefixes, &other.prefixes) else { return false };
        ours.iter().all(|a| theirs.iter().all(|b| !a.starts_with(b) && !b.starts_with(a)))
    }

    /// Whether it is one of the plain ways to write "every path".
    pub fn matches_all(&self) -> bool {
        matches!(self.as_str(), "" | "^" | "/" | "^/" | ".*" | "^.*" | "^.*$" | "/.*" | "^/.*" | "^/.*$")
    }
}

fn prefixes(text: &str) -> Option<Box<[Box<[u8]>]>> {
    let hir = regex_syntax::parse(text).ok()?;
    if !hir.properties().look_set_prefix().contains(Look::Start) {
        return None;
    }
    let found = Extractor::new().extract(&hir);
    let literals = found.literals()?.iter().map(|literal| literal.as_bytes().into());
    Some(literals.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_groups_are_captured() {
        let regex = PathRegex::parse("^/v(?<major>[0-9]+)/(?<rest>x.*)?").unwrap();
        assert_eq!(regex.captures().iter().map(|name| &**name).collect::<Vec<_>>(), ["major", "rest"]);
        assert_eq!(regex.matches("/v12/").unwrap().as_slice(), [2..4, 0..0]);
        assert_eq!(regex.matches("/v1/xy").unwrap().as_slice(), [2..3, 4..6]);
        assert!(regex.matches("/vx/").is_none());
    }

    #[test]
    fn what_is_no_regex_is_refused() {
        assert!(PathRegex::parse("(").is_err());
        assert!(PathRegex::parse("(?<a.b>x)").is_err());
    }

    #[test]
    fn different_beginnings_exclude_each_other() {
        let excludes =
            |a: &str, b: &str| PathRegex::parse(a).unwrap().excludes(&PathRegex::parse(b).unwrap());
        assert!(excludes("^/v[0-9]+/", "^/w"));
        assert!(excludes("^/(a|b)/", "^/c/"));
        assert!(!excludes("^/a", "^/ab"));
        assert!(!excludes("^/a", "b"));
        assert!(!excludes("^/a|^/b", "^/b"));
        assert!(!excludes("^.*x", "^/b"));
    }
}
