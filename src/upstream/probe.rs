//! One health check: a connection, or a request and the head of its response.
//!
//! Pingora's HttpHealthCheck is not used for it: each owns two connectors, each with the system's authorities
//! loaded, and over HTTP/2 it sends neither scheme nor authority. Here all checks share one connector.

use std::sync::OnceLock;

use http::{header, uri::PathAndQuery};
use pingora::{
    connectors::{ConnectorOptions, http::Connector},
    http::RequestHeader,
    protocols::http::client::HttpSession,
    upstreams::peer::{HttpPeer, Peer},
};
use tokio::net::{TcpStream, UnixStream};

use super::{
    settings::{Health, Host, Probe, Settings},
    tls::{ServerName, name_for},
};
use crate::value::Address;

/// Bodies longer than this are cut off; their end says nothing about health.
const MOST_BODY: usize = 64 << 10;

/// What checks connect with.
pub struct Prober {
    options: Option<ConnectorOptions>,
    /// Made at the first HTTP check: it loads the system's authorities.
    connector: OnceLock<Connector>,
}

/// What is checked: where it is, how it is connected to, and the host asked for.
pub struct Target {
    address: Address,
    peer: HttpPeer,
    host: Host,
}

// === impl Target ===

impl Target {
    /// A target connected to as `peer` is, but within the check's timeout.
    pub fn new(settings: &Settings, health: &Health, address: &Address, mut peer: HttpPeer) -> Self {
        let host = match &health.probe {
            Probe::Http { host: Some(host), .. } => host.clone(),
            _ => Host::of_endpoint(settings, address),
        };
        if settings.tls.as_ref().is_some_and(|tls| tls.server_name == ServerName::Request) {
            peer.sni = name_for(host.name(), address);
        }
        let options = &mut peer.options;
        options.connection_timeout = Some(health.timeout);
        options.total_connection_timeout = Some(health.timeout);
        options.read_timeout = Some(health.timeout);
        options.write_timeout = Some(health.timeout);
        // A connection of one stream is never pooled, so each check makes its own.
        options.max_h2_streams = 1;
        Self { address: address.clone(), peer, host }
    }
}

impl Target {
    /// Connects, and says that it is a check where connections say whose they are.
    async fn connect(&self) -> Result<(), String> {
        match &self.peer.options.custom_l4 {
            Some(announcing) => {
                let connected = announcing.connect(self.peer.address()).await;
                connected.map(drop).map_err(|error| error.to_string())
            }
            None => connect(&self.address).await.map_err(|error| error.to_string()),
        }
    }
}

// === impl Prober ===

impl Prober {
    pub fn new(options: Option<ConnectorOptions>) -> Self {
        Self { options, connector: OnceLock::new() }
    }

    /// Checks once; the caller sets the limit of time for the whole. Says why where it fails.
    pub async fn check(&self, probe: &Probe, target: &Target) -> Result<(), String> {
        match probe {
            Probe::Tcp => target.connect().await,
            Probe::Http { path, status, .. } => {
                let got = self.get(path, target).await.map_err(|error| error.to_string())?;
                match status.contains(&got) {
                    true => Ok(()),
                    false => Err(format!("status {got}")),
                }
            }
        }
    }

    async fn get(&self, path: &PathAndQuery, target: &Target) -> pingora::Result<u16> {
        let Target { peer, host, .. } = target;
        let connector = self.connector.get_or_init(|| Connector::new(self.options.clone()));
        let (mut session, _) = connector.get_http_session(peer).await?;
        session.set_read_timeout(peer.options.read_timeout);
        session.set_write_timeout(peer.options.write_timeout);

        let mut request = RequestHeader::build("GET", path.as_str().as_bytes(), None)?;
        request.insert_header(header::USER_AGENT, "portolan-health")?;
        if matches!(session, HttpSession::H2(_)) {
            request.set_version(http::Version::HTTP_2);
            request.set_uri(host.uri(peer.tls(), path));
        } else {
            request.insert_header(header::HOST, host.field())?;
            request.insert_header(header::CONNECTION, "close")?;
        }
        session.write_request_header(Box::new(request)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let status = session.response_header().map_or(0, |head| head.status.as_u16());
        read_away(&mut session).await;
        Ok(status)
    }
}

/// Reads a short body to its end, so that the endpoint's log shows no broken connection.
async fn read_away(session: &mut HttpSession) {
    let mut read = 0;
    while let Ok(Some(piece)) = session.read_response_body().await {
        read += piece.len();
        if read > MOST_BODY {
            break;
        }
    }
}

async fn connect(address: &Address) -> std::io::Result<()> {
    match address {
        Address::Tcp(address) => TcpStream::connect(address).await.map(drop),
        Address::Unix(path) => UnixStream::connect(path).await.map(drop),
    }
}
