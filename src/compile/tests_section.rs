//! The `tests:` section: requests with what is expected of them. Routing, rewriting and local answers are
//! tried; chains are not run.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::{
    context::Context,
    query::{Answered, Query, QueryError},
};
use crate::{
    config::{self, document::Fields},
    diagnostic::{Code, Diagnostic, Diagnostics},
    snapshot::{Action, Listener, Snapshot},
    value::{Name, Span, Spanned},
};

/// A test, ready to run.
#[derive(Debug)]
pub struct Test {
    /// As it is shown: "GET https://www.example.com/".
    pub title: String,
    /// Where the URL is written.
    pub place: Span,
    query: Query,
    expected: Vec<Spanned<Expected>>,
}

/// What came of a test.
#[derive(Debug)]
pub struct Outcome<'s> {
    pub test: &'s Test,
    /// What was not as expected.
    pub failures: Vec<Diagnostic>,
}

/// One thing that must hold.
#[derive(Debug)]
enum Expected {
    Host(Name),
    Route(Name),
    Upstream(Name),
    Rewrite(String),
    Status(StatusCode),
    Header(HeaderName, HeaderValue),
    Body(Bytes),
}

/// Runs the tests of a snapshot.
pub fn run(snapshot: &Snapshot) -> Vec<Outcome<'_>> {
    let run = |test| Outcome { test, failures: failures(test, &snapshot.listeners) };
    snapshot.tests.iter().map(run).collect()
}

/// What the tests of a snapshot found wrong.
pub fn failed(snapshot: &Snapshot) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    run(snapshot).into_iter().flat_map(|outcome| outcome.failures).for_each(|found| diagnostics.push(found));
    diagnostics
}

impl Outcome<'_> {
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

pub(super) fn compile(cx: &Context<'_>, listeners: &BTreeMap<Name, Arc<Listener>>) -> Vec<Test> {
    cx.document.tests.iter().filter_map(|written| test(cx, &written.value, listeners)).collect()
}

fn test(
    cx: &Context<'_>,
    written: &config::test::Test,
    listeners: &BTreeMap<Name, Arc<Listener>>,
) -> Option<Test> {
    let query = query(cx, &written.request);
    let expected = expected(cx, &written.expect);
    let (query, expected) = (query?, expected?);
    // A listener named was looked up already, by where it is named.
    if let Err(error @ QueryError::NoListener { .. }) = query.answer(listeners) {
        let help = "listener: web says which one, where the URL does not";
        let problem = Diagnostic::error(Code::UnknownName, written.request.url.span, error.to_string());
        cx.lacks("listeners", problem.help(help));
        return None;
    }
    let title = format!("{} {}", query.method, written.request.url);
    Some(Test { title, place: written.request.url.span, query, expected })
}

fn query(cx: &Context<'_>, written: &config::test::Request) -> Option<Query> {
    let method = written.method.as_ref().map_or(Method::GET, |method| method.0.clone());
    let fields = fields(cx, &written.headers);
    if let Some(listener) = &written.listener {
        cx.names.listeners.check(listener, &cx.report);
    }
    let headers = fields?.into_iter().map(|field| field.value).collect::<HeaderMap>();
    match Query::new(method, &written.url, headers) {
        Ok(query) => Some(Query {
            client_ip: written.client_ip.unwrap_or(query.client_ip),
            listener: written.listener.as_ref().map(|listener| listener.value.clone()),
            ..query
        }),
        Err(error) => {
            cx.report.push(Diagnostic::error(Code::BadValue, written.url.span, error.to_string()));
            None
        }
    }
}

fn fields(cx: &Context<'_>, written: &Fields) -> Option<Vec<Spanned<(HeaderName, HeaderValue)>>> {
    let mut fields = Some(Vec::new());
    for line in written {
        match HeaderValue::from_str(&line.value) {
            Ok(value) => {
                let field = Spanned::new((line.name.value.0.clone(), value), line.value.span);
                fields.iter_mut().for_each(|fields| fields.push(field.clone()));
            }
            Err(_) => {
                let message = "a field's value holds characters that must not stand in one";
                cx.report.push(Diagnostic::error(Code::BadValue, line.value.span, message));
                fields = None;
            }
        }
    }
    fields
}

