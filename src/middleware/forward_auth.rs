//! Asks a service whether a request may go on, as Traefik's ForwardAuth and Envoy's ext_authz over HTTP do.

use std::{sync::Arc, time};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header, response,
    uri::PathAndQuery,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Builder, Context, Exchange, Mode, Next, OnRequest, OnResponse, Refusal, Verdict,
    auth::{Public, identity_field},
    header_edits::refuse_ours,
};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    http::{
        errors::Page,
        field_name::{self, Field, alike},
        forwarded::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO},
        hop_by_hop, media_type,
    },
    trace::TRACEPARENT,
    upstream::{Bounds, CallError, Caller, Destination, Site},
    value::{Duration, FieldName, FilePath, Method, Name, OneOrMany, Spanned, Url},
};

pub const ADDS_UP: bool = false;

/// Asks a service about every request before it goes on: what is answered 2xx passes, everything else is the answer
/// that the client gets. The service is told of the request by X-Forwarded-Method, -Proto, -Host, -Uri (the path as it
/// was routed, with the query) and -For (the client's address); of its body it is told nothing. Exactly one of
/// upstream and url stands in it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ForwardAuth")]
pub struct Config {
    /// The upstream that is asked.
    #[serde(default)]
    pub upstream: Option<Spanned<Name>>,
    /// What the upstream is asked for, as /verify. Default /.
    #[serde(default)]
    pub path: Option<Spanned<String>>,
    /// The URL that is asked for, as http://127.0.0.1:9000/verify.
    #[serde(default)]
    pub url: Option<Spanned<Url>>,
    /// A PEM file with the authorities that the certificate of an https URL is held against, read again when it
    /// changes. Default: the system's.
    #[serde(default)]
    pub ca: Option<Spanned<FilePath>>,
    /// The method of the question. Default GET.
    #[serde(default)]
    pub method: Option<Spanned<Method>>,
    /// The request's fields that the service is shown, or "*" for all of them. Default: Accept, Accept-Language,
    /// Authorization, Cookie, Origin, Referer, User-Agent, X-API-Key, X-Request-ID, X-Requested-With.
    #[serde(default)]
    pub request_headers: Option<OneOrMany<Spanned<FieldName>>>,
    /// Fields of its answer that go on to the upstream with the request. What the client sent in them is taken away.
    #[serde(default)]
    pub copy_headers: OneOrMany<Spanned<FieldName>>,
    /// The field of its answer that names the user in the access log, as Remote-User. Default: none.
    #[serde(default)]
    pub user_header: Option<Spanned<FieldName>>,
    /// Fields of an answer that lets a request in that the client gets with the response, as Set-Cookie: beside those that
    /// the response has of it where it is Set-Cookie, else in their place. Default: none.
    #[serde(default)]
    pub response_headers: OneOrMany<Spanned<FieldName>>,
    /// Fields of its refusal that the client gets, beside the body. Default: Cache-Control, Content-Language,
    /// Content-Type, Location, Retry-After, Set-Cookie, WWW-Authenticate.
    #[serde(default)]
    pub refusal_headers: Option<OneOrMany<Spanned<FieldName>>>,
    /// How long its answer may take, connecting included. Default 1s.
    #[serde(default)]
    pub timeout: Option<Spanned<Duration>>,
    /// Whether requests go on where the service gives no answer, or one of 5xx. Default false.
    #[serde(default)]
    pub fail_open: bool,
    /// Path patterns that everybody may ask for, as "/health" or "/static/**".
    #[serde(default)]
    pub public: OneOrMany<Spanned<String>>,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    #[serde(default)]
    pub mode: Mode,
}

struct ForwardAuth {
    caller: Arc<Caller>,
    service: Destination,
    method: http::Method,
    target: Uri,
    bounds: Bounds,
    shown: Shown,
    copied: Vec<Field>,
    given: Vec<HeaderName>,
    added: Vec<HeaderName>,
    user: Option<HeaderName>,
    fail_open: bool,
    public: Public,
}

/// Which fields of the request the service sees.
enum Shown {
    All,
    These(Vec<HeaderName>),
}

const TIMEOUT: time::Duration = time::Duration::from_secs(1);
/// The most that an answer's body may have: it is kept whole.
const MOST_BODY: usize = 1 << 20;

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

const TOLD: [HeaderName; 5] =
    [X_FORWARDED_METHOD, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_URI, X_FORWARDED_FOR];

