//! Which requests are copied to another upstream, and how much of that is done at once.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    upstream::{self, Upstream},
    value::{Duration, Name, OneOrMany, Percent, Size, Spanned},
};

/// Sends copies of requests to another upstream and throws the responses away.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Mirror")]
pub struct Config {
    /// The upstream that gets the copies.
    pub upstream: Spanned<Name>,
    /// The share of requests that are copied, chosen at random, as 1%. Default 100%.
    #[serde(default)]
    pub sample: Option<Spanned<Percent>>,
    /// The largest body that is copied, at most 16MiB. Requests with larger bodies are not copied. Default 64KiB.
    #[serde(default)]
    pub max_body: Option<Spanned<Size>>,
    /// The number of copies to this upstream at once, of all routes. Further requests are not copied. Default 100.
    #[serde(default)]
    pub in_flight: Option<NonZeroU32>,
    /// The time from sending a copy to the end of its response. Default 5s.
    #[serde(default)]
    pub timeout: Option<Spanned<Duration>>,
}

/// The same, ready to run.
#[derive(Debug)]
pub struct Mirror {
    pub to: upstream::Mirror,
    /// In percent.
    pub sample: u8,
    pub max_body: usize,
    pub in_flight: u32,
    pub timeout: time::Duration,
}

const MAX_BODY: usize = 64 * 1024;
/// The largest `max_body`.
const LARGEST_BODY: u64 = 16 << 20;
const IN_FLIGHT: u32 = 100;
const TIMEOUT: time::Duration = time::Duration::from_secs(5);

/// Compiles the mirrors of a route; `find` gives upstreams by name and reports those that are not there. `None` where an error
/// was reported.
pub fn compile(
    written: &Spanned<OneOrMany<Spanned<Config>>>,
    find: impl Fn(&Spanned<Name>) -> Option<Arc<Upstream>>,
    registry: &upstream::Registry,
    diagnostics: &mut Diagnostics,
) -> Option<Box<[Mirror]>> {
    let mut places = HashMap::new();
    let mut mirrors = Vec::new();
    let mut is_sound = true;
    if written.0.is_empty() {
        let problem = Diagnostic::error(Code::NoEffect, written.span, "mirror names no upstream");
        diagnostics.push(problem.help("write mirror: { upstream: NAME }, or remove mirror"));
        is_sound = false;
    }
    for mirror in written.iter() {
        let name = &mirror.upstream;
        if let Some(first) = places.insert(&name.value, name.span) {
            let message = format!("requests are already copied to upstream {}", name.value);
            let problem = Diagnostic::error(Code::DuplicateName, name.span, message);
            diagnostics.push(problem.label(first, "the first time").help("remove one of the two"));
            is_sound = false;
        }
        match one(mirror, &find, registry, diagnostics) {
            Some(mirror) => mirrors.push(mirror),
            None => is_sound = false,
        }
    }
    is_sound.then(|| mirrors.into())
}

fn one(
    written: &Config,
    find: impl Fn(&Spanned<Name>) -> Option<Arc<Upstream>>,
    registry: &upstream::Registry,
    diagnostics: &mut Diagnostics,
) -> Option<Mirror> {
    let mut is_sound = true;
    let mut refuse = |problem: Diagnostic| {
        diagnostics.push(problem);
        is_sound = false;
    };
    if let Some(sample) = written.sample.filter(|sample| sample.value.0 == 0) {
        let problem = Diagnostic::error(Code::NoEffect, sample.span, "sample: 0% copies no requests");
        refuse(problem.help("write 1% or more, or remove mirror"));
    }
    if let Some(size) = written.max_body.filter(|size| size.value.0 > LARGEST_BODY) {
        let message = format!("max_body must be at most 16MiB (got {})", size.value);
        let problem = Diagnostic::error(Code::BadValue, size.span, message);
        refuse(problem.reason("each copy is in memory as a whole"));
    }
    if let Some(timeout) = written.timeout.filter(|timeout| timeout.get().is_zero()) {
        refuse(Diagnostic::error(Code::BadValue, timeout.span, "timeout must be greater than zero"));
    }
    let upstream = find(&written.upstream)?;
    is_sound.then(|| Mirror {
        to: registry.mirror(&upstream),
        sample: written.sample.map_or(100, |sample| sample.value.0),
        max_body: written.max_body.map_or(MAX_BODY, |size| size.value.0 as usize),
        in_flight: written.in_flight.map_or(IN_FLIGHT, NonZeroU32::get),
        timeout: written.timeout.map_or(TIMEOUT, |timeout| timeout.get()),
    })
}

// === impl Mirror ===

impl Mirror {
    /// Whether another does the same with every request.
    pub fn does_the_same(&self, other: &Self) -> bool {
        let settings = |mirror: &Self| (mirror.sample, mirror.max_body, mirror.in_flight, mirror.timeout);
        Arc::ptr_eq(&self.to.upstream, &other.to.upstream) && settings(self) == settings(other)
    }
}

/// For people.
impl std::fmt::Display for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { to, sample, max_body, in_flight, timeout } = self;
        let (name, size) = (&to.upstream.name, Size(*max_body as u64));
        write!(f, "{sample}% to {name}: bodies up to {size}, {in_flight} copies at once, timeout {timeout:?}")
    }
}
