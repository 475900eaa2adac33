//! One health check: a connection, a request and the head of its response, or a gRPC call.
//!
//! Pingora's HttpHealthCheck is not used for it: each owns two connectors, each with the system's authorities
//! loaded, and over HTTP/2 it sends neither scheme nor authority.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header, request, uri::PathAndQuery};
use pingora::upstreams::peer::HttpPeer;

use super::{
    config::Protocol,
    connections::{Connector, Key, Route},
    exchange::{Event, Exchange, Failure, RequestHead, whole},
    grpc_health,
    settings::{EndpointSettings, Health, Host, Pool, Probe, Settings},
    tls::{ServerName, name_for},
};
use crate::wire::h1::{body::BodyLength, response::HeadLimits};

/// Of a longer body the rest is not read: its end says nothing about health.
const MOST_BODY: usize = 64 << 10;

/// What checks connect with.
pub struct Prober {
    connector: Arc<Connector>,
}

/// What is checked: where it is, how it is connected to, and the host asked for.
pub struct Target {
    peer: HttpPeer,
    host: Host,
    protocol: Protocol,
    is_tls: bool,
    limits: HeadLimits,
}

// === impl Target ===

impl Target {
    /// A target connected to as `peer` is, but within the check's timeout.
    pub fn new(settings: &Settings, health: &Health, own: &EndpointSettings, mut peer: HttpPeer) -> Self {
        let host = match &health.probe {
            Probe::Http { host: Some(host), .. } | Probe::Grpc { host: Some(host), .. } => host.clone(),
            _ => Host::of_endpoint(settings, own),
        };
        let asks_for_host = settings.tls.as_ref().is_some_and(|tls| tls.server_name == ServerName::Request);
        if asks_for_host && own.host.is_none() {
            peer.sni = name_for(host.name(), own.address.address());
        }
        let options = &mut peer.options;
        options.connection_timeout = Some(health.timeout);
        options.total_connection_timeout = Some(health.timeout);
        Self {
            peer,
            host,
            protocol: settings.protocol,
            is_tls: settings.tls.is_some(),
            limits: settings.response_limits,
        }
    }

    fn head<'a>(
        &self,
        parts: &'a request::Parts,
        body: BodyLength,
        host: &'a HeaderValue,
    ) -> RequestHead<'a> {
        RequestHead { parts, host, tls: self.is_tls, body, tunnel: None }
    }
}

// === impl Prober ===

impl Prober {
    pub fn new(connector: Arc<Connector>) -> Self {
        Self { connector }
    }

    /// Checks once; the caller sets the limit of time for the whole. Says why where it fails.
    pub async fn check(&self, probe: &Probe, target: &Target) -> Result<(), String> {
        match probe {
            // TLS is no part of it.
            Probe::Tcp => {
                let peer = HttpPeer { scheme: pingora::upstreams::peer::Scheme::HTTP, ..target.peer.clone() };
                self.connector.connect(&peer).await.map(drop).map_err(|failure| failure.to_string())
            }
            Probe::Http { path, status, .. } => {
                let got = self.get(path, target).await.map_err(|failure| failure.to_string())?;
                match status.contains(&got) {
                    true => Ok(()),
                    false => Err(format!("status {got}")),
                }
            }
            Probe::Grpc { service, .. } => {
                let response = self.call(service, target).await.map_err(|failure| failure.to_string())?;
                grpc_health::verdict(&response)
            }
        }
    }

    /// The status that a request on a connection of its own is answered with.
    async fn get(&self, path: &PathAndQuery, target: &Target) -> Result<u16, Failure> {
        let mut exchange = self.open(target, target.protocol).await?;
        let mut parts = head();
        parts.uri = path.clone().into();
        exchange.send_head(target.head(&parts, BodyLength::Empty, &target.host.field()))?;
        exchange.send_end(None)?;
        let mut status = None;
        let mut read = 0;
        loop {
            match (poll_fn(|cx| exchange.poll_event(cx)).await, status) {
                (Ok(Event::Room | Event::Informational(_)), _) => {}
                (Ok(Event::Head(parts, _)), _) => status = Some(parts.status.as_u16()),
                (Ok(Event::Data(data)), _) if read <= MOST_BODY => read += data.len(),
                (Err(failure), None) => return Err(failure),
                (_, status) => return Ok(status.unwrap_or_default()),
            }
        }
    }

    /// The response to a gRPC health check on a connection of its own.
    async fn call(&self, service: &str, target: &Target) -> Result<Response<Bytes>, Failure> {
        // HTTP/1.1 is no choice, where ALPN has one.
        let protocol = if target.protocol == Protocol::Auto { Protocol::H2 } else { target.protocol };
        let mut exchange = self.open(target, protocol).await?;
        let mut parts = head();
        grpc_health::complete(&mut parts);
        let question = grpc_health::question(service);
        let host = target.host.field();
        let head = target.head(&parts, BodyLength::Exact(question.len() as u64), &host);
        whole(&mut exchange, head, question, grpc_health::MOST_BODY).await
    }

    /// A connection of its own.
    async fn open(&self, target: &Target, protocol: Protocol) -> Result<Exchange, Failure> {
        let route = Route {
            connections: Arc::default(),
            key: Key::default(),
            protocol,
            limits: target.limits,
            pool: Pool::of_idle(Default::default()),
        };
        self.connector.open(&route, Box::new(target.peer.clone()), true).await
    }
}

/// The head of a request, but for its target.
fn head() -> request::Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.headers.insert(header::USER_AGENT, HeaderValue::from_static("portolan-health"));
    parts
}
