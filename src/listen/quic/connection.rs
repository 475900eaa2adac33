//! One connection from its first packet: the handshake, then HTTP/3 to its end.

use std::{future::poll_fn, sync::Arc};

use quinn::{Connecting, ConnectionError, VarInt, ZeroRttAccepted, crypto::rustls::HandshakeData};
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};

use super::accept::Unfinished;
use crate::{
    http::{
        connection::{Connection, Early, Kept, Protocol, Tls},
        connection_auth::Reservations,
        forwarded::Hop,
    },
    listen::{connection::Accepted, h3},
    proxy::session::Handler,
    snapshot::settings::Listener,
    telemetry::metrics,
    tls,
};

/// Why a connection ended before a protocol was spoken.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Quic(#[from] ConnectionError),
    #[error("the handshake took too long")]
    Slow,
    #[error("the client's certificate cannot be read: {0}")]
    ClientCertificate(#[from] tls::ClientCertificateError),
}

/// Serves the connection until it ends or is cut.
pub(super) async fn serve<H: Handler>(
    connecting: Connecting,
    unfinished: Unfinished,
    accepted: Accepted,
    handler: Arc<H>,
) {
    let settings = accepted.settings.clone();
    let peer = accepted.peer;
    let _counted = accepted.permit;
    let mut cut = accepted.ending.cut();
    let shaken = tokio::select! {
        biased;
        () = poll_fn(|cx| cut.poll(cx)) => return,
        shaken = shake(connecting, &settings) => shaken,
    };
    let (quic, tls, unended) = match shaken {
        Ok(shaken) => shaken,
        Err(error) => {
            settings.metrics.quic.shaken(false);
            tracing::debug!(listener = %settings.name, %peer, %error, "connection ended early");
            return;
        }
    };
    let _open = settings.metrics.opened(metrics::Protocol::H3);
    let ended = end_handshake(quic.clone(), unended, tls.early.clone(), unfinished, &settings);
    let connection = Arc::new(Connection {
        listener: settings.name.clone(),
        peer,
        hop: Hop::new(peer.ip()),
        local: accepted.local,
        protocol: Protocol::Http3,
        tls: Some(tls),
        alt_svc: accepted.alt_svc,
        draining: accepted.ending.draining,
        leaving: accepted.ending.leaving,
        kept: Kept::default(),
        reservations: Reservations::default(),
    });
    tokio::select! {
        biased;
        () = poll_fn(|cx| cut.poll(cx)) => {
            quic.close(VarInt::from(h3::Code::NoError), b"");
            tracing::debug!(listener = %settings.name, %peer, "connection cut");
        }
        ((), ()) = async { tokio::join!(h3::serve(quic.clone(), connection, settings.clone(), handler), ended) } => {}
    }
    let path = quic.stats().path;
    settings.metrics.quic.sent_packets.inc_by(path.sent_packets);
    settings.metrics.quic.lost_packets.inc_by(path.lost_packets);
}

/// Shakes hands up to where requests may come: to the end, or to where the client has asked and could have sent more with
/// it. What is to come of the handshake then is there too.
async fn shake(
    mut connecting: Connecting,
    settings: &Listener,
) -> Result<(quinn::Connection, Tls, Option<Unended>), Failed> {
    let until = Instant::now() + settings.timeouts.handshake;
    let (rules, takes_early_data) =
        settings.quic.as_ref().map(|quic| (quic.rules, quic.takes_early_data)).unwrap_or_default();
    let (quic, unended) = match takes_early_data {
        false => (timeout_at(until, connecting).await.map_err(|_| Failed::Slow)??, None),
        true => {
            timeout_at(until, connecting.handshake_data()).await.map_err(|_| Failed::Slow)??;
            match connecting.into_0rtt() {
                Ok((quic, end)) => (quic, Some(Unended { end, until })),
                Err(connecting) => (timeout_at(until, connecting).await.map_err(|_| Failed::Slow)??, None),
            }
        }
    };
    let data = quic.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let chain = quic.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let sni = data.and_then(|data| data.server_name);
    let early = if unended.is_some() { Early::begun() } else { Early::default() };
    let facts = tls::quic_facts(sni, chain.as_deref().map(Vec::as_slice), rules, early)?;
    Ok((quic, facts, unended))
}

/// A handshake that goes on while requests come.
struct Unended {
    end: ZeroRttAccepted,
    until: Instant,
}

/// Sees the handshake to its end, as far as it is not there yet.
async fn end_handshake(
    quic: quinn::Connection,
    unended: Option<Unended>,
    early: Early,
    unfinished: Unfinished,
    settings: &Listener,
) {
    if let Some(Unended { end, until }) = unended {
        if timeout_at(until, end).await.is_err() {
            quic.close(VarInt::from(h3::Code::NoError), b"the handshake took too long");
        }
        early.end();
    }
    drop(unfinished);
    settings.metrics.quic.shaken(quic.close_reason().is_none());
}
