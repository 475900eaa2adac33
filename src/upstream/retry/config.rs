//! `retry` as written.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::hedge::After;
use crate::value::{Duration, Method, OneOrMany, Percent, Spanned, StatusRange, TextOr};

/// Sends a request again after a failure, to another endpoint if there is one. A request that no endpoint processed can always
/// be repeated, others only if `methods` allows it. A request with more than 64 KiB of its body already sent is not repeated.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "UpstreamRetry")]
pub struct Retry {
    /// The number of further attempts. 0 to 20, default 2; 0 turns retries off.
    pub retries: Option<Spanned<u8>>,
    /// What is retried: connect_failure, reset, timeout, and statuses as 503 or 502-504. Default: connect_failure, reset and
    /// timeout.
    pub when: Option<Spanned<Vec<Spanned<Condition>>>>,
    /// The requests that are repeated although an endpoint may have processed them: idempotent, any, or methods as
    /// [GET, POST]. Default: idempotent (RFC 9110 section 9.2.2).
    pub methods: Option<Spanned<OneOrMany<Spanned<MethodWord>>>>,
    /// The most retries, as a share of the first attempts of the last ten seconds. Failed connections do not count, since
    /// they are no load for an endpoint. Default 20%.
    pub budget: Option<Spanned<Percent>>,
    /// Retries per second that are always allowed. Default 3.
    pub budget_floor: Option<Spanned<u16>>,
    /// The time of one attempt, from the complete request to the response's head. Default: none, only `timeouts.first_byte`
    /// holds.
    pub per_try_timeout: Option<Spanned<Duration>>,
    /// The wait before a failed endpoint is tried again: random, from zero to a bound that doubles with each retry. Another
    /// endpoint is tried at once. Default 25ms.
    pub backoff: Option<Spanned<Duration>>,
    /// The largest bound of that wait. Default 250ms.
    pub max_backoff: Option<Spanned<Duration>>,
    /// A Retry-After up to this value is waited for before the same endpoint is tried again. If it is longer, the client gets
    /// the response. Default 1s.
    pub max_retry_after: Option<Spanned<Duration>>,
    /// Sends an idempotent request without a body to another endpoint as well, if its response has not begun after a time such
    /// as 200ms, or after p95: the time that 95% of the last responses took at most. The first response wins, the other
    /// attempt is cancelled. Hedges count as retries in `budget`. Default: none.
    pub hedge: Option<Spanned<Hedge>>,
}

/// When a further attempt starts beside one that is slow: a time or percentile, or a map that says more.
pub type Hedge = TextOr<After, HedgeMap>;

/// A hedge with a number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Hedge")]
pub struct HedgeMap {
    /// The time without a response after which a further attempt starts: as 200ms or p95. p50 to p99.
    pub after: Spanned<After>,
    /// Further attempts of a request, each after this time. 1 to 3, default 1.
    #[serde(default)]
    pub max: Option<Spanned<u8>>,
}

crate::value::text_value!(
    After,
    "hedge-after",
    "A time with its unit, or a percentile of the last response times from p50 to p99.",
    "200ms",
    "p95"
);

impl FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_prefix('p') else {
            let time = text.parse::<Duration>();
            return time
                .map(|time| Self::Time(time.0))
                .map_err(|error| format!("{error}; or a percentile as p95"));
        };
        let percent = percent.parse().ok().filter(|percent| (50..=99).contains(percent));
        percent
            .map(Self::Percentile)
            .ok_or_else(|| format!("a percentile must be from p50 to p99 (got {text})"))
    }
}

/// What makes an attempt fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    ConnectFailure,
    Reset,
    Timeout,
    Status(StatusRange),
}

crate::value::text_value!(
    Condition,
    "retry-condition",
    "connect_failure, reset (the connection broke before the response's head), timeout (per_try_timeout), a status or a range of them.",
    "connect_failure",
    "503"
);

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "connect_failure" => Ok(Self::ConnectFailure),
            "reset" => Ok(Self::Reset),
            "timeout" => Ok(Self::Timeout),
            _ if text.starts_with(|first: char| first.is_ascii_digit()) => text.parse().map(Self::Status),
            _ => Err(format!(
                "{text:?} is no condition: connect_failure, reset, timeout, a status as 503, or a range as 502-504"
            )),
        }
    }
}

/// A word of `methods`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MethodWord {
    Idempotent,
    Any,
    Method(Method),
}

crate::value::text_value!(MethodWord, "retry-methods", "idempotent, any, or a method.", "idempotent", "POST");

impl FromStr for MethodWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "idempotent" => Ok(Self::Idempotent),
            "any" => Ok(Self::Any),
            _ => text.parse().map(Self::Method).map_err(|error| format!("{error}; or idempotent, or any")),
        }
    }
}
