//! Limits how often requests may come.

use std::{fmt::Write, num::NonZeroU32, sync::Arc};

use http::{HeaderName, HeaderValue, header, response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Builder, Context, Exchange, Mode, Next, OnRequest, OnResponse, Refusal, RejectsFor,
    limit::{
        self, Buckets, By, Identity, Key, Place, Problem, Quota, Refused, Scope, Shared, Taken, seconds,
    },
    prolong,
};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    value::{Name, Rate, Spanned},
};

pub const ADDS_UP: bool = true;

/// Refuses requests that come more often than `rate`, save for a `burst`, with 429 and Retry-After. All answers carry the
/// fields RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10) unless it only observes. Of several in
/// a chain each holds, and a request that one of them refuses counts for none of them. Retry-After is the longest of all
/// that are used up.
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
    /// "header:NAME", "cookie:NAME", host, route, tenant, user (whom basic_auth, api_key or jwt before it found: the user's
    /// name, the key's, the token's sub), "claim:NAME" (of the token that a jwt before it found right), or a list of several
    /// together. Those that lack it are one; with [] all are. Default client_ip.
    #[serde(default)]
    pub by: Option<limit::Written>,
    /// A name for the count, which clients see. Places of one bucket share one count. Default: each place has its own.
    #[serde(default)]
    pub bucket: Option<Name>,
    /// Where it is counted: local (in this process), or shared (in the Redis that `redis` says, with all who share it).
    /// Default local.
    #[serde(default)]
    pub scope: Spanned<Scope>,
    /// What becomes of requests while Redis is gone or too slow, for scope: shared: allow (they pass uncounted), refuse
    /// (503) or local (each process counts by itself). Default local.
    #[serde(default)]
    pub unavailable: Option<Spanned<Unavailable>>,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    #[serde(default)]
    pub mode: Mode,
}

/// What becomes of requests that Redis does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RateLimitUnavailable")]
pub enum Unavailable {
    /// They pass uncounted
    Allow,
    /// They are answered 503
    Refuse,
    /// Each process counts by itself
    #[default]
    Local,
}

struct RateLimit {
    buckets: Arc<Buckets>,
    /// Where others share them; the ones here stand in for them.
    shared: Option<(Shared, Unavailable)>,
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
    key: Counted,
    said: Result<Taken, Refused>,
}

/// Where a request was counted, and as what.
#[derive(Debug)]
enum Counted {
    Here(Key),
    Shared(String),
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder) {
    let by = config.by.as_ref().map_or_else(By::client_ip, |by| By::compile(by, chain, cx.diagnostics));
    let place = config.bucket.as_ref().map_or_else(|| cx.place.clone(), |name| Place::Named(name.clone()));
    let identity = Identity { place, by };
    let (quota, shared) = (quota(config, &identity, cx), shared(config, &identity, cx));
    let Some(quota) = quota else { return };
    let part = Arc::new(RateLimit {
        buckets: cx.world.limits.buckets(identity),
        shared,
        quota,
        told: (config.mode == Mode::Enforce).then(|| Told::of(config)),
    });
    chain.guard(config.mode, part.clone());
    // A limit that was only asked for how long it would reject tells that too.
    chain.on_every_response(part);
}

/// Where it is counted for all, and what is done while that is gone.
fn shared(config: &Config, identity: &Identity, cx: &mut Context<'_>) -> Option<(Shared, Unavailable)> {
    match config.scope.value {
        Scope::Shared => {
            let redis = (cx.world.calls.redis)(config.scope.span)?;
            let unavailable = config.unavailable.map(|unavailable| unavailable.value).unwrap_or_default();
            Some((Shared::new(redis, identity), unavailable))
        }
        Scope::Local => {
            if let Some(unavailable) = &config.unavailable {
                let message = "unavailable has no effect: what is counted here is always there";
                let problem = Diagnostic::error(Code::NoEffect, unavailable.span, message);
                cx.diagnostics.push(problem.help("scope: shared counts in redis"));
            }
            None
        }
    }
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
        match cx
            .world
            .quotas
            .borrow_mut()
            .other(identity, Spanned::new((quota, config.scope.value), rate.span))
        {
            None => Ok(quota),
            Some(other) => Err(Diagnostic::error(
                Code::BadValue,
                rate.span,
                "the same bucket allows something else here",
            )
            .label(other, "than here")
            .help("one bucket has one rate, one burst and one scope: give one of the two another name")
            .compared()),
        }
    });
    agreed.map_err(|problem| cx.diagnostics.push(problem)).ok()
}

/// What comes in a second.
fn default_burst(rate: &Rate) -> NonZeroU32 {
    let in_a_second = u32::try_from(rate.count.get() / rate.per.seconds()).unwrap_or(u32::MAX);
    NonZeroU32::new(in_a_second).unwrap_or(NonZeroU32::MIN)
}

impl RateLimit {
    fn take_here(&self, exchange: &mut Exchange) -> Result<(), Box<Refusal>> {
        let key = self.buckets.key(exchange);
        let said = self.buckets.take(key, &self.quota);
        self.note(exchange, Counted::Here(key), said)
    }

