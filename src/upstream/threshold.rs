//! Whether enough endpoints are usable. They are counted when something changed, not for each request.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::endpoint::Endpoint;

/// The share of usable endpoints that is enough, and what was last counted.
#[derive(Debug)]
pub struct Threshold {
    percent: u8,
    /// The number of changes that were seen, and in the lowest bit whether too few were usable.
    seen: AtomicU64,
    /// When an ejection ends, by the clock of the first endpoint; `u64::MAX` where none does.
    until: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Threshold {
    pub fn new(percent: u8) -> Self {
        Self { percent, seen: AtomicU64::new(NEVER), until: AtomicU64::new(NEVER) }
    }

    /// Whether fewer of these are usable. `changes` is how often one of them became usable, or ceased to be.
    pub fn is_missed(&self, endpoints: &[Arc<Endpoint>], changes: &AtomicU64) -> bool {
        let seen = self.seen.load(Ordering::Relaxed);
        let is_new = seen >> 1 != changes.load(Ordering::Relaxed) & NEVER >> 1;
        let until = self.until.load(Ordering::Relaxed);
        match is_new || until != NEVER && first_clock(endpoints) >= until {
            true => self.count(endpoints, changes),
            false => seen & 1 == 1,
        }
    }

    #[cold]
    fn count(&self, endpoints: &[Arc<Endpoint>], changes: &AtomicU64) -> bool {
        // Looking at them ends ejections whose time is over, which is a change: it is seen the next time.
        let changes = changes.load(Ordering::Relaxed);
        let usable = endpoints.iter().filter(|endpoint| endpoint.is_usable()).count();
        let next = endpoints.iter().filter_map(|endpoint| endpoint.ejected_for()).min();
        let until = next.map_or(NEVER, |left| first_clock(endpoints) + left.as_millis() as u64);
        let is_missed = usable * 100 < endpoints.len() * usize::from(self.percent);
        self.until.store(until, Ordering::Relaxed);
        self.seen.store(changes << 1 | u64::from(is_missed), Ordering::Relaxed);
        is_missed
    }
}

fn first_clock(endpoints: &[Arc<Endpoint>]) -> u64 {
    endpoints.first().map_or(0, |endpoint| endpoint.state.now())
}
