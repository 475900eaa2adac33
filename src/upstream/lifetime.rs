//! How long a connection is used: until it is too old or has carried too many requests.

use std::time::{Duration, Instant};

use super::settings::Pool;

/// What a connection has been used for.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    opened: Instant,
    /// How much earlier than others it ends, in parts of [`PARTS`] of a tenth: those that were opened together must not end
    /// together.
    early: u16,
    requests: u32,
}

const PARTS: u32 = 1 << 16;

impl Lifetime {
    pub fn new(now: Instant) -> Self {
        Self { opened: now, early: fastrand::u16(..), requests: 0 }
    }

    /// Whether it has carried a request.
    pub fn is_used(&self) -> bool {
        self.requests > 0
    }

    /// It has another request to carry.
    pub fn count(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// When it is too old, where it ever is.
    pub fn end(&self, pool: &Pool) -> Option<Instant> {
        pool.max_age.and_then(|most| self.opened.checked_add(self.most(most)))
    }

    /// Whether it carries no further request.
    pub fn is_over(&self, pool: &Pool, now: Instant) -> bool {
        pool.max_requests.is_some_and(|most| self.requests >= most.get())
            || self.end(pool).is_some_and(|end| end <= now)
    }

    fn most(&self, most: Duration) -> Duration {
        most - most / 10 * u32::from(self.early) / PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(max_age: Option<u64>, max_requests: Option<u32>) -> Pool {
        Pool {
            max_age: max_age.map(Duration::from_secs),
            max_requests: max_requests.map(|most| most.try_into().unwrap()),
            ..Pool::of_idle(Duration::from_secs(1))
        }
    }

    #[test]
    fn it_is_over_by_age_or_by_requests_or_never() {
        let now = Instant::now();
        let mut used = Lifetime { early: 0, ..Lifetime::new(now) };
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(!used.is_over(&pool(None, None), later(1_000_000)));
        assert!(
            !used.is_over(&pool(Some(10), None), later(9)) && used.is_over(&pool(Some(10), None), later(10))
        );
        used.count();
        assert!(!used.is_over(&pool(None, Some(2)), now) && used.is_over(&pool(None, Some(1)), now));
        used.count();
        assert!(used.is_over(&pool(None, Some(2)), now));
    }

    #[test]
    fn those_that_were_opened_together_end_within_the_last_tenth() {
        let now = Instant::now();
        let ends = (0..1000).map(|_| Lifetime::new(now).end(&pool(Some(100), None)).unwrap() - now);
        let ends: Vec<_> = ends.map(|age| age.as_millis()).collect();
        let (first, last) = (*ends.iter().min().unwrap(), *ends.iter().max().unwrap());
        assert!((90_000..=92_000).contains(&first) && (98_000..=100_000).contains(&last), "{first} {last}");
    }
}
