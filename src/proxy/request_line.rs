//! Writes a target as it came that hyper cannot write, since the `http` crate's URI does not hold it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::target::Raw;

/// A connection whose next request line may be replaced.
#[derive(Debug)]
pub(super) struct RequestLine<T> {
    io: T,
    replaced: Option<Replaced>,
    /// The replacement, as far as it is still to be written.
    unwritten: Bytes,
}

#[derive(Debug)]
struct Replaced {
    /// What hyper begins with: the method and the target of the URI.
    expected: Bytes,
    by: Bytes,
}

impl<T> RequestLine<T> {
    /// For one request, whose target is written as it came.
    pub(super) fn new<B>(io: T, request: &Request<B>) -> Self {
        let replaced = request.extensions().get::<Raw>().map(|raw| {
            let method = request.method();
            Replaced {
                expected: format!("{method} {} ", request.uri()).into(),
                by: format!("{method} {} ", raw.as_str()).into(),
            }
        });
        Self { io, replaced, unwritten: Bytes::new() }
    }

    pub(super) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncWrite + Unpin> RequestLine<T> {
    fn poll_unwritten(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.unwritten))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.unwritten.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for RequestLine<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for RequestLine<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(Replaced { expected, by }) = this.replaced.take() {
            // The head is written from one buffer.
            if !buf.starts_with(&expected) {
                let message = "the request line is not what was expected";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
            }
            this.unwritten = by;
            return Poll::Ready(Ok(expected.len()));
        }
        ready!(this.poll_unwritten(cx))?;
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_unwritten(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_unwritten(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
