//! A listener's settings, compiled: every default filled in.

use std::{fmt, net::IpAddr, num::NonZeroU64, sync::Arc, time::Duration};

use quinn::{
    IdleTimeout, TransportConfig, VarInt, congestion,
    crypto::rustls::{NoInitialCipherSuite, QuicServerConfig},
};

use crate::{
    config::listener as config,
    http::connection::ClientRules,
    telemetry::metrics,
    tls::{self, Remembered},
    value::{Cidr, LeastRate, Name, Size, Spanned},
};

/// What new connections of a listener are held to.
#[derive(Clone, Debug)]
pub struct Listener {
    pub name: Name,
    pub protocols: Protocols,
    /// Encryption; its ALPN agrees with `protocols`.
    pub tls: Option<Arc<tls::Server>>,
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The port that users see, where that is said.
    pub exposed_port: Option<u16>,
    /// HTTP/3, where it is spoken.
    pub quic: Option<Quic>,
    pub timeouts: Timeouts,
    pub limits: Limits,
    /// What its connections are counted by.
    pub metrics: Arc<metrics::Listener>,
}

/// The protocols spoken, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    pub h1: bool,
    /// HTTP/2: by ALPN with TLS, by prior knowledge without.
    pub h2: bool,
    pub h3: bool,
}

/// What QUIC connections are held to.
#[derive(Clone)]
pub struct Quic {
    /// The same encryption as over TCP, with an ALPN of its own.
    pub crypto: Arc<QuicServerConfig>,
    /// What is asked of all clients: a name is not looked at before.
    pub rules: ClientRules,
    /// Whether requests may come before the handshake is over.
    pub takes_early_data: bool,
    pub transport: Arc<TransportConfig>,
    /// Requests at once per connection.
    pub max_streams: usize,
}

/// Who begins a connection with a PROXY header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    pub from: Box<[Cidr]>,
    /// Whether a connection without one is closed.
    pub required: bool,
}

/// Deadlines of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub handshake: Duration,
    pub header: Duration,
    pub body_idle: Duration,
    pub idle: Duration,
    pub write_idle: Duration,
}

/// Limits of a listener and its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connections: usize,
    /// `None`: no limit of its own.
    pub connections_per_ip: Option<usize>,
    pub header_size: usize,
    pub headers: usize,
    pub uri: usize,
    pub requests_per_connection: usize,
    pub body_rate: BodyRate,
    /// HTTP/2 requests at once per connection.
    pub streams: u32,
}

/// The bytes of a request body that must arrive per second of waiting for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRate {
    Off,
    /// What holds where the configuration says nothing.
    Default,
    Configured(NonZeroU64),
}

/// Compiles a listener's settings; `tls` is what was made of its `tls` section.
pub fn settings(
    name: &Name,
    config: &config::Listener,
    tls: Option<Arc<tls::Server>>,
    metrics: Arc<metrics::Listener>,
) -> Listener {
    let protocols = protocols(config);
    Listener {
        name: name.clone(),
        quic: tls.as_ref().filter(|_| protocols.h3).and_then(|tls| Quic::new(tls, config).ok()),
        exposed_port: config.expose.as_ref().and_then(|expose| expose.port),
        protocols,
        tls,
        proxy_protocol: config.proxy_protocol.as_ref().map(proxy_protocol),
        timeouts: timeouts(&config.timeouts),
        limits: limits(config),
        metrics,
    }
}

/// The protocols of a listener, by default all that its transport carries. [`config::Protocol::H2`]
/// without TLS and [`config::Protocol::H2c`] with it are refused before.
pub fn protocols(config: &config::Listener) -> Protocols {
    let Some(listed) = &config.protocols else { return Protocols { h1: true, h2: true, h3: false } };
    let has = |wanted| listed.iter().any(|protocol| protocol.value == wanted);
    Protocols {
        h1: has(config::Protocol::H1),
        h2: has(config::Protocol::H2) || has(config::Protocol::H2c),
        h3: has(config::Protocol::H3),
    }
}

impl Protocols {
    /// Whether any of them is spoken over streams: TCP or unix sockets.
    pub fn over_streams(self) -> bool {
        self.h1 || self.h2
    }

    /// The names in ALPN (RFC 7301) of those, the preferred first.
    pub fn alpn(self) -> Vec<Vec<u8>> {
        let names = [(self.h2, &b"h2"[..]), (self.h1, b"http/1.1")];
        names.into_iter().filter(|(spoken, _)| *spoken).map(|(_, name)| name.to_vec()).collect()
    }
}

impl ProxyProtocol {
    /// Whether this peer's header is read.
    pub fn lists(&self, ip: IpAddr) -> bool {
        self.from.iter().any(|network| network.contains(ip))
    }
}

fn proxy_protocol(config: &config::ProxyProtocol) -> ProxyProtocol {
    ProxyProtocol {
        from: config.from.iter().map(|network| network.value).collect(),
        required: config.mode == config::ProxyProtocolMode::Require,
    }
}

