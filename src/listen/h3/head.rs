//! Field sections as heads and trailers. What RFC 9114 calls malformed is refused here (sections 4.1.2 to 4.3); what is
//! sound and yet not taken, in [`crate::listen::head`], as for HTTP/2.

use bytes::{Bytes, BytesMut};
use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TE},
    request::Parts,
    uri::{Authority, Scheme},
};

use super::{
    code::{Code, Fault},
    frame,
    qpack::{self, Broken, Field, Fields},
};
use crate::{
    error::Reason,
    http::{
        hop_by_hop,
        seen::Seen,
        target::{self, Raw},
    },
};

/// Why a section is no head and no trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It cannot be decoded: the connection's end (RFC 9204 section 2.2).
    Undecodable,
    /// It is larger than allowed.
    TooLarge,
    /// The request is malformed: its stream's end (RFC 9114 section 4.1.2).
    Malformed,
}

/// Why there is no head.
#[derive(Debug)]
pub(super) enum NoHead {
    /// The client is told why in an answer.
    Refuse(Reason, Box<Seen>),
    /// It has gone, or was told by a code.
    Over,
}

impl NoHead {
    /// An answer to a request of which nothing was read.
    pub(super) fn unread(reason: Reason) -> Self {
        Self::Refuse(reason, Box::new(Seen { version: Some(Version::HTTP_3), ..Seen::default() }))
    }
}

impl Unfit {
    /// What it means once it is too late to say it in an answer.
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Undecodable => Fault::Connection(Code::DecompressionFailed),
            Self::TooLarge | Self::Malformed => Fault::Request(Code::MessageError),
        }
    }
}

impl From<Broken> for Unfit {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Malformed => Self::Undecodable,
            Broken::TooLarge => Self::TooLarge,
        }
    }
}

/// A request's head, and the length of the body that it announces.
#[derive(Debug)]
pub struct Head {
    pub parts: Parts,
    pub content_length: Option<u64>,
}

/// Pseudo-fields of requests (RFC 9114 section 4.3.1, RFC 9220 section 3).
#[derive(Default)]
struct Pseudo {
    method: Option<Bytes>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
}

/// Reads a request's head.
pub fn request(section: Bytes, most: usize) -> Result<Head, Unfit> {
    let mut pseudo = Pseudo::default();
    let mut headers = HeaderMap::new();
    for field in Fields::new(section, most) {
        let field = field?;
        match field.name.starts_with(b":") {
            // They stand before all others.
            true if !headers.is_empty() => return Err(Unfit::Malformed),
            true => pseudo.set(field)?,
            false => append(&mut headers, field)?,
        }
    }
    let mut parts = Request::new(()).into_parts().0;
    if let Some(protocol) = pseudo.protocol()? {
        // As an HTTP/2 head says it, so that both are read alike from here on.
        parts.extensions.insert(protocol);
    }
    let raw;
    (parts.method, parts.uri, raw) = pseudo.request_line(&headers)?;
    if let Some(raw) = raw {
        parts.extensions.insert(raw);
    }
    parts.version = Version::HTTP_3;
    let content_length = content_length(&headers)?;
    parts.headers = headers;
    Ok(Head { parts, content_length })
}

/// Reads a request's trailers.
pub fn trailers(section: Bytes, most: usize) -> Result<HeaderMap, Unfit> {
    let mut headers = HeaderMap::new();
    for field in Fields::new(section, most) {
        append(&mut headers, field?)?;
    }
    // They must not frame, route or secure what has gone before (RFC 9110 section 6.5.1).
    match headers.keys().any(hop_by_hop::forbidden_in_trailers) {
        true => Err(Unfit::Malformed),
        false => Ok(headers),
    }
}

/// Adds a field that is no pseudo-field.
fn append(headers: &mut HeaderMap, field: Field) -> Result<(), Unfit> {
    if !is_lower_case_token(&field.name) {
        return Err(Unfit::Malformed);
    }
    let name = HeaderName::from_bytes(&field.name).map_err(|_| Unfit::Malformed)?;
    let value = HeaderValue::from_maybe_shared(field.value).map_err(|_| Unfit::Malformed)?;
    // The connection is no message's (RFC 9114 section 4.2).
    let is_of_connections = match name {
        TE => value != "trailers",
        ref name => is_connections_own(name),
    };
    match is_of_connections {
        true => Err(Unfit::Malformed),
        false => headers.try_append(name, value).map(drop).map_err(|_| Unfit::TooLarge),
    }
}

