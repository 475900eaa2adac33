//! Pools of endpoints: choosing one, connecting to it, watching its health.
//!
//! An [`Upstream`] is part of the snapshot. Its [`EndpointSet`] is replaced where discovery finds other endpoints. What changes
//! while it serves (requests in flight, response times, health) lives in [`EndpointState`]s that the [`Registry`] hands from one
//! set and snapshot to the next.

mod adaptive;
mod announce;
mod balance;
mod breaker;
mod call;
mod compile;
pub mod config;
mod connections;
pub mod discovery;
mod endpoint;
pub mod exchange;
mod failure;
mod fill;
mod following;
mod grpc_health;
mod guarded;
mod handshake;
mod health;
mod key;
mod latency;
mod lifetime;
mod mirror;
mod outlier;
mod overload;
mod passive;
mod penalty;
mod pick;
mod probe;
mod queue;
mod race;
mod reach;
mod readmission;
mod registry;
pub mod retry;
mod set;
mod settings;
mod shared;
mod state;
pub mod sticky;
mod threshold;
mod tls;
mod window;

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

pub use adaptive::Adaptive;
pub use announce::Client;
pub use breaker::{CircuitBreaker, Permit, Rejected};
pub use call::{Bounds, CallError, Caller, Destination, Site, Trailers};
pub use compile::{Context, EndpointsFile, ReadFile, settings};
pub use config::Config;
pub use connections::{Connections, Connector, Key, Route};
pub use endpoint::Endpoint;
pub use fill::FillTask;
pub use health::HealthTask;
pub use key::{Facts, PickKey, hash_of, mix};
pub use mirror::{CopyPermit, Mirror, MirrorTask, RequestCopy};
pub use outlier::Outlier;
pub use overload::{Admission, InQueue, Overload, Priority};
pub use pick::{Pick, Tried};
pub use queue::Place;
pub use reach::{AdminAddresses, Denial, Denied, DeniedAddress, Reachable};
pub use readmission::ReadmissionTask;
pub use registry::{EndpointTask, Registry};
pub use set::EndpointSet;
pub use settings::{
    Balance, EndpointSettings, Health, InFlight, Pool, Probe, Resilience, Settings, SourceSettings, Timeouts,
};
pub use state::{Drained, EndpointState, is_failure};
pub use sticky::Sticky;
pub use tls::{Authorities, ClientCertificate, ServerName, Tls};
pub use window::{Counts, Window};

use following::Following;

use crate::{
    error::Reason,
    telemetry::metrics,
    value::{Address, Name},
};
use breaker::{Circuit, State};
use shared::Shared;
use state::{EJECTED, TRIED, UNHEALTHY};
use sticky::EndpointCode;
use threshold::Threshold;

/// A pool of endpoints, ready to be picked from.
#[derive(Debug)]
pub struct Upstream {
    pub name: Name,
    /// What its endpoints speak.
    pub protocol: config::Protocol,
    /// Whether its endpoints are told whose connections they get.
    pub announces: bool,
    /// What holds where the route says nothing else.
    pub timeouts: Timeouts,
    /// Which requests are tried again.
    pub retry: retry::Policy,
    /// Sticky sessions, where there are any.
    pub sticky: Option<Box<Sticky>>,
    /// How endpoints are chosen.
    pub balance: Balance,
    /// Its endpoints at the moment.
    set: ArcSwap<EndpointSet>,
    /// How many requests may be in flight, where that is limited.
    in_flight: Option<InFlight>,
    /// How endpoints that fail are dealt with.
    pub resilience: Resilience,
    circuit: Option<Arc<Circuit>>,
    registry: Registry,
    /// Where it is missed, all endpoints are used.
    panic: Option<Threshold>,
    shared: Arc<Shared>,
    /// What replaces them, where they are found.
    following: Option<Box<Following>>,
    metrics: Arc<metrics::Upstream>,
}

