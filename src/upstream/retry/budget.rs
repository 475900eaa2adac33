//! How many retries an upstream bears: a share of its first tries, so that retries cannot multiply an overload.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Retries for each hundred first tries.
    pub percent: u8,
    /// Retries a second that are allowed in any case.
    pub floor: u16,
}

/// The first tries and retries of the last ten seconds, counted exactly: an average that fades would hide bursts.
/// Lock-free. It outlives reloads.
#[derive(Debug)]
pub struct Budget {
    start: Instant,
    buckets: [AtomicU64; SECONDS as usize],
}

/// A bucket's second, its first tries and its retries in one word, so that a bucket begins anew in one step.
#[derive(Clone, Copy)]
struct Bucket {
    second: u16,
    first: u32,
    retries: u32,
}

const SECONDS: u64 = 10;
/// As many as a bucket counts.
const MOST: u32 = (1 << 24) - 1;

impl Default for Limit {
    fn default() -> Self {
        Self { percent: 20, floor: 3 }
    }
}

// === impl Budget ===

impl Budget {
    pub fn new(now: Instant) -> Self {
        Self { start: now, buckets: Default::default() }
    }

    /// A request is tried for the first time.
    pub fn first(&self, now: Instant) {
        self.count(self.second(now), |bucket| bucket.first = (bucket.first + 1).min(MOST));
    }

    /// Counts a retry, where there may be one.
    pub fn take(&self, limit: Limit, now: Instant) -> bool {
        let second = self.second(now);
        let (first, retries) = self.sums(second);
        let allowed = first * u64::from(limit.percent) / 100 + u64::from(limit.floor) * SECONDS;
        let is_allowed = retries < allowed;
        if is_allowed {
            self.count(second, |bucket| bucket.retries = (bucket.retries + 1).min(MOST));
        }
        is_allowed
    }

    fn sums(&self, second: u64) -> (u64, u64) {
        let recent = self.buckets.iter().map(|bucket| Bucket::of(bucket.load(Ordering::Relaxed)));
        recent
            .filter(|bucket| u64::from((second as u16).wrapping_sub(bucket.second)) < SECONDS)
            .fold((0, 0), |(first, retries), bucket| {
                (first + u64::from(bucket.first), retries + u64::from(bucket.retries))
            })
    }

    fn count(&self, second: u64, count: impl Fn(&mut Bucket)) {
        let bucket = &self.buckets[(second % SECONDS) as usize];
        let next = |word| {
            let mut bucket = Bucket::of(word);
            if bucket.second != second as u16 {
                bucket = Bucket { second: second as u16, first: 0, retries: 0 };
            }
            count(&mut bucket);
            Some(bucket.word())
        };
        // It always has a next value.
        let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Since the start, from 1 on: a bucket of zeros belongs to no recent second for the first eighteen hours, and is empty.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() + SECONDS
    }
}

impl Bucket {
    fn of(word: u64) -> Self {
        Self { second: (word >> 48) as u16, first: (word >> 24) as u32 & MOST, retries: word as u32 & MOST }
    }

    fn word(self) -> u64 {
        u64::from(self.second) << 48 | u64::from(self.first) << 24 | u64::from(self.retries)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::value::Clock;

    fn taken(budget: &Budget, limit: Limit, now: Instant) -> usize {
        (0..100_000).take_while(|_| budget.take(limit, now)).count()
    }

    #[test]
    fn a_share_of_first_tries_and_a_floor_are_allowed() {
        let clock = Clock::manual();
        let budget = Budget::new(clock.now());
        assert_eq!(taken(&budget, Limit::default(), clock.now()), 30);
        (0..1000).for_each(|_| budget.first(clock.now()));
        assert_eq!(taken(&budget, Limit::default(), clock.now()), 200);
        let none = Limit { percent: 0, floor: 0 };
        assert_eq!(taken(&budget, none, clock.now()), 0);
    }

    #[test]
    fn what_is_ten_seconds_old_is_forgotten() {
        let clock = Clock::manual();
        let budget = Budget::new(clock.now());
        let limit = Limit { percent: 50, floor: 0 };
        (0..100).for_each(|_| budget.first(clock.now()));
        clock.advance(Duration::from_secs(9));
        assert_eq!(taken(&budget, limit, clock.now()), 50);
        clock.advance(Duration::from_secs(1));
        assert_eq!(taken(&budget, limit, clock.now()), 0);
        (0..100).for_each(|_| budget.first(clock.now()));
        assert_eq!(taken(&budget, limit, clock.now()), 0, "the retries of nine seconds ago count");
        clock.advance(Duration::from_secs(9));
        assert_eq!(taken(&budget, limit, clock.now()), 50);
        // The second's number begins anew.
        for hours in [18, 19, 400] {
            clock.advance(Duration::from_secs(hours * 3600));
            (0..10).for_each(|_| budget.first(clock.now()));
            assert_eq!(taken(&budget, limit, clock.now()), 5);
        }
    }

    #[test]
    fn counts_are_exact_beside_others() {
        let budget = Budget::new(Instant::now());
        let now = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| budget.first(now)));
            }
        });
        assert_eq!(budget.sums(budget.second(now)).0, 40_000);
    }
}
