//! A client's byte stream, whatever carries it: one concrete type, so that each protocol is compiled once.

use std::{
    future::pending,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::watch,
};

use super::{h1, tls_stream::TlsStream};

/// An accepted socket.
#[derive(Debug)]
pub enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// One of which more was read than was meant for who read it.
    Read(Box<Read>),
}

/// A socket and what was read of it already.
#[derive(Debug)]
pub struct Read {
    ahead: Bytes,
    io: Io,
}

/// A socket with or without TLS, and what was read of it before its protocol was known.
#[derive(Debug)]
pub struct Stream {
    prefix: Bytes,
    carrier: Carrier,
    closing: Option<Closing>,
}

/// What becomes of bytes that the kernel still holds for the client when a connection is closed.
#[derive(Debug)]
struct Closing {
    /// True: the connection was cut, and they are thrown away.
    cut: watch::Receiver<bool>,
    /// How long the client may take none of them.
    unsent: Duration,
}

#[derive(Debug)]
enum Carrier {
    Plain(Io),
    Tls(Box<TlsStream>),
}

impl Stream {
    /// `prefix` is what was read from `io` already.
    pub fn plain(io: Io, prefix: Bytes) -> Self {
        Self { prefix, carrier: Carrier::Plain(io), closing: None }
    }

    pub fn tls(stream: Box<TlsStream>) -> Self {
        Self { prefix: Bytes::new(), carrier: Carrier::Tls(stream), closing: None }
    }
}

impl Stream {
    /// Sees to it that a client that takes nothing leaves nothing in the kernel when the connection is closed: a connection
    /// that was `cut` is reset, any other after `unsent`.
    pub fn bound_closing(&mut self, cut: watch::Receiver<bool>, unsent: Duration) {
        self.closing = Some(Closing { cut, unsent });
    }

    /// The connection is given up: it is reset when it is closed, and what the client has not taken is thrown away.
    pub fn give_up(&self) {
        self.socket().cut();
    }

    fn socket(&self) -> &Io {
        match &self.carrier {
            Carrier::Plain(io) => io,
            Carrier::Tls(stream) => stream.io(),
        }
    }
}

impl Io {
    async fn failed(&self) -> io::Result<()> {
        let ready = match self {
            Self::Tcp(io) => io.ready(Interest::ERROR).await,
            Self::Unix(io) => io.ready(Interest::ERROR).await,
            Self::Read(read) => return Box::pin(read.io.failed()).await,
        };
        ready.map(drop)
    }

    /// The same with these bytes before all that it still gives.
    pub fn after(self, ahead: Bytes) -> Self {
        match ahead.is_empty() {
            true => self,
            false => Self::Read(Box::new(Read { ahead, io: self })),
        }
    }
}

impl h1::Io for Stream {
    /// TLS ends without saying that it does (RFC 8446 section 6.1), and TCP with a reset, to which no client is blind.
    fn cut(&mut self) {
        self.socket().cut();
    }

    async fn broken_off(&self) {
        if self.socket().failed().await.is_err() {
            // No socket says so any more than its reads and writes do.
            pending().await
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        match &self.closing {
            Some(Closing { cut, .. }) if *cut.borrow() => self.socket().cut(),
            Some(Closing { unsent, .. }) => self.socket().bound_unsent(*unsent),
            None => {}
        }
    }
}

impl Io {
    /// Behind a full buffer, the kernel would keep a closed connection for as long as the client asks it to wait.
    fn bound_unsent(&self, limit: Duration) {
        match self {
            Self::Tcp(io) => drop(SockRef::from(io).set_tcp_user_timeout(Some(limit))),
            Self::Unix(_) => {}
            Self::Read(read) => read.io.bound_unsent(limit),
        }
    }

    /// Has the client's end told that this one was cut, when it is closed.
    fn cut(&self) {
        match self {
            // What fails here has no connection to reset.
            Self::Tcp(io) => drop(io.set_zero_linger()),
            Self::Unix(_) => {}
            Self::Read(read) => read.io.cut(),
        }
    }
}

/// Gives of what was read already.
fn give(ahead: &mut Bytes, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    let taken = ahead.len().min(buf.remaining());
    buf.put_slice(&ahead[..taken]);
    ahead.advance(taken);
    Poll::Ready(Ok(()))
}

/// Calls a method of whatever carries the bytes.
macro_rules! carried {
    ($this:expr, $io:ident => $call:expr) => {
        match $this {
            Carrier::Plain(Io::Tcp($io)) => $call,
            Carrier::Plain(Io::Unix($io)) => $call,
            Carrier::Plain($io @ Io::Read(_)) => $call,
            Carrier::Tls($io) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            return give(&mut this.prefix, buf);
        }
        carried!(&mut this.carrier, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        carried!(&mut self.get_mut().carrier, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(&mut self.get_mut().carrier, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(&mut self.get_mut().carrier, io => Pin::new(io).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        carried!(&mut self.get_mut().carrier, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        carried!(&self.carrier, io => io.is_write_vectored())
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_read(cx, buf),
            Self::Read(read) if !read.ahead.is_empty() => give(&mut read.ahead, buf),
            Self::Read(read) => Pin::new(&mut read.io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_write(cx, buf),
            Self::Read(read) => Pin::new(&mut read.io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Unix(io) => Pin::new(io).poll_flush(cx),
            Self::Read(read) => Pin::new(&mut read.io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Unix(io) => Pin::new(io).poll_shutdown(cx),
            Self::Read(read) => Pin::new(&mut read.io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A record of TLS comes as a list of one, and `send` is a cheaper call than `writev`.
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Unix(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Read(read) => Pin::new(&mut read.io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::Unix(io) => io.is_write_vectored(),
            Self::Read(read) => read.io.is_write_vectored(),
        }
    }
}
