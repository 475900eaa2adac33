//! The load that failures leave behind. An endpoint that fails at once has the shortest queue and would draw the
//! requests: each failure therefore counts as a request in flight that fades.

use std::sync::atomic::{AtomicU64, Ordering};

/// How fast a failure fades: to a third in this time. A failed request counts like one that takes so long.
const FADE_MILLIS: f64 = 5000.0;

/// What a request in flight counts as: a fading one counts as a part of it.
pub const UNIT: u64 = 256;

/// A smaller load is none: one failure is over after some 14 seconds.
const LEAST: f64 = UNIT as f64 / 16.0;
const MOST: f64 = (256 * UNIT) as f64;

/// Lock-free: one word holds the load and when it was noted in milliseconds.
#[derive(Debug, Default)]
pub struct Penalty(AtomicU64);

impl Penalty {
    /// Nothing failed lately, which costs no look at the clock.
    pub fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    pub fn add(&self, millis: u64) {
        let next = |word| {
            let load = (faded(word, millis) + UNIT as f64).min(MOST);
            Some(u64::from(millis as u32) << 32 | load as u64)
        };
        // A lost race leaves the other's failure, which is as good.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Past failures say nothing any more.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The load as of now, in [`UNIT`]s.
    pub fn at(&self, millis: u64) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        let load = faded(word, millis);
        if load < LEAST {
            if word != 0 {
                let _ = self.0.compare_exchange(word, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
            return 0;
        }
        load as u64
    }
}

fn faded(word: u64, millis: u64) -> f64 {
    let load = f64::from(word as u32);
    match (millis as u32).wrapping_sub((word >> 32) as u32) {
        0 => load,
        age => load * (-f64::from(age) / FADE_MILLIS).exp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_add_up_and_fade() {
        let penalty = Penalty::default();
        assert!(penalty.is_none() && penalty.at(7) == 0);
        penalty.add(1000);
        penalty.add(1000);
        assert_eq!(penalty.at(1000), 2 * UNIT);
        let third = penalty.at(6000);
        assert!(third > UNIT / 2 && third < UNIT, "{third}");
        assert!(!penalty.is_none());
        assert_eq!(penalty.at(60_000), 0);
        assert!(penalty.is_none(), "the next choice looks at no clock");
        (0..1_000_000).for_each(|_| penalty.add(70_000));
        assert_eq!(penalty.at(70_000), MOST as u64);
    }
}
