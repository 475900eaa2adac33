//! Any bytes, in any pieces, as a request's stream, as a control stream and as a field section: nothing panics, what is
//! read does not depend on how it came, and no more is kept than allowed.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use portolan::listen::h3::{Code, Control, Fault, Message, Part, read_request, read_trailers};

const MOST: usize = 4096;

/// The parts, data joined, and how it ended.
fn read(bytes: &[u8], piece: usize) -> (Vec<Part>, Result<(), Fault>) {
    let mut message = Message::new(MOST);
    let mut parts: Vec<Part> = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        message.feed(Bytes::copy_from_slice(piece));
        loop {
            match message.part() {
                Ok(None) => break,
                Ok(Some(Part::TooLarge)) => return (parts, Ok(())),
                Ok(Some(Part::Data(data))) => match parts.last_mut() {
                    Some(Part::Data(last)) => *last = [&last[..], &data].concat().into(),
                    _ => parts.push(Part::Data(data)),
                },
                Ok(Some(part)) => parts.push(part),
                Err(fault) => return (parts, Err(fault)),
            }
        }
    }
    let end = message.end();
    (parts, end)
}

fn control(bytes: &[u8], piece: usize) -> Result<(), Code> {
    let mut control = Control::default();
    bytes.chunks(piece.max(1)).try_for_each(|piece| control.take(Bytes::copy_from_slice(piece)))
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = (usize::from(input.0), input.1);
    let whole = read(bytes, bytes.len());
    assert_eq!(whole, read(bytes, piece));
    assert_eq!(control(bytes, bytes.len()), control(bytes, piece));
    for part in whole.0 {
        if let Part::Head(section) | Part::Trailers(section) = part {
            assert!(section.len() <= MOST);
            let _ = (read_request(section.clone(), MOST), read_trailers(section, MOST));
        }
    }
    let section = Bytes::copy_from_slice(bytes);
    if let Ok(head) = read_request(section.clone(), MOST) {
        assert!(!head.parts.headers.contains_key("connection"));
    }
    let _ = read_trailers(section, MOST);
});
