//! How an upstream deals with endpoints that fail, as written.

use std::num::{NonZeroU16, NonZeroU32};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::value::{Duration, Percent, PercentAbove, Spanned, TextOr};

/// `false`, or when requests that fail eject an endpoint.
pub type OutlierSetting = TextOr<OutlierOff, Outlier>;

/// Outlier detection turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum OutlierOff {
    #[serde(rename = "false")]
    Off,
}

/// When requests that fail eject an endpoint. Failures are failed connections, exchanges that break, timeouts, and where
/// `outlier` is written the statuses 429, 500, 502, 503 and 504. Without it five failures in a row eject an endpoint, and
/// no status is a failure. A sole endpoint is not ejected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outlier {
    /// Failures in a row that eject an endpoint. Default 5.
    pub consecutive_failures: Option<NonZeroU16>,
    /// The share of failures that ejects an endpoint, as 50%. Default: no share does.
    pub failure_ratio: Option<Spanned<Percent>>,
    /// The mean response time that ejects an endpoint, in percent of its peers' median, as 300%. Default: none does.
    pub latency: Option<PercentAbove>,
    /// The time that `failure_ratio` and `latency` are judged by. 1s to 10m, default 10s.
    pub window: Option<Spanned<Duration>>,
    /// Fewer requests in `window` say nothing. Default 20.
    pub min_requests: Option<Spanned<NonZeroU32>>,
    /// How long an endpoint is ejected the first time; each further time so much longer. A good time takes one away. Then it gets
    /// one request at a time until one succeeds. Default 5s.
    pub eject_for: Option<Spanned<Duration>>,
    /// The longest that an endpoint is ejected. Default 5m, or eject_for where that is longer.
    pub max_eject_for: Option<Spanned<Duration>>,
    /// The share of endpoints that are out at a time, unhealthy ones counted; one of several may always be. Default 50%.
    pub max_ejected: Option<Spanned<Percent>>,
}

/// Rejects requests at once while too many fail. Open, it answers 503 (`circuit_open`) without contact to an endpoint. After
/// `open_for` one request at a time is let through: a good one closes the circuit, a failed one opens it for twice as long.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CircuitBreaker {
    /// The share of failed requests that opens the circuit. Failures are failed attempts that were not made good by
    /// another, and the statuses 429, 500, 502, 503 and 504. Default 50%.
    #[serde(default)]
    pub failure_ratio: Option<Spanned<Percent>>,
    /// The time that the share is of. 1s to 10m, default 10s.
    #[serde(default)]
    pub window: Option<Spanned<Duration>>,
    /// Fewer requests in `window` open nothing. Default 20.
    #[serde(default)]
    pub min_requests: Option<NonZeroU32>,
    /// How long the circuit is open the first time. Default 5s.
    #[serde(default)]
    pub open_for: Option<Spanned<Duration>>,
    /// The longest that it is open. Default 1m, or open_for where that is longer.
    #[serde(default)]
    pub max_open_for: Option<Spanned<Duration>>,
}