impl Quic {
    fn new(tls: &tls::Server, config: &config::Listener) -> Result<Self, NoInitialCipherSuite> {
        let tls::Ruled { config: tls, rules } = tls.quic();
        let Remembered { max_streams, stream_window, connection_window, .. } = remembered(config);
        let default = config::Quic::default();
        let config = config.quic.as_deref().unwrap_or(&default);
        let idle_timeout = config.idle_timeout();
        let keep_alive = config.keep_alive.as_ref().map_or(idle_timeout / 3, |time| time.value.get());
        let varint = |number: u64| VarInt::from_u64(number).unwrap_or(VarInt::MAX);
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(varint(max_streams))
            .max_concurrent_uni_streams(UNIDIRECTIONAL.into())
            .stream_receive_window(varint(stream_window))
            .receive_window(varint(connection_window))
            .send_window(connection_window)
            .max_idle_timeout(IdleTimeout::try_from(idle_timeout).ok())
            .keep_alive_interval(Some(keep_alive))
            .datagram_receive_buffer_size(None)
            .congestion_controller_factory(controller(config.congestion.unwrap_or_default()));
        Ok(Self {
            takes_early_data: tls.max_early_data_size > 0,
            crypto: Arc::new(QuicServerConfig::try_from(tls)?),
            rules,
            transport: Arc::new(transport),
            max_streams: usize::try_from(max_streams).unwrap_or(usize::MAX),
        })
    }
}

/// What clients of a listener's QUIC keep with a session.
pub fn remembered(config: &config::Listener) -> Remembered {
    let default = config::Quic::default();
    let quic = config.quic.as_deref().unwrap_or(&default);
    let window = |size: &Option<Spanned<Size>>, default| size.as_ref().map_or(default, |size| size.value.0);
    Remembered {
        max_streams: quic.max_streams.as_ref().map_or(100, |number| number.get().into()),
        stream_window: window(&quic.stream_window, 1 << 20),
        connection_window: window(&quic.connection_window, 8 << 20),
        header_size: limits(config).header_size as u64,
    }
}

/// Streams of a client that carry no request: three that it needs (RFC 9114 section 6.2), and some that mean nothing. quinn
/// keeps a place for each in a table that doubles beyond 112, these and the default of requests.
const UNIDIRECTIONAL: u32 = 8;

fn controller(
    congestion: config::Congestion,
) -> Arc<dyn congestion::ControllerFactory + Send + Sync + 'static> {
    match congestion {
        config::Congestion::Bbr => Arc::new(congestion::BbrConfig::default()),
        config::Congestion::Cubic => Arc::new(congestion::CubicConfig::default()),
        config::Congestion::Newreno => Arc::new(congestion::NewRenoConfig::default()),
    }
}

impl fmt::Debug for Quic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quic").field("max_streams", &self.max_streams).finish_non_exhaustive()
    }
}

fn timeouts(config: &config::Timeouts) -> Timeouts {
    let or = |duration: Option<crate::value::Duration>, seconds| {
        duration.map_or(Duration::from_secs(seconds), |duration| duration.get())
    };
    Timeouts {
        handshake: or(config.handshake, 10),
        header: or(config.header, 10),
        body_idle: or(config.body_idle, 30),
        idle: or(config.idle, 60),
        write_idle: or(config.write_idle, 60),
    }
}

fn limits(config: &config::Listener) -> Limits {
    let limits = &config.limits;
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Limits {
        connections: limits.connections.map_or(20_000, count),
        connections_per_ip: limits.connections_per_ip.map(count),
        header_size: limits.header_size.as_ref().map_or(64 << 10, |size| bytes(size.value.0)),
        headers: limits.headers.map_or(128, |number| number.get().into()),
        uri: limits.uri.as_ref().map_or(8 << 10, |size| bytes(size.value.0)),
        requests_per_connection: limits.requests_per_connection.map_or(10_000, count),
        body_rate: match limits.body_rate {
            None => BodyRate::Default,
            Some(LeastRate::Off) => BodyRate::Off,
            Some(LeastRate::Rate(rate)) => BodyRate::Configured(rate.0),
        },
        streams: config.http2.as_ref().and_then(|http2| http2.max_streams).map_or(128, |number| number.get()),
    }
}

fn count(number: std::num::NonZeroU32) -> usize {
    usize::try_from(number.get()).unwrap_or(usize::MAX)
}

#[cfg(test)]
impl Listener {
    /// What an empty section compiles to, in cleartext.
    pub fn for_tests(name: &str) -> Self {
        let config = config::Listener {
            bind: Default::default(),
            protocols: None,
            redirect: None,
            expose: None,
            tls: None,
            http2: None,
            proxy_protocol: None,
            quic: None,
            unusual_header_names: Default::default(),
            trusted_proxies: None,
            timeouts: Default::default(),
            limits: Default::default(),
            middleware: Default::default(),
            access_log: None,
        };
        let name = name.parse().expect("a test's name is a name");
        settings(&name, &config, None, metrics::Metrics::default().listener(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_has_the_documented_defaults() {
        let listener = Listener::for_tests("web");
        assert_eq!(listener.protocols.alpn(), [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(listener.timeouts.idle, Duration::from_secs(60));
        assert_eq!(listener.limits.header_size, 65536);
        assert_eq!((listener.limits.headers, listener.limits.streams), (128, 128));
        assert_eq!(listener.limits.connections_per_ip, None);
        assert_eq!(listener.limits.body_rate, BodyRate::Default);
    }
}
