//! Cookies of Portolan's own and of others: found in a request, taken out of it, set by a response (RFC 6265).

use http::{HeaderMap, HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;

/// What follows the value of a cookie that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    text: Box<str>,
    secure: Secure,
}

/// Whether browsers send the cookie over https alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "CookieSecure")]
pub enum Secure {
    /// If the request came over https
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// Always
    #[serde(rename = "true")]
    Always,
    /// Never
    #[serde(rename = "false")]
    Never,
}

/// Whether browsers send the cookie with requests that other sites cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "CookieSameSite")]
pub enum SameSite {
    /// Only if the user follows a link
    #[default]
    Lax,
    /// Never
    Strict,
    /// Always; the cookie is then sent over https alone
    None,
}

/// The values of all cookies of this name.
pub fn values<'h, 'n>(headers: &'h HeaderMap, name: &'n str) -> impl Iterator<Item = &'h [u8]> + use<'h, 'n> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| value(pair, name))
}

/// Takes all cookies of this name out of a request. The others become one line.
pub fn remove(headers: &mut HeaderMap, name: &str) {
    let header::Entry::Occupied(mut lines) = headers.entry(header::COOKIE) else { return };
    let pairs = lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let rest: Vec<&[u8]> = pairs.filter(|pair| value(pair, name).is_none()).map(<[u8]>::trim_ascii).collect();
    match HeaderValue::from_bytes(&rest.join(&b"; "[..])) {
        Ok(rest) if !rest.is_empty() => drop(lines.insert(rest)),
        _ => drop(lines.remove_entry_mult()),
    }
}

/// The value of a pair that has this name (RFC 6265 section 5.4).
fn value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    (pair[..at].trim_ascii() == name.as_bytes()).then(|| pair[at + 1..].trim_ascii())
}

impl SameSite {
    /// As Set-Cookie says it.
    pub fn attribute(self) -> &'static str {
        match self {
            Self::Lax => "; SameSite=Lax",
            Self::Strict => "; SameSite=Strict",
            Self::None => "; SameSite=None",
        }
    }
}

impl Attributes {
    /// `text`: attributes as they stand in Set-Cookie, each after "; ", without Secure.
    pub fn new(text: impl Into<Box<str>>, secure: Secure) -> Self {
        Self { text: text.into(), secure }
    }

    /// The field that sets a cookie. `is_https`: how the request came. `None` where the value is none of a field.
    pub fn set_cookie(&self, name: &str, value: &str, is_https: bool) -> Option<HeaderValue> {
        let secure = match self.secure {
            Secure::Always => true,
            Secure::Auto => is_https,
            Secure::Never => false,
        };
        let secure = if secure { "; Secure" } else { "" };
        HeaderValue::try_from(format!("{name}={value}{}{secure}", self.text)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (header::COOKIE, HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn all_of_a_name_are_found_and_taken_out() {
        let mut headers = request(&["a=1; b=x=y;a =2", "c=; ab=3 ; a=4"]);
        assert_eq!(values(&headers, "a").collect::<Vec<_>>(), [&b"1"[..], b"2", b"4"]);
        assert_eq!(values(&headers, "c").collect::<Vec<_>>(), [b""]);
        remove(&mut headers, "a");
        assert_eq!(headers.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["b=x=y; c=; ab=3"]);
        ["b", "c", "ab"].iter().for_each(|name| remove(&mut headers, name));
        assert!(headers.is_empty());
        remove(&mut headers, "a");
    }

    #[test]
    fn a_cookie_is_secure_as_it_is_said() {
        let set =
            |secure, is_https| Attributes::new("; Path=/", secure).set_cookie("a", "1", is_https).unwrap();
        assert_eq!(set(Secure::Auto, false), "a=1; Path=/");
        assert_eq!(set(Secure::Auto, true), "a=1; Path=/; Secure");
        assert_eq!(set(Secure::Always, false), "a=1; Path=/; Secure");
        assert_eq!(set(Secure::Never, true), "a=1; Path=/");
        assert_eq!(Attributes::new("", Secure::Auto).set_cookie("a", "\n", true), None);
    }
}