fn is_lower_case_token(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(u8::is_ascii_uppercase)
}

fn is_connections_own(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
    )
}

impl Pseudo {
    fn set(&mut self, field: Field) -> Result<(), Unfit> {
        let place = match &field.name[..] {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            _ => return Err(Unfit::Malformed),
        };
        match place.replace(field.value) {
            Some(_) => Err(Unfit::Malformed),
            None => Ok(()),
        }
    }

    /// What an extended CONNECT is for. A request of another method has none (RFC 8441 section 4).
    fn protocol(&self) -> Result<Option<Protocol>, Unfit> {
        let Some(protocol) = &self.protocol else { return Ok(None) };
        let is_connect = self.method.as_deref() == Some(Method::CONNECT.as_str().as_bytes());
        match std::str::from_utf8(protocol) {
            Ok(protocol) if is_connect && !protocol.is_empty() => Ok(Some(Protocol::from(protocol))),
            _ => Err(Unfit::Malformed),
        }
    }

    fn request_line(self, headers: &HeaderMap) -> Result<(Method, Uri, Option<Raw>), Unfit> {
        let method =
            self.method.and_then(|method| Method::from_bytes(&method).ok()).ok_or(Unfit::Malformed)?;
        let authority = match self.authority {
            Some(authority) => Some(Authority::from_maybe_shared(authority).map_err(|_| Unfit::Malformed)?),
            None => None,
        };
        let (mut uri, mut raw) = (http::uri::Parts::default(), None);
        if method == Method::CONNECT && self.protocol.is_none() {
            // It names whom to connect to, and nothing else (RFC 9114 section 4.4).
            if self.scheme.is_some() || self.path.is_some() || authority.is_none() {
                return Err(Unfit::Malformed);
            }
        } else {
            let scheme = self.scheme.ok_or(Unfit::Malformed)?;
            let path = self.path.filter(|path| is_target(path, &method)).ok_or(Unfit::Malformed)?;
            if authority.is_none() && headers.get(HOST).is_none_or(HeaderValue::is_empty) {
                return Err(Unfit::Malformed);
            }
            let (target, as_it_came) = target::read(path).ok_or(Unfit::Malformed)?;
            (uri.path_and_query, raw) = (Some(target), as_it_came);
            let scheme = Scheme::try_from(&scheme[..]).map_err(|_| Unfit::Malformed)?;
            uri.scheme = authority.is_some().then_some(scheme);
        }
        uri.authority = authority;
        Ok((method, Uri::from_parts(uri).map_err(|_| Unfit::Malformed)?, raw))
    }
}

/// A path, with a query perhaps; for OPTIONS also the asterisk.
fn is_target(path: &[u8], method: &Method) -> bool {
    path.starts_with(b"/") || *method == Method::OPTIONS && path == b"*"
}

/// One number (RFC 9110 section 8.6).
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Unfit> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    let text = length.to_str().map_err(|_| Unfit::Malformed)?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match (is_number, lengths.next()) {
        (true, None) => text.parse().map(Some).map_err(|_| Unfit::Malformed),
        _ => Err(Unfit::Malformed),
    }
}

/// Writes a response's head as a frame, an informational one's too.
pub fn put_response(status: StatusCode, fields: &HeaderMap) -> Bytes {
    let mut section = BytesMut::with_capacity(256);
    qpack::status(status, &mut section);
    framed(section, fields)
}

/// Writes trailers as a frame.
pub fn put_trailers(trailers: &HeaderMap) -> Bytes {
    let mut section = BytesMut::with_capacity(128);
    qpack::trailers(&mut section);
    framed(section, trailers)
}

