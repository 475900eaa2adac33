//! Bytes of an origin's connection are rejected or read as responses; it makes no difference in what pieces they come, and what
//! was read has one length.
#![no_main]

use bytes::BytesMut;
use http::{HeaderMap, Method, header};
use libfuzzer_sys::fuzz_target;
use portolan::wire::h1::{
    body::{Body, BodyLength, Piece},
    response::{self, Head, HeadLimits},
};

const LIMITS: HeadLimits = HeadLimits { size: 4096, fields: 64 };

/// What was read of one connection.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    responses: Vec<Response>,
    /// Nothing more is read.
    rejected: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Response {
    head: String,
    body: Vec<u8>,
    whole: bool,
    trailers: Option<HeaderMap>,
}

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (step, head_only, bytes) = input;
    let method = if head_only { Method::HEAD } else { Method::GET };
    let at_once = read(&method, bytes.chunks(bytes.len().max(1)));
    let in_pieces = read(&method, bytes.chunks(usize::from(step).max(1)));
    assert_eq!(at_once, in_pieces);
});

fn read<'a>(method: &Method, pieces: impl Iterator<Item = &'a [u8]>) -> Seen {
    let (mut seen, mut buffer, mut scanned) = (Seen::default(), BytesMut::new(), 0);
    let mut body: Option<Body> = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let Some(current) = &mut body else {
                match response::take(&mut buffer, &mut scanned, &LIMITS) {
                    Ok(Some(head)) => {
                        body = Some(Body::of_response(framed(&head, method)));
                        let head = format!("{:?}", head.parts);
                        seen.responses.push(Response { head, body: Vec::new(), whole: false, trailers: None });
                        continue;
                    }
                    Ok(None) => break,
                    Err(_) => {
                        seen.rejected = true;
                        return seen;
                    }
                }
            };
            let response = seen.responses.last_mut().expect("a body has a head");
            match current.take(&mut buffer) {
                Ok(Piece::Data(data)) => response.body.extend_from_slice(&data),
                Ok(Piece::More) => break,
                Ok(Piece::End) => {
                    response.whole = true;
                    response.trailers = current.take_trailers();
                    body = None;
                }
                Err(_) => {
                    seen.rejected = true;
                    return seen;
                }
            }
        }
    }
    seen
}

/// A response has one length at most, and never beside chunks.
fn framed(head: &Head, method: &Method) -> BodyLength {
    let headers = &head.parts.headers;
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    assert!(lengths + headers.get_all(header::TRANSFER_ENCODING).iter().count() <= 1, "{headers:?}");
    let length = head.body(method);
    if *method == Method::HEAD {
        assert_eq!(length, BodyLength::Empty);
    }
    length
}
