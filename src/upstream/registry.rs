//! What outlives a snapshot: endpoints' states and their health checkers. The registry holds them weakly;
//! whoever serves from them keeps them, and what nobody keeps is forgotten.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use pingora::connectors::ConnectorOptions;

use super::{
    endpoint::EndpointState,
    health::Checker,
    probe::{Prober, Target},
    settings::Health,
    tls::Identity,
};
use crate::{
    telemetry::metrics::{self, Metrics},
    value::{Address, Clock, Name},
};

/// What an endpoint is known by over reloads: its upstream, its address, and how it is connected to.
pub type EndpointKey = (Name, Address, Identity);

/// States and checkers by what they are known by. One per process.
pub struct Registry {
    clock: Clock,
    prober: Arc<Prober>,
    metrics: Arc<Metrics>,
    states: Mutex<Weaks<EndpointKey, EndpointState>>,
    checkers: Mutex<Weaks<(EndpointKey, Health), Checker>>,
}

/// A map that forgets what is no longer used, often enough to stay within twice what is.
struct Weaks<K, V> {
    map: HashMap<K, Weak<V>>,
    sweep_at: usize,
}

// === impl Registry ===

impl Registry {
    /// `connector` is what health checks connect with; its authorities are trusted where an upstream names none.
    pub fn new(clock: Clock, connector: Option<ConnectorOptions>, metrics: Arc<Metrics>) -> Self {
        Self {
            clock,
            prober: Arc::new(Prober::new(connector)),
            metrics,
            states: Mutex::default(),
            checkers: Mutex::default(),
        }
    }

    pub(super) fn state(&self, key: &EndpointKey) -> Arc<EndpointState> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.find_or(key.clone(), || {
            let metrics = self.metrics.endpoint(&key.0, key.1.to_string());
            EndpointState::new(self.clock.clone(), metrics)
        })
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

// === impl Weaks ===

impl<K: Hash + Eq, V> Weaks<K, V> {
    fn find_or(&mut self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        if let Some(known) = self.map.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if self.map.len() >= self.sweep_at {
            self.map.retain(|_, weak| weak.strong_count() > 0);
            self.sweep_at = (self.map.len() * 2).max(64);
        }
        let made = Arc::new(make());
        self.map.insert(key, Arc::downgrade(&made));
        made
    }
}

impl<K, V> Default for Weaks<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), sweep_at: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_keeps_is_forgotten() {
        let mut weaks = Weaks::default();
        let kept = weaks.find_or(0, || "kept");
        for key in 1..10_000 {
            weaks.find_or(key, || "dropped");
        }
        assert!(weaks.map.len() <= 64, "{}", weaks.map.len());
        assert!(Arc::ptr_eq(&kept, &weaks.find_or(0, || "another")));
    }
}
