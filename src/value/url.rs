//! Where something is asked for over HTTP.

use std::{fmt, str::FromStr};

use http::{
    Uri,
    uri::{Authority, PathAndQuery},
};

/// An absolute URL of http or https. It names no user: a secret there would end up in logs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url {
    pub is_https: bool,
    authority: Authority,
    path: PathAndQuery,
}

super::text_value!(
    Url,
    "url",
    "An absolute URL of http or https.",
    "http://127.0.0.1:9000/verify",
    "https://id.example.com/jwks.json"
);

impl Url {
    /// Without the port; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.is_https { 443 } else { 80 })
    }

    /// The host, and the port where one is written.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    pub fn path(&self) -> &PathAndQuery {
        &self.path
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("{text:?} is no URL: {why}"));
        let Ok(uri) = text.parse::<Uri>() else { return wrong("http://HOST/PATH or https://HOST/PATH") };
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return wrong("it starts with http:// or https://"),
        };
        let parts = uri.into_parts();
        match (parts.authority, parts.path_and_query) {
            _ if text.contains('#') => wrong("a fragment is never sent"),
            (Some(authority), _) if authority.as_str().contains('@') => {
                Err("a URL names no user here: what it says is shown in logs".into())
            }
            (Some(authority), _) if authority.host().is_empty() => wrong("it names no host"),
            (Some(authority), _) if authority.port_u16() == Some(0) => wrong("nothing is reached by port 0"),
            (Some(authority), Some(path)) => Ok(Self { is_https, authority, path }),
            _ => wrong("it names no host"),
        }
    }
}

/// Without the query, which may hold what is nobody's business.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url: Url = "https://id.example.com/a?key=secret".parse().unwrap();
        assert_eq!((url.is_https, url.host(), url.port()), (true, "id.example.com", 443));
        assert_eq!(url.path(), "/a?key=secret");
        assert_eq!(format!("{url} {url:?}"), "https://id.example.com/a https://id.example.com/a");
        let url: Url = "http://[::1]:9000".parse().unwrap();
        assert_eq!((url.is_https, url.host(), url.port(), url.path().as_str()), (false, "::1", 9000, "/"));
    }

    #[test]
    fn what_is_none_is_refused() {
        for wrong in [
            "",
            "/a",
            "id.example.com",
            "ftp://a/",
            "http://",
            "http:///a",
            "https://u:p@a/",
            "http://a:0/",
            "http://a/#b",
        ] {
            let error = wrong.parse::<Url>().unwrap_err();
            assert!(!error.contains("u:p"), "{error}");
        }
    }
}
