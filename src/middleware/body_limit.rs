//! Refuses requests whose body is larger than allowed: at once where the head says so, else when it has grown.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context, Exchange, Mode, Next, OnRequest, Refusal};
use crate::{error::Reason, value::Size};

pub const ADDS_UP: bool = true;
/// Its name where its decisions are counted that are made while the body comes.
pub const KIND: &str = "body_limit";

/// Refuses requests whose body is larger than `size` with 413 (RFC 9110 section 15.5.14): at once where
/// Content-Length says so, else when that much has come. Of several in a chain, each holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BodyLimit")]
pub struct Config {
    /// The most that a body may have, as 64KiB or 10MB.
    pub size: Size,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    #[serde(default)]
    pub mode: Mode,
}

struct BodyLimit {
    size: u64,
    mode: Mode,
}

/// What bodies are held to that came without a length, or with one that they may not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    enforced: Option<u64>,
    observed: Option<u64>,
}

pub fn install(config: &Config, _: &mut Context<'_>, chain: &mut Builder<'_>) {
    let part = BodyLimit { size: config.size.0, mode: config.mode };
    chain.guard(config.mode, Arc::new(part));
}

impl OnRequest for BodyLimit {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        if announced(exchange).is_some_and(|length| length > self.size) {
            return Refusal::new(Reason::BodyTooLarge).into();
        }
        let limit = match self.mode {
            Mode::Enforce => &mut exchange.body_limits.enforced,
            Mode::Observe => &mut exchange.body_limits.observed,
        };
        *limit = Some(limit.map_or(self.size, |other| other.min(self.size)));
        Next::Continue
    }
}

fn announced(exchange: &Exchange) -> Option<u64> {
    exchange.head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Limits {
    /// Whether a body of which so much has come goes on. What is only observed is said once.
    pub fn allow(&mut self, received: u64, observe: impl FnOnce(Reason)) -> bool {
        if self.observed.is_some_and(|most| received > most) {
            self.observed = None;
            observe(Reason::BodyTooLarge);
        }
        self.enforced.is_none_or(|most| received <= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(size: u64, length: Option<&str>) -> bool {
        let part = BodyLimit { size, mode: Mode::Enforce };
        let mut exchange = Exchange::for_tests("POST", "/");
        if let Some(length) = length {
            exchange.head.headers.insert(CONTENT_LENGTH, length.parse().unwrap());
        }
        matches!(part.on_request(&mut exchange), Next::Refuse(refusal) if refusal.reason == Reason::BodyTooLarge)
    }

    #[test]
    fn a_length_past_the_limit_is_refused_at_once() {
        assert!(stopped(10, Some("11")));
        assert!(!stopped(10, Some("10")) && !stopped(10, None));
    }

    #[test]
    fn the_strictest_of_several_holds_and_observing_is_said_once() {
        let mut exchange = Exchange::for_tests("POST", "/");
        for (size, mode) in [(100, Mode::Enforce), (50, Mode::Enforce), (10, Mode::Observe)] {
            assert!(matches!(BodyLimit { size, mode }.on_request(&mut exchange), Next::Continue));
        }
        let (mut limits, mut said) = (exchange.body_limits, 0);
        assert!(limits.allow(50, |_| said += 1) && !limits.allow(51, |_| said += 1));
        assert_eq!(said, 1);
    }
}
