//! Exact counts of outcomes over the last seconds, in a ring of ten buckets. A moving average would hide a burst.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

const BUCKETS: u64 = 10;

/// Lock-free: a bucket's word holds its tick (16 bits), its failures and its total (24 bits each).
#[derive(Debug)]
pub struct Window {
    /// Milliseconds of a bucket.
    width: u64,
    buckets: [AtomicU64; BUCKETS as usize],
}

/// What a window counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: u64,
    pub failures: u64,
}

const BITS: u32 = 24;
/// A bucket that is full counts no further.
const MOST: u64 = (1 << BITS) - 1;
const TICKS: u64 = 1 << 16;

impl Window {
    pub fn new(length: Duration) -> Self {
        let width = (length.as_millis() as u64 / BUCKETS).max(1);
        Self { width, buckets: Default::default() }
    }

    /// Counts an outcome at a time, in milliseconds of the owner's clock.
    pub fn record(&self, millis: u64, failed: bool) {
        self.add(millis, 1, u64::from(failed));
    }

    /// An outcome that was counted as a success turned out to be a failure.
    pub fn correct(&self, millis: u64) {
        self.add(millis, 0, 1);
    }

    pub fn counts(&self, millis: u64) -> Counts {
        let now = millis / self.width;
        self.buckets.iter().fold(Counts::default(), |counts, bucket| {
            let word = bucket.load(Ordering::Relaxed);
            let age = (now % TICKS).wrapping_sub(word >> (2 * BITS)) % TICKS;
            match word != 0 && age < BUCKETS {
                true => Counts {
                    total: counts.total + (word & MOST),
                    failures: counts.failures + ((word >> BITS) & MOST),
                },
                false => counts,
            }
        })
    }

    pub fn clear(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }

    fn add(&self, millis: u64, total: u64, failures: u64) {
        let now = millis / self.width;
        let tick = (now % TICKS) << (2 * BITS);
        let next = |word: u64| {
            let is_current = word >> (2 * BITS) << (2 * BITS) == tick;
            let counts = if is_current { word & ((1 << (2 * BITS)) - 1) } else { 0 };
            let is_full = counts & MOST == MOST || counts >> BITS == MOST;
            (!is_full).then_some(tick | (counts + (failures << BITS) + total))
        };
        let bucket = &self.buckets[(now % BUCKETS) as usize];
        let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

impl Counts {
    /// Whether failures are at least this share of at least so many outcomes.
    pub fn reach(self, percent: u8, least: u32) -> bool {
        self.total >= u64::from(least).max(1) && self.failures * 100 >= u64::from(percent) * self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(total: u64, failures: u64) -> Counts {
        Counts { total, failures }
    }

    #[test]
    fn counts_are_exact_and_end_with_the_window() {
        let window = Window::new(Duration::from_secs(10));
        for second in 0..10 {
            for nth in 0..100 {
                window.record(second * 1000 + nth * 10, nth < second);
            }
        }
        assert_eq!(window.counts(9_999), counts(1000, 45));
        assert_eq!(window.counts(10_000), counts(900, 45), "the first second is over");
        window.record(10_000, true);
        assert_eq!(window.counts(10_999), counts(901, 46));
        assert_eq!(window.counts(18_999), counts(101, 10));
        assert_eq!(window.counts(500_000), counts(0, 0));
        window.clear();
        assert_eq!(window.counts(10_999), counts(0, 0));
    }

    #[test]
    fn a_burst_is_not_averaged_away_and_a_success_can_be_corrected() {
        let window = Window::new(Duration::from_secs(10));
        (0..30).for_each(|_| window.record(5, true));
        assert!(window.counts(5).reach(100, 30) && !window.counts(5).reach(100, 31));
        window.record(6, false);
        assert!(!window.counts(6).reach(100, 1));
        window.correct(7);
        assert_eq!(window.counts(7), counts(31, 31));
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let window = Window::new(Duration::from_secs(10));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|nth| window.record(nth, nth % 2 == 0)));
            }
        });
        assert_eq!(window.counts(9_999), counts(40_000, 20_000));
    }

    #[test]
    fn a_full_bucket_stays_full() {
        let window = Window::new(Duration::from_secs(10));
        window.add(0, MOST, 5);
        window.record(0, true);
        assert_eq!(window.counts(0), counts(MOST, 5));
    }
}
