//! Where a call goes: to endpoints of an upstream that are chosen, or to the addresses of a target that is named.

mod beside;

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, StatusCode, header, request};
use pingora::{protocols::ALPN, upstreams::peer::HttpPeer};
use tokio::time::Instant;

use super::sticky::StickySession;
use crate::{
    action::{
        forward::Forward,
        proxy::{HostHeader, Proxy},
    },
    error::Reason,
    http::{connection_auth::Lease, hop_by_hop},
    upstream::{
        self, Admission, Connections, Endpoint, InQueue, Key, Overload, Permit, Pick, PickKey, Place,
        Rejected, Route, Tried, Upstream, config::Protocol, exchange::TunnelRequest,
    },
    value::Address,
};

/// Where a call goes, and which connection it is tried on.
pub(super) enum Destination {
    Pool(Pool),
    Target(Target),
}

/// Endpoints of an upstream, each attempt's another.
pub(super) struct Pool {
    proxy: Arc<Proxy>,
    /// The hash of what the balancer goes by, where it goes by something.
    key: PickKey,
    /// Whose request it is, where the upstream is told.
    client: Option<upstream::Client>,
    tried: Tried,
    pick: Option<Pick>,
    lease: Option<Arc<Lease>>,
    /// Its way through the circuit breaker, where there is one; why it was not let through.
    circuit: Circuit,
    /// Its place among the requests in flight, where they are limited.
    place: Option<Place>,
    /// How long it waited for its place, where it did.
    queued: Option<Duration>,
    /// Why it got none.
    overload: Option<Overload>,
    /// Whether the client stays at an endpoint, where clients do.
    sticky: Option<Box<StickySession>>,
}

/// A request before a circuit breaker.
enum Circuit {
    Unasked,
    Passed(Option<Permit>),
    Open(Duration),
}

/// The origin of a target URI: its addresses, one after the other.
pub(super) struct Target {
    authority: HeaderValue,
    addresses: std::vec::IntoIter<SocketAddr>,
    current: Option<SocketAddr>,
    connect: Duration,
    connect_until: Instant,
    connections: Arc<Connections>,
    lease: Option<Arc<Lease>>,
}

/// Sets connections apart that carry tunnels by extended CONNECT: an origin that ends the connection because of one ends no
/// other request with it.
const OF_TUNNELS: u64 = 0x7475_6e6e_656c_7321;
/// How long an unused connection to a target is kept.
const TARGET_IDLE: Duration = Duration::from_secs(60);

// === impl Destination ===

impl Destination {
    /// Passes the limit of requests in flight, where there is one. Says where it has to wait for that.
    pub fn enter(&mut self) -> Result<Option<InQueue>, Reason> {
        match self {
            Self::Pool(pool) => pool.enter(),
            Self::Target(_) => Ok(None),
        }
    }

    /// Waits until it passes the limit.
    pub async fn wait(&mut self, queued: InQueue) -> Result<(), Reason> {
        match self {
            Self::Pool(pool) => pool.wait(queued).await,
            Self::Target(_) => Ok(()),
        }
    }

    /// It is no longer in flight.
    pub fn leave(&mut self) {
        if let Self::Pool(pool) = self {
            pool.place = None;
        }
    }

    /// How long it waited for its place among the requests in flight, and why it got none.
    pub fn queued(&self) -> (Option<Duration>, Option<Overload>) {
        match self {
            Self::Pool(pool) => (pool.queued, pool.overload),
            Self::Target(_) => (None, None),
        }
    }

    /// Chooses where to go: an endpoint that was not tried yet, or `again` the same. An error where there is none.
    pub fn next(&mut self, again: bool) -> Result<(), Reason> {
        match self {
            Self::Pool(pool) => pool.next(again),
            Self::Target(target) => target.next(again).then_some(()).ok_or(Reason::NoEndpoint),
        }
    }

    /// How the chosen one is connected to. `host` is the one that is asked for, for SNI where the upstream has no name of
    /// its own.
    pub fn route(&self, tunnel: Option<TunnelRequest>, host: &str) -> Option<Route> {
        let (mut route, lease) = match self {
            Self::Pool(pool) => (pool.endpoint()?.route(host, pool.client), &pool.lease),
            Self::Target(target) => (target.route(), &target.lease),
        };
        if let Some(lease) = lease {
            route.connections = lease.pool();
            // Such logins need HTTP/1.1: the requests of an HTTP/2 connection share it.
            if route.protocol == Protocol::Auto {
                route.protocol = Protocol::H1;
            }
        }
        match tunnel {
            Some(TunnelRequest::Connect) => route.key.0 ^= OF_TUNNELS,
            Some(TunnelRequest::Upgrade) => route.protocol = Protocol::H1,
            None => {}
        }
        Some(route)
    }

