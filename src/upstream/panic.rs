//! Panic mode: where too few endpoints are usable, all are used, so that the few are not overwhelmed.
//!
//! Usable endpoints are counted when something changed, not for each request.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    endpoint::Endpoint,
    shared::Shared,
    state::{EJECTED, UNHEALTHY},
};
use crate::value::Name;

/// The threshold, and what was last counted.
#[derive(Debug)]
pub struct Panic {
    /// The share of usable endpoints in percent below which all are used.
    pub threshold: u8,
    /// The count of changes that were seen, and in the lowest bit whether it panics.
    seen: AtomicU64,
    /// When an ejection ends, by the clock of the first endpoint; `u64::MAX` where none does.
    until: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Panic {
    pub fn new(threshold: u8) -> Self {
        Self { threshold, seen: AtomicU64::new(NEVER), until: AtomicU64::new(NEVER) }
    }

    /// The flags that keep no requests away from endpoints at the moment.
    pub fn despite(&self, name: &Name, endpoints: &[Arc<Endpoint>], shared: &Shared) -> u8 {
        let seen = self.seen.load(Ordering::Relaxed);
        let changes = shared.changes.load(Ordering::Relaxed);
        let is_new = seen >> 1 != changes & NEVER >> 1;
        let until = self.until.load(Ordering::Relaxed);
        let panics = match is_new || until != NEVER && first_clock(endpoints) >= until {
            true => self.count(name, endpoints, shared),
            false => seen & 1 == 1,
        };
        if panics { UNHEALTHY | EJECTED } else { 0 }
    }

    #[cold]
    fn count(&self, name: &Name, endpoints: &[Arc<Endpoint>], shared: &Shared) -> bool {
        // Looking at them ends ejections whose time is over, which is a change: it is seen the next time.
        let changes = shared.changes.load(Ordering::Relaxed);
        let usable = endpoints.iter().filter(|endpoint| endpoint.is_usable()).count();
        let next = endpoints.iter().filter_map(|endpoint| endpoint.ejected_for()).min();
        let until = next.map_or(NEVER, |left| first_clock(endpoints) + left.as_millis() as u64);
        let panics = usable * 100 < endpoints.len() * usize::from(self.threshold);
        self.until.store(until, Ordering::Relaxed);
        self.seen.store(changes << 1 | u64::from(panics), Ordering::Relaxed);
        if shared.panics.swap(panics, Ordering::Relaxed) != panics {
            let (upstream, endpoints) = (name.as_str(), endpoints.len());
            match panics {
                true => {
                    tracing::warn!(upstream, usable, endpoints, "too few endpoints are usable: all are used")
                }
                false => tracing::info!(upstream, usable, endpoints, "enough endpoints are usable again"),
            }
        }
        panics
    }
}

fn first_clock(endpoints: &[Arc<Endpoint>]) -> u64 {
    endpoints.first().map_or(0, |endpoint| endpoint.state.now())
}
