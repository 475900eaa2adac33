//! An endpoint of a pool: its prebuilt peer, and the state that outlives a reload.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode};
use pingora::{connectors::L4Connect, protocols::tls::ALPN, upstreams::peer::HttpPeer};

use super::{
    announce::{Announcing, Client},
    config::{Protocol, ProxyProtocol, Verify},
    connections::{Connections, Key, Route},
    guarded::Guarded,
    health::{Checker, HealthTask},
    key,
    latency::Latency,
    probe::Target,
    reach::Denied,
    registry::Registry,
    settings::{EndpointSettings, Host, Settings},
    tls::{Authorities, Identity, ServerName, name_for},
};
use crate::{
    telemetry::metrics,
    value::{Address, Clock},
    wire::h1::response::HeadLimits,
};

/// One member of a pool.
#[derive(Debug)]
pub struct Endpoint {
    pub address: Address,
    /// The address as logs show it.
    pub shown: Box<str>,
    pub weight: u16,
    /// Lower ones are chosen first.
    pub priority: u32,
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
    protocol: Protocol,
    is_tls: bool,
    pool_idle: Duration,
    response_limits: HeadLimits,
}

/// What is known of an endpoint from serving. It outlives reloads; nothing in it needs a lock.
#[derive(Debug)]
pub struct EndpointState {
    /// Another for each state of the process.
    serial: u64,
    clock: Clock,
    healthy: AtomicBool,
    in_flight: AtomicU32,
    failures: AtomicU32,
    latency: Latency,
    metrics: Arc<metrics::Endpoint>,
    /// Those that wait for their next request.
    connections: Arc<Connections>,
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn build(settings: &Settings, own: &EndpointSettings, registry: &Registry) -> Self {
        let identity = Identity::of(settings.protocol, settings.tls.as_ref(), settings.proxy_protocol);
        let address = own.address.address();
        let key = (settings.name.clone(), address.clone(), identity);
        let state = registry.state(&key);
        let guard = own.address.guard().cloned();
        let peer = template(settings, address, guard.as_ref());
        let checker = settings.health.as_ref().map(|health| {
            registry.checker(key, health, &state, || Target::new(settings, health, address, peer.clone()))
        });
        Self {
            shown: address.to_string().into(),
            address: address.clone(),
            weight: own.weight,
            priority: own.priority,
            state,
            checker,
            peer,
            host: Host::of_endpoint(settings, address).field(),
            asks_for_host: settings.tls.as_ref().is_some_and(|tls| tls.server_name == ServerName::Request),
            proxy_protocol: settings.proxy_protocol,
            guard,
            protocol: settings.protocol,
            is_tls: settings.tls.is_some(),
            pool_idle: settings.pool_idle,
            response_limits: settings.response_limits,
        }
    }

    /// How a request to `host` (without its port) is connected, and which connections it can reuse. `client` is whose
    /// request it is, where the endpoint is told.
    pub fn route(&self, host: &str, client: Option<Client>) -> Route {
        let mut key = 0;
        if self.asks_for_host {
            key ^= key::hash(host.as_bytes());
        }
        if let Some(client) = client.filter(|_| self.proxy_protocol.is_some()) {
            key = client.group(key);
        }
        Route {
            connections: self.state.connections.clone(),
            key: Key(key),
            protocol: self.protocol,
            limits: self.response_limits,
            idle: self.pool_idle,
        }
    }

    /// What to connect to for it.
    pub fn peer(&self, host: &str, client: Option<Client>) -> Box<HttpPeer> {
        let mut peer = Box::new(self.peer.clone());
        if self.asks_for_host {
            peer.sni = name_for(host, &self.address);
        }
        if let (Some(version), Some(client)) = (self.proxy_protocol, client) {
            let announcing = Announcing { version, client: Some(client) };
            peer.options.custom_l4 = connector(Some(announcing), self.guard.as_ref());
        }
        peer
    }

    pub fn is_tls(&self) -> bool {
        self.is_tls
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
    pub fn new(serial: u64, clock: Clock, metrics: Arc<metrics::Endpoint>) -> Self {
        Self {
            serial,
            latency: Latency::new(clock.now()),
            clock,
            healthy: AtomicBool::new(true),
            in_flight: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            metrics,
            connections: Arc::default(),
        }
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
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

/// The peer that every new connection's is a copy of.
fn template(settings: &Settings, address: &Address, guard: Option<&Denied>) -> HttpPeer {
    let tls = settings.tls.as_ref();
    let name = match tls.map(|tls| &tls.server_name) {
        Some(ServerName::Fixed(name)) => name.clone(),
        Some(ServerName::Request) => name_for("", address),
        None => String::new(),
    };
    let mut peer = match address {
        Address::Tcp(address) => HttpPeer::new(address, tls.is_some(), name),
        Address::Unix(path) => {
            let path = path.to_str().expect("a socket path comes from the configuration, which is UTF-8");
            HttpPeer::new_uds(path, tls.is_some(), name).expect("an address has checked the path's length")
        }
    };
    let options = &mut peer.options;
    options.connection_timeout = Some(settings.timeouts.connect);
    options.total_connection_timeout = Some(settings.timeouts.connect);
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
        (announcing, Some(denied)) => Some(Arc::new(Guarded { denied: denied.clone(), announcing })),
        (Some(announcing), None) => Some(Arc::new(announcing)),
        (None, None) => None,
    }
}