    /// A new connection to the chosen one, as Pingora's connector takes it.
    pub fn peer(&self, protocol: Protocol, host: &str) -> Option<Box<HttpPeer>> {
        let mut peer = match self {
            Self::Pool(pool) => pool.endpoint()?.peer(host, pool.client),
            Self::Target(target) => target.peer()?,
        };
        if protocol == Protocol::H1 {
            peer.options.alpn = ALPN::H1;
        }
        Some(peer)
    }

    /// Whether the connection to it is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Pool(pool) if pool.endpoint().is_some_and(|endpoint| endpoint.is_tls()))
    }

    /// Whether another is there to be tried, where so many were.
    pub fn has_more(&self, attempts: u32) -> bool {
        match self {
            Self::Pool(pool) => attempts <= u32::from(pool.proxy.upstream.retry.retries),
            Self::Target(target) => target.addresses.len() > 0 && Instant::now() < target.connect_until,
        }
    }

    /// Whether another endpoint is there that was not tried yet. A target's addresses are tried once each.
    pub fn has_untried(&self) -> bool {
        match self {
            Self::Pool(pool) => pool.proxy.upstream.has_untried(&pool.tried),
            Self::Target(_) => true,
        }
    }

    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Pool(pool) => pool.proxy.upstream.protocol,
            Self::Target(_) => Protocol::H1,
        }
    }

    /// What it is known by among the connections that are reserved for a client connection.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Pool(pool) => Cow::Borrowed(pool.proxy.upstream.name.as_ref()),
            Self::Target(target) => Cow::Owned(format!("//{}", String::from_utf8_lossy(&target.identity()))),
        }
    }

    /// Has it tried on the connection that is reserved for the client connection.
    pub fn reserve(&mut self, lease: Arc<Lease>) {
        match self {
            Self::Pool(pool) => pool.lease = Some(lease),
            Self::Target(target) => target.reserve(lease),
        }
    }

    pub fn upstream(&self) -> Option<&Upstream> {
        self.proxy().map(|proxy| &*proxy.upstream)
    }

    /// The action that endpoints of an upstream are asked for.
    pub fn proxy(&self) -> Option<&Arc<Proxy>> {
        match self {
            Self::Pool(pool) => Some(&pool.proxy),
            Self::Target(_) => None,
        }
    }

    /// The choice that the last attempt counts for, where one was made.
    pub fn pick(&self) -> Option<&Pick> {
        match self {
            Self::Pool(pool) => pool.pick.as_ref(),
            Self::Target(_) => None,
        }
    }

    /// The response's head came `at` a time, this long after the request was sent.
    pub fn answered(&mut self, status: StatusCode, at: std::time::Instant, latency: Duration) {
        let Self::Pool(pool) = self else { return };
        if let Circuit::Passed(Some(permit)) = &mut pool.circuit {
            permit.answered(upstream::is_failure(status));
        }
        if let Some(pick) = &pool.pick {
            pool.proxy.upstream.answered(pick, status, at, latency);
        }
    }

    /// The last attempt failed, and the endpoint is to blame.
    pub fn failed(&mut self) {
        let Self::Pool(pool) = self else { return };
        if let Circuit::Passed(Some(permit)) = &mut pool.circuit {
            permit.failed();
        }
        if let Some(pick) = &pool.pick {
            pool.proxy.upstream.failed(pick);
        }
    }

    /// How a circuit breaker that is not closed dealt with it: open, with the time that is left, or half open.
    pub fn circuit(&self) -> Option<(&'static str, Option<Duration>)> {
        match self {
            Self::Pool(Pool { circuit: Circuit::Open(left), .. }) => Some(("open", Some(*left))),
            Self::Pool(Pool { circuit: Circuit::Passed(Some(permit)), .. }) if permit.is_probe() => {
                Some(("half_open", None))
            }
            _ => None,
        }
    }

    /// What became of a sticky session.
    pub fn sticky(&self) -> Option<&'static str> {
        match self {
            Self::Pool(pool) => pool.sticky.as_ref().and_then(|session| session.outcome()),
            Self::Target(_) => None,
        }
    }

    /// The response of the last attempt goes to the client: the cookie that it is to get with it.
    pub fn sticky_cookie(&mut self) -> Option<HeaderValue> {
        let Self::Pool(Pool { sticky: Some(session), pick: Some(pick), proxy, .. }) = self else {
            return None;
        };
        session.answered(&proxy.upstream, &pick.endpoint)
    }

    /// Where the last attempt went.
    pub fn address(&self) -> Option<Cow<'_, Address>> {
        match self {
            Self::Pool(pool) => pool.endpoint().map(|endpoint| Cow::Borrowed(&endpoint.address)),
            Self::Target(target) => target.current.map(|address| Cow::Owned(Address::Tcp(address))),
        }
    }

    /// The same as text.
    pub fn shown(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Pool(pool) => pool.endpoint().map(|endpoint| Cow::Borrowed(&*endpoint.shown)),
            Self::Target(target) => target.current.map(|address| Cow::Owned(address.to_string())),
        }
    }

    /// The Host that the chosen one is asked for.
    pub fn host(&self, head: &request::Parts) -> HeaderValue {
        match self {
            // It is the target's, whatever the client said (RFC 9112 section 3.2.2).
            Self::Target(target) => target.authority.clone(),
            Self::Pool(pool) => pool.host(head),
        }
    }
}

