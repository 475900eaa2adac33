//! Addresses: where to listen, where to connect, which clients are meant.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use ipnet::IpNet;

/// Where to listen: `":80"` (dual stack), `"127.0.0.1:80"`, `"[::1]:80"`, `"unix:/run/x.sock"`. Port 0 picks a free one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bind {
    /// Every address of both families.
    Any(u16),
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Where to connect: `10.0.0.1:8080`, `[::1]:80`, `unix:/run/app.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A network, `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(pub IpNet);

super::text_value!(
    Bind,
    "bind",
    "An address to listen on: \":PORT\" for every address, \"IP:PORT\", or \"unix:PATH\".",
    ":80",
    "127.0.0.1:8080",
    "unix:/run/portolan/web.sock"
);
super::text_value!(
    Address,
    "address",
    "An address to connect to: \"IP:PORT\" or \"unix:PATH\".",
    "10.0.0.1:8080",
    "unix:/run/app.sock"
);
super::text_value!(Cidr, "cidr", "A network in CIDR notation, or one address.", "10.0.0.0/8", "::1");

// === impl Bind ===

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map(Self::Unix);
        }
        if let Some(port) = text.strip_prefix(':') {
            return port.parse().map(Self::Any).map_err(|_| format!("{port:?} is no port from 0 to 65535"));
        }
        text.parse().map(Self::Tcp).map_err(|_| match text.parse::<IpAddr>() {
            Ok(ip) => format!("{text} has no port: {} for example", SocketAddr::new(ip, 80)),
            Err(_) => format!("{text:?} is no address to listen on: \":80\", \"127.0.0.1:80\", \"[::1]:80\" or \"unix:/path\""),
        })
    }
}

impl Bind {
    /// The socket address to bind; an [`Bind::Any`] is the unspecified IPv6 address, dual stack.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Any(port) => Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), *port)),
            Self::Tcp(addr) => Some(*addr),
            Self::Unix(_) => None,
        }
    }

    /// Whether nobody outside this machine reaches it.
    pub fn is_of_this_machine(&self) -> bool {
        self.socket_addr().is_none_or(|address| address.ip().to_canonical().is_loopback())
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(port) => write!(f, ":{port}"),
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl Address ===

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map(Self::Unix);
        }
        match text.parse::<SocketAddr>() {
            Ok(addr) if addr.port() == 0 => {
                Err(format!("{text} has port 0, which nothing can be reached by"))
            }
            Ok(addr) => Ok(Self::Tcp(addr)),
            Err(_) => Err(format!("{text:?} is no address: IP:PORT, [IPv6]:PORT or unix:PATH")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl Cidr ===

impl Cidr {
    /// Whether the address lies in this network; an IPv4-mapped IPv6 address counts as the IPv4 one.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let net = net.map_err(|_| format!("{text:?} is no network: 10.0.0.0/8, fd00::/8 or one address"))?;
        match net.addr() == net.network() {
            true => Ok(Self(net)),
            false => Err(format!("{text} has bits set past its prefix: {} is the network", net.trunc())),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn unix(path: &str) -> Result<PathBuf, String> {
    match path {
        "" => Err("a path follows unix:".into()),
        path => fits_a_socket(path.as_ref()).map(|()| path.into()),
    }
}

/// Whether a unix socket can have this path.
pub fn fits_a_socket(path: &Path) -> Result<(), String> {
    // sun_path holds 108 bytes and ends with a NUL.
    match path.as_os_str().len() {
        ..=107 => Ok(()),
        long => Err(format!("a unix socket's path has at most 107 bytes, this one {long}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_read() {
        assert_eq!(":80".parse::<Bind>().unwrap(), Bind::Any(80));
        assert!(matches!("[::1]:0".parse(), Ok(Bind::Tcp(_))));
        assert!(matches!("unix:/run/x".parse(), Ok(Bind::Unix(_))));
        for wrong in ["", "80", "127.0.0.1", ":x", ":65536", "unix:", "localhost:80"] {
            assert!(wrong.parse::<Bind>().is_err(), "{wrong:?} was read");
        }
    }

    #[test]
    fn networks_are_read_and_hold_mapped_addresses() {
        let net: Cidr = "10.0.0.0/8".parse().unwrap();
        assert!(net.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!net.contains("11.0.0.1".parse().unwrap()));
        assert!("10.0.0.1/8".parse::<Cidr>().is_err());
    }
}
