//! What was read of a request that is rejected before its head is whole or sound: for its record alone, nothing is decided by it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, request};

use super::target;

/// A request as far as it was read.
#[derive(Debug, Default)]
pub struct Seen {
    pub method: Option<Method>,
    /// The request target, or its path and query; whatever bytes came.
    pub target: Option<Bytes>,
    pub version: Option<Version>,
    pub headers: HeaderMap,
}

/// More of a target is not kept.
const MOST_TARGET: usize = 8 << 10;
/// More of a method is not one.
const MOST_METHOD: usize = 128;
/// More fields are not kept.
const MOST_FIELDS: usize = 128;

impl Seen {
    /// A head that was read, whatever is wrong with it.
    pub fn of(head: &request::Parts) -> Box<Self> {
        let mut headers = head.headers.clone();
        if let Some(authority) = head.uri.authority()
            && !headers.contains_key(header::HOST)
            && let Ok(authority) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(header::HOST, authority);
        }
        Box::new(Self {
            method: Some(head.method.clone()),
            target: Some(match head.version {
                // It may not have been restored.
                Version::HTTP_2 => target::restored(target::of(head)),
                _ => Bytes::copy_from_slice(target::of(head).as_bytes()),
            }),
            version: Some(head.version),
            headers,
        })
    }

    /// The beginning of an HTTP/1 head. Where it is not whole, its last part may not be either.
    pub fn of_bytes(head: &[u8]) -> Box<Self> {
        let mut seen = Box::<Self>::default();
        let head = head.strip_prefix(b"\r\n").unwrap_or(head);
        let mut lines = head.split_inclusive(|byte| *byte == b'\n');
        let Some(line) = lines.next() else { return seen };
        let is_whole = line.ends_with(b"\n");
        let mut words = without_end(line).splitn(3, |byte| *byte == b' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        // Without anything behind it, it may be the half of one.
        let method = method.filter(|method| target.is_some() && method.len() <= MOST_METHOD);
        seen.method = method.and_then(|method| Method::from_bytes(method).ok());
        // What does not begin as a request need not have a target.
        let target = target.filter(|target| seen.method.is_some() && !target.is_empty());
        seen.target = target.map(|target| Bytes::copy_from_slice(&target[..target.len().min(MOST_TARGET)]));
        seen.version = match version {
            Some(b"HTTP/1.0") => Some(Version::HTTP_10),
            Some(b"HTTP/1.1") => Some(Version::HTTP_11),
            _ => None,
        };
        if is_whole && seen.target.is_some() {
            let fields = lines.take(MOST_FIELDS).filter(|line| line.ends_with(b"\n")).filter_map(field);
            seen.headers.extend(fields.map(|(name, value)| (Some(name), value)));
        }
        seen
    }
}

/// The line without its end.
fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = memchr::memchr(b':', line)?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        head: &[u8],
        method: Option<&str>,
        target: Option<&[u8]>,
        version: Option<Version>,
        host: Option<&str>,
    ) {
        let seen = Seen::of_bytes(head);
        let text = head.escape_ascii().to_string();
        assert_eq!(seen.method.as_ref().map(Method::as_str), method, "{text}");
        assert_eq!(seen.target.as_deref(), target, "{text}");
        assert_eq!(seen.version, version, "{text}");
        let read = seen.headers.get(header::HOST).map(|host| host.to_str().unwrap());
        assert_eq!(read, host, "{text}");
    }

    #[test]
    fn what_was_read_is_kept_and_nothing_is_made_up() {
        let v11 = Some(Version::HTTP_11);
        check(b"", None, None, None, None);
        check(b"PO", None, None, None, None);
        check(b"POST ", Some("POST"), None, None, None);
        check(b"POST /x", Some("POST"), Some(b"/x"), None, None);
        check(b"POST /x HTT", Some("POST"), Some(b"/x"), None, None);
        check(b"POST /x HTTP/2.0\r\nHost: a\r\n", Some("POST"), Some(b"/x"), None, Some("a"));
        check(
            b"\r\nPOST /x?y HTTP/1.1\r\nHost: a:1\r\nB: c\0\r\n\r\n",
            Some("POST"),
            Some(b"/x?y"),
            v11,
            Some("a:1"),
        );
        check(b"POST /x HTTP/1.1\r\nHost: a", Some("POST"), Some(b"/x"), v11, None);
        check(b"GET /\xff HTTP/1.0\n", Some("GET"), Some(b"/\xff"), Some(Version::HTTP_10), None);
        check(b"G\0T / HTTP/1.1\r\nHost: a\r\n", None, None, v11, None);
        check(b"\x16\x03\x01 \x02 \x03", None, None, None, None);
        check(&[b'A'; 100_000], None, None, None, None);
        let long = [b"GET /", &[b'a'; 100_000][..]].concat();
        check(&long, Some("GET"), Some(&long[4..][..MOST_TARGET]), None, None);
    }
}
