//! The condition on the client's address: it lies in one of some networks.

use std::fmt;

use super::Facts;
use crate::value::Cidr;

/// The client lies in one of these networks.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientIp(pub Box<[Cidr]>);

impl ClientIp {
    pub fn holds(&self, facts: &impl Facts) -> bool {
        let ip = facts.client_ip();
        self.0.iter().any(|network| network.contains(ip))
    }

    /// Whether no address lies in both.
    pub fn excludes(&self, other: &Self) -> bool {
        // Networks overlap where one holds the other.
        let apart = |a: &Cidr, b: &Cidr| !a.0.contains(&b.0) && !b.0.contains(&a.0);
        self.0.iter().all(|a| other.0.iter().all(|b| apart(a, b)))
    }

    /// Whether every address of the other lies in this one.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|inner| self.0.iter().any(|outer| outer.0.contains(&inner.0)))
    }
}

impl fmt::Display for ClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("client_ip is in ")?;
        for (place, network) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}
