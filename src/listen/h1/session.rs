//! One HTTP/1 exchange: the connection's stream and buffers, lent to a request and taken back after it.

use std::{
    future::poll_fn,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, response};
use tokio::{io::ReadBuf, sync::watch};
use tokio_util::io::poll_read_buf;

use super::{
    Io, Patience,
    answer::{self, Asked, Framing},
    exchange::Exchange,
    output::Output,
};
use crate::{
    error::Reason,
    listen::{deadline::Deadline, pace::Pace},
    proxy::session::{ClientError, Closed, Session},
    wire::h1::{
        body::{Body, BodyLength, Piece},
        write,
    },
};

/// What came of reading ahead.
enum Ahead {
    /// The client has closed.
    Ended,
    /// As much has come as is kept.
    Full,
}

/// A connection with the exchange that it carries at the moment.
pub struct Http1<I: Io> {
    pub(super) io: I,
    /// Bytes read and not yet understood.
    pub(super) input: BytesMut,
    /// Bytes said and not yet written.
    output: Output,
    pub(super) read_deadline: Deadline,
    write_deadline: Deadline,
    patience: Patience,
    pace: Pace,
    /// Turns true when the connection shall end.
    draining: watch::Receiver<bool>,
    exchange: Exchange,
}

/// How much is read at once.
const READ: usize = 16 * 1024;
/// Room below this is too little to read into.
const READ_LEAST: usize = 2 * 1024;
/// What may come in after a request, while its response is on the way.
const MOST_PIPELINED: usize = 64 * 1024;
/// An unread rest of a body up to this is read past, to keep the connection.
const MOST_DRAINED: u64 = 64 * 1024;

