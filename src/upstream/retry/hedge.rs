//! When a request gets a further attempt beside one that is slow to answer.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// The `hedge` of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    pub after: After,
    /// Further attempts of a request at most.
    pub max: u8,
}

/// How long the response's head may take before another endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Time(Duration),
    /// As long as so many percent of the last responses took at most.
    Percentile(u8),
}

/// The last response times of an upstream. Lock-free.
#[derive(Debug)]
pub struct ResponseTimes {
    /// In microseconds.
    samples: [AtomicU32; SAMPLES],
    count: AtomicU64,
    /// A percentile that was computed: its number (8 bits), for which part of the count (24 bits), and its microseconds.
    computed: AtomicU64,
}

const SAMPLES: usize = 1024;
/// Fewer samples say nothing of the slow ones.
const ENOUGH: u64 = 100;
/// A percentile is computed anew after so many samples.
const PART: u64 = 64;

// === impl ResponseTimes ===

impl Default for ResponseTimes {
    fn default() -> Self {
        Self {
            samples: std::array::from_fn(|_| AtomicU32::new(0)),
            count: AtomicU64::new(0),
            computed: AtomicU64::new(0),
        }
    }
}

impl ResponseTimes {
    pub fn record(&self, time: Duration) {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let nth = self.count.fetch_add(1, Ordering::Relaxed);
        self.samples[(nth % SAMPLES as u64) as usize].store(micros, Ordering::Relaxed);
    }

    /// `None` before there are enough samples.
    pub fn percentile(&self, percent: u8) -> Option<Duration> {
        let count = self.count.load(Ordering::Relaxed);
        if count < ENOUGH {
            return None;
        }
        let known = u64::from(percent) << 56 | (count / PART % (1 << 24)) << 32;
        let computed = self.computed.load(Ordering::Relaxed);
        if computed & !u64::from(u32::MAX) == known {
            return Some(Duration::from_micros(computed & u64::from(u32::MAX)));
        }
        let micros = self.compute(percent, count);
        self.computed.store(known | u64::from(micros), Ordering::Relaxed);
        Some(Duration::from_micros(micros.into()))
    }

    #[cold]
    fn compute(&self, percent: u8, count: u64) -> u32 {
        let length = usize::try_from(count).map_or(SAMPLES, |count| count.min(SAMPLES));
        let mut samples: Vec<u32> =
            self.samples[..length].iter().map(|sample| sample.load(Ordering::Relaxed)).collect();
        let nth = (length * usize::from(percent)).div_ceil(100).clamp(1, length) - 1;
        *samples.select_nth_unstable(nth).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_percentile_is_known_from_enough_samples_on() {
        let times = ResponseTimes::default();
        (1..100).for_each(|ms| times.record(MS * ms));
        assert_eq!(times.percentile(95), None);
        times.record(MS * 100);
        assert_eq!(times.percentile(95), Some(MS * 95));
        assert_eq!(times.percentile(50), Some(MS * 50));
        assert_eq!(times.percentile(99), Some(MS * 99));
    }

    #[test]
    fn it_follows_the_last_samples() {
        let times = ResponseTimes::default();
        (0..2000).for_each(|_| times.record(MS));
        assert_eq!(times.percentile(95), Some(MS));
        (0..100).for_each(|_| times.record(MS * 50));
        assert_eq!(times.percentile(95), Some(MS * 50));
        (0..1024).for_each(|_| times.record(MS * 2));
        assert_eq!(times.percentile(99), Some(MS * 2));
    }

    #[test]
    fn hours_are_bounded() {
        let times = ResponseTimes::default();
        (0..100).for_each(|_| times.record(Duration::from_secs(86_400)));
        assert_eq!(times.percentile(50), Some(Duration::from_micros(u32::MAX.into())));
    }
}
