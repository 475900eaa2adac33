//! SRV records (RFC 2782): targets with ports, priorities and weights, and the addresses of each target.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pingora::lb::{Backend, discovery::ServiceDiscovery};
use tokio::task::JoinSet;

use super::{
    Discovery, Facts, FoundEndpoint, HEAVIEST, LastRemark, Remark, answer, failed,
    name::{Followed, Resolved},
    resolver::{NotFound, Resolver, Service},
};
use crate::value::{Address, DnsName, HostPort};

/// Finds the targets of a service, and their addresses.
pub struct Srv {
    name: DnsName,
    resolver: Arc<Resolver>,
    /// By name.
    targets: Mutex<BTreeMap<DnsName, Arc<Followed>>>,
    remark: LastRemark,
}

/// Records that are taken of one answer: each target is asked for.
const MOST_SERVICES: usize = 256;
/// Targets that are asked for at once.
const AT_ONCE: usize = 16;

// === impl Srv ===

impl Srv {
    pub fn new(name: DnsName, resolver: Arc<Resolver>) -> Self {
        Self { name, resolver, targets: Mutex::default(), remark: LastRemark::default() }
    }

    /// What is known of these targets; the others are forgotten.
    fn followed(&self, names: impl Iterator<Item = DnsName>) -> BTreeMap<DnsName, Arc<Followed>> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut *targets);
        *targets = names
            .map(|name| {
                let new = || Arc::new(Followed::new(name.clone()));
                let followed = known.get(&name).cloned().unwrap_or_else(new);
                (name, followed)
            })
            .collect();
        targets.clone()
    }

    /// The addresses of each target, a few asked for at a time.
    async fn resolve(&self, targets: BTreeMap<DnsName, Arc<Followed>>) -> Answers {
        let mut answers = Answers::default();
        let mut waiting = targets.into_iter();
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < AT_ONCE
                && let Some((name, followed)) = waiting.next()
            {
                let resolver = self.resolver.clone();
                asked.spawn(async move {
                    let resolved = followed.resolve(&resolver).await;
                    (name, resolved, followed.known())
                });
            }
            let Some(answered) = asked.join_next().await else { return answers };
            if let Ok((name, resolved, known)) = answered {
                answers.take(name, resolved, known);
            }
        }
    }
}

/// What became of the targets.
#[derive(Default)]
struct Answers {
    addresses: BTreeMap<DnsName, Vec<IpAddr>>,
    ttl: Option<Duration>,
    problem: Option<String>,
}

impl Answers {
    fn take(&mut self, name: DnsName, resolved: Result<Resolved, NotFound>, known: Vec<IpAddr>) {
        let problem = match resolved {
            Ok(resolved) => {
                self.ttl = Some(self.ttl.map_or(resolved.ttl, |ttl| ttl.min(resolved.ttl)));
                resolved.unanswered
            }
            Err(reason) => Some(reason.to_string()),
        };
        if let Some(problem) = problem {
            self.problem = Some(format!("target {name}: {problem}"));
        }
        self.addresses.insert(name, known);
    }
}

#[async_trait]
impl ServiceDiscovery for Srv {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let found = self.resolver.services(&self.name).await.map_err(failed)?;
        let mut services: Vec<(Service, DnsName)> = found
            .records
            .into_iter()
            // A target of "." says that the service is not offered.
            .filter_map(|service| Some((service.target.parse().ok()?, service)))
            .map(|(target, service)| (service, target))
            .collect();
        if services.is_empty() {
            return Err(failed("the SRV records name no target"));
        }
        services.sort_by_key(|(service, target)| (service.priority, target.clone(), service.port));
        let dropped = services.len().saturating_sub(MOST_SERVICES);
        services.truncate(MOST_SERVICES);
        let answers = self.resolve(self.followed(services.iter().map(|(_, target)| target.clone()))).await;
        let endpoints = endpoints(&services, &answers.addresses);
        if endpoints.is_empty() {
            return Err(failed(answers.problem.unwrap_or_else(|| "no target has an address".into())));
        }
        let (answer, cut) = answer(endpoints);
        let ttl = answers.ttl.map_or(found.ttl, |ttl| ttl.min(found.ttl));
        self.remark.set(Remark { ttl: Some(ttl), problem: answers.problem, cut: cut + dropped });
        Ok(answer)
    }
}

