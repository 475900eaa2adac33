//! A split compiled: every entry can get requests, and its requests have somewhere to go when it steps back.

use std::{ops::RangeInclusive, sync::Arc, time};

use super::{
    By, Canary, Registry, Side, Split,
    config::{self, Entry, SplitBy, SplitCookie},
};
use crate::{
    action::proxy::Proxy,
    diagnostic::{Code, Diagnostic, Diagnostics},
    http::cookie::{Attributes, SameSite, Secure},
    matcher::Conditions,
    value::{Duration, Name, Spanned, TextOr},
};

/// What is compiled of an entry elsewhere; `None` where an error was reported.
pub struct Part {
    pub proxy: Option<Arc<Proxy>>,
    /// The entry's conditions, where it has some.
    pub conditions: Option<Option<Conditions>>,
}

const HEAVIEST: u16 = 10_000;
const DAY: u64 = 86_400;
const TTL: time::Duration = time::Duration::from_secs(30 * DAY);
const TTLS: RangeInclusive<time::Duration> = SECOND..=time::Duration::from_secs(365 * DAY);
const SECOND: time::Duration = time::Duration::from_secs(1);
const WINDOW: time::Duration = time::Duration::from_secs(30);
const WINDOWS: RangeInclusive<time::Duration> = SECOND..=time::Duration::from_secs(600);
const STEP_BACK: time::Duration = time::Duration::from_secs(300);
const MIN_REQUESTS: u32 = 50;

/// Compiles the split at `site`. `None` where an error was reported.
pub fn compile(
    written: &Spanned<Vec<Spanned<Entry>>>,
    by: Option<&Spanned<SplitBy>>,
    (site, parts): (Arc<str>, Vec<Part>),
    registry: &Registry,
    out: &mut Diagnostics,
) -> Option<Split> {
    let is_sound = check(written, &parts, out);
    let by = by.map_or(Some(By::Chance), |by| self::by(by, &parts, out));
    let sides = written.iter().zip(parts).map(|(entry, part)| side(entry, part, &site, registry, out));
    // All of them are looked at before anything is given up.
    let sides: Vec<Option<Side>> = sides.collect();
    let sides: Option<Box<[Side]>> = sides.into_iter().collect();
    is_sound.then_some(Split { site, sides: sides?, by: by? })
}

/// The name of a side.
fn name(entry: &Entry) -> &Spanned<Name> {
    entry.name.as_ref().unwrap_or(&entry.upstream)
}

fn has_conditions(entry: &Entry) -> bool {
    !(entry.headers.is_empty() && entry.query.is_empty() && entry.cookies.is_empty())
}

fn weight(entry: &Entry) -> u16 {
    entry.weight.map_or(0, |weight| weight.value)
}

/// What the entries are to one another.
fn check(written: &Spanned<Vec<Spanned<Entry>>>, parts: &[Part], out: &mut Diagnostics) -> bool {
    let before = out.iter().count();
    if written.len() < 2 {
        let message = format!("split must have at least two entries (got {})", written.len());
        let problem = Diagnostic::error(Code::BadValue, written.span, message);
        out.push(problem.help("a single upstream is written as proxy: { upstream: NAME }"));
        return false;
    }
    for (place, entry) in written.iter().enumerate() {
        if let Some(first) = written[..place].iter().find(|first| name(first).value == name(entry).value) {
            let message = format!("two entries of split are called {}", name(entry));
            let problem = Diagnostic::error(Code::DuplicateName, name(entry).span, message);
            out.push(problem.label(name(first).span, "the first").help("give one of them a name: NAME"));
        }
        if entry.weight.is_none() && !has_conditions(entry) {
            let message = format!("entry {} of split has neither a weight nor conditions", name(entry));
            let problem = Diagnostic::error(Code::MissingKey, entry.span, message);
            out.push(problem.help("add weight: 5"));
        }
        if let Some(weight) = entry.weight.filter(|weight| weight.value > HEAVIEST) {
            let message = format!("weight must be from 0 to {HEAVIEST} (got {})", weight.value);
            out.push(Diagnostic::error(Code::BadValue, weight.span, message));
        }
        let covers = |first: &&Part| {
            let conditions = |part: &Part| part.conditions.clone().flatten();
            conditions(first).zip(conditions(&parts[place])).is_some_and(|(first, own)| first.covers(&own))
        };
        if parts[..place].iter().any(|first| covers(&first)) {
            let message = format!("the conditions of entry {} have no effect", name(entry));
            let problem = Diagnostic::error(Code::NoEffect, entry.span, message);
            out.push(problem.reason("an entry before it takes all requests that meet them"));
        }
        check_canary(written, entry, out);
    }
    if written.iter().all(|entry| weight(entry) == 0 && (entry.weight.is_some() || has_conditions(entry))) {
        let problem = Diagnostic::error(Code::BadValue, written.span, "all weights of split are 0");
        out.push(
            problem
                .reason("a request that meets no conditions has nowhere to go")
                .help("give an entry a weight above 0"),
        );
    }
    out.iter().count() == before
}

