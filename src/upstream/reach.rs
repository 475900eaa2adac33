//! Which addresses an upstream may lead to. An address is checked where it becomes known: nothing is connected
//! to that is no [`Reachable`], and only [`Denied::admit`] makes one.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

use crate::value::{Address, Cidr};

/// Addresses that an upstream may not have: a network, or `unix:*` for every unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedAddress {
    Network(Cidr),
    Unix,
}

/// All that is denied to an upstream. By default nothing is.
#[derive(Clone, Debug, Default)]
pub struct Denied(Box<[DeniedAddress]>);

/// An address that may be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachable(Address);

crate::value::text_value!(
    DeniedAddress,
    "denied-address",
    "Addresses that may not be connected to: a network in CIDR notation, one address, or \"unix:*\".",
    "127.0.0.0/8",
    "unix:*"
);

// === impl Denied ===

impl Denied {
    pub fn new(denied: impl IntoIterator<Item = DeniedAddress>) -> Self {
        Self(denied.into_iter().collect())
    }

    /// The address, if it may be connected to; else what denies it.
    pub fn admit(&self, address: Address) -> Result<Reachable, DeniedAddress> {
        match self.0.iter().find(|denied| denied.holds(&address)) {
            Some(denied) => Err(*denied),
            None => Ok(Reachable(address)),
        }
    }
}

// === impl DeniedAddress ===

impl DeniedAddress {
    fn holds(&self, address: &Address) -> bool {
        match (self, address) {
            (Self::Unix, Address::Unix(_)) => true,
            (Self::Network(network), Address::Tcp(address)) => {
                meant(address.ip()).any(|ip| network.contains(ip))
            }
            _ => false,
        }
    }
}

/// What connecting to an address leads to: the unspecified ones lead to this machine.
fn meant(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let this_machine = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let unspecified = ip.to_canonical().is_unspecified();
    std::iter::once(ip).chain(this_machine.into_iter().filter(move |_| unspecified))
}

impl FromStr for DeniedAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unix:*" {
            return Ok(Self::Unix);
        }
        if text.starts_with("unix:") {
            return Err(format!("{text:?} denies one path only, which another leads to: unix:* denies all"));
        }
        let network: Cidr = text.parse()?;
        match network.0 {
            // Addresses are compared as the IPv4 ones that they are: such a network would hold none.
            IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.network().to_ipv4_mapped().is_some() => {
                Err(format!("{text} is a network of IPv4 addresses: write it as one, such as 127.0.0.0/8"))
            }
            _ => Ok(Self::Network(network)),
        }
    }
}

impl fmt::Display for DeniedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Unix => f.write_str("unix:*"),
        }
    }
}

// === impl Reachable ===

impl Reachable {
    pub fn address(&self) -> &Address {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_denied_is_no_endpoint_however_it_is_written() {
        let denied = ["127.0.0.0/8", "::1", "169.254.0.0/16", "unix:*"];
        let denied = Denied::new(denied.map(|text| text.parse().unwrap()));
        for address in [
            "127.0.0.1:80",
            "127.9.9.9:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "0.0.0.0:80",
            "[::]:80",
            "[::ffff:0.0.0.0]:80",
            "169.254.169.254:80",
            "unix:/run/x.sock",
        ] {
            assert!(denied.admit(address.parse().unwrap()).is_err(), "{address}");
        }
        for address in ["10.0.0.1:80", "[fd00::1]:80", "128.0.0.1:80"] {
            let address: Address = address.parse().unwrap();
            assert_eq!(denied.admit(address.clone()).unwrap().address(), &address);
        }
        assert!(Denied::default().admit("unix:/run/x".parse().unwrap()).is_ok());
    }

    #[test]
    fn what_would_deny_nothing_is_refused() {
        for text in ["unix:/run/x", "::ffff:127.0.0.0/104", "127.0.0.1/8", "localhost", ""] {
            assert!(text.parse::<DeniedAddress>().is_err(), "{text}");
        }
        assert_eq!("unix:*".parse::<DeniedAddress>().unwrap().to_string(), "unix:*");
    }
}
