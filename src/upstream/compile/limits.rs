//! The limits of an upstream and of its pools of connections, compiled.

use std::{num::NonZeroU32, ops::RangeInclusive, time};

use super::{duration, refuse};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    upstream::{
        adaptive::Adaptive,
        config::{self, Config, InFlightText},
        settings::{InFlight, Most, Pool},
    },
    value::{Spanned, TextOr},
    wire::h1::response::HeadLimits,
};

const POOL_IDLE: time::Duration = time::Duration::from_secs(60);
/// Connections to an endpoint that are kept ready at most.
const MOST_READY: u32 = 64;
const QUEUE_TIMEOUT: time::Duration = time::Duration::from_secs(1);

pub fn pool(config: &Config, out: &mut Diagnostics) -> Option<Pool> {
    let written = &config.pool;
    let idle = duration(written.idle, POOL_IDLE, out);
    let max_age = match written.max_age {
        None => Some(None),
        Some(_) => duration(written.max_age, POOL_IDLE, out).map(Some),
    };
    let min = written.min.filter(|min| min.value > 0);
    let min = min.map_or(Some(0), |min| self::min(min, config, out));
    Some(Pool {
        idle: idle?,
        max_age: max_age?,
        max_requests: written.max_requests,
        min: min?,
        max: written.max.map(|max| max.value),
    })
}

/// Connections that are kept ready serve every request: what a connection begins with must not depend on one.
fn min(written: Spanned<u32>, config: &Config, out: &mut Diagnostics) -> Option<u32> {
    let min = written.value;
    let problem = |code, message: String| Diagnostic::error(code, written.span, message);
    if min > MOST_READY {
        let message = format!("min must be at most {MOST_READY} (got {min})");
        return refuse(out, problem(Code::BadValue, message));
    }
    if let Some(max) = config.pool.max.filter(|max| max.value.get() < min) {
        let message = format!("min ({min}) must not be greater than max ({})", max.value);
        return refuse(out, problem(Code::BadValue, message).compared());
    }
    if let Some(tls) = config.tls.as_ref().filter(|tls| tls.server_name.is_none()) {
        let message = "min needs a fixed server name: without tls.server_name each connection is for the request's host";
        return refuse(
            out,
            problem(Code::MissingKey, message.into())
                .label(tls.span, "server_name is missing here")
                .help("add server_name: api.internal"),
        );
    }
    if config.proxy_protocol.is_some() {
        let message =
            "min has no effect with proxy_protocol: each connection begins with the address of its client";
        return refuse(out, problem(Code::NoEffect, message.into()).help("remove min or proxy_protocol"));
    }
    Some(min)
}

/// How many requests may be in flight, where that is limited.
pub fn in_flight(written: &config::Limits, out: &mut Diagnostics) -> Option<Option<InFlight>> {
    let timeout = duration(written.queue_timeout, QUEUE_TIMEOUT, out);
    let queue = written.queue.map_or(0, |queue| queue.value);
    let mut is_sound = true;
    let mut no_effect = |span, message: &str, help: &str| {
        out.push(Diagnostic::error(Code::NoEffect, span, message).help(help));
        is_sound = false;
    };
    if let (Some(queue), None) = (written.queue, &written.in_flight) {
        no_effect(queue.span, "queue has no effect without in_flight", "add in_flight: 1000");
    }
    if let Some(timeout) = written.queue_timeout.filter(|_| queue == 0) {
        no_effect(
            timeout.span,
            "queue_timeout has no effect without a queue",
            "add in_flight: 1000, queue: 100",
        );
    }
    if let Some(order) = written.queue_order.filter(|_| queue == 0) {
        no_effect(order.span, "queue_order has no effect without a queue", "add in_flight: 1000, queue: 100");
    }
    let timeout = timeout.filter(|_| is_sound)?;
    let order = written.queue_order.map_or_else(Default::default, |order| order.value);
    let most = match &written.in_flight {
        None => return Some(None),
        Some(most) => self::most(most, out)?,
    };
    Some(Some(InFlight { most, queue, timeout, order }))
}

fn most(written: &Spanned<config::InFlightSetting>, out: &mut Diagnostics) -> Option<Most> {
    let map = match &written.value {
        TextOr::Text(InFlightText::Number(number)) => return Some(Most::Fixed(*number)),
        TextOr::Text(InFlightText::Adaptive) => &config::AdaptiveLimit::default(),
        TextOr::Map(map) => &map.adaptive,
    };
    let usual = Adaptive::default();
    let number = |written: Option<Spanned<NonZeroU32>>| written.map(|number| number.value.get());
    let (min, max) = match (number(map.min), number(map.max)) {
        (Some(min), Some(max)) => (min, max),
        (Some(min), None) => (min, usual.max.max(min)),
        (None, Some(max)) => (usual.min.min(max), max),
        (None, None) => (usual.min, usual.max),
    };
    if let Some(span) = map.min.filter(|_| min > max).map(|min| min.span) {
        let message = format!("min ({min}) must not be greater than max ({max})");
        return refuse(out, Diagnostic::error(Code::BadValue, span, message).compared());
    }
    let initial = number(map.initial).unwrap_or(usual.initial.clamp(min, max));
    if let Some(span) = map.initial.filter(|_| !(min..=max).contains(&initial)).map(|initial| initial.span) {
        let message = format!("initial must be from min ({min}) to max ({max}) (got {initial})");
        return refuse(out, Diagnostic::error(Code::BadValue, span, message).compared());
    }
    let tolerance = map.tolerance.map_or(usual.tolerance, |tolerance| tolerance.0);
    Some(Most::Adaptive(Adaptive { min, max, initial, tolerance }))
}

pub fn response_limits(written: &config::Limits, out: &mut Diagnostics) -> Option<HeadLimits> {
    const SIZE: RangeInclusive<u64> = 1 << 10..=16 << 20;
    const FIELDS: RangeInclusive<u16> = 1..=4096;
    let mut limits = Some(HeadLimits::default());
    if let Some(Spanned { value: size, span }) = written.header_size {
        match usize::try_from(size.0).ok().filter(|_| SIZE.contains(&size.0)) {
            Some(size) => limits = limits.map(|limits| HeadLimits { size, ..limits }),
            None => {
                let message = format!("header_size must be from 1KiB to 16MiB (got {size})");
                limits = refuse(out, Diagnostic::error(Code::BadValue, span, message));
            }
        }
    }
    if let Some(Spanned { value: fields, span }) = written.headers {
        match FIELDS.contains(&fields) {
            true => limits = limits.map(|limits| HeadLimits { fields: fields.into(), ..limits }),
            false => {
                let message = format!("headers must be from 1 to 4096 (got {fields})");
                limits = refuse(out, Diagnostic::error(Code::BadValue, span, message));
            }
        }
    }
    limits
}
