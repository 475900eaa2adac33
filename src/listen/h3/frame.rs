//! Frames, taken apart as their bytes come (RFC 9114 section 7). What may stand where is decided when a frame's type
//! is known, so that nothing is kept of what is refused.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{code::Code, varint};

/// Types of frames (RFC 9114 section 7.2).
pub const DATA: u64 = 0x0;
pub const HEADERS: u64 = 0x1;
pub const CANCEL_PUSH: u64 = 0x3;
pub const SETTINGS: u64 = 0x4;
pub const PUSH_PROMISE: u64 = 0x5;
pub const GOAWAY: u64 = 0x7;
pub const MAX_PUSH_ID: u64 = 0xd;
/// RFC 9218 section 7.2: of a request, and of a push.
pub const PRIORITY_UPDATE: [u64; 2] = [0xf0700, 0xf0701];

/// What is done with a frame of some type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Its payload is given on as it comes.
    Stream,
    /// Its payload is given on as a whole, where it has at most this many bytes.
    Gather { most: usize },
    /// Nobody looks at it.
    Skip,
}

/// A piece of what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Of a payload that is streamed.
    Data(Bytes),
    /// A gathered payload.
    Whole { kind: u64, payload: Bytes },
    /// A payload longer than is gathered; nothing is read after it.
    TooLong,
}

/// Takes frames apart.
#[derive(Debug, Default)]
pub struct Frames {
    input: Bytes,
    state: State,
    /// Empty frames beyond those that carried something.
    empty: u16,
    /// The length of all that nobody looks at.
    skipped: u64,
}

/// So many empty frames are a flood: they cost us more than who sends them (RFC 9114 section 10.5).
const MOST_EMPTY: u16 = 1000;

/// Frames that mean nothing are for keeping the protocol open, and for a little padding: more of them is work for nothing, as
/// soon as they announce it.
const MOST_SKIPPED: u64 = 1 << 20;

#[derive(Debug)]
enum State {
    /// The type and the length of the next frame, as far as they came.
    Head {
        bytes: [u8; 16],
        have: usize,
    },
    Stream {
        left: u64,
    },
    Gather {
        kind: u64,
        left: usize,
        payload: BytesMut,
    },
    Skip {
        left: u64,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Head { bytes: [0; 16], have: 0 }
    }
}

impl Frames {
    /// Takes what has come of the stream.
    pub fn feed(&mut self, input: Bytes) {
        debug_assert!(self.input.is_empty(), "what has come is taken before more is");
        self.input = input;
    }

    /// The next piece, `None` where more has to come. `decide` says what is done with a frame of some type.
    pub fn piece(&mut self, mut decide: impl FnMut(u64) -> Result<Use, Code>) -> Result<Option<Piece>, Code> {
        loop {
            match &mut self.state {
                State::Head { bytes, have } => {
                    let Some((kind, length)) = head(bytes, have, &mut self.input) else { return Ok(None) };
                    let used = decide(kind)?;
                    self.empty = match length {
                        0 if self.empty == MOST_EMPTY => return Err(Code::ExcessiveLoad),
                        0 => self.empty + 1,
                        _ => self.empty.saturating_sub(1),
                    };
                    match used {
                        Use::Stream => self.state = State::Stream { left: length },
                        Use::Skip => {
                            self.skipped = self.skipped.saturating_add(length);
                            if self.skipped > MOST_SKIPPED {
                                return Err(Code::ExcessiveLoad);
                            }
                            self.state = State::Skip { left: length };
                        }
                        Use::Gather { most } => match usize::try_from(length) {
                            Ok(left) if left <= most => {
                                self.state = State::Gather { kind, left, payload: BytesMut::new() };
                            }
                            _ => return Ok(Some(Piece::TooLong)),
                        },
                    }
                }
                State::Stream { left: 0 } | State::Skip { left: 0 } => self.state = State::default(),
                State::Stream { left } => {
                    let taken = shorter(*left, self.input.len());
                    if taken == 0 {
                        return Ok(None);
                    }
                    *left -= taken as u64;
                    return Ok(Some(Piece::Data(self.input.split_to(taken))));
                }
                State::Skip { left } => {
                    let taken = shorter(*left, self.input.len());
                    if taken == 0 {
                        return Ok(None);
                    }
                    *left -= taken as u64;
                    self.input.advance(taken);
                }
                State::Gather { kind, left, payload } => {
                    let taken = self.input.split_to((*left).min(self.input.len()));
                    *left -= taken.len();
                    let whole = match payload.is_empty() && *left == 0 {
                        true => taken,
                        false => {
                            payload.extend_from_slice(&taken);
                            if *left > 0 {
                                return Ok(None);
                            }
                            std::mem::take(payload).freeze()
                        }
                    };
                    let kind = *kind;
                    self.state = State::default();
                    return Ok(Some(Piece::Whole { kind, payload: whole }));
                }
            }
        }
    }

