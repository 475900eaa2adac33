//! A stream that sends what is written to it when it is told to: h2 hands over each DATA frame by itself and asks for a flush
//! behind each, where the frames of several responses make one record of TLS and one packet.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use atomic_refcell::AtomicRefCell;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Handles to one stream: h2 has one, who tells it to send another.
#[derive(Debug)]
pub(super) struct Corked<T>(Arc<AtomicRefCell<Inner<T>>>);

#[derive(Debug)]
struct Inner<T> {
    io: T,
    /// What waits to be sent. No place is kept for it while there is nothing.
    held: Vec<u8>,
    /// How much of that has been sent.
    sent: usize,
    is_corked: bool,
    /// The socket took nothing of what was last written to it, and not all of what was last flushed.
    stuck: [bool; 2],
    /// How often it has taken something.
    taken: u64,
}

/// What is held at the most: a record of TLS (RFC 8446 section 5.1).
pub(super) const MOST: usize = 16 << 10;
/// Pieces of this size gain nothing by waiting for others.
const LARGE: usize = 8 << 10;

impl<T> Corked<T> {
    /// It sends all at once until it is corked.
    pub(super) fn new(io: T) -> Self {
        Self(Arc::new(AtomicRefCell::new(Inner {
            io,
            held: Vec::new(),
            sent: 0,
            is_corked: false,
            stuck: [false; 2],
            taken: 0,
        })))
    }

    pub(super) fn handle(&self) -> Self {
        Self(self.0.clone())
    }

    /// Whether the socket takes nothing at the moment, and how often it has taken something.
    pub(super) fn stuck(&self) -> (bool, u64) {
        let inner = self.0.borrow();
        (inner.stuck.contains(&true), inner.taken)
    }

    /// Has something done to the stream.
    pub(super) fn with(&self, act: impl FnOnce(&T)) {
        act(&self.0.borrow().io);
    }

    /// From now on, what is written waits for [`Corked::poll_send`].
    pub(super) fn cork(&self) {
        self.0.borrow_mut().is_corked = true;
    }
}

