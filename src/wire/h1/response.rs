//! Parses response heads as strictly as request heads (RFC 9112 sections 4, 5 and 6): a response that two parsers could
//! read differently is an error.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, response};

use super::{
    body::BodyLength,
    name,
    scan::{self, LineEnds},
};

/// The largest response head that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head.
    pub size: usize,
    /// Field lines.
    pub fields: usize,
}

/// A parsed response head.
#[derive(Debug)]
pub struct Head {
    pub parts: response::Parts,
    /// Whether the origin keeps the connection open (RFC 9112 section 9.3).
    pub keep_alive: bool,
    framing: Framing,
}

/// What the head says about the length of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Unstated,
    Length(u64),
    Chunked,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { size: 256 * 1024, fields: 256 }
    }
}

/// Takes a head off the buffer: `None` while it is not complete. `scanned` remembers how far it was looked at.
pub fn take(
    buffer: &mut BytesMut,
    scanned: &mut usize,
    limits: &HeadLimits,
) -> Result<Option<Head>, &'static str> {
    const START: &[u8] = b"HTTP/1.";
    let compared = buffer.len().min(START.len());
    if buffer[..compared] != START[..compared] {
        return Err("the response does not start with HTTP/1.x");
    }
    let mut ends = LineEnds::new();
    match scan::find_lines(buffer, scanned, &mut ends) {
        Err(scan::BareLineFeed) => Err("a line of the response head ends with a bare LF"),
        Ok(false) if buffer.len() >= limits.size => Err("the response head is too large"),
        Ok(false) => Ok(None),
        Ok(true) => {
            *scanned = 0;
            let length = ends.last().copied().unwrap_or_default();
            match length > limits.size {
                true => Err("the response head is too large"),
                false => parse(&buffer.split_to(length).freeze(), &ends, limits).map(Some),
            }
        }
    }
}

fn parse(head: &Bytes, ends: &LineEnds, limits: &HeadLimits) -> Result<Head, &'static str> {
    let mut response = httparse::Response::new(&mut []);
    // Of the status line alone: the fields are read below.
    response.parse(&head[..ends[0]]).map_err(describe)?;
    let (Some(code), Some(version)) = (response.code, response.version) else {
        return Err("the response head is malformed");
    };
    let mut scan = FieldScan::default();
    let mut scanned = Ok(());
    let mut headers = HeaderMap::with_capacity(ends.len() + ADDED);
    for (number, line) in scan::field_lines(head, ends).enumerate() {
        if number == limits.fields {
            return Err("the response has too many fields");
        }
        let line = line.map_err(|scan::NoColon| "a field line has no colon")?;
        let name = name::read(line.name).map_err(|_| "a field name is malformed")?;
        let text = &head[line.value.clone()];
        if scanned.is_ok() {
            scanned = scan.see(&name, text);
        }
        if name == header::CONNECTION && is_of_connection_alone(text) {
            // Nothing else is to be found in it.
            continue;
        }
        let value = HeaderValue::from_maybe_shared(head.slice(line.value))
            .map_err(|_| "a field value is malformed")?;
        headers.append(name, value);
    }
    let mut parts = response::Response::new(()).into_parts().0;
    parts.status =
        StatusCode::from_u16(code).map_err(|_| "the status code is not a number from 100 to 999")?;
    scanned?;
    parts.version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = headers;
    scan.finish(parts)
}

/// Whether a Connection field names no other field.
fn is_of_connection_alone(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
}

/// With the lines that are no fields, about as many fields are added on the way to the client: the map need not grow.
const ADDED: usize = 6;

fn describe(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::Version => "the HTTP version of the response is not 1.0 or 1.1",
        httparse::Error::Status => "the status line is malformed",
        _ => "the response head is malformed",
    }
}

/// What framing and the life of the connection need of the fields, gathered in one walk.
#[derive(Default)]
struct FieldScan {
    length: Option<u64>,
    /// Several equal lengths, which become one (RFC 9110 section 8.6).
    repeated_length: bool,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl FieldScan {
    fn see(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), &'static str> {
        match *name {
            header::CONTENT_LENGTH => {
                for element in value.split(|byte| *byte == b',') {
                    self.content_length(element.trim_ascii())?;
                }
                Ok(())
            }
            // RFC 9112 section 6.1: chunked is applied once, and nothing else was offered to the origin.
            header::TRANSFER_ENCODING if self.chunked || !value.eq_ignore_ascii_case(b"chunked") => {
                Err("Transfer-Encoding is not a single \"chunked\"")
            }
            header::TRANSFER_ENCODING => {
                self.chunked = true;
                Ok(())
            }
            header::CONNECTION => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn content_length(&mut self, digits: &[u8]) -> Result<(), &'static str> {
        if !(1..=18).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
            return Err("Content-Length is not a number");
        }
        let length = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        match self.length.replace(length) {
            None => Ok(()),
            Some(before) if before == length => {
                self.repeated_length = true;
                Ok(())
            }
            Some(_) => Err("the response has two different Content-Lengths"),
        }
    }

