//! One connection from its first packet: the handshake, then HTTP/3 to its end.

use std::{future::poll_fn, sync::Arc};

use quinn::{Connecting, ConnectionError, VarInt, crypto::rustls::HandshakeData};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::accept::Unfinished;
use crate::{
    http::{
        connection::{Connection, Kept, Protocol, Tls},
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
    drop(unfinished);
    settings.metrics.quic.shaken(shaken.is_ok());
    let (quic, tls) = match shaken {
        Ok(shaken) => shaken,
        Err(error) => {
            tracing::debug!(listener = %settings.name, %peer, %error, "connection ended early");
            return;
        }
    };
    let _open = settings.metrics.opened(metrics::Protocol::H3);
    let connection = Arc::new(Connection {
        listener: settings.name.clone(),
        peer,
        hop: Hop::new(peer.ip()),
        local: accepted.local,
        protocol: Protocol::Http3,
        tls: Some(tls),
        alt_svc: None,
        draining: accepted.ending.draining,
        kept: Kept::default(),
    });
    tokio::select! {
        biased;
        () = poll_fn(|cx| cut.poll(cx)) => {
            quic.close(VarInt::from(h3::Code::NoError), b"");
            tracing::debug!(listener = %settings.name, %peer, "connection cut");
        }
        () = h3::serve(quic.clone(), connection, settings.clone(), handler) => {}
    }
    let path = quic.stats().path;
    settings.metrics.quic.sent_packets.inc_by(path.sent_packets);
    settings.metrics.quic.lost_packets.inc_by(path.lost_packets);
}

async fn shake(connecting: Connecting, settings: &Listener) -> Result<(quinn::Connection, Tls), Failed> {
    let quic = timeout(settings.timeouts.handshake, connecting).await.map_err(|_| Failed::Slow)??;
    let data = quic.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let chain = quic.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let sni = data.and_then(|data| data.server_name);
    let rules = settings.quic.as_ref().map(|quic| quic.rules).unwrap_or_default();
    let facts = tls::quic_facts(sni, chain.as_deref().map(Vec::as_slice), rules)?;
    Ok((quic, facts))
}
