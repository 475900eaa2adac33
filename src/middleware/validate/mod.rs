//! Refuses requests that are not as a JSON Schema says.

mod json;
mod schema;
mod unfolded;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;

use self::schema::Schema;
use super::{
    Builder, Context, Exchange, HeavyWork, Held, Mode, Next, OnBody, OnRequest, Refusal, Verdict, decompress,
};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    http::{
        errors::{Place, Violation},
        media_type,
    },
    value::{FilePath, Size, Spanned, Status},
};

pub const ADDS_UP: bool = false;

/// Refuses requests that are not as a JSON Schema (draft 4 to 2020-12) says; errors in JSON name every violation, 20 at most, in
/// `violations`. Query and path parameters are objects of texts; where their schema's own properties ask for integer,
/// number, boolean or array, the texts are read as such.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Validate")]
pub struct Config {
    /// The body's schema. A body that is no JSON by its Content-Type is refused with 415; POST, PUT and PATCH need one. A
    /// name that comes twice in one object is a violation, since readers disagree on which of its values counts.
    pub body: Option<Spanned<FilePath>>,
    /// The schema of the query's parameters.
    pub query: Option<Spanned<FilePath>>,
    /// The schema of what the path captures.
    pub params: Option<Spanned<FilePath>>,
    /// The most that a body may have, since it is held until it is looked at: as 64KiB or 1MiB. Default 1MiB; larger ones
    /// are refused with 413.
    pub max_size: Size,
    /// The status of refusals: 400 or 422. Default 400.
    pub status: Option<Spanned<Status>>,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        let (body, query, params, status) = (None, None, None, None);
        Self { body, query, params, max_size: Size(1 << 20), status, mode: Mode::Enforce }
    }
}

struct Validate {
    body: Option<Arc<Schema>>,
    query: Option<Arc<Schema>>,
    params: Option<Params>,
    most: u64,
    status: StatusCode,
    heavy: HeavyWork,
}

struct Params {
    schema: Arc<Schema>,
    /// In the order of the route's captures.
    names: Box<[Box<str>]>,
}

/// A body of this size or more is looked at off the worker's thread, where others would wait for it.
const HEAVY: usize = 16 * 1024;

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    if config.body.is_none() && config.query.is_none() && config.params.is_none() {
        let problem = Diagnostic::error(Code::NoEffect, cx.span, "nothing is validated");
        cx.diagnostics.push(problem.help("one of body, query and params names a schema"));
    }
    let mut schema = |file: &Option<Spanned<FilePath>>| {
        let file = file.as_ref()?;
        cx.once(file, |cx| read(file, cx))
    };
    let (body, query, params) = (schema(&config.body), schema(&config.query), schema(&config.params));
    if let Some(file) = config.params.as_ref().filter(|_| cx.captures.is_empty()) {
        let problem = Diagnostic::error(Code::NoEffect, file.span, "nothing is captured here");
        cx.diagnostics.push(problem.help("params belongs to a route whose path has captures"));
    }
    let names = cx.captures.iter().map(|name| (*name).into()).collect();
    let part = Arc::new(Validate {
        body,
        query,
        params: params.map(|schema| Params { schema, names }),
        most: config.max_size.0,
        status: status(config.status.as_ref(), cx),
        heavy: cx.world.heavy_work.clone(),
    });
    chain.guard(config.mode, part.clone());
    if part.body.is_some() {
        chain.guard_body(config.mode, part.most, part);
    }
}

fn read(file: &Spanned<FilePath>, cx: &mut Context<'_>) -> Option<Schema> {
    let text = cx.world.files.text(file)?;
    Schema::parse(text.as_bytes())
        .map_err(|reason| {
            let message = format!("{} is no JSON Schema", file.0.display());
            cx.diagnostics.push(Diagnostic::error(Code::BadValue, file.span, message).reason(reason));
        })
        .ok()
}

