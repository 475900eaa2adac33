//! The token bucket, exactly, as the generic cell rate algorithm keeps it: of a bucket one number is known, the
//! time at which it will be full again (the "theoretical arrival time" of ITU-T I.371). Taking a token moves that
//! time on by the interval in which one comes; a bucket is empty when it is full only after its whole depth.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::value::Rate;

/// Times are sixteenths of a nanosecond since the process began: the interval of any rate is exact to one in
/// sixteen thousand, and there are 36 years of them.
pub(super) const PER_SECOND: u64 = 16 * 1_000_000_000;

const MOST_IN_A_SECOND: u64 = 1_000_000;

/// A year until a bucket is full again.
const DEEPEST: u64 = 365 * 86_400 * PER_SECOND;

/// How much a bucket gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The time in which a token comes.
    interval: u64,
    /// The time in which an empty bucket becomes full: an interval for each token that it holds.
    depth: u64,
}

/// Why there is no such quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Tokens come faster than a limit can tell.
    TooFast,
    /// The bucket is not full again in a year.
    TooDeep,
}

/// A token was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many are left.
    pub left: u64,
    /// When there is one more.
    pub more_in: u64,
    /// When the bucket is full again, as things stand, by the clock of whoever keeps it.
    full_at: u64,
}

/// There was no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When there is one.
    pub more_in: u64,
}

impl Quota {
    pub fn new(rate: Rate, burst: NonZeroU32) -> Result<Self, Problem> {
        // Rounded up: rather a token late than one too many.
        let interval = (rate.per.seconds() * PER_SECOND).div_ceil(rate.count.get());
        let depth = interval.checked_mul(burst.get().into()).filter(|depth| *depth <= DEEPEST);
        match depth {
            _ if rate.count.get() > MOST_IN_A_SECOND * rate.per.seconds() => Err(Problem::TooFast),
            Some(depth) => Ok(Self { interval, depth }),
            None => Err(Problem::TooDeep),
        }
    }

    /// Takes a token from a bucket, if there is one. Of several that take at once none sees what another has
    /// taken already.
    pub fn take(&self, bucket: &AtomicU64, now: u64) -> Result<Taken, Refused> {
        let mut found = bucket.load(Ordering::Relaxed);
        loop {
            // Fuller than full there is not. Emptier than empty is what another quota left when it was changed.
            let empty = now + self.depth;
            let full_at = found.clamp(now, empty) + self.interval;
            let used = full_at - now;
            let Some(free) = self.depth.checked_sub(used) else {
                bucket.fetch_min(empty, Ordering::Relaxed);
                return Err(Refused { more_in: used - self.depth });
            };
            match bucket.compare_exchange_weak(found, full_at, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(self.taken(free, full_at)),
                Err(other) => found = other,
            }
        }
    }

    /// Whether there is no token in a bucket. None is taken.
    pub fn look(&self, bucket: &AtomicU64, now: u64) -> Option<Refused> {
        let used = bucket.load(Ordering::Relaxed).clamp(now, now + self.depth) - now;
        self.lacking(used)
    }

    /// What a bucket says of which so much is used.
    pub(super) fn lacking(&self, used: u64) -> Option<Refused> {
        let more_in = (used.min(self.depth) + self.interval).saturating_sub(self.depth);
        (more_in > 0).then_some(Refused { more_in })
    }

    /// The time in which a token comes.
    pub(super) fn interval(&self) -> u64 {
        self.interval
    }

    /// The time in which an empty bucket becomes full.
    pub(super) fn depth(&self) -> u64 {
        self.depth
    }

    /// What a bucket that is kept elsewhere says: what is used of it, or with a minus the time until there is a token.
    pub(super) fn told(&self, answer: i64, full_at: u64) -> Result<Taken, Refused> {
        match u64::try_from(answer) {
            Ok(used) => Ok(self.taken(self.depth.saturating_sub(used), full_at)),
            Err(_) => Err(Refused { more_in: answer.unsigned_abs() }),
        }
    }

    fn taken(&self, free: u64, full_at: u64) -> Taken {
        Taken { left: free / self.interval, more_in: self.interval - free % self.interval, full_at }
    }

