//! An endpoint of a pool: its prebuilt peer, and the state that outlives a reload.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;
use pingora::{connectors::L4Connect, protocols::tls::ALPN, upstreams::peer::HttpPeer};

use super::{
    announce::{Announcing, Client},
    config::{Protocol, ProxyProtocol, Verify},
    connections::{Key, Route},
    fill::{FillTask, Filler},
    guarded::Guarded,
    health::{Checker, HealthTask},
    key,
    outlier::Outlier,
    probe::Target,
    race::{Racing, Rivals},
    reach::Denied,
    registry::Registry,
    settings::{Balance, EndpointSettings, Host, Pool, Settings},
    shared::Shared,
    state::{DRAINED, DRAINED_WHOLLY, EJECTED, EVERY, EndpointState, TRIED, UNHEALTHY},
    sticky::EndpointCode,
    tls::{Authorities, Identity, ServerName, Tls, name_for},
    window::Window,
};
use crate::{
    value::{Address, Name},
    wire::h1::response::HeadLimits,
};

/// One member of a pool.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: Address,
    /// The address as logs show it.
    pub shown: Box<str>,
    /// An operator's, or the configuration's: 1 to 1000. Balancers do not choose an endpoint with weight 0, for which it is 1.
    pub weight: u16,
    configured_weight: u16,
    /// Lower ones are chosen first.
    pub priority: u32,
    /// Whether it is in another zone: of one priority, endpoints of the own zone are chosen first.
    pub is_far: bool,
    /// Of the family of addresses that is used only while none of the other one can be.
    pub is_second: bool,
    /// Its zone, where one is named.
    pub zone: Option<Name>,
    /// What it is known by in the cookies of sticky sessions.
    pub code: Option<EndpointCode>,
    pub state: Arc<EndpointState>,
    /// When requests that fail eject it.
    pub(super) outlier: Option<Outlier>,
    /// The outcomes that `outlier` needs counted.
    pub(super) window: Option<Arc<Window>>,
    /// The flags of its state that keep requests away.
    out: u8,
    /// The requests in flight of all its upstream's endpoints, where the balancer needs them.
    total: Option<Arc<AtomicU64>>,
    /// How long it takes a new or recovered one to get its whole share.
    slow_start: Option<Duration>,
    /// Keeps the health checker going; none where health is not watched.
    checker: Option<Arc<Checker>>,
    peer: HttpPeer,
    host: HeaderValue,
    /// Whether the server name is the request's host.
    asks_for_host: bool,
    /// How its connections say whose they are.
    proxy_protocol: Option<ProxyProtocol>,
    /// How new connections are made.
    connecting: Connecting,
    protocol: Protocol,
    is_tls: bool,
    pool: Pool,
    /// What keeps connections ready; none where none are.
    filler: Option<Arc<Filler>>,
    response_limits: HeadLimits,
}

/// The whole of a share.
pub const FULL: u64 = 256;

/// What is done at each connect beside connecting.
#[derive(Clone, Debug, Default)]
struct Connecting {
    /// What the address is checked against, for a delegated upstream.
    guard: Option<Denied>,
    /// Addresses of the other family that are tried where this one is slow.
    rivals: Option<Arc<Rivals>>,
}

// === impl Endpoint ===

