//! Where frames of WebSocket begin and end in a stream of bytes (RFC 6455 section 5.2), and the one frame of our own. Nothing
//! of a stream is kept or changed: payloads stay masked, and what they mean is the two ends' own.

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};

/// Follows one way of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    place: Place,
    /// A Close has passed: nothing may follow it (RFC 6455 section 5.5.1).
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Between,
    /// Behind the first byte.
    Length,
    /// In the rest of a length that has bytes of its own.
    Extended { missing: u8, length: u64, key: u64 },
    /// In the key and the payload.
    Inside { left: u64 },
}

/// How long the key is of a payload that is masked.
const KEY: u64 = 4;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x8;
/// Says that an end is going away, as a server that goes down (RFC 6455 section 7.4.1).
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

impl Frames {
    /// Follows these bytes.
    pub fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// Follows these bytes to the end of the frame that has begun before them, and says where that is: behind all of them
    /// where it goes on, before all of them where none has begun.
    pub fn finish(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !self.is_between() {
            at += self.step(&bytes[at..]);
        }
        at
    }

    /// Whether another frame may stand here (RFC 6455 section 5.4: those of control may stand between fragments, too).
    pub fn is_between(&self) -> bool {
        self.place == Place::Between
    }

    pub fn has_closed(&self) -> bool {
        self.closed
    }

    /// Follows some of the bytes, of which there are some, and at most to the end of a frame. Says how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let byte = bytes[0];
        let mut taken = 1;
        self.place = match self.place {
            Place::Between => {
                self.closed |= byte & OPCODE == CLOSE;
                Place::Length
            }
            Place::Length => {
                let key = if byte & MASKED == 0 { 0 } else { KEY };
                match byte & !MASKED {
                    126 => Place::Extended { missing: 2, length: 0, key },
                    127 => Place::Extended { missing: 8, length: 0, key },
                    length => Place::inside(u64::from(length) + key),
                }
            }
            Place::Extended { missing, length, key } => {
                let length = length << 8 | u64::from(byte);
                match missing - 1 {
                    0 => Place::inside(length.saturating_add(key)),
                    missing => Place::Extended { missing, length, key },
                }
            }
            Place::Inside { left } => {
                taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                Place::inside(left - taken as u64)
            }
        };
        taken
    }
}

impl Place {
    fn inside(left: u64) -> Self {
        match left {
            0 => Self::Between,
            left => Self::Inside { left },
        }
    }
}

/// A server's Close that says that it goes away.
pub fn going_away() -> Bytes {
    const FRAME: &[u8] = &[FIN | CLOSE, 2, GOING_AWAY[0], GOING_AWAY[1]];
    Bytes::from_static(FRAME)
}

/// A client's, masked by a key that nobody could guess (RFC 6455 section 5.3).
pub fn going_away_masked() -> Bytes {
    let mut key = [0; KEY as usize];
    SystemRandom::new().fill(&mut key).expect("the system has a source of random numbers");
    let mut frame = vec![FIN | CLOSE, MASKED | 2];
    frame.extend(key);
    frame.extend(GOING_AWAY.iter().zip(key).map(|(byte, key)| byte ^ key));
    frame.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame's head and payload of nothing but the bytes that a Close begins with.
    fn frame(first: u8, length: usize, masked: bool, widen: bool) -> Vec<u8> {
        let mask = if masked { MASKED } else { 0 };
        let mut out = vec![first];
        match length {
            0..=125 if !widen => out.push(mask | length as u8),
            0..=65535 if !widen => {
                out.push(mask | 126);
                out.extend((length as u16).to_be_bytes());
            }
            _ => {
                out.push(mask | 127);
                out.extend((length as u64).to_be_bytes());
            }
        }
        out.extend(std::iter::repeat_n(FIN | CLOSE, length + if masked { 4 } else { 0 }));
        out
    }

    #[test]
    fn our_own_frames_are_whole() {
        for frame in [going_away(), going_away_masked()] {
            let mut frames = Frames::default();
            frames.follow(&frame[..frame.len() - 1]);
            assert!(!frames.is_between() && frames.has_closed());
            frames.follow(&frame[frame.len() - 1..]);
            assert!(frames.is_between());
        }
        assert_eq!(going_away()[..], [0x88, 2, 0x03, 0xe9]);
        let masked = going_away_masked();
        assert_eq!((masked[0], masked[1]), (0x88, 0x82));
        assert_eq!([masked[6] ^ masked[2], masked[7] ^ masked[3]], [0x03, 0xe9]);
        assert_ne!(going_away_masked()[2..6], masked[2..6]);
    }

    #[test]
    fn a_length_that_no_frame_may_have_never_ends() {
        let mut frames = Frames::default();
        frames.follow(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        frames.follow(&[0; 100_000]);
        assert!(!frames.is_between());
    }

    proptest! {
        #[test]
        fn frames_end_where_they_end_however_they_come(
            list in prop::collection::vec((any::<u8>(), 0_usize..300, any::<bool>(), any::<bool>()), 1..8),
            size in 1_usize..50,
        ) {
            let all: Vec<_> =
                list.iter().map(|(first, length, masked, widen)| frame(*first, *length, *masked, *widen)).collect();
            let bytes = all.concat();
            let ends: Vec<usize> = all.iter().scan(0, |at, frame| { *at += frame.len(); Some(*at) }).collect();
            // Byte by byte, it is known where one ends.
            let mut frames = Frames::default();
            for (at, byte) in bytes.iter().enumerate() {
                frames.follow(&[*byte]);
                prop_assert_eq!(frames.is_between(), ends.contains(&(at + 1)), "behind {}", at);
            }
            prop_assert_eq!(frames.has_closed(), list.iter().any(|(first, ..)| first & 0xf == 8));
            // In pieces, the same; and from every place, the end of the frame is found.
            let mut in_pieces = Frames::default();
            let mut at = 0;
            for piece in bytes.chunks(size) {
                let next = if in_pieces.is_between() { at } else { *ends.iter().find(|end| **end > at).unwrap() };
                let mut copy = in_pieces;
                prop_assert_eq!(copy.finish(&bytes[at..]), next - at);
                prop_assert!(copy.is_between());
                in_pieces.follow(piece);
                at += piece.len();
            }
            prop_assert_eq!(in_pieces, frames);
        }
    }
}