    /// Puts a token back, unless the bucket has become full by itself since: then nothing is lacking.
    pub fn give_back(&self, bucket: &AtomicU64, taken: Taken, now: u64) {
        if now < taken.full_at {
            let less = |full_at: u64| Some(full_at.saturating_sub(self.interval));
            // It always yields something, so it cannot fail.
            let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

impl Taken {
    pub(super) fn full_at(self) -> u64 {
        self.full_at
    }
}

/// Whole seconds from now, as fields of a response say them: rounded up, so that who waits for so long is not
/// refused again.
pub fn seconds(time: u64) -> u64 {
    time.div_ceil(PER_SECOND).max(1)
}

/// The time of something that many nanoseconds after the beginning.
pub(super) fn time(nanoseconds: u128) -> u64 {
    u64::try_from(nanoseconds * 16).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(rate: &str, burst: u32) -> Result<Quota, Problem> {
        Quota::new(rate.parse().unwrap(), burst.try_into().unwrap())
    }

    const MILLISECOND: u64 = PER_SECOND / 1000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (quota, bucket) = (quota("100/s", 3).unwrap(), AtomicU64::new(0));
        let at = |ms: u64| quota.take(&bucket, 1000 * MILLISECOND + ms * MILLISECOND);
        assert_eq!([at(0), at(0), at(0)].map(|taken| taken.unwrap().left), [2, 1, 0]);
        assert_eq!(at(4), Err(Refused { more_in: 6 * MILLISECOND }));
        assert_eq!(at(10).unwrap().more_in, 10 * MILLISECOND);
        assert_eq!(at(19), Err(Refused { more_in: MILLISECOND }));
        assert_eq!(at(10_000).unwrap().left, 2, "never more than the burst");
    }

    #[test]
    fn a_look_says_what_taking_would_say() {
        let (quota, bucket) = (quota("1/s", 2).unwrap(), AtomicU64::new(0));
        let now = 1000 * PER_SECOND;
        assert_eq!(quota.look(&bucket, now), None);
        assert!(quota.take(&bucket, now).is_ok());
        assert_eq!(quota.look(&bucket, now), None);
        assert!(quota.take(&bucket, now).is_ok());
        assert_eq!(quota.look(&bucket, now), Some(Refused { more_in: PER_SECOND }));
        assert_eq!(quota.look(&bucket, now), quota.take(&bucket, now).err());
        assert_eq!(quota.look(&bucket, now + PER_SECOND), None);
        assert_eq!(quota.lacking(u64::MAX), Some(Refused { more_in: PER_SECOND }), "emptier than empty");
    }

    #[test]
    fn quotas_have_bounds() {
        assert!(quota("1000000/s", 1).is_ok());
        assert_eq!(quota("1000001/s", 1), Err(Problem::TooFast));
        assert_eq!(quota("1/h", 8761), Err(Problem::TooDeep));
        assert_eq!(quota("1/h", u32::MAX), Err(Problem::TooDeep));
    }

    #[test]
    fn what_is_given_back_was_never_taken() {
        let (quota, bucket) = (quota("1/s", 2).unwrap(), AtomicU64::new(0));
        let now = 1000 * PER_SECOND;
        let first = quota.take(&bucket, now).unwrap();
        let second = quota.take(&bucket, now).unwrap();
        quota.give_back(&bucket, first, now);
        assert_eq!(quota.take(&bucket, now).unwrap().left, 0);
        assert!(quota.take(&bucket, now).is_err());
        quota.give_back(&bucket, second, now + 2 * PER_SECOND);
        let later = now + 2 * PER_SECOND;
        assert_eq!(
            [quota.take(&bucket, later).unwrap().left, quota.take(&bucket, later).unwrap().left],
            [1, 0]
        );
        assert!(quota.take(&bucket, later).is_err(), "a full bucket gets nothing back");
    }

    #[test]
    fn a_larger_quota_does_not_have_to_wait_for_the_smaller_ones_debts() {
        let (small, large) = (quota("1/h", 1).unwrap(), quota("100/s", 10).unwrap());
        let (bucket, now) = (AtomicU64::new(0), 1000 * PER_SECOND);
        assert!(small.take(&bucket, now).is_ok());
        assert_eq!(large.take(&bucket, now), Err(Refused { more_in: 10 * MILLISECOND }));
        assert!(large.take(&bucket, now + 10 * MILLISECOND).is_ok());
    }

    #[test]
    fn threads_take_no_more_than_there_is() {
        let (quota, bucket) = (quota("1/h", 1000).unwrap(), AtomicU64::new(0));
        let takes = || (0..1000).filter(|_| quota.take(&bucket, PER_SECOND).is_ok()).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(takes)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }

    /// A bucket as one would draw it: it holds what has come in, at most what it can hold.
    struct Drawn {
        content: u128,
        at: u64,
    }

    impl Drawn {
        fn take(&mut self, quota: &Quota, now: u64) -> Result<(u64, u64), u64> {
            let (depth, interval) = (u128::from(quota.depth), u128::from(quota.interval));
            self.content = (self.content + u128::from(now - self.at)).min(depth);
            self.at = now;
            let number = |value: u128| u64::try_from(value).unwrap();
            if self.content < interval {
                return Err(number(interval - self.content));
            }
            self.content -= interval;
            Ok((number(self.content / interval), number(interval - self.content % interval)))
        }
    }

    proptest! {
        #[test]
        fn it_is_the_bucket_that_one_would_draw(
            count in 1u64..2000,
            per in 0usize..3,
            burst in 1u32..50,
            // Pauses in hundredths of an interval.
            pauses in prop::collection::vec(prop_oneof![Just(0u64), 0u64..300, 0u64..10_000], 1..200),
        ) {
            let quota = quota(&format!("{count}/{}", ["s", "m", "h"][per]), burst).unwrap();
            let bucket = AtomicU64::new(0);
            let mut now = PER_SECOND;
            let mut drawn = Drawn { content: quota.depth.into(), at: now };
            for pause in pauses {
                now += pause * quota.interval / 100;
                let taken = quota.take(&bucket, now).map(|taken| (taken.left, taken.more_in));
                prop_assert_eq!(taken.map_err(|refused| refused.more_in), drawn.take(&quota, now));
            }
        }
    }
}
