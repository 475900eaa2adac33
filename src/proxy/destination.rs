//! Where a call goes: to endpoints of an upstream that are chosen, or to the addresses of a target that is named.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, header};
use pingora::{
    http::RequestHeader,
    protocols::ALPN,
    upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy},
};
use tokio::time::Instant;

use crate::{
    action::{
        forward::Forward,
        proxy::{HostHeader, Proxy},
    },
    http::connection_auth::Lease,
    upstream::{self, Endpoint, Pick, PickKey, Tried, Upstream, config::Protocol},
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
    /// The host that is asked for, for SNI where the upstream has no name of its own.
    host: String,
    /// Whose request it is, where the upstream is told.
    client: Option<upstream::Client>,
    tried: Tried,
    pick: Option<Pick>,
    lease: Option<Arc<Lease>>,
}

/// The origin of a target URI: its addresses, one after the other.
pub(super) struct Target {
    authority: HeaderValue,
    addresses: std::vec::IntoIter<SocketAddr>,
    current: Option<SocketAddr>,
    connect: Duration,
    connect_until: Instant,
    body_idle: Duration,
    lease: Option<Arc<Lease>>,
}

/// Sets the connections to targets apart from those to endpoints.
const OF_TARGETS: u64 = 0x666f_7277_6172_6421;
/// How long an unused connection to a target is kept.
const TARGET_IDLE: Duration = Duration::from_secs(60);

// === impl Destination ===

impl Destination {
    /// Whom to connect to next: one that was not tried yet, or `again` the same.
    pub fn next(&mut self, again: bool) -> Option<Box<HttpPeer>> {
        match self {
            Self::Pool(pool) => pool.next(again),
            Self::Target(target) => target.next(again),
        }
    }

