//! Lets clients reach listed targets: through tunnels by CONNECT (RFC 9110 section 9.3.6), and by requests whose target is a
//! URI (RFC 9112 section 3.2.2). A forward proxy for those, and for nothing else.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    error::Reason,
    http::authority::Authority,
    upstream::{Denied, DeniedAddress, discovery::Resolver},
    value::{self, Address, Cidr, Spanned},
};

/// Opens tunnels to the targets listed, and sends requests for http URIs on to them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Forward")]
pub struct Config {
    /// What may be reached: "api.example.com:443", "*.example.com:443", "10.0.0.0/8:443", "[fd00::/8]:443".
    pub targets: Spanned<Vec<Spanned<Target>>>,
    /// Addresses that are not reached, whatever names resolve to. Default: this machine's own (127.0.0.0/8, ::1, 0.0.0.0/8, ::)
    /// and link-local ones (169.254.0.0/16, fe80::/10), unless a network among the targets holds them.
    #[serde(default)]
    pub deny: Option<Vec<Spanned<DeniedAddress>>>,
    /// For finding the target's address and for the connection. Default 5s.
    #[serde(default)]
    pub connect: Option<Spanned<value::Duration>>,
    /// How long a tunnel may carry nothing in either direction. Default 5m.
    #[serde(default)]
    pub idle: Option<Spanned<value::Duration>>,
}

/// What may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    place: Place,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// One name, in small letters.
    Name(String),
    /// Every name that ends so, with the dot before it.
    Below(String),
    Network(Cidr),
}

crate::value::text_value!(
    Target,
    "forward-target",
    "NAME:PORT, *.NAME:PORT or NETWORK:PORT; an IPv6 network stands in brackets.",
    "*.example.com:443",
    "10.0.0.0/8:443"
);

/// The action, ready to run.
#[derive(Debug)]
pub struct Forward {
    targets: Box<[Target]>,
    denied: Denied,
    /// The admin API, and what the operator denies to whoever wrote the route: no list of theirs goes before it.
    forbidden: Denied,
    /// Finds the addresses of names.
    resolver: Arc<Resolver>,
    /// Whether networks among the targets go before what is denied.
    lists_over_denied: bool,
    /// For finding a target and connecting to it.
    pub connect: Duration,
    /// How long a tunnel may be silent.
    pub idle: Duration,
    pub timeouts: Timeouts,
    /// Whether the route takes every path: then requests are not told apart by theirs.
    pub takes_all_paths: bool,
}

/// Timeouts of requests that are sent on.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the request's head to the response's end, where that has a bound.
    pub total: Option<Duration>,
    pub first_byte: Duration,
    pub body_idle: Duration,
}

const CONNECT: Duration = Duration::from_secs(5);
/// The port of an http URI that names none.
const HTTP: u16 = 80;
const IDLE: Duration = Duration::from_secs(300);
const DENIED: [&str; 6] = ["127.0.0.0/8", "::1", "0.0.0.0/8", "::", "169.254.0.0/16", "fe80::/10"];

/// Compiles the action. `forbidden`: what it must not lead to, whatever it says itself. `None` where an error was reported.
pub fn compile(
    config: &Config,
    forbidden: &Denied,
    resolver: Arc<Resolver>,
    timeouts: Timeouts,
    takes_all_paths: bool,
    diagnostics: &mut Diagnostics,
) -> Option<Forward> {
    if config.targets.is_empty() {
        let problem = Diagnostic::error(Code::BadValue, config.targets.span, "nothing is reached from here");
        diagnostics.push(problem.help("targets: [\"*.example.com:443\"]"));
    }
    let connect = duration(config.connect.as_ref(), CONNECT, diagnostics);
    let idle = duration(config.idle.as_ref(), IDLE, diagnostics);
    let denied: Vec<DeniedAddress> = match &config.deny {
        Some(written) => written.iter().map(|denied| denied.value).collect(),
        None => DENIED.iter().map(|text| text.parse().expect("each constant is a network")).collect(),
    };
    let targets: Box<[Target]> = config.targets.iter().map(|target| target.value.clone()).collect();
    (!targets.is_empty()).then_some(())?;
    Some(Forward {
        targets,
        denied: Denied::new(denied),
        forbidden: forbidden.clone(),
        resolver,
        lists_over_denied: config.deny.is_none(),
        connect: connect?,
        idle: idle?,
        timeouts,
        takes_all_paths,
    })
}

