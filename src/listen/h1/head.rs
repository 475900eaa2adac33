//! Reads a request's head as strictly as RFC 9112 allows: what two parsers could read in two ways is refused.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header,
    request::{self, Parts},
};

use super::partial::Partial;
use crate::{
    error::Reason,
    http::{
        seen::Seen,
        target::{self, Raw, WholeServer},
        token::is_token,
    },
    listen::head::MOST_METHOD,
    wire::h1::{
        body::BodyLength,
        name,
        scan::{self, LineEnds},
    },
};

/// What a connection takes of a head.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole head.
    pub size: usize,
    pub fields: usize,
    /// Bytes of the request's target.
    pub target: usize,
}

/// A head that was read.
#[derive(Debug)]
pub struct Head {
    pub parts: Parts,
    pub length: BodyLength,
    /// Whether the client lets the connection live on (RFC 9112 section 9.3).
    pub keep_alive: bool,
    pub expects_continue: bool,
}

/// More fields are not read; past the configured number they are refused with 431.
const MOST_FIELDS: usize = 256;
/// With the lines that are no fields, about as many are added on the way to the origin: the map need not grow.
const ADDED: usize = 6;

/// How far a buffer was looked at for the end of a head.
#[derive(Debug, Default)]
pub struct Scan {
    at: usize,
    partial: Partial,
}

/// Why there is no head, and what was read of it.
#[derive(Debug)]
pub struct Rejected {
    pub reason: Reason,
    pub seen: Box<Seen>,
}

impl Rejected {
    fn new(reason: Reason, head: &[u8]) -> Self {
        Self { reason, seen: Seen::of_bytes(head) }
    }
}

/// Takes a head off the buffer: `None` while it is not whole and can still become one.
pub fn take(buffer: &mut BytesMut, scan: &mut Scan, limits: &Limits) -> Result<Option<Head>, Rejected> {
    let mut ends = LineEnds::new();
    match find_end(buffer, scan, &mut ends, limits) {
        Ok(Some(end)) => {
            *scan = Scan::default();
            let head = buffer.split_to(end).freeze();
            parse(&head, &ends, limits).map(Some).map_err(|reason| Rejected::new(reason, &head))
        }
        Ok(None) => Ok(None),
        Err(reason) => Err(Rejected::new(reason, buffer)),
    }
}

/// Where the head ends, if it does within its limits.
fn find_end(
    buffer: &[u8],
    scan: &mut Scan,
    ends: &mut LineEnds,
    limits: &Limits,
) -> Result<Option<usize>, Reason> {
    let is_whole = scan::find_lines(buffer, &mut scan.at, ends)
        .map_err(|scan::BareLineFeed| Reason::MalformedRequest)?;
    match ends.last() {
        Some(&end) if is_whole && end > limits.size => Err(too_large(&buffer[..end], limits)),
        Some(&end) if is_whole => Ok(Some(end)),
        _ => {
            scan.partial.check(buffer, limits.target)?;
            if buffer.len() >= limits.size { Err(too_large(buffer, limits)) } else { Ok(None) }
        }
    }
}

/// Whether nothing has come but what may stand before a request.
pub fn is_empty_line(bytes: &[u8]) -> bool {
    bytes == b"\r\n"
}

/// The answer to a head past its size: 501 where the method alone is too long, 414 where the target is, 431 else.
fn too_large(buffer: &[u8], limits: &Limits) -> Reason {
    let start = buffer.strip_prefix(b"\r\n").unwrap_or(buffer);
    let line = &start[..memchr::memchr(b'\r', start).unwrap_or(start.len())];
    let mut words = line.split(|byte| *byte == b' ').map(<[u8]>::len);
    match (words.next(), words.next()) {
        (Some(method), _) if method > MOST_METHOD => Reason::MethodTooLong,
        (_, Some(target)) if target > limits.target => Reason::UriTooLong,
        _ => Reason::HeaderTooLarge,
    }
}

