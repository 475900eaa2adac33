//! The addresses of a name, followed as they change: what a failed or empty answer says nothing about stays.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::resolver::{Addresses, Found, NotFound, Resolver};
use crate::value::DnsName;

/// A name, and the addresses that it had last.
pub struct Followed {
    name: DnsName,
    known: Mutex<Known>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
}

/// The addresses of a name at the moment, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub addresses: Vec<IpAddr>,
    pub ttl: Duration,
    /// What was not answered, where that was a part.
    pub unanswered: Option<String>,
}

// === impl Followed ===

impl Followed {
    pub fn new(name: DnsName) -> Self {
        Self { name, known: Mutex::default() }
    }

    /// Asks again. An error where no answer has any address: then what was known stays known.
    pub async fn resolve(&self, resolver: &Resolver) -> Result<Resolved, NotFound> {
        let answer = resolver.addresses(&self.name).await;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).take(answer)
    }

    /// What was known last.
    pub fn known(&self) -> Vec<IpAddr> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.v4.iter().chain(&known.v6).copied().collect()
    }
}

// === impl Known ===

impl Known {
    fn take(&mut self, answer: Addresses) -> Result<Resolved, NotFound> {
        let mut ttl = None;
        let mut unanswered = None;
        let mut reason = NotFound::NoName;
        let is_found = answer.v4.is_ok() || answer.v6.is_ok();
        for (family, found) in [("A", answer.v4), ("AAAA", answer.v6)] {
            let known = if family == "A" { &mut self.v4 } else { &mut self.v6 };
            match found {
                Ok(Found { mut records, ttl: own }) => {
                    records.sort_unstable();
                    records.dedup();
                    *known = records;
                    ttl = Some(ttl.map_or(own, |ttl: Duration| ttl.min(own)));
                }
                // Only beside addresses of the other family it is certain that the name has none of this one any more.
                Err(NotFound::NoName | NotFound::NoRecords) if is_found => known.clear(),
                Err(NotFound::Unanswered(error)) => {
                    unanswered = Some(format!("{family} records: {error}"));
                    reason = NotFound::Unanswered(error);
                }
                Err(negative) if !matches!(reason, NotFound::Unanswered(_)) => reason = negative,
                Err(_) => {}
            }
        }
        let Some(ttl) = ttl else { return Err(reason) };
        Ok(Resolved { addresses: self.v4.iter().chain(&self.v6).copied().collect(), ttl, unanswered })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str], ttl: u64) -> Result<Found<IpAddr>, NotFound> {
        let records = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Ok(Found { records, ttl: Duration::from_secs(ttl) })
    }

    fn shown(resolved: &Resolved) -> Vec<String> {
        resolved.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_go_on_a_positive_answer_alone() {
        let failed = || Err(NotFound::Unanswered("server failure".into()));
        let none = || Err(NotFound::NoRecords);
        let gone = || Err(NotFound::NoName);
        let mut known = Known::default();
        assert_eq!(known.take(Addresses { v4: gone(), v6: gone() }), Err(NotFound::NoName));
        let both =
            Addresses { v4: found(&["10.0.0.2", "10.0.0.1", "10.0.0.2"], 30), v6: found(&["fd00::1"], 10) };
        let first = known.take(both.clone()).unwrap();
        assert_eq!(shown(&first), ["10.0.0.1", "10.0.0.2", "fd00::1"]);
        assert_eq!((first.ttl, first.unanswered), (Duration::from_secs(10), None));

        // One family without an answer stays, the other follows.
        let partly = known.take(Addresses { v4: found(&["10.0.0.3"], 5), v6: failed() }).unwrap();
        assert_eq!(shown(&partly), ["10.0.0.3", "fd00::1"]);
        assert_eq!(partly.unanswered.as_deref(), Some("AAAA records: server failure"));

        for (v4, v6) in [(failed(), failed()), (none(), none()), (gone(), gone()), (failed(), none())] {
            let before = known.clone();
            assert!(known.take(Addresses { v4, v6 }).is_err());
            assert_eq!(known, before);
        }
        let fewer = known.take(Addresses { v4: found(&["10.0.0.3"], 0), v6: none() }).unwrap();
        assert_eq!((shown(&fewer), fewer.ttl), (vec!["10.0.0.3".to_owned()], Duration::ZERO));
    }
}
