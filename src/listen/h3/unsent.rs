//! The frame of a response that the client has not taken all of.

use bytes::{Bytes, BytesMut};

use super::frame;

/// A frame's beginning and its payload, as far as the client has not taken them.
#[derive(Default)]
pub(super) struct Unsent {
    parts: [Bytes; 2],
    /// Whether the response ends behind it.
    pub ends: bool,
    /// Where the beginnings of frames are made.
    heads: BytesMut,
}

impl Unsent {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.iter().all(Bytes::is_empty)
    }

    /// Bytes of the payload that are left.
    pub(super) fn payload(&self) -> usize {
        self.parts[1].len()
    }

    /// The parts that are left.
    pub(super) fn rest(&mut self) -> Option<&mut [Bytes]> {
        let first = self.parts.iter().position(|part| !part.is_empty())?;
        Some(&mut self.parts[first..])
    }

    pub(super) fn queue(&mut self, head: Bytes, payload: Bytes) {
        debug_assert!(self.is_empty(), "one frame goes after the other");
        self.parts = [head, payload];
    }

    pub(super) fn queue_data(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.heads.reserve(16);
            frame::put_head(frame::DATA, data.len(), &mut self.heads);
            let head = self.heads.split().freeze();
            self.queue(head, data);
        }
    }

    /// Nothing of it is to be sent.
    pub(super) fn clear(&mut self) {
        (self.parts, self.ends) = Default::default();
    }
}
