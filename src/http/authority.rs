//! The host that a request names, by Host or `:authority` (RFC 9110 section 7.2), read strictly: what is
//! not plainly a host is refused before anything is chosen by it.

use std::{borrow::Cow, net::Ipv6Addr};

use super::external::default_port;

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Lower-case, without a trailing dot; an IPv6 address stands in brackets, in its shortest form.
    pub host: Cow<'a, str>,
    pub port: Option<u16>,
}

/// Why an authority is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthorityError {
    #[error("the host is empty")]
    Empty,
    #[error("a user stands before the host")]
    UserInfo,
    #[error("a character stands in the host that no name has")]
    BadCharacter,
    #[error("a label of the host is empty or longer than 63 bytes, or the host longer than 253")]
    BadLength,
    #[error("what stands in brackets is no IPv6 address")]
    BadIpv6,
    #[error("the port is no number from 1 to 65535")]
    BadPort,
}

impl<'a> Authority<'a> {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`. An empty port is no port (RFC 3986 section 6.2.3).
    pub fn parse(text: &'a str) -> Result<Self, AuthorityError> {
        if text.contains('@') {
            return Err(AuthorityError::UserInfo);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(literal) => {
                let (address, rest) = literal.split_once(']').ok_or(AuthorityError::BadIpv6)?;
                let port = match rest {
                    "" => None,
                    rest => Some(rest.strip_prefix(':').ok_or(AuthorityError::BadIpv6)?),
                };
                (ipv6(address)?, port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (name(host)?, Some(port)),
                None => (name(text)?, None),
            },
        };
        Ok(Self { host, port: port.map_or(Ok(None), self::port)? })
    }
}

impl Authority<'_> {
    /// Whether both name one entity for URIs of this scheme: a port that is not written is the scheme's (RFC 3986 section
    /// 6.2.3). Without a scheme, as CONNECT has none, what is not written does not contradict.
    pub fn names_the_same(&self, other: &Authority<'_>, scheme: Option<&str>) -> bool {
        let port = |port: Option<u16>| port.or(scheme.and_then(default_port));
        let ports = match (port(self.port), port(other.port)) {
            (Some(one), Some(other)) => one == other,
            (None, None) => true,
            _ => scheme.is_none(),
        };
        ports && self.host == other.host
    }
}

/// Whether two texts name one entity. Those that are equal are not read.
pub fn are_the_same(one: &str, other: &str, scheme: Option<&str>) -> bool {
    if one.eq_ignore_ascii_case(other) {
        return true;
    }
    match (Authority::parse(one), Authority::parse(other)) {
        (Ok(one), Ok(other)) => one.names_the_same(&other, scheme),
        _ => false,
    }
}

/// Whether a URI reference that has an authority names a host in it (RFC 9110 section 4.2.2): text that a request has not
/// makes `https:///path` of a template.
pub fn names_host(reference: &str) -> bool {
    let Some(rest) = behind_slashes(reference) else { return true };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A name in another script may be percent-encoded, in which no port and no user hides.
    match authority.contains('%') {
        true => !authority.contains('@') && !authority.starts_with(['.', ':']),
        false => Authority::parse(authority).is_ok(),
    }
}

/// What follows `//` of a reference with an authority, where it is one of HTTP or of the same scheme.
fn behind_slashes(reference: &str) -> Option<&str> {
    if let Some(rest) = reference.strip_prefix("//") {
        return Some(rest);
    }
    let (scheme, rest) = reference.split_once("://")?;
    ["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)).then_some(rest)
}

fn name(text: &str) -> Result<Cow<'_, str>, AuthorityError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(AuthorityError::Empty);
    }
    let (mut label, mut upper) = (0, false);
    for byte in name.bytes() {
        match byte {
            b'.' if label == 0 => return Err(AuthorityError::BadLength),
            b'.' => label = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                upper |= byte.is_ascii_uppercase();
                label += 1;
            }
            _ => return Err(AuthorityError::BadCharacter),
        }
        if label > 63 {
            return Err(AuthorityError::BadLength);
        }
    }
    if label == 0 || name.len() > 253 {
        return Err(AuthorityError::BadLength);
    }
    Ok(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

fn ipv6<'a>(address: &str) -> Result<Cow<'a, str>, AuthorityError> {
    let address: Ipv6Addr = address.parse().map_err(|_| AuthorityError::BadIpv6)?;
    Ok(Cow::Owned(format!("[{address}]")))
}

fn port(text: &str) -> Result<Option<u16>, AuthorityError> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|&port| digits && port != 0);
    port.map(Some).ok_or(AuthorityError::BadPort)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_are_read() {
        for (text, host, port) in [
            ("example.com", "example.com", None),
            ("Example.COM", "example.com", None),
            ("example.com.", "example.com", None),
            ("example.com.:80", "example.com", Some(80)),
            ("example.com:", "example.com", None),
            ("a_b-c.d:65535", "a_b-c.d", Some(65535)),
            ("10.0.0.1:08080", "10.0.0.1", Some(8080)),
            ("[::1]", "[::1]", None),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]", Some(443)),
        ] {
            let read = Authority::parse(text).unwrap();
            assert_eq!((&*read.host, read.port), (host, port), "{text}");
        }
        assert!(matches!(Authority::parse("a.b:1").unwrap().host, Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        use AuthorityError::*;
        let long = "a".repeat(64);
        for (text, wanted) in [
            ("", Empty),
            (".", Empty),
            (":80", Empty),
            ("user@host", UserInfo),
            ("a,b", BadCharacter),
            ("a b", BadCharacter),
            ("a/b", BadCharacter),
            ("a%41", BadCharacter),
            ("ä.com", BadCharacter),
            ("a\0", BadCharacter),
            ("*.a", BadCharacter),
            ("a..b", BadLength),
            (".a", BadLength),
            ("a..", BadLength),
            (&long, BadLength),
            ("[::1", BadIpv6),
            ("[::1]x", BadIpv6),
            ("[fe80::1%25eth0]", BadIpv6),
            ("[v1.x]", BadIpv6),
            ("a:0", BadPort),
            ("a:65536", BadPort),
            ("a:+80", BadPort),
            ("a:80:80", BadPort),
            ("a:000080", BadPort),
            ("::1", Empty),
        ] {
            assert_eq!(Authority::parse(text), Err(wanted), "{text:?}");
        }
        assert_eq!(Authority::parse(&"a.".repeat(130)), Err(BadLength));
    }

    #[test]
    fn entities_are_compared_and_not_their_spelling() {
        for (one, other, scheme) in [
            ("a.test", "A.test", Some("http")),
            ("a.test", "a.test:443", Some("https")),
            ("a.test:80", "a.test", Some("http")),
            ("a.test:", "a.test:80", Some("http")),
            ("a.test.", "a.test:0443", Some("https")),
            ("a.test", "a.test:80", Some("ws")),
            ("[::1]", "[0:0::1]:443", Some("wss")),
            ("a.test:443", "a.test", None),
            ("a.test", "a.test:", Some("ftp")),
        ] {
            assert!(are_the_same(one, other, scheme) && are_the_same(other, one, scheme), "{one} {other}");
        }
        for (one, other, scheme) in [
            ("a.test", "b.test", Some("http")),
            ("a.test", "a.test:443", Some("http")),
            ("a.test:80", "a.test", Some("https")),
            ("a.test:81", "a.test:82", None),
            ("a.test", "a.test:21", Some("ftp")),
            ("a.test", "u@a.test", Some("http")),
            ("a.test", "", Some("http")),
        ] {
            assert!(!are_the_same(one, other, scheme) && !are_the_same(other, one, scheme), "{one} {other}");
        }
    }

    #[test]
    fn a_host_is_told_from_its_absence() {
        for whole in [
            "/x",
            "x",
            "",
            "?x=http:///",
            "https://a",
            "HTTPS://a:8443/x",
            "//a/x",
            "app:///x",
            "https://%C3%A4.test/",
        ] {
            assert!(names_host(whole), "{whole}");
        }
        for lacking in [
            "https:///x",
            "https://",
            "http://:80/x",
            "///x",
            "//?x",
            "https://.a.test/",
            "https://u@a/",
            "wss:///",
        ] {
            assert!(!names_host(lacking), "{lacking}");
        }
    }

    proptest! {
        #[test]
        fn what_was_read_reads_the_same_again(text in "[aB0.:\\[\\]@-]{0,12}") {
            if let Ok(once) = Authority::parse(&text) {
                prop_assert_eq!(&*Authority::parse(&once.host).unwrap().host, &*once.host);
            }
        }
    }
}
