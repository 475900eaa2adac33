//! Conditions on the query's parameters. Names and values are compared decoded (`%41` is A, `+` a space);
//! of several parameters of one name the first counts.

use std::{borrow::Cow, fmt};

use percent_encoding::percent_decode;

use super::{Facts, text::Test};

/// A parameter passes a test.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub name: Box<str>,
    pub test: Test,
}

impl Query {
    pub fn holds(&self, facts: &impl Facts) -> bool {
        let value = facts.query().and_then(|query| parameter(query, &self.name));
        self.test.holds(value.as_deref())
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query {} {}", self.name, self.test)
    }
}

/// The decoded value of the first parameter of this name; empty where it has no "=".
fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(given, _)| decoded(given).as_ref() == name.as_bytes())?;
    Some(decoded(value))
}

/// Borrowed where nothing is encoded.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode(spaced.as_bytes()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(query: &str, name: &str) -> Option<String> {
        parameter(query, name).map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    #[test]
    fn parameters_are_found_and_decoded() {
        assert_eq!(value("a=1&b=2", "b").as_deref(), Some("2"));
        assert_eq!(value("a=1+2%2B%20", "a").as_deref(), Some("1 2+ "));
        assert_eq!(value("%61+b=x", "a b").as_deref(), Some("x"));
        assert_eq!(value("a", "a").as_deref(), Some(""));
        assert_eq!(value("a=", "a").as_deref(), Some(""));
        assert_eq!(value("a=b=c", "a").as_deref(), Some("b=c"));
        assert_eq!(value("&&a=1&a=2", "a").as_deref(), Some("1"));
        assert_eq!(value("a=%zz%", "a").as_deref(), Some("%zz%"));
        assert_eq!(value("ab=1", "a"), None);
        assert_eq!(value("", ""), None);
    }

    #[test]
    fn what_is_not_encoded_is_not_copied() {
        assert!(matches!(parameter("a=b", "a"), Some(Cow::Borrowed(b"b"))));
    }
}