fn parse(head: &Bytes, ends: &[usize], limits: &Limits) -> Result<Head, Reason> {
    let (start, ends) = behind_empty_line(head, ends);
    let line = &head[start..ends[0]];
    let mut request = httparse::Request::new(&mut []);
    // Of the request line alone: the fields are read below.
    request.parse(line).map_err(|error| match error {
        httparse::Error::Version => version_refused(line),
        _ => Reason::MalformedRequest,
    })?;
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Reason::MalformedRequest);
    };
    let mut scan = FieldScan::default();
    let mut scanned = Ok(());
    let mut map = HeaderMap::with_capacity(ends.len() + ADDED);
    for (number, field) in scan::field_lines(head, ends).enumerate() {
        if number == MOST_FIELDS {
            return Err(Reason::HeaderTooLarge);
        }
        let field = field.map_err(|scan::NoColon| Reason::MalformedRequest)?;
        let name = name::read(field.name).map_err(|_| Reason::MalformedRequest)?;
        if scanned.is_ok() {
            scanned = scan.see(&name, head, field.value.clone());
        }
        let value =
            HeaderValue::from_maybe_shared(head.slice(field.value)).map_err(|_| Reason::MalformedRequest)?;
        map.append(name, value);
    }
    if method.len() > MOST_METHOD {
        return Err(Reason::MethodTooLong);
    }
    if target.len() > limits.target {
        return Err(Reason::UriTooLong);
    }
    if map.len() > limits.fields {
        return Err(Reason::HeaderTooLarge);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Reason::MalformedRequest)?;
    let (uri, raw) = uri(&method, head, target)?;
    scanned?;
    let asks_whole_server = method == Method::OPTIONS && is_without_path(target);
    let version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut head = scan.finish(method, uri, version, map)?;
    if asks_whole_server {
        head.parts.extensions.insert(WholeServer);
    }
    if let Some(raw) = raw {
        head.parts.extensions.insert(raw);
    }
    Ok(head)
}

/// One empty line before a request is ignored (RFC 9112 section 2.2). Not before the head is whole: what came of it
/// counts towards its deadline and its size, in whatever pieces it comes.
fn behind_empty_line<'e>(head: &[u8], ends: &'e [usize]) -> (usize, &'e [usize]) {
    match is_empty_line(&head[..2]) {
        true => (2, &ends[1..]),
        false => (0, ends),
    }
}

/// A version other than 1.0 and 1.1 in a well-formed place is 505, all else 400.
fn version_refused(head: &[u8]) -> Reason {
    let line = &head[..memchr::memchr(b'\r', head).unwrap_or(head.len())];
    let mut words = line.split(|b| *b == b' ').skip(2);
    let (version, rest) = (words.next().unwrap_or_default(), words.next());
    match version {
        _ if rest.is_some() => Reason::MalformedRequest,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Reason::UnsupportedVersion
        }
        _ => Reason::MalformedRequest,
    }
}

/// The target in one of the forms of RFC 9112 section 3.2.
fn uri(method: &Method, head: &Bytes, target: &str) -> Result<(Uri, Option<Raw>), Reason> {
    let form = match target.as_bytes() {
        b"*" => *method == Method::OPTIONS,
        [b'/', ..] => *method != Method::CONNECT,
        _ if *method == Method::CONNECT => names_port(target),
        _ => is_absolute(target),
    };
    let read = if form { target::read_any(head.slice_ref(target.as_bytes())) } else { None };
    read.ok_or(Reason::MalformedRequest)
}

/// The authority form says which port is meant (RFC 9112 section 3.2.3).
fn names_port(target: &str) -> bool {
    let port = target.rsplit_once(':').map_or("", |(_, port)| port);
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && !target.contains(['/', '?', '@'])
}

