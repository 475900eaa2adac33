//! The beginning of a request's body, kept so that another try can send it again.

use bytes::{Bytes, BytesMut};

/// What has been read of a body, while it is short.
#[derive(Debug)]
pub(super) struct Replay(Option<BytesMut>);

/// What is kept of a body at most.
const MOST: usize = 64 * 1024;

impl Default for Replay {
    fn default() -> Self {
        Self(Some(BytesMut::new()))
    }
}

impl Replay {
    /// Keeps the next piece, or gives up all where it is too much.
    pub fn keep(&mut self, piece: &Bytes) {
        match &mut self.0 {
            Some(kept) if kept.len() + piece.len() <= MOST => kept.extend_from_slice(piece),
            _ => self.give_up(),
        }
    }

    /// The body cannot be sent again.
    pub fn give_up(&mut self) {
        self.0 = None;
    }

    /// Whether all that was read is there.
    pub fn is_whole(&self) -> bool {
        self.0.is_some()
    }

    /// What was read; nothing where nothing was, or where it is not whole.
    pub fn kept(&self) -> Option<Bytes> {
        self.0.as_ref().filter(|kept| !kept.is_empty()).map(|kept| Bytes::copy_from_slice(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_while_it_is_short_in_whatever_pieces_it_comes() {
        let mut replay = Replay::default();
        assert!(replay.is_whole() && replay.kept().is_none());
        for _ in 0..MOST {
            replay.keep(&Bytes::from_static(b"a"));
            replay.keep(&Bytes::new());
        }
        assert!(replay.is_whole());
        assert_eq!(replay.kept().unwrap().len(), MOST);
        replay.keep(&Bytes::from_static(b"a"));
        assert!(!replay.is_whole() && replay.kept().is_none());
        replay.keep(&Bytes::new());
        assert!(!replay.is_whole(), "what was given up is not begun anew");
    }
}
