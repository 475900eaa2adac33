//! Passive health: an endpoint at which requests fail is ejected for a while, longer each time.

use std::{
    fmt,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use super::window::{Counts, Window};

/// When an endpoint is ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outlier {
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Whether a status that says that the endpoint failed counts, beside what breaks an exchange.
    pub counts_statuses: bool,
    /// The share of failures in percent.
    pub failure_ratio: Option<u8>,
    /// The mean response time in percent of the peers' median.
    pub latency: Option<u32>,
    /// What ratio and latency are judged by, and how much of it there must be.
    pub window: Duration,
    pub min_requests: u32,
    pub eject_for: Duration,
    pub max_eject_for: Duration,
    /// The share of endpoints that may be out at a time, in percent.
    pub max_ejected: u8,
}

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    ConsecutiveFailures,
    FailureRatio,
    Latency,
}

/// What is watched of one endpoint. Lock-free.
#[derive(Debug, Default)]
pub struct Watched {
    /// Failures in a row.
    streak: AtomicU32,
    /// The mean response time in microseconds; a peak counts no more than any other.
    mean: AtomicU64,
    /// When latencies were compared last.
    compared: AtomicU64,
    ejected_until: AtomicU64,
    /// Ejections that count: good times take them away.
    ejections: AtomicU32,
    /// When the last one ended.
    ended: AtomicU64,
}

/// How often an endpoint's latency is compared to its peers', in milliseconds.
const COMPARE_EVERY: u64 = 1000;
/// One of so many observations, the newest, is the share in the mean.
const OF_MEAN: u64 = 16;
/// Response times that differ by less are equal.
pub const LEAST_DIFFERENCE: u64 = 1000;

// === impl Outlier ===

impl Outlier {
    /// What holds where nothing is written: exchanges that break in a row eject.
    pub const DEFAULT: Self = Self {
        consecutive_failures: 5,
        counts_statuses: false,
        failure_ratio: None,
        latency: None,
        window: Duration::from_secs(10),
        min_requests: 20,
        eject_for: Duration::from_secs(5),
        max_eject_for: Duration::from_secs(300),
        max_ejected: 50,
    };

    /// How many of so many endpoints may be out. One may always be, unless there is no other.
    pub fn most_out(&self, endpoints: usize) -> usize {
        let share = endpoints * usize::from(self.max_ejected) / 100;
        if endpoints > 1 { share.max(1) } else { share }
    }
}

impl fmt::Display for Outlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failures in a row", self.consecutive_failures)?;
        if let Some(percent) = self.failure_ratio {
            write!(f, ", {percent}% failures of {} requests in {:?}", self.min_requests, self.window)?;
        }
        if let Some(percent) = self.latency {
            write!(f, ", {percent}% of the peers' latency")?;
        }
        write!(f, " eject an endpoint for {:?}, {}% at most", self.eject_for, self.max_ejected)
    }
}

impl Cause {
    pub fn code(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRatio => "failure_ratio",
            Self::Latency => "latency",
        }
    }
}

// === impl Watched ===

impl Watched {
    /// An exchange with it ended. Says why it is to be ejected, where it is.
    pub fn ended_exchange(
        &self,
        outlier: &Outlier,
        window: Option<&Window>,
        now: u64,
        failed: bool,
    ) -> Option<Cause> {
        if let Some(window) = window {
            window.record(now, failed);
        }
        if !failed {
            if self.streak.load(Ordering::Relaxed) != 0 {
                self.streak.store(0, Ordering::Relaxed);
            }
            return None;
        }
        if self.streak.fetch_add(1, Ordering::Relaxed) + 1 >= outlier.consecutive_failures {
            return Some(Cause::ConsecutiveFailures);
        }
        let percent = outlier.failure_ratio?;
        let counts = window.map_or(Counts::default(), |window| window.counts(now));
        counts.reach(percent, outlier.min_requests).then_some(Cause::FailureRatio)
    }