impl Upstream {
    /// Builds the pool; endpoints that the registry knows keep their state, unchanged health checkers go on.
    pub fn build(settings: Settings, registry: &Registry) -> Arc<Self> {
        let (shared, is_new) = registry.shared(&settings.name);
        if settings.sources.is_empty() {
            let endpoints = settings.endpoints.iter();
            let endpoints =
                endpoints.map(|own| Arc::new(Endpoint::build(&settings, own, registry, (&shared, !is_new))));
            let set = EndpointSet::new(
                endpoints.collect(),
                &settings.balance,
                settings.resilience.failover_threshold,
                &shared,
            );
            return Arc::new(Self::of(settings, set, None, (registry, shared)));
        }
        let upstream = Arc::new_cyclic(|own: &Weak<Self>| {
            let follower: Weak<dyn discovery::Follower> = own.clone();
            let following = Following::new(settings.clone(), registry, (shared.clone(), is_new), &follower);
            let none = EndpointSet::new(Vec::new(), &settings.balance, None, &shared);
            Self::of(settings, none, Some(Box::new(following)), (registry, shared))
        });
        upstream.renew();
        upstream
    }

    fn of(
        settings: Settings,
        set: EndpointSet,
        following: Option<Box<Following>>,
        (registry, shared): (&Registry, Arc<Shared>),
    ) -> Self {
        let sticky = settings.sticky.map(|sticky| Sticky::new(sticky, &settings.name, &shared));
        Self {
            set: ArcSwap::from_pointee(set),
            following,
            circuit: settings.resilience.circuit_breaker.map(|own| registry.circuit(&settings.name, own)),
            panic: settings.resilience.panic_threshold.map(Threshold::new),
            resilience: settings.resilience,
            registry: registry.clone(),
            in_flight: settings.in_flight,
            shared,
            metrics: registry.upstream(&settings.name),
            sticky: sticky.map(Box::new),
            name: settings.name,
            protocol: settings.protocol,
            announces: settings.proxy_protocol.is_some(),
            timeouts: settings.timeouts,
            retry: settings.retry,
            balance: settings.balance,
        }
    }