const SHOWN: [HeaderName; 10] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::AUTHORIZATION,
    header::COOKIE,
    header::ORIGIN,
    header::REFERER,
    header::USER_AGENT,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-requested-with"),
];

const GIVEN: [HeaderName; 7] = [
    header::CACHE_CONTROL,
    header::CONTENT_LANGUAGE,
    header::CONTENT_TYPE,
    header::LOCATION,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::WWW_AUTHENTICATE,
];

/// What is said of the request's body and its connection, or would make the answer another than a verdict: 304, a
/// part, a coding that is not undone.
const NEVER_SHOWN: [HeaderName; 12] = [
    header::HOST,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::ACCEPT_ENCODING,
    header::CONTENT_ENCODING,
];

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder) {
    if let Some(part) = cx.once(config, |cx| ForwardAuth::compile(config, cx)) {
        chain.guard(config.mode, part.clone());
        if !part.added.is_empty() {
            chain.on_response(part);
        }
    }
}

impl ForwardAuth {
    /// `None` where something is wrong, all of which was reported.
    fn compile(config: &Config, cx: &mut Context<'_>) -> Option<Self> {
        let service = service(config, cx);
        let method = config.method.as_ref().map_or(http::Method::GET, |method| method.value.0.clone());
        if let Some(written) = config.method.as_ref().filter(|_| method == http::Method::CONNECT) {
            let message = "CONNECT asks for a tunnel, not for a verdict";
            cx.diagnostics.push(Diagnostic::error(Code::BadValue, written.span, message));
        }
        let deadline = config.timeout.as_ref().map_or(TIMEOUT, |timeout| timeout.get());
        if let Some(written) = config.timeout.as_ref().filter(|timeout| timeout.get().is_zero()) {
            let message = "a time of zero would end everything before it begins";
            cx.diagnostics.push(Diagnostic::error(Code::BadValue, written.span, message));
        }
        let copied = config.copy_headers.iter().map(|field| identity_field(field, cx)).collect();
        let shown = Shown::compile(config.request_headers.as_ref(), cx);
        let given = match &config.refusal_headers {
            None => GIVEN.to_vec(),
            Some(written) => names(written, cx),
        };
        let added = names(&config.response_headers, cx);
        warn_of_identity(config, cx);
        let public = Public::compile(&config.public, cx);
        let (service, target) = service?;
        Some(Self {
            caller: cx.world.calls.caller.clone(),
            service,
            method,
            target,
            bounds: Bounds { deadline, body: MOST_BODY },
            shown,
            copied,
            given,
            added,
            user: config.user_header.as_ref().map(|field| field.value.0.clone()),
            fail_open: config.fail_open,
            public,
        })
    }

