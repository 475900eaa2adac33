//! Names that DNS is asked for, and the servers that are asked.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

/// A DNS name in small letters: `app`, `api.internal`, `_http._tcp.api.internal`. With a dot at its end it is absolute: no
/// search domain is added.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(Arc<str>);

/// A DNS name with a port: `app:3000`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    pub host: DnsName,
    pub port: u16,
}

/// A DNS server: `127.0.0.1:53`, or `127.0.0.1` for port 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameServer(pub SocketAddr);

super::text_value!(DnsName, "dns-name", "A DNS name.", "api.internal", "_http._tcp.api.internal");
super::text_value!(HostPort, "host-port", "A DNS name with a port.", "app:3000", "api.internal:8080");
super::text_value!(
    NameServer,
    "name-server",
    "The address of a DNS server. The default port is 53.",
    "127.0.0.1",
    "[::1]:5353"
);

const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;
const DNS_PORT: u16 = 53;

// === impl DnsName ===

impl DnsName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the dot at its end, as TLS and Host name it.
    pub fn without_root(&self) -> &str {
        self.0.strip_suffix('.').unwrap_or(&self.0)
    }
}

impl FromStr for DnsName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("invalid DNS name {text:?}: {why}"));
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return wrong("it is empty");
        }
        if !name.is_ascii() {
            return wrong("write an internationalized name in its ASCII form, which begins with xn--");
        }
        if name.len() > LONGEST_NAME {
            return wrong("it is longer than 253 characters");
        }
        for label in name.split('.') {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if label.is_empty() || label.len() > LONGEST_LABEL {
                return wrong("between its dots stand 1 to 63 characters");
            }
            if !label.bytes().all(is_plain) || label.starts_with('-') || label.ends_with('-') {
                return wrong("it consists of letters, digits, \"-\" and \"_\", with dots between them");
            }
        }
        // Such a name would be an address that is written wrongly (RFC 3696 section 2).
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return wrong("it does not end in a number");
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl HostPort ===

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!("{text:?} has no port: write {text}:80 for example"));
        };
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let number = port.parse().ok().filter(|port| digits && *port != 0);
        let port = number.ok_or_else(|| format!("{port:?} is not a port from 1 to 65535"))?;
        Ok(Self { host: host.parse()?, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

// === impl NameServer ===

impl FromStr for NameServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let with_port = text.parse::<SocketAddr>();
        let address = with_port.or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, DNS_PORT)));
        match address {
            Ok(address) if address.port() != 0 => Ok(Self(address)),
            _ => Err(format!("invalid DNS server {text:?}: expected IP, IP:PORT or [IPv6]:PORT")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        for name in [
            "app",
            "API.internal",
            "_http._tcp.api.internal",
            "a-b.c",
            "1.example",
            "xn--bcher-kva.example.",
            "a",
        ] {
            assert_eq!(name.parse::<DnsName>().unwrap().as_str(), name.to_ascii_lowercase());
        }
        let long = "a".repeat(64);
        for wrong in
            ["", ".", "..", "a..b", ".a", "-a", "a-", "a b", "bücher", "10.0.0.1", "a.1", "a/b", "a:b", &long]
        {
            assert!(wrong.parse::<DnsName>().is_err(), "{wrong:?}");
        }
        assert!(["abc"; 64].join(".").parse::<DnsName>().is_err());
        assert_eq!("App.".parse::<DnsName>().unwrap().without_root(), "app");
    }

    #[test]
    fn ports_and_servers_are_read() {
        let app: HostPort = "app:3000".parse().unwrap();
        assert_eq!((app.host.as_str(), app.port), ("app", 3000));
        for wrong in ["app", "app:", "app:0", "app:+1", "app:65536", ":80", "1.2.3.4:80", "[::1]:80"] {
            assert!(wrong.parse::<HostPort>().is_err(), "{wrong:?}");
        }
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1:53"),
            ("::1", "[::1]:53"),
            ("[::1]:5353", "[::1]:5353"),
            ("1.1.1.1:54", "1.1.1.1:54"),
        ] {
            assert_eq!(text.parse::<NameServer>().unwrap().0.to_string(), address);
        }
        assert!("dns.example".parse::<NameServer>().is_err() && "1.1.1.1:0".parse::<NameServer>().is_err());
    }
}