    async fn take_shared(
        &self,
        shared: &Shared,
        unavailable: Unavailable,
        exchange: &mut Exchange,
    ) -> Result<(), Box<Refusal>> {
        let key = shared.key(exchange);
        let metrics = shared.redis().metrics();
        let Ok(said) = shared.take(&key, &self.quota).await else {
            return self.go_without(shared, unavailable, exchange);
        };
        match said {
            Ok(_) => metrics.passed.inc(),
            Err(_) => {
                metrics.refused.inc();
                self.buckets.count_refusal();
            }
        }
        self.note(exchange, Counted::Shared(key), said)
    }

    /// While Redis is gone.
    fn go_without(
        &self,
        shared: &Shared,
        unavailable: Unavailable,
        exchange: &mut Exchange,
    ) -> Result<(), Box<Refusal>> {
        shared.redis().metrics().unavailable.inc();
        match unavailable {
            Unavailable::Allow => Ok(()),
            Unavailable::Refuse => {
                Err(Box::new(Refusal::new(Reason::LimitUnavailable).because("redis_unavailable")))
            }
            Unavailable::Local => self.take_here(exchange),
        }
    }

    fn note(
        &self,
        exchange: &mut Exchange,
        key: Counted,
        said: Result<Taken, Refused>,
    ) -> Result<(), Box<Refusal>> {
        exchange.rate_limits.push(Reading { buckets: self.buckets.clone(), key, said });
        let refusal = |Refused { more_in }| {
            let seconds = HeaderValue::from(seconds(more_in));
            Box::new(Refusal::new(Reason::RateLimited).with(header::RETRY_AFTER, seconds))
        };
        said.map(drop).map_err(refusal)
    }

    /// How long it would reject the request; nothing where it has let the request pass already.
    fn look<'a>(&'a self, exchange: &'a mut Exchange) -> RejectsFor<'a> {
        let is_read = exchange.rate_limits.iter().any(|other| other.is_of(&self.buckets));
        if is_read || !self.buckets.is_key_known(exchange) {
            return RejectsFor::Known(None);
        }
        match &self.shared {
            Some((shared, _)) if !shared.redis().is_down() => RejectsFor::Wait(Box::pin(async move {
                let key = shared.key(exchange);
                let refused = shared.look(&key, &self.quota).await.ok().flatten()?;
                Some(self.used_up(exchange, Counted::Shared(key), refused))
            })),
            None | Some((_, Unavailable::Local)) => {
                let key = self.buckets.key(exchange);
                let refused = self.buckets.look(key, &self.quota);
                RejectsFor::Known(refused.map(|refused| self.used_up(exchange, Counted::Here(key), refused)))
            }
            Some((_, Unavailable::Allow | Unavailable::Refuse)) => RejectsFor::Known(None),
        }
    }

    fn used_up(&self, exchange: &mut Exchange, key: Counted, refused: Refused) -> u64 {
        exchange.rate_limits.push(Reading { buckets: self.buckets.clone(), key, said: Err(refused) });
        seconds(refused.more_in)
    }

    fn give_back(&self, key: &Counted, taken: Taken) {
        match (key, &self.shared) {
            (Counted::Here(key), _) => self.buckets.give_back(*key, &self.quota, taken),
            (Counted::Shared(key), Some((shared, _))) => shared.give_back(key, &self.quota, taken),
            // A bucket that is counted here and there is refused at compile.
            (Counted::Shared(_), None) => {}
        }
    }
}

impl OnRequest for RateLimit {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        if exchange.rate_limits.iter().any(|other| other.is_of(&self.buckets)) {
            // One bucket in two places of a chain: the request is one.
            return Next::Continue;
        }
        let said = match &self.shared {
            None => self.take_here(exchange),
            Some((shared, unavailable)) if shared.redis().is_down() => {
                self.go_without(shared, *unavailable, exchange)
            }
            Some((shared, unavailable)) => {
                let said = self.take_shared(shared, *unavailable, exchange);
                return Next::Wait(Box::pin(async { said.await.into() }));
            }
        };
        match said {
            Ok(()) => Next::Continue,
            Err(refusal) => Next::Refuse(refusal),
        }
    }

    fn rejects_for<'a>(&'a self, exchange: &'a mut Exchange) -> RejectsFor<'a> {
        self.look(exchange)
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
        let refused = matches!(exchange.reason, Some(Reason::RateLimited | Reason::LimitUnavailable));
        if let (true, Ok(taken)) = (refused, said) {
            self.give_back(&key, taken);
        }
        if let Some(told) = &self.told {
            head.headers.append(POLICY, told.policy.clone());
            head.headers.append(LIMIT, told.limit(said, refused));
            if let (true, Ok(Taken { left: 0, more_in, .. })) = (exchange.reason.is_some() && !refused, said)
            {
                // Another part rejects the request that took the last token.
                prolong(&mut head.headers, seconds(more_in));
            }
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
        write!(text, "\"{}\";r={left};t={}", self.name, seconds(more_in))
            .expect("writing to a String cannot fail");
        value(&text)
    }
}

/// Names and rates have nothing that a quoted string would have to escape (RFC 9651 section 3.3.3).
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("names and numbers are visible ASCII")
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
            shared: None,
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
