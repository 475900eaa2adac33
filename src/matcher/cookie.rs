//! Conditions on cookies (RFC 6265 section 5.4). Of several cookies of one name the first counts.

use std::fmt;

use http::header;

use super::{Facts, text::Test};

/// A cookie passes a test.
#[derive(Clone, Debug, PartialEq)]
pub struct Cookie {
    pub name: Box<str>,
    pub test: Test,
}

impl Cookie {
    pub fn holds(&self, facts: &impl Facts) -> bool {
        // HTTP/2 may split the field into a line for each cookie (RFC 9113 section 8.2.3).
        let value = facts.header(&header::COOKIE).find_map(|line| cookie(line, self.name.as_bytes()));
        self.test.holds(value)
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cookie {} {}", self.name, self.test)
    }
}

/// The value of a cookie in a line of the Cookie field: the first of that name.
pub fn cookie<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    line.split(|byte| *byte == b';').find_map(|pair| {
        let (given, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
        (given.trim_ascii() == name).then(|| value[1..].trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found() {
        assert_eq!(cookie(b"a=1; b=2", b"b"), Some(&b"2"[..]));
        assert_eq!(cookie(b"a=1;b=x=y ;c", b"b"), Some(&b"x=y"[..]));
        assert_eq!(cookie(b"a=1; a=2", b"a"), Some(&b"1"[..]));
        assert_eq!(cookie(b"ab=1; =; c", b"a"), None);
        assert_eq!(cookie(b"a=", b"a"), Some(&b""[..]));
    }
}
