//! An upstream's settings compiled: no text left to parse, no name to resolve, no default to fill in.

use std::{net::SocketAddr, num::NonZeroU32, ops::RangeInclusive, sync::Arc, time::Duration};

use http::{HeaderValue, Uri, uri::PathAndQuery};

use super::{
    adaptive::Adaptive,
    breaker::CircuitBreaker,
    config::{BalanceKey, Prefer, Protocol, ProxyProtocol, QueueOrder},
    discovery::{Definition, ReadEndpoints},
    outlier::Outlier,
    reach::{Denied, Reachable},
    retry::Policy,
    sticky,
    tls::{ServerName, Tls},
};
use crate::{
    value::{Address, HostPort, Name},
    wire::h1::response::HeadLimits,
};

#[derive(Clone, Debug)]
pub struct Settings {
    pub name: Name,
    /// Those that are listed. At least one, unless there is a source.
    pub endpoints: Vec<EndpointSettings>,
    /// Where others come from.
    pub sources: Vec<SourceSettings>,
    /// The DNS servers that are asked; none: the system's.
    pub resolvers: Arc<[SocketAddr]>,
    /// Where endpoints that are found may not lie.
    pub denied: Denied,
    pub balance: Balance,
    pub protocol: Protocol,
    /// Encryption, where there is any.
    pub tls: Option<Tls>,
    /// How connections say whose they are, where they do.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Health checks, where there are any.
    pub health: Option<Health>,
    pub timeouts: Timeouts,
    pub pool: Pool,
    /// How many requests may be in flight, where that is limited.
    pub in_flight: Option<InFlight>,
    /// The largest response heads that are accepted.
    pub response_limits: HeadLimits,
    /// The zone that this process is in.
    pub zone: Option<Name>,
    pub retry: Policy,
    /// Sticky sessions, where there are any.
    pub sticky: Option<sticky::Settings>,
    pub resilience: Resilience,
}

/// How connections to an endpoint are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// How long an unused one is kept.
    pub idle: Duration,
    /// How old one becomes at most.
    pub max_age: Option<Duration>,
    /// How many requests one carries at most.
    pub max_requests: Option<NonZeroU32>,
    /// How many are kept ready.
    pub min: u32,
    /// How many are open at most.
    pub max: Option<NonZeroU32>,
}

/// How many requests an upstream answers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    pub most: Most,
    /// How many further ones wait.
    pub queue: u32,
    /// How long they wait at most.
    pub timeout: Duration,
    /// Which of them is served first.
    pub order: QueueOrder,
}

/// A limit that is given, or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Most {
    Fixed(u32),
    Adaptive(Adaptive),
}

/// How endpoints that fail are dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resilience {
    /// When requests that fail eject an endpoint, where they do.
    pub outlier: Option<Outlier>,
    pub circuit_breaker: Option<CircuitBreaker>,
    /// The share of usable endpoints of a priority or zone in percent below which the next is used.
    pub failover_threshold: Option<u8>,
    /// The share of usable endpoints in percent below which all are used.
    pub panic_threshold: Option<u8>,
    /// How long a new or recovered endpoint takes to get its whole share.
    pub slow_start: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    pub address: Reachable,
    /// 0 to 1000.
    pub weight: u16,
    /// Endpoints of a lower number are chosen while one of them can be.
    pub priority: u32,
    /// Of the family of addresses that is used only while none of the other one can be.
    pub is_second: bool,
    /// The zone that it is in.
    pub zone: Option<Name>,
    /// The name that led to it, if one did.
    pub host: Option<HostPort>,
    /// Addresses of the other family that the name has.
    pub rivals: Vec<SocketAddr>,
}

/// Where endpoints come from, and what is made of them.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    pub definition: Definition,
    /// From one question to the next; without it as the answers say.
    pub refresh: Option<Duration>,
    /// Of each address of a name, 1 to 1000.
    pub weight: u16,
    pub prefer: Prefer,
    /// Added to what SRV records say.
    pub priority: u32,
    pub zone: Option<Name>,
    /// How the file is read, where it is one.
    pub read: Option<ReadEndpoints>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    RandomTwo,
    LeastRequests,
    Ewma,
    Hash(BalanceKey),
    ConsistentHash(BalanceKey),
    /// The same, with the most requests in flight of an endpoint in percent of the mean.
    BoundedHash(BalanceKey, u32),
}

