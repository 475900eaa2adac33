//! The names that hosts answer to.

use std::{fmt, str::FromStr};

use crate::http::authority::{Authority, AuthorityError};

/// A name, `*.` and a suffix, or `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Lower-case, without trailing dot.
    Exact(Box<str>),
    /// Every name of one label or more before ".SUFFIX".
    Under(Box<str>),
    /// All that is left.
    Any,
}

impl HostPattern {
    /// Whether a host, as [`Authority`] gives it, is one of these.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Under(suffix) => host
                .strip_suffix(&**suffix)
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
            Self::Any => true,
        }
    }

    /// Whether every host that the other matches is one of these.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Any) | (Self::Exact(_), Self::Under(_)) => false,
            (Self::Under(all), Self::Under(some)) => all == some || self.matches(some),
            (_, Self::Exact(name)) => self.matches(name),
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (wildcard, name) = text.strip_prefix("*.").map_or((false, text), |suffix| (true, suffix));
        let authority = Authority::parse(name).map_err(|error| explain(text, error))?;
        if name.contains(':') && (authority.port.is_some() || name.ends_with(':')) {
            return Err(format!(
                "a host's name has no port: {:?} is meant? Ports belong to listeners",
                authority.host
            ));
        }
        match wildcard {
            true if name.starts_with('[') => Err("there is nothing under an address".into()),
            true => Ok(Self::Under(authority.host.into())),
            false => Ok(Self::Exact(authority.host.into())),
        }
    }
}

fn explain(text: &str, error: AuthorityError) -> String {
    if text.contains('*') {
        return format!("{text:?}: \"*\" stands alone or as the whole first label, as in \"*.example.com\"");
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return format!("an IPv6 address stands in brackets: \"[{text}]\"");
    }
    if text.contains('/') {
        return format!("{text:?} is no host: a name stands here without scheme and path");
    }
    if !text.is_ascii() {
        return format!(
            "{text:?}: names with letters outside ASCII are written as browsers send them, \"xn--...\""
        );
    }
    format!("{text:?} is no host: {error}")
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Under(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn names_are_read() {
        assert_eq!(pattern("WWW.Example.com."), HostPattern::Exact("www.example.com".into()));
        assert_eq!(pattern("*.Example.com"), HostPattern::Under("example.com".into()));
        assert_eq!(pattern("*"), HostPattern::Any);
        assert_eq!(pattern("[::1]"), HostPattern::Exact("[::1]".into()));
        for text in ["a.b", "*.a.b", "*", "[::1]", "10.0.0.1"] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label_or_more() {
        let under = pattern("*.example.com");
        assert!(under.matches("a.example.com"));
        assert!(under.matches("a.b.example.com"));
        assert!(!under.matches("example.com"));
        assert!(!under.matches("badexample.com"));
        assert!(!under.matches(".example.com"));
    }

    #[test]
    fn what_is_allowed_is_what_is_matched() {
        let covers = |all: &str, some: &str| pattern(all).covers(&pattern(some));
        for (all, some) in
            [("*", "*"), ("*", "*.a"), ("*.a", "*.a"), ("*.a", "*.b.a"), ("*.a", "c.b.a"), ("A.", "a")]
        {
            assert!(covers(all, some), "{all} allows {some}");
        }
        for (all, some) in
            [("*.a", "*"), ("*.a", "a"), ("*.b.a", "*.a"), ("a", "*.a"), ("*.a", "xa"), ("a", "b")]
        {
            assert!(!covers(all, some), "{all} does not allow {some}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_is_meant() {
        for (text, hint) in [
            ("example.com:80", "Ports belong to listeners"),
            ("example.com:", "Ports belong to listeners"),
            ("[::1]:80", "Ports belong to listeners"),
            ("a.*.com", "whole first label"),
            ("*a.com", "whole first label"),
            ("**", "whole first label"),
            ("::1", "[::1]"),
            ("https://a", "without scheme"),
            ("bücher.example", "xn--"),
            ("*.[::1]", "nothing under"),
            ("", "empty"),
            ("a b", "no host"),
        ] {
            let error = text.parse::<HostPattern>().unwrap_err();
            assert!(error.contains(hint), "{text:?}: {error}");
        }
    }
}
