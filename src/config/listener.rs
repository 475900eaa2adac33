//! Where clients connect.

use schemars::JsonSchema;
use serde::Deserialize;

use super::document::{Chain, File};
use crate::{
    http::field_name::UnusualNames,
    telemetry::access_log,
    value::{Bind, Cidr, Duration, LeastRate, Name, OneOrMany, Size, Spanned, Status},
};

/// A listener: addresses, protocols, TLS, limits.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Where to listen: ":80" is every address of both families; ":0" picks a free port; "unix:PATH".
    pub bind: OneOrMany<Spanned<Bind>>,
    /// Protocols. Default: [h1, h2] with tls, [h1, h2c] without.
    #[serde(default)]
    pub protocols: Option<Spanned<Vec<Spanned<Protocol>>>>,
    /// Answers every request with a redirect to another scheme.
    #[serde(default)]
    pub redirect: Option<Spanned<Redirect>>,
    /// Scheme and port that clients use, if a proxy or port mapping is in front of this listener.
    #[serde(default)]
    pub expose: Option<Expose>,
    /// TLS. Default: none.
    #[serde(default)]
    pub tls: Option<Spanned<Tls>>,
    /// HTTP/2 settings.
    #[serde(default)]
    pub http2: Option<Spanned<Http2>>,
    /// The PROXY protocol, versions 1 and 2: load balancers send the client's address at the start of a connection. That address
    /// is then the peer in logs, limits per address and `trusted_proxies`.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// QUIC settings, for HTTP/3.
    #[serde(default)]
    pub quic: Option<Spanned<Quic>>,
    /// The handling of request fields whose names have other characters than letters, digits and hyphens. Servers behind the
    /// proxy may read X_User and X.User as X-User. Default drop_lookalikes.
    #[serde(default)]
    pub unusual_header_names: UnusualNames,
    /// Proxies in front of this one that may name the client's address, scheme and host.
    #[serde(default)]
    pub trusted_proxies: Option<TrustedProxies>,
    /// Timeouts of a connection.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Limits of the listener and its connections.
    #[serde(default)]
    pub limits: Limits,
    /// Middleware of all requests on this listener.
    #[serde(default)]
    pub middleware: Chain,
    /// The access log of this listener. `false` turns it off.
    #[serde(default)]
    pub access_log: Option<Spanned<access_log::Setting>>,
}

/// A protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ListenerProtocol")]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0
    H1,
    /// HTTP/2 over TLS, chosen by ALPN
    H2,
    /// HTTP/2 in cleartext, by prior knowledge
    H2c,
    /// HTTP/3, over QUIC on the UDP port of the same number; needs tls
    H3,
}

/// A scheme that clients use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The default port of the scheme.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A redirect of all requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ListenerRedirect")]
pub struct Redirect {
    /// The scheme to redirect to.
    pub scheme: Scheme,
    /// 301, 302, 303, 307 or 308. Default 308.
    #[serde(default)]
    pub status: Option<Spanned<Status>>,
    /// The port to redirect to. Default: the one that a listener of that scheme exposes.
    #[serde(default)]
    pub port: Option<u16>,
}

/// Scheme and port that clients use.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expose {
    /// Default: https with tls, http without.
    #[serde(default)]
    pub scheme: Option<Scheme>,
    /// Default: the port of `bind`.
    #[serde(default)]
    pub port: Option<u16>,
}

/// TLS settings of a listener.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ListenerTls")]
pub struct Tls {
    /// Names of certificates, chosen by SNI: an exact name before a wildcard, then the order here. The first is the default.
    pub certificates: Vec<Spanned<Name>>,
    /// The oldest accepted version: 1.2 or 1.3. Default 1.2.
    #[serde(default)]
    pub min_version: Option<TlsVersion>,
    /// Whether clients may resume their sessions by tickets. Default true.
    #[serde(default)]
    pub session_tickets: Option<bool>,
    /// Whether clients that resume a session may send a request before the handshake is over. Default false.
    #[serde(default)]
    pub early_data: Option<Spanned<bool>>,
    /// Client certificates.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V12,
    #[serde(rename = "1.3")]
    V13,
}

/// Client certificates.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuth {
    /// Certificates of the authorities that sign clients' certificates, PEM.
    pub ca: File,
    /// Whether a client must have one. Default: require.
    #[serde(default)]
    pub mode: ClientAuthMode,
}

/// Whether a client must have a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMode {
    /// A client without a certificate is served; one with an invalid certificate is not
    Optional,
    #[default]
    /// A client without a valid certificate is rejected
    Require,
}