impl<I: Io> Http1<I> {
    pub fn new(io: I, patience: Patience, draining: watch::Receiver<bool>) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            output: Output::default(),
            read_deadline: Deadline::default(),
            write_deadline: Deadline::default(),
            patience,
            pace: Pace::new(patience.body),
            draining,
            exchange: Exchange::idle(),
        }
    }

    /// Starts the exchange of a request whose head was read; refuses one whose body is seen to be malformed.
    pub(super) fn begin(&mut self, head: &super::head::Head, close: bool) -> Result<(), Reason> {
        self.read_deadline.clear();
        self.pace.restart();
        let mut body = Body::new(head.length);
        let has_come = body.look_ahead(&mut self.input).map_err(|_| Reason::BadChunk)?;
        self.exchange = Exchange {
            body,
            body_is_empty: head.length == BodyLength::Empty,
            asked: Asked {
                head_only: head.parts.method == http::Method::HEAD,
                http11: head.parts.version == http::Version::HTTP_11,
                connect: head.parts.method == http::Method::CONNECT,
            },
            owes_continue: head.expects_continue && !has_come,
            close,
            ..Exchange::idle()
        };
        Ok(())
    }

    /// Starts an exchange that can only be refused: its head could not be read.
    pub(super) fn begin_refusal(&mut self) {
        self.exchange = Exchange { close: true, ..Exchange::idle() };
    }

    /// Ends the exchange; says whether another may follow.
    pub(super) async fn end(&mut self) -> bool {
        let complete = matches!(self.exchange.framing, Some(Framing::None | Framing::Exact(0)));
        if self.exchange.broken || !complete || self.flush().await.is_err() {
            return false;
        }
        if self.exchange.close {
            return false;
        }
        self.drain().await
    }

    /// Reads past what is left of a short body that nobody wanted, as long as a body may stall.
    async fn drain(&mut self) -> bool {
        if self.exchange.body.is_done() {
            return true;
        }
        let limit = self.patience.body.idle;
        let draining = async {
            let mut left = MOST_DRAINED;
            loop {
                match self.read_body().await {
                    Ok(Some(data)) if (data.len() as u64) < left => left -= data.len() as u64,
                    Ok(None) => return true,
                    _ => return false,
                }
            }
        };
        tokio::time::timeout(limit, draining).await.unwrap_or(false)
    }

    /// Whether the connection cannot go on behind the body if nobody reads that: what is left is long, or
    /// the client waits to be told to send it and may or may not do so (RFC 9110 section 10.1.1).
    fn body_ends_connection(&self) -> bool {
        self.exchange.owes_continue || !self.exchange.body.is_short(MOST_DRAINED)
    }

    /// Whether what went wrong leaves nothing to be polite about.
    pub(super) fn is_broken(&self) -> bool {
        self.exchange.broken
    }

    /// Reads what there is into `input`; zero bytes mean that the client has closed.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        if self.input.capacity() - self.input.len() < READ_LEAST {
            if self.exchange.body.is_done() {
                return self.poll_fill_little(cx);
            }
            self.input.reserve(READ);
        }
        poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input)
    }

    /// The same where little is expected, or nothing: no buffer is made before there is something to keep.
    fn poll_fill_little(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        self.input.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Nothing is to be read or written for a while: buffers are for those who have something in them.
    pub(super) fn rest(&mut self) {
        for buffer in [&mut self.input, &mut self.output.collected] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }

    /// Reads ahead, within bounds, until the client's end.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Ahead> {
        while self.input.len() < MOST_PIPELINED {
            match ready!(self.poll_fill(cx)) {
                Ok(1..) => {}
                _ => {
                    self.exchange.close = true;
                    return Poll::Ready(Ahead::Ended);
                }
            }
        }
        Poll::Ready(Ahead::Full)
    }

    async fn fill_body(&mut self) -> Result<(), ClientError> {
        let received = self.exchange.received;
        poll_fn(|cx| match self.poll_fill(cx) {
            Poll::Ready(Ok(1..)) => {
                self.read_deadline.clear();
                self.pace.resume();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(_) => Poll::Ready(Err(ClientError::Gone)),
            // A tunnel may be silent for as long as its upstream lets it.
            Poll::Pending if self.exchange.body.is_tunnel() => Poll::Pending,
            Poll::Pending => {
                let limit = self.pace.limit(received);
                self.read_deadline.poll(limit, cx).map(|()| Err(ClientError::BodyTimeout))
            }
        })
        .await
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        while !self.output.is_empty() {
            let written = ready!(self.poll_write(cx));
            let Ok(count @ 1..) = written else {
                self.exchange.broken = true;
                return Poll::Ready(Err(written.err().unwrap_or(ClientError::Gone)));
            };
            if self.output.written(count) {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ClientError>> {
        match self.output.poll_write(&mut self.io, cx) {
            Poll::Ready(result) => {
                self.write_deadline.clear();
                // A client that takes something of the response is not one that stalls.
                self.read_deadline.clear();
                Poll::Ready(result.map_err(|_| ClientError::Gone))
            }
            Poll::Pending => self.poll_stuck(cx).map(Err),
        }
    }

    /// The client takes nothing: past the deadline the connection is given up, and nothing of it stays in the kernel.
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<ClientError> {
        ready!(self.write_deadline.poll(self.patience.write_idle, cx));
        self.io.cut();
        Poll::Ready(ClientError::WriteTimeout)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(flushed) => {
                self.write_deadline.clear();
                Poll::Ready(flushed.map_err(|_| ClientError::Gone))
            }
            Poll::Pending => self.poll_stuck(cx).map(Err),
        }
    }
}

impl<I: Io> Session for Http1<I> {
    fn body_is_empty(&self) -> bool {
        self.exchange.body_is_empty
    }

    fn body_is_done(&self) -> bool {
        self.exchange.body.is_done()
    }

    fn awaits_continue(&self) -> bool {
        self.exchange.owes_continue && self.input.is_empty()
    }

    async fn read_body(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.exchange.owes_continue && self.input.is_empty() && self.exchange.framing.is_none() {
            self.exchange.owes_continue = false;
            answer::write_informational(&mut self.output.collected, StatusCode::CONTINUE, &HeaderMap::new());
            self.flush().await?;
        }
        loop {
            match self.exchange.body.take(&mut self.input) {
                Ok(Piece::Data(data)) => {
                    self.exchange.owes_continue = false;
                    self.exchange.received += data.len() as u64;
                    return Ok(Some(data));
                }
                Ok(Piece::End) => {
                    self.read_deadline.clear();
                    return Ok(None);
                }
                Ok(Piece::More) if self.exchange.body.is_tunnel() => match self.fill_body().await {
                    Ok(()) => {}
                    Err(_) => {
                        self.exchange.body.end();
                        return Ok(None);
                    }
                },
                Ok(Piece::More) => {
                    let filled = self.fill_body().await;
                    // What comes after an answer to half a request could be its other half.
                    self.exchange.close |= filled.is_err();
                    filled?;
                }
                Err(what) => {
                    self.exchange.close = true;
                    return Err(ClientError::Malformed(what));
                }
            }
        }
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.exchange.body.take_trailers()
    }

    async fn closed(&mut self, limit: Duration) -> Closed {
        poll_fn(|cx| match self.poll_ahead(cx) {
            Poll::Ready(Ahead::Ended) => Poll::Ready(Closed::Gone),
            _ => self.read_deadline.poll(limit, cx).map(|()| Closed::Idle),
        })
        .await
    }

    fn restart_wait(&mut self) {
        self.read_deadline.clear();
    }

    async fn gone(&mut self) {
        let ahead = poll_fn(|cx| self.poll_ahead(cx)).await;
        // The end of a tunnel's one way stands in its order behind what has come, and leaves the other open.
        if matches!(ahead, Ahead::Full) || self.exchange.framing == Some(Framing::Tunnel) {
            self.io.broken_off().await;
        }
    }

    fn leave_body(&mut self) {
        // What has come already need not be waited for.
        while let Ok(Piece::Data(data)) = self.exchange.body.take(&mut self.input) {
            self.exchange.owes_continue = false;
            self.exchange.received += data.len() as u64;
        }
        self.exchange.close |= self.body_ends_connection();
    }

    fn close(&mut self) {
        self.exchange.close = true;
    }

    async fn send_informational(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
    ) -> Result<(), ClientError> {
        // HTTP/1.0 knows no 1xx (RFC 9110 section 15.2).
        if !self.exchange.asked.http11 {
            return Ok(());
        }
        if status == StatusCode::CONTINUE {
            self.exchange.owes_continue = false;
        }
        answer::write_informational(&mut self.output.collected, status, fields);
        self.flush().await
    }

    async fn send_head(&mut self, head: response::Parts, end: bool) -> Result<(), ClientError> {
        self.read_deadline.clear();
        let framing = answer::framing(&head, end, self.exchange.asked);
        let until_close = framing == Framing::UntilClose;
        self.exchange.until_close = until_close;
        self.exchange.close |= until_close
            || self.exchange.owes_continue
            || (end && self.body_ends_connection())
            || *self.draining.borrow();
        answer::write_head(
            &mut self.output.collected,
            &head,
            framing,
            self.exchange.asked,
            self.exchange.close,
        );
        self.exchange.framing = Some(framing);
        if framing == Framing::Tunnel {
            self.exchange.close = true;
            self.exchange.body.become_tunnel();
        }
        Ok(())
    }

    async fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), ClientError> {
        self.read_deadline.clear();
        let framing = self.exchange.framing.unwrap_or(Framing::None);
        if framing != Framing::None {
            self.exchange.sent += data.len() as u64;
        }
        let (data, closing): (_, &'static [u8]) = match framing {
            Framing::None => return Ok(()),
            Framing::Exact(left) => {
                let data = data.slice(..usize::try_from(left).unwrap_or(usize::MAX).min(data.len()));
                self.exchange.framing = Some(Framing::Exact(left - data.len() as u64));
                (data, b"")
            }
            Framing::Chunked => {
                if !data.is_empty() {
                    write::write_chunk_size(&mut self.output.collected, data.len());
                }
                match (data.is_empty(), end) {
                    (true, false) => return Ok(()),
                    (false, false) => (data, b"\r\n"),
                    (true, true) => (data, b"0\r\n\r\n"),
                    (false, true) => (data, b"\r\n0\r\n\r\n"),
                }
            }
            Framing::UntilClose => (data, b""),
            Framing::Tunnel => {
                if end {
                    self.exchange.body.end();
                }
                (data, b"")
            }
        };
        if end && !matches!(framing, Framing::Exact(_)) {
            self.exchange.framing = Some(Framing::None);
        }
        match self.output.put(data, closing) {
            true => poll_fn(|cx| self.poll_write_out(cx)).await,
            false => Ok(()),
        }
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        ready!(self.poll_write_out(cx))?;
        if !self.output.flushing {
            return Poll::Ready(Ok(()));
        }
        // What ends a chunk may have come behind it.
        ready!(self.poll_write_out(cx))?;
        let flushed = ready!(self.poll_flush(cx));
        self.output.flushing = false;
        self.exchange.broken |= flushed.is_err();
        Poll::Ready(flushed)
    }

    async fn say(&mut self, data: &mut Bytes) -> Result<(), ClientError> {
        self.exchange.sent += data.len() as u64;
        self.output.collected.extend_from_slice(&std::mem::take(data));
        self.flush().await
    }

    async fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), ClientError> {
        if self.exchange.framing == Some(Framing::Chunked) {
            write::write_trailers(&mut self.output.collected, &trailers);
            self.exchange.framing = Some(Framing::None);
            return Ok(());
        }
        self.send_data(Bytes::new(), true).await
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        self.output.flushing = true;
        poll_fn(|cx| self.poll_sent(cx)).await
    }

    fn reset(&mut self) {
        self.exchange.broken = true;
    }

    fn bytes(&self) -> (u64, u64) {
        (self.exchange.received, self.exchange.sent)
    }
}

impl<I: Io> Drop for Http1<I> {
    /// A body that ends with the connection would look whole wherever it is cut (RFC 9112 section 8).
    fn drop(&mut self) {
        let Exchange { framing, until_close, broken, .. } = self.exchange;
        if until_close && (framing == Some(Framing::UntilClose) || broken || !self.output.is_empty()) {
            self.io.cut();
        }
    }
}
