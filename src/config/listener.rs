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
    /// Protocols spoken here. Default: [h1, h2] with tls, [h1, h2c] without.
    #[serde(default)]
    pub protocols: Option<Spanned<Vec<Spanned<Protocol>>>>,
    /// Answers every request with a redirect to another scheme.
    #[serde(default)]
    pub redirect: Option<Spanned<Redirect>>,
    /// What users see of this listener, where a proxy or port mapping stands before it.
    #[serde(default)]
    pub expose: Option<Expose>,
    /// Encryption. Without it the listener speaks cleartext.
    #[serde(default)]
    pub tls: Option<Spanned<Tls>>,
    /// HTTP/2 settings.
    #[serde(default)]
    pub http2: Option<Spanned<Http2>>,
    /// The PROXY protocol, versions 1 and 2: balancers that say at a connection's beginning who connected to them. What they
    /// say is the peer from then on: in logs, limits per address and `trusted_proxies`.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// QUIC settings: of the connections that carry HTTP/3.
    #[serde(default)]
    pub quic: Option<Spanned<Quic>>,
    /// What becomes of a request's fields whose names have an underscore, a dot or any other character than letters, digits
    /// and hyphens: servers behind the proxy may read X_User and X.User as X-User. Default drop_lookalikes.
    #[serde(default)]
    pub unusual_header_names: UnusualNames,
    /// Proxies before this one whose word about the client is taken.
    #[serde(default)]
    pub trusted_proxies: Option<TrustedProxies>,
    /// Deadlines of a connection.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Limits of the listener and its connections.
    #[serde(default)]
    pub limits: Limits,
    /// The listener's part of the chain: runs for every answer given here.
    #[serde(default)]
    pub middleware: Chain,
    /// The access log of what comes in here. `false` turns it off.
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

/// A scheme that users see.
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

    /// The port that a URL need not name.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A redirect of all that comes in.
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

/// What users see.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expose {
    /// Default: https with tls, http without.
    #[serde(default)]
    pub scheme: Option<Scheme>,
    /// Default: the port listened on.
    #[serde(default)]
    pub port: Option<u16>,
}

/// A listener's encryption.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ListenerTls")]
pub struct Tls {
    /// Names of certificates, chosen by SNI: an exact name before a wildcard, then the order here. The first is the default.
    pub certificates: Vec<Spanned<Name>>,
    /// The oldest version taken: 1.2 or 1.3. Default 1.2.
    #[serde(default)]
    pub min_version: Option<TlsVersion>,
    /// Whether clients may resume their sessions by tickets. Default true.
    #[serde(default)]
    pub session_tickets: Option<bool>,
    /// Whether clients that resume a session may send a request before the handshake is over. Default false.
    #[serde(default)]
    pub early_data: Option<Spanned<bool>>,
    /// Certificates asked of clients.
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

/// Certificates asked of clients.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuth {
    /// Certificates of the authorities that sign clients' certificates, PEM.
    pub ca: File,
    /// Whether a client must have one. Default: require.
    #[serde(default)]
    pub mode: ClientAuthMode,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMode {
    /// A client without a certificate is served; one with a wrong certificate is not
    Optional,
    #[default]
    /// A client without a valid certificate is refused
    Require,
}

/// HTTP/2 settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Requests at once per connection. Default 128.
    pub max_streams: Option<std::num::NonZeroU32>,
}

/// QUIC settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quic {
    /// Requests at once per connection; memory is kept for each that may come, 50 to 100 bytes. Default 100 (RFC 9114
    /// section 6.1 asks for no less).
    pub max_streams: Option<Spanned<std::num::NonZeroU32>>,
    /// Bytes of a request's body that a client may send before they are read. Default 1MiB.
    pub stream_window: Option<Spanned<Size>>,
    /// The same for all requests of a connection; also what of responses may be on its way. Default 8MiB.
    pub connection_window: Option<Spanned<Size>>,
    /// After which silence the client counts as gone. Default 30s.
    pub idle_timeout: Option<Spanned<Duration>>,
    /// After which silence the client is asked whether it is there. Default: a third of idle_timeout.
    pub keep_alive: Option<Spanned<Duration>>,
    /// How the sending rate follows the network. Default cubic.
    pub congestion: Option<Congestion>,
    /// Whether datagrams (RFC 9221) are taken. Default false, and true is not supported yet.
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

/// How a sending rate follows the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Congestion {
    /// By the delay and the rate that is measured
    Bbr,
    #[default]
    /// By losses, as most systems do for TCP (RFC 9438)
    Cubic,
    /// By losses, more carefully (RFC 9002)
    Newreno,
}

/// Proxies whose word about the client is taken.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedProxies {
    /// Their addresses.
    pub from: Vec<Spanned<Cidr>>,
    /// The field that names the client: X-Forwarded-For (default) or Forwarded.
    #[serde(default)]
    pub header: ForwardedHeader,
}

/// Balancers that say who connected to them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Their addresses; nobody else's header is read.
    pub from: Spanned<Vec<Spanned<Cidr>>>,
    /// What becomes of connections without a header. Default: require.
    #[serde(default)]
    pub mode: ProxyProtocolMode,
}

/// What becomes of connections without a PROXY header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocolMode {
    /// They are served as they are, whoever opens them
    Optional,
    #[default]
    /// They are closed, and so is every connection of a peer that is not listed
    Require,
}

/// Which field names the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ForwardedHeader {
    #[default]
    #[serde(rename = "X-Forwarded-For")]
    XForwardedFor,
    #[serde(rename = "Forwarded")]
    Forwarded,
}

/// Deadlines of a connection. None is ever "never".
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ListenerTimeouts")]
pub struct Timeouts {
    /// For the handshake of TLS or QUIC and the HTTP/2 preface. Default 10s.
    pub handshake: Option<Duration>,
    /// From the first byte of a request's head to its last. Default 10s.
    pub header: Option<Duration>,
    /// Between two pieces of a request's body. Default 30s.
    pub body_idle: Option<Duration>,
    /// Between two requests of a connection. Default 60s.
    pub idle: Option<Duration>,
    /// For the client to take a piece of the response. Default 60s.
    pub write_idle: Option<Duration>,
}

/// Limits of a listener and its connections.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ListenerLimits")]
pub struct Limits {
    /// Connections at once. Default 20000.
    pub connections: Option<std::num::NonZeroU32>,
    /// Connections at once from one address (an IPv6 /64 counts as one). Default: no limit of its own.
    pub connections_per_ip: Option<std::num::NonZeroU32>,
    /// Bytes of a request's header section. Default 64KiB.
    pub header_size: Option<Spanned<Size>>,
    /// Fields of a request's header section. Default 128.
    pub headers: Option<std::num::NonZeroU16>,
    /// Bytes of a request's target. Default 8KiB.
    pub uri: Option<Spanned<Size>>,
    /// Requests of one connection. Default 10000.
    pub requests_per_connection: Option<std::num::NonZeroU32>,
    /// The bytes of a request body that must arrive per second of waiting for it, on average and after the first ten seconds.
    /// `off` turns it off. Default 240B/s, after the first `body_idle` of waiting, and not for gRPC.
    pub body_rate: Option<LeastRate>,
}
