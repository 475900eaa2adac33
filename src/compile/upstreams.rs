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
    value::{self, Name, Spanned},
};

/// The upstreams that are right, by name.
pub(super) struct Upstreams(HashMap<Name, Arc<Upstream>>);

pub(super) const FIRST_BYTE: Duration = Duration::from_secs(60);
pub(super) const BODY_IDLE: Duration = Duration::from_secs(60);

pub(super) fn compile(cx: &Context<'_>, certificates: &Certificates) -> Upstreams {
    let defaults = &cx.document.defaults.timeouts;
    let first_byte = timeout(cx, defaults.first_byte).unwrap_or(FIRST_BYTE);
    let body_idle = timeout(cx, defaults.body_idle).unwrap_or(BODY_IDLE);
    let built = cx.document.upstreams.iter().filter_map(|entry| {
        let mut out = Diagnostics::default();
        let denied = cx.denied_to(&entry.name);
        let mut of_upstream = upstream::Context {
            file: &mut |file| cx.read(file),
            certificate: &|name| certificates.for_client(cx, name),
            first_byte,
            body_idle,
            denied: &denied,
            out: &mut out,
        };
        let settings = upstream::settings(&entry.name, &entry.value, &mut of_upstream);
        out.iter().for_each(|problem| cx.report.push(problem.clone()));
        let upstream = Upstream::build(settings?, &cx.registries.upstreams);
        Some((entry.name.value.clone(), Arc::new(upstream)))
    });
    Upstreams(built.collect())
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
