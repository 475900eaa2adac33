//! Who may connect: limits of connections, counted for as long as each lasts.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{http::connection::Peer, snapshot::settings::Limits, telemetry::metrics::Limit};

/// The connections of a listener, counted in all and by address.
#[derive(Debug, Default)]
pub(super) struct Admission {
    total: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize, foldhash::fast::RandomState>>,
}

/// A connection's place in the counts, given back on drop.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
}

/// The limit that a connection met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the limit of connections is reached")]
    Connections,
    #[error("the limit of connections per address is reached")]
    PerAddress,
}

// === impl Admission ===

impl Admission {
    pub(super) fn connections(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Counts a connection, of whomever it is.
    pub(super) fn admit(self: &Arc<Self>, limits: &Limits) -> Result<Permit, Refused> {
        let before = self.total.fetch_add(1, Ordering::Relaxed);
        let permit = Permit { admission: self.clone(), address: None };
        match before >= limits.connections {
            true => Err(Refused::Connections),
            false => Ok(permit),
        }
    }

    fn admit_address(&self, address: IpAddr, limit: usize) -> Result<IpAddr, Refused> {
        let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        // An entry made just now is 0, and limits are at least 1: no entry of 0 stays.
        if *count >= limit {
            return Err(Refused::PerAddress);
        }
        *count += 1;
        Ok(address)
    }

    fn leave_address(&self, address: IpAddr) {
        let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

// === impl Refused ===

impl Refused {
    pub(super) fn limit(self) -> Limit {
        match self {
            Self::Connections => Limit::Connections,
            Self::PerAddress => Limit::PerAddress,
        }
    }
}

// === impl Permit ===

impl Permit {
    /// Counts the connection as one of this peer's.
    pub(super) fn count(&mut self, peer: Peer, limits: &Limits) -> Result<(), Refused> {
        if let (Some(limit), Peer::Tcp(_)) = (limits.connections_per_ip, peer) {
            self.address = Some(self.admission.admit_address(network(peer.ip()), limit)?);
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            self.admission.leave_address(address);
        }
    }
}

/// What counts as one address: an IPv6 client has at least a /64 to choose from (RFC 6177).
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::settings::Listener;

    fn admit(admission: &Arc<Admission>, peer: Peer, limits: &Limits) -> Result<Permit, Refused> {
        let mut permit = admission.admit(limits)?;
        permit.count(peer, limits)?;
        Ok(permit)
    }

    fn peer(text: &str) -> Peer {
        Peer::Tcp(text.parse().unwrap())
    }

    #[test]
    fn the_limit_of_connections_frees_up_as_they_end() {
        let admission = Arc::new(Admission::default());
        let limits = Limits { connections: 2, ..Listener::for_tests("web").limits };
        let first = admit(&admission, Peer::Unix, &limits).unwrap();
        let second = admit(&admission, Peer::Unix, &limits).unwrap();
        assert_eq!(admit(&admission, Peer::Unix, &limits).unwrap_err(), Refused::Connections);
        assert_eq!(admission.connections(), 2);
        drop(first);
        assert!(admit(&admission, Peer::Unix, &limits).is_ok());
        drop(second);
        assert_eq!(admission.connections(), 0);
    }

    #[test]
    fn addresses_are_counted_apart_and_an_ipv6_network_as_one() {
        let admission = Arc::new(Admission::default());
        let limits = Limits { connections_per_ip: Some(1), ..Listener::for_tests("web").limits };
        let held = admit(&admission, peer("[2001:db8::1]:1"), &limits).unwrap();
        let same_network = admit(&admission, peer("[2001:db8::2]:1"), &limits);
        assert_eq!(same_network.unwrap_err(), Refused::PerAddress);
        let _other = admit(&admission, peer("[2001:db8:0:1::1]:1"), &limits).unwrap();
        let _four = admit(&admission, peer("192.0.2.1:1"), &limits).unwrap();
        let mapped = admit(&admission, peer("[::ffff:192.0.2.1]:2"), &limits);
        assert_eq!(mapped.unwrap_err(), Refused::PerAddress);
        drop(held);
        assert!(admit(&admission, peer("[2001:db8::3]:1"), &limits).is_ok());
        assert_eq!(admission.by_address.lock().unwrap().len(), 2);
        assert_eq!(admission.connections(), 2);
    }
}
