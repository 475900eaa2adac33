//! Splits, as written: upstreams that share the requests of a route.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    matcher::{Fields, Texts},
    upstream::config::BalanceKey,
    value::{CookieName, Duration, Name, Percent, Spanned, TextOr},
};

/// An upstream that gets a share of the requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SplitEntry")]
pub struct Entry {
    /// The upstream's name.
    pub upstream: Spanned<Name>,
    /// Its share of the requests beside the other weights, 0 to 10000. It may be left out beside conditions, and is 0 then.
    #[serde(default)]
    pub weight: Option<Spanned<u16>>,
    /// Its name in logs, metrics and cookies. Default: the upstream's.
    #[serde(default)]
    pub name: Option<Spanned<Name>>,
    /// Requests whose header fields meet these conditions come here, whatever the weights.
    #[serde(default)]
    pub headers: Fields,
    /// Requests whose query parameters meet these conditions come here, whatever the weights.
    #[serde(default)]
    pub query: Texts,
    /// Requests whose cookies meet these conditions come here, whatever the weights.
    #[serde(default)]
    pub cookies: Texts,
    /// Takes its requests to the other entries for a time if too many fail or are slow. Default: never.
    #[serde(default)]
    pub canary: Option<Spanned<Canary>>,
}

/// What keeps a user on one side: client_ip, "header:NAME", "cookie:NAME", "query:NAME", host or path, whose hash decides; or a
/// cookie that Portolan sets.
pub type SplitBy = TextOr<BalanceKey, SplitCookie>;

/// A cookie that names the side. It is set by the first response, and is not sent upstream.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitCookie {
    /// The cookie's name.
    pub cookie: Spanned<CookieName>,
    /// How long a user stays on a side, 1s to 365d. Default 30d.
    #[serde(default)]
    pub ttl: Option<Spanned<Duration>>,
}

/// When an entry steps back: its requests then go to the other entries.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Canary {
    /// The largest share of failures, as 5%. Failures are statuses of 500 and more, and requests without a whole response. More of
    /// them are ignored while the other entries together fail as often. Default: no share is too large.
    pub max_failure_ratio: Option<Spanned<Percent>>,
    /// The longest time to the response's head, as 500ms. 95% of the requests must be as fast. Default: none is too long.
    pub max_latency: Option<Spanned<Duration>>,
    /// Fewer requests in `window` say nothing. Default 50.
    pub min_requests: Option<NonZeroU32>,
    /// The time that failures and latencies are counted over. 1s to 10m, default 30s.
    pub window: Option<Spanned<Duration>>,
    /// How long it steps back, 1s to 365d. Then it gets a tenth of its share until `min_requests` have ended well. Default 5m.
    pub step_back_for: Option<Spanned<Duration>>,
}
