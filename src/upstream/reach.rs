//! Which addresses an upstream or a forward target may lead to. An address is checked where it becomes known, and for
//! delegated files again at each connect: nothing is connected to that is no [`Reachable`], and only [`Denied::admit`]
//! makes one.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, OnceLock},
};

use ipnet::IpNet;

use crate::value::{Address, Bind, Cidr};

/// Addresses as `deny_upstreams`, `allow_upstreams` and `deny` list them: a network, or `unix:*` for every unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedAddress {
    Network(Cidr),
    Unix,
}

/// All that is denied to an upstream or a forward target. By default nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied(Option<Arc<Rules>>);

/// Rules in the order in which they are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rules {
    /// Where the process is administered, where that is denied.
    admin: Option<AdminAddresses>,
    /// What the operator lists.
    listed: Box<[DeniedAddress]>,
    /// What a delegated file is denied besides.
    delegated: Option<Delegated>,
}

/// What is denied to every delegated file: link-local addresses always, loopback and unix sockets unless allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Delegated {
    allowed: Box<[DeniedAddress]>,
}

/// Why an address may not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The process is administered there.
    Admin,
    /// The operator lists it.
    Listed(DeniedAddress),
    /// Always denied to delegated files.
    LinkLocal(DeniedAddress),
    /// Denied to delegated files unless allowed.
    Local(DeniedAddress),
}

/// Where the admin API of a process listens. One per process; clones share what becomes known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminAddresses {
    /// What the configuration says, which holds after the next start.
    configured: Option<Bind>,
    known: Arc<Known>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    /// Where it listens now.
    live: OnceLock<Bind>,
    /// Where it listens if the configuration does not say.
    usual: OnceLock<Vec<PathBuf>>,
}

/// An address that may be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachable {
    address: Address,
    /// What is asked again at each connect, for a delegated file.
    guard: Option<Denied>,
}

const LINK_LOCAL: [&str; 2] = ["169.254.0.0/16", "fe80::/10"];
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1"];

crate::value::text_value!(
    DeniedAddress,
    "denied-address",
    "Addresses to connect to: a network in CIDR notation, one address, or \"unix:*\" for all unix sockets.",
    "127.0.0.0/8",
    "unix:*"
);

// === impl Denied ===

impl Denied {
    /// Only what is listed.
    pub fn new(listed: impl IntoIterator<Item = DeniedAddress>) -> Self {
        Self::of(Rules { listed: listed.into_iter().collect(), ..Rules::default() })
    }

    /// What a delegated file is denied: what is listed, the admin API, link-local addresses, and loopback and unix sockets
    /// unless allowed.
    pub fn delegated(
        listed: impl IntoIterator<Item = DeniedAddress>,
        allowed: impl IntoIterator<Item = DeniedAddress>,
    ) -> Self {
        let delegated = Some(Delegated { allowed: allowed.into_iter().collect() });
        Self::of(Rules { listed: listed.into_iter().collect(), delegated, admin: None })
    }

    /// The same, and the addresses of the admin API.
    #[must_use]
    pub fn and_admin(&self, admin: &AdminAddresses) -> Self {
        let rules = self.0.as_deref().cloned().unwrap_or_default();
        Self::of(Rules { admin: Some(admin.clone()), ..rules })
    }

    fn of(rules: Rules) -> Self {
        Self(Some(Arc::new(rules)))
    }

    /// The address, if it may be connected to; else what denies it.
    pub fn admit(&self, address: Address) -> Result<Reachable, Denial> {
        self.check(&address)?;
        let guard = self.0.as_ref().filter(|rules| rules.delegated.is_some()).map(|_| self.clone());
        Ok(Reachable { address, guard })
    }

    /// Whether the address may be connected to now.
    pub fn check(&self, address: &Address) -> Result<(), Denial> {
        match &self.0 {
            Some(rules) => rules.check(address),
            None => Ok(()),
        }
    }

    /// Whether a unix socket that was opened may be connected to: by whatever path it was reached.
    pub(super) fn check_socket(&self, found: &fs::Metadata) -> Result<(), Denial> {
        let admin = self.0.as_ref().and_then(|rules| rules.admin.as_ref());
        match admin.is_some_and(|admin| admin.sockets().any(|path| is_file(path, found))) {
            true => Err(Denial::Admin),
            false => Ok(()),
        }
    }
}

impl Rules {
    fn check(&self, address: &Address) -> Result<(), Denial> {
        if self.admin.as_ref().is_some_and(|admin| admin.are_reached_by(address)) {
            return Err(Denial::Admin);
        }
        if let Some(rule) = self.listed.iter().find(|rule| rule.holds(address)) {
            return Err(Denial::Listed(*rule));
        }
        self.delegated.as_ref().map_or(Ok(()), |delegated| delegated.check(address))
    }
}

