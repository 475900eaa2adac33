//! An upstream's settings as written.

pub mod resilience;
pub mod sticky;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::value::{
    Address, DnsName, Duration, FieldName, FilePath, HostPort, Name, Percent, PercentAbove, Size, Spanned,
    StatusRange, TextOr,
};
use resilience::{CircuitBreaker, OutlierSetting};
use sticky::Sticky;

/// A pool of endpoints that requests are proxied to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Upstream")]
pub struct Config {
    /// The load balancing algorithm. Default round_robin. All algorithms use the endpoints' weights.
    #[serde(default)]
    pub balance: Option<Spanned<Balance>>,
    /// The protocol towards endpoints. Default h1. h2 and auto need `tls`, h2c excludes it.
    #[serde(default)]
    pub protocol: Option<Spanned<Protocol>>,
    /// "10.0.0.1:8080", "unix:/run/app.sock", "app:3000" (every address of a DNS name), or a map that says more.
    pub endpoints: Spanned<Vec<Spanned<Endpoint>>>,
    /// TLS towards the endpoints.
    #[serde(default)]
    pub tls: Option<Spanned<Tls>>,
    /// The PROXY protocol: each connection begins with a header that names its client, and serves only this client connection.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Active health checks.
    #[serde(default)]
    pub health: Option<Spanned<Health>>,
    /// When requests that fail eject an endpoint. `false` turns it off.
    #[serde(default)]
    pub outlier: Option<Spanned<OutlierSetting>>,
    /// Rejects requests at once while too many fail. Default: none.
    #[serde(default)]
    pub circuit_breaker: Option<Spanned<CircuitBreaker>>,
    /// Where fewer endpoints of a priority than this share are usable, as 50%, the next priority is used; and so for zones.
    /// Default: where none of a priority is usable, or less than half of the own zone.
    #[serde(default)]
    pub failover_threshold: Option<Spanned<Percent>>,
    /// Where fewer endpoints than this share are usable, all are used, as 50%. Default: none that is known to be down is.
    #[serde(default)]
    pub panic_threshold: Option<Spanned<Percent>>,
    /// How long an endpoint that is new or usable again takes to get its whole share, from a tenth on, as 30s. Default: it gets
    /// all at once.
    #[serde(default)]
    pub slow_start: Option<Spanned<Duration>>,
    /// Sticky sessions: a signed cookie keeps each client at the endpoint that answered it first. Default: none.
    #[serde(default)]
    pub sticky: Option<Spanned<Sticky>>,
    /// The pool of connections to each endpoint.
    #[serde(default)]
    pub pool: Pool,
    /// Timeouts towards the endpoints.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Retries of failed requests.
    #[serde(default)]
    pub retry: super::retry::config::Retry,
    /// Limits of requests in flight and of a response's head.
    #[serde(default)]
    pub limits: Limits,
}

impl Config {
    /// Whether an endpoint has a name.
    pub fn asks_dns(&self) -> bool {
        self.endpoints.iter().any(|endpoint| match &endpoint.value {
            TextOr::Text(EndpointText::Name(_)) => true,
            TextOr::Map(map) => map.dns.is_some() || map.srv.is_some(),
            TextOr::Text(EndpointText::Address(_)) => false,
        })
    }
}

/// The load balancing algorithm.
pub type Balance = TextOr<BalanceBy, BalanceByKey>;

/// Balancers without a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceBy {
    /// In turn
    #[default]
    RoundRobin,
    /// The less busy of two random endpoints
    RandomTwo,
    /// The one with the fewest requests in flight for its weight
    LeastRequests,
    /// By chance, weighted by response time and load: an endpoint that would take half as long again as the best gets no
    /// requests. Response times are a moving average that follows a peak at once and fades
    Ewma,
}

/// Balancers by a key: client_ip, host, path, "header:NAME", "cookie:NAME" or "query:NAME". Requests without
/// the key are spread at random. With the same endpoints, every process chooses the same one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceByKey {
    /// By the key's hash; a change of the endpoints moves most keys
    Hash(Spanned<BalanceKey>),
    /// By the key's place on a ring; a change of the endpoints moves few keys
    ConsistentHash(Spanned<TextOr<BalanceKey, BoundedKey>>),
}

