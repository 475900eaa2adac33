//! What of a body is given on at once: more than one packet holds, where more has come.

use bytes::{Bytes, BytesMut};

const PIECE: usize = 32 << 10;

/// Some of a body. The first part is not copied, where it stays alone.
#[derive(Default)]
pub(super) struct Gathered {
    first: Bytes,
    more: BytesMut,
}

impl Gathered {
    fn len(&self) -> usize {
        self.first.len().max(self.more.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is enough to be given on.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= PIECE
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if self.is_empty() {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            self.more.reserve(PIECE);
            self.more.extend_from_slice(&self.first);
        }
        self.more.extend_from_slice(&data);
    }

    pub(super) fn take(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_in_their_order_until_there_is_enough() {
        let mut gathered = Gathered::default();
        assert!(gathered.is_empty());
        for part in ["a", "b", "c"] {
            gathered.push(Bytes::from_static(part.as_bytes()));
        }
        assert!(!gathered.is_full());
        gathered.push(vec![b'd'; PIECE].into());
        assert!(gathered.is_full());
        let piece = gathered.take();
        assert_eq!((&piece[..4], piece.len()), (&b"abcd"[..], PIECE + 3));
    }
}