impl Delegated {
    fn check(&self, address: &Address) -> Result<(), Denial> {
        let address = match address {
            Address::Unix(_) if self.allowed.contains(&DeniedAddress::Unix) => return Ok(()),
            Address::Unix(_) => return Err(Denial::Local(DeniedAddress::Unix)),
            Address::Tcp(address) => address,
        };
        if let Some(rule) = networks(LINK_LOCAL).find(|rule| rule.contains(address.ip())) {
            return Err(Denial::LinkLocal(DeniedAddress::Network(rule)));
        }
        let is_allowed = |ip: IpAddr| self.allowed.iter().any(|allowed| allowed.contains(ip));
        let denied = meant(address.ip())
            .filter(|ip| !is_allowed(*ip))
            .find_map(|ip| networks(LOOPBACK).find(|rule| rule.contains(ip)));
        denied.map_or(Ok(()), |rule| Err(Denial::Local(DeniedAddress::Network(rule))))
    }
}

fn networks(texts: [&'static str; 2]) -> impl Iterator<Item = Cidr> {
    texts.into_iter().map(|text| text.parse().expect("each constant is a network"))
}

// === impl DeniedAddress ===

impl DeniedAddress {
    fn holds(&self, address: &Address) -> bool {
        match (self, address) {
            (Self::Unix, Address::Unix(_)) => true,
            (Self::Network(network), Address::Tcp(address)) => {
                // The unspecified addresses are looked at as themselves, and as what they lead to.
                network.contains(address.ip()) || both(address.ip()).any(|ip| network.contains(ip))
            }
            _ => false,
        }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        matches!(self, Self::Network(network) if network.contains(ip))
    }

    /// Whether allowing it to a delegated file changes anything: it overlaps what is denied by default.
    pub fn can_be_allowed(&self) -> bool {
        let overlaps = |one: &IpNet, other: &IpNet| one.contains(other) || other.contains(one);
        match self {
            Self::Unix => true,
            Self::Network(network) => networks(LOOPBACK).any(|local| overlaps(&network.0, &local.0)),
        }
    }
}

/// What connecting to an address leads to: the unspecified ones lead to this machine.
fn meant(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let own = (!ip.to_canonical().is_unspecified()).then_some(ip);
    own.into_iter().chain(both(ip))
}

/// The loopback addresses of both families, for an unspecified address.
fn both(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let this_machine = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let unspecified = ip.to_canonical().is_unspecified();
    this_machine.into_iter().filter(move |_| unspecified)
}

impl FromStr for DeniedAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unix:*" {
            return Ok(Self::Unix);
        }
        if text.starts_with("unix:") {
            return Err(format!(
                "{text:?} is one path, and another can lead to the same socket: write unix:* for all"
            ));
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
            Self::Network(Cidr(one)) if one.prefix_len() == one.max_prefix_len() => one.addr().fmt(f),
            Self::Network(network) => network.fmt(f),
            Self::Unix => f.write_str("unix:*"),
        }
    }
}

// === impl Denial ===

impl Denial {
    /// What the operator can do about an address, where something can be done: allow it, and nothing beside it.
    pub fn help(&self, address: &Address) -> Option<String> {
        let Self::Local(rule) = self else { return None };
        let allowed = match address {
            Address::Tcp(address) if !address.ip().to_canonical().is_unspecified() => {
                address.ip().to_canonical().to_string()
            }
            Address::Tcp(_) | Address::Unix(_) => rule.to_string(),
        };
        Some(format!("the operator can allow it in the include: allow_upstreams: [\"{allowed}\"]"))
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("the admin API listens there"),
            Self::Listed(rule) => write!(f, "deny_upstreams has {rule}"),
            Self::LinkLocal(rule) => {
                write!(f, "link-local addresses ({rule}) are always denied to delegated files")
            }
            Self::Local(rule) => write!(f, "{rule} is denied to delegated files by default"),
        }
    }
}

// === impl AdminAddresses ===

impl AdminAddresses {
    /// The same, and what a configuration says.
    #[must_use]
    pub fn and(&self, configured: Option<&Bind>) -> Self {
        Self { configured: configured.cloned(), known: self.known.clone() }
    }

    /// The admin API listens here, for as long as the process runs.
    pub fn listens_at(&self, bind: &Bind) {
        let _ = self.known.live.set(bind.clone());
    }

    /// Where admin sockets lie by default.
    pub fn usual(&self, paths: impl FnOnce() -> Vec<PathBuf>) {
        self.known.usual.get_or_init(paths);
    }

    fn binds(&self) -> impl Iterator<Item = &Bind> {
        self.configured.iter().chain(self.known.live.get())
    }

    fn sockets(&self) -> impl Iterator<Item = &Path> {
        let bound = self.binds().filter_map(|bind| match bind {
            Bind::Unix(path) => Some(&**path),
            Bind::Any(_) | Bind::Tcp(_) => None,
        });
        bound.chain(self.known.usual.get().into_iter().flatten().map(|path| &**path))
    }

