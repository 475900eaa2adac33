//! Writes response heads and decides how bodies are framed (RFC 9112 section 6).

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, StatusCode, header, response};

use crate::wire::h1::write::write_field;

/// What of the request decides its response's framing.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub head_only: bool,
    pub http11: bool,
    /// For a tunnel.
    pub connect: bool,
}

/// How the response's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body: HEAD, 204, 304, or one of length zero.
    None,
    /// As many bytes as Content-Length says; what is left of them.
    Exact(u64),
    Chunked,
    /// Until the connection closes, for HTTP/1.0.
    UntilClose,
    /// After 101, and after CONNECT: bytes as they are.
    Tunnel,
}

/// What is collected before it is written: a head and a small body go out together.
pub const COALESCE: usize = 8 * 1024;

/// Whether a response may have a body at all (RFC 9110 section 6.4.1).
fn bodiless(status: StatusCode, asked: Asked) -> bool {
    asked.head_only || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Decides the framing; `end` says that no body follows.
pub fn framing(head: &response::Parts, end: bool, asked: Asked) -> Framing {
    // RFC 9112 section 6.3 rule 2.
    let opened = asked.connect && head.status.is_success();
    if opened || head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Framing::Tunnel;
    }
    if bodiless(head.status, asked) {
        return Framing::None;
    }
    match content_length(&head.headers) {
        Some(length) => Framing::Exact(length),
        None if end => Framing::Exact(0),
        None if asked.http11 => Framing::Chunked,
        None => Framing::UntilClose,
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Writes the final head.
pub fn write_head(out: &mut BytesMut, head: &response::Parts, framing: Framing, asked: Asked, close: bool) {
    out.reserve(256 + head.headers.len() * 48 + small_body(framing));
    write_status(out, head.status);
    let tunnel = framing == Framing::Tunnel;
    for (name, value) in &head.headers {
        // Framing and the connection's life are said below, by who decides them.
        let ours = *name == header::CONNECTION || *name == header::TRANSFER_ENCODING;
        let stale = *name == header::CONTENT_LENGTH && forbids_length(head.status);
        if (ours && !tunnel) || stale {
            continue;
        }
        write_field(out, name, value.as_bytes());
    }
    match framing {
        Framing::Chunked => out.put_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::Exact(0) if !head.headers.contains_key(header::CONTENT_LENGTH) => {
            out.put_slice(b"Content-Length: 0\r\n");
        }
        _ => {}
    }
    if !tunnel {
        match (close, asked.http11) {
            (true, _) => out.put_slice(b"Connection: close\r\n"),
            (false, false) => out.put_slice(b"Connection: keep-alive\r\n"),
            (false, true) => {}
        }
    }
    out.put_slice(b"\r\n");
}

/// Writes a 1xx head.
pub fn write_informational(out: &mut BytesMut, status: StatusCode, fields: &HeaderMap) {
    write_status(out, status);
    fields.iter().for_each(|(name, value)| write_field(out, name, value.as_bytes()));
    out.put_slice(b"\r\n");
}

/// RFC 9110 section 8.6: no Content-Length with 1xx and 204.
fn forbids_length(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

fn write_status(out: &mut BytesMut, status: StatusCode) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
}

/// The room that the body takes behind the head, where it is so small that both go out together.
fn small_body(framing: Framing) -> usize {
    match framing {
        Framing::Exact(length) if length <= COALESCE as u64 => length as usize,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Asked = Asked { head_only: false, http11: true, connect: false };

    fn head(status: u16, fields: &[(&'static str, &'static str)]) -> response::Parts {
        let mut head = response::Response::new(()).into_parts().0;
        head.status = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            head.headers.insert(*name, value.parse().unwrap());
        }
        head
    }

    fn written(head: &response::Parts, end: bool, asked: Asked, close: bool) -> String {
        let mut out = BytesMut::new();
        write_head(&mut out, head, framing(head, end, asked), asked, close);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn bodies_are_framed_by_what_is_known_of_them() {
        assert_eq!(framing(&head(200, &[]), false, GET), Framing::Chunked);
        assert_eq!(framing(&head(200, &[("content-length", "5")]), false, GET), Framing::Exact(5));
        assert_eq!(framing(&head(200, &[]), true, GET), Framing::Exact(0));
        assert_eq!(framing(&head(204, &[]), true, GET), Framing::None);
        assert_eq!(framing(&head(304, &[("content-length", "5")]), true, GET), Framing::None);
        let old = Asked { http11: false, ..GET };
        assert_eq!(framing(&head(200, &[]), false, old), Framing::UntilClose);
        let head_request = Asked { head_only: true, ..GET };
        assert_eq!(framing(&head(200, &[("content-length", "5")]), false, head_request), Framing::None);
    }

    #[test]
    fn heads_are_written_with_our_own_framing() {
        let upstreams = head(200, &[("transfer-encoding", "gzip"), ("connection", "x"), ("x-a-b", "1")]);
        assert_eq!(
            written(&upstreams, false, GET, false),
            "HTTP/1.1 200 OK\r\nX-A-B: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        assert_eq!(
            written(&head(204, &[("content-length", "0")]), true, GET, true),
            "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
        );
        let switching = head(101, &[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(
            written(&switching, false, GET, false),
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
    }
}