/// A key that is passed on where its endpoint has too much to do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BoundedKey {
    /// What of the request is hashed.
    pub key: Spanned<BalanceKey>,
    /// The most requests in flight that an endpoint may have, in percent of the mean for its weight, as 125%: what is beyond
    /// goes to the next endpoint on the ring. Default: there is no bound.
    #[serde(default)]
    pub bound: Option<PercentAbove>,
}

/// The part of the request that is hashed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BalanceKey {
    ClientIp,
    Host,
    Path,
    Header(http::HeaderName),
    Cookie(String),
    Query(String),
}

crate::value::text_value!(
    BalanceKey,
    "balance-key",
    "client_ip, host, path, header:NAME, cookie:NAME or query:NAME.",
    "client_ip",
    "header:X-User"
);

impl std::str::FromStr for BalanceKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "client_ip" => Ok(Self::ClientIp),
            None if text == "host" => Ok(Self::Host),
            None if text == "path" => Ok(Self::Path),
            Some(("header", name)) => name.parse::<FieldName>().map(|name| Self::Header(name.0)),
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.into())),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.into())),
            _ => Err(format!(
                "{text:?} is no key: client_ip, host, path, header:NAME, cookie:NAME or query:NAME"
            )),
        }
    }
}

/// The protocol towards endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "UpstreamProtocol")]
pub enum Protocol {
    /// HTTP/1.1
    #[default]
    H1,
    /// HTTP/2 over TLS
    H2,
    /// HTTP/2 in cleartext
    H2c,
    /// HTTP/2 if the endpoint accepts it by ALPN, else HTTP/1.1
    Auto,
}

/// The version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "UpstreamProxyProtocol")]
pub enum ProxyProtocol {
    /// A line of text
    V1,
    /// Binary
    V2,
}

/// An endpoint: its address or name, or a map that says more.
pub type Endpoint = TextOr<EndpointText, EndpointMap>;

/// An endpoint in one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointText {
    Address(Address),
    /// Every address that the name has.
    Name(HostPort),
}

crate::value::text_value!(
    EndpointText,
    "endpoint",
    "Where to connect: \"IP:PORT\", \"NAME:PORT\" (every address of a DNS name) or \"unix:PATH\".",
    "10.0.0.1:8080",
    "app:3000",
    "unix:/run/app.sock"
);

impl std::str::FromStr for EndpointText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("unix:") || text.starts_with('[') || text.parse::<std::net::SocketAddr>().is_ok()
        {
            return text.parse().map(Self::Address);
        }
        if let Ok(ip) = text.parse::<std::net::IpAddr>() {
            return Err(format!(
                "{text} has no port: write {} for example",
                std::net::SocketAddr::new(ip, 80)
            ));
        }
        text.parse().map(Self::Name).map_err(|why: String| {
            let forms = "expected IP:PORT, [IPv6]:PORT, NAME:PORT or unix:PATH";
            if text.contains(':') { format!("{why}; {forms}") } else { why }
        })
    }
}

/// An endpoint with its weight, or where endpoints are found. Exactly one of address, dns, srv and file stands in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Endpoint")]
pub struct EndpointMap {
    /// Where it is: "10.0.0.1:8080" or "unix:/run/app.sock".
    pub address: Option<Spanned<Address>>,
    /// Every address (A and AAAA) of a name, followed as it changes: "app:3000".
    pub dns: Option<Spanned<HostPort>>,
    /// The targets of SRV records, with their priorities and weights: "_http._tcp.app".
    pub srv: Option<Spanned<DnsName>>,
    /// A YAML or JSON file that lists addresses: "10.0.0.1:8080" or { address, weight }. It is read again when it changes.
    pub file: Option<Spanned<FilePath>>,
    /// Its share of the requests beside the others' weights, 1 to 1000. Default 1. Each address of a name has it. With `sticky`,
    /// 0 means that it keeps its clients and gets no new ones.
    pub weight: Option<Spanned<u16>>,
    /// Endpoints of a higher number are used where too few of the lower ones are usable. 0 to 100, default 0. The priorities of
    /// SRV records are added to it.
    pub priority: Option<Spanned<u8>>,
    /// true: it is used last of all, after every priority.
    pub backup: Option<Spanned<bool>>,
    /// The zone that it is in. Where the process has a `zone`, endpoints in the same zone are used first.
    pub zone: Option<Spanned<Name>>,
    /// How often DNS is asked, at least 1s. Default: as the answers' TTL says, from 1s to 5m.
    pub refresh: Option<Spanned<Duration>>,
    /// The family of addresses that is used while one of its endpoints can be. Default: both.
    pub prefer: Option<Spanned<Prefer>>,
}

