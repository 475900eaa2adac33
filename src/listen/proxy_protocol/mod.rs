//! The PROXY protocol as a connection begins with it: read before anything else, from listed peers only.

pub mod header;

use std::io;

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use self::header::{First, Malformed, Told};
use crate::{
    http::connection::Peer,
    snapshot::settings::{Listener, ProxyProtocol},
    telemetry::metrics::ProxyHeader,
};

/// Why a connection is closed for what it begins with, or does not.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("a PROXY header is asked for, and the peer is not listed")]
    NotListed,
    #[error("a PROXY header is asked for, and there is none")]
    Missing,
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("the PROXY header took too long")]
    Late,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Whether the peer is one whose header is read.
pub(super) fn is_listed(settings: &Listener, peer: Peer) -> bool {
    settings.proxy_protocol.as_ref().is_some_and(|rule| rule.lists(peer.ip()))
}

/// Takes the header off a connection, where it is to have one. What was read behind it is in `buffer`.
pub(super) async fn take(
    io: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    peer: Peer,
    settings: &Listener,
) -> Result<Told, Refused> {
    let Some(rule) = &settings.proxy_protocol else { return Ok(Told::default()) };
    let limit = settings.timeouts.handshake;
    let taken = match rule.lists(peer.ip()) {
        true => timeout(limit, read(io, buffer, rule)).await.unwrap_or(Err(Refused::Late)),
        false if rule.required => Err(Refused::NotListed),
        false => Ok(None),
    };
    let outcome = match &taken {
        Ok(None) => return Ok(Told::default()),
        Ok(Some(_)) => ProxyHeader::Taken,
        Err(Refused::NotListed) => ProxyHeader::NotListed,
        Err(Refused::Missing | Refused::Io(_)) => ProxyHeader::Missing,
        Err(Refused::Malformed(_)) => ProxyHeader::Malformed,
        Err(Refused::Late) => ProxyHeader::Late,
    };
    settings.metrics.proxy_header(outcome);
    taken.map(Option::unwrap_or_default)
}

/// Reads up to the header's end; `None` where a connection that needs none begins otherwise.
async fn read(
    io: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    rule: &ProxyProtocol,
) -> Result<Option<Told>, Refused> {
    loop {
        match header::read(buffer)? {
            First::Header(length, told) => {
                buffer.advance(length);
                return Ok(Some(told));
            }
            First::Other if rule.required => return Err(Refused::Missing),
            First::Other => return Ok(None),
            First::More => {}
        }
        buffer.reserve(header::MOST);
        if io.read_buf(buffer).await? == 0 {
            return Err(Refused::Missing);
        }
    }
}

/// Who the client is, by what a header said.
pub(super) fn peer(told: &Told, own: Peer) -> Peer {
    told.client.map_or(own, Peer::Tcp)
}
