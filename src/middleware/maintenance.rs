//! Answers in the place of what is being worked on.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Builder, Context, Exchange, Mode, Next, OnRequest, Refusal, RejectsFor,
    ip::{NetworkSet, Networks},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    http::{errors::Page, media_type},
    value::{Duration, FilePath, Spanned, Status},
};

pub const ADDS_UP: bool = true;

/// Answers in the place of what is being worked on, but for those who work on it. On a tenant, a host or a route it
/// stands before the middleware of that. Of several in a chain, each holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Maintenance")]
pub struct Config {
    /// Whether it is so.
    pub active: bool,
    /// The status, 400 to 599. Default 503.
    #[serde(default)]
    pub status: Option<Spanned<Status>>,
    /// When to come back, as 10m: Retry-After, in whole seconds. Default 5m.
    #[serde(default)]
    pub retry_after: Option<Spanned<Duration>>,
    /// A file that is shown. Default: an error in the form of `errors`.
    #[serde(default)]
    pub page: Option<Spanned<FilePath>>,
    /// Networks and addresses whose requests go on: 10.0.0.0/8, or { file: office.txt } with one on each line.
    #[serde(default)]
    pub allow: Vec<Spanned<Networks>>,
}

struct Maintenance {
    allow: NetworkSet,
    refusal: Refusal,
    /// In seconds.
    retry_after: u64,
}

const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(5 * 60);

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder) {
    let part = Maintenance::compile(config, cx);
    if config.active {
        chain.guard(Mode::Enforce, Arc::new(part));
    }
}

impl OnRequest for Maintenance {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        match self.allow.contains(exchange.client_ip) {
            true => Next::Continue,
            false => self.refusal.clone().into(),
        }
    }

    fn rejects_for<'a>(&'a self, exchange: &'a mut Exchange) -> RejectsFor<'a> {
        RejectsFor::Known((!self.allow.contains(exchange.client_ip)).then_some(self.retry_after))
    }
}

impl Maintenance {
    fn compile(config: &Config, cx: &mut Context<'_>) -> Self {
        let retry_after = config.retry_after.as_ref().map_or(RETRY_AFTER, |after| after.0);
        if let Some(after) = config.retry_after.as_ref().filter(|after| after.0.subsec_nanos() != 0) {
            let message = "retry_after counts whole seconds";
            cx.diagnostics.push(Diagnostic::error(Code::BadValue, after.span, message));
        }
        let refusal = Refusal {
            status: config.status.as_ref().map(|status| error_status(status, cx)),
            page: config.page.as_ref().and_then(|file| page(file, cx)),
            ..Refusal::new(Reason::Maintenance)
        };
        Self {
            allow: NetworkSet::compile(&config.allow, cx),
            refusal: refusal.with(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs())),
            retry_after: retry_after.as_secs(),
        }
    }
}

/// Caches and crawlers would take another for what the place has to say from now on.
fn error_status(status: &Spanned<Status>, cx: &mut Context<'_>) -> StatusCode {
    let code = status.0;
    if code.as_u16() < 400 {
        let message = format!("{} does not say that something is wrong", code.as_u16());
        let problem = Diagnostic::error(Code::BadValue, status.span, message);
        cx.diagnostics.push(problem.help("503 says that it is for a while"));
    }
    code
}

fn page(file: &Spanned<FilePath>, cx: &mut Context<'_>) -> Option<Page> {
    let body = Bytes::copy_from_slice(&cx.world.files.read(file)?);
    Some(Page { body, content_type: media_type::of(&file.0) })
}
