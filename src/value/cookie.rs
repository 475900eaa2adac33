//! What a cookie that Portolan sets is called, and where browsers send it.

use std::{fmt, str::FromStr};

/// A cookie's name: a token (RFC 6265 section 4.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CookieName(Box<str>);

/// The path at and below which browsers send a cookie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CookiePath(Box<str>);

super::text_value!(CookieName, "cookie-name", "A cookie's name.", "PORTOLAN_ROUTE");
super::text_value!(CookiePath, "cookie-path", "The path at and below which a cookie is sent.", "/");

const LONGEST_NAME: usize = 128;
const LONGEST_PATH: usize = 1024;

// === impl CookieName ===

impl CookieName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CookieName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        match !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(is_token) {
            true => Ok(Self(text.into())),
            false => Err(format!(
                "invalid cookie name {text:?}: expected 1 to {LONGEST_NAME} letters, digits and !#$%&'*+-.^_`|~"
            )),
        }
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl CookiePath ===

impl CookiePath {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CookiePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |byte: u8| (b' '..0x7f).contains(&byte) && byte != b';';
        match text.starts_with('/') && text.len() <= LONGEST_PATH && text.bytes().all(is_allowed) {
            true => Ok(Self(text.into())),
            false => Err(format!(
                "invalid cookie path {text:?}: expected \"/\" at its start and printable ASCII without \";\", \
                 {LONGEST_PATH} bytes at most"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_that_a_field_cannot_hold_are_rejected() {
        for name in ["PORTOLAN_ROUTE", "__Host-a", "a.b~c"] {
            assert_eq!(name.parse::<CookieName>().map(|name| name.to_string()).as_deref(), Ok(name));
        }
        for name in ["", "a b", "a=b", "a;b", "a\"", "ü", &"a".repeat(129)] {
            assert!(name.parse::<CookieName>().is_err(), "{name}");
        }
        assert!("/".parse::<CookiePath>().is_ok() && "/a b".parse::<CookiePath>().is_ok());
        for path in ["", "a", "/a;b", "/a\n", "/ü"] {
            assert!(path.parse::<CookiePath>().is_err(), "{path}");
        }
    }
}