/// HTTP/2 settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Concurrent requests per connection. Default 128.
    pub max_streams: Option<std::num::NonZeroU32>,
}

/// QUIC settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quic {
    /// Concurrent requests per connection. Each reserves 50 to 100 bytes of memory. Default 100, the least that RFC 9114
    /// section 6.1 recommends.
    pub max_streams: Option<Spanned<std::num::NonZeroU32>>,
    /// Flow control window of a stream: bytes of a request body that a client may send before they are read. Default 1MiB.
    pub stream_window: Option<Spanned<Size>>,
    /// Flow control window of a connection, for all its requests; also the limit of unacknowledged response data. Default 8MiB.
    pub connection_window: Option<Spanned<Size>>,
    /// Silence after which the connection is closed. Default 30s.
    pub idle_timeout: Option<Spanned<Duration>>,
    /// Silence after which a PING is sent. Default: a third of idle_timeout.
    pub keep_alive: Option<Spanned<Duration>>,
    /// The congestion control algorithm. Default cubic.
    pub congestion: Option<Congestion>,
    /// Whether datagrams (RFC 9221) are accepted. Default false; true is not supported yet.
    pub datagrams: Datagrams,
}

/// Datagrams of QUIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "QuicDatagrams")]
pub enum Datagrams {
    #[default]
    #[serde(rename = "false")]
    Off,
}

impl Quic {
    pub fn idle_timeout(&self) -> std::time::Duration {
        self.idle_timeout.as_ref().map_or(std::time::Duration::from_secs(30), |time| time.value.get())
    }
}

/// A congestion control algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Congestion {
    /// By measured delay and bandwidth
    Bbr,
    #[default]
    /// By packet loss, as most systems do for TCP (RFC 9438)
    Cubic,
    /// By packet loss, more conservative (RFC 9002)
    Newreno,
}

/// Trusted proxies.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedProxies {
    /// Their addresses.
    pub from: Vec<Spanned<Cidr>>,
    /// The field that names the client: X-Forwarded-For (default) or Forwarded.
    #[serde(default)]
    pub header: ForwardedHeader,
}

/// Load balancers that send the PROXY protocol.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Their addresses. Headers from other peers are not read.
    pub from: Spanned<Vec<Spanned<Cidr>>>,
    /// The handling of connections without a header. Default: require.
    #[serde(default)]
    pub mode: ProxyProtocolMode,
}

/// The handling of connections without a PROXY header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocolMode {
    /// They are served, from any peer
    Optional,
    #[default]
    /// They are closed, and so are connections from peers that are not listed
    Require,
}

/// The field that names the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ForwardedHeader {
    #[default]
    #[serde(rename = "X-Forwarded-For")]
    XForwardedFor,
    #[serde(rename = "Forwarded")]
    Forwarded,
}

/// Timeouts of a connection. None can be turned off.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ListenerTimeouts")]
pub struct Timeouts {
    /// Time for the TLS or QUIC handshake and the HTTP/2 preface. Default 10s.
    pub handshake: Option<Duration>,
    /// Time from the first byte of a request's head to its last. Default 10s.
    pub header: Option<Duration>,
    /// Longest pause between two pieces of a request's body. Default 30s.
    pub body_idle: Option<Duration>,
    /// Time between two requests of a connection. Default 60s.
    pub idle: Option<Duration>,
    /// Time for the client to read a piece of the response. Default 60s.
    pub write_idle: Option<Duration>,
}

/// Limits of a listener and its connections.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ListenerLimits")]
pub struct Limits {
    /// Concurrent connections. Default 20000.
    pub connections: Option<std::num::NonZeroU32>,
    /// Concurrent connections from one address (an IPv6 /64 counts as one). Default: only `connections`.
    pub connections_per_ip: Option<std::num::NonZeroU32>,
    /// Bytes of a request's header section. Default 64KiB.
    pub header_size: Option<Spanned<Size>>,
    /// Fields of a request's header section. Default 128.
    pub headers: Option<std::num::NonZeroU16>,
    /// Bytes of a request's target. Default 8KiB.
    pub uri: Option<Spanned<Size>>,
    /// Requests of one connection. Default 10000.
    pub requests_per_connection: Option<std::num::NonZeroU32>,
    /// The lowest average rate of a request body, as 10KiB/s, measured while Portolan waits for it. The first ten seconds are not
    /// counted. `off` turns it off. Default: 240B/s, where the first `body_idle` is not counted and gRPC is exempt.
    pub body_rate: Option<LeastRate>,
}
