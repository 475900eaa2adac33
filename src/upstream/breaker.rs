//! A circuit breaker: rejects requests at once while too many of an upstream's fail.
//!
//! One word holds the state, so that a request passes a closed circuit by one load. Outcomes are counted exactly.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::window::Window;
use crate::{
    telemetry::metrics,
    value::{Clock, Name},
};

/// When the circuit opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CircuitBreaker {
    /// The share of failures in percent.
    pub failure_ratio: u8,
    pub window: Duration,
    pub min_requests: u32,
    pub open_for: Duration,
    pub max_open_for: Duration,
}

/// An upstream's circuit.
#[derive(Debug)]
pub struct Circuit {
    upstream: Name,
    settings: CircuitBreaker,
    clock: Clock,
    start: Instant,
    word: AtomicU64,
    window: Window,
    metrics: Arc<metrics::Upstream>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    /// One request is let through.
    HalfOpen,
    Open,
}

/// A request's way through the circuit. What becomes of the request is said to it; a probe of which nothing was said, as where
/// the client disconnected, lets another be made.
#[derive(Debug)]
pub struct Permit {
    circuit: Arc<Circuit>,
    is_probe: bool,
    failed: Option<bool>,
    is_counted: bool,
}

/// The circuit is open: it may be tried again in this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected(pub Duration);

/// The state as a word: closed is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    state: State,
    /// How often it was opened in a row.
    opened: u64,
    /// Until when it is open, in milliseconds.
    until: u64,
}

/// What a client is told while a probe is on its way.
const NEXT_PROBE: Duration = Duration::from_secs(1);
const MOST_OPENED: u64 = 31;

// === impl CircuitBreaker ===

impl fmt::Display for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failure_ratio, window, min_requests, open_for, .. } = self;
        write!(
            f,
            "{failure_ratio}% failures of {min_requests} requests in {window:?} open the circuit for {open_for:?}"
        )
    }
}

// === impl Circuit ===

impl Circuit {
    pub fn new(
        upstream: Name,
        settings: CircuitBreaker,
        clock: Clock,
        metrics: Arc<metrics::Upstream>,
    ) -> Self {
        let (start, word) = (clock.now(), AtomicU64::new(0));
        Self { upstream, window: Window::new(settings.window), settings, clock, start, word, metrics }
    }

    pub fn state(&self) -> State {
        self.word().state
    }

    /// Lets a request pass, or rejects it.
    pub fn admit(self: &Arc<Self>) -> Result<Permit, Rejected> {
        let permit = |is_probe| Permit { circuit: self.clone(), is_probe, failed: None, is_counted: false };
        let word = self.word();
        let rejected = match word.state {
            State::Closed => return Ok(permit(false)),
            State::HalfOpen => NEXT_PROBE,
            State::Open => {
                let now = self.now();
                let half_open = Word { state: State::HalfOpen, ..word };
                if now < word.until {
                    Duration::from_millis(word.until - now)
                } else if self.turn(word, half_open) {
                    return Ok(permit(true));
                } else {
                    // Another request is the probe.
                    NEXT_PROBE
                }
            }
        };
        self.metrics.rejected();
        Err(Rejected(rejected))
    }

    fn count(&self, failed: bool) {
        let word = self.word();
        if word.state != State::Closed {
            return;
        }
        let now = self.now();
        self.window.record(now, failed);
        if failed {
            self.judge(word, now);
        }
    }

    /// A request that was counted as a success failed later.
    fn correct(&self) {
        let (word, now) = (self.word(), self.now());
        if word.state == State::Closed {
            self.window.correct(now);
            self.judge(word, now);
        }
    }

    fn judge(&self, word: Word, now: u64) {
        if self.window.counts(now).reach(self.settings.failure_ratio, self.settings.min_requests) {
            self.open(word, now);
        }
    }

    fn probed(&self, failed: Option<bool>) {
        let word = self.word();
        if word.state != State::HalfOpen {
            return;
        }
        match failed {
            Some(true) => self.open(word, self.now()),
            Some(false) => {
                self.window.clear();
                if self.turn(word, Word::CLOSED) {
                    tracing::info!(upstream = self.upstream.as_str(), "circuit is closed");
                }
            }
            // The next request is the probe.
            None => {
                self.turn(word, Word { state: State::Open, until: 0, ..word });
            }
        }
    }

    #[cold]
    fn open(&self, word: Word, now: u64) {
        let opened = (word.opened + 1).min(MOST_OPENED);
        let factor = 1u32 << (opened - 1).min(MOST_OPENED - 1);
        let length = self.settings.open_for.saturating_mul(factor).min(self.settings.max_open_for);
        let until = now + length.as_millis() as u64;
        if self.turn(word, Word { state: State::Open, opened, until }) {
            self.metrics.opened();
            let (upstream, milliseconds) = (self.upstream.as_str(), length.as_millis() as u64);
            tracing::warn!(upstream, milliseconds, "circuit is open");
        }
    }

    fn word(&self) -> Word {
        Word::from(self.word.load(Ordering::Acquire))
    }

