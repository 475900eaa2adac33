//! TLS that hands on what a client sends before the handshake is over (RFC 8446 section 2.3), which tokio-rustls, on the
//! servers' side, does not: it reads nothing before the client's last word of the handshake.

use std::{
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{
    ServerConnection,
    server::{Accepted, Acceptor},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Io;
use crate::{
    http::connection::{ClientRules, Early},
    tls::{Ruled, Server},
};

/// A socket with TLS, from the server's first flight on.
#[derive(Debug)]
pub struct EarlyTls {
    io: Io,
    session: ServerConnection,
    early: Early,
    /// The end has been announced.
    closed: bool,
}

/// Shakes hands up to where requests may come: to the end, or to where early data was accepted.
pub(super) async fn accept(io: Io, server: &Server) -> io::Result<(EarlyTls, ClientRules)> {
    let (accepted, mut io) = hello(io).await?;
    let Ruled { config, rules } = server.find(accepted.client_hello().server_name()).clone();
    let session = match accepted.into_connection(config) {
        Ok(session) => session,
        Err((error, mut alert)) => {
            write_now(&mut io, |io| alert.write(io)).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    };
    let mut stream = EarlyTls { io, session, early: Early::default(), closed: false };
    // What came behind the hello has been read with it.
    std::future::poll_fn(|cx| Poll::Ready(stream.process(cx))).await?;
    std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
    if stream.session.is_handshaking() {
        stream.early = Early::begun();
    }
    Ok((stream, rules))
}

async fn hello(mut io: Io) -> io::Result<(Accepted, Io)> {
    let mut acceptor = Acceptor::default();
    loop {
        let read =
            std::future::poll_fn(|cx| acceptor.read_tls(&mut Blocking { io: &mut io, cx }).into_poll());
        if read.await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => return Ok((accepted, io)),
            Err((error, mut alert)) => {
                write_now(&mut io, |io| alert.write(io)).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

/// Writes an alert as far as that takes no time: whoever gets it has broken the protocol.
async fn write_now(io: &mut Io, mut write: impl FnMut(&mut dyn Write) -> io::Result<usize>) {
    std::future::poll_fn(|cx| {
        let _ = write(&mut Blocking { io, cx });
        Poll::Ready(())
    })
    .await;
}

// === impl EarlyTls ===

impl EarlyTls {
    pub(super) fn io(&self) -> &Io {
        &self.io
    }

    pub(super) fn session(&self) -> &ServerConnection {
        &self.session
    }

    /// Whether what it reads is early, for as long as it is.
    pub(super) fn early(&self) -> Early {
        self.early.clone()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.session.wants_write() {
                ready!(self.poll_write_tls(cx))?;
            }
            if !self.session.is_handshaking() || self.session.early_data().is_some() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_read_tls(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn poll_read_tls(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { io, session, .. } = self;
        let count = ready!(session.read_tls(&mut Blocking { io, cx }).into_poll())?;
        Poll::Ready(self.process(cx).map(|()| count))
    }

    fn process(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Self { io, session, early, .. } = self;
        if let Err(error) = session.process_new_packets() {
            // The alert that says so, as far as it goes out at once.
            let _ = session.write_tls(&mut Blocking { io, cx });
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if !session.is_handshaking() {
            early.end();
        }
        Ok(())
    }

    fn poll_write_tls(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, session, .. } = self;
        while session.wants_write() {
            if ready!(session.write_tls(&mut Blocking { io, cx }).into_poll())? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What is there, without a wait: what came early comes first.
    fn read_ready(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if let Some(mut early) = self.session.early_data() {
            let count = early.read(to)?;
            if count > 0 {
                return Ok(count);
            }
        }
        self.session.reader().read(to)
    }
}

impl AsyncRead for EarlyTls {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.read_ready(buf.initialize_unfilled()) {
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            // Reading goes on where writing cannot: the client may wait for neither.
            if let Poll::Ready(Err(error)) = this.poll_write_tls(cx) {
                return Poll::Ready(Err(error));
            }
            ready!(this.poll_read_tls(cx))?;
        }
    }
}

impl AsyncWrite for EarlyTls {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let count = this.session.writer().write(buf)?;
            let written = this.poll_write_tls(cx);
            if count > 0 || buf.is_empty() {
                // What was taken is rustls' own to write; that it cannot is found by the next call.
                return Poll::Ready(Ok(count));
            }
            ready!(written)?;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_tls(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.closed, true) {
            this.session.send_close_notify();
        }
        ready!(this.poll_write_tls(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// A socket as rustls takes it, for the time of one poll.
struct Blocking<'a, 'c> {
    io: &'a mut Io,
    cx: &'a mut Context<'c>,
}

impl Read for Blocking<'_, '_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut to = ReadBuf::new(to);
        match Pin::new(&mut *self.io).poll_read(self.cx, &mut to) {
            Poll::Ready(read) => read.map(|()| to.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Blocking<'_, '_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.io).poll_write(self.cx, from) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What would block is pending: the waker is where it belongs.
trait IntoPoll<T> {
    fn into_poll(self) -> Poll<io::Result<T>>;
}

impl<T> IntoPoll<T> for io::Result<T> {
    fn into_poll(self) -> Poll<io::Result<T>> {
        match self {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        }
    }
}