/// Which of a name's addresses are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// IPv4 addresses; IPv6 ones where no other can be
    V4,
    /// IPv6 addresses; IPv4 ones where no other can be
    V6,
    /// All alike
    #[default]
    Both,
}

/// What a file of endpoints holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ListedEndpoints(pub Vec<Spanned<TextOr<Address, ListedEndpoint>>>);

/// An endpoint in a file, with its weight.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListedEndpoint {
    pub address: Address,
    /// Its share of the requests relative to the other weights, 1 to 1000. Default 1.
    #[serde(default)]
    pub weight: Option<Spanned<std::num::NonZeroU16>>,
}

/// TLS towards the endpoints.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "UpstreamTls")]
pub struct Tls {
    /// The name that is sent as SNI and must be in the certificate. Default: the request's host, or `host` of a health check.
    pub server_name: Option<Spanned<String>>,
    /// Certificates of the trusted authorities, PEM. Default: the system's.
    pub ca: Option<Spanned<FilePath>>,
    /// The client certificate for endpoints that request one.
    pub client_certificate: Option<Spanned<Name>>,
    /// Whether the endpoint's certificate is verified. Default: full.
    pub verify: Option<Spanned<Verify>>,
}

/// Whether an endpoint's certificate is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "UpstreamVerify")]
pub enum Verify {
    /// Chain and name
    #[default]
    Full,
    /// No verification; this is a warning
    None,
}

/// Active health checks, by exactly one of http, tcp and grpc. An endpoint starts healthy. Unhealthy endpoints get no requests,
/// unless panic_threshold is set; if none is healthy, requests get 503.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "UpstreamHealth")]
pub struct Health {
    /// The endpoint is healthy if it answers a request.
    #[serde(default)]
    pub http: Option<HttpCheck>,
    /// The endpoint is healthy if it accepts a connection.
    #[serde(default)]
    pub tcp: Option<TcpCheck>,
    /// The endpoint is healthy if it answers SERVING to grpc.health.v1.Health/Check. Needs `protocol: h2`, `h2c` or `auto`.
    #[serde(default)]
    pub grpc: Option<Spanned<GrpcCheck>>,
    /// Time from the end of a check to the next one. Default 5s.
    #[serde(default)]
    pub interval: Option<Spanned<Duration>>,
    /// Time limit of one check. Default 1s.
    #[serde(default)]
    pub timeout: Option<Spanned<Duration>>,
    /// Failures in a row that make an endpoint unhealthy. Default 3.
    #[serde(default)]
    pub unhealthy_after: Option<std::num::NonZeroU16>,
    /// Successes in a row that make it healthy again. Default 2.
    #[serde(default)]
    pub healthy_after: Option<std::num::NonZeroU16>,
}

/// A check by a GET request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// The path to request, with query.
    pub path: Spanned<String>,
    /// The status that means healthy. Default 200-299.
    #[serde(default)]
    pub status: Option<StatusRange>,
    /// The Host field. Default: tls.server_name, or the endpoint's address.
    #[serde(default)]
    pub host: Option<Spanned<String>>,
}

/// A check by a connection.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {}

/// A check by the gRPC health checking protocol.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcCheck {
    /// The name of the service, as shop.v1.Orders. Default: the whole server.
    pub service: Option<String>,
    /// The authority. Default: tls.server_name, or the endpoint's address.
    pub host: Option<Spanned<String>>,
}

