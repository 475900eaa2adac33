//! What is known of a connection, shared by its requests.

use std::{
    any::Any,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::{alt_svc::AltSvc, forwarded::Hop};
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
    pub kept: Kept,
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
    pub client: Option<Arc<ClientCertificate>>,
}

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
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
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
