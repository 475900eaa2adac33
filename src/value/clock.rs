//! Time as the product sees it: the machine's, or a test's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// A monotonic clock. State machines take one, so that tests move time by hand.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Machine,
    Manual { start: Instant, elapsed: Arc<AtomicU64> },
}

impl Clock {
    pub fn machine() -> Self {
        Self(Source::Machine)
    }

    /// A clock that stands still until [`Clock::advance`].
    pub fn manual() -> Self {
        Self(Source::Manual { start: Instant::now(), elapsed: Arc::default() })
    }

    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::Machine => Instant::now(),
            Source::Manual { start, elapsed } => {
                *start + Duration::from_nanos(elapsed.load(Ordering::Relaxed))
            }
        }
    }

    /// The time of day, for logs and dates.
    pub fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Moves a manual clock; the machine's clock moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { elapsed, .. } = &self.0 {
            elapsed.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}
