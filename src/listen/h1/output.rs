//! What is said to a client and not yet written. Small parts are collected; a large piece of a body is not copied.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::answer::COALESCE;

/// Bytes on their way to the client, in this order.
#[derive(Default)]
pub(super) struct Output {
    /// Heads, framing, small pieces.
    pub collected: BytesMut,
    piece: Bytes,
    /// What ends the chunk that `piece` is.
    closing: &'static [u8],
    /// Whether what is written is to leave the encryption layer as well.
    pub flushing: bool,
}

impl Output {
    /// Whether everything is written.
    pub(super) fn is_empty(&self) -> bool {
        self.collected.is_empty() && self.piece.is_empty()
    }

    /// Adds a piece of the body and what is said behind it. Says whether it is to be written now.
    pub(super) fn put(&mut self, data: Bytes, closing: &'static [u8]) -> bool {
        if self.collected.len() + data.len() <= COALESCE {
            self.collected.extend_from_slice(&data);
            self.collected.extend_from_slice(closing);
            return false;
        }
        (self.piece, self.closing) = (data, closing);
        true
    }

    /// Writes some of it.
    pub(super) fn poll_write<I: AsyncWrite + Unpin>(
        &self,
        io: &mut I,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(io);
        match (self.collected.is_empty(), self.piece.is_empty()) {
            (false, true) => io.poll_write(cx, &self.collected),
            (true, _) => io.poll_write(cx, &self.piece),
            (false, false) => {
                io.poll_write_vectored(cx, &[IoSlice::new(&self.collected), IoSlice::new(&self.piece)])
            }
        }
    }

    /// So many bytes of it are written. Says whether this was all but what ends the chunk, which waits for more.
    pub(super) fn written(&mut self, count: usize) -> bool {
        let collected = count.min(self.collected.len());
        self.collected.advance(collected);
        self.piece.advance(count - collected);
        if !self.is_empty() {
            return false;
        }
        self.collected.clear();
        self.collected.extend_from_slice(std::mem::take(&mut self.closing));
        true
    }
}
