//! How fast bytes pass: a token bucket that may lack something, which whoever comes next waits for. Bytes whose number is
//! known are booked, and pass when what was booked before them is paid for; others are counted when they have passed,
//! and nothing more passes before they are paid for. So over time nothing is passed beyond the rate and the burst.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::bucket::{PER_SECOND, time};
use crate::value::{Bandwidth, Clock, Size};

/// What bytes are counted by: one bucket for each direction.
#[derive(Debug)]
pub struct Meter {
    clock: Clock,
    began: Instant,
    /// When each bucket is full again, as in the buckets of rate limits.
    full_at: [AtomicU64; 2],
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    Request,
    /// To the client.
    Response,
}

/// What a meter lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed {
    /// Bytes in a second.
    rate: u64,
    /// The time in which an empty bucket becomes full.
    depth: u64,
}

/// A request's bytes pass in pieces of at least and at most so many.
const SMALLEST: u64 = 1 << 10;
const LARGEST: u64 = 16 << 10;

impl Speed {
    /// Without a burst, what comes in a sixteenth of a second, and no less than a piece.
    pub fn new(rate: Bandwidth, burst: Option<Size>) -> Self {
        let rate = rate.0.get();
        let burst = burst.map_or(LARGEST.max(rate / 16), |burst| burst.0);
        Self { rate, depth: cost(burst, rate) }
    }

    /// How many bytes go at once: a sixteenth of a second's.
    pub fn piece(&self) -> usize {
        usize::try_from((self.rate / 16).clamp(SMALLEST, LARGEST)).unwrap_or(usize::MAX)
    }
}

/// The time in which so many bytes come.
fn cost(bytes: u64, rate: u64) -> u64 {
    let time = (u128::from(bytes) * u128::from(PER_SECOND)).div_ceil(u128::from(rate));
    u64::try_from(time).unwrap_or(u64::MAX / 4)
}

impl Meter {
    pub fn new(clock: Clock) -> Self {
        Self { began: clock.now(), clock, full_at: Default::default() }
    }

    /// Takes bytes out, which pass next or have passed; how long it lacks what was taken before them. Of none: how long
    /// until any may pass.
    pub fn book(&self, bytes: usize, way: Way, speed: &Speed) -> Duration {
        let now = time(self.clock.now().duration_since(self.began).as_nanos());
        let cost = cost(bytes as u64, speed.rate);
        let after = |full_at: u64| Some(full_at.max(now).saturating_add(cost));
        let bucket = &self.full_at[way as usize];
        let (Ok(before) | Err(before)) = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        let lacking = before.saturating_sub(now).saturating_sub(speed.depth);
        Duration::from_nanos(lacking / (PER_SECOND / 1_000_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// How long no more are to pass when these have.
    fn passed(meter: &Meter, bytes: usize, way: Way, speed: &Speed) -> Duration {
        meter.book(bytes, way, speed);
        meter.book(0, way, speed)
    }

    fn speed(rate: &str, burst: Option<&str>) -> Speed {
        Speed::new(rate.parse().unwrap(), burst.map(|burst| burst.parse().unwrap()))
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        let (clock, speed) = (Clock::manual(), speed("1000B/s", Some("100B")));
        let meter = Meter::new(clock.clone());
        let passed = |bytes| passed(&meter, bytes, Way::Response, &speed);
        assert_eq!(passed(60), Duration::ZERO);
        assert_eq!(passed(40), Duration::ZERO);
        assert_eq!(passed(100), 100 * MS);
        assert_eq!(passed(1), 101 * MS);
        assert_eq!(meter.book(0, Way::Request, &speed), Duration::ZERO, "the other way is free");
        clock.advance(101 * MS);
        assert_eq!(passed(1), MS);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(passed(101), MS, "a pause gives no more than the burst");
    }

    #[test]
    fn over_time_the_rate_is_held_whatever_the_pieces_and_the_pauses() {
        for (rate, pieces) in
            [("50KB/s", [1, 7, 1000]), ("1MiB/s", [16384, 3, 500]), ("1GiB/s", [16384, 16384, 1])]
        {
            let (clock, speed) = (Clock::manual(), speed(rate, None));
            let meter = Meter::new(clock.clone());
            let (start, mut total) = (clock.now(), 0);
            for nth in 0..3000 {
                let piece = pieces[nth % 3];
                total += piece as u64;
                // A timer is late now and then.
                let pause = passed(&meter, piece, Way::Request, &speed);
                clock.advance(pause + if nth % 10 == 0 && !pause.is_zero() { MS } else { Duration::ZERO });
            }
            let elapsed = clock.now().duration_since(start).as_secs_f64();
            let expected = (total as f64 - (LARGEST.max(speed.rate / 16)) as f64) / speed.rate as f64;
            assert!(
                elapsed >= expected - 0.001 && elapsed < expected.max(0.0) * 1.01 + 0.002,
                "{rate}: {elapsed} {expected}"
            );
        }
    }

    #[test]
    fn those_who_share_it_have_one_rate_together() {
        let (clock, speed) = (Clock::manual(), speed("1MiB/s", Some("0B")));
        let meter = Meter::new(clock.clone());
        let waits: Vec<_> = (0..8).map(|_| passed(&meter, 16384, Way::Response, &speed)).collect();
        assert!(
            waits.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_nanos(15_625_000)),
            "{waits:?}"
        );
    }

    #[test]
    fn who_comes_new_waits_for_what_others_have_booked() {
        let (clock, speed) = (Clock::manual(), speed("1000B/s", Some("100B")));
        let meter = Meter::new(clock.clone());
        let book = |bytes| meter.book(bytes, Way::Response, &speed);
        assert_eq!((book(100), book(100), book(100)), (Duration::ZERO, Duration::ZERO, 100 * MS));
        assert_eq!((book(0), book(0)), (200 * MS, 200 * MS));
        clock.advance(200 * MS);
        assert_eq!(book(1), Duration::ZERO);
    }

    #[test]
    fn pieces_are_neither_too_small_nor_too_large() {
        assert_eq!(speed("1B/s", None).piece(), 1 << 10);
        assert_eq!(speed("160KiB/s", None).piece(), 10 << 10);
        assert_eq!(speed("1GiB/s", None).piece(), 16 << 10);
    }
}