    fn finish(self, mut parts: response::Parts) -> Result<Head, &'static str> {
        let http11 = parts.version == Version::HTTP_11;
        let framing = match (self.chunked, self.length) {
            (true, Some(_)) => return Err("the response has Content-Length beside Transfer-Encoding"),
            (true, None) if !http11 => return Err("an HTTP/1.0 response has Transfer-Encoding"),
            (true, None) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Unstated,
        };
        if self.repeated_length
            && let Framing::Length(length) = framing
        {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let keep_alive = !self.close && (http11 || self.keep_alive);
        Ok(Head { parts, keep_alive, framing })
    }
}

impl Head {
    /// The length of the body that follows (RFC 9112 section 6.3).
    pub fn body(&self, method: &Method) -> BodyLength {
        let status = self.parts.status;
        if *method == Method::HEAD
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        {
            return BodyLength::Empty;
        }
        match self.framing {
            Framing::Length(0) => BodyLength::Empty,
            Framing::Length(length) => BodyLength::Exact(length),
            Framing::Chunked => BodyLength::Chunked,
            Framing::Unstated => BodyLength::UntilClose,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { size: 4096, fields: 100 };

    fn read(text: &[u8]) -> Result<Option<Head>, &'static str> {
        take(&mut BytesMut::from(text), &mut 0, &LIMITS)
    }

    fn head(fields: &str) -> Result<Head, &'static str> {
        Ok(read(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes())?.expect("the head is complete"))
    }

    #[test]
    fn a_head_is_read_in_whatever_pieces_it_comes() {
        let text = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 3\r\n\r\nabc";
        let (mut buffer, mut scanned) = (BytesMut::new(), 0);
        for byte in &text[..text.len() - 4] {
            buffer.extend_from_slice(&[*byte]);
            assert!(take(&mut buffer, &mut scanned, &LIMITS).unwrap().is_none());
        }
        buffer.extend_from_slice(b"\nabc");
        let head = take(&mut buffer, &mut scanned, &LIMITS).unwrap().unwrap();
        assert_eq!((head.parts.status, &head.parts.headers["a"]), (StatusCode::OK, &"b".parse().unwrap()));
        assert_eq!((head.body(&Method::GET), head.keep_alive), (BodyLength::Exact(3), true));
        assert_eq!(&buffer[..], b"abc");
    }

    #[test]
    fn the_body_length_follows_from_method_status_and_fields() {
        let length = |fields: &str| head(fields).unwrap().body(&Method::GET);
        assert_eq!(length(""), BodyLength::UntilClose);
        assert_eq!(length("Content-Length: 0\r\n"), BodyLength::Empty);
        assert_eq!(length("Transfer-Encoding: Chunked\r\n"), BodyLength::Chunked);
        assert_eq!(head("Content-Length: 5\r\n").unwrap().body(&Method::HEAD), BodyLength::Empty);
        for bodiless in ["204 No Content", "304 Not Modified", "103 Early Hints"] {
            let text = format!("HTTP/1.1 {bodiless}\r\nContent-Length: 5\r\n\r\n");
            assert_eq!(read(text.as_bytes()).unwrap().unwrap().body(&Method::GET), BodyLength::Empty);
        }
    }

    #[test]
    fn equal_lengths_become_one() {
        for fields in ["Content-Length: 5, 5\r\n", "Content-Length: 5\r\nContent-Length: 5\r\n"] {
            let head = head(fields).unwrap();
            assert_eq!(head.body(&Method::GET), BodyLength::Exact(5));
            let lines: Vec<_> = head.parts.headers.get_all(header::CONTENT_LENGTH).iter().collect();
            assert_eq!(lines, ["5"]);
        }
    }

    #[test]
    fn ambiguous_and_malformed_heads_are_errors() {
        for fields in [
            "Content-Length: 5, 6\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5,\r\n",
            "Content-Length: \r\n",
            "Content-Length: 9999999999999999999\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: \r\n",
            "A : b\r\n",
            " A: b\r\n",
            "A: b\r\n c\r\n",
            "A: b\rc\r\n",
            "A: b\0c\r\n",
            "A b\r\n",
            ": b\r\n",
            "A: b\n",
        ] {
            assert!(head(fields).is_err(), "{fields:?}");
        }
        for text in [
            &b"hello"[..],
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.2 200 OK\r\n\r\n",
            b"\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 99 No\r\n\r\n",
            b"HTTP/1.1 20 No\r\n\r\n",
            b"HTTP/1.1 2000 No\r\n\r\n",
            b"HTTP/1.1 200OK\r\n\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 200 OK\n\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(read(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_head_has_limits() {
        let many = |count: usize| head(&"A: b\r\n".repeat(count));
        assert_eq!(many(100).unwrap().parts.headers.len(), 100);
        assert!(many(101).is_err());
        let long = format!("A: {}\r\n", "b".repeat(4096));
        assert!(head(&long).is_err());
        let endless = [b"HTTP/1.1 200 OK\r\nA: ", &[b'a'; 5000][..]].concat();
        assert!(read(&endless).is_err());
    }

    #[test]
    fn a_connection_lives_on_as_its_version_and_fields_say() {
        assert!(!head("Connection: close\r\n").unwrap().keep_alive);
        assert!(!head("Connection: keep-alive, Close\r\n").unwrap().keep_alive);
        let old = |fields: &str| {
            read(format!("HTTP/1.0 200 OK\r\n{fields}\r\n").as_bytes()).unwrap().unwrap().keep_alive
        };
        assert!(!old("") && old("Connection: Keep-Alive\r\n"));
    }
}