fn status(written: Option<&Spanned<Status>>, cx: &mut Context<'_>) -> StatusCode {
    let Some(written) = written else { return StatusCode::BAD_REQUEST };
    if !matches!(written.0.as_u16(), 400 | 422) {
        let message = format!("{} does not say that a request is not as it has to be", written.0.as_u16());
        let problem = Diagnostic::error(Code::BadValue, written.span, message);
        cx.diagnostics.push(problem.help("400, or 422"));
    }
    written.0
}

impl OnRequest for Validate {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        let violations = self.check_parameters(exchange);
        if !violations.is_empty() {
            return self.refusal(violations).into();
        }
        match self.body.is_some().then(|| self.check_head(exchange)).flatten() {
            Some(refusal) => refusal.into(),
            None => Next::Continue,
        }
    }
}

impl OnBody for Validate {
    fn on_body<'a>(&'a self, exchange: &'a mut Exchange, body: &'a Held) -> Next<'a> {
        let headers = &exchange.head.headers;
        // What was refused by its head and came this far was only observed: it has been said.
        let (true, Some(schema)) = (is_json(headers), &self.body) else { return Next::Continue };
        if decompress::is_coded(headers) {
            let identity = HeaderValue::from_static("identity");
            return Refusal::new(Reason::UnsupportedCoding).with(header::ACCEPT_ENCODING, identity).into();
        }
        if !body.is_whole || body.data.len() as u64 > self.most {
            return Refusal::new(Reason::BodyTooLarge).into();
        }
        if body.data.len() < HEAVY {
            return match schema.check_body(&body.data) {
                none if none.is_empty() => Next::Continue,
                violations => self.refusal(violations).into(),
            };
        }
        Next::Wait(Box::pin(async move {
            let (schema, data) = (schema.clone(), body.data.clone());
            match self.heavy.offer(move || schema.check_body(&data)).await {
                Ok(none) if none.is_empty() => Verdict::Continue,
                Ok(violations) => Verdict::Refuse(Box::new(self.refusal(violations))),
                Err(refusal) => Verdict::Refuse(refusal),
            }
        }))
    }
}

impl Validate {
    fn refusal(&self, violations: Vec<Violation>) -> Refusal {
        Refusal { status: Some(self.status), violations, ..Refusal::new(Reason::InvalidRequest) }
    }

    /// What is wrong with the parameters of path and query.
    fn check_parameters(&self, exchange: &Exchange) -> Vec<Violation> {
        let mut violations = Vec::new();
        if let Some(Params { schema, names }) = &self.params {
            let named = names.iter().enumerate();
            let pairs = named.map(|(at, name)| (&**name, exchange.captures.get(at, &exchange.path)));
            violations = schema.check_parameters(Place::Path, pairs);
        }
        if let Some(schema) = &self.query {
            // As forms write it: + is a space.
            let query = exchange.query.as_deref().unwrap_or_default().replace('+', " ");
            let pairs = query.split('&').filter(|pair| !pair.is_empty());
            let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            violations.extend(schema.check_parameters(Place::Query, pairs));
        }
        violations
    }

    /// What is seen of a body that is refused before it comes.
    fn check_head(&self, exchange: &Exchange) -> Option<Refusal> {
        if !exchange.has_body {
            let needs_one = matches!(exchange.method, Method::POST | Method::PUT | Method::PATCH);
            return needs_one.then(|| self.refusal(vec![Violation::new(Place::Body, "", "there is none")]));
        }
        if !is_json(&exchange.head.headers) {
            let json = HeaderValue::from_static(media_type::JSON);
            return Some(Refusal::new(Reason::UnsupportedMediaType).with(header::ACCEPT, json));
        }
        None
    }
}

/// Whether a message says that its body is JSON (RFC 8259 section 11, RFC 6839 section 3.1).
fn is_json(headers: &HeaderMap) -> bool {
    let is = |said: &str| {
        let suffix = said.len().checked_sub("+json".len()).and_then(|at| said.get(at..));
        said.eq_ignore_ascii_case(media_type::JSON)
            || suffix.is_some_and(|end| end.eq_ignore_ascii_case("+json"))
    };
    media_type::said_by(headers).is_some_and(is)
}
