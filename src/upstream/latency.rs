//! A moving average of response times that follows a rise at once and forgets with time ("peak EWMA").

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How fast the past fades: to a third in this time.
const FADE: Duration = Duration::from_secs(10);

/// What a failure counts as: a failed connection, or a response such as 503. It comes quickly, and would make a broken
/// endpoint look like a fast one.
const FAILURE: Duration = Duration::from_secs(5);

/// Lock-free: one word holds the average in microseconds and when it was made in milliseconds since `start`.
#[derive(Debug)]
pub struct Latency {
    start: Instant,
    word: AtomicU64,
}

impl Latency {
    pub fn new(start: Instant) -> Self {
        Self { start, word: AtomicU64::new(0) }
    }

    /// The average as of now; `None` without observations, or where all have faded.
    pub fn at(&self, now: Instant) -> Option<Duration> {
        let faded = faded(self.word.load(Ordering::Relaxed), self.millis(now));
        (faded >= 1.0).then(|| Duration::from_micros(faded as u64))
    }

    pub fn observe(&self, now: Instant, latency: Duration) {
        let millis = self.millis(now);
        let latency = latency.as_micros().min(u128::from(u32::MAX)) as f64;
        let next = |word| {
            let kept = fading(millis, word);
            let old = f64::from(word as u32) * kept;
            let average = if latency > old { latency } else { old + latency * (1.0 - kept) };
            Some(u64::from(millis) << 32 | (average.ceil() as u32 as u64))
        };
        // A lost race leaves the other's observation, which is as good.
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// A failure is slow, and more so where it took longer.
    pub fn failed(&self, now: Instant, latency: Duration) {
        self.observe(now, latency.max(FAILURE));
    }

    /// Past observations say nothing any more.
    pub fn forget(&self) {
        self.word.store(0, Ordering::Relaxed);
    }

    fn millis(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.start).as_millis() as u32
    }
}

/// The average of a word, less what time took of it.
fn faded(word: u64, millis: u32) -> f64 {
    f64::from(word as u32) * fading(millis, word)
}

fn fading(millis: u32, word: u64) -> f64 {
    match millis.wrapping_sub((word >> 32) as u32) {
        // Most of them, where an endpoint is busy.
        0 => 1.0,
        age => exp_of_minus(f64::from(age) / FADE.as_millis() as f64),
    }
}

/// e to the power of -x, within a third of a percent: endpoints are compared for each request, and exact powers cost more.
fn exp_of_minus(x: f64) -> f64 {
    let halvings = x * std::f64::consts::LOG2_E;
    if halvings >= 60.0 {
        return 0.0;
    }
    let whole = halvings as u64;
    let rest = halvings - whole as f64;
    // A parabola through the ends, and the exponent of the format.
    (1.0 - rest * (0.6716 - rest * 0.1716)) * f64::from_bits((1023 - whole) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Clock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn rises_at_once_falls_slowly_and_fades() {
        let clock = Clock::manual();
        let latency = Latency::new(clock.now());
        assert_eq!(latency.at(clock.now()), None);
        latency.observe(clock.now(), 10 * MS);
        assert_eq!(latency.at(clock.now()), Some(10 * MS));
        latency.observe(clock.now(), 100 * MS);
        assert_eq!(latency.at(clock.now()), Some(100 * MS));

        clock.advance(Duration::from_secs(1));
        latency.observe(clock.now(), 10 * MS);
        let now = latency.at(clock.now()).unwrap();
        assert!(now > 80 * MS && now < 100 * MS, "{now:?}");

        clock.advance(Duration::from_secs(10));
        let later = latency.at(clock.now()).unwrap();
        assert!(later > now / 3 && later < now / 2, "{later:?}");
        clock.advance(Duration::from_secs(600));
        assert_eq!(latency.at(clock.now()), None);
    }

    #[test]
    fn the_power_is_near_enough() {
        for nth in 0..4000 {
            let x = f64::from(nth) / 100.0;
            let (got, exact) = (exp_of_minus(x), (-x).exp());
            assert!((got - exact).abs() <= exact * 0.004, "{x}: {got}, {exact}");
        }
        assert_eq!(exp_of_minus(1e9), 0.0);
    }

    #[test]
    fn a_failure_is_slow() {
        let clock = Clock::manual();
        let latency = Latency::new(clock.now());
        latency.failed(clock.now(), MS);
        assert_eq!(latency.at(clock.now()), Some(FAILURE));
        latency.failed(clock.now(), 2 * FAILURE);
        assert_eq!(latency.at(clock.now()), Some(2 * FAILURE));
    }
}
