//! The streams that carry no request (RFC 9114 section 6.2): what a client may say on each, and what it must not.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};
use quinn::RecvStream;
use tokio::sync::Notify;

use super::{
    code::Code,
    frame::{self, Frames, Piece, Use},
    settings, varint,
};

/// Types of unidirectional streams (RFC 9114 section 6.2, RFC 9204 section 4.2).
pub const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const ENCODER: u64 = 0x2;
const DECODER: u64 = 0x3;

/// The longest frame of a control stream that is looked at.
const MOST: usize = 1024;

/// How much a client may say on a critical stream, in all: some for each of its requests, as where it takes one back or changes
/// its priority, and some beside.
const MOST_SAID_OF_REQUEST: usize = 64;
const MOST_SAID: usize = 64 << 10;

/// The streams of which there is one each, and which stay.
#[derive(Debug, Default)]
pub(super) struct Critical {
    control: AtomicBool,
    encoder: AtomicBool,
    decoder: AtomicBool,
    /// The client has said that it goes.
    pub(super) left: Notify,
}

/// What comes on a critical stream.
trait Rules {
    /// Looks at what has come.
    fn take(&mut self, input: Bytes) -> Result<(), Code>;

    /// Whether the client has said that it goes.
    fn has_left(&self) -> bool {
        false
    }
}

/// Reads a stream of a client's to its end, where the client may have so many requests.
pub(super) async fn read(stream: &mut RecvStream, critical: &Critical, requests: usize) -> Result<(), Code> {
    // A stream may end before it says what it is (RFC 9114 section 6.2).
    let Some((kind, rest)) = kind(stream).await else { return Ok(()) };
    let once = |seen: &AtomicBool| match seen.swap(true, Ordering::Relaxed) {
        true => Err(Code::StreamCreationError),
        false => Ok(()),
    };
    let most = MOST_SAID.saturating_add(requests.saturating_mul(MOST_SAID_OF_REQUEST));
    match kind {
        CONTROL => {
            once(&critical.control)?;
            read_all(stream, rest, most, Control::default(), &critical.left).await
        }
        ENCODER => {
            once(&critical.encoder)?;
            read_all(stream, rest, most, Encoder, &critical.left).await
        }
        DECODER => {
            once(&critical.decoder)?;
            read_all(stream, rest, most, Decoder::default(), &critical.left).await
        }
        // Only servers push.
        PUSH => Err(Code::StreamCreationError),
        _ => {
            // Nobody knows what it says; that is no error.
            let _ = stream.stop(Code::StreamCreationError.into());
            Ok(())
        }
    }
}

/// The stream's type, and what came with it.
async fn kind(stream: &mut RecvStream) -> Option<(u64, Bytes)> {
    let mut begin = Vec::new();
    loop {
        let mut input = stream.read_chunk(usize::MAX, true).await.ok()??.bytes;
        while input.has_remaining() {
            begin.push(input.get_u8());
            if let Some(kind) = varint::take(&mut &begin[..]) {
                return Some((kind, input));
            }
        }
    }
}

/// It never ends, as long as the connection lives (RFC 9114 section 6.2.1, RFC 9204 section 4.2).
async fn read_all(
    stream: &mut RecvStream,
    begin: Bytes,
    mut most: usize,
    mut rules: impl Rules,
    left: &Notify,
) -> Result<(), Code> {
    rules.take(begin)?;
    let mut told = false;
    loop {
        if rules.has_left() && !std::mem::replace(&mut told, true) {
            left.notify_one();
        }
        match stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => {
                most = most.checked_sub(chunk.bytes.len()).ok_or(Code::ExcessiveLoad)?;
                rules.take(chunk.bytes)?;
            }
            Ok(None) | Err(quinn::ReadError::Reset(_)) => return Err(Code::ClosedCriticalStream),
            // The connection has ended.
            Err(_) => return Ok(()),
        }
    }
}

/// The control stream: SETTINGS, then what is said of pushes and of the end, of which there are none here.
#[derive(Debug, Default)]
pub struct Control {
    frames: Frames,
    begun: bool,
    most_push: Option<u64>,
    /// What the client's GOAWAY said.
    last_push: Option<u64>,
}

impl Control {
    /// Looks at what has come of the stream.
    pub fn take(&mut self, input: Bytes) -> Result<(), Code> {
        self.frames.feed(input);
        loop {
            let begun = &mut self.begun;
            match self.frames.piece(|kind| allowed(kind, std::mem::replace(begun, true)))? {
                None => return Ok(()),
                Some(Piece::Whole { kind, payload }) => self.frame(kind, &payload)?,
                Some(Piece::Data(_) | Piece::TooLong) => return Err(Code::ExcessiveLoad),
            }
        }
    }

    fn frame(&mut self, kind: u64, payload: &[u8]) -> Result<(), Code> {
        match kind {
            frame::SETTINGS => settings::check(payload),
            // No push was promised, so none can be meant (RFC 9114 section 7.2.3).
            frame::CANCEL_PUSH => id(payload).and(Err(Code::IdError)),
            frame::GOAWAY => {
                let push = id(payload)?;
                let went_up = self.last_push.replace(push).is_some_and(|last| push > last);
                if went_up { Err(Code::IdError) } else { Ok(()) }
            }
            // In what order responses go is not the client's to say here (RFC 9218 section 7).
            kind if frame::PRIORITY_UPDATE.contains(&kind) => Ok(()),
            _ => {
                let push = id(payload)?;
                let went_down = self.most_push.replace(push).is_some_and(|most| push < most);
                if went_down { Err(Code::IdError) } else { Ok(()) }
            }
        }
    }
}

impl Rules for Control {
    fn take(&mut self, input: Bytes) -> Result<(), Code> {
        Control::take(self, input)
    }