fn duration(
    written: Option<&Spanned<value::Duration>>,
    default: Duration,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    let Some(written) = written else { return Some(default) };
    if written.get().is_zero() {
        diagnostics.push(Diagnostic::error(Code::BadValue, written.span, "no time at all is too little"));
        return None;
    }
    Some(written.get())
}

// === impl Forward ===

impl Forward {
    /// Connects to a target, `host:port` as CONNECT names it.
    pub async fn open(&self, authority: &str) -> Result<TcpStream, Reason> {
        let target = Authority::parse(authority).map_err(|_| Reason::BadHost)?;
        let port = target.port.ok_or(Reason::BadHost)?;
        let opened = timeout(self.connect, self.connect_to(&target.host, port));
        opened.await.unwrap_or(Err(Reason::ConnectTimeout))
    }

    /// The addresses of the target of an http URI, which are to be connected to until some time. At least one.
    pub async fn find(&self, authority: &str) -> Result<(Vec<SocketAddr>, Instant), Reason> {
        let target = Authority::parse(authority).map_err(|_| Reason::BadHost)?;
        let until = Instant::now() + self.connect;
        let found = timeout_at(until, self.addresses(&target.host, target.port.unwrap_or(HTTP)));
        Ok((found.await.unwrap_or(Err(Reason::ConnectTimeout))?, until))
    }

    async fn connect_to(&self, host: &str, port: u16) -> Result<TcpStream, Reason> {
        let mut failure = Reason::ConnectFailed;
        for address in self.addresses(host, port).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // What a tunnel carries has its own ideas of what goes out together.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    failure = Reason::ConnectRefused
                }
                Err(_) => failure = Reason::ConnectFailed,
            }
        }
        Err(failure)
    }

    /// The addresses of a host that may be reached, at least one. A name that no target is about is not even looked up where
    /// no network is listed for the port.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Reason> {
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let of_port = || self.targets.iter().filter(|target| target.port == port);
        let is_named = ip.is_none() && of_port().any(|target| target.place.holds_name(host));
        let is_hopeless = !is_named && !of_port().any(|target| matches!(target.place, Place::Network(_)));
        if is_hopeless {
            return Err(Reason::TargetRefused);
        }
        let mut found: Vec<SocketAddr> = match ip {
            Some(ip) => vec![SocketAddr::new(ip, port)],
            None => self.resolver.host(host, port).await.map_err(|_| Reason::ConnectFailed)?,
        };
        found.retain(|address| {
            let is_listed = of_port().any(|target| target.place.holds_address(address.ip()));
            let is_in = |denied: &Denied| denied.check(&Address::Tcp(*address)).is_err();
            let is_denied = is_in(&self.denied) && !(is_listed && self.lists_over_denied);
            (is_named || is_listed) && !is_denied && !is_in(&self.forbidden)
        });
        if found.is_empty() { Err(Reason::TargetRefused) } else { Ok(found) }
    }
}

// === impl Target ===