impl Discovery for Srv {
    fn remark(&self) -> Remark {
        self.remark.get()
    }
}

/// An endpoint for each address of each target. A target's weight is shared by its addresses.
fn endpoints(
    services: &[(Service, DnsName)],
    addresses: &BTreeMap<DnsName, Vec<IpAddr>>,
) -> Vec<FoundEndpoint> {
    let of = |target: &DnsName| addresses.get(target).map(Vec::as_slice).unwrap_or_default();
    let heaviest = services.iter().map(|(service, _)| service.weight).max().unwrap_or(0);
    let is_shared = services.iter().any(|(_, target)| of(target).len() > 1);
    let has_least = services.iter().any(|(service, _)| service.weight == 0);
    // As written where that is exact; else as fine as weights can be.
    let is_scaled = heaviest > 0 && (heaviest > HEAVIEST || is_shared || has_least);
    let weight = |service: &Service, sharing: usize| {
        let whole = match (heaviest, is_scaled) {
            (0, _) => u64::from(HEAVIEST),
            (_, true) => u64::from(service.weight) * u64::from(HEAVIEST) / u64::from(heaviest),
            (_, false) => u64::from(service.weight),
        };
        let whole = if heaviest == 0 && !is_shared { 1 } else { whole / sharing as u64 };
        u16::try_from(whole).unwrap_or(HEAVIEST).clamp(1, HEAVIEST)
    };
    let endpoints = services.iter().flat_map(|(service, target)| {
        let ips = of(target);
        let host = HostPort { host: target.clone(), port: service.port };
        let facts = Facts { host: Some(host), priority: service.priority };
        let weight = weight(service, ips.len().max(1));
        ips.iter().map(move |ip| FoundEndpoint {
            address: Address::Tcp(SocketAddr::new(*ip, service.port)),
            weight,
            facts: facts.clone(),
        })
    });
    // Port 0 leads nowhere.
    endpoints
        .filter(|endpoint| !matches!(endpoint.address, Address::Tcp(address) if address.port() == 0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(services: &[(u16, u16, &[&str])]) -> Vec<(u16, u16)> {
        let mut addresses = BTreeMap::new();
        let services = services.iter().zip(1u16..).map(|((priority, weight, ips), port)| {
            let target: DnsName = format!("t{port}.").parse().unwrap();
            addresses.insert(target.clone(), ips.iter().map(|ip| ip.parse().unwrap()).collect());
            let service = Service { priority: *priority, weight: *weight, port, target: target.to_string() };
            (service, target)
        });
        let services: Vec<_> = services.collect();
        let found = endpoints(&services, &addresses);
        found.iter().map(|endpoint| (endpoint.facts.priority, endpoint.weight)).collect()
    }

    #[test]
    fn weights_and_priorities_are_those_of_the_records() {
        let one: &[&str] = &["10.0.0.1"];
        assert_eq!(weights(&[(0, 60, one), (0, 40, one), (7, 5, one)]), [(0, 60), (0, 40), (7, 5)]);
        // None says anything.
        assert_eq!(weights(&[(1, 0, one), (1, 0, one)]), [(1, 1), (1, 1)]);
        // 0 means the least share, and weights go up to 65535.
        assert_eq!(weights(&[(1, 0, one), (1, 1, one)]), [(1, 1), (1, 1000)]);
        assert_eq!(weights(&[(1, 65535, one), (1, 32768, one)]), [(1, 1000), (1, 500)]);
        // Two addresses share what their target gets.
        let two: &[&str] = &["10.0.0.1", "10.0.0.2"];
        assert_eq!(weights(&[(1, 10, two), (1, 10, one)]), [(1, 500), (1, 500), (1, 1000)]);
        assert_eq!(weights(&[(1, 0, two), (1, 0, one)]), [(1, 500), (1, 500), (1, 1000)]);
        assert!(weights(&[(1, 1, &[])]).is_empty());
    }
}