impl Resilience {
    /// What it does, for people.
    pub fn lines(&self) -> Vec<String> {
        let outlier = match &self.outlier {
            Some(outlier) => outlier.to_string(),
            None => "no endpoint is ejected".to_owned(),
        };
        let percent = |percent: Option<u8>, what: &str| {
            percent.map(|percent| format!("below {percent}% usable endpoints {what}"))
        };
        let lines = [
            Some(outlier),
            self.circuit_breaker.as_ref().map(ToString::to_string),
            percent(self.failover_threshold, "of a priority or zone the next is used"),
            percent(self.panic_threshold, "all are used"),
            self.slow_start.map(|time| format!("new and recovered endpoints start slowly, for {time:?}")),
        ];
        lines.into_iter().flatten().collect()
    }
}

impl Pool {
    /// Connections that are closed only where they were idle for so long.
    pub const fn of_idle(idle: Duration) -> Self {
        Self { idle, max_age: None, max_requests: None, min: 0, max: None }
    }

    /// Whether connections in use are counted.
    pub fn is_counted(&self) -> bool {
        self.max.is_some() || self.min > 0
    }
}

impl Default for Resilience {
    /// What holds where nothing is written.
    fn default() -> Self {
        Self {
            outlier: Some(Outlier::DEFAULT),
            circuit_breaker: None,
            failover_threshold: None,
            panic_threshold: None,
            slow_start: None,
        }
    }
}

/// Timeouts towards the endpoints, all finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub first_byte: Duration,
    pub body_idle: Duration,
}

/// How an endpoint's health is watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Health {
    pub probe: Probe,
    pub interval: Duration,
    pub timeout: Duration,
    pub unhealthy_after: u16,
    pub healthy_after: u16,
}

/// What one check does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    Tcp,
    Http {
        path: PathAndQuery,
        status: RangeInclusive<u16>,
        /// The Host sent; without one the server name, or the endpoint's address.
        host: Option<Host>,
    },
    Grpc {
        /// The name of the service, or "" for the whole server.
        service: String,
        /// The authority sent; without one the same as above.
        host: Option<Host>,
    },
}

impl EndpointSettings {
    /// One that is listed by its address.
    pub fn new(address: Reachable, weight: u16) -> Self {
        Self { address, weight, priority: 0, is_second: false, zone: None, host: None, rivals: Vec::new() }
    }
}

/// A checked host with its optional port, as a Host field carries it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host(http::uri::Authority);

impl Host {
    /// RFC 9110 section 4.2.4: no user information.
    pub fn parse(text: &str) -> Option<Self> {
        let authority: http::uri::Authority = text.parse().ok()?;
        let plain = !authority.host().is_empty() && !text.contains('@');
        plain.then_some(Self(authority))
    }

    /// What an endpoint is called: its server name, the name that led to it with its port, or else its address.
    pub fn of_endpoint(settings: &Settings, own: &EndpointSettings) -> Self {
        match (settings.tls.as_ref().map(|tls| &tls.server_name), &own.host) {
            (Some(ServerName::Fixed(name)), _) => Self::of_name(name),
            (_, Some(host)) => Self::of_host(host, settings.tls.is_some()),
            (_, None) => Self::of_address(own.address.address()),
        }
    }

    /// RFC 9110 section 4.2.3: the scheme's own port is left out.
    fn of_host(HostPort { host, port }: &HostPort, is_tls: bool) -> Self {
        let host = host.without_root();
        let is_usual = *port == if is_tls { 443 } else { 80 };
        let text = if is_usual { host.to_owned() } else { format!("{host}:{port}") };
        Self::parse(&text).expect("a DNS name and a port are a host")
    }

    /// A server name, which may be a bare IPv6 address.
    pub fn of_name(name: &str) -> Self {
        let bracketed = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
        Self::parse(&bracketed).expect("every server name that rustls accepts is a valid host")
    }

    fn of_address(address: &Address) -> Self {
        let text = match address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(_) => "localhost".into(),
        };
        Self::parse(&text).expect("IP:PORT is a valid authority")
    }

    /// Without the port.
    pub fn name(&self) -> &str {
        self.0.host()
    }

    pub fn field(&self) -> HeaderValue {
        HeaderValue::from_str(self.0.as_str()).expect("an authority holds visible ASCII only")
    }

    /// As HTTP/2 wants it: scheme and authority beside the path.
    pub fn uri(&self, tls: bool, path: &PathAndQuery) -> Uri {
        Uri::builder()
            .scheme(if tls { "https" } else { "http" })
            .authority(self.0.clone())
            .path_and_query(path.clone())
            .build()
            .expect("scheme, authority and path together make a URI")
    }
}
