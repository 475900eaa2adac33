//! What is known of a connection, shared by its requests.

use std::{
    any::Any,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{sync::watch, time::Instant};

use super::{alt_svc::AltSvc, connection_auth::Reservations, forwarded::Hop};
use crate::value::{Bind, Name, Subject};

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    pub listener: Name,
    pub peer: Peer,
    /// The peer as upstreams are told of it.
    pub hop: Hop,
    /// The address that it came in by.
    pub local: Bind,
    pub protocol: Protocol,
    pub tls: Option<Tls>,
    /// What responses say of HTTP/3, where they may.
    pub alt_svc: Option<AltSvc>,
    /// Turns true when the connection shall end: no further request, what is in flight finishes.
    pub draining: watch::Receiver<bool>,
    /// Says, shortly before the connection is cut, until when tunnels are to have taken their leave.
    pub leaving: watch::Receiver<Option<Instant>>,
    pub kept: Kept,
    /// The upstream connections that serve this one alone.
    pub reservations: Reservations,
}

/// What parts of chains keep for as long as a connection lives.
#[derive(Default)]
pub struct Kept(Mutex<Vec<Arc<dyn Any + Send + Sync>>>);

/// Who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    Unix,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http1,
    Http2,
    Http3,
}

/// What the handshake settled.
#[derive(Clone, Debug)]
pub struct Tls {
    pub version: &'static str,
    pub cipher: String,
    pub sni: Option<String>,
    /// How it asked for the client's certificate.
    pub rules: ClientRules,
    /// Whether what comes now may be a replay of what somebody else has seen.
    pub early: Early,
    pub client: Option<Arc<ClientCertificate>>,
}

/// How a handshake asks for the client's certificate: equal where the same is asked, the default where nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientRules(Option<[u8; 32]>);

/// A verified client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    pub subject: Subject,
    pub issuer: Subject,
    pub serial: String,
    /// SHA-256 of the certificate, lower-case hex.
    pub fingerprint: String,
    pub sans: AlternativeNames,
}

/// The other names of whom a certificate is of (RFC 5280 section 4.2.1.6), as they stand in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    pub dns: Vec<String>,
    pub uri: Vec<String>,
    pub email: Vec<String>,
}

/// Early data (RFC 8446 section 2.3): until the handshake is over, what comes may be sent again by whoever saw it, and a
/// request of it is done in a way that bears it (RFC 8470). Known to all who hold the connection; nothing where nothing
/// came early.
#[derive(Clone, Debug, Default)]
pub struct Early(Option<Arc<AtomicBool>>);

impl Early {
    /// Early data comes, until [`Early::end`].
    pub fn begun() -> Self {
        Self(Some(Arc::new(AtomicBool::new(true))))
    }

    /// The handshake is over: no replay has come so far.
    pub fn end(&self) {
        if let Some(early) = &self.0 {
            early.store(false, Ordering::Release);
        }
    }

    fn is_now(&self) -> bool {
        self.0.as_ref().is_some_and(|early| early.load(Ordering::Acquire))
    }
}

impl ClientRules {
    /// The rules that have this digest.
    pub fn of(digest: [u8; 32]) -> Self {
        Self(Some(digest))
    }
}

impl Kept {
    /// What of this type `is_it` says it is; what `make` makes, where there is none.
    pub fn find_or<T: Send + Sync + 'static>(
        &self,
        is_it: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_type = kept.iter().filter_map(|kept| kept.clone().downcast().ok());
        if let Some(found) = of_type.into_iter().find(|kept: &Arc<T>| is_it(kept)) {
            return found;
        }
        let made = Arc::new(make());
        kept.push(made.clone());
        made
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Connection {
    /// What comes from now on is no early data.
    pub fn handshake_ended(&self) {
        if let Some(tls) = &self.tls {
            tls.early.end();
        }
    }

    /// Whether a request that comes now may be a replay.
    pub fn is_early(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.early.is_now())
    }
}

impl Peer {
    /// The peer's address; a unix socket's peer counts as 127.0.0.1.
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::Tcp(addr) => addr.ip().to_canonical(),
            Self::Unix => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp(addr) => addr.port(),
            Self::Unix => 0,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix => f.write_str("unix:"),
        }
    }
}