fn is_absolute(target: &str) -> bool {
    let scheme = target.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Whether a target in absolute form ends with its authority.
fn is_without_path(target: &str) -> bool {
    is_absolute(target) && target.split_once("://").is_some_and(|(_, rest)| !rest.contains(['/', '?']))
}

/// A field that frames stands as everybody writes it, with one space before its value or none: there are readers that take
/// other white space for a part of the value.
fn is_plainly_spaced(head: &[u8], value: &Range<usize>) -> bool {
    let (before, after) = (&head[..value.start], &head[value.end..]);
    (before.ends_with(b": ") || before.ends_with(b":")) && after.starts_with(b"\r\n")
}

/// What framing and the connection's life need of the fields, gathered in one walk.
#[derive(Default)]
struct FieldScan {
    length: Option<u64>,
    coding: Option<Coding>,
    hosts: usize,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    /// Refused only once the whole head is known to be well formed.
    refusal: Option<Reason>,
}

/// What the Transfer-Encoding fields say so far; several lines are one list (RFC 9110 section 5.3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// Chunked alone.
    Chunked,
    /// Other codings, and then chunked.
    OthersThenChunked,
    /// Other codings alone: nothing tells where the body ends.
    Others,
}

/// The name of a transfer coding (RFC 9112 section 7). Chunked takes no parameters.
fn coding_name(element: &[u8]) -> Option<&[u8]> {
    let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| is_token(name))?;
    let mut has_parameters = false;
    for parameter in parts {
        has_parameters = true;
        let equals = memchr::memchr(b'=', parameter)?;
        let (key, value) = (parameter[..equals].trim_ascii(), parameter[equals + 1..].trim_ascii());
        (is_token(key) && !value.is_empty() && value.iter().all(is_graphic)).then_some(())?;
    }
    let is_chunked = name.eq_ignore_ascii_case(b"chunked");
    (!is_chunked || !has_parameters).then_some(name)
}

fn is_graphic(byte: &u8) -> bool {
    byte.is_ascii_graphic()
}

impl FieldScan {
    fn see(&mut self, name: &HeaderName, head: &[u8], place: Range<usize>) -> Result<(), Reason> {
        let value = &head[place.clone()];
        match *name {
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING if !is_plainly_spaced(head, &place) => {
                return Err(Reason::AmbiguousFraming);
            }
            header::CONTENT_LENGTH => self.content_length(value)?,
            header::TRANSFER_ENCODING => self.transfer_encoding(value)?,
            header::HOST => self.hosts += 1,
            header::CONNECTION => self.connection(value),
            header::EXPECT if value.eq_ignore_ascii_case(b"100-continue") => self.expects_continue = true,
            header::EXPECT => self.refusal = Some(Reason::ExpectationFailed),
            _ => {}
        }
        Ok(())
    }

    /// One length, digits only: a list of equal lengths is refused too (RFC 9112 section 6.3).
    fn content_length(&mut self, value: &[u8]) -> Result<(), Reason> {
        let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        if !digits || self.length.is_some() {
            return Err(Reason::AmbiguousFraming);
        }
        let length = value.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        self.length = Some(length);
        Ok(())
    }

