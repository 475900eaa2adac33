//! Connections outlive the configurations that ask for them.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Redis, Settings, Task};
use crate::{telemetry::metrics::Metrics, value::Weaks};

/// The Redis that is used, by all that is said of it. One per process; after a reload that says something else, the
/// one before stays until the last request that knows it has ended.
#[derive(Default)]
pub struct Registry(Mutex<Weaks<Settings, Redis>>);

impl Registry {
    pub fn find(&self, settings: Settings, metrics: &Metrics) -> Arc<Redis> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.find_or(settings.clone(), || Redis::new(settings, metrics.redis()))
    }

    /// The tasks to start now that these serve: those that do not run already.
    pub fn tasks(&self) -> Vec<Task> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.living().filter_map(|(_, redis)| redis.task()).collect()
    }

    /// Whether all that is used answers; nothing where none is.
    pub fn is_up(&self) -> Option<bool> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.living().map(|(_, redis)| redis.is_up()).reduce(|all, one| all && one)
    }
}
