//! Limits how often requests may come.

use std::{fmt::Write, num::NonZeroU32, sync::Arc};

use http::{HeaderName, HeaderValue, header, response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Builder, Context, Exchange, Mode, Next, OnRequest, OnResponse, Refusal,
    limit::{self, Buckets, By, Identity, Key, Place, Problem, Quota, Refused, Taken, seconds},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    value::{Name, Rate, Spanned},
};

pub const ADDS_UP: bool = true;

/// Refuses requests that come more often than `rate`, save for a `burst`, with 429 and Retry-After. All answers carry the
/// fields RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10) unless it only observes. Of several in
/// a chain each holds, and a request that one of them refuses counts for none of them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateLimit")]
pub struct Config {
    /// How often requests may come, evenly: 100/s, 6000/m or 10000/h, up to 1000000/s.
    pub rate: Spanned<Rate>,
    /// How many may come at once after a pause. Default: what `rate` is in one second, at least 1.
    #[serde(default)]
    pub burst: Option<Spanned<NonZeroU32>>,
    /// What requests are told apart by: client_ip (of IPv6 the /64; { client_ip: { v6_prefix: 56 } } says otherwise),
    /// "header:NAME", "cookie:NAME", host, route, tenant, or a list of several together. Those that lack it are one; with []
    /// all are. Default client_ip.
    #[serde(default)]
    pub by: Option<limit::Written>,
    /// A name for the count, which clients see. Places of one bucket share one count. Default: each place has its own.
    #[serde(default)]
    pub bucket: Option<Name>,
    /// Where it is counted. Default local.
    #[serde(default)]
    pub scope: Scope,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    #[serde(default)]
    pub mode: Mode,
}

/// Where it is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RateLimitScope")]
pub enum Scope {
    /// In this process
    #[default]
    Local,
}

struct RateLimit {
    buckets: Arc<Buckets>,
    quota: Quota,
    /// What clients are told it is called, and what it allows; where it only observes they are told nothing.
    told: Option<Told>,
}

struct Told {
    name: Box<str>,
    policy: HeaderValue,
}

/// What a limit said to a request, until the response tells it.
#[derive(Debug)]
pub struct Reading {
    buckets: Arc<Buckets>,
    key: Key,
    said: Result<Taken, Refused>,
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder) {
    let by = config.by.as_ref().map_or_else(By::client_ip, |by| By::compile(by, cx.diagnostics));
    let place = config.bucket.as_ref().map_or_else(|| cx.place.clone(), |name| Place::Named(name.clone()));
    let identity = Identity { place, by };
    let Some(quota) = quota(config, &identity, cx) else { return };
    let part = Arc::new(RateLimit {
        buckets: cx.world.limits.buckets(identity),
        quota,
        told: (config.mode == Mode::Enforce).then(|| Told::of(config)),
    });
    chain.guard(config.mode, part.clone());
    chain.on_response(part);
}

/// The quota; none where a problem was reported.
fn quota(config: &Config, identity: &Identity, cx: &mut Context<'_>) -> Option<Quota> {
    let rate = &config.rate;
    let burst = config.burst.map_or_else(|| default_burst(rate), |burst| burst.value);
    let quota = Quota::new(rate.value, burst).map_err(|problem| match problem {
        Problem::TooFast => {
            Diagnostic::error(Code::BadValue, rate.span, format!("{rate} is as good as no limit"))
                .help("the most is 1000000/s")
        }
        Problem::TooDeep => {
            let span = config.burst.map_or(rate.span, |burst| burst.span);
            Diagnostic::error(
                Code::BadValue,
                span,
                format!("a burst of {burst} takes more than a year to come again"),
            )
            .label(rate.span, "at this rate")
        }
    });
    let agreed = quota.and_then(|quota| {
        match cx.world.quotas.borrow_mut().other(identity, Spanned::new(quota, rate.span)) {
            None => Ok(quota),
            Some(other) => Err(Diagnostic::error(
                Code::BadValue,
                rate.span,
                "the same bucket allows something else here",
            )
            .label(other, "than here")
            .help("one bucket has one rate and one burst: give one of the two another name")),
        }
    });
    agreed.map_err(|problem| cx.diagnostics.push(problem)).ok()
}

/// What comes in a second.
fn default_burst(rate: &Rate) -> NonZeroU32 {
    let in_a_second = u32::try_from(rate.count.get() / rate.per.seconds()).unwrap_or(u32::MAX);
    NonZeroU32::new(in_a_second).unwrap_or(NonZeroU32::MIN)
}

impl OnRequest for RateLimit {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        let key = self.buckets.key(exchange);
        if exchange.rate_limits.iter().any(|other| other.is_of(&self.buckets)) {
            // One bucket in two places of a chain: the request is one.
            return Next::Continue;
        }
        let said = self.buckets.take(key, &self.quota);
        exchange.rate_limits.push(Reading { buckets: self.buckets.clone(), key, said });
        match said {
            Ok(_) => Next::Continue,
            Err(Refused { more_in }) => Refusal::new(Reason::RateLimited)
                .with(header::RETRY_AFTER, HeaderValue::from(seconds(more_in)))
                .into(),
        }
    }
}