    /// Chunked is applied last, and once (RFC 9112 section 6.1). An element that is no coding makes the framing ambiguous,
    /// an empty one too.
    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Reason> {
        for element in value.split(|byte| *byte == b',') {
            let coding = coding_name(element.trim_ascii()).ok_or(Reason::AmbiguousFraming)?;
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.coding = Some(match self.coding {
                None if is_chunked => Coding::Chunked,
                Some(Coding::Others) if is_chunked => Coding::OthersThenChunked,
                None | Some(Coding::Others) => Coding::Others,
                Some(Coding::Chunked | Coding::OthersThenChunked) => return Err(Reason::AmbiguousFraming),
            });
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn finish(self, method: Method, uri: Uri, version: Version, headers: HeaderMap) -> Result<Head, Reason> {
        let http11 = version == Version::HTTP_11;
        let length = match (self.coding, self.length) {
            (Some(_), Some(_)) => return Err(Reason::AmbiguousFraming),
            (Some(_), None) if !http11 => return Err(Reason::AmbiguousFraming),
            // RFC 9112 section 6.3: the length cannot be determined.
            (Some(Coding::Others), None) => return Err(Reason::AmbiguousFraming),
            // RFC 9112 section 6.1 asks for 501.
            (Some(Coding::OthersThenChunked), None) => return Err(Reason::UnsupportedTransferCoding),
            (Some(Coding::Chunked), None) => BodyLength::Chunked,
            (None, Some(0) | None) => BodyLength::Empty,
            (None, Some(length)) => BodyLength::Exact(length),
        };
        // RFC 9112 section 3.2: exactly one Host on HTTP/1.1, and never several.
        if self.hosts > 1 || (http11 && self.hosts == 0) {
            return Err(Reason::BadHost);
        }
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let mut parts = request::Request::new(()).into_parts().0;
        parts.method = method;
        parts.uri = uri;
        parts.version = version;
        parts.headers = headers;
        Ok(Head {
            length,
            keep_alive: !self.close && (http11 || self.keep_alive),
            expects_continue: self.expects_continue && http11 && length != BodyLength::Empty,
            parts,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const LIMITS: Limits = Limits { size: 4096, fields: 8, target: 256 };

    fn read(text: &str) -> Result<Option<Head>, Reason> {
        take(&mut BytesMut::from(text), &mut Scan::default(), &LIMITS).map_err(|rejected| rejected.reason)
    }

    fn framed(fields: &str) -> Result<BodyLength, Reason> {
        let head = read(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))?;
        Ok(head.expect("the head is whole").length)
    }

    #[test]
    fn a_head_is_read_whole_or_not_at_all() {
        let text = "GET /a?b HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\nrest";
        let mut buffer = BytesMut::new();
        let mut scan = Scan::default();
        for byte in text[..text.len() - 5].bytes() {
            buffer.extend_from_slice(&[byte]);
            assert!(take(&mut buffer, &mut scan, &LIMITS).unwrap().is_none());
        }
        buffer.extend_from_slice(b"\nrest");
        let head = take(&mut buffer, &mut scan, &LIMITS).unwrap().unwrap();
        assert_eq!(head.parts.uri, "/a?b");
        assert_eq!(head.parts.headers["a"], "b");
        assert_eq!(&buffer[..], b"rest");
    }

    #[test]
    fn one_empty_line_may_come_before_in_whatever_pieces() {
        let refused = |text: &str, size: usize| {
            let (mut buffer, mut scan) = (BytesMut::new(), Scan::default());
            text.as_bytes().chunks(size).find_map(|piece| {
                buffer.extend_from_slice(piece);
                take(&mut buffer, &mut scan, &LIMITS).transpose().map(|taken| taken.is_err())
            })
        };
        for size in [1, 2, 3, 100] {
            assert_eq!(refused("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", size), Some(false), "{size}");
            assert_eq!(refused("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", size), Some(true), "{size}");
            assert_eq!(refused("\r\n", size), None);
        }
    }

    #[test]
    fn a_uri_without_a_path_is_told_from_one_with_a_slash() {
        for (request, whole) in [
            ("OPTIONS http://a:1", true),
            ("OPTIONS http://a/", false),
            ("OPTIONS http://a?x", false),
            ("OPTIONS *", false),
            ("OPTIONS /x://y", false),
            ("GET http://a", false),
        ] {
            let head = read(&format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap().unwrap();
            assert_eq!(head.parts.extensions.get() == Some(&WholeServer), whole, "{request}");
        }
    }

    #[test]
    fn framing_is_unambiguous_or_refused() {
        assert_eq!(framed(""), Ok(BodyLength::Empty));
        assert_eq!(framed("Content-Length: 5\r\n"), Ok(BodyLength::Exact(5)));
        assert_eq!(framed("Transfer-Encoding: Chunked\r\n"), Ok(BodyLength::Chunked));
        for wrong in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 9999999999999999999\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: , chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked, gzip\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: gzip, chunked, gzip\r\n",
            "Transfer-Encoding: chunked;a=b\r\n",
            "Transfer-Encoding: gzip;, chunked\r\n",
            "Transfer-Encoding: gzip;q, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
        ] {
            assert_eq!(framed(wrong), Err(Reason::AmbiguousFraming), "{wrong:?}");
        }
        for unsupported in [
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: br;level=9, gzip , Chunked\r\n",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(framed(unsupported), Err(Reason::UnsupportedTransferCoding), "{unsupported:?}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for (text, reason) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Reason::MalformedRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nB: c\n\r\n", Reason::MalformedRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\n B: c\r\n\r\n", Reason::MalformedRequest),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Reason::MalformedRequest),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::MalformedRequest),
            ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", Reason::MalformedRequest),
            ("GET /# HTTP/1.1\r\nHost: a\r\n\r\n", Reason::MalformedRequest),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Reason::MalformedRequest),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Reason::MalformedRequest),
            ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::MalformedRequest),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Reason::UnsupportedVersion),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Reason::MalformedRequest),
            ("GET / HTTP/1.1\r\n\r\n", Reason::BadHost),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Reason::BadHost),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Reason::AmbiguousFraming),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", Reason::ExpectationFailed),
            ("GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n", Reason::MalformedRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n", Reason::MalformedRequest),
        ] {
            assert_eq!(read(text).map(drop), Err(reason), "{text:?}");
        }
    }

    #[test]
    fn limits_have_their_own_answers() {
        let long = "x".repeat(300);
        assert_eq!(
            read(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")).map(drop),
            Err(Reason::UriTooLong)
        );
        let fields = "A: b\r\n".repeat(9);
        assert_eq!(
            read(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).map(drop),
            Err(Reason::HeaderTooLarge)
        );
        let huge = "y".repeat(5000);
        assert_eq!(
            read(&format!("GET / HTTP/1.1\r\nHost: a\r\nA: {huge}")).map(drop),
            Err(Reason::HeaderTooLarge)
        );
        assert_eq!(read(&format!("GET /{huge}")).map(drop), Err(Reason::UriTooLong));
        assert_eq!(read(&huge).map(drop), Err(Reason::MethodTooLong));
        assert_eq!(
            read(&format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", &huge[..200])).map(drop),
            Err(Reason::MethodTooLong)
        );
        assert_eq!(
            read(&format!("{huge} / HTTP/1.1\r\nHost: a\r\n\r\n")).map(drop),
            Err(Reason::MethodTooLong)
        );
        let fields = format!("GET /{} HTTP/1.1\r\nHost: a\r\nA: {huge}\r\n\r\n", "x".repeat(240));
        assert_eq!(read(&fields).map(drop), Err(Reason::HeaderTooLarge));
    }

    proptest! {
        /// No beginning of a head that is taken is rejected.
        #[test]
        fn what_is_taken_whole_is_taken_in_pieces(
            method in "[!-~]{1,6}",
            target in "/[!-~]{0,12}",
            value in vec(any::<u8>(), 0..12),
            size in 1..60_usize,
        ) {
            let line = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nA: ");
            let head = [line.as_bytes(), &value, b"\r\n\r\n"].concat();
            let whole = take(&mut BytesMut::from(&head[..]), &mut Scan::default(), &LIMITS);
            let (mut buffer, mut scan) = (BytesMut::new(), Scan::default());
            let taken = head.chunks(size).find_map(|piece| {
                buffer.extend_from_slice(piece);
                take(&mut buffer, &mut scan, &LIMITS).transpose()
            });
            let method = |head: &Head| head.parts.method.clone();
            prop_assert_eq!(
                whole.map(|head| head.as_ref().map(method)).map_err(|rejected| rejected.reason),
                taken.transpose().map(|head| head.as_ref().map(method)).map_err(|rejected| rejected.reason)
            );
        }
    }

    #[test]
    fn the_connections_life_is_the_clients_word() {
        let keep = |text: &str| read(text).unwrap().unwrap().keep_alive;
        assert!(keep("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"));
        assert!(!keep("GET / HTTP/1.0\r\n\r\n"));
        assert!(keep("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    }
}