/// The pool of connections to each endpoint.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "UpstreamPool")]
pub struct Pool {
    /// How long an idle connection stays open. Default 60s.
    pub idle: Option<Spanned<Duration>>,
    /// The age from which a connection gets no further requests, less up to a tenth at random. Default: no limit.
    pub max_age: Option<Spanned<Duration>>,
    /// The number of requests after which a connection gets no further ones. Default: no limit.
    pub max_requests: Option<std::num::NonZeroU32>,
    /// The number of connections to each endpoint that are kept ready, 64 at most. Needs `tls.server_name` with `tls`. Default 0.
    pub min: Option<Spanned<u32>>,
    /// The most connections to each endpoint. Further requests wait for one, at most as long as `timeouts.connect`. Default: no limit.
    pub max: Option<Spanned<std::num::NonZeroU32>>,
}

/// The number of requests in flight, or how it is found.
pub type InFlightSetting = TextOr<InFlightText, InFlightMap>;

/// A number, or `adaptive` with its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlightText {
    Number(u32),
    Adaptive,
}

crate::value::text_value!(
    InFlightText,
    "in-flight-limit",
    "A number from 1 on, or adaptive.",
    "1000",
    "adaptive"
);

impl std::str::FromStr for InFlightText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<i128>() {
            _ if text == "adaptive" => Ok(Self::Adaptive),
            Ok(number) => u32::try_from(number)
                .ok()
                .filter(|number| *number > 0)
                .map(Self::Number)
                .ok_or_else(|| format!("{text} is not from 1 to {}", u32::MAX)),
            Err(_) => Err(format!("in_flight must be a number, adaptive or a map (got {text:?})")),
        }
    }
}

/// A limit that is found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "UpstreamInFlight")]
pub struct InFlightMap {
    /// Follows the response times: the limit falls while they are longer than usual, and grows slowly else.
    pub adaptive: AdaptiveLimit,
}

/// How the limit follows the response times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptiveLimit {
    /// The least limit. Default 20.
    pub min: Option<Spanned<std::num::NonZeroU32>>,
    /// The greatest limit. Default 1000.
    pub max: Option<Spanned<std::num::NonZeroU32>>,
    /// The limit at first. Default 100, or the bound next to it.
    pub initial: Option<Spanned<std::num::NonZeroU32>>,
    /// The response time, in percent of the long average, above which the limit falls. Default 150%.
    pub tolerance: Option<PercentAbove>,
}

/// Which request leaves the queue first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueueOrder {
    /// The oldest
    #[default]
    OldestFirst,
    /// The newest: while there is more to do than can be done, some are answered at once and not all of them late
    NewestFirst,
    /// The oldest of the highest `priority` of routes
    Priority,
}

/// Timeouts towards the endpoints.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "UpstreamTimeouts")]
pub struct Timeouts {
    /// Time to connect, including TLS. Default 5s.
    pub connect: Option<Spanned<Duration>>,
    /// Time from the end of the request to the response's head, for each attempt. Default 60s.
    pub first_byte: Option<Spanned<Duration>>,
    /// Longest pause between two pieces of a body. Default 60s.
    pub body_idle: Option<Spanned<Duration>>,
}

/// Limits of requests in flight and of a response's head. A request above `in_flight` that finds no room in the queue gets 503
/// (`upstream_overloaded`). A response above a limit gets 502.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "UpstreamLimits")]
pub struct Limits {
    /// The number of requests in flight, over all endpoints; `adaptive` or a map finds it by the response times. Default: no limit.
    pub in_flight: Option<Spanned<InFlightSetting>>,
    /// The number of further requests that wait until a request in flight ends. Default 0.
    pub queue: Option<Spanned<u32>>,
    /// The longest wait in the queue. Default 1s.
    pub queue_timeout: Option<Spanned<Duration>>,
    /// Which request leaves the queue first. If the queue is full, the request that would leave it last is rejected. Default
    /// oldest_first.
    pub queue_order: Option<Spanned<QueueOrder>>,
    /// Size of a response head: status line and header fields. 1KiB to 16MiB, default 256KiB.
    pub header_size: Option<Spanned<Size>>,
    /// Header field lines of a response. 1 to 4096, default 256.
    pub headers: Option<Spanned<u16>>,
}