    fn turn(&self, from: Word, to: Word) -> bool {
        self.word.compare_exchange(from.into(), to.into(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn now(&self) -> u64 {
        self.clock.now().saturating_duration_since(self.start).as_millis() as u64
    }
}

// === impl State ===

impl State {
    /// The word in the access log and in the status.
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

// === impl Permit ===

impl Permit {
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// The response's head is there.
    pub fn answered(&mut self, failed: bool) {
        self.failed = Some(failed);
        self.count();
    }

    /// An attempt failed. Another may make it good, unless the response had begun.
    pub fn failed(&mut self) {
        match self.is_counted {
            true if self.failed == Some(false) && !self.is_probe => self.circuit.correct(),
            true => {}
            false => self.failed = Some(true),
        }
        self.failed = Some(true);
    }

    fn count(&mut self) {
        if std::mem::replace(&mut self.is_counted, true) {
            return;
        }
        match (self.is_probe, self.failed) {
            (true, failed) => self.circuit.probed(failed),
            (false, Some(failed)) => self.circuit.count(failed),
            (false, None) => {}
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.count();
    }
}

// === impl Word ===

impl Word {
    const CLOSED: Self = Self { state: State::Closed, opened: 0, until: 0 };
}

impl From<u64> for Word {
    fn from(word: u64) -> Self {
        let state = match word & 3 {
            0 => State::Closed,
            1 => State::HalfOpen,
            _ => State::Open,
        };
        Self { state, opened: word >> 2 & 63, until: word >> 8 }
    }
}

impl From<Word> for u64 {
    fn from(word: Word) -> Self {
        let state = match word.state {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        };
        word.until << 8 | word.opened << 2 | state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    const SETTINGS: CircuitBreaker = CircuitBreaker {
        failure_ratio: 50,
        window: Duration::from_secs(10),
        min_requests: 20,
        open_for: Duration::from_secs(5),
        max_open_for: Duration::from_secs(15),
    };

    fn circuit() -> (Arc<Circuit>, Clock) {
        let (clock, name) = (Clock::manual(), "app".parse().unwrap());
        let metrics = Metrics::default().upstream(&name);
        (Arc::new(Circuit::new(name, SETTINGS, clock.clone(), metrics)), clock)
    }

    fn request(circuit: &Arc<Circuit>, failed: bool) -> bool {
        let permit = circuit.admit();
        permit.map(|mut permit| permit.answered(failed)).is_ok()
    }

    fn open(circuit: &Arc<Circuit>) {
        (0..20).for_each(|_| assert!(request(circuit, true)));
        assert_eq!(circuit.state(), State::Open);
    }

    #[test]
    fn a_share_of_failures_opens_it_from_enough_requests_on() {
        let (circuit, clock) = circuit();
        (0..19).for_each(|_| assert!(request(&circuit, true)));
        assert_eq!(circuit.state(), State::Closed);
        clock.advance(Duration::from_secs(10));
        (0..100).for_each(|_| assert!(request(&circuit, false)));
        (0..99).for_each(|_| assert!(request(&circuit, true)));
        assert_eq!(circuit.state(), State::Closed);
        assert!(request(&circuit, true));
        assert_eq!(circuit.state(), State::Open);
        assert_eq!(circuit.admit().unwrap_err(), Rejected(Duration::from_secs(5)));
        clock.advance(Duration::from_millis(4999));
        assert_eq!(circuit.admit().unwrap_err(), Rejected(Duration::from_millis(1)));
    }

    #[test]
    fn one_probe_at_a_time_closes_it_or_opens_it_for_longer_up_to_a_bound() {
        let (circuit, clock) = circuit();
        open(&circuit);
        for seconds in [5, 10, 15, 15] {
            clock.advance(Duration::from_secs(seconds) - Duration::from_millis(1));
            assert!(circuit.admit().is_err(), "{seconds}");
            clock.advance(Duration::from_millis(1));
            let mut probe = circuit.admit().unwrap();
            assert!(probe.is_probe() && circuit.state() == State::HalfOpen);
            assert_eq!(circuit.admit().unwrap_err(), Rejected(NEXT_PROBE));
            probe.failed();
            drop(probe);
            assert_eq!(circuit.state(), State::Open);
        }
        clock.advance(Duration::from_secs(15));
        assert!(request(&circuit, false));
        assert_eq!(circuit.state(), State::Closed);
        assert!(request(&circuit, true), "what failed before is forgotten");
        assert_eq!(circuit.state(), State::Closed);
    }

    #[test]
    fn a_probe_that_says_nothing_lets_another_be_made() {
        let (circuit, clock) = circuit();
        open(&circuit);
        clock.advance(Duration::from_secs(5));
        drop(circuit.admit().unwrap());
        assert!(circuit.admit().unwrap().is_probe());
    }

    #[test]
    fn an_attempt_that_another_makes_good_is_no_failure() {
        let (circuit, _) = circuit();
        for _ in 0..100 {
            let mut permit = circuit.admit().unwrap();
            permit.failed();
            permit.answered(false);
        }
        assert_eq!(circuit.window.counts(0).failures, 0);
        let mut cut = circuit.admit().unwrap();
        cut.answered(false);
        cut.failed();
        drop(cut);
        assert_eq!(circuit.window.counts(0).failures, 1, "a response that is cut is one");
        drop(circuit.admit().unwrap());
        assert_eq!(circuit.window.counts(0).total, 101, "a client's disconnect says nothing");
    }

    #[test]
    fn requests_that_end_while_it_is_open_change_nothing() {
        let (circuit, clock) = circuit();
        let mut late = circuit.admit().unwrap();
        open(&circuit);
        clock.advance(Duration::from_secs(5));
        let probe = circuit.admit().unwrap();
        late.answered(false);
        assert_eq!(circuit.state(), State::HalfOpen);
        drop(probe);
    }
}
