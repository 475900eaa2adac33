//! gRPC over HTTP/2 ("gRPC over HTTP2", version 1): how messages are framed, and what a response says of its call.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static(GRPC);
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The status of a call, in the trailers or, where a response is nothing but trailers, in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u32);

const GRPC: &str = "application/grpc";
/// What stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl Status {
    pub const OK: Self = Self(0);
    const UNKNOWN: Self = Self(2);

    /// What these fields say. A malformed status is UNKNOWN.
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        let text = fields.get(STATUS)?.to_str().unwrap_or_default();
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let code = text.parse().ok().filter(|_| is_number);
        Some(code.map_or(Self::UNKNOWN, Self))
    }

    /// Whether it says that the server failed or has too much to do: UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL,
    /// UNAVAILABLE and DATA_LOSS. The others are about the call.
    pub fn is_failure(self) -> bool {
        matches!(self.0, 2 | 4 | 8 | 13 | 14 | 15)
    }

    /// Whether the same call may succeed at another time: CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE and
    /// DATA_LOSS, as OTLP has it.
    pub fn may_pass(self) -> bool {
        matches!(self.0, 1 | 4 | 10 | 11 | 14 | 15)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize) {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Whether a message is gRPC by its Content-Type. gRPC-Web is not: its trailers are in its body.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return false };
    let known = GRPC.as_bytes();
    match value.as_bytes().split_at_checked(known.len()) {
        Some((start, rest)) => {
            start.eq_ignore_ascii_case(known) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        }
        None => false,
    }
}

/// A message with its prefix.
pub fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a message of ours is far shorter than 4 GiB"));
    framed.put_slice(message);
    framed.freeze()
}

/// The one message of a body.
pub fn message(body: &[u8]) -> Result<&[u8], &'static str> {
    let Some((&[compressed, a, b, c, d], rest)) = body.split_first_chunk::<PREFIX>() else {
        return Err("the response has no message");
    };
    if compressed != 0 {
        return Err("the response's message is compressed");
    }
    match u32::from_be_bytes([a, b, c, d]) as usize == rest.len() {
        true => Ok(rest),
        false => Err("the response is not one complete message"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_status_is_a_number_or_unknown() {
        assert_eq!(Status::of(&HeaderMap::new()), None);
        assert_eq!(Status::of(&with(STATUS, "0")), Some(Status::OK));
        for (text, shown) in [
            ("14", "UNAVAILABLE (14)"),
            ("99", "99"),
            ("", "UNKNOWN (2)"),
            ("+0", "UNKNOWN (2)"),
            ("-1", "UNKNOWN (2)"),
            ("5000000000", "UNKNOWN (2)"),
        ] {
            assert_eq!(Status::of(&with(STATUS, text)).unwrap().to_string(), shown, "{text:?}");
        }
        let failures: Vec<u32> = (0..20).filter(|code| Status(*code).is_failure()).collect();
        assert_eq!(failures, [2, 4, 8, 13, 14, 15]);
    }

    #[test]
    fn grpc_is_known_by_its_type() {
        for (text, expected) in [
            ("application/grpc", true),
            ("Application/GRPC+proto", true),
            ("application/grpc; charset=x", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(&with(header::CONTENT_TYPE, text)), expected, "{text:?}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_body_is_one_message() {
        assert_eq!(message(&framed(b"ab")), Ok(&b"ab"[..]));
        assert_eq!(message(&framed(b"")), Ok(&b""[..]));
        for wrong in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02a",
            b"\0\0\0\0\x01ab",
            b"\x01\0\0\0\0",
            b"\0\xff\xff\xff\xff",
        ] {
            assert!(message(wrong).is_err(), "{wrong:?}");
        }
    }
}