impl<T: AsyncWrite + Unpin> Corked<T> {
    /// Sends what waits.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_write(&mut self, bufs: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if !self.is_corked || length >= LARGE || self.held.len() + length > MOST {
            return self.poll_write_through(bufs, cx);
        }
        if self.held.capacity() == 0 {
            self.held.reserve_exact(MOST);
        }
        bufs.iter().for_each(|buf| self.held.extend_from_slice(buf));
        Poll::Ready(Ok(length))
    }

    /// Writes what is held and of these as much as makes a record with it.
    fn poll_write_through(&mut self, bufs: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let held = &self.held[self.sent..];
            let mut room = MOST;
            let mut record = SmallVec::<[IoSlice<'_>; 4]>::new();
            for piece in std::iter::once(held).chain(bufs.iter().map(|buf| &**buf)) {
                let piece = &piece[..piece.len().min(room)];
                room -= piece.len();
                if !piece.is_empty() {
                    record.push(IoSlice::new(piece));
                }
            }
            let polled = Pin::new(&mut self.io).poll_write_vectored(cx, &record);
            (self.stuck[0], self.taken) = (polled.is_pending(), self.taken + u64::from(polled.is_ready()));
            let written = ready!(polled)?;
            let (of_bufs, is_empty) = (written.saturating_sub(held.len()), held.is_empty());
            drop(record);
            match is_empty || of_bufs > 0 {
                true => {
                    (self.held, self.sent) = (Vec::new(), 0);
                    return Poll::Ready(Ok(of_bufs));
                }
                false if written == 0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                false => self.sent += written,
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.stuck[1] = flushed.is_pending();
        flushed
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.held.len() {
            let polled = Pin::new(&mut self.io).poll_write(cx, &self.held[self.sent..]);
            (self.stuck[0], self.taken) = (polled.is_pending(), self.taken + u64::from(polled.is_ready()));
            match ready!(polled)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        (self.held, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Corked<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(&[IoSlice::new(buf)], cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(bufs, cx)
    }

    fn is_write_vectored(&self) -> bool {
        // Copied or handed on, no piece has to be by itself.
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        match inner.is_corked {
            true => Poll::Ready(Ok(())),
            false => inner.poll_send(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes so many bytes, some at a time.
    #[derive(Debug)]
    struct Taking {
        room: usize,
        at_once: usize,
        writes: Vec<Vec<u8>>,
        flushes: usize,
    }

    impl AsyncWrite for Taking {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            let mut all = bufs.iter().flat_map(|buf| buf.to_vec()).collect::<Vec<_>>();
            all.truncate(this.room.min(this.at_once));
            if all.is_empty() {
                return Poll::Pending;
            }
            let count = all.len();
            this.room -= count;
            this.writes.push(all);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.get_mut().flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn plain(room: usize, at_once: usize) -> Corked<Taking> {
        Corked::new(Taking { room, at_once, writes: Vec::new(), flushes: 0 })
    }

    fn corked() -> Corked<Taking> {
        let corked = plain(usize::MAX, usize::MAX);
        corked.cork();
        corked
    }

    impl Corked<Taking> {
        /// Writes all, where the socket takes it.
        fn write(&mut self, mut data: &[u8]) -> Poll<()> {
            while !data.is_empty() {
                let cx = &mut Context::from_waker(Waker::noop());
                let written = ready!(Pin::new(&mut *self).poll_write(cx, data)).unwrap();
                assert!(written > 0, "h2 takes nothing for the stream's end");
                data = &data[written..];
            }
            Poll::Ready(())
        }

        fn send(&self) -> Poll<()> {
            self.poll_send(&mut Context::from_waker(Waker::noop())).map(Result::unwrap)
        }

        fn sizes(&self) -> Vec<usize> {
            self.0.borrow().io.writes.iter().map(Vec::len).collect()
        }

        fn all(&self) -> Vec<u8> {
            self.0.borrow().io.writes.concat()
        }
    }

    #[test]
    fn small_pieces_go_together_when_it_is_told_to_send() {
        let mut corked = corked();
        for piece in [&b"one"[..], b"two", b"three"] {
            assert!(corked.write(piece).is_ready());
            let flushed = Pin::new(&mut corked).poll_flush(&mut Context::from_waker(Waker::noop()));
            assert!(flushed.is_ready());
        }
        assert!(corked.all().is_empty());
        assert!(corked.send().is_ready());
        assert_eq!((corked.sizes(), corked.all()), (vec![11], b"onetwothree".to_vec()));
        assert_eq!(corked.0.borrow().io.flushes, 1);
        assert_eq!(corked.0.borrow().held.capacity(), 0, "an idle connection keeps no place");
    }

    #[test]
    fn before_it_is_corked_it_sends_at_once() {
        let mut plain = plain(usize::MAX, usize::MAX);
        assert!(plain.write(b"settings").is_ready());
        assert_eq!(plain.sizes(), [8]);
    }

    #[test]
    fn large_pieces_make_whole_records_with_what_waits() {
        let mut corked = corked();
        assert!(corked.write(b"small").is_ready());
        assert!(corked.write(&[1; MOST]).is_ready());
        assert!(corked.write(&[2; MOST]).is_ready());
        assert_eq!(corked.sizes(), [MOST, MOST]);
        assert!(corked.send().is_ready());
        assert_eq!(corked.all(), [&b"small"[..], &[1; MOST], &[2; MOST]].concat());
    }

    #[test]
    fn no_more_is_held_than_a_record() {
        let mut corked = corked();
        for _ in 0..5 {
            assert!(corked.write(&[1; LARGE - 1]).is_ready());
        }
        assert_eq!(corked.sizes(), [MOST, MOST]);
    }

    #[test]
    fn nothing_is_lost_or_said_twice_where_the_socket_takes_little() {
        for at_once in [1, 3, 1000, usize::MAX] {
            let corked = &mut plain(0, at_once);
            corked.cork();
            let mut written = Vec::new();
            for (byte, size) in [(1, 5000), (2, 9), (3, MOST), (4, MOST - 9), (5, 40_000), (6, 1)] {
                let before = written.len();
                written.extend(std::iter::repeat_n(byte, size));
                let mut piece = &written[before..];
                while !piece.is_empty() {
                    let cx = &mut Context::from_waker(Waker::noop());
                    match Pin::new(&mut *corked).poll_write(cx, piece).map(Result::unwrap) {
                        Poll::Ready(count) => piece = &piece[count..],
                        Poll::Pending => corked.0.borrow_mut().io.room += 777,
                    }
                }
            }
            while corked.send().is_pending() {
                corked.0.borrow_mut().io.room += 777;
            }
            assert!(corked.all() == written, "{at_once}");
        }
    }
}
