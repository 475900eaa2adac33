//! How fast a request's body has to come: a client that keeps below every pause that is allowed, with a byte now and then,
//! would hold an upstream's connection for as long as it likes.

use std::{num::NonZeroU64, time::Duration};

use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use tokio::time::Instant;

use crate::snapshot::settings::{BodyRate, Listener};

/// The waits for one body.
#[derive(Debug)]
pub struct Pace {
    rule: Rule,
    /// How long was waited before.
    waited: Duration,
    /// When the wait began that is not over.
    since: Option<Instant>,
}

/// What is required of a body.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The longest wait between two pieces.
    pub idle: Duration,
    /// Bytes per second of waiting, on average.
    pub least: Option<NonZeroU64>,
    /// The waiting that is allowed in all, whatever comes.
    pub grace: Duration,
}

/// What is allowed before a configured rate counts.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes per second that every network in use exceeds, where the configuration says nothing.
const DEFAULT: NonZeroU64 = NonZeroU64::new(240).expect("240 is not zero");

impl Rule {
    /// The rule for all bodies of a listener.
    pub fn of(settings: &Listener) -> Self {
        let idle = settings.timeouts.body_idle;
        let (least, grace) = match settings.limits.body_rate {
            BodyRate::Off => (None, idle),
            // At first, a pause may be as long as any.
            BodyRate::Default => (Some(DEFAULT), idle.max(GRACE)),
            BodyRate::Configured(rate) => (Some(rate), GRACE),
        };
        Self { idle, least, grace }
    }

    /// The rule for the body of a multiplexed request. The default rate does not hold for streams of messages, which may be
    /// silent for as long as `body_idle` lets them.
    pub fn of_stream(settings: &Listener, headers: &HeaderMap) -> Self {
        let rule = Self::of(settings);
        let is_default = settings.limits.body_rate == BodyRate::Default;
        match is_default && headers.get(CONTENT_TYPE).is_some_and(is_of_messages) {
            true => Self { least: None, ..rule },
            false => rule,
        }
    }
}

/// gRPC, and Connect's streams.
fn is_of_messages(content_type: &HeaderValue) -> bool {
    const TYPES: [&[u8]; 2] = [b"application/grpc", b"application/connect+"];
    let starts = |start: &[u8]| {
        content_type.as_bytes().get(..start.len()).is_some_and(|begun| begun.eq_ignore_ascii_case(start))
    };
    TYPES.into_iter().any(starts)
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
        self.rule.idle.min(self.rule.grace.saturating_add(earned).saturating_sub(self.waited))
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
        Pace::new(Rule { idle: Duration::from_secs(30), least: NonZeroU64::new(least), grace: GRACE })
    }

    #[test]
    fn the_default_spares_streams_of_messages_and_first_pauses() {
        let mut settings = Listener::for_tests("web");
        let headers =
            |text: &'static str| HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))]);
        let least =
            |settings: &Listener, text| Rule::of_stream(settings, &headers(text)).least.map(NonZeroU64::get);
        assert_eq!(Rule::of(&settings).grace, settings.timeouts.body_idle);
        assert_eq!(least(&settings, "text/plain"), Some(240));
        assert_eq!(least(&settings, "application/grpc+proto"), None);
        assert_eq!(least(&settings, "Application/gRPC"), None);
        settings.limits.body_rate = BodyRate::Configured(NonZeroU64::new(7).unwrap());
        assert_eq!(least(&settings, "application/grpc"), Some(7));
        settings.limits.body_rate = BodyRate::Off;
        assert_eq!(least(&settings, "text/plain"), None);
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
