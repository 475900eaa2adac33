//! Pools of endpoints: choosing one, connecting to it, watching its health.
//!
//! An [`Upstream`] is immutable and part of the snapshot. What changes while it serves (requests in flight,
//! response times, health) lives in [`EndpointState`]s that the [`Registry`] hands from one snapshot to the next.

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
mod settings;
mod tls;

use std::sync::Arc;

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
pub use settings::{Balance, EndpointSettings, Health, Probe, Settings, Timeouts};
pub use tls::{Authorities, ClientCertificate, ServerName, Tls};

use crate::{
    telemetry::metrics,
    value::{Address, Name},
};
use balance::{Balancer, Candidates};

/// A pool of endpoints, ready to be picked from.
#[derive(Debug)]
pub struct Upstream {
    pub name: Name,
    /// What its endpoints speak.
    pub protocol: config::Protocol,
    pub endpoints: Box<[Arc<Endpoint>]>,
    /// Whether its endpoints are told whose connections they get.
    pub announces: bool,
    /// What holds where the route says nothing else.
    pub timeouts: Timeouts,
    /// How many further endpoints are tried where the connection fails.
    pub retries: u8,
    /// How endpoints are chosen.
    pub balance: Balance,
    balancer: Box<dyn Balancer>,
    metrics: Arc<metrics::Upstream>,
}

impl Upstream {
    /// Builds the pool; endpoints that the registry knows keep their state, unchanged health checkers go on.
    pub fn build(settings: Settings, registry: &Registry) -> Self {
        let endpoints: Box<[_]> = settings
            .endpoints
            .iter()
            .map(|endpoint| Arc::new(Endpoint::build(&settings, endpoint, registry)))
            .collect();
        Self {
            balancer: balance::balancer(&settings.balance, &endpoints, || registry.turns(&settings.name)),
            metrics: registry.upstream(&settings.name),
            name: settings.name,
            protocol: settings.protocol,
            announces: settings.proxy_protocol.is_some(),
            endpoints,
            timeouts: settings.timeouts,
            retries: settings.retries,
            balance: settings.balance,
        }
    }

    /// A request is to be sent here.
    pub fn asked(&self) {
        self.metrics.asked();
    }

    /// Shows whoever looks at the metrics how the endpoints do.
    pub fn show(&self) {
        for endpoint in &self.endpoints {
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
        let index = self.balancer.choose(Candidates { endpoints: &self.endpoints, tried }, key)?;
        Some(Pick::new(self.endpoints[index].clone(), index))
    }

    /// Chooses the endpoint with this address, if it is healthy and was not tried yet.
    pub fn pick_at(&self, address: &Address, tried: &Tried) -> Option<Pick> {
        let index = self.endpoints.iter().position(|endpoint| endpoint.address == *address)?;
        let endpoint = &self.endpoints[index];
        (endpoint.is_healthy() && !tried.has(index)).then(|| Pick::new(endpoint.clone(), index))
    }

    /// The health checks to start now that this pool serves: those that do not run already. A task that is
    /// dropped or ends is handed out again by the next call.
    pub fn health_tasks(&self) -> impl Iterator<Item = HealthTask> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.health_task())
    }
}

#[cfg(test)]
mod tests;