    /// Takes a response time in, and says whether it is time to compare the mean.
    pub fn observe(&self, latency: Duration, now: u64) -> bool {
        let latency = latency.as_micros() as u64;
        let mean = self.mean();
        let next = if mean == 0 { latency } else { (mean * (OF_MEAN - 1) + latency) / OF_MEAN };
        self.mean.store(next, Ordering::Relaxed);
        let compared = self.compared.load(Ordering::Relaxed);
        now >= compared + COMPARE_EVERY
            && self.compared.compare_exchange(compared, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// In microseconds; 0 where none is known.
    pub fn mean(&self) -> u64 {
        self.mean.load(Ordering::Relaxed)
    }

    pub fn ejected_until(&self) -> u64 {
        self.ejected_until.load(Ordering::Relaxed)
    }

    pub(super) fn eject(&self, until: u64) {
        self.ejected_until.store(until, Ordering::Relaxed);
        self.forget();
    }

    /// How long the next ejection lasts: the longer the more there were. A good time as long as an ejection takes one away.
    pub fn next_ejection(&self, outlier: &Outlier, now: u64) -> Duration {
        let good = now.saturating_sub(self.ended.load(Ordering::Relaxed));
        let forgiven = good / (outlier.eject_for.as_millis() as u64).max(1);
        let counted = u64::from(self.ejections.load(Ordering::Relaxed)).saturating_sub(forgiven) + 1;
        // More would last no longer.
        let most = outlier.max_eject_for.as_millis().div_ceil(outlier.eject_for.as_millis().max(1));
        let counted = u32::try_from(u128::from(counted).min(most)).unwrap_or(u32::MAX).max(1);
        self.ejections.store(counted, Ordering::Relaxed);
        outlier.eject_for.saturating_mul(counted).min(outlier.max_eject_for)
    }

    /// An ejection ended.
    pub(super) fn ended(&self, now: u64) {
        self.ended.store(now, Ordering::Relaxed);
        self.forget();
    }

    /// What was counted says nothing any more.
    pub fn forget(&self) {
        self.streak.store(0, Ordering::Relaxed);
        self.mean.store(0, Ordering::Relaxed);
    }
}

/// Whether a mean response time is an outlier among its peers', of which at least two must be known.
pub fn is_slow(percent: u32, mean: u64, peers: &mut [u64]) -> bool {
    if peers.len() < 2 {
        return false;
    }
    let middle = peers.len() / 2;
    let (_, median, _) = peers.select_nth_unstable(middle);
    mean > *median + LEAST_DIFFERENCE && u128::from(mean) * 100 > u128::from(*median) * u128::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EJECT_FOR: u64 = 30_000;

    #[test]
    fn causes_are_counted_by_their_codes() {
        let causes = [Cause::ConsecutiveFailures, Cause::FailureRatio, Cause::Latency];
        assert_eq!(causes.map(Cause::code), crate::telemetry::metrics::EJECTION_CAUSES);
    }

    #[test]
    fn only_failures_in_a_row_eject() {
        let watched = Watched::default();
        let ended = |failed| watched.ended_exchange(&Outlier::DEFAULT, None, 0, failed);
        assert!((0..4).all(|_| ended(true).is_none()));
        assert!(ended(false).is_none());
        assert!((0..4).all(|_| ended(true).is_none()));
        assert_eq!(ended(true), Some(Cause::ConsecutiveFailures));
    }

    #[test]
    fn a_share_of_failures_ejects_from_enough_requests_on() {
        let outlier = Outlier { failure_ratio: Some(50), min_requests: 10, ..Outlier::DEFAULT };
        let (watched, window) = (Watched::default(), Window::new(outlier.window));
        let causes: Vec<_> =
            (0..12).map(|n| watched.ended_exchange(&outlier, Some(&window), 0, n % 2 == 1)).collect();
        assert!(causes[..9].iter().all(Option::is_none));
        assert_eq!(causes[9], Some(Cause::FailureRatio));
        assert_eq!(causes[10], None, "a success ejects nothing");
    }

    #[test]
    fn ejections_grow_to_a_bound_and_are_forgiven() {
        let outlier = Outlier { eject_for: Duration::from_millis(EJECT_FOR), ..Outlier::DEFAULT };
        let watched = Watched::default();
        let mut now = EJECT_FOR;
        let mut lengths = Vec::new();
        for _ in 0..12 {
            let length = watched.next_ejection(&outlier, now).as_secs();
            lengths.push(length);
            now += length * 1000;
            watched.ended(now);
        }
        assert_eq!(lengths, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
        now += 3 * EJECT_FOR;
        assert_eq!(watched.next_ejection(&outlier, now).as_secs(), 240);
        watched.ended(now);
        now += 100 * EJECT_FOR;
        assert_eq!(watched.next_ejection(&outlier, now).as_secs(), 30);
    }

    #[test]
    fn some_may_be_out_but_never_a_sole_one() {
        let most = |max_ejected, endpoints| Outlier { max_ejected, ..Outlier::DEFAULT }.most_out(endpoints);
        assert_eq!([1, 2, 3, 4, 10].map(|endpoints| most(50, endpoints)), [0, 1, 1, 2, 5]);
        assert_eq!([1, 2, 5, 20].map(|endpoints| most(10, endpoints)), [0, 1, 1, 2]);
        assert_eq!([1, 2].map(|endpoints| most(100, endpoints)), [1, 2]);
    }

    #[test]
    fn latency_is_compared_to_the_median_of_peers() {
        assert!(is_slow(300, 70_000, &mut [20_000, 21_000, 90_000]));
        assert!(!is_slow(300, 60_000, &mut [20_000, 21_000, 90_000]));
        assert!(!is_slow(300, 70_000, &mut [20_000]), "one peer says nothing");
        assert!(!is_slow(300, 900, &mut [100, 100, 100]), "noise");
        let watched = Watched::default();
        assert!(watched.observe(Duration::from_millis(10), 5000));
        assert!(!watched.observe(Duration::from_millis(10), 5999));
        assert!(watched.observe(Duration::from_millis(170), 6000));
        assert_eq!(watched.mean(), 20_000);
    }
}
