//! An endpoint of a pool: its prebuilt peer, and the state that outlives a reload.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode};
use pingora::{
    connectors::L4Connect,
    protocols::tls::ALPN,
    upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy},
};

use super::{
    announce::{Announcing, Client},
    config::{Protocol, ProxyProtocol, Verify},
    guarded::Guarded,
    health::{Checker, HealthTask},
    latency::Latency,
    probe::Target,
    reach::Denied,
    registry::Registry,
    reserved::{Reserving, reserve_by},
    settings::{EndpointSettings, Host, Settings},
    tls::{Authorities, Identity, ServerName, name_for},
};
use crate::{
    http::connection_auth::Reserved,
    telemetry::metrics,
    value::{Address, Clock},
};

/// Requests that share one HTTP/2 connection; what most servers allow at least (RFC 9113 section 6.5.2 advises 100).
const H2_STREAMS: usize = 128;

/// One member of a pool.
#[derive(Debug)]
pub struct Endpoint {
    pub address: Address,
    /// The address as logs show it.
    pub shown: Box<str>,
    pub weight: u16,
    pub state: Arc<EndpointState>,
    /// Keeps the health checker going; none where health is not watched.
    checker: Option<Arc<Checker>>,
    peer: HttpPeer,
    host: HeaderValue,
    /// Whether the server name is the request's host.
    asks_for_host: bool,
    /// How its connections say whose they are.
    proxy_protocol: Option<ProxyProtocol>,
    /// What each connect is checked against, for a delegated upstream.
    guard: Option<Denied>,
}

/// What is known of an endpoint from serving. It outlives reloads; nothing in it needs a lock.
#[derive(Debug)]
pub struct EndpointState {
    clock: Clock,
    healthy: AtomicBool,
    in_flight: AtomicU32,
    failures: AtomicU32,
    latency: Latency,
    metrics: Arc<metrics::Endpoint>,
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn build(settings: &Settings, own: &EndpointSettings, registry: &Registry) -> Self {
        let identity = Identity::of(settings.protocol, settings.tls.as_ref(), settings.proxy_protocol);
        let address = own.address.address();
        let key = (settings.name.clone(), address.clone(), identity);
        let state = registry.state(&key);
        let guard = own.address.guard().cloned();
        let peer = template(settings, address, identity, guard.as_ref());
        let checker = settings.health.as_ref().map(|health| {
            registry.checker(key, health, &state, || Target::new(settings, health, address, peer.clone()))
        });
        Self {
            shown: address.to_string().into(),
            address: address.clone(),
            weight: own.weight,
            state,
            checker,
            peer,
            host: Host::of_endpoint(settings, address).field(),
            asks_for_host: settings.tls.as_ref().is_some_and(|tls| tls.server_name == ServerName::Request),
            proxy_protocol: settings.proxy_protocol,
            guard,
        }
    }

    /// What to connect to for a request to `host` (without its port).
    ///
    /// `read_timeout` is the longer of the upstream's first_byte and body_idle, because Pingora uses the one for
    /// the response's head as well: the caller, who knows the route's, watches over each and may narrow it here.
    pub fn peer(&self, host: &str) -> Box<HttpPeer> {
        let mut peer = Box::new(self.peer.clone());
        if self.asks_for_host {
            peer.sni = name_for(host, &self.address);
        }
        peer
    }

    /// Makes of a peer one for this client's requests, where the endpoint is told whose its connections are.
    pub fn announce(&self, peer: &mut HttpPeer, client: Client) {
        if let Some(version) = self.proxy_protocol {
            peer.group_key = client.group(peer.group_key);
            let announcing = Announcing { version, client: Some(client) };
            peer.options.custom_l4 = connector(Some(announcing), self.guard.as_ref());
        }
    }

    /// Makes of a peer the one connection that is reserved for a client connection.
    pub fn reserve(&self, peer: &mut HttpPeer, reserved: &Arc<Reserved>, client: Option<Client>) {
        let announcing = self.proxy_protocol.map(|version| Announcing { version, client });
        let connector: Arc<dyn L4Connect + Send + Sync> = match &self.guard {
            Some(denied) => {
                let (denied, reserved) = (denied.clone(), Some(reserved.clone()));
                Arc::new(Guarded { denied, announcing, reserved })
            }
            None => Arc::new(Reserving { reserved: reserved.clone(), announcing }),
        };
        reserve_by(peer, reserved, connector);
    }