    fn question(&self, exchange: &Exchange) -> Request<Bytes> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        let headers = request.headers_mut();
        self.shown.copy(&exchange.head.headers, headers);
        let target = match &exchange.query {
            Some(query) => format!("{}?{query}", exchange.path),
            None => exchange.path.clone(),
        };
        // The same that the upstream is told, where it is told already.
        let sent = &exchange.head.headers;
        let host = sent.get(&X_FORWARDED_HOST).or_else(|| sent.get(header::HOST));
        headers.insert(X_FORWARDED_METHOD, value(exchange.method.to_string()));
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(exchange.scheme));
        if let Some(host) = host {
            headers.insert(X_FORWARDED_HOST, host.clone());
        }
        headers.insert(X_FORWARDED_URI, value(target));
        headers.insert(X_FORWARDED_FOR, value(exchange.client_ip.to_string()));
        if let Some(trace) = &exchange.trace {
            headers.insert(TRACEPARENT, trace.context().traceparent());
        }
        request
    }

    async fn ask(&self, question: Request<Bytes>, exchange: &mut Exchange) -> Verdict {
        match self.caller.call(&self.service, &question, self.bounds).await {
            Ok(answer) if answer.status().is_success() => {
                for field in &self.copied {
                    copy(field.name(), answer.headers(), &mut exchange.head.headers);
                }
                if let Some(user) = self.user.as_ref().and_then(|field| answer.headers().get(field)) {
                    exchange.user = Some(Box::new(user.clone()));
                }
                exchange.granted = self.granted(answer.headers());
                Verdict::Continue
            }
            Ok(answer) if is_failure(answer.status()) && self.fail_open => {
                Self::let_in(exchange, Reason::AuthFailed, ERROR_STATUS)
            }
            Ok(answer) if answer.status() == StatusCode::NOT_MODIFIED => {
                Verdict::Refuse(Box::new(Refusal::new(Reason::AuthFailed).because(ERROR_STATUS)))
            }
            Ok(answer) => Verdict::Refuse(Box::new(self.refusal(answer))),
            Err(error) => {
                let reason = reason(&error);
                tracing::debug!(reason = reason.code(), cause = %error, "the authorization service fails");
                match self.fail_open {
                    true => Self::let_in(exchange, reason, error.reason.code()),
                    false => Verdict::Refuse(Box::new(Refusal::new(reason).because(error.reason.code()))),
                }
            }
        }
    }

    /// What the client is to get with the response.
    fn granted(&self, headers: &HeaderMap) -> Option<Box<HeaderMap>> {
        let mut granted = HeaderMap::new();
        self.added.iter().for_each(|name| copy(name, headers, &mut granted));
        (!granted.is_empty()).then(|| Box::new(granted))
    }

    /// The log tells of requests that went on only because nobody could be asked.
    fn let_in(exchange: &mut Exchange, reason: Reason, cause: &'static str) -> Verdict {
        exchange.observe(reason);
        exchange.cause = Some(cause);
        Verdict::Continue
    }

    /// What the service has said, as the client gets it. Without a body it gets the one that errors have here.
    fn refusal(&self, answer: Response<Bytes>) -> Refusal {
        let status = answer.status();
        let (reason, cause) = match status {
            status if status.is_server_error() => (Reason::AuthFailed, ERROR_STATUS),
            // Who is sent elsewhere is sent to say who they are.
            StatusCode::UNAUTHORIZED => (Reason::Unauthorized, REFUSED),
            status if status.is_redirection() => (Reason::Unauthorized, REFUSED),
            _ => (Reason::Forbidden, REFUSED),
        };
        let (head, body) = answer.into_parts();
        let mut refusal = Refusal::new(reason).because(cause);
        refusal.status = Some(status);
        refusal.page = (!body.is_empty()).then_some(Page { body, content_type: media_type::PLAIN });
        for name in &self.given {
            let is_of_the_body = *name == header::CONTENT_TYPE || *name == header::CONTENT_LANGUAGE;
            if is_of_the_body && refusal.page.is_none() {
                continue;
            }
            for value in head.headers.get_all(name) {
                refusal.fields.append(name.clone(), value.clone());
            }
        }
        refusal
    }
}

/// Whether it is no verdict. Nothing was asked that 304 could answer, and the client could not be shown one.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::NOT_MODIFIED
}

const REFUSED: &str = "refused_by_service";
const ERROR_STATUS: &str = "service_error";

impl OnRequest for ForwardAuth {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        let question = (!self.public.covers(exchange)).then(|| self.question(exchange));
        for field in &self.copied {
            field.remove(&mut exchange.head.headers, exchange.lookalikes);
        }
        match question {
            None => Next::Continue,
            Some(question) => Next::Wait(Box::pin(self.ask(question, exchange))),
        }
    }
}

impl OnResponse for ForwardAuth {
    fn on_response(&self, exchange: &mut Exchange, head: &mut response::Parts) {
        let Some(granted) = exchange.granted.take() else { return };
        for name in granted.keys().filter(|name| **name != header::SET_COOKIE) {
            head.headers.remove(name);
        }
        for (name, value) in granted.iter() {
            head.headers.append(name.clone(), value.clone());
        }
    }
}

impl Shown {
    fn compile(written: Option<&OneOrMany<Spanned<FieldName>>>, cx: &mut Context<'_>) -> Self {
        let Some(written) = written else { return Self::These(SHOWN.to_vec()) };
        if let [one] = &written.0[..]
            && one.value.0 == "*"
        {
            return Self::All;
        }
        for field in written.iter() {
            let name = &field.value.0;
            if name == "*" || NEVER_SHOWN.contains(name) {
                let message = match name == "*" {
                    true => "\"*\" is all fields: it stands alone".to_owned(),
                    false => format!("{name} is never shown to the service"),
                };
                cx.diagnostics.push(Diagnostic::error(Code::NoEffect, field.span, message));
            }
        }
        Self::These(names(written, cx))
    }

    fn copy(&self, from: &HeaderMap, to: &mut HeaderMap) {
        match self {
            Self::All => {
                to.clone_from(from);
                hop_by_hop::strip(to);
                NEVER_SHOWN.iter().chain([&header::CONTENT_LENGTH]).for_each(|name| drop(to.remove(name)));
                // What we tell it of the request, nobody else tells it, in no spelling that it may read alike.
                let told = |name: &HeaderName| TOLD.iter().any(|told| alike(told.as_str(), name.as_str()));
                field_name::remove_matching(to, told);
            }
            Self::These(names) => {
                names.iter().for_each(|name| copy(name, from, to));
            }
        }
    }
}

