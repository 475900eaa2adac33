//! One connection from its first byte: TLS, then the choice of protocol, then that protocol to its end.

use std::{future::poll_fn, io, pin::pin, sync::Arc, time::Duration};

use bytes::BytesMut;
use rustls::ServerConnection;
use tokio::{io::AsyncWriteExt, sync::watch, time::timeout};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, server::TlsStream};

use super::{
    admission::{Permit, Refused},
    early, h1, h2,
    live::Ending,
    preface::{self, First},
    proxy_protocol::{self, header::Told},
    stream::{Io, Stream},
};
use crate::{
    http::{
        alt_svc::AltSvc,
        connection::{ClientRules, Connection, Early, Kept, Peer, Protocol, Tls},
        forwarded::Hop,
    },
    proxy::session::Handler,
    snapshot::settings::Listener,
    telemetry::metrics,
    tls::{self, Ruled},
    value::Bind,
};

/// What is known of a connection when it is accepted.
pub(super) struct Accepted {
    pub(super) peer: Peer,
    pub(super) local: Bind,
    pub(super) settings: Arc<Listener>,
    pub(super) alt_svc: Option<AltSvc>,
    pub(super) ending: Ending,
    /// Its place in the limits, until it ends.
    pub(super) permit: Permit,
}

/// Why a connection ended before a protocol was spoken.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the handshake took too long")]
    Slow,
    #[error("the client sent nothing")]
    Silent,
    #[error("the listener goes")]
    Draining,
    #[error("the client's certificate cannot be read: {0}")]
    ClientCertificate(#[from] tls::ClientCertificateError),
    #[error("{0}")]
    ProxyHeader(#[from] proxy_protocol::Refused),
    #[error("{0}")]
    Limit(#[from] Refused),
    #[error("the client speaks HTTP/1, which is not spoken here")]
    Http1,
}

/// What the client gets that speaks HTTP/1 where only HTTP/2 is spoken (RFC 9110 section 15.6.6).
const HTTP1_REFUSED: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\n\
    Content-Type: text/plain\r\nContent-Length: 29\r\nConnection: close\r\n\r\n\
    Only HTTP/2 is spoken here.\r\n";

/// Serves the connection until it ends or is cut.
pub(super) async fn serve<H: Handler>(io: Io, accepted: Accepted, handler: Arc<H>) {
    let mut cut = accepted.ending.cut();
    let (listener, peer) = (accepted.settings.name.clone(), accepted.peer);
    // Pinned where it is: `select!` would make room for it twice.
    let mut run = pin!(run(io, accepted, handler));
    tokio::select! {
        biased;
        () = poll_fn(|cx| cut.poll(cx)) => tracing::debug!(%listener, %peer, "connection cut"),
        ended = &mut run => {
            if let Err(error) = ended {
                tracing::debug!(%listener, %peer, %error, "connection ended early");
            }
        }
    }
}

async fn run<H: Handler>(mut io: Io, mut accepted: Accepted, handler: Arc<H>) -> Result<(), Failed> {
    let settings = accepted.settings.clone();
    let mut read = BytesMut::new();
    let told = proxy_protocol::take(&mut io, &mut read, accepted.peer, &settings).await?;
    let peer = accepted.is_of(&told)?;
    let (stream, first, tls) = match settings.tls.clone() {
        Some(config) => {
            let shaken = encrypted(io.after(read.freeze()), &config, &settings).await;
            let facts = shaken.as_ref().ok().and_then(|(_, _, tls)| tls.as_ref());
            settings.metrics.shaken(facts.map(|tls| tls.version));
            shaken?
        }
        None => cleartext(io, read, &told, &settings, accepted.ending.draining.clone()).await?,
    };
    let (protocol, counted) = match first {
        First::Http2 => (Protocol::Http2, metrics::Protocol::H2),
        First::Other => (Protocol::Http1, metrics::Protocol::H1),
    };
    let _open = settings.metrics.opened(counted);
    let connection = Arc::new(Connection {
        listener: settings.name.clone(),
        peer,
        hop: Hop::new(peer.ip()),
        local: accepted.local,
        protocol,
        tls,
        alt_svc: accepted.alt_svc,
        draining: accepted.ending.draining,
        leaving: accepted.ending.leaving,
        kept: Kept::default(),
    });
    match first {
        // In a box: connections of HTTP/1 would make room for it.
        First::Http2 => Box::pin(h2::serve(stream, connection, settings, handler)).await,
        First::Other if settings.protocols.h1 => {
            h1::serve(stream, connection, settings, handler).await;
        }
        First::Other => return refuse_http1(stream, settings.timeouts.handshake).await,
    }
    Ok(())
}

impl Accepted {
    /// Whose connection it is, counted as theirs.
    fn is_of(&mut self, told: &Told) -> Result<Peer, Refused> {
        let settings = &self.settings;
        let peer = proxy_protocol::peer(told, self.peer);
        if proxy_protocol::is_listed(settings, self.peer) {
            let Told { alpn, authority, .. } = told;
            let alpn = alpn.as_deref().map(|alpn| alpn.escape_ascii().to_string());
            tracing::debug!(listener = %settings.name, by = %self.peer, %peer, alpn, authority, "handed on");
            let counted = self.permit.count(peer, &settings.limits);
            counted.inspect_err(|refused| settings.metrics.refused(refused.limit()))?;
        }
        Ok(peer)
    }
}

/// TLS: the protocol is what ALPN settled, HTTP/1 for a client that offers none (RFC 9113 section 3.2).
async fn encrypted(
    io: Io,
    server: &tls::Server,
    settings: &Listener,
) -> Result<(Stream, First, Option<Tls>), Failed> {
    let limit = settings.timeouts.handshake;
    if server.takes_early_data() {
        let shaken = timeout(limit, early::accept(io, server));
        let (stream, rules) = shaken.await.map_err(|_| Failed::Slow)??;
        let (first, facts) = settled(stream.session(), rules, stream.early())?;
        return Ok((Stream::early(stream), first, Some(facts)));
    }
    let shaken = timeout(limit, shake_hands(io, server));
    let (stream, rules) = shaken.await.map_err(|_| Failed::Slow)??;
    let (first, facts) = settled(stream.get_ref().1, rules, Early::default())?;
    Ok((Stream::tls(stream), first, Some(facts)))
}

fn settled(session: &ServerConnection, rules: ClientRules, early: Early) -> Result<(First, Tls), Failed> {
    let first = match session.alpn_protocol() {
        Some(b"h2") => First::Http2,
        _ => First::Other,
    };
    Ok((first, tls::facts(session, rules, early)?))
}

/// Where hosts ask different things of clients, the name that the client asks for is read first.
async fn shake_hands(io: Io, server: &tls::Server) -> io::Result<(TlsStream<Io>, ClientRules)> {
    if let Some(Ruled { config, rules }) = server.only() {
        return Ok((TlsAcceptor::from(config.clone()).accept(io).await?, *rules));
    }
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io).await?;
    let Ruled { config, rules } = server.find(hello.client_hello().server_name()).clone();
    Ok((hello.into_stream(config).await?, rules))
}

/// Cleartext: the protocol is told by the client's first bytes, where it is not the only one.
async fn cleartext(
    mut io: Io,
    mut buffer: BytesMut,
    told: &Told,
    settings: &Listener,
    draining: watch::Receiver<bool>,
) -> Result<(Stream, First, Option<Tls>), Failed> {
    if !settings.protocols.h2 {
        return Ok((Stream::plain(io, buffer.freeze()), First::Other, None));
    }
    if let Some(first) = told.alpn.as_deref().and_then(agreed) {
        return Ok((Stream::plain(io, buffer.freeze()), first, None));
    }
    if buffer.is_empty() {
        first_bytes(&mut io, &mut buffer, settings.timeouts.idle, draining).await?;
    }
    let decided = timeout(settings.timeouts.handshake, preface::decide(&mut io, &mut buffer));
    let first = decided.await.map_err(|_| Failed::Slow)??;
    Ok((Stream::plain(io, buffer.freeze()), first, None))
}

/// What the client and whoever handed it on have agreed upon.
fn agreed(alpn: &[u8]) -> Option<First> {
    match alpn {
        b"h2" => Some(First::Http2),
        b"http/1.1" => Some(First::Other),
        _ => None,
    }
}

/// Until it says something, a connection is idle.
async fn first_bytes(
    io: &mut Io,
    buffer: &mut BytesMut,
    idle: Duration,
    mut draining: watch::Receiver<bool>,
) -> Result<(), Failed> {
    tokio::select! {
        biased;
        read = timeout(idle, preface::first_bytes(io, buffer)) => read.map_err(|_| Failed::Silent)??,
        _ = draining.wait_for(|draining| *draining) => return Err(Failed::Draining),
    }
    match buffer.is_empty() {
        true => Err(Failed::Silent),
        false => Ok(()),
    }
}

async fn refuse_http1(mut stream: Stream, limit: Duration) -> Result<(), Failed> {
    let answer = async {
        stream.write_all(HTTP1_REFUSED).await?;
        stream.shutdown().await
    };
    timeout(limit, answer).await.map_err(|_| Failed::Slow)??;
    Err(Failed::Http1)
}
