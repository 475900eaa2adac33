//! The Redis that several processes share, and whether anything asks for it.

use std::{cell::Cell, sync::Arc, time::Duration};

use super::context::Context;
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    store::{self, Address, Redis, Settings},
    upstream::Authorities,
    value::{FilePath, Span, Spanned},
};

/// The one of a configuration.
#[derive(Default)]
pub(super) struct Shared {
    redis: Option<Arc<Redis>>,
    asked: Cell<bool>,
}

const TIMEOUT: Duration = Duration::from_millis(100);
/// Whoever waits for longer than that is better off without.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);
const PREFIX: &str = "portolan:";

impl Shared {
    pub fn compile(cx: &Context<'_>) -> Self {
        let written = cx.document.redis.as_ref();
        let settings = written.map(|written| cx.report.collect(|out| settings(written, cx, out)));
        let redis = settings.map(|settings| cx.registries.redis.find(settings, &cx.registries.metrics));
        Self { redis, asked: Cell::new(false) }
    }

    /// The one that is asked for at a place; that there is none is reported.
    pub fn find(&self, cx: &Context<'_>, place: Span) -> Option<Arc<Redis>> {
        self.asked.set(true);
        if self.redis.is_none() {
            let problem =
                Diagnostic::error(Code::MissingKey, place, "this asks for redis, and there is none");
            cx.lacks("redis", problem.help("at the top: redis: { url: \"redis://127.0.0.1:6379\" }"));
        }
        self.redis.clone()
    }

    /// Says that nothing asks for it, unless what was left out may.
    pub fn warn_if_unused(&self, cx: &Context<'_>) {
        let written = cx.document.redis.as_ref().filter(|_| !self.asked.get());
        if let Some(written) = written.filter(|_| cx.document.left_out.is_empty()) {
            let problem = Diagnostic::warning(Code::Unused, written.url.span, "redis is used nowhere");
            cx.report.push(problem.help("rate_limit uses it with scope: shared"));
        }
    }
}

fn settings(written: &store::Config, cx: &Context<'_>, diagnostics: &mut Diagnostics) -> Settings {
    let timeout = written.timeout.map_or(TIMEOUT, |timeout| timeout.get());
    if let Some(written) = written.timeout.filter(|_| timeout.is_zero() || timeout > LONGEST_TIMEOUT) {
        let message = "requests wait for Redis up to this time";
        diagnostics.push(Diagnostic::error(Code::BadValue, written.span, message).help("from 1ms to 10s"));
    }
    let prefix = written.prefix.as_ref().map_or(PREFIX, |prefix| prefix.as_str());
    if let Some(written) =
        written.prefix.as_ref().filter(|prefix| !prefix.bytes().all(|b| b.is_ascii_graphic()))
    {
        let message = format!("{:?} cannot begin a key: it is visible ASCII without spaces", written.value);
        diagnostics.push(Diagnostic::error(Code::BadValue, written.span, message));
    }
    let authorities = written.ca.as_ref().and_then(|ca| authorities(ca, &written.url, cx, diagnostics));
    Settings { address: written.url.value.clone(), authorities, timeout, prefix: prefix.into() }
}

fn authorities(
    ca: &Spanned<FilePath>,
    address: &Address,
    cx: &Context<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Arc<[u8]>> {
    if !address.is_over_tls() {
        let message = "ca has no effect: only over rediss:// a certificate is shown";
        diagnostics.push(Diagnostic::error(Code::NoEffect, ca.span, message));
        return None;
    }
    let pem = cx.read(ca)?;
    Authorities::of_file(ca, &pem).map_err(|problem| diagnostics.push(problem)).ok()?;
    Some(pem)
}
