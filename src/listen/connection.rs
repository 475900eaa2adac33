//! One connection from its first byte: TLS, then the choice of protocol, then that protocol to its end.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncWriteExt, sync::watch, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::{
    h1, h2,
    live::Ending,
    preface::{self, First},
    stream::{Io, Stream},
};
use crate::{
    http::{
        alt_svc::AltSvc,
        connection::{Connection, Kept, Peer, Protocol, Tls},
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
    #[error("the client speaks HTTP/1, which is not spoken here")]
    Http1,
}

/// What the client gets that speaks HTTP/1 where only HTTP/2 is spoken (RFC 9110 section 15.6.6).
const HTTP1_REFUSED: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\n\
    Content-Type: text/plain\r\nContent-Length: 29\r\nConnection: close\r\n\r\n\
    Only HTTP/2 is spoken here.\r\n";

/// Serves the connection until it ends or is cut.
pub(super) async fn serve<H: Handler>(io: Io, accepted: Accepted, handler: Arc<H>) {
    let mut ending = accepted.ending.clone();
    let (listener, peer) = (accepted.settings.name.clone(), accepted.peer);
    tokio::select! {
        biased;
        () = ending.cut() => tracing::debug!(%listener, %peer, "connection cut"),
        ended = run(io, accepted, handler) => {
            if let Err(error) = ended {
                tracing::debug!(%listener, %peer, %error, "connection ended early");
            }
        }
    }
}

async fn run<H: Handler>(io: Io, accepted: Accepted, handler: Arc<H>) -> Result<(), Failed> {
    let settings = accepted.settings.clone();
    let (stream, first, tls) = match settings.tls.clone() {
        Some(config) => {
            let shaken = encrypted(io, TlsAcceptor::from(config), &settings).await;
            let facts = shaken.as_ref().ok().and_then(|(_, _, tls)| tls.as_ref());
            settings.metrics.shaken(facts.map(|tls| tls.version));
            shaken?
        }
        None => cleartext(io, &settings, accepted.ending.draining.clone()).await?,
    };
    let (protocol, counted) = match first {
        First::Http2 => (Protocol::Http2, metrics::Protocol::H2),
        First::Other => (Protocol::Http1, metrics::Protocol::H1),
    };
    let _open = settings.metrics.opened(counted);
    let connection = Arc::new(Connection {
        listener: settings.name.clone(),
        peer: accepted.peer,
        hop: Hop::new(accepted.peer.ip()),
        local: accepted.local,
        protocol,
        tls,
        alt_svc: accepted.alt_svc,
        draining: accepted.ending.draining,
        kept: Kept::default(),
    });
    match first {
        First::Http2 => h2::serve(stream, connection, settings, handler).await,
        First::Other if settings.protocols.h1 => {
            h1::serve(stream, connection, settings, handler).await;
        }
        First::Other => return refuse_http1(stream, settings.timeouts.handshake).await,
    }
    Ok(())
}

/// TLS: the protocol is what ALPN settled, HTTP/1 for a client that offers none (RFC 9113 section 3.2).
async fn encrypted(
    io: Io,
    acceptor: TlsAcceptor,
    settings: &Listener,
) -> Result<(Stream, First, Option<Tls>), Failed> {
    let handshake = timeout(settings.timeouts.handshake, acceptor.accept(io));
    let stream = handshake.await.map_err(|_| Failed::Slow)??;
    let session = stream.get_ref().1;
    let first = match session.alpn_protocol() {
        Some(b"h2") => First::Http2,
        _ => First::Other,
    };
    let facts = tls::facts(session)?;
    Ok((Stream::tls(stream), first, Some(facts)))
}

/// Cleartext: the protocol is told by the client's first bytes, where it is not the only one.
async fn cleartext(
    mut io: Io,
    settings: &Listener,
    draining: watch::Receiver<bool>,
) -> Result<(Stream, First, Option<Tls>), Failed> {
    if !settings.protocols.h2 {
        return Ok((Stream::plain(io, Bytes::new()), First::Other, None));
    }
    let mut buffer = BytesMut::new();
    first_bytes(&mut io, &mut buffer, settings.timeouts.idle, draining).await?;
    let decided = timeout(settings.timeouts.handshake, preface::decide(&mut io, &mut buffer));
    let first = decided.await.map_err(|_| Failed::Slow)??;
    Ok((Stream::plain(io, buffer.freeze()), first, None))
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
