//! Discovery: where endpoints come from that no configuration lists. Each source is a `ServiceDiscovery` of
//! pingora-load-balancing; one task asks it again and again, for all upstreams that use it.
//!
//! What is found stays until a positive answer says otherwise: a failed or empty one changes nothing.

mod dns;
mod file;
mod name;
pub mod resolver;
mod source;
mod srv;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pingora::{
    Error, ErrorType,
    lb::{Backend, discovery::ServiceDiscovery},
    protocols::l4::socket::SocketAddr as PeerAddr,
};

pub use file::ReadEndpoints;
pub use resolver::Resolver;
pub use source::{Follower, Source, Task};

use crate::value::{Address, DnsName, HostPort};

/// What is asked for endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Definition {
    /// The A and AAAA records of a name.
    Dns(HostPort),
    /// SRV records, and the addresses of their targets.
    Srv(DnsName),
    /// A file, where it must lie within one of these directories if there are any.
    File { path: PathBuf, roots: Option<Arc<[PathBuf]>> },
}

/// A kind of discovery: what it found is told by `discover`, and how the last answer was by the remark.
pub trait Discovery: ServiceDiscovery + Send + Sync {
    fn remark(&self) -> Remark;
}

/// What is to be said of an answer beside what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remark {
    /// How long it holds, where that is known.
    pub ttl: Option<Duration>,
    /// What is wrong with a part of it.
    pub problem: Option<String>,
    /// How many addresses more it has than are taken.
    pub cut: usize,
}

/// What is known of a found endpoint beside its address and weight; it travels in [`Backend::ext`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The name that led to the address.
    pub host: Option<HostPort>,
    /// Lower ones are chosen first.
    pub priority: u16,
}

/// An endpoint that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEndpoint {
    pub address: Address,
    pub weight: u16,
    pub facts: Facts,
}

/// Addresses that are taken of one answer.
pub const MOST_ADDRESSES: usize = 1024;
/// The greatest weight of an endpoint.
pub const HEAVIEST: u16 = 1000;

// === impl Definition ===

impl Definition {
    /// Whether DNS is asked.
    pub fn is_name(&self) -> bool {
        matches!(self, Self::Dns(_) | Self::Srv(_))
    }
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns {name}"),
            Self::Srv(name) => write!(f, "srv {name}"),
            Self::File { path, .. } => write!(f, "file {}", path.display()),
        }
    }
}

// === impl FoundEndpoint ===

impl FoundEndpoint {
    /// As pingora-load-balancing has it.
    pub fn backend(self) -> Option<Backend> {
        let addr = match self.address {
            Address::Tcp(address) => PeerAddr::Inet(address),
            Address::Unix(path) => PeerAddr::Unix(std::os::unix::net::SocketAddr::from_pathname(path).ok()?),
        };
        let mut backend = Backend { addr, weight: self.weight.into(), ext: Default::default() };
        backend.ext.insert(self.facts);
        Some(backend)
    }

    /// The same read back.
    pub fn of(backend: &Backend) -> Option<Self> {
        let address = match &backend.addr {
            PeerAddr::Inet(address) => Address::Tcp(*address),
            PeerAddr::Unix(address) => Address::Unix(address.as_pathname()?.to_owned()),
        };
        let facts = backend.ext.get::<Facts>().cloned();
        let facts = facts.unwrap_or(Facts { host: None, priority: 0 });
        let weight = u16::try_from(backend.weight).unwrap_or(HEAVIEST).clamp(1, HEAVIEST);
        Some(Self { address, weight, facts })
    }
}

/// The remark on the last answer, as every kind of discovery keeps it.
#[derive(Default)]
struct LastRemark(Mutex<Remark>);

impl LastRemark {
    fn set(&self, remark: Remark) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = remark;
    }

    fn get(&self) -> Remark {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What `discover` gives: the endpoints that are taken, and how many are not. All are enabled.
fn answer(found: Vec<FoundEndpoint>) -> ((BTreeSet<Backend>, HashMap<u64, bool>), usize) {
    let cut = found.len().saturating_sub(MOST_ADDRESSES);
    let taken = found.into_iter().take(MOST_ADDRESSES).filter_map(FoundEndpoint::backend).collect();
    ((taken, HashMap::new()), cut)
}

fn failed(why: impl fmt::Display) -> Box<Error> {
    Error::explain(ErrorType::Custom("discovery failed"), why.to_string())
}

/// The words of an error that [`failed`] made.
fn cause(error: &Error) -> String {
    error.context.as_ref().map_or_else(|| error.to_string(), |context| context.as_str().to_owned())
}