impl OnResponse for RateLimit {
    fn on_response(&self, exchange: &mut Exchange, head: &mut response::Parts) {
        if head.status.is_informational() {
            return;
        }
        let readings = &mut exchange.rate_limits;
        let Some(at) = readings.iter().position(|reading| reading.is_of(&self.buckets)) else { return };
        let Reading { key, said, .. } = readings.swap_remove(at);
        // A request that another one refused has not been let through by this one.
        let refused = exchange.reason == Some(Reason::RateLimited);
        if let (true, Ok(taken)) = (refused, said) {
            self.buckets.give_back(key, &self.quota, taken);
        }
        if let Some(told) = &self.told {
            head.headers.append(POLICY, told.policy.clone());
            head.headers.append(LIMIT, told.limit(said, refused));
        }
    }
}

impl Reading {
    fn is_of(&self, buckets: &Arc<Buckets>) -> bool {
        Arc::ptr_eq(&self.buckets, buckets)
    }
}

impl Told {
    fn of(config: &Config) -> Self {
        let rate = config.rate.value;
        let name: Box<str> = config.bucket.as_ref().map_or_else(|| rate.to_string(), Name::to_string).into();
        let policy = format!("\"{name}\";q={};w={}", rate.count, rate.per.seconds());
        Self { name, policy: value(&policy) }
    }

    /// Section 4 of the draft: what remains, and the seconds until there is more.
    fn limit(&self, said: Result<Taken, Refused>, given_back: bool) -> HeaderValue {
        let (left, more_in) = match said {
            Ok(taken) => (taken.left + u64::from(given_back), taken.more_in),
            Err(refused) => (0, refused.more_in),
        };
        let mut text = String::with_capacity(self.name.len() + 24);
        write!(text, "\"{}\";r={left};t={}", self.name, seconds(more_in)).expect("a string takes it");
        value(&text)
    }
}

/// Names and rates have nothing that a quoted string would have to escape (RFC 9651 section 3.3.3).
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("it is visible ASCII")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        middleware::limit::{Registry, Within},
        value::Clock,
    };

    /// A limit of the registry's, by what it is called, its rate and its burst.
    fn limit(registry: &Registry, name: &str, rate: &str, burst: u32) -> RateLimit {
        let rate: Rate = rate.parse().unwrap();
        let place = Place::Written(Within::Scope(name.into()), 0);
        let told = Told { name: name.into(), policy: value(&format!("\"{name}\";q=1;w=1")) };
        RateLimit {
            buckets: registry.buckets(Identity { place, by: By::client_ip() }),
            quota: Quota::new(rate, burst.try_into().unwrap()).unwrap(),
            told: Some(told),
        }
    }

    /// A request through these limits and back: the status, and each RateLimit said.
    fn ask(limits: &[&RateLimit]) -> (u16, Vec<String>) {
        let mut exchange = Exchange::for_tests("GET", "/");
        let mut answer = http::Response::new(());
        let mut entered = Vec::new();
        for limit in limits {
            entered.push(limit);
            let refusal = match limit.on_request(&mut exchange) {
                Next::Refuse(refusal) => Some(refusal),
                _ => None,
            };
            if let Some(refusal) = refusal {
                assert!(refusal.fields.contains_key(header::RETRY_AFTER));
                exchange.reason = Some(refusal.reason);
                *answer.status_mut() = refusal.reason.status();
                break;
            }
        }
        let mut head = answer.into_parts().0;
        entered.iter().rev().for_each(|limit| limit.on_response(&mut exchange, &mut head));
        let said = head.headers.get_all(LIMIT).iter().map(|said| said.to_str().unwrap().to_owned());
        (head.status.as_u16(), said.collect())
    }

    #[test]
    fn a_request_that_one_refuses_counts_for_none() {
        let registry = Registry::new(Clock::manual());
        let (outer, inner) = (limit(&registry, "outer", "1/h", 10), limit(&registry, "inner", "1/m", 1));
        let said = |inner: &str, outer: &str| vec![inner.to_owned(), outer.to_owned()];
        let passed = said(r#""inner";r=0;t=60"#, r#""outer";r=9;t=3600"#);
        assert_eq!(ask(&[&outer, &inner]), (200, passed.clone()));
        for _ in 0..20 {
            assert_eq!(ask(&[&outer, &inner]), (429, passed.clone()));
        }
        assert_eq!(ask(&[&outer]).1, [r#""outer";r=8;t=3600"#]);
    }

    #[test]
    fn the_same_count_twice_on_the_way_counts_once() {
        let registry = Registry::new(Clock::manual());
        let (one, again) = (limit(&registry, "a", "1/h", 2), limit(&registry, "a", "1/h", 2));
        assert_eq!(ask(&[&one, &again]), (200, vec![r#""a";r=1;t=3600"#.into()]));
    }

    #[test]
    fn a_count_outlives_its_settings_and_not_its_last_user() {
        let clock = Clock::manual();
        let registry = Registry::new(clock.clone());
        let before = limit(&registry, "a", "1/m", 2);
        assert_eq!([ask(&[&before]).0, ask(&[&before]).0, ask(&[&before]).0], [200, 200, 429]);
        let after = limit(&registry, "a", "1/s", 2);
        drop(before);
        assert_eq!(ask(&[&after]).0, 429);
        clock.advance(Duration::from_secs(1));
        assert_eq!([ask(&[&after]).0, ask(&[&after]).0], [200, 429]);
        drop(after);
        assert_eq!(ask(&[&limit(&registry, "a", "1/s", 2)]).0, 200);
    }

    #[test]
    fn the_burst_is_a_second_of_the_rate() {
        for (rate, burst) in [("100/s", 100), ("6000/m", 100), ("10/m", 1), ("1/h", 1)] {
            assert_eq!(default_burst(&rate.parse().unwrap()).get(), burst, "{rate}");
        }
    }
}
