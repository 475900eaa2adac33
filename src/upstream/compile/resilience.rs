//! How an upstream deals with endpoints that fail, compiled.

use std::{ops::RangeInclusive, time};

use super::{duration, given, refuse};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    upstream::{
        breaker::CircuitBreaker,
        config::{Config, resilience as config},
        outlier::Outlier,
        settings::Resilience,
    },
    value::{Duration, Percent, Spanned, TextOr},
};

const WINDOW: time::Duration = time::Duration::from_secs(10);
const WINDOWS: RangeInclusive<time::Duration> = time::Duration::from_secs(1)..=time::Duration::from_secs(600);
const MIN_REQUESTS: u32 = 20;
const FAILURE_RATIO: u8 = 50;
const OPEN_FOR: time::Duration = time::Duration::from_secs(5);
const MAX_OPEN_FOR: time::Duration = time::Duration::from_secs(60);

pub fn resilience(config: &Config, out: &mut Diagnostics) -> Option<Resilience> {
    let outlier = match &config.outlier {
        None => Some(Some(Outlier::DEFAULT)),
        Some(Spanned { value: TextOr::Text(config::OutlierOff::Off), .. }) => Some(None),
        Some(Spanned { value: TextOr::Map(written), .. }) => self::outlier(written, out).map(Some),
    };
    let circuit_breaker = config.circuit_breaker.as_ref().map(|written| self::circuit_breaker(written, out));
    let panic_threshold = config.panic_threshold.map(|written| {
        if matches!(outlier, Some(None)) && config.health.is_none() {
            let message = "panic_threshold has no effect: outlier is off, and there are no health checks";
            let problem = Diagnostic::error(Code::NoEffect, written.span, message);
            return refuse(out, problem.help("add health: { tcp: {} }, or remove outlier: false"));
        }
        share("panic_threshold", written, out)
    });
    let failover_threshold = config.failover_threshold.map(|written| {
        let has_tiers = config.endpoints.iter().any(|endpoint| match &endpoint.value {
            TextOr::Text(_) => false,
            TextOr::Map(map) => map.priority.is_some() || map.backup.is_some() || map.zone.is_some(),
        });
        if !has_tiers {
            let message = "failover_threshold has no effect: all endpoints have the same priority and zone";
            let problem = Diagnostic::error(Code::NoEffect, written.span, message);
            return refuse(out, problem.help("give the endpoints that wait a priority: 1, or backup: true"));
        }
        share("failover_threshold", written, out)
    });
    let slow_start = config.slow_start.map(|written| duration(Some(written), time::Duration::ZERO, out));
    Some(Resilience {
        outlier: outlier?,
        circuit_breaker: given(circuit_breaker)?,
        failover_threshold: given(failover_threshold)?,
        panic_threshold: given(panic_threshold)?,
        slow_start: given(slow_start)?,
    })
}

fn outlier(written: &config::Outlier, out: &mut Diagnostics) -> Option<Outlier> {
    let default = Outlier::DEFAULT;
    let failure_ratio = written.failure_ratio.map(|ratio| share("failure_ratio", ratio, out));
    let max_ejected = written.max_ejected.map(|ejected| {
        let message = "max_ejected must be from 1% to 100% (got 0%)";
        match ejected.value.0 {
            0 => refuse(
                out,
                Diagnostic::error(Code::BadValue, ejected.span, message)
                    .help("outlier: false ejects no endpoint"),
            ),
            percent => Some(percent),
        }
    });
    let window = window(written.window, out);
    let eject_for = duration(written.eject_for, default.eject_for, out);
    let max_eject_for = longest(
        ("eject_for", eject_for),
        ("max_eject_for", written.max_eject_for, default.max_eject_for),
        out,
    );
    let unused = [
        ("window", written.window.map(|window| window.span)),
        ("min_requests", written.min_requests.map(|least| least.span)),
    ];
    let mut is_sound = true;
    if written.failure_ratio.is_none() && written.latency.is_none() {
        for (key, span) in unused.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            let message = format!("{key} has no effect without failure_ratio or latency");
            out.push(Diagnostic::error(Code::NoEffect, span, message).help("add failure_ratio: 50%"));
            is_sound = false;
        }
    }
    is_sound.then_some(Outlier {
        consecutive_failures: written
            .consecutive_failures
            .map_or(default.consecutive_failures, |count| count.get().into()),
        counts_statuses: true,
        failure_ratio: given(failure_ratio)?,
        latency: written.latency.map(|latency| latency.0),
        window: window?,
        min_requests: written.min_requests.map_or(default.min_requests, |least| least.get()),
        eject_for: eject_for?,
        max_eject_for: max_eject_for?,
        max_ejected: given(max_ejected)?.unwrap_or(default.max_ejected),
    })
}

fn circuit_breaker(
    written: &Spanned<config::CircuitBreaker>,
    out: &mut Diagnostics,
) -> Option<CircuitBreaker> {
    let failure_ratio = written.failure_ratio.map(|ratio| share("failure_ratio", ratio, out));
    let window = window(written.window, out);
    let open_for = duration(written.open_for, OPEN_FOR, out);
    let max_open_for =
        longest(("open_for", open_for), ("max_open_for", written.max_open_for, MAX_OPEN_FOR), out);
    Some(CircuitBreaker {
        failure_ratio: given(failure_ratio)?.unwrap_or(FAILURE_RATIO),
        window: window?,
        min_requests: written.min_requests.map_or(MIN_REQUESTS, |least| least.get()),
        open_for: open_for?,
        max_open_for: max_open_for?,
    })
}

fn share(key: &str, written: Spanned<Percent>, out: &mut Diagnostics) -> Option<u8> {
    match written.value.0 {
        0 => {
            let message = format!("{key} must be from 1% to 100% (got 0%)");
            let problem = Diagnostic::error(Code::BadValue, written.span, message);
            refuse(out, problem.help(format!("without {key} there is none")))
        }
        percent => Some(percent),
    }
}

fn window(written: Option<Spanned<Duration>>, out: &mut Diagnostics) -> Option<time::Duration> {
    let Some(written) = written else { return Some(WINDOW) };
    if WINDOWS.contains(&written.get()) {
        return Some(written.get());
    }
    let message = format!("window must be from 1s to 10m (got {})", written.value);
    refuse(out, Diagnostic::error(Code::BadValue, written.span, message))
}

/// A bound of a time that grows: it is at least the time that is first.
fn longest(
    (first_key, first): (&str, Option<time::Duration>),
    (key, written, default): (&str, Option<Spanned<Duration>>, time::Duration),
    out: &mut Diagnostics,
) -> Option<time::Duration> {
    let Some(span) = written.map(|written| written.span) else { return Some(default.max(first?)) };
    let longest = duration(written, default, out)?;
    let first = first?;
    if longest < first {
        let message = format!("{key} ({longest:?}) must not be shorter than {first_key} ({first:?})");
        return refuse(out, Diagnostic::error(Code::BadValue, span, message).compared());
    }
    Some(longest)
}