// === impl Pool ===

impl Pool {
    pub fn new(
        proxy: Arc<Proxy>,
        key: PickKey,
        client: Option<upstream::Client>,
        sticky: Option<Box<StickySession>>,
    ) -> Self {
        Self {
            proxy,
            key,
            client,
            tried: Tried::default(),
            pick: None,
            lease: None,
            circuit: Circuit::Unasked,
            place: None,
            queued: None,
            overload: None,
            sticky,
        }
    }

    fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.pick.as_ref().map(|pick| &pick.endpoint)
    }

    fn next(&mut self, again: bool) -> Result<(), Reason> {
        self.pass_circuit()?;
        let same = if again { self.pick.take() } else { None };
        let pick = same.or_else(|| self.reserved()).or_else(|| self.own());
        let Some(pick) = pick.or_else(|| self.untried()).or_else(|| self.tried_before()) else {
            return Err(self.proxy.upstream.lack());
        };
        if let Some(lease) = &self.lease {
            lease.set_endpoint(pick.endpoint.address.clone());
        }
        self.tried.add(&pick);
        pick.endpoint.state.metrics().tried();
        self.pick = Some(pick);
        Ok(())
    }

    fn untried(&self) -> Option<Pick> {
        self.proxy.upstream.pick(self.key, &self.tried)
    }

    /// All were tried: it begins anew.
    fn tried_before(&mut self) -> Option<Pick> {
        if self.tried.is_empty() {
            return None;
        }
        self.tried = Tried::default();
        self.untried()
    }

    fn pass_circuit(&mut self) -> Result<(), Reason> {
        if let Circuit::Unasked = self.circuit {
            self.circuit = match self.proxy.upstream.admit() {
                Ok(permit) => Circuit::Passed(permit),
                Err(Rejected(left)) => Circuit::Open(left),
            };
        }
        match self.circuit {
            Circuit::Open(_) => Err(Reason::CircuitOpen),
            _ => Ok(()),
        }
    }

    fn enter(&mut self) -> Result<Option<InQueue>, Reason> {
        match self.proxy.upstream.enter(self.proxy.priority) {
            Ok(Admission::Admitted(place)) => {
                self.place = place;
                Ok(None)
            }
            Ok(Admission::Queued(queued)) => {
                // A request that an open circuit rejects does not queue. The circuit is asked again after the wait: it may have
                // opened meanwhile.
                self.pass_circuit()?;
                if !matches!(&self.circuit, Circuit::Passed(Some(permit)) if permit.is_probe()) {
                    self.circuit = Circuit::Unasked;
                }
                Ok(Some(queued))
            }
            Err(overload) => Err(self.overloaded(overload)),
        }
    }

    async fn wait(&mut self, mut queued: InQueue) -> Result<(), Reason> {
        let (place, waited) = self.proxy.upstream.wait(&mut queued).await;
        self.queued = Some(waited);
        self.place = Some(place.map_err(|overload| self.overloaded(overload))?);
        Ok(())
    }

    fn overloaded(&mut self, overload: Overload) -> Reason {
        self.overload = Some(overload);
        Reason::UpstreamOverloaded
    }

    /// The endpoint that the reserved connection leads to.
    fn reserved(&self) -> Option<Pick> {
        let endpoint = self.lease.as_ref()?.endpoint()?;
        self.proxy.upstream.pick_at(&endpoint, &self.tried)
    }

    /// The endpoint that a sticky client has.
    fn own(&self) -> Option<Pick> {
        self.sticky.as_ref()?.pick(&self.proxy.upstream, &self.tried)
    }

    fn host(&self, head: &request::Parts) -> HeaderValue {
        let original = || hop_by_hop::find(&head.headers, &header::HOST).cloned();
        let own = || self.endpoint().map(|endpoint| endpoint.host_header().clone());
        let host = match &self.proxy.host_header {
            // A client of HTTP/1.0 may have named none; upstream there must be one (RFC 9112 section 3.2).
            HostHeader::Original => original().or_else(own),
            HostHeader::Fixed(host) => Some(host.clone()),
            HostHeader::Upstream => own(),
        };
        host.unwrap_or(HeaderValue::from_static(""))
    }
}

