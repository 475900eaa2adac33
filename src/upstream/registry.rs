//! What outlives a snapshot: endpoints' states and their health checkers. The registry holds them weakly;
//! whoever serves from them keeps them, and what nobody keeps is forgotten.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pingora::connectors::ConnectorOptions;

use super::{
    breaker::{Circuit, CircuitBreaker},
    call::Caller,
    connections::Connector,
    health::Checker,
    probe::{Prober, Target},
    retry::Budget,
    settings::Health,
    shared::Shared,
    state::EndpointState,
    tls::Identity,
    window::Window,
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
    windows: Mutex<Weaks<(EndpointKey, Duration), Window>>,
    /// By upstream and settings.
    circuits: Mutex<Weaks<(Name, CircuitBreaker), Circuit>>,
    /// By upstream.
    shared: Mutex<Weaks<Name, Shared>>,
    budgets: Mutex<Weaks<Name, Budget>>,
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
            windows: Mutex::default(),
            circuits: Mutex::default(),
            shared: Mutex::default(),
            budgets: Mutex::default(),
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

    /// The state of an endpoint, and whether it is new.
    pub(super) fn state(&self, key: &EndpointKey, changes: &Arc<AtomicU64>) -> (Arc<EndpointState>, bool) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = false;
        let state = states.find_or(key.clone(), || {
            is_new = true;
            let metrics = self.metrics.endpoint(&key.0, key.1.to_string());
            let serial = self.serials.fetch_add(1, Ordering::Relaxed);
            EndpointState::new(serial, self.clock.clone(), changes.clone(), metrics)
        });
        (state, is_new)
    }

    /// The outcomes at an endpoint over some time.
    pub(super) fn window(&self, key: &EndpointKey, length: Duration) -> Arc<Window> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.find_or((key.clone(), length), || Window::new(length))
    }

    /// What an upstream's snapshots share, and whether it is new.
    pub(super) fn shared(&self, upstream: &Name) -> (Arc<Shared>, bool) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = false;
        let found = shared.find_or(upstream.clone(), || {
            is_new = true;
            Shared::default()
        });
        (found, is_new)
    }

    /// An upstream's circuit; changed settings make another.
    pub(super) fn circuit(&self, upstream: &Name, settings: CircuitBreaker) -> Arc<Circuit> {
        let mut circuits = self.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        circuits.find_or((upstream.clone(), settings), || {
            Circuit::new(upstream.clone(), settings, self.clock.clone(), self.metrics.upstream(upstream))
        })
    }

    pub(super) fn budget(&self, upstream: &Name) -> Arc<Budget> {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.find_or(upstream.clone(), || Budget::new(self.clock.now()))
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
