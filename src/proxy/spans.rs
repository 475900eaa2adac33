//! What is recorded of a request in a trace, by OpenTelemetry's semantic conventions for HTTP: a span for the request,
//! one for each attempt at its upstream.

use std::time::Instant;

use http::{HeaderValue, Method, StatusCode, Version};

use super::{asked::Asked, call::Call, downstream::Downstream, session::Session};
use crate::{
    error::Reason,
    middleware::conceal,
    snapshot::Route,
    telemetry::metrics::Outcome,
    trace::{Attributes, Context, Kind, Recorded, SpanId, Trace},
    value::{Address, Name},
};

/// What is recorded of a call: its attempts, in their order.
pub struct Traced {
    /// The request's own place: the attempts are caused there.
    context: Context,
    attempts: Vec<Attempt>,
    /// The attempt that is booked on.
    current: usize,
}

struct Attempt {
    span: SpanId,
    address: Address,
    began: Instant,
    /// `None` while it goes on.
    ended: Option<Instant>,
    status: Option<StatusCode>,
    failure: Option<Reason>,
}

// === impl Traced ===

impl Traced {
    /// `None`: the trace is not recorded.
    pub fn of(trace: &Trace) -> Option<Box<Self>> {
        trace
            .is_recorded()
            .then(|| Box::new(Self { context: trace.context(), attempts: Vec::new(), current: 0 }))
    }

    pub fn begin(&mut self, address: Address) {
        self.current = self.begin_beside(address);
    }

    /// Begins an attempt beside others; says where it is found.
    pub fn begin_beside(&mut self, address: Address) -> usize {
        self.attempts.push(Attempt {
            span: SpanId::random(),
            address,
            began: Instant::now(),
            ended: None,
            status: None,
            failure: None,
        });
        self.attempts.len() - 1
    }

    /// Goes over to another attempt.
    pub fn switch(&mut self, other: &mut usize) {
        std::mem::swap(&mut self.current, other);
    }

    /// The attempt is given up, though it has not failed.
    pub fn cancelled(&mut self) {
        if let Some(attempt) = self.attempts.get_mut(self.current) {
            attempt.ended.get_or_insert_with(Instant::now);
        }
    }

    pub fn answered(&mut self, status: StatusCode) {
        if let Some(attempt) = self.attempts.get_mut(self.current) {
            attempt.status = Some(status);
        }
    }

    pub fn failed(&mut self, reason: Reason) {
        if let Some(attempt) = self.attempts.get_mut(self.current) {
            attempt.failure.get_or_insert(reason);
            attempt.ended.get_or_insert_with(Instant::now);
        }
    }

    /// What the attempt that goes on is to tell its endpoint.
    pub fn traceparent(&self) -> HeaderValue {
        let span = self.attempts.get(self.current).map_or(self.context.span, |attempt| attempt.span);
        self.context.with_span(span).traceparent()
    }
}

/// Exports what was recorded of a request that has ended.
pub(super) fn end<S: Session>(
    downstream: &mut Downstream<S>,
    ended: &Outcome,
    route: &Route,
    call: Option<&mut Call>,
    asked: Option<&Asked>,
) {
    if !downstream.exchange.is_recorded() {
        return;
    }
    let (method, _) = known(&downstream.exchange.method);
    let place = route.names.host.as_ref().map(|_| route.names.route.as_str());
    let name = place.map_or_else(|| method.to_owned(), |place| format!("{method} {place}"));
    let mut said = server(downstream, ended, asked);
    said.some("http.route", place);
    let upstream = call.as_deref().and_then(Call::upstream).map(|upstream| upstream.name.as_str());
    said.some("portolan.upstream", upstream);

    let Some(trace) = &mut downstream.exchange.trace else { return };
    if let Some(call) = call
        && let Some(mut traced) = call.traced.take()
    {
        // One that was cut short, as by the route's time, has not heard of it.
        if let Some(reason) = call.failure {
            traced.failed(reason);
        }
        let upstream = call.upstream().map(|upstream| &upstream.name);
        let attempts = traced.attempts.into_iter().enumerate();
        attempts.for_each(|(nth, attempt)| trace.add(attempt.recorded(nth, method, upstream)));
    }
    let failed = failure(ended).is_some();
    trace.end(name, said, failed);
}