    /// Whether another is there to be tried, where so many were.
    pub fn has_more(&self, attempts: u32) -> bool {
        match self {
            Self::Pool(pool) => attempts <= u32::from(pool.proxy.upstream.retries),
            Self::Target(target) => target.addresses.len() > 0 && Instant::now() < target.connect_until,
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
        match self {
            Self::Pool(pool) => Some(&pool.proxy.upstream),
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

    /// Writes the Host.
    pub fn address_to(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        let host = match self {
            // It is the target's, whatever the client said (RFC 9112 section 3.2.2).
            Self::Target(target) => Some(target.authority.clone()),
            Self::Pool(pool) => pool.host(request),
        };
        match host {
            Some(host) => request.insert_header(header::HOST, host),
            None => Ok(()),
        }
    }
}

// === impl Pool ===

impl Pool {
    pub fn new(proxy: Arc<Proxy>, key: PickKey, host: String, client: Option<upstream::Client>) -> Self {
        Self { proxy, key, host, client, tried: Tried::default(), pick: None, lease: None }
    }

    fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.pick.as_ref().map(|pick| &pick.endpoint)
    }

    fn next(&mut self, again: bool) -> Option<Box<HttpPeer>> {
        let same = if again { self.pick.take() } else { None };
        let pick =
            same.or_else(|| self.reserved()).or_else(|| self.proxy.upstream.pick(self.key, &self.tried))?;
        self.tried.add(&pick);
        pick.endpoint.state.metrics().tried();
        let mut peer = pick.endpoint.peer(&self.host);
        if let Some(client) = self.client {
            pick.endpoint.announce(&mut peer, client);
        }
        if let Some(lease) = &self.lease {
            lease.set_endpoint(pick.endpoint.address.clone());
            pick.endpoint.reserve(&mut peer, lease.reserved(), self.client);
        }
        self.pick = Some(pick);
        Some(peer)
    }

    /// The endpoint that the reserved connection leads to.
    fn reserved(&self) -> Option<Pick> {
        let endpoint = self.lease.as_ref()?.endpoint()?;
        self.proxy.upstream.pick_at(&endpoint, &self.tried)
    }

    /// The Host for the endpoint chosen, where it is not the request's.
    fn host(&self, request: &RequestHeader) -> Option<HeaderValue> {
        match &self.proxy.host_header {
            // A client of HTTP/1.0 may have named none; upstream there must be one (RFC 9112 section 3.2).
            HostHeader::Original if request.headers.contains_key(header::HOST) => None,
            HostHeader::Fixed(host) => Some(host.clone()),
            HostHeader::Original | HostHeader::Upstream => {
                self.endpoint().map(|endpoint| endpoint.host_header().clone())
            }
        }
    }
}

// === impl Target ===

impl Target {
    /// `addresses`: where it was found, to be connected to until some time.
    pub fn new(
        authority: HeaderValue,
        (addresses, connect_until): (Vec<SocketAddr>, Instant),
        forward: &Forward,
    ) -> Self {
        let (connect, body_idle) = (forward.connect, forward.timeouts.body_idle);
        let addresses = addresses.into_iter();
        Self { authority, addresses, current: None, connect, connect_until, body_idle, lease: None }
    }

    fn next(&mut self, again: bool) -> Option<Box<HttpPeer>> {
        match again {
            // The kept connection that failed took none of the time for this one.
            true => self.connect_until = Instant::now() + self.connect,
            false => self.current = Some(self.addresses.next()?),
        }
        let mut peer = Box::new(HttpPeer::new(self.current?, false, String::new()));
        peer.group_key = self.group();
        let left = self.connect_until.saturating_duration_since(Instant::now());
        let options = &mut peer.options;
        options.connection_timeout = Some(left);
        options.total_connection_timeout = Some(left);
        options.write_timeout = Some(self.body_idle);
        options.idle_timeout = Some(TARGET_IDLE);
        options.alpn = ALPN::H1;
        // What belongs to the client's connection was taken away before Pingora sees the request.
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
        if let (Some(lease), Some(address)) = (&self.lease, self.current) {
            lease.set_endpoint(Address::Tcp(address));
            upstream::reserve(&mut peer, lease.reserved());
        }
        Some(peer)
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

    /// Connections are used again for the same target alone: what stands before an address may have taken one of them for
    /// the host that it was first asked for.
    fn group(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.identity().hash(&mut hasher);
        hasher.finish() ^ OF_TARGETS
    }
}

#[cfg(test)]
mod tests {
    use pingora::upstreams::peer::Peer;

    use super::*;

    fn target(authority: &'static str, ports: &[u16]) -> Destination {
        let addresses = ports.iter().map(|port| SocketAddr::from(([192, 0, 2, 1], *port))).collect();
        Destination::Target(Target {
            authority: HeaderValue::from_static(authority),
            addresses: Vec::into_iter(addresses),
            current: None,
            connect: Duration::from_secs(5),
            connect_until: Instant::now() + Duration::from_secs(1),
            body_idle: Duration::from_secs(60),
            lease: None,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_addresses_of_a_target_are_tried_as_long_as_there_is_time() {
        let mut to = target("a.test", &[1, 2, 3]);
        assert!(to.shown().is_none() && to.upstream().is_none() && to.pick().is_none());
        let first = to.next(false).unwrap();
        assert_eq!(
            (to.shown().unwrap(), first.connection_timeout()),
            ("192.0.2.1:1".into(), Some(Duration::from_secs(1)))
        );
        // The same again has its own time, and so has what comes after it.
        let again = to.next(true).unwrap();
        assert_eq!(
            (to.shown().unwrap(), again.connection_timeout()),
            ("192.0.2.1:1".into(), Some(Duration::from_secs(5)))
        );
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(to.has_more(9));
        assert_eq!(to.next(false).unwrap().connection_timeout(), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!to.has_more(9), "its time is up");
        assert!(to.next(false).is_some() && to.next(false).is_none());
        assert_eq!(to.shown().unwrap(), "192.0.2.1:3", "where it was tried last");
    }

    #[tokio::test]
    async fn connections_are_shared_by_requests_for_one_authority_alone() {
        let key = |authority| target(authority, &[80]).next(false).unwrap().reuse_hash();
        assert_eq!(key("a.test"), key("A.test"));
        assert_ne!(key("a.test"), key("b.test"));
        let plain = HttpPeer::new(SocketAddr::from(([192, 0, 2, 1], 80)), false, String::new());
        assert_ne!(key("a.test"), plain.reuse_hash());
    }
}
