//! Limits how many requests may be in flight.

use std::{num::NonZeroU32, sync::Arc};

use http::{HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Builder, Context, Exchange, Mode, Next, OnRequest, Refusal,
    limit::{self, By, Identity, InFlight},
};
use crate::error::Reason;

pub const ADDS_UP: bool = true;

/// Refuses requests beyond `max` in flight with 503 and Retry-After: what is full is the place, whoever filled it. A
/// request is in flight until its response has ended, a tunnel until it is closed. Of several in a chain each holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Concurrency")]
pub struct Config {
    /// The most requests in flight at once, from 1.
    pub max: NonZeroU32,
    /// What requests are told apart by, as in rate_limit. Default: nothing, all count together.
    #[serde(default)]
    pub by: Option<limit::Written>,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    #[serde(default)]
    pub mode: Mode,
}

struct Concurrency {
    in_flight: Arc<InFlight>,
    max: u32,
}

/// Requests end all the time: who comes again soon may find room.
const RETRY_AFTER: u64 = 1;

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder) {
    let by = config.by.as_ref().map_or_else(By::all_together, |by| By::compile(by, chain, cx.diagnostics));
    let identity = Identity { place: cx.place.clone(), by };
    let part = Concurrency { in_flight: cx.world.limits.in_flight(identity), max: config.max.get() };
    chain.guard(config.mode, Arc::new(part));
}

impl OnRequest for Concurrency {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        // One named chain may come twice on the way: the request is one.
        if exchange.permits.iter().any(|permit| permit.is_of(&self.in_flight)) {
            return Next::Continue;
        }
        match self.in_flight.enter(exchange, self.max) {
            Some(permit) => {
                exchange.permits.push(permit);
                Next::Continue
            }
            None => Refusal::new(Reason::TooManyInFlight)
                .with(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER))
                .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        middleware::limit::{Place, Registry, Within},
        value::Clock,
    };

    fn limit(registry: &Registry, max: u32) -> Concurrency {
        let place = Place::Written(Within::Scope("test".into()), 0);
        Concurrency { in_flight: registry.in_flight(Identity { place, by: By::client_ip() }), max }
    }

    fn passes(limit: &Concurrency, exchange: &mut Exchange) -> bool {
        matches!(limit.on_request(exchange), Next::Continue)
    }

    #[test]
    fn a_request_holds_its_place_until_it_is_gone_whatever_the_limit_becomes() {
        let registry = Registry::new(Clock::manual());
        let [mut a, mut b, mut c] = [(); 3].map(|()| Exchange::for_tests("GET", "/"));
        let before = limit(&registry, 2);
        assert!(passes(&before, &mut a) && passes(&before, &mut b) && !passes(&before, &mut c));
        let after = limit(&registry, 3);
        drop(before);
        assert!(passes(&after, &mut c));
        assert!(passes(&after, &mut a), "it is in already");
        let smaller = limit(&registry, 1);
        drop((a, b));
        let mut d = Exchange::for_tests("GET", "/");
        assert!(!passes(&smaller, &mut d));
        drop(c);
        assert!(passes(&smaller, &mut d));
    }
}