fn framed(mut section: BytesMut, headers: &HeaderMap) -> Bytes {
    headers.iter().for_each(|(name, value)| qpack::field(name, value, &mut section));
    let mut out = BytesMut::with_capacity(section.len() + 9);
    frame::put_head(frame::HEADERS, section.len(), &mut out);
    out.extend_from_slice(&section);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(fields: &[(&str, &str)]) -> Bytes {
        let mut section = vec![0, 0];
        for (name, value) in fields {
            section.extend([0x27, u8::try_from(name.len().saturating_sub(7)).unwrap()]);
            if name.len() < 7 {
                section.truncate(section.len() - 2);
                section.push(0x20 | u8::try_from(name.len()).unwrap());
            }
            section.extend(name.as_bytes());
            section.push(u8::try_from(value.len()).unwrap());
            section.extend(value.as_bytes());
        }
        section.into()
    }

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/x?y")];

    fn with(more: &[(&str, &str)]) -> Result<Head, Unfit> {
        request(section(&[&GET, more].concat()), 4096)
    }

    #[test]
    fn a_head_is_read() {
        let head = with(&[("accept", "*/*"), ("te", "trailers"), ("content-length", "7")]).unwrap();
        assert_eq!(head.parts.uri, "https://a.test/x?y");
        assert_eq!((head.parts.method, head.parts.version), (Method::GET, Version::HTTP_3));
        assert_eq!((head.parts.headers.len(), head.content_length), (3, Some(7)));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let cases: [&[(&str, &str)]; 16] = [
            &[("Accept", "*/*")],
            &[("", "x")],
            &[("a b", "x")],
            &[("a", "x\ny")],
            &[("a", "x\0")],
            &[("connection", "close")],
            &[("transfer-encoding", "chunked")],
            &[("upgrade", "x")],
            &[("te", "gzip")],
            &[("a", "b"), (":path", "/")],
            &[(":path", "/")],
            &[(":status", "200")],
            &[(":protocol", "websocket")],
            &[("content-length", "1"), ("content-length", "1")],
            &[("content-length", "+1")],
            &[("content-length", "99999999999999999999")],
        ];
        for fields in cases {
            assert_eq!(with(fields).unwrap_err(), Unfit::Malformed, "{fields:?}");
        }
    }

    #[test]
    fn pseudo_fields_that_lack_or_make_no_sense_are_refused() {
        for lacking in 0..4 {
            let mut fields = GET.to_vec();
            fields.remove(lacking);
            assert_eq!(request(section(&fields), 4096).unwrap_err(), Unfit::Malformed, "{lacking}");
        }
        let cases = [
            (":path", ""),
            (":path", "x"),
            (":path", "*"),
            (":path", "/#x"),
            (":path", "/a b"),
            (":method", "G T"),
            (":scheme", "ht tp"),
            (":authority", ""),
            (":authority", "a/b"),
            (":method", "CONNECT"),
        ];
        for (name, value) in cases {
            let fields = GET.map(|field| if field.0 == name { (name, value) } else { field });
            assert_eq!(request(section(&fields), 4096).unwrap_err(), Unfit::Malformed, "{name}: {value}");
        }
        let options = [(":method", "OPTIONS"), (":scheme", "https"), (":authority", "a"), (":path", "*")];
        assert_eq!(request(section(&options), 4096).unwrap().parts.uri.path(), "*");
        let connect = [(":method", "CONNECT"), (":authority", "a:443")];
        assert_eq!(request(section(&connect), 4096).unwrap().parts.uri, "a:443");
        let bare = [&connect[..], &[(":protocol", "websocket")]].concat();
        assert_eq!(request(section(&bare), 4096).unwrap_err(), Unfit::Malformed);
        let host = [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "a")];
        assert_eq!(request(section(&host), 4096).unwrap().parts.uri, "/");
    }

    #[test]
    fn a_protocol_stands_with_connect_and_beside_all_the_others() {
        let mut fields = GET.to_vec();
        fields[0].1 = "CONNECT";
        let read = |protocol: &str, fields: &[(&str, &str)]| {
            request(section(&[fields, &[(":protocol", protocol)]].concat()), 4096)
        };
        let head = read("websocket", &fields).unwrap();
        assert_eq!((head.parts.method, head.parts.uri.path()), (Method::CONNECT, "/x"));
        assert_eq!(head.parts.extensions.get(), Some(&Protocol::from_static("websocket")));
        assert_eq!(read("", &fields).unwrap_err(), Unfit::Malformed);
        for lacking in 0..4 {
            let mut fields = fields.clone();
            fields.remove(lacking);
            assert_eq!(read("websocket", &fields).unwrap_err(), Unfit::Malformed, "{lacking}");
        }
    }

    #[test]
    fn trailers_have_no_pseudo_fields_and_frame_nothing() {
        assert_eq!(trailers(section(&[("checksum", "1")]), 4096).unwrap()["checksum"], "1");
        for field in [(":path", "/"), ("content-length", "0"), ("connection", "x")] {
            assert_eq!(trailers(section(&[field]), 4096).unwrap_err(), Unfit::Malformed);
        }
        assert_eq!(trailers(section(&[("checksum", "1")]), 40).unwrap_err(), Unfit::TooLarge);
        assert_eq!(trailers(Bytes::from_static(b"\x01\x00"), 40).unwrap_err(), Unfit::Undecodable);
    }
}
