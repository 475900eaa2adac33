//! Bytes of a connection are refused or read as requests; it makes no difference in what pieces they come, and what
//! was read can be read in no other way.
#![no_main]

use bytes::BytesMut;
use http::{HeaderMap, header};
use libfuzzer_sys::fuzz_target;
use portolan::{
    listen::h1::head::{self, Head, Limits, Scan},
    wire::h1::body::{Body, BodyLength, Piece},
};

const LIMITS: Limits = Limits { size: 4096, fields: 64, target: 1024 };

/// What was read of one connection.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    requests: Vec<Request>,
    /// Nothing more is read.
    refused: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Request {
    head: String,
    body: Vec<u8>,
    whole: bool,
    trailers: Option<HeaderMap>,
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let at_once = read(bytes.chunks(bytes.len().max(1)));
    let in_pieces = read(bytes.chunks(usize::from(step).max(1)));
    assert_eq!(at_once, in_pieces);
});

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Seen {
    let (mut seen, mut buffer, mut scan) = (Seen::default(), BytesMut::new(), Scan::default());
    let mut body: Option<Body> = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let Some(current) = &mut body else {
                match head::take(&mut buffer, &mut scan, &LIMITS) {
                    Ok(Some(head)) => {
                        holds(&head);
                        body = Some(Body::new(head.length));
                        seen.requests.push(Request {
                            head: format!("{:?}", head.parts),
                            body: Vec::new(),
                            whole: false,
                            trailers: None,
                        });
                        continue;
                    }
                    Ok(None) => break,
                    Err(_) => {
                        seen.refused = true;
                        return seen;
                    }
                }
            };
            let request = seen.requests.last_mut().expect("a body has a head");
            match current.take(&mut buffer) {
                Ok(Piece::Data(data)) => request.body.extend_from_slice(&data),
                Ok(Piece::More) => break,
                Ok(Piece::End) => {
                    request.whole = true;
                    request.trailers = current.take_trailers();
                    request.trailers.iter().for_each(plain);
                    body = None;
                }
                Err(_) => {
                    seen.refused = true;
                    return seen;
                }
            }
        }
    }
    seen
}

/// What must be true of every head that was not refused (RFC 9112 sections 3, 5 and 6).
fn holds(head: &Head) {
    let headers = &head.parts.headers;
    plain(headers);
    assert!(headers.get_all(header::HOST).iter().count() <= 1);
    let coded = headers.contains_key(header::TRANSFER_ENCODING);
    let measured = headers.contains_key(header::CONTENT_LENGTH);
    assert!(!(coded && measured));
    assert_eq!(coded, head.length == BodyLength::Chunked);
    let target = head.parts.uri.to_string();
    assert!(target.bytes().all(|byte| byte.is_ascii_graphic()) && !target.contains('#'));
}

fn plain(headers: &HeaderMap) {
    let line_ends = |value: &[u8]| value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    assert!(!headers.values().any(|value| line_ends(value.as_bytes())));
}