impl Endpoint {
    /// `shared` is its upstream's, which `serves` where it has been serving before it had this endpoint.
    pub(super) fn build(
        settings: &Settings,
        own: &EndpointSettings,
        registry: &Registry,
        (shared, serves): (&Shared, bool),
    ) -> Self {
        let tls = tls_of(settings, own);
        let identity = Identity::of(settings.protocol, tls.as_ref(), settings.proxy_protocol);
        let address = own.address.address();
        let key = (settings.name.clone(), address.clone(), identity);
        let (state, is_new) = registry.state(&key, &shared.changes);
        if is_new {
            state.connections().set_max(settings.pool.max);
        }
        if is_new && serves {
            state.recovered();
        }
        let outlier = settings.resilience.outlier;
        let counted = outlier.filter(|outlier| outlier.failure_ratio.is_some() || outlier.latency.is_some());
        let window = counted.map(|outlier| registry.window(&key, outlier.window));
        let direct = Connecting { guard: own.address.guard().cloned(), rivals: None };
        let rivals = Rivals::new(own.rivals.iter().copied());
        let connecting = Connecting { rivals, ..direct.clone() };
        let peer = template(settings, tls.as_ref(), address, &connecting);
        // A check is of the address itself.
        let checked = || template(settings, tls.as_ref(), address, &direct);
        let checker = settings.health.as_ref().map(|health| {
            registry.checker(key, health, &state, || Target::new(settings, health, own, checked()))
        });
        let mut endpoint = Self {
            shown: address.to_string().into(),
            address: address.clone(),
            weight: own.weight,
            configured_weight: own.weight,
            priority: own.priority,
            is_second: own.is_second,
            is_far: settings.zone.is_some() && own.zone != settings.zone,
            zone: own.zone.clone(),
            code: settings.sticky.as_ref().map(|sticky| sticky.signer(&settings.name, shared).code(address)),
            state,
            out: DRAINED
                | DRAINED_WHOLLY
                | if checker.is_some() { UNHEALTHY } else { 0 }
                | if outlier.is_some() { EJECTED | TRIED } else { 0 },
            outlier,
            window,
            total: matches!(settings.balance, Balance::BoundedHash(..)).then(|| shared.in_flight.clone()),
            slow_start: settings.resilience.slow_start,
            checker,
            peer,
            host: Host::of_endpoint(settings, own).field(),
            asks_for_host: tls.as_ref().is_some_and(|tls| tls.server_name == ServerName::Request),
            proxy_protocol: settings.proxy_protocol,
            connecting,
            protocol: settings.protocol,
            is_tls: settings.tls.is_some(),
            pool: settings.pool,
            filler: None,
            response_limits: settings.response_limits,
        };
        endpoint.weigh();
        if settings.pool.min > 0 {
            endpoint.filler = Some(Arc::new(Filler::new(endpoint.clone(), registry.connector().clone())));
        }
        endpoint
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
            connections: self.state.connections().clone(),
            key: Key(key),
            protocol: self.protocol,
            limits: self.response_limits,
            pool: self.pool,
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
            peer.options.custom_l4 = self.connecting.connector(Some(announcing));
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

    /// Whether its health checks pass. Where there are none, it is taken for healthy.
    pub fn is_healthy(&self) -> bool {
        self.checker.is_none() || self.state.is_healthy()
    }

    /// Why its last health check failed, where it did.
    pub fn check_failure(&self) -> Option<Arc<str>> {
        self.checker.as_ref().and_then(|checker| checker.failure())
    }

    /// Whether requests may be sent to it: its checks pass, and it is not ejected.
    pub fn is_usable(&self) -> bool {
        self.is_usable_despite(0)
    }

    /// The same where these flags do not keep requests away.
    pub(super) fn is_usable_despite(&self, flags: u8) -> bool {
        self.lets_pass(self.out & !flags)
    }

    /// Whether its sticky clients' requests may be sent to it: it may be drained, or have weight 0.
    pub(super) fn is_usable_for_its_clients(&self, flags: u8) -> bool {
        self.lets_pass(self.out & !(flags | DRAINED | EVERY))
    }

    /// Whether its state has none of these flags.
    fn lets_pass(&self, out: u8) -> bool {
        match self.state.flags() & out {
            0 => true,
            // Its time may be over.
            EJECTED => self.state.end_ejection(false),
            _ => false,
        }
    }

    /// How long its ejection lasts yet; `None` where it is not ejected.
    pub fn ejected_for(&self) -> Option<Duration> {
        self.outlier.and_then(|_| self.state.ejected_for())
    }

    /// The same endpoint with the weight that its state says.
    pub(super) fn reweighed(&self) -> Self {
        let mut endpoint = self.clone();
        endpoint.weigh();
        endpoint
    }

    /// The weight that was ordered, or is configured: 0 where no balancer chooses it.
    pub fn shown_weight(&self) -> u16 {
        if self.out & EVERY == 0 { self.weight } else { 0 }
    }

    fn weigh(&mut self) {
        let weight = self.state.weight().unwrap_or(self.configured_weight);
        self.weight = weight.max(1);
        self.out = if weight == 0 { self.out | EVERY } else { self.out & !EVERY };
    }

    /// A request is sent to it. Says whether that is the one of its trial.
    pub(super) fn begin(&self) -> bool {
        self.state.begin();
        if let Some(total) = &self.total {
            total.fetch_add(1, Ordering::Relaxed);
        }
        self.outlier.is_some() && self.state.begin_trial()
    }

    /// A request to it ended.
    pub(super) fn end(&self, is_trial: bool) {
        self.state.end();
        if is_trial {
            self.state.end_trial();
        }
        if let Some(total) = &self.total {
            total.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The requests in flight of all its upstream's endpoints, where they are counted.
    pub(super) fn total_in_flight(&self) -> u64 {
        self.total.as_ref().map_or(0, |total| total.load(Ordering::Relaxed))
    }

    /// Its share of its weight now, in parts of [`FULL`]: less while it starts slowly.
    pub(super) fn share(&self) -> u64 {
        match self.slow_start {
            Some(slow_start) if self.state.is_warming() => warm(&self.state, slow_start),
            _ => FULL,
        }
    }

    /// Its weight now, in parts of [`FULL`].
    pub(super) fn weight_now(&self) -> u64 {
        u64::from(self.weight) * self.share()
    }

    /// Its limits hold from now on.
    pub(super) fn begin_to_serve(&self) {
        self.state.connections().set_max(self.pool.max);
    }

    /// Whether its health is checked.
    pub(super) fn is_checked(&self) -> bool {
        self.checker.is_some()
    }

    pub(super) fn fill_task(&self) -> Option<FillTask> {
        self.filler.as_ref().and_then(FillTask::claim)
    }

    pub(super) fn health_task(&self) -> Option<HealthTask> {
        self.checker.as_ref().and_then(HealthTask::claim)
    }
}

/// From a tenth to the whole.
#[cold]
fn warm(state: &EndpointState, slow_start: Duration) -> u64 {
    let Some(served) = state.warming_for() else { return FULL };
    if served >= slow_start {
        state.warmed();
        return FULL;
    }
    let share = u128::from(FULL) * served.as_millis() / slow_start.as_millis().max(1);
    (share as u64).max(FULL.div_ceil(10))
}

/// The peer that every new connection's is a copy of.
fn template(settings: &Settings, tls: Option<&Tls>, address: &Address, connecting: &Connecting) -> HttpPeer {
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
    options.custom_l4 = connecting.connector(announcing);
    if let Some(tls) = tls {
        options.verify_cert = tls.verify == Verify::Full;
        options.verify_hostname = options.verify_cert;
        options.ca = tls.authorities.as_ref().map(Authorities::certificates);
        peer.client_cert_key = tls.client_certificate.as_ref().map(|client| client.pair.clone());
    }
    peer
}

/// The upstream's encryption, with the name that led to the endpoint where none is written.
fn tls_of(settings: &Settings, own: &EndpointSettings) -> Option<Tls> {
    let mut tls = settings.tls.clone()?;
    if let (ServerName::Request, Some(host)) = (&tls.server_name, &own.host) {
        tls.server_name = ServerName::Fixed(host.host.without_root().to_owned());
    }
    Some(tls)
}

impl Connecting {
    /// How connections are made, where that is not Pingora's own way.
    fn connector(&self, announcing: Option<Announcing>) -> Option<Arc<dyn L4Connect + Send + Sync>> {
        let guarded = |denied| Guarded { denied, announcing };
        match (&self.guard, &self.rivals) {
            (guard, Some(rivals)) => Some(Arc::new(Racing {
                direct: guarded(guard.clone().unwrap_or_default()),
                rivals: rivals.clone(),
            })),
            (Some(denied), None) => Some(Arc::new(guarded(denied.clone()))),
            (None, None) => announcing.map(|announcing| Arc::new(announcing) as _),
        }
    }
}
