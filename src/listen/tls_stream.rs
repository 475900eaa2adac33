//! The server's side of TLS on a socket. tokio-rustls, which has one, hands on nothing that a client sends before the
//! handshake is over (RFC 8446 section 2.3), and sends session tickets by themselves, where they can go with a response.

use std::{
    future::poll_fn,
    io::{self, BufRead, IoSlice, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls::{
    ProtocolVersion, ServerConnection, Writer,
    server::{Accepted, Acceptor},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{deadline::Deadline, stream::Io};
use crate::{
    http::connection::{ClientRules, Early},
    tls::{Ruled, Server},
};

/// A socket with TLS, from the server's first flight on.
#[derive(Debug)]
pub struct TlsStream {
    io: Io,
    session: ServerConnection,
    early: Early,
    /// Session tickets are all that there is to send: they wait for the first response.
    tickets: Option<Deadline>,
    /// The client has said something, to which there will be an answer.
    has_asked: bool,
    /// The end has been announced.
    closed: bool,
}

/// How long session tickets wait for a request, with whose response they go.
const TICKETS: Duration = Duration::from_millis(50);

/// Shakes hands up to where requests may come: to the end, or to where early data was accepted.
pub(super) async fn accept(io: Io, server: &Server) -> io::Result<(Box<TlsStream>, ClientRules)> {
    let (accepted, mut io) = hello(io).await?;
    // Where hosts ask different things of clients, the name that the client asks for decides.
    let Ruled { config, rules } =
        server.only().unwrap_or_else(|| server.find(accepted.client_hello().server_name())).clone();
    let session = match accepted.into_connection(config) {
        Ok(session) => session,
        Err((error, mut alert)) => {
            write_now(&mut io, |io| alert.write(io)).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    };
    let stream =
        TlsStream { io, session, early: Early::default(), tickets: None, has_asked: false, closed: false };
    let mut stream = Box::new(stream);
    // What came behind the hello has been read with it.
    poll_fn(|cx| Poll::Ready(stream.process(cx))).await?;
    poll_fn(|cx| stream.poll_handshake(cx)).await?;
    if stream.session.is_handshaking() {
        stream.early = Early::begun();
    }
    Ok((stream, rules))
}

async fn hello(mut io: Io) -> io::Result<(Accepted, Io)> {
    let mut acceptor = Acceptor::default();
    loop {
        let read = poll_fn(|cx| acceptor.read_tls(&mut Blocking { io: &mut io, cx }).into_poll());
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
    poll_fn(|cx| {
        let _ = write(&mut Blocking { io, cx });
        Poll::Ready(())
    })
    .await;
}

// === impl TlsStream ===

impl TlsStream {
    pub(super) fn session(&self) -> &ServerConnection {
        &self.session
    }

    pub(super) fn io(&self) -> &Io {
        &self.io
    }

    /// Whether what it reads is early, for as long as it is.
    pub(super) fn early(&self) -> Early {
        self.early.clone()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.tickets.is_none() {
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
        let was_handshaking = self.session.is_handshaking();
        if let Err(error) = self.session.process_new_packets() {
            // The alert that says so, as far as it goes out at once.
            let _ = self.session.write_tls(&mut Blocking { io: &mut self.io, cx });
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if was_handshaking && !self.session.is_handshaking() {
            self.early.end();
            // In TLS 1.2 the server has the last word of the handshake, and the client waits for it.
            let may_wait = self.session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
            self.tickets = (may_wait && self.session.wants_write()).then(Deadline::default);
        }
        Ok(())
    }

    fn poll_write_tls(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, session, tickets, .. } = self;
        *tickets = None;
        while session.wants_write() {
            if ready!(session.write_tls(&mut Blocking { io, cx }).into_poll())? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes something to send, and sends it as far as it goes out at once.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        nothing: bool,
        take: impl Fn(&mut Writer<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let count = take(&mut self.session.writer())?;
            let written = self.poll_write_tls(cx);
            if count > 0 || nothing {
                // What was taken is rustls' own to write; that it cannot is found by the next call.
                return Poll::Ready(Ok(count));
            }
            ready!(written)?;
        }
    }

    /// Sends what there is to send while something is waited for.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tickets) = &mut self.tickets {
            if self.has_asked {
                return Poll::Pending;
            }
            ready!(tickets.poll(TICKETS, cx));
        }
        self.poll_write_tls(cx)
    }

    /// What is there, without a wait: what came early comes first.
    fn read_ready(&mut self, to: &mut ReadBuf<'_>) -> io::Result<()> {
        if let Some(mut early) = self.session.early_data() {
            let count = early.read(to.initialize_unfilled())?;
            if count > 0 {
                to.advance(count);
                return Ok(());
            }
        }
        let begin = to.filled().len();
        let mut reader = self.session.reader();
        // A record has some 16 KiB at the most, and smaller ones come together.
        while to.remaining() > 0 {
            let ready = match reader.fill_buf() {
                Ok(ready) => &ready[..ready.len().min(to.remaining())],
                // It is told once what came before it is read.
                Err(_) if to.filled().len() > begin => break,
                Err(error) => return Err(error),
            };
            if ready.is_empty() {
                break;
            }
            to.put_slice(ready);
            let taken = ready.len();
            reader.consume(taken);
        }
        Ok(())
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.read_ready(buf) {
                Ok(()) => {
                    this.has_asked = true;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if let Poll::Ready(read) = this.poll_read_tls(cx) {
                read?;
                continue;
            }
            // Reading goes on where writing cannot: the client may wait for neither.
            if let Poll::Ready(Err(error)) = this.poll_unsent(cx) {
                return Poll::Ready(Err(error));
            }
            return Poll::Pending;
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_take(cx, buf.is_empty(), |writer| writer.write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let nothing = bufs.iter().all(|buf| buf.is_empty());
        self.get_mut().poll_take(cx, nothing, |writer| writer.write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
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
        blocking(Pin::new(&mut *self.io).poll_read(self.cx, &mut to))?;
        Ok(to.filled().len())
    }
}

impl Write for Blocking<'_, '_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.io).poll_write(self.cx, from))
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.io).poll_write_vectored(self.cx, from))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is pending would block.
fn blocking<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
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

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, sync::Arc};

    use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::*;
    use crate::tls::{Handshake, Resolver, SINCE_TLS12, SelfSigned, Tickets, provider};

    /// A client that does nothing by itself.
    struct Client {
        io: UnixStream,
        session: ClientConnection,
    }

    impl Client {
        fn send(&mut self) {
            let mut bytes = Vec::new();
            while self.session.wants_write() {
                self.session.write_tls(&mut bytes).unwrap();
            }
            assert_eq!(self.io.try_write(&bytes).unwrap(), bytes.len());
        }

        async fn receive(&mut self) {
            let mut bytes = [0; 64 << 10];
            let count = self.io.read(&mut bytes).await.unwrap();
            let mut bytes = &bytes[..count];
            while !bytes.is_empty() {
                self.session.read_tls(&mut bytes).unwrap();
                self.session.process_new_packets().unwrap();
            }
        }

        fn tickets(&self) -> u32 {
            self.session.tls13_tickets_received()
        }

        fn nothing_came(&self) -> bool {
            self.io.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        }
    }

    /// Both sides of a connection whose handshake is over.
    async fn shaken(
        versions: &'static [&'static rustls::SupportedProtocolVersion],
    ) -> (Client, Box<TlsStream>) {
        let certificate = SelfSigned::default().certificate(&["a.test".into()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.chain()[0].clone()).unwrap();
        let handshake = Handshake {
            resolver: Resolver::new(&[certificate], []),
            versions,
            alpn: Vec::new(),
            session_tickets: true,
            early_data: false,
            quic: None,
            client_auth: None,
            hosts: Vec::new(),
        };
        let server = Server::new(handshake, &Tickets::default()).unwrap();
        let config = ClientConfig::builder_with_provider(provider());
        let config = config.with_protocol_versions(versions).unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let session = ClientConnection::new(config, ServerName::try_from("a.test").unwrap()).unwrap();
        let (io, theirs) = UnixStream::pair().unwrap();
        let mut client = Client { io, session };
        let client_side = async {
            client.send();
            while client.session.is_handshaking() {
                client.receive().await;
                client.send();
            }
            client
        };
        let (client, accepted) = tokio::join!(client_side, accept(Io::Unix(theirs), &server));
        (client, accepted.unwrap().0)
    }

    #[tokio::test]
    async fn tickets_go_with_the_first_response() {
        let (mut client, mut server) = shaken(SINCE_TLS12).await;
        client.session.writer().write_all(b"ask").unwrap();
        client.send();
        assert_eq!(server.read(&mut [0; 16]).await.unwrap(), 3);
        // Not even where the answer takes its time.
        let more = tokio::time::timeout(TICKETS * 4, server.read(&mut [0; 16])).await;
        assert!(more.is_err() && client.nothing_came());
        server.write_all(b"answer").await.unwrap();
        client.receive().await;
        let mut answer = [0; 16];
        assert_eq!((client.tickets(), client.session.reader().read(&mut answer).unwrap()), (2, 6));
    }

    #[tokio::test]
    async fn tickets_do_not_wait_for_ever() {
        let (mut client, mut server) = shaken(SINCE_TLS12).await;
        let mut unread = [0; 16];
        tokio::select! {
            _ = server.read(&mut unread) => unreachable!("nothing is said"),
            () = client.receive() => {}
        }
        assert_eq!(client.tickets(), 2);
    }

    #[tokio::test]
    async fn records_are_read_together_and_their_end_is_told() {
        let (mut client, mut server) = shaken(SINCE_TLS12).await;
        for word in ["one", "two"] {
            client.session.writer().write_all(word.as_bytes()).unwrap();
            client.send();
        }
        let mut read = [0; 16];
        assert_eq!(server.read(&mut read).await.unwrap(), 6);
        client.session.send_close_notify();
        client.send();
        assert_eq!(server.read(&mut read).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_connection_cut_short_does_not_look_ended() {
        let (client, mut server) = shaken(SINCE_TLS12).await;
        drop(client);
        let error = server.read(&mut [0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn in_tls_1_2_the_server_has_the_last_word_of_the_handshake() {
        static ONLY: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
        let (mut client, mut server) = shaken(ONLY).await;
        server.write_all(b"hello").await.unwrap();
        client.receive().await;
        let mut hello = [0; 16];
        assert_eq!(client.session.reader().read(&mut hello).unwrap(), 5);
    }
}