    /// Whether the stream may end here: no frame is cut short (RFC 9114 section 7.1).
    pub fn is_between_frames(&self) -> bool {
        match self.state {
            State::Head { have, .. } => have == 0,
            State::Stream { left } | State::Skip { left } => left == 0,
            State::Gather { .. } => false,
        }
    }
}

/// The type and length of the next frame, once they have come.
fn head(bytes: &mut [u8; 16], have: &mut usize, input: &mut Bytes) -> Option<(u64, u64)> {
    while *have < bytes.len() && input.has_remaining() {
        bytes[*have] = input.get_u8();
        *have += 1;
        let mut known = &bytes[..*have];
        if let Some(kind) = varint::take(&mut known)
            && let Some(length) = varint::take(&mut known)
        {
            return Some((kind, length));
        }
    }
    None
}

fn shorter(left: u64, have: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(have)
}

/// Whether HTTP/2 has a frame of this type and HTTP/3 has not: it must not be sent (RFC 9114 section 7.2.8).
pub fn is_of_http2(kind: u64) -> bool {
    matches!(kind, 0x02 | 0x06 | 0x08 | 0x09)
}

/// A frame's type and length, as they go before its payload.
pub fn put_head(kind: u64, length: usize, out: &mut impl BufMut) {
    varint::put(kind, out);
    varint::put(length as u64, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(kind: u64) -> Result<Use, Code> {
        match kind {
            DATA => Ok(Use::Stream),
            HEADERS => Ok(Use::Gather { most: 10 }),
            SETTINGS => Err(Code::FrameUnexpected),
            _ => Ok(Use::Skip),
        }
    }

    fn all(frames: &mut Frames, input: &[u8]) -> Vec<Piece> {
        frames.feed(Bytes::copy_from_slice(input));
        std::iter::from_fn(|| frames.piece(decide).unwrap()).collect()
    }

    #[test]
    fn pieces_are_the_same_however_the_bytes_come() {
        // HEADERS, an unknown type, an empty DATA, DATA.
        let bytes = [1, 3, b'a', b'b', b'c', 0x40, 0x21, 2, 9, 9, 0, 0, 0, 4, b'd', b'a', b't', b'a'];
        let whole = Piece::Whole { kind: HEADERS, payload: Bytes::from_static(b"abc") };
        let mut frames = Frames::default();
        assert_eq!(all(&mut frames, &bytes), [whole.clone(), Piece::Data(Bytes::from_static(b"data"))]);
        assert!(frames.is_between_frames());

        let mut frames = Frames::default();
        let mut pieces = Vec::new();
        for (place, byte) in bytes.iter().enumerate() {
            pieces.extend(all(&mut frames, &[*byte]));
            let ends = [5, 10, 12, 18];
            assert_eq!(frames.is_between_frames(), ends.contains(&(place + 1)), "after {place}");
        }
        assert_eq!(pieces[0], whole);
        assert_eq!(pieces.len(), 5);
    }

    #[test]
    fn what_is_passed_over_has_a_bound_for_all_of_a_stream() {
        let mut frames = Frames::default();
        // Two numbers of four bytes: an unknown type and 32 KiB.
        let mut frame = vec![0x80, 0, 0, 0x21, 0x80, 0, 0x80, 0];
        frame.resize(8 + (32 << 10), 0);
        for _ in 0..32 {
            assert_eq!(all(&mut frames, &frame), []);
        }
        assert_eq!(all(&mut frames, &[0, 1, b'd']).len(), 1);
        frames.feed(Bytes::from_static(&[0x21, 1]));
        assert_eq!(frames.piece(decide), Err(Code::ExcessiveLoad));
        // That it is announced is enough.
        let mut frames = Frames::default();
        frames.feed(Bytes::from_static(&[0x21, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]));
        assert_eq!(frames.piece(decide), Err(Code::ExcessiveLoad));
    }

    #[test]
    fn what_is_refused_is_known_by_its_type_and_length_alone() {
        let mut frames = Frames::default();
        frames.feed(Bytes::from_static(&[4, 50]));
        assert_eq!(frames.piece(decide), Err(Code::FrameUnexpected));
        let mut frames = Frames::default();
        frames.feed(Bytes::from_static(&[1, 11]));
        assert_eq!(frames.piece(decide), Ok(Some(Piece::TooLong)));
    }
}
