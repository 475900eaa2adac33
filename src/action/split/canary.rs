//! A canary's state: how its requests and those beside it ended, and whether it takes any. It outlives reloads. Lock-free.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    telemetry::metrics,
    upstream::{Counts, Window},
    value::Clock,
};

/// When a canary steps back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// In percent.
    pub max_failure_ratio: Option<u8>,
    pub max_latency: Option<Duration>,
    pub min_requests: u32,
    pub window: Duration,
    pub step_back_for: Duration,
}

/// What is known of one canary.
#[derive(Debug)]
pub struct CanaryState {
    /// The split and the entry, for logs.
    names: (Arc<str>, Arc<str>),
    clock: Clock,
    start: Instant,
    phase: AtomicU8,
    /// Until when it takes no requests, in milliseconds of its own.
    until: AtomicU64,
    /// Its requests: all, and failures.
    own: Window,
    /// Its requests: all, and slow ones.
    slow: Window,
    /// Requests of the other entries.
    others: Window,
    /// Requests since it takes some again: all, failures, slow ones.
    trial: [AtomicU64; 3],
    metrics: Arc<metrics::Side>,
}

/// Which of its requests it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// All.
    Steady = 0,
    /// A tenth, on trial.
    Trial = 1,
    /// None.
    SteppedBack = 2,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub failed: bool,
    /// Until the response's head.
    pub after: Duration,
}

/// Why a canary steps back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Failures,
    Latency,
}

/// Of so many requests on trial one is taken.
pub const TRIAL_SHARE: u64 = 10;
/// The share of requests that may be slower than `max_latency`, in percent.
const SLOW_SHARE: u8 = 5;

// === impl CanaryState ===

impl CanaryState {
    pub fn new(
        names: (Arc<str>, Arc<str>),
        window: Duration,
        clock: Clock,
        metrics: Arc<metrics::Side>,
    ) -> Self {
        Self {
            names,
            start: clock.now(),
            clock,
            phase: AtomicU8::new(Phase::Steady as u8),
            until: AtomicU64::new(0),
            own: Window::new(window),
            slow: Window::new(window),
            others: Window::new(window),
            trial: Default::default(),
            metrics,
        }
    }

