//! The PROXY protocol towards endpoints: every connection begins with the header that says whose it is, and then carries that
//! client's requests only.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use async_trait::async_trait;
use pingora::{
    Error, ErrorType,
    connectors::L4Connect,
    protocols::l4::{socket::SocketAddr as PeerAddr, stream::Stream},
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use super::{config::ProxyProtocol, key};

/// Both ends of a client's connection, as an endpoint is told of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    source: SocketAddr,
    destination: SocketAddr,
}

/// Connects and says whose connection it is: our own, where it is no client's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announcing {
    pub version: ProxyProtocol,
    pub client: Option<Client>,
}

// === impl Client ===

impl Client {
    /// Addresses of two families are told as two of IPv6 (RFC 4291 section 2.5.5.2).
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (source, destination) = (canonical(source), canonical(destination));
        match source.is_ipv4() == destination.is_ipv4() {
            true => Self { source, destination },
            false => Self { source: six(source), destination: six(destination) },
        }
    }

    /// Connections of different clients never mix: what keeps a pool's apart.
    pub(super) fn group(&self, identity: u64) -> u64 {
        let mut bytes = octets(self.source.ip());
        bytes.extend(self.source.port().to_be_bytes());
        bytes.extend(octets(self.destination.ip()));
        key::mix(identity ^ key::hash(&bytes))
    }
}

fn six(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), address.port())
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

// === impl Announcing ===

impl Announcing {
    fn header(&self) -> Vec<u8> {
        match self.version {
            ProxyProtocol::V1 => self.line().into_bytes(),
            ProxyProtocol::V2 => self.binary(),
        }
    }

    fn line(&self) -> String {
        let Some(Client { source, destination }) = self.client else { return "PROXY UNKNOWN\r\n".into() };
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (source.port(), destination.port());
        format!("PROXY {family} {} {} {from} {to}\r\n", source.ip(), destination.ip())
    }

    fn binary(&self) -> Vec<u8> {
        const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
        const LOCAL: [u8; 4] = [0x20, 0, 0, 0];
        let mut header = SIGNATURE.to_vec();
        let Some(Client { source, destination }) = self.client else {
            header.extend(LOCAL);
            return header;
        };
        let (family, length) = if source.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
        header.extend([0x21, family, 0, length]);
        header.extend(octets(source.ip()));
        header.extend(octets(destination.ip()));
        header.extend(source.port().to_be_bytes());
        header.extend(destination.port().to_be_bytes());
        header
    }
}

/// Connects, and says whose connection it is, where that is asked for.
pub(super) async fn connect(address: &PeerAddr, announcing: Option<&Announcing>) -> io::Result<Stream> {
    match address {
        PeerAddr::Inet(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            begin(stream, announcing).await
        }
        PeerAddr::Unix(address) => {
            let path = address.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
            begin(UnixStream::connect(path).await?, announcing).await
        }
    }
}

async fn begin(
    mut stream: impl AsyncWrite + Unpin + Into<Stream>,
    announcing: Option<&Announcing>,
) -> io::Result<Stream> {
    if let Some(announcing) = announcing {
        stream.write_all(&announcing.header()).await?;
    }
    Ok(stream.into())
}

/// The error of a connection that Pingora has us make.
pub(super) fn failure(what: &'static str, error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        _ => ErrorType::ConnectError,
    };
    Error::because(kind, what, error)
}

#[async_trait]
impl L4Connect for Announcing {
    async fn connect(&self, address: &PeerAddr) -> pingora::Result<Stream> {
        let connected = connect(address, Some(self)).await;
        connected.map_err(|error| failure("the connection that is to begin with a PROXY header", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcing(version: ProxyProtocol, source: &str, destination: &str) -> Announcing {
        let client = Client::new(source.parse().unwrap(), destination.parse().unwrap());
        Announcing { version, client: Some(client) }
    }

    #[test]
    fn a_line_says_whose_the_connection_is() {
        let line = |source, destination| announcing(ProxyProtocol::V1, source, destination).line();
        assert_eq!(
            line("192.0.2.7:4000", "198.51.100.1:443"),
            "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n"
        );
        assert_eq!(line("[2001:db8::7]:1", "[::]:443"), "PROXY TCP6 2001:db8::7 :: 1 443\r\n");
        assert_eq!(line("[2001:db8::7]:1", "1.2.3.4:443"), "PROXY TCP6 2001:db8::7 ::ffff:1.2.3.4 1 443\r\n");
        assert_eq!(line("[::ffff:1.2.3.4]:1", "1.2.3.4:2"), "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n");
        assert_eq!(Announcing { version: ProxyProtocol::V1, client: None }.line(), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn a_binary_header_says_the_same() {
        let four = announcing(ProxyProtocol::V2, "192.0.2.7:4000", "198.51.100.1:443").header();
        assert_eq!(four[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(four[16..], [192, 0, 2, 7, 198, 51, 100, 1, 0x0f, 0xa0, 0x01, 0xbb]);
        let six = announcing(ProxyProtocol::V2, "[::1]:1", "[::2]:2").header();
        assert_eq!((six[12..16].to_vec(), six.len()), (vec![0x21, 0x21, 0, 36], 52));
        let own = Announcing { version: ProxyProtocol::V2, client: None }.header();
        assert_eq!(own[12..], [0x20, 0, 0, 0]);
    }

    #[test]
    fn clients_are_kept_apart() {
        let group = |source| announcing(ProxyProtocol::V2, source, "1.2.3.4:80").client.unwrap().group(7);
        assert_eq!(group("192.0.2.7:1"), group("192.0.2.7:1"));
        assert_ne!(group("192.0.2.7:1"), group("192.0.2.7:2"));
        assert_ne!(group("192.0.2.7:1"), group("192.0.2.8:1"));
    }
}
