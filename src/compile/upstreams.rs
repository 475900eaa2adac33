//! Upstreams: compiled by their own part, built with the state that they had before.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{certificates::Certificates, context::Context};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    upstream::{self, Upstream},
    value::{self, Name, Spanned, TextOr},
};

/// The upstreams that are right, by name.
pub(super) struct Upstreams(HashMap<Name, Arc<Upstream>>);

pub(super) const FIRST_BYTE: Duration = Duration::from_secs(60);
pub(super) const BODY_IDLE: Duration = Duration::from_secs(60);

pub(super) fn compile(cx: &Context<'_>, certificates: &Certificates) -> Upstreams {
    let defaults = &cx.document.defaults.timeouts;
    let first_byte = timeout(cx, defaults.first_byte).unwrap_or(FIRST_BYTE);
    let body_idle = timeout(cx, defaults.body_idle).unwrap_or(BODY_IDLE);
    let resolvers = cx.resolvers();
    let built = cx.document.upstreams.iter().filter_map(|entry| {
        let mut out = Diagnostics::default();
        let denied = cx.denied_to(&entry.name);
        let mut of_upstream = upstream::Context {
            file: &mut |file| cx.read(file),
            certificate: &|name| certificates.for_client(cx, name),
            first_byte,
            body_idle,
            zone: cx.document.zone.as_ref().map(|zone| &zone.value),
            denied: &denied,
            endpoints_file: &|file| cx.endpoints_file(file),
            resolvers: resolvers.clone(),
            out: &mut out,
        };
        let settings = upstream::settings(&entry.name, &entry.value, &mut of_upstream);
        out.iter().for_each(|problem| cx.report.push(problem.clone()));
        if entry.value.asks_dns() {
            cx.asks_resolvers();
        }
        let upstream = Upstream::build(settings?, &cx.registries.upstreams);
        Some((entry.name.value.clone(), upstream))
    });
    let built = built.collect();
    warn_of_unused_zone(cx);
    Upstreams(built)
}

/// Warns of a zone that no endpoint is in.
fn warn_of_unused_zone(cx: &Context<'_>) {
    let Some(zone) = &cx.document.zone else { return };
    let endpoints = cx.document.upstreams.iter().flat_map(|entry| entry.value.endpoints.iter());
    let is_used = endpoints.into_iter().any(|endpoint| {
        matches!(&endpoint.value, TextOr::Map(map) if map.zone.as_ref().is_some_and(|own| own.value == zone.value))
    });
    if !is_used {
        let message = format!("zone has no effect: no endpoint is in zone {}", zone.value);
        let problem = Diagnostic::warning(Code::NoEffect, zone.span, message);
        cx.report
            .push(problem.help("name the zone of endpoints: { address: \"10.0.0.1:3000\", zone: NAME }"));
    }
}

impl Upstreams {
    /// The upstream of this name; a name that nothing has is reported.
    pub fn find(&self, cx: &Context<'_>, name: &Spanned<Name>) -> Option<Arc<Upstream>> {
        let (_, entry) = cx.names.upstreams.find(name, &cx.report)?;
        self.0.get(&entry.name.value).cloned()
    }

    pub fn into_built(self) -> BTreeMap<Name, Arc<Upstream>> {
        self.0.into_iter().collect()
    }
}

/// A time that something must end in, where one is written.
pub(super) fn timeout(cx: &Context<'_>, written: Option<Spanned<value::Duration>>) -> Option<Duration> {
    let written = written?;
    if written.get().is_zero() {
        let message = "a time of zero would end everything before it begins";
        cx.report.push(Diagnostic::error(Code::BadValue, written.span, message));
        return None;
    }
    Some(written.get())
}