    /// Which of its requests it takes now.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Steady,
            2 if self.now() < self.until.load(Ordering::Relaxed) => Phase::SteppedBack,
            2 => self.begin_trial(),
            _ => Phase::Trial,
        }
    }

    /// How long it takes no requests yet.
    pub fn left(&self) -> Option<Duration> {
        let left = self.until.load(Ordering::Relaxed).saturating_sub(self.now());
        (self.phase() == Phase::SteppedBack).then(|| Duration::from_millis(left))
    }

    /// Its requests in the window, and how many of them failed.
    pub fn counts(&self) -> Counts {
        self.own.counts(self.now())
    }

    /// Shows whoever looks at the metrics how it does.
    pub fn show(&self) {
        self.metrics.show(self.phase() as i64);
    }

    /// One of its requests ended.
    pub fn ended(&self, canary: &Canary, ended: Ended) {
        let now = self.now();
        let is_slow = canary.max_latency.is_some_and(|most| ended.after > most);
        self.own.record(now, ended.failed);
        self.slow.record(now, is_slow);
        match self.phase() {
            Phase::Steady => self.judge(canary, now, self.own.counts(now), self.slow.counts(now)),
            Phase::Trial => {
                let [total, failures, slow] = &self.trial;
                let failures =
                    failures.fetch_add(ended.failed.into(), Ordering::Relaxed) + u64::from(ended.failed);
                let slow = slow.fetch_add(is_slow.into(), Ordering::Relaxed) + u64::from(is_slow);
                let total = total.fetch_add(1, Ordering::Relaxed) + 1;
                self.judge(canary, now, Counts { total, failures }, Counts { total, failures: slow });
                if total >= u64::from(canary.min_requests) {
                    self.end_trial();
                }
            }
            // It began before.
            Phase::SteppedBack => {}
        }
    }

    /// A response that had begun well was cut.
    pub fn broke(&self, canary: &Canary) {
        let now = self.now();
        self.own.correct(now);
        match self.phase() {
            Phase::Steady => self.judge(canary, now, self.own.counts(now), Counts::default()),
            Phase::Trial => {
                self.trial[1].fetch_add(1, Ordering::Relaxed);
            }
            Phase::SteppedBack => {}
        }
    }

    /// A request of another entry ended.
    pub fn other_ended(&self, failed: bool) {
        self.others.record(self.now(), failed);
    }

    /// Steps back where these counts ask for it.
    fn judge(&self, canary: &Canary, now: u64, own: Counts, slow: Counts) {
        let others = || self.others.counts(now);
        let cause = if canary
            .max_failure_ratio
            .is_some_and(|most| exceeds(own, most, canary.min_requests) && is_worse(own, others()))
        {
            Cause::Failures
        } else if exceeds(slow, SLOW_SHARE, canary.min_requests) {
            Cause::Latency
        } else {
            return;
        };
        self.step_back(canary, cause, now, (own, slow, others()));
    }

    #[cold]
    fn step_back(
        &self,
        canary: &Canary,
        cause: Cause,
        now: u64,
        (own, slow, others): (Counts, Counts, Counts),
    ) {
        self.until.store(now + canary.step_back_for.as_millis() as u64, Ordering::Relaxed);
        let before = self.phase.swap(Phase::SteppedBack as u8, Ordering::AcqRel);
        if before == Phase::SteppedBack as u8 {
            return;
        }
        self.metrics.stepped_back(cause.code());
        tracing::warn!(
            split = &*self.names.0,
            side = &*self.names.1,
            cause = cause.code(),
            requests = own.total,
            failures = own.failures,
            slow = slow.failures,
            other_requests = others.total,
            other_failures = others.failures,
            seconds = canary.step_back_for.as_secs(),
            "canary steps back"
        );
    }

    /// Its time is over: it starts anew.
    #[cold]
    fn begin_trial(&self) -> Phase {
        let (back, trial) = (Phase::SteppedBack as u8, Phase::Trial as u8);
        if self.phase.compare_exchange(back, trial, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.own.clear();
            self.slow.clear();
            self.trial.iter().for_each(|count| count.store(0, Ordering::Relaxed));
            tracing::info!(split = &*self.names.0, side = &*self.names.1, "canary is on trial");
        }
        Phase::Trial
    }

    fn end_trial(&self) {
        let (trial, steady) = (Phase::Trial as u8, Phase::Steady as u8);
        if self.phase.compare_exchange(trial, steady, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // Those on trial were judged already.
            self.own.clear();
            self.slow.clear();
            tracing::info!(
                split = &*self.names.0,
                side = &*self.names.1,
                "canary takes all of its requests again"
            );
        }
    }

    fn now(&self) -> u64 {
        self.clock.now().saturating_duration_since(self.start).as_millis() as u64
    }
}

/// Whether more than this share of enough requests failed.
fn exceeds(counts: Counts, percent: u8, least: u32) -> bool {
    counts.total >= u64::from(least) && counts.failures * 100 > u64::from(percent) * counts.total
}

/// Whether the others fail more rarely.
fn is_worse(own: Counts, others: Counts) -> bool {
    own.failures * others.total.max(1) > others.failures * own.total
}

// === impl Phase ===

impl Phase {
    pub fn word(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Trial => "trial",
            Self::SteppedBack => "stepped_back",
        }
    }
}

// === impl Cause ===