fn expected(cx: &Context<'_>, written: &Spanned<config::test::Expect>) -> Option<Vec<Spanned<Expected>>> {
    if let Some(host) = &written.host {
        cx.names.hosts.check(host, &cx.report);
    }
    if let Some(upstream) = &written.upstream {
        cx.names.upstreams.check(upstream, &cx.report);
    }
    let fields = fields(cx, &written.headers)?;
    let config::test::Expect { host, route, upstream, rewrite, status, body, headers: _ } = &written.value;
    let single = [
        host.clone().map(|host| host.map(Expected::Host)),
        route.clone().map(|route| route.map(Expected::Route)),
        upstream.clone().map(|upstream| upstream.map(Expected::Upstream)),
        rewrite.clone().map(|rewrite| rewrite.map(Expected::Rewrite)),
        status.map(|status| status.map(|status| Expected::Status(status.0))),
        body.clone().map(|body| body.map(|body| Expected::Body(body.into()))),
    ];
    let fields = fields.into_iter().map(|field| field.map(|(name, value)| Expected::Header(name, value)));
    let all: Vec<_> = single.into_iter().flatten().chain(fields).collect();
    if all.is_empty() {
        let message = "this test expects nothing, so that it cannot fail";
        let help = "expect: { route: NAME } for example";
        cx.report.push(Diagnostic::error(Code::NoEffect, written.span, message).help(help));
        return None;
    }
    Some(all)
}

fn failures(test: &Test, listeners: &BTreeMap<Name, Arc<Listener>>) -> Vec<Diagnostic> {
    let answered = match test.query.answer(listeners) {
        Ok(answered) => answered,
        Err(error) => return vec![Diagnostic::error(Code::FailedTest, test.place, error.to_string())],
    };
    let local = answered.local();
    let failed = |expected: &Spanned<Expected>| {
        let (wanted, was) = mismatch(expected, &answered, local.as_ref())?;
        let message = format!("{}: expected {wanted}, got {was}", test.title);
        let problem =
            Diagnostic::error(Code::FailedTest, expected.span, message).reason(format!("it is {was}"));
        Some(problem.label(test.place, "this request"))
    };
    test.expected.iter().filter_map(failed).collect()
}

/// What was wanted and what there is instead.
fn mismatch(
    expected: &Expected,
    answered: &Answered<'_, '_>,
    local: Option<&Response<Bytes>>,
) -> Option<(String, String)> {
    let route = answered.route;
    let upstreams: Vec<String> =
        answered.upstreams().iter().map(|upstream| upstream.name.to_string()).collect();
    let goes_to = upstreams.join(" or ");
    let (what, wanted, was) = match expected {
        Expected::Host(host) => ("host", host.to_string(), route.names.host.as_ref().map(Name::to_string)),
        Expected::Route(name) => {
            let routed = !matches!(route.action, Action::Unmatched);
            ("route", name.to_string(), routed.then(|| route.names.route.to_string()))
        }
        Expected::Upstream(name) => {
            // Where chance decides, each of them is right.
            let is_one = upstreams.iter().any(|upstream| *upstream == name.as_str());
            let was = if is_one { name.to_string() } else { goes_to.clone() };
            ("upstream", name.to_string(), Some(was).filter(|was| !was.is_empty()))
        }
        Expected::Rewrite(target) => {
            ("path", format!("{target:?}"), answered.sent().map(|sent| format!("{sent:?}")))
        }
        Expected::Status(status) => {
            let was = local.map(|answer| answer.status().as_u16().to_string());
            ("status", status.as_u16().to_string(), was)
        }
        Expected::Header(name, value) => {
            let was = local.and_then(|answer| answer.headers().get(name)).map(|value| format!("{value:?}"));
            (name.as_str(), format!("{value:?}"), was)
        }
        Expected::Body(body) => {
            let text = |body: &Bytes| format!("{:?}", String::from_utf8_lossy(body));
            ("body", text(body), local.map(|answer| text(answer.body())))
        }
    };
    let instead = || match (&route.action, local) {
        (Action::Proxy(_) | Action::Split(_), _) => {
            format!("no {what} of Portolan's own: it goes to upstream {goes_to}")
        }
        (_, Some(answer)) => format!("no {what}: the answer is {}", answer.status().as_u16()),
        _ => format!("no {what}"),
    };
    (was.as_ref() != Some(&wanted)).then(|| match was {
        Some(was) => (format!("{what} {wanted}"), format!("{what} {was}")),
        None => (format!("{what} {wanted}"), instead()),
    })
}