impl Place {
    fn holds_name(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => host == name,
            Self::Below(ending) => host.len() > ending.len() && host.ends_with(ending.as_str()),
            Self::Network(_) => false,
        }
    }

    fn holds_address(&self, ip: IpAddr) -> bool {
        matches!(self, Self::Network(network) if network.contains(ip))
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no target: NAME:PORT, *.NAME:PORT or NETWORK:PORT");
        let (place, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or_else(wrong)?;
        let network = place.strip_prefix('[').and_then(|place| place.strip_suffix(']')).unwrap_or(place);
        if network.contains('/') || network.parse::<IpAddr>().is_ok() {
            return Ok(Self { place: Place::Network(network.parse()?), port });
        }
        let name = |name: &str| match Authority::parse(name) {
            Ok(Authority { host, port: None, .. }) => Ok(host.into_owned()),
            _ => Err(wrong()),
        };
        let place = match place.strip_prefix("*.") {
            Some(rest) => Place::Below(format!(".{}", name(rest)?)),
            None => Place::Name(name(place)?),
        };
        Ok(Self { place, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(targets: &[&str], deny: Option<&[&str]>) -> Forward {
        let denied = deny.unwrap_or(&DENIED).iter().map(|text| text.parse().unwrap());
        Forward {
            targets: targets.iter().map(|text| text.parse().unwrap()).collect(),
            denied: Denied::new(denied),
            forbidden: Denied::default(),
            resolver: Arc::new(Resolver::new(&[])),
            lists_over_denied: deny.is_none(),
            connect: CONNECT,
            idle: IDLE,
            timeouts: Timeouts { total: None, first_byte: IDLE, body_idle: IDLE },
            takes_all_paths: true,
        }
    }

    async fn leads(forward: &Forward, host: &str, port: u16) -> bool {
        forward.addresses(host, port).await.is_ok()
    }

    #[test]
    fn targets_are_read() {
        for wrong in
            ["", "a", "a:", ":443", "a:0", "a:65536", "a:+1", "*:443", "a/b:443", "[::1]", "u@a:1", "*.:1"]
        {
            assert!(wrong.parse::<Target>().is_err(), "{wrong:?} was read");
        }
        let target = |text: &str| text.parse::<Target>().unwrap();
        assert_eq!(target("API.example.com:443").place, Place::Name("api.example.com".into()));
        assert_eq!(target("*.example.com:8443").place, Place::Below(".example.com".into()));
        assert!(target("10.0.0.0/8:443").place.holds_address("10.1.2.3".parse().unwrap()));
        assert!(target("[fd00::/8]:443").place.holds_address("fd00::1".parse().unwrap()));
        assert!(target("192.0.2.1:443").place.holds_address("192.0.2.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn addresses_lead_where_a_network_is_listed() {
        let forward = forward(&["10.0.0.0/8:443", "*.example.com:443"], None);
        assert!(leads(&forward, "10.1.2.3", 443).await);
        for (host, port) in [("10.1.2.3", 80), ("11.0.0.1", 443), ("[::1]", 443), ("127.0.0.1", 443)] {
            assert!(!leads(&forward, host, port).await, "{host}:{port}");
        }
        // Nobody is asked for these names.
        assert_eq!(forward.addresses("example.com", 80).await, Err(Reason::TargetRefused));
    }

    #[tokio::test]
    async fn an_http_uri_without_a_port_means_80() {
        let forward = forward(&["10.0.0.0/8:80", "10.0.0.0/8:8080"], None);
        for (authority, port) in [("10.0.0.1", 80), ("10.0.0.1:", 80), ("10.0.0.1:8080", 8080)] {
            assert_eq!(forward.find(authority).await.unwrap().0, [SocketAddr::from(([10, 0, 0, 1], port))]);
        }
        assert_eq!(forward.find("10.0.0.1:443").await, Err(Reason::TargetRefused));
        assert_eq!(forward.find("u@10.0.0.1").await, Err(Reason::BadHost));
    }

    #[tokio::test]
    async fn what_a_name_resolves_to_is_looked_at() {
        assert!(!leads(&forward(&["localhost:443"], None), "localhost", 443).await);
        assert!(leads(&forward(&["localhost:443"], Some(&[])), "localhost", 443).await);
        assert!(leads(&forward(&["127.0.0.0/8:443"], None), "localhost", 443).await);
        assert!(!leads(&forward(&["127.0.0.0/8:443"], Some(&["127.0.0.1"])), "127.0.0.1", 443).await);
        assert!(
            !leads(&forward(&["127.0.0.0/8:443"], Some(&["127.0.0.0/8"])), "[::ffff:127.0.0.1]", 443).await
        );
    }

    #[test]
    fn a_wildcard_is_of_what_stands_below() {
        let below = Place::Below(".example.com".into());
        assert!(below.holds_name("a.example.com") && below.holds_name("a.b.example.com"));
        assert!(!below.holds_name("example.com") && !below.holds_name("badexample.com"));
    }
}