impl Cause {
    fn code(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Latency => "latency",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    const GOOD: Ended = Ended { failed: false, after: Duration::from_millis(10) };
    const BAD: Ended = Ended { failed: true, ..GOOD };
    const SLOW: Ended = Ended { after: Duration::from_millis(501), ..GOOD };

    const CANARY: Canary = Canary {
        max_failure_ratio: Some(5),
        max_latency: Some(Duration::from_millis(500)),
        min_requests: 50,
        window: Duration::from_secs(30),
        step_back_for: Duration::from_secs(300),
    };

    fn state(clock: &Clock) -> CanaryState {
        let metrics = Metrics::default().side("hosts.www.all", &"next".parse().unwrap());
        CanaryState::new(("hosts.www.all".into(), "next".into()), CANARY.window, clock.clone(), metrics)
    }

    fn end(state: &CanaryState, count: usize, ended: Ended) {
        (0..count).for_each(|_| state.ended(&CANARY, ended));
    }

    #[test]
    fn it_steps_back_above_the_ratio_of_enough_requests() {
        let clock = Clock::manual();
        let canary = state(&clock);
        end(&canary, 3, BAD);
        end(&canary, 46, GOOD);
        assert_eq!(canary.phase(), Phase::Steady, "too few to tell");
        end(&canary, 11, GOOD);
        assert_eq!(canary.phase(), Phase::SteppedBack, "3 of 50 were more than 5%");
        assert_eq!(canary.left(), Some(CANARY.step_back_for));

        let canary = state(&clock);
        end(&canary, 5, BAD);
        clock.advance(Duration::from_secs(31));
        end(&canary, 60, GOOD);
        assert_eq!(canary.phase(), Phase::Steady, "what left the window does not count");
        end(&canary, 3, BAD);
        assert_eq!(canary.phase(), Phase::Steady, "3 of 63 are not more than 5%");
        end(&canary, 1, BAD);
        assert_eq!(canary.phase(), Phase::SteppedBack);
    }

    #[test]
    fn it_stays_while_the_others_fail_as_often() {
        let clock = Clock::manual();
        let canary = state(&clock);
        (0..900).for_each(|nth| canary.other_ended(nth % 9 == 0));
        end(&canary, 90, GOOD);
        end(&canary, 10, BAD);
        assert_eq!(canary.phase(), Phase::Steady, "10% beside 11%");
        end(&canary, 3, BAD);
        assert_eq!(canary.phase(), Phase::SteppedBack, "12.6% beside 11%");
    }

    #[test]
    fn it_steps_back_where_more_than_a_twentieth_is_slow() {
        let clock = Clock::manual();
        let canary = state(&clock);
        end(&canary, 95, GOOD);
        end(&canary, 5, SLOW);
        assert_eq!(canary.phase(), Phase::Steady);
        end(&canary, 1, SLOW);
        assert_eq!(canary.phase(), Phase::SteppedBack);
    }

    #[test]
    fn responses_that_break_are_failures() {
        let clock = Clock::manual();
        let canary = state(&clock);
        end(&canary, 60, GOOD);
        (0..3).for_each(|_| canary.broke(&CANARY));
        assert_eq!(canary.phase(), Phase::Steady);
        canary.broke(&CANARY);
        assert_eq!(canary.phase(), Phase::SteppedBack);
    }

    #[test]
    fn it_starts_anew_on_trial() {
        let clock = Clock::manual();
        let canary = state(&clock);
        let step_back = || {
            end(&canary, 50, BAD);
            assert_eq!(canary.phase(), Phase::SteppedBack);
        };
        step_back();
        end(&canary, 50, GOOD);
        clock.advance(CANARY.step_back_for - Duration::from_millis(1));
        assert_eq!(canary.phase(), Phase::SteppedBack);
        clock.advance(Duration::from_millis(1));
        assert_eq!((canary.phase(), canary.counts()), (Phase::Trial, Counts::default()));
        end(&canary, 49, GOOD);
        assert_eq!(canary.phase(), Phase::Trial);
        // The trial lasts as long as it needs, longer than the window too.
        clock.advance(Duration::from_secs(60));
        end(&canary, 1, GOOD);
        assert_eq!(canary.phase(), Phase::Steady);

        step_back();
        clock.advance(CANARY.step_back_for);
        end(&canary, 47, GOOD);
        end(&canary, 3, BAD);
        assert_eq!(canary.phase(), Phase::SteppedBack, "it failed its trial");
    }
}