/// Adds every line of a field.
fn copy(name: &HeaderName, from: &HeaderMap, to: &mut HeaderMap) {
    for value in from.get_all(name) {
        to.append(name.clone(), value.clone());
    }
}

fn names(written: &OneOrMany<Spanned<FieldName>>, cx: &mut Context<'_>) -> Vec<HeaderName> {
    for field in written.iter() {
        refuse_ours(&field.value, field.span, cx);
    }
    written.iter().map(|field| field.value.0.clone()).collect()
}

/// A field that tells the client who the user is does not reach the upstream, while a client's own field of that name does.
fn warn_of_identity(config: &Config, cx: &mut Context<'_>) {
    let is_copied = |field: &FieldName| {
        config.copy_headers.iter().any(|copied| alike(copied.0.as_str(), field.0.as_str()))
    };
    for field in config.response_headers.iter() {
        if field_name::seems_to_identify(&field.value.0) && !is_copied(&field.value) {
            let name = &field.value.0;
            let message = format!(
                "{name} goes to the client and not to the upstream, which gets what the client sends in it"
            );
            let help = format!(
                "copy_headers: {name} tells the upstream what the service says, and removes what the client sends"
            );
            let problem = Diagnostic::warning(Code::UnprotectedIdentity, field.span, message);
            cx.diagnostics.push(problem.help(help));
        }
    }
}

/// Who is asked, and for what.
fn service(config: &Config, cx: &mut Context<'_>) -> Option<(Destination, Uri)> {
    match (&config.upstream, &config.url) {
        (Some(name), None) => {
            if let Some(ca) = &config.ca {
                let message = "ca has no effect beside upstream, whose tls says it";
                cx.diagnostics.push(Diagnostic::error(Code::NoEffect, ca.span, message));
            }
            let target =
                config.path.as_ref().map_or(Some(PathAndQuery::from_static("/")), |path| target(path, cx));
            let upstream = (cx.world.calls.upstreams)(name);
            Some((Destination::Upstream(upstream?), target?.into()))
        }
        (None, Some(url)) => {
            if let Some(path) = &config.path {
                let message = "path has no effect beside url, which says it";
                cx.diagnostics.push(Diagnostic::error(Code::NoEffect, path.span, message));
            }
            let target = url.path().clone();
            let authorities = cx.authorities(config.ca.as_ref(), url);
            Some((Destination::Site(Arc::new(Site::new(url.value.clone(), authorities))), target.into()))
        }
        _ => {
            let message = "forward_auth asks exactly one of upstream and url";
            let problem = Diagnostic::error(Code::MissingKey, cx.span, message);
            cx.diagnostics
                .push(problem.help("{ upstream: auth, path: /verify } asks an upstream of this name"));
            None
        }
    }
}

fn target(path: &Spanned<String>, cx: &mut Context<'_>) -> Option<PathAndQuery> {
    let parsed = path.parse::<PathAndQuery>().ok();
    let parsed = parsed.filter(|parsed| path.starts_with('/') && parsed.as_str() == path.as_str());
    if parsed.is_none() {
        let message =
            format!("{:?} is no path to ask for: it starts with \"/\" and is percent-encoded", path.value);
        cx.diagnostics.push(Diagnostic::error(Code::BadValue, path.span, message));
    }
    parsed
}

/// The reasons of upstreams are for what is proxied.
fn reason(error: &CallError) -> Reason {
    match error.reason {
        Reason::NoEndpoint | Reason::CircuitOpen => Reason::AuthUnavailable,
        Reason::TotalTimeout | Reason::ConnectTimeout => Reason::AuthTimeout,
        _ => Reason::AuthFailed,
    }
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("parts of a request's target and addresses can stand in a field")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_shown_all_fields_is_told_of_the_request_by_us_alone() {
        let mut headers = HeaderMap::new();
        for name in ["x-forwarded-uri", "x_forwarded_uri", "x-forwarded_method", "x_forwarded-for", "x-other"]
        {
            headers.append(name, HeaderValue::from_static("forged"));
        }
        let mut shown = HeaderMap::new();
        Shown::All.copy(&headers, &mut shown);
        assert_eq!(shown.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }
}
