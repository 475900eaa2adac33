//! The canaries' states by what they are known by. They are held weakly: what nobody serves from is forgotten.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::canary::CanaryState;
use crate::{
    telemetry::metrics::{self, Metrics},
    value::{Clock, Name, Weaks},
};

/// A split's place, a side's name, and how long its window is.
type Key = (Arc<str>, Name, Duration);

/// One per process.
pub struct Registry {
    clock: Clock,
    metrics: Arc<Metrics>,
    canaries: Mutex<Weaks<Key, CanaryState>>,
}

impl Registry {
    pub fn new(clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { clock, metrics, canaries: Mutex::default() }
    }

    /// What is counted of a side.
    pub(super) fn metrics(&self, site: &str, side: &Name) -> Arc<metrics::Side> {
        self.metrics.side(site, side)
    }

    /// The state that a canary had before, or a new one.
    pub(super) fn canary(&self, site: &Arc<str>, side: &Name, window: Duration) -> Arc<CanaryState> {
        let mut canaries = self.canaries.lock().unwrap_or_else(PoisonError::into_inner);
        canaries.find_or((site.clone(), side.clone(), window), || {
            let names = (site.clone(), side.as_str().into());
            CanaryState::new(names, window, self.clock.clone(), self.metrics(site, side))
        })
    }
}
