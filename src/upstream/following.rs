//! Upstreams whose endpoints are found: what their sources know is made into endpoints, checked against what is denied to
//! the upstream, and told from what was there before.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::Ordering},
};

use arc_swap::ArcSwap;

use super::{
    config::Prefer,
    discovery::{Definition, Follower, FoundEndpoint, Source},
    endpoint::Endpoint,
    registry::{EndpointTask, Registry},
    set::EndpointSet,
    settings::{EndpointSettings, Settings, SourceSettings},
    shared::Shared,
};
use crate::{
    telemetry::metrics,
    value::{Address, HostPort, Name},
};

/// What follows sources.
pub(super) struct Following {
    settings: Settings,
    registry: Registry,
    sources: Vec<Followed>,
    /// What outlives the sets.
    shared: Arc<Shared>,
    /// Whether no snapshot before had this upstream.
    is_new: bool,
    /// Found, but denied to this upstream: addresses, and why.
    denied: Mutex<Vec<(String, String)>>,
    /// Held while a set is built.
    building: Mutex<()>,
}

/// A source, and how this upstream uses the endpoints that it finds.
pub(super) struct Followed {
    pub source: Arc<Source>,
    pub metrics: Arc<metrics::Discovery>,
    weight: u16,
    prefer: Prefer,
    priority: u32,
    zone: Option<Name>,
}

/// Endpoints of a name that are raced against one of the other family.
const MOST_RIVALS: usize = 3;
/// Addresses that a log line shows.
const MOST_SHOWN: usize = 16;

// === impl Following ===

impl Following {
    /// `shared` is the upstream's, and whether it is new.
    pub fn new(
        settings: Settings,
        registry: &Registry,
        (shared, is_new): (Arc<Shared>, bool),
        follower: &Weak<dyn Follower>,
    ) -> Self {
        let follow = |written: &SourceSettings| {
            let source = registry.source(written, &settings.resolvers);
            source.tell(follower.clone());
            let metrics = registry.discovery(&settings.name, source.definition().to_string());
            let SourceSettings { weight, prefer, priority, ref zone, .. } = *written;
            Followed { source, metrics, weight, prefer, priority, zone: zone.clone() }
        };
        Self {
            sources: settings.sources.iter().map(follow).collect(),
            shared,
            is_new,
            registry: registry.clone(),
            settings,
            denied: Mutex::default(),
            building: Mutex::default(),
        }
    }

    pub fn sources(&self) -> &[Followed] {
        &self.sources
    }

    /// What was found, but is denied: addresses, and why.
    pub fn denied(&self) -> Vec<(String, String)> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The set of what is known now; whether the upstream `serves` already.
    fn set(&self, serves: bool) -> EndpointSet {
        let endpoints = self.endpoints().into_iter();
        let build = |own: EndpointSettings| {
            Arc::new(Endpoint::build(&self.settings, &own, &self.registry, (&self.shared, serves)))
        };
        let enough = self.settings.resilience.failover_threshold;
        EndpointSet::new(endpoints.map(build).collect(), &self.settings.balance, enough, &self.shared)
    }

    /// Replaces the set by what is known now, one at a time, and gives the one before.
    pub fn renew(&self, set: &ArcSwap<EndpointSet>) -> Arc<EndpointSet> {
        let _one = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let serves = !self.is_new || !set.load().is_empty();
        let before = set.swap(Arc::new(self.set(serves)));
        // How many are usable is counted anew.
        self.shared.changes.fetch_add(1, Ordering::Relaxed);
        before
    }

    /// Says what has changed, and has the health of new endpoints watched.
    pub fn changed(&self, before: &EndpointSet, after: &EndpointSet) {
        self.log(before, after);
        for task in after.iter().filter_map(|endpoint| endpoint.health_task()) {
            self.registry.start(EndpointTask::Health(task));
        }
        for task in after.iter().filter_map(|endpoint| endpoint.fill_task()) {
            self.registry.start(EndpointTask::Fill(task));
        }
    }

