//! The Redis that several processes share, and whether anything asks for it.

use std::{cell::Cell, sync::Arc, time::Duration};

use super::{Registries, context::Context};
use crate::{
    config::Document,
    diagnostic::{Code, Diagnostic, Diagnostics},
    store::{self, Redis, Settings},
    value::Span,
};

/// The one of a configuration.
pub(super) struct Shared {
    redis: Option<Arc<Redis>>,
    asked: Cell<bool>,
}

const TIMEOUT: Duration = Duration::from_millis(100);
/// Whoever waits for longer than that is better off without.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);
const PREFIX: &str = "portolan:";

impl Shared {
    pub fn compile(document: &Document, registries: &Registries, diagnostics: &mut Diagnostics) -> Self {
        let settings = document.redis.as_ref().map(|written| settings(written, diagnostics));
        let redis = settings.map(|settings| registries.redis.find(settings, &registries.metrics));
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

fn settings(written: &store::Config, diagnostics: &mut Diagnostics) -> Settings {
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
    Settings { address: written.url.value.clone(), timeout, prefix: prefix.into() }
}
