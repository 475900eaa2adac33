//! One connection from its first byte: TLS, then the choice of protocol, then that protocol to its end.

use std::{future::poll_fn, io, pin::pin, sync::Arc, time::Duration};

use bytes::BytesMut;
use rustls::ServerConnection;
use tokio::{sync::watch, time::timeout};

use super::{
    admission::{Permit, Refused},
    h1, h2,
    live::Ending,
    preface::{self, First},
    proxy_protocol::{self, header::Told},
    stream::{Io, Stream},
    tls_stream,
};
use crate::{
    http::{
        alt_svc::AltSvc,
        connection::{ClientRules, Connection, Early, Kept, Peer, Protocol, Tls},
        connection_auth::Reservations,
        forwarded::Hop,
    },
    proxy::session::Handler,
    snapshot::settings::Listener,
    telemetry::metrics,
    tls,
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
    #[error("the connection does not begin with the HTTP/2 preface")]
    NoPreface,
    #[error("the client's certificate cannot be read: {0}")]
    ClientCertificate(#[from] tls::ClientCertificateError),
    #[error("{0}")]
    ProxyHeader(#[from] proxy_protocol::Refused),
    #[error("{0}")]
    Limit(#[from] Refused),
}

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
    let (mut stream, first, tls) = match settings.tls.clone() {
        Some(config) => {
            let shaken = encrypted(io.after(read.freeze()), &config, &settings).await;
            let facts = shaken.as_ref().ok().and_then(|(_, _, tls)| tls.as_ref());
            settings.metrics.shaken(facts.map(|tls| tls.version));
            shaken?
        }
        None => cleartext(io, read, &told, &settings, accepted.ending.draining.clone()).await?,
    };
    // Without TLS nothing has been agreed on, and a client of another protocol need not know HTTP/1 either.
    if first == First::Other && tls.is_none() && !settings.protocols.h1 {
        return Err(Failed::NoPreface);
    }
    stream.bound_closing(accepted.ending.is_cut(), settings.timeouts.write_idle);
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
        reservations: Reservations::default(),
    });
    match first {
        // In a box: connections of HTTP/1 would make room for it.
        First::Http2 => Box::pin(h2::serve(stream, connection, settings, handler)).await,
        // Over TLS without ALPN, where HTTP/1 is not spoken, the client is told so in its own protocol.
        First::Other => h1::serve(stream, connection, settings, handler).await,
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
    // In a box: what a handshake needs would stay with the connection.
    let shaken = timeout(settings.timeouts.handshake, Box::pin(tls_stream::accept(io, server)));
    let (stream, rules) = shaken.await.map_err(|_| Failed::Slow)??;
    let (first, facts) = settled(stream.session(), rules, stream.early())?;
    Ok((Stream::tls(stream), first, Some(facts)))
}

fn settled(session: &ServerConnection, rules: ClientRules, early: Early) -> Result<(First, Tls), Failed> {
    let first = match session.alpn_protocol() {
        Some(b"h2") => First::Http2,
        _ => First::Other,
    };
    Ok((first, tls::facts(session, rules, early)?))
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
