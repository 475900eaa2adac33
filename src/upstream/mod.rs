//! Pools of endpoints: choosing one, connecting to it, watching its health.
//!
//! An [`Upstream`] is part of the snapshot. Its [`EndpointSet`] is replaced where discovery finds other endpoints. What changes
//! while it serves (requests in flight, response times, health) lives in [`EndpointState`]s that the [`Registry`] hands from one
//! set and snapshot to the next.

mod announce;
mod balance;
mod call;
mod compile;
pub mod config;
mod connections;
mod endpoint;
pub mod exchange;
mod failure;
mod guarded;
mod health;
mod key;
mod latency;
mod pick;
mod probe;
mod reach;
mod registry;
mod set;
mod settings;
mod tls;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use announce::Client;
pub use call::{Bounds, CallError, Caller, Destination, Site, Trailers};
pub use compile::{Context, ReadFile, settings};
pub use config::Config;
pub use connections::{Connections, Connector, Key, Route};
pub use endpoint::{Endpoint, EndpointState};
pub use health::HealthTask;
pub use key::{Facts, PickKey};
pub use pick::{Pick, Tried};
pub use reach::{AdminAddresses, Denial, Denied, DeniedAddress, Reachable};
pub use registry::Registry;
pub use set::EndpointSet;
pub use settings::{Balance, EndpointSettings, Health, Probe, Settings, Timeouts};
pub use tls::{Authorities, ClientCertificate, ServerName, Tls};

use crate::{
    telemetry::metrics,
    value::{Address, Name},
};
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
    /// How many further endpoints are tried where the connection fails.
    pub retries: u8,
    /// How endpoints are chosen.
    pub balance: Balance,
    /// Its endpoints at the moment.
    set: ArcSwap<EndpointSet>,
    metrics: Arc<metrics::Upstream>,
}

impl Upstream {
    /// Builds the pool; endpoints that the registry knows keep their state, unchanged health checkers go on.
    pub fn build(settings: Settings, registry: &Registry) -> Self {
        let endpoints = settings.endpoints.iter();
        let endpoints = endpoints.map(|endpoint| Arc::new(Endpoint::build(&settings, endpoint, registry)));
        let set = EndpointSet::new(endpoints.collect(), &settings.balance, || registry.turns(&settings.name));
        Self {
            set: ArcSwap::from_pointee(set),
            metrics: registry.upstream(&settings.name),
            name: settings.name,
            protocol: settings.protocol,
            announces: settings.proxy_protocol.is_some(),
            timeouts: settings.timeouts,
            retries: settings.retries,
            balance: settings.balance,
        }
    }

    /// Its endpoints at the moment.
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        self.set.load_full()
    }

    /// A request is to be sent here.
    pub fn asked(&self) {
        self.metrics.asked();
    }

    /// Shows whoever looks at the metrics how the endpoints do.
    pub fn show(&self) {
        for endpoint in self.endpoints().iter() {
            endpoint.state.metrics().show(endpoint.is_healthy(), endpoint.state.in_flight());
        }
    }

    /// The key that this pool's balancer wants of a request; nothing is looked up where it wants none.
    pub fn key(&self, facts: &Facts<'_>) -> PickKey {
        match &self.balance {
            Balance::Hash(key) | Balance::ConsistentHash(key) => PickKey::of(key, facts),
            _ => PickKey::NONE,
        }
    }

    /// Chooses a healthy endpoint that was not tried yet. `None` where there is none: sending to endpoints
    /// known to be down would only turn a quick 503 into a slow 502, so there is no "panic" mode.
    pub fn pick(&self, key: PickKey, tried: &Tried) -> Option<Pick> {
        self.set.load().choose(key, tried).cloned().map(Pick::new)
    }

    /// Chooses the endpoint with this address, if it is healthy and was not tried yet.
    pub fn pick_at(&self, address: &Address, tried: &Tried) -> Option<Pick> {
        let set = self.set.load();
        let endpoint = set.iter().find(|endpoint| endpoint.address == *address)?;
        (endpoint.is_healthy() && !tried.has(endpoint)).then(|| Pick::new(endpoint.clone()))
    }

    /// The health checks to start now that this pool serves: those that do not run already. A task that is
    /// dropped or ends is handed out again by the next call.
    pub fn health_tasks(&self) -> Vec<HealthTask> {
        self.endpoints().iter().filter_map(|endpoint| endpoint.health_task()).collect()
    }
}

#[cfg(test)]
mod tests;