    /// Its own Host, for requests that are not to carry the client's: the server name, or else the address.
    pub fn host_header(&self) -> &HeaderValue {
        &self.host
    }

    /// Whether requests may be sent to it. Where health is not watched, they always may.
    pub fn is_healthy(&self) -> bool {
        self.checker.is_none() || self.state.is_healthy()
    }

    pub(super) fn health_task(&self) -> Option<HealthTask> {
        self.checker.as_ref().and_then(HealthTask::claim)
    }
}

// === impl EndpointState ===

impl EndpointState {
    /// An endpoint is taken for healthy until checks say otherwise.
    pub fn new(clock: Clock, metrics: Arc<metrics::Endpoint>) -> Self {
        Self {
            latency: Latency::new(clock.now()),
            clock,
            healthy: AtomicBool::new(true),
            in_flight: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            metrics,
        }
    }

    /// What the last checks said.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Requests that it is answering now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Connections that failed since the last one that was made.
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The moving average of its response times; `None` where none is known or all are long past.
    pub fn latency(&self) -> Option<Duration> {
        self.latency.at(self.clock.now())
    }

    pub fn metrics(&self) -> &metrics::Endpoint {
        &self.metrics
    }

    pub(super) fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn connected(&self) {
        if self.failures() != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.latency.failed(self.clock.now());
    }

    pub(super) fn answered(&self, status: StatusCode, at: Instant, latency: Duration) {
        self.latency.observe(at, latency);
        self.metrics.answered(status, latency);
    }
}

/// The peer that every request's is a copy of. All timeouts are finite.
fn template(settings: &Settings, address: &Address, identity: Identity, guard: Option<&Denied>) -> HttpPeer {
    let tls = settings.tls.as_ref();
    let name = match tls.map(|tls| &tls.server_name) {
        Some(ServerName::Fixed(name)) => name.clone(),
        Some(ServerName::Request) => name_for("", address),
        None => String::new(),
    };
    let mut peer = match address {
        Address::Tcp(address) => HttpPeer::new(address, tls.is_some(), name),
        Address::Unix(path) => {
            let path = path.to_str().expect("a path that was written as text");
            HttpPeer::new_uds(path, tls.is_some(), name).expect("an address has checked the path's length")
        }
    };
    peer.group_key = identity.0;
    let options = &mut peer.options;
    let timeouts = settings.timeouts;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.first_byte.max(timeouts.body_idle));
    // What belongs to the client's connection was taken away before Pingora sees the request.
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    options.write_timeout = Some(timeouts.body_idle);
    options.idle_timeout = Some(settings.pool_idle);
    options.max_h2_streams = H2_STREAMS;
    options.alpn = match settings.protocol {
        Protocol::H1 => ALPN::H1,
        Protocol::H2 | Protocol::H2c => ALPN::H2,
        Protocol::Auto => ALPN::H2H1,
    };
    let announcing = settings.proxy_protocol.map(|version| Announcing { version, client: None });
    options.custom_l4 = connector(announcing, guard);
    if let Some(tls) = tls {
        options.verify_cert = tls.verify == Verify::Full;
        options.verify_hostname = options.verify_cert;
        options.ca = tls.authorities.as_ref().map(Authorities::certificates);
        peer.client_cert_key = tls.client_certificate.as_ref().map(|client| client.pair.clone());
    }
    peer
}

/// How connections are made, where that is not Pingora's own way.
fn connector(
    announcing: Option<Announcing>,
    guard: Option<&Denied>,
) -> Option<Arc<dyn L4Connect + Send + Sync>> {
    match (announcing, guard) {
        (announcing, Some(denied)) => {
            Some(Arc::new(Guarded { denied: denied.clone(), announcing, reserved: None }))
        }
        (Some(announcing), None) => Some(Arc::new(announcing)),
        (None, None) => None,
    }
}
