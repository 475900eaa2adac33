//! Words of the CORS protocol (Fetch standard, "HTTP extensions"): origins, and what a preflight asks for.

use http::{HeaderMap, Method, header};

/// The origins that a configuration means by one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// This one, as browsers write it.
    Exact(Box<str>),
    /// Those of all hosts under one: what stands before their names and after them.
    Under { start: Box<str>, end: Box<str> },
}

/// Why a text is no origin, and what may have been meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginError {
    pub reason: &'static str,
    pub suggestion: Option<String>,
}

/// The method that a preflight asks for; `None` where a request is none.
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    Method::from_bytes(headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

impl OriginPattern {
    /// Parses `https://app.example.com`, `https://*.example.com:8443` or `null`.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text == "null" {
            return Ok(Self::Exact(text.into()));
        }
        let Some((scheme, authority)) = text.split_once("://") else {
            let reason =
                "an origin is a scheme and a host, and the port where it is another than the scheme's";
            return error(reason, (!text.contains(':')).then(|| format!("https://{text}")));
        };
        if let Some(end) = authority.find(['/', '?', '#']) {
            let reason = "an origin ends with its host and port: it has no path";
            return error(reason, Some(format!("{scheme}://{}", &authority[..end])));
        }
        let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
        let (host, port) = split_port(&authority);
        let (wildcard, host) = match host.strip_prefix("*.") {
            Some(parent) => (true, parent),
            None => (false, host),
        };
        if host.contains('*') {
            return error("\"*.\" stands for the names under one, at the start of a host only", None);
        }
        if !is_scheme(&scheme) || !is_host(host) {
            return error(
                "browsers write an origin's scheme and host in ASCII letters, digits, '-', '.'",
                None,
            );
        }
        let port = match port {
            None => String::new(),
            Some(port) if port.parse::<u16>().is_ok_and(|port| port != 0) => {
                if is_usual(&scheme, port) {
                    String::new()
                } else {
                    format!(":{port}")
                }
            }
            Some(_) => return error("a port is a number from 1 to 65535", None),
        };
        Ok(match wildcard {
            true => {
                Self::Under { start: format!("{scheme}://").into(), end: format!(".{host}{port}").into() }
            }
            false => Self::Exact(format!("{scheme}://{host}{port}").into()),
        })
    }

    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *origin,
            Self::Under { start, end } => {
                origin.strip_prefix(&**start).and_then(|rest| rest.strip_suffix(&**end)).is_some_and(is_name)
            }
        }
    }
}

fn error(reason: &'static str, suggestion: Option<String>) -> Result<OriginPattern, OriginError> {
    Err(OriginError { reason, suggestion })
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Browsers leave a scheme's own port out.
fn is_usual(scheme: &str, port: &str) -> bool {
    matches!((scheme, port), ("http", "80") | ("https", "443"))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn is_host(text: &str) -> bool {
    let literal = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    is_name(text) || literal.is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_as_browsers_write_them() {
        for (pattern, fits, others) in [
            (
                "https://app.example.com",
                &["https://app.example.com"][..],
                &[
                    "http://app.example.com",
                    "https://app.example.com:8443",
                    "https://app.example.com.evil.example",
                    "https://evil.example/https://app.example.com",
                    "null",
                    "",
                ][..],
            ),
            ("HTTPS://App.Example.com:443", &["https://app.example.com"], &["https://app.example.com:443"]),
            (
                "http://localhost:3000",
                &["http://localhost:3000"],
                &["http://localhost", "http://localhost:30001"],
            ),
            (
                "https://*.example.com",
                &["https://a.example.com", "https://a.b.example.com"],
                &[
                    "https://example.com",
                    "https://.example.com",
                    "https://evilexample.com",
                    "https://evil.example/.example.com",
                    "https://evil.example:80.example.com",
                    "https://a@b.example.com",
                    "http://a.example.com",
                    "https://a.example.com:8443",
                ],
            ),
            ("https://*.example.com:8443", &["https://a.example.com:8443"], &["https://a.example.com"]),
            ("https://[::1]:8443", &["https://[::1]:8443"], &["https://[::1]"]),
            ("capacitor://localhost", &["capacitor://localhost"], &["https://localhost"]),
            ("null", &["null"], &["https://null"]),
        ] {
            let pattern = OriginPattern::parse(pattern).unwrap();
            assert!(fits.iter().all(|origin| pattern.matches(origin)), "{pattern:?} {fits:?}");
            assert!(!others.iter().any(|origin| pattern.matches(origin)), "{pattern:?} {others:?}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_no_origin() {
        for (text, suggestion) in [
            ("app.example.com", Some("https://app.example.com")),
            ("https://app.example.com/", Some("https://app.example.com")),
            ("https://app.example.com/login?x", Some("https://app.example.com")),
            ("https://*", None),
            ("https://a*.example.com", None),
            ("*://example.com", None),
            ("https://", None),
            ("https://bücher.example", None),
            ("https://user@example.com", None),
            ("https://example.com:0", None),
            ("https://example.com:https", None),
            ("localhost:3000", None),
        ] {
            let error = OriginPattern::parse(text).expect_err(text);
            assert_eq!(error.suggestion.as_deref(), suggestion, "{text}");
        }
    }
}
