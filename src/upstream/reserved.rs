//! Connections to endpoints that serve one client connection: see [`crate::http::connection_auth`].

use std::sync::Arc;

use async_trait::async_trait;
use pingora::{
    connectors::L4Connect,
    protocols::{
        l4::{socket::SocketAddr as PeerAddr, stream::Stream},
        tls::ALPN,
    },
    upstreams::peer::HttpPeer,
};

use super::{
    announce::{Announcing, connect, failure},
    key,
};
use crate::http::connection_auth::Reserved;

/// Makes of a peer one whose connections are the reserved one alone.
pub fn reserve(peer: &mut HttpPeer, reserved: &Arc<Reserved>) {
    let connector = Reserving { reserved: reserved.clone(), announcing: None };
    reserve_by(peer, reserved, Arc::new(connector));
}

/// The same, connected to in a way of its own.
pub(super) fn reserve_by(
    peer: &mut HttpPeer,
    reserved: &Arc<Reserved>,
    connector: Arc<dyn L4Connect + Send + Sync>,
) {
    peer.group_key = key::mix(peer.group_key ^ key::mix(reserved.id()));
    if peer.options.alpn == ALPN::H2H1 {
        // Such logins need HTTP/1.1: the requests of an HTTP/2 connection share it.
        peer.options.alpn = ALPN::H1;
    }
    reserved.set_plain(!peer.is_tls() && peer.options.alpn.get_max_http_version() == 1);
    peer.options.custom_l4 = Some(connector);
}

/// Connects, and ties the connection to the client connection that it is reserved for.
#[derive(Debug)]
pub(super) struct Reserving {
    pub reserved: Arc<Reserved>,
    pub announcing: Option<Announcing>,
}

#[async_trait]
impl L4Connect for Reserving {
    async fn connect(&self, address: &PeerAddr) -> pingora::Result<Stream> {
        let connected = connect(address, self.announcing.as_ref(), Some(&self.reserved)).await;
        connected.map_err(|error| failure("a connection for one client", error))
    }
}