    /// Its endpoints at the moment.
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        self.set.load_full()
    }

    /// A request is to be sent here.
    pub fn asked(&self, now: Instant) {
        self.metrics.asked();
        self.shared.budget.first(now);
    }

    /// A request is to be tried again because of `cause`. Says whether the budget allows it, of which a failed connection
    /// needs nothing.
    pub fn retries(&self, cause: retry::Cause) -> bool {
        let allowed = cause == retry::Cause::ConnectFailure
            || self.shared.budget.take(self.retry.budget, Instant::now());
        match allowed {
            true => self.metrics.retried(cause.name()),
            false => self.metrics.retry_denied(),
        }
        allowed
    }

    /// How long a response's head may take until another endpoint is asked beside; `None` while that is not known.
    pub fn hedge_after(&self) -> Option<Duration> {
        match self.retry.hedge?.after {
            retry::After::Time(time) => Some(time),
            retry::After::Percentile(percent) => self.response_times().percentile(percent),
        }
    }

    /// A response's head took so long at the first endpoint that was asked, or longer where another one was faster.
    pub fn responded(&self, time: Duration) {
        if let Some(retry::Hedge { after: retry::After::Percentile(_), .. }) = self.retry.hedge {
            self.response_times().record(time);
        }
    }

    /// The response of a hedge was the first.
    pub fn hedge_won(&self) {
        self.metrics.hedge_won();
    }

    fn response_times(&self) -> &retry::ResponseTimes {
        self.shared.response_times.get_or_init(Box::default)
    }

    /// How often a failed connection is tried again.
    pub(super) fn connect_retries(&self) -> u8 {
        if self.retry.when.connect_failure { self.retry.retries } else { 0 }
    }

    /// Whether there is a healthy endpoint that was not tried yet.
    pub fn has_untried(&self, tried: &Tried) -> bool {
        self.set.load().iter().any(|endpoint| endpoint.is_usable() && !tried.has(endpoint))
    }

    /// Shows whoever looks at the metrics how the endpoints do.
    pub fn show(&self) {
        let circuit = self.circuit.as_ref().map_or(State::Closed, |circuit| circuit.state());
        self.metrics.show(circuit as i64, self.panics(), self.shared.admission.waiting());
        self.metrics.show_limit(self.limit().map_or(0, |(_, limit)| limit));
        for followed in self.followed() {
            let history = followed.source.history();
            followed.metrics.show(history.last_success, history.failures, followed.source.found().len());
        }
        for endpoint in self.endpoints().iter() {
            let is_ejected = endpoint.ejected_for().is_some();
            endpoint.state.metrics().show(endpoint.is_healthy(), is_ejected, endpoint.state.in_flight());
        }
    }

    /// Where its endpoints are found, as far as they are not listed.
    pub fn sources(&self) -> Vec<Arc<discovery::Source>> {
        self.followed().iter().map(|followed| followed.source.clone()).collect()
    }

    /// Endpoints that were found but are denied to it: addresses, and why.
    pub fn denied(&self) -> Vec<(String, String)> {
        self.following.as_ref().map(|following| following.denied()).unwrap_or_default()
    }

    fn followed(&self) -> &[following::Followed] {
        self.following.as_ref().map_or(&[], |following| following.sources())
    }

    /// Goes over to the endpoints that are known now. Those that were there before are given back.
    fn renew(&self) -> Option<Arc<EndpointSet>> {
        self.following.as_ref().map(|following| following.renew(&self.set))
    }

    /// Why a request gets no endpoint where it has tried none.
    pub fn lack(&self) -> Reason {
        let is_named = |followed: &following::Followed| followed.source.definition().is_name();
        match self.set.load().is_empty() && self.followed().iter().any(is_named) {
            true => Reason::Unresolved,
            false => Reason::NoEndpoint,
        }
    }

    /// The key that this pool's balancer wants of a request; nothing is looked up where it wants none.
    pub fn key(&self, facts: &Facts<'_>) -> PickKey {
        match &self.balance {
            Balance::Hash(key) | Balance::ConsistentHash(key) | Balance::BoundedHash(key, _) => {
                PickKey::of(key, facts)
            }
            _ => PickKey::NONE,
        }
    }

    /// Drains an endpoint, or uses it again. Says whether there is one of this address.
    pub fn drain(&self, address: &Address, drained: Drained) -> bool {
        let set = self.endpoints();
        let endpoint = set.iter().find(|endpoint| endpoint.address == *address);
        if let Some(endpoint) = endpoint {
            endpoint.state.set_drained(drained);
            let (upstream, endpoint) = (self.name.as_str(), &*endpoint.shown);
            tracing::info!(upstream, endpoint, ?drained, "endpoint is drained or used again by order");
        }
        endpoint.is_some()
    }

    /// Gives an endpoint another weight, or the configuration's again. Says whether there is one of this address.
    pub fn set_weight(&self, address: &Address, weight: Option<u16>) -> bool {
        let set = self.endpoints();
        let endpoint = set.iter().find(|endpoint| endpoint.address == *address);
        if let Some(endpoint) = endpoint {
            endpoint.state.set_weight(weight);
            self.set.rcu(|set| {
                let endpoints = set.iter().map(|endpoint| Arc::new(endpoint.reweighed()));
                self.new_set(endpoints.collect())
            });
            let (upstream, endpoint) = (self.name.as_str(), &*endpoint.shown);
            tracing::info!(upstream, endpoint, weight, "endpoint has another weight by order");
        }
        endpoint.is_some()
    }

    fn new_set(&self, endpoints: Vec<Arc<Endpoint>>) -> EndpointSet {
        EndpointSet::new(endpoints, &self.balance, self.resilience.failover_threshold, &self.shared)
    }

    /// Lets a request pass its circuit breaker, or rejects it. `None` where it has none.
    pub fn admit(&self) -> Result<Option<Permit>, Rejected> {
        self.circuit.as_ref().map(Circuit::admit).transpose()
    }

    /// The state of its circuit breaker, where it has one.
    pub fn circuit(&self) -> Option<&'static str> {
        self.circuit.as_ref().map(|circuit| circuit.state().word())
    }

    /// Whether all endpoints are used because too few are usable.
    pub fn panics(&self) -> bool {
        self.despite(&self.set.load()) != 0
    }

    /// The flags of endpoints that keep no requests away.
    fn despite(&self, set: &EndpointSet) -> u8 {
        let Some(panic) = &self.panic else { return 0 };
        let panics = panic.is_missed(set, &self.shared.changes);
        if panics != self.shared.panics.load(Ordering::Relaxed) {
            self.turn_panic(panics);
        }
        if panics { UNHEALTHY | EJECTED | TRIED } else { 0 }
    }

    #[cold]
    fn turn_panic(&self, panics: bool) {
        if self.shared.panics.swap(panics, Ordering::Relaxed) == panics {
            return;
        }
        let upstream = self.name.as_str();
        match panics {
            true => tracing::warn!(upstream, "too few endpoints are usable: all are used"),
            false => tracing::info!(upstream, "enough endpoints are usable again"),
        }
    }

    /// Chooses a usable endpoint that was not tried yet. `None` where there is none: sending to endpoints
    /// known to be down would only turn a quick 503 into a slow 502, unless `panic_threshold` wants it.
    pub fn pick(&self, key: PickKey, tried: &Tried) -> Option<Pick> {
        let set = self.set.load();
        let despite = self.despite(&set);
        // Endpoints on trial get more than one request at a time before a request fails.
        let chosen = set.choose(key, tried, despite).or_else(|| set.choose(key, tried, despite | TRIED));
        chosen.cloned().map(Pick::new)
    }

    /// Chooses the endpoint with this address, if it is usable and was not tried yet.
    pub fn pick_at(&self, address: &Address, tried: &Tried) -> Option<Pick> {
        let set = self.set.load();
        let endpoint = set.iter().find(|endpoint| endpoint.address == *address)?;
        let is_usable = endpoint.is_usable_despite(self.despite(&set)) && !tried.has(endpoint);
        is_usable.then(|| Pick::new(endpoint.clone()))
    }

    /// Chooses the endpoint that a sticky client has, if its clients may use it and it was not tried yet.
    pub fn pick_for(&self, client: EndpointCode, tried: &Tried) -> Option<Pick> {
        let set = self.set.load();
        let endpoint = set.of_code(client)?;
        let is_usable = endpoint.is_usable_for_its_clients(self.despite(&set)) && !tried.has(endpoint);
        is_usable.then(|| Pick::new(endpoint.clone()))
    }

    pub fn metrics(&self) -> &metrics::Upstream {
        &self.metrics
    }

    /// It serves from now on: its limits hold for requests of earlier snapshots too.
    pub fn begin_to_serve(&self) {
        self.begin_to_limit();
        self.endpoints().iter().for_each(|endpoint| endpoint.begin_to_serve());
    }

    /// What keeps connections ready from now on, each once.
    pub fn fill_tasks(&self) -> Vec<FillTask> {
        self.endpoints().iter().filter_map(|endpoint| endpoint.fill_task()).collect()
    }

    /// The health checks to start now that this pool serves: those that do not run already. A task that is
    /// dropped or ends is handed out again by the next call.
    pub fn health_tasks(&self) -> Vec<HealthTask> {
        self.endpoints().iter().filter_map(|endpoint| endpoint.health_task()).collect()
    }
}

impl discovery::Follower for Upstream {
    fn follow(&self) {
        if let (Some(following), Some(before)) = (&self.following, self.renew()) {
            following.changed(&before, &self.endpoints());
        }
    }
}

#[cfg(test)]
mod tests;