fn check_canary(written: &[Spanned<Entry>], entry: &Entry, out: &mut Diagnostics) {
    let Some(canary) = &entry.canary else { return };
    if weight(entry) == 0 && !has_conditions(entry) {
        let message = format!("canary has no effect: entry {} gets no requests", name(entry));
        let problem = Diagnostic::error(Code::NoEffect, canary.span, message);
        out.push(problem.help("give the entry a weight above 0"));
    }
    if !written.iter().any(|other| other.canary.is_none() && weight(other) > 0) {
        let message = "canary needs an entry without canary and with a weight above 0";
        let problem = Diagnostic::error(Code::BadValue, canary.span, message);
        out.push(problem.reason("when the canary steps back, its requests have nowhere to go"));
    }
    if canary.max_failure_ratio.is_none() && canary.max_latency.is_none() {
        let message = "canary does not say when the entry steps back";
        let problem = Diagnostic::error(Code::MissingKey, canary.span, message);
        out.push(problem.help("add max_failure_ratio: 5% or max_latency: 500ms"));
    }
    if let Some(ratio) = canary.max_failure_ratio.filter(|ratio| ratio.value.0 == 100) {
        let message = "max_failure_ratio must be below 100%";
        let problem = Diagnostic::error(Code::NoEffect, ratio.span, message);
        out.push(problem.reason("no more than all requests can fail"));
    }
}

fn side(
    entry: &Entry,
    part: Part,
    site: &Arc<str>,
    registry: &Registry,
    out: &mut Diagnostics,
) -> Option<Side> {
    let canary = entry.canary.as_ref().map(|canary| self::canary(canary, out));
    let name = name(entry).value.clone();
    let canary = match canary {
        None => None,
        Some(canary) => {
            let canary = canary?;
            Some((canary, registry.canary(site, &name, canary.window)))
        }
    };
    Some(Side {
        proxy: part.proxy?,
        weight: weight(entry),
        conditions: part.conditions?,
        canary,
        metrics: registry.metrics(site, &name),
        name,
    })
}

fn canary(written: &config::Canary, out: &mut Diagnostics) -> Option<Canary> {
    let window = within("window", written.window, WINDOW, &WINDOWS, "1s to 10m", out);
    let step_back = written.step_back_for;
    let step_back_for = within("step_back_for", step_back, STEP_BACK, &TTLS, "1s to 365d", out);
    if let Some(latency) = written.max_latency.filter(|latency| latency.get().is_zero()) {
        let message = "max_latency must be greater than zero";
        out.push(Diagnostic::error(Code::BadValue, latency.span, message));
        return None;
    }
    Some(Canary {
        max_failure_ratio: written.max_failure_ratio.map(|ratio| ratio.value.0),
        max_latency: written.max_latency.map(|latency| latency.get()),
        min_requests: written.min_requests.map_or(MIN_REQUESTS, std::num::NonZeroU32::get),
        window: window?,
        step_back_for: step_back_for?,
    })
}

fn by(written: &Spanned<SplitBy>, parts: &[Part], out: &mut Diagnostics) -> Option<By> {
    let SplitCookie { cookie, ttl } = match &written.value {
        TextOr::Text(key) => return Some(By::Key(key.clone())),
        TextOr::Map(cookie) => cookie,
    };
    let ttl = within("ttl", *ttl, TTL, &TTLS, "1s to 365d", out);
    let upstreams = parts.iter().filter_map(|part| part.proxy.as_ref()).map(|proxy| &proxy.upstream);
    let mut sticky = upstreams.filter_map(|upstream| Some((&upstream.name, upstream.sticky.as_deref()?)));
    if let Some((upstream, _)) = sticky.find(|(_, sticky)| sticky.cookie() == cookie.value.as_str()) {
        let message = format!("upstream {upstream} has the cookie {} for its sticky sessions", cookie.value);
        let problem = Diagnostic::error(Code::BadValue, cookie.span, message);
        out.push(problem.help("give this cookie another name"));
        return None;
    }
    let text = format!("; Path=/; Max-Age={}; HttpOnly{}", ttl?.as_secs(), SameSite::default().attribute());
    Some(By::Cookie(cookie.value.clone(), Attributes::new(text, Secure::Auto)))
}

fn within(
    key: &str,
    written: Option<Spanned<Duration>>,
    default: time::Duration,
    allowed: &RangeInclusive<time::Duration>,
    said: &str,
    out: &mut Diagnostics,
) -> Option<time::Duration> {
    let Some(written) = written else { return Some(default) };
    if !allowed.contains(&written.get()) {
        let message = format!("{key} must be from {} (got {})", said, written.value);
        out.push(Diagnostic::error(Code::BadValue, written.span, message));
        return None;
    }
    Some(written.get())
}