    /// Those that are listed, and those that were found. An address counts once.
    fn endpoints(&self) -> Vec<EndpointSettings> {
        let mut known: BTreeSet<Address> =
            self.settings.endpoints.iter().map(|own| own.address.address().clone()).collect();
        let mut endpoints = self.settings.endpoints.clone();
        let mut denied = Vec::new();
        for followed in &self.sources {
            let first = endpoints.len();
            for found in followed.source.found().iter() {
                if !known.insert(found.address.clone()) {
                    continue;
                }
                match self.settings.denied.admit(found.address.clone()) {
                    Ok(address) => endpoints.push(followed.endpoint(found, address)),
                    Err(denial) => denied.push((found.address.to_string(), denial.to_string())),
                }
            }
            oppose(&mut endpoints[first..]);
        }
        self.note(denied);
        endpoints
    }

    fn note(&self, denied: Vec<(String, String)>) {
        let mut before = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        for (endpoint, reason) in denied.iter().filter(|denied| !before.contains(denied)).take(MOST_SHOWN) {
            let upstream = self.settings.name.as_str();
            tracing::warn!(upstream, endpoint, reason, "endpoint discovery found an address that is denied");
        }
        *before = denied;
    }

    fn log(&self, before: &EndpointSet, after: &EndpointSet) {
        let shown = |set: &EndpointSet| set.iter().map(|endpoint| endpoint.shown.clone()).collect();
        let (old, new): (BTreeSet<Box<str>>, BTreeSet<Box<str>>) = (shown(before), shown(after));
        let (added, removed) = (some(new.difference(&old)), some(old.difference(&new)));
        if !added.is_empty() || !removed.is_empty() {
            let upstream = self.settings.name.as_str();
            tracing::info!(upstream, endpoints = new.len(), added, removed, "upstream endpoints changed");
        }
    }
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.sources.iter().map(|followed| &followed.source)).finish()
    }
}

impl Followed {
    fn endpoint(&self, found: &FoundEndpoint, address: super::Reachable) -> EndpointSettings {
        let is_second = match (&found.address, self.prefer) {
            (Address::Tcp(address), Prefer::V4) => address.is_ipv6(),
            (Address::Tcp(address), Prefer::V6) => address.is_ipv4(),
            _ => false,
        };
        let weight = match self.source.definition() {
            Definition::Dns(_) => self.weight,
            Definition::Srv(_) | Definition::File { .. } => found.weight,
        };
        EndpointSettings {
            priority: self.priority.saturating_add(found.facts.priority.into()),
            is_second,
            zone: self.zone.clone(),
            host: found.facts.host.clone(),
            ..EndpointSettings::new(address, weight)
        }
    }
}

/// Tells endpoints of a name about addresses of the other family.
fn oppose(endpoints: &mut [EndpointSettings]) {
    let mut by_name: HashMap<HostPort, [Vec<SocketAddr>; 2]> = HashMap::new();
    for endpoint in endpoints.iter() {
        if let (Some(host), Address::Tcp(address)) = (&endpoint.host, endpoint.address.address()) {
            by_name.entry(host.clone()).or_default()[usize::from(address.is_ipv6())].push(*address);
        }
    }
    let mut turn = 0;
    for endpoint in endpoints {
        let (Some(host), Address::Tcp(address)) = (&endpoint.host, endpoint.address.address()) else {
            continue;
        };
        let Some(families) = by_name.get(host) else { continue };
        let others = &families[usize::from(address.is_ipv4())];
        // Not everyone the same.
        let start = turn % others.len().max(1);
        let rivals = others[start..].iter().chain(&others[..start]).take(MOST_RIVALS);
        endpoint.rivals = rivals.copied().collect();
        turn += 1;
    }
}

/// The first few of them.
fn some<'a>(names: impl Iterator<Item = &'a Box<str>>) -> String {
    let mut names: Vec<&str> = names.map(|name| &**name).collect();
    let more = names.len().saturating_sub(MOST_SHOWN);
    names.truncate(MOST_SHOWN);
    let listed = names.join(", ");
    if more > 0 { format!("{listed} and {more} more") } else { listed }
}