fn server<S: Session>(downstream: &Downstream<S>, ended: &Outcome, asked: Option<&Asked>) -> Attributes {
    let exchange = &downstream.exchange;
    let mut said = Attributes::default();
    if asked.is_none_or(|asked| asked.method.is_some()) {
        method(&mut said, &exchange.method);
    }
    said.text("url.scheme", exchange.scheme);
    if let Some(asked) = asked {
        let secrets = downstream.chain.secret_parameters();
        let target = asked.target().map(|target| conceal(target, secrets));
        let mut parts = target.iter().flat_map(|target| target.splitn(2, |byte| *byte == b'?'));
        said.told("url.path", parts.next());
        said.told("url.query", parts.next());
        said.told("user_agent.original", asked.user_agent.as_ref().map(HeaderValue::as_bytes));
        said.some("network.protocol.version", asked.version.map(version));
    }
    said.told("server.address", Some(exchange.host.as_bytes()).filter(|host| !host.is_empty()));
    said.text("client.address", exchange.client_ip.to_string());
    if let Some(status) = exchange.status {
        said.number("http.response.status_code", status.as_u16());
    }
    said.some("error.type", failure(ended));
    said.text("portolan.listener", exchange.connection.listener.as_str());
    said.some("portolan.host", exchange.routed.host.as_ref().map(Name::as_str));
    said.some("portolan.tenant", exchange.routed.tenant.as_ref().map(Name::as_str));
    said.some("portolan.reason", ended.reason.map(Reason::code));
    said.told("portolan.request_id", exchange.request_id.as_ref().map(HeaderValue::as_bytes));
    said
}

/// Why the request counts as failed: what a client does wrong is no failure of a server.
fn failure(ended: &Outcome) -> Option<String> {
    let reason = ended.reason.filter(|reason| reason.status().is_server_error());
    let status = ended.status.is_server_error().then(|| ended.status.as_str().to_owned());
    reason.map(|reason| reason.code().to_owned()).or(status)
}

impl Attempt {
    fn recorded(self, nth: usize, method: &str, upstream: Option<&Name>) -> Recorded {
        let mut said = Attributes::default();
        said.text("http.request.method", method);
        said.some("portolan.upstream", upstream.map(Name::as_str));
        said.text("portolan.endpoint", self.address.to_string());
        match &self.address {
            Address::Tcp(address) => {
                said.text("server.address", address.ip().to_string());
                said.number("server.port", address.port());
            }
            Address::Unix(path) => said.text("server.address", path.display().to_string()),
        }
        if nth > 0 {
            said.number("http.request.resend_count", i64::try_from(nth).unwrap_or(i64::MAX));
        }
        if let Some(status) = self.status {
            said.number("http.response.status_code", status.as_u16());
        }
        // To who sent a request, 4xx is a failure as well.
        let status = self.status.filter(|status| status.as_u16() >= 400);
        let failure = self.failure.map(|reason| reason.code().to_owned());
        let failure = failure.or_else(|| status.map(|status| status.as_str().to_owned()));
        let failed = failure.is_some();
        said.some("error.type", failure);
        Recorded {
            span: self.span,
            name: upstream.map_or_else(|| method.to_owned(), |upstream| format!("{method} {upstream}")),
            kind: Kind::Client,
            began: self.began,
            ended: self.ended.unwrap_or_else(Instant::now),
            attributes: said,
            failed,
        }
    }
}

fn method(said: &mut Attributes, method: &Method) {
    let (name, is_known) = known(method);
    said.text("http.request.method", if is_known { name } else { "_OTHER" });
    if !is_known {
        said.told("http.request.method_original", Some(method.as_str().as_bytes()));
    }
}

/// A method as spans are called by, and whether it is a well-known one: anybody can make up others.
fn known(method: &Method) -> (&'static str, bool) {
    const KNOWN: [&str; 10] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];
    let found = KNOWN.iter().find(|known| **known == method.as_str());
    (found.copied().unwrap_or("HTTP"), found.is_some())
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}