// === impl Target ===

impl Target {
    /// `addresses`: where it was found, to be connected to until some time.
    pub fn new(
        authority: HeaderValue,
        (addresses, connect_until): (Vec<SocketAddr>, Instant),
        forward: &Forward,
        connections: Arc<Connections>,
    ) -> Self {
        let addresses = addresses.into_iter();
        let connect = forward.connect;
        Self { authority, addresses, current: None, connect, connect_until, connections, lease: None }
    }

    fn next(&mut self, again: bool) -> bool {
        match again {
            // The reused connection that failed took none of the time for this one.
            true => self.connect_until = Instant::now() + self.connect,
            false => self.current = self.addresses.next(),
        }
        if let (Some(lease), Some(address)) = (&self.lease, self.current) {
            lease.set_endpoint(Address::Tcp(address));
        }
        self.current.is_some()
    }

    /// The address that the reserved connection leads to is tried first.
    fn reserve(&mut self, lease: Arc<Lease>) {
        if let Some(Address::Tcp(first)) = lease.endpoint() {
            let mut addresses: Vec<_> = self.addresses.by_ref().collect();
            addresses.sort_by_key(|address| *address != first);
            self.addresses = addresses.into_iter();
        }
        self.lease = Some(lease);
    }

    fn identity(&self) -> Vec<u8> {
        self.authority.as_bytes().to_ascii_lowercase()
    }

    fn route(&self) -> Route {
        Route {
            connections: self.connections.clone(),
            key: self.key(),
            protocol: Protocol::H1,
            limits: Default::default(),
            pool: upstream::Pool::of_idle(TARGET_IDLE),
        }
    }

    fn peer(&self) -> Option<Box<HttpPeer>> {
        let mut peer = Box::new(HttpPeer::new(self.current?, false, String::new()));
        let left = self.connect_until.saturating_duration_since(Instant::now());
        peer.options.connection_timeout = Some(left);
        peer.options.total_connection_timeout = Some(left);
        Some(peer)
    }

    /// Connections are used again for the same target and address alone: what stands before an address may have taken one of
    /// them for the host that it was first asked for.
    fn key(&self) -> Key {
        let mut hasher = DefaultHasher::new();
        self.identity().hash(&mut hasher);
        self.current.hash(&mut hasher);
        Key(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(authority: &'static str, ports: &[u16]) -> Destination {
        let addresses = ports.iter().map(|port| SocketAddr::from(([192, 0, 2, 1], *port))).collect();
        Destination::Target(Target {
            authority: HeaderValue::from_static(authority),
            addresses: Vec::into_iter(addresses),
            current: None,
            connect: Duration::from_secs(5),
            connect_until: Instant::now() + Duration::from_secs(1),
            connections: Arc::default(),
            lease: None,
        })
    }

    fn timeout(to: &Destination) -> Option<Duration> {
        to.peer(Protocol::H1, "").unwrap().options.connection_timeout
    }

    #[tokio::test(start_paused = true)]
    async fn the_addresses_of_a_target_are_tried_as_long_as_there_is_time() {
        let mut to = target("a.test", &[1, 2, 3]);
        assert!(to.shown().is_none() && to.upstream().is_none() && to.pick().is_none());
        assert!(to.next(false).is_ok());
        assert_eq!((to.shown().unwrap(), timeout(&to)), ("192.0.2.1:1".into(), Some(Duration::from_secs(1))));
        // The same again has its own time, and so has what comes after it.
        assert!(to.next(true).is_ok());
        assert_eq!((to.shown().unwrap(), timeout(&to)), ("192.0.2.1:1".into(), Some(Duration::from_secs(5))));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(to.has_more(9));
        assert!(to.next(false).is_ok());
        assert_eq!(timeout(&to), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!to.has_more(9), "its time is up");
        assert!(to.next(false).is_ok() && to.next(false).is_err());
    }

    #[tokio::test]
    async fn connections_are_shared_by_requests_for_one_authority_alone() {
        let key = |authority| {
            let mut to = target(authority, &[80]);
            assert!(to.next(false).is_ok());
            to.route(None, "").unwrap().key
        };
        assert_eq!(key("a.test"), key("A.test"));
        assert_ne!(key("a.test"), key("b.test"));
    }
}