    fn has_left(&self) -> bool {
        self.last_push.is_some()
    }
}

/// What is done with a frame of the control stream.
fn allowed(kind: u64, begun: bool) -> Result<Use, Code> {
    match (kind, begun) {
        (frame::SETTINGS, false) => Ok(Use::Gather { most: MOST }),
        (_, false) => Err(Code::MissingSettings),
        (frame::CANCEL_PUSH | frame::GOAWAY | frame::MAX_PUSH_ID, true) => Ok(Use::Gather { most: MOST }),
        (frame::SETTINGS | frame::DATA | frame::HEADERS | frame::PUSH_PROMISE, true) => {
            Err(Code::FrameUnexpected)
        }
        (kind, true) if frame::is_of_http2(kind) => Err(Code::FrameUnexpected),
        // No part of what means nothing.
        (kind, true) if frame::PRIORITY_UPDATE.contains(&kind) => Ok(Use::Gather { most: MOST }),
        _ => Ok(Use::Skip),
    }
}

/// The only thing in a payload.
fn id(mut payload: &[u8]) -> Result<u64, Code> {
    let id = varint::take(&mut payload).ok_or(Code::FrameError)?;
    if payload.is_empty() { Ok(id) } else { Err(Code::FrameError) }
}

/// The client's QPACK encoder, which has no table to fill: all it may say is that its capacity is 0
/// (RFC 9204 section 4.3).
struct Encoder;

const CAPACITY_0: u8 = 0x20;

impl Rules for Encoder {
    fn take(&mut self, input: Bytes) -> Result<(), Code> {
        match input.iter().all(|byte| *byte == CAPACITY_0) {
            true => Ok(()),
            false => Err(Code::EncoderStreamError),
        }
    }
}

/// The client's QPACK decoder, which has nothing to acknowledge, since nothing that we say refers to a dynamic table;
/// it may say that it gave a stream up (RFC 9204 section 4.4).
#[derive(Debug, Default)]
struct Decoder {
    /// Bytes of a stream's number that have come, where it has not come to its end.
    number: usize,
}

/// A Stream Cancellation's two upper bits, and a number that goes on in further bytes.
const CANCELLATION: u8 = 0x40;
const GOES_ON: u8 = 0x7f;
const LONGEST_NUMBER: usize = 10;

impl Rules for Decoder {
    fn take(&mut self, input: Bytes) -> Result<(), Code> {
        for byte in input {
            self.number = match self.number {
                0 if byte & 0xc0 != CANCELLATION => return Err(Code::DecoderStreamError),
                0 => usize::from(byte == GOES_ON),
                LONGEST_NUMBER => return Err(Code::DecoderStreamError),
                _ if byte & 0x80 == 0 => 0,
                read => read + 1,
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(mut rules: impl Rules, input: &[u8]) -> Result<(), Code> {
        rules.take(Bytes::copy_from_slice(input))
    }

    #[test]
    fn a_control_stream_begins_with_settings_and_has_no_other_messages() {
        let cases: [(&[u8], Result<(), Code>); 20] = [
            (&[], Ok(())),
            (&[4, 0], Ok(())),
            (&[4, 0, 0x21, 2, 0, 0, 0xd, 1, 8, 0xd, 1, 9, 7, 1, 9, 7, 1, 0], Ok(())),
            (&[0x21, 0], Err(Code::MissingSettings)),
            (&[0, 1], Err(Code::MissingSettings)),
            (&[0xd, 1, 0], Err(Code::MissingSettings)),
            (&[4, 0, 4, 0], Err(Code::FrameUnexpected)),
            (&[4, 0, 0, 0], Err(Code::FrameUnexpected)),
            (&[4, 0, 1, 0], Err(Code::FrameUnexpected)),
            (&[4, 0, 5, 0], Err(Code::FrameUnexpected)),
            (&[4, 0, 2, 0], Err(Code::FrameUnexpected)),
            (&[4, 0, 9, 0], Err(Code::FrameUnexpected)),
            (&[4, 0, 3, 1, 0], Err(Code::IdError)),
            (&[4, 0, 0xd, 1, 9, 0xd, 1, 8], Err(Code::IdError)),
            (&[4, 0, 7, 1, 0, 7, 1, 1], Err(Code::IdError)),
            (&[4, 0, 7, 0], Err(Code::FrameError)),
            (&[4, 0, 7, 2, 0, 0], Err(Code::FrameError)),
            (&[4, 0, 0xd, 1, 0x40], Err(Code::FrameError)),
            (&[4, 2, 2, 0], Err(Code::SettingsError)),
            (&[4, 0x44, 1], Err(Code::ExcessiveLoad)),
        ];
        for (input, expected) in cases {
            assert_eq!(take(Control::default(), input), expected, "{input:?}");
        }
    }

    #[test]
    fn without_a_table_there_is_nothing_to_instruct() {
        assert_eq!(take(Encoder, &[0x20, 0x20]), Ok(()));
        for instruction in [0x21, 0x3f, 0x80, 0xc1, 0x40, 0x00, 0x02] {
            assert_eq!(take(Encoder, &[instruction]), Err(Code::EncoderStreamError), "{instruction:x}");
        }
        assert_eq!(take(Decoder::default(), &[0x44, 0x7f, 0x80, 0x01, 0x48]), Ok(()));
        for instruction in [0x80, 0x84, 0x00, 0x01] {
            assert_eq!(take(Decoder::default(), &[instruction]), Err(Code::DecoderStreamError));
        }
        assert_eq!(
            take(Decoder::default(), &[&[0x7f][..], &[0xff; 12]].concat()),
            Err(Code::DecoderStreamError)
        );
    }
}
