//! What outlives a snapshot: endpoints' states and their health checkers. The registry holds them weakly;
//! whoever serves from them keeps them, and what nobody keeps is forgotten.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use pingora::connectors::ConnectorOptions;

use super::{
    balance::Turns,
    call::Caller,
    connections::Connector,
    endpoint::EndpointState,
    health::Checker,
    probe::{Prober, Target},
    settings::Health,
    tls::Identity,
};
use crate::{
    telemetry::metrics::{self, Metrics},
    value::{Address, Clock, Name, Weaks},
};

/// What an endpoint is known by over reloads: its upstream, its address, and how it is connected to.
pub type EndpointKey = (Name, Address, Identity);

/// States and checkers by what they are known by. One per process.
pub struct Registry {
    clock: Clock,
    connector: Arc<Connector>,
    prober: Arc<Prober>,
    caller: Arc<Caller>,
    metrics: Arc<Metrics>,
    states: Mutex<Weaks<EndpointKey, EndpointState>>,
    /// How many states there have been.
    serials: AtomicU64,
    checkers: Mutex<Weaks<(EndpointKey, Health), Checker>>,
    /// By upstream.
    turns: Mutex<Weaks<Name, Turns>>,
}

// === impl Registry ===

impl Registry {
    /// `connector` is what health checks and our own requests connect with; its authorities are trusted where an upstream names none.
    pub fn new(clock: Clock, connector: Option<ConnectorOptions>, metrics: Arc<Metrics>) -> Self {
        let connector = Arc::new(Connector::new(connector));
        Self {
            clock,
            prober: Arc::new(Prober::new(connector.clone())),
            caller: Arc::new(Caller::new(connector.clone())),
            connector,
            metrics,
            states: Mutex::default(),
            serials: AtomicU64::new(0),
            checkers: Mutex::default(),
            turns: Mutex::default(),
        }
    }

    /// What connects to endpoints.
    pub fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    /// What requests of our own are sent by.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    pub(super) fn state(&self, key: &EndpointKey) -> Arc<EndpointState> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.find_or(key.clone(), || {
            let metrics = self.metrics.endpoint(&key.0, key.1.to_string());
            let serial = self.serials.fetch_add(1, Ordering::Relaxed);
            EndpointState::new(serial, self.clock.clone(), metrics)
        })
    }

    pub(super) fn turns(&self, upstream: &Name) -> Arc<Turns> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.find_or(upstream.clone(), Turns::default)
    }

    pub(super) fn upstream(&self, name: &Name) -> Arc<metrics::Upstream> {
        self.metrics.upstream(name)
    }

    pub(super) fn checker(
        &self,
        key: EndpointKey,
        health: &Health,
        state: &Arc<EndpointState>,
        target: impl FnOnce() -> Target,
    ) -> Arc<Checker> {
        let (upstream, address) = (key.0.clone(), key.1.clone());
        let mut checkers = self.checkers.lock().unwrap_or_else(PoisonError::into_inner);
        checkers.find_or((key, health.clone()), || {
            Checker::new(upstream, address, health.clone(), state.clone(), target(), self.prober.clone())
        })
    }
}
