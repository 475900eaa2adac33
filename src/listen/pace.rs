//! How fast a request's body has to come: a client that keeps below every pause that is allowed, with a byte now and then,
//! would hold an upstream's connection for as long as it likes.

use std::{num::NonZeroU64, time::Duration};

use tokio::time::Instant;

use crate::snapshot::settings::Listener;

/// The waits for one body.
#[derive(Debug)]
pub struct Pace {
    rule: Rule,
    /// How long was waited before.
    waited: Duration,
    /// When the wait began that is not over.
    since: Option<Instant>,
}

/// What is asked of all bodies of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The longest wait between two pieces.
    pub idle: Duration,
    /// Bytes for each second that was waited, on average.
    pub least: Option<NonZeroU64>,
}

/// So long may be waited in all, whatever comes.
const GRACE: Duration = Duration::from_secs(10);

impl Rule {
    pub fn of(settings: &Listener) -> Self {
        Self { idle: settings.timeouts.body_idle, least: settings.limits.body_rate }
    }
}

impl Pace {
    pub fn new(rule: Rule) -> Self {
        Self { rule, waited: Duration::ZERO, since: None }
    }

    /// Another body begins.
    pub fn restart(&mut self) {
        *self = Self::new(self.rule);
    }

    /// How long the wait that begins now, or has begun, may take, where this many bytes have come before.
    pub fn limit(&mut self, received: u64) -> Duration {
        let Some(least) = self.rule.least else { return self.rule.idle };
        self.since.get_or_insert_with(Instant::now);
        let earned = Duration::from_millis(received.saturating_mul(1000) / least);
        self.rule.idle.min((GRACE + earned).saturating_sub(self.waited))
    }

    /// The wait is over, if there was one.
    pub fn resume(&mut self) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(least: u64) -> Pace {
        Pace::new(Rule { idle: Duration::from_secs(30), least: NonZeroU64::new(least) })
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_come_pays_for_waiting() {
        let mut pace = pace(100);
        assert_eq!(pace.limit(0), GRACE);
        assert_eq!(pace.limit(500), Duration::from_secs(15));
        tokio::time::advance(Duration::from_secs(4)).await;
        pace.resume();
        // Nobody waits for the body: what passes is not the client's fault.
        tokio::time::advance(Duration::from_secs(1000)).await;
        pace.resume();
        assert_eq!(pace.limit(500), Duration::from_secs(11));
        tokio::time::advance(Duration::from_secs(20)).await;
        pace.resume();
        assert_eq!(pace.limit(500), Duration::ZERO);
        assert_eq!(pace.limit(u64::MAX), Duration::from_secs(30), "no longer than a pause may be");
        pace.restart();
        assert_eq!(pace.limit(0), GRACE);
    }

    #[test]
    fn without_a_rate_a_pause_alone_counts() {
        let mut pace = pace(0);
        assert_eq!(pace.limit(0), Duration::from_secs(30));
        assert!(pace.since.is_none());
    }
}