    fn are_reached_by(&self, address: &Address) -> bool {
        match address {
            Address::Tcp(address) => self.binds().any(|bind| leads_to(*address, bind)),
            Address::Unix(path) => {
                let found = fs::metadata(path).ok();
                self.sockets()
                    .any(|own| own == path || found.as_ref().is_some_and(|found| is_file(own, found)))
            }
        }
    }
}

fn leads_to(address: SocketAddr, bind: &Bind) -> bool {
    let Some(bound) = bind.socket_addr().filter(|bound| bound.port() == address.port()) else { return false };
    match bound.ip().to_canonical() {
        every if every.is_unspecified() => meant(address.ip()).any(is_of_this_machine),
        one => meant(address.ip()).any(|ip| ip.to_canonical() == one),
    }
}

/// Whether this machine has the address: only then a socket can be bound to it.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

fn is_file(path: &Path, found: &fs::Metadata) -> bool {
    fs::metadata(path).is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
}

// === impl Reachable ===

impl Reachable {
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What has to be asked again at each connect.
    pub(super) fn guard(&self) -> Option<&Denied> {
        self.guard.as_ref()
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

    #[test]
    fn delegated_files_are_denied_this_machine_unless_it_is_allowed() {
        let allowing =
            |allowed: &[&str]| Denied::delegated([], allowed.iter().map(|text| text.parse().unwrap()));
        let admits = |denied: &Denied, address: &str| denied.admit(address.parse().unwrap()).is_ok();
        let local =
            ["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "0.0.0.0:80", "[::]:80", "unix:/run/x"];
        for address in local {
            assert!(!admits(&allowing(&[]), address), "{address}");
            assert!(admits(&allowing(&["127.0.0.0/8", "::1", "unix:*"]), address), "{address}");
        }
        assert!(admits(&allowing(&["127.0.0.1"]), "127.0.0.1:80"));
        assert!(!admits(&allowing(&["127.0.0.1"]), "127.0.0.2:80"));
        assert!(!admits(&allowing(&["127.0.0.1"]), "[::]:80"), "it may lead to ::1");
        for address in ["169.254.169.254:80", "[fe80::1]:80", "[::ffff:169.254.169.254]:80"] {
            assert!(!admits(&allowing(&["0.0.0.0/0", "::/0"]), address), "{address}");
        }
        assert!(admits(&allowing(&[]), "10.0.0.1:80"));
        let listed = Denied::delegated(["127.0.0.1".parse().unwrap()], ["127.0.0.0/8".parse().unwrap()]);
        assert!(!admits(&listed, "127.0.0.1:80") && admits(&listed, "127.0.0.2:80"));
        for (text, can) in [("unix:*", true), ("127.0.0.9", true), ("::/0", true), ("10.0.0.0/8", false)] {
            assert_eq!(text.parse::<DeniedAddress>().unwrap().can_be_allowed(), can, "{text}");
        }
    }

    #[test]
    fn the_admin_api_is_denied_wherever_it_is_reached() {
        let all = ["127.0.0.0/8", "::1", "unix:*"].map(|text| text.parse().unwrap());
        let denies = |bind: &str, address: &str| {
            let admin = AdminAddresses::default().and(Some(&bind.parse().unwrap()));
            let denied = Denied::delegated([], all).and_admin(&admin);
            denied.admit(address.parse().unwrap()) == Err(Denial::Admin)
        };
        for (bind, address) in [
            ("127.0.0.1:9901", "127.0.0.1:9901"),
            ("127.0.0.1:9901", "0.0.0.0:9901"),
            ("127.0.0.1:9901", "[::ffff:127.0.0.1]:9901"),
            ("[::1]:9901", "[::]:9901"),
            ("0.0.0.0:9901", "127.0.0.7:9901"),
            (":9901", "[::1]:9901"),
            ("unix:/run/admin.sock", "unix:/run/admin.sock"),
        ] {
            assert!(denies(bind, address), "{bind} by {address}");
        }
        for (bind, address) in [
            ("127.0.0.1:9901", "127.0.0.1:9902"),
            ("127.0.0.1:9901", "127.0.0.2:9901"),
            ("0.0.0.0:9901", "192.0.2.1:9901"),
            ("unix:/run/admin.sock", "unix:/run/app.sock"),
        ] {
            assert!(!denies(bind, address), "{bind} by {address}");
        }
    }

    #[test]
    fn what_becomes_known_of_the_admin_api_holds_for_what_was_compiled_before() {
        let admin = AdminAddresses::default();
        let denied = Denied::default().and_admin(&admin.and(None));
        let address: Address = "127.0.0.1:40001".parse().unwrap();
        assert!(denied.check(&address).is_ok());
        admin.listens_at(&"127.0.0.1:40001".parse().unwrap());
        assert_eq!(denied.check(&address), Err(Denial::Admin));
        admin.usual(|| vec!["/run/portolan/admin.sock".into()]);
        assert_eq!(denied.check(&"unix:/run/portolan/admin.sock".parse().unwrap()), Err(Denial::Admin));
    }
}
