//! The middleware of a route, outermost first, compiled per phase: a request walks only what acts.

use std::{fmt, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderName, response};

use super::{
    Config, Context, Exchange, Held, IsTorn, Mode, Next, OnBody, OnRequest, OnResponse, Refusal, RejectsFor,
    Source, Verdict, World, jwt, limit,
};
use crate::{
    diagnostic::Diagnostics,
    telemetry::metrics::{Decisions, Metrics},
    value::Span,
};

/// A compiled chain.
#[derive(Default)]
pub struct Chain {
    parts: Vec<Part>,
    request: Vec<RequestStep>,
    body: Vec<BodyStep>,
    /// How much of a body is read before the action: nothing where bodies go on as they come.
    held: Option<u64>,
    /// Innermost first: the way back.
    response: Vec<ResponseStep>,
    recovers: bool,
    answers_preflights: bool,
    measures_heads: bool,
    /// Where certificates of clients are asked for.
    certificates_asked: Option<Span>,
    secret_parameters: Vec<Box<str>>,
    secret_fields: Vec<HeaderName>,
}

/// What a chain is made of, for those who ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub kind: &'static str,
    pub site: Site,
}

/// Where a part of a chain was defined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// "defaults", "listener web", "tenant acme", "host www", "route stream".
    pub scope: Arc<str>,
    /// The named chain that it came by, where it did.
    pub chain: Option<crate::value::Name>,
}

/// One middleware to compile.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    pub config: &'a Config,
    pub site: &'a Site,
    /// Where it is written.
    pub span: Span,
    /// The captures that its templates may name: those of the route that it stands in.
    pub captures: &'a [&'a str],
    pub place: &'a limit::Place,
}

/// What a middleware registers itself with.
pub struct Builder<'a> {
    chain: Chain,
    metrics: &'a Metrics,
    /// What those further in ask the chain's tokens for.
    claims: Option<Arc<jwt::Asked>>,
    is_torn: &'a IsTorn<'a>,
}

struct RequestStep {
    order: usize,
    judge: Judge,
    run: Arc<dyn OnRequest>,
}

struct BodyStep {
    order: usize,
    judge: Judge,
    run: Arc<dyn OnBody>,
}

/// What a step says of a request, and since when that waited for it where waits are recorded.
struct Said {
    verdict: Verdict,
    waited_since: Option<Instant>,
}

/// What becomes of what a step says.
struct Judge {
    mode: Mode,
    /// Of what decides.
    decisions: Option<Decisions>,
}

/// How a chain ends a request by itself.
#[derive(Debug)]
pub enum Stop {
    Answer(Box<http::Response<Bytes>>),
    Refuse(Box<Refusal>),
}

struct ResponseStep {
    order: usize,
    /// Runs for every response, those of requests that did not come this far included.
    always: bool,
    run: Arc<dyn OnResponse>,
}

// === impl Chain ===

impl Chain {
    /// Compiles the items, outermost first.
    pub fn compile<'a>(
        items: impl IntoIterator<Item = Item<'a>>,
        world: &World<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut builder = Builder { is_torn: &*world.is_torn, ..Builder::new(world.metrics) };
        for item in items {
            builder.chain.parts.push(Part { kind: item.config.kind(), site: item.site.clone() });
            let Item { captures, span, place, .. } = item;
            item.config.install(&mut Context { captures, span, place, world, diagnostics }, &mut builder);
        }
        let mut chain = builder.chain;
        chain.response.reverse();
        chain
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether a panic is answered with 500 instead of ending the connection.
    pub fn recovers(&self) -> bool {
        self.recovers
    }

    /// Whether a preflight is answered by it, so that it is to pass by the method that it asks for.
    pub fn answers_preflights(&self) -> bool {
        self.answers_preflights
    }

    /// Whether a part asks how large the head came.
    pub fn measures_heads(&self) -> bool {
        self.measures_heads
    }

    /// Where a part asks for clients' certificates, so that a listener has to.
    pub fn certificates_asked(&self) -> Option<Span> {
        self.certificates_asked
    }

    /// Parameters of the query whose values are nobody's business: logs leave them out.
    pub fn secret_parameters(&self) -> &[Box<str>] {
        &self.secret_parameters
    }

    /// Fields of which the same is true.
    pub fn secret_fields(&self) -> &[HeaderName] {
        &self.secret_fields
    }

    /// Takes the request through; where it is stopped, the action is not to run.
    pub async fn enter(&self, exchange: &mut Exchange) -> Option<Stop> {
        let is_recorded = exchange.is_recorded();
        for step in &self.request {
            exchange.entered = step.order + 1;
            let said = said(step.run.on_request(exchange), is_recorded).await;
            if let Some(mut stop) = self.judged(step.order, &step.judge, said, exchange) {
                if let Stop::Refuse(refusal) = &mut stop
                    && refusal.tells_when()
                {
                    // In a box: most requests pass.
                    Box::pin(self.prolong(refusal, step.order, exchange)).await;
                }
                return Some(stop);
            }
        }
        exchange.entered = self.parts.len();
        None
    }

    /// Asks the parts behind the one that rejected the request: the longest time is told.
    async fn prolong(&self, refusal: &mut Refusal, after: usize, exchange: &mut Exchange) {
        for step in self.request.iter().filter(|step| step.order > after && step.judge.mode == Mode::Enforce)
        {
            let seconds = match step.run.rejects_for(exchange) {
                RejectsFor::Known(seconds) => seconds,
                RejectsFor::Wait(seconds) => seconds.await,
            };
            if let Some(seconds) = seconds {
                refusal.prolong(seconds);
            }
        }
    }

    fn judged(&self, order: usize, judge: &Judge, said: Said, exchange: &mut Exchange) -> Option<Stop> {
        let Said { verdict, waited_since } = said;
        if let Some(began) = waited_since {
            let refused = match &verdict {
                Verdict::Refuse(refusal) => Some(refusal.reason),
                Verdict::Continue | Verdict::Answer(_) => None,
            };
            exchange.record_wait(self.parts[order].kind, began, refused);
        }
        judge.stops(verdict, exchange)
    }

    /// How much of a body is to be read before the action; for one that leaves bodies unread, only where a part looks
    /// at them.
    pub fn held(&self, action_reads: bool) -> Option<u64> {
        self.held.filter(|_| action_reads || !self.body.is_empty())
    }

    /// Shows the body to the parts that look at it; where one stops the request, the action is not to run.
    pub async fn inspect(&self, exchange: &mut Exchange, body: &Held) -> Option<Stop> {
        let is_recorded = exchange.is_recorded();
        for step in &self.body {
            let said = said(step.run.on_body(exchange, body), is_recorded).await;
            if let Some(stop) = self.judged(step.order, &step.judge, said, exchange) {
                return Some(stop);
            }
        }
        None
    }

    /// What is counted of a kind's decisions, for those that are made when the request is past it.
    pub fn decisions(&self, kind: &str) -> Option<&Decisions> {
        let of_kind = |step: &&RequestStep| self.parts[step.order].kind == kind;
        self.request.iter().find(of_kind)?.judge.decisions.as_ref()
    }

    /// Takes the response back through the parts that its request entered.
    pub fn respond(&self, exchange: &mut Exchange, head: &mut response::Parts) {
        for step in &self.response {
            if step.always || step.order < exchange.entered {
                step.run.on_response(exchange, head);
            }
        }
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|part| part.kind)).finish()
    }
}

#[cfg(test)]
impl Chain {
    pub(crate) fn for_tests(response: Arc<dyn OnResponse>, recovers: bool) -> Self {
        let metrics = Metrics::default();
        let mut builder = Builder::new(&metrics);
        builder.on_every_response(response);
        builder.chain.recovers = recovers;
        builder.chain
    }
}

async fn said(next: Next<'_>, is_recorded: bool) -> Said {
    let ready = |verdict| Said { verdict, waited_since: None };
    match next {
        Next::Continue => ready(Verdict::Continue),
        Next::Answer(answer) => ready(Verdict::Answer(answer)),
        Next::Refuse(refusal) => ready(Verdict::Refuse(refusal)),
        Next::Wait(verdict) => {
            let waited_since = is_recorded.then(Instant::now);
            Said { verdict: verdict.await, waited_since }
        }
    }
}

// === impl Judge ===

impl Judge {
    fn stops(&self, verdict: Verdict, exchange: &mut Exchange) -> Option<Stop> {
        let refusal = match verdict {
            Verdict::Continue => return None,
            Verdict::Answer(answer) => return Some(Stop::Answer(answer)),
            Verdict::Refuse(refusal) => refusal,
        };
        exchange.cause = refusal.cause;
        match self.mode {
            Mode::Observe => {
                self.decisions.as_ref().inspect(|decisions| decisions.observed.inc());
                exchange.observe(refusal.reason);
                None
            }
            Mode::Enforce => {
                self.decisions.as_ref().inspect(|decisions| decisions.refused.inc());
                Some(Stop::Refuse(refusal))
            }
        }
    }
}

// === impl Builder ===

impl<'a> Builder<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        Self { chain: Chain::default(), metrics, claims: None, is_torn: &|_| false }
    }

    /// Whether more may stand before this place than is known.
    pub fn is_torn_before(&self, place: Span) -> bool {
        (self.is_torn)(place)
    }

    /// For what lets every request pass, or answers it as it was asked to.
    pub fn on_request(&mut self, run: Arc<dyn OnRequest>) {
        let judge = Judge { mode: Mode::Enforce, decisions: None };
        self.chain.request.push(RequestStep { order: self.order(), judge, run });
    }

    /// For what refuses requests, or in `mode: observe` only says that it would.
    pub fn guard(&mut self, mode: Mode, run: Arc<dyn OnRequest>) {
        let (order, judge) = (self.order(), self.judge(mode));
        self.chain.request.push(RequestStep { order, judge, run });
    }

    /// Reads bodies up to this size before the action; of several parts that ask, the most.
    pub fn hold_bodies(&mut self, size: u64) {
        self.chain.held = self.chain.held.max(Some(size));
    }

    /// For what looks at bodies up to this size, and may refuse them.
    pub fn guard_body(&mut self, mode: Mode, size: u64, run: Arc<dyn OnBody>) {
        self.hold_bodies(size);
        let (order, judge) = (self.order(), self.judge(mode));
        self.chain.body.push(BodyStep { order, judge, run });
    }

    fn judge(&self, mode: Mode) -> Judge {
        let kind = self.chain.parts.last().map_or("", |part| part.kind);
        Judge { mode, decisions: Some(self.metrics.decisions(kind)) }
    }

    pub fn on_response(&mut self, run: Arc<dyn OnResponse>) {
        self.respond_with(run, false);
    }

    /// For what every response must carry, those to requests that were answered further out included.
    pub fn on_every_response(&mut self, run: Arc<dyn OnResponse>) {
        self.respond_with(run, true);
    }

    pub fn recover(&mut self) {
        self.chain.recovers = true;
    }

    pub fn answer_preflights(&mut self) {
        self.chain.answers_preflights = true;
    }

    /// Keeps what stands there out of logs. Cookies are in none.
    pub fn conceal(&mut self, source: &Source) {
        match source {
            Source::Query(name) => self.chain.secret_parameters.push(name.clone()),
            Source::Header(name) => self.chain.secret_fields.push(name.clone()),
            Source::Cookie(_) => {}
        }
    }

    /// For what lets in by certificates, and is written there.
    pub fn ask_for_certificates(&mut self, written: Span) {
        self.chain.certificates_asked = Some(written);
    }

    /// For what finds tokens right: what it is asked for from here on.
    pub fn offer_claims(&mut self, asked: &Arc<jwt::Asked>) {
        self.claims = Some(asked.clone());
    }

    /// Has a claim of the request's token kept; says whether there is anybody before who looks at tokens.
    pub fn ask_for_claim(&self, name: &str) -> bool {
        self.claims.as_ref().is_some_and(|claims| {
            claims.ask(name);
            true
        })
    }

    /// Whether anything before finds out who a request is from.
    pub fn asks_who(&self) -> bool {
        let names = |part: &Part| matches!(part.kind, "basic_auth" | "api_key");
        self.ask_for_claim(jwt::SUBJECT) || self.chain.parts.iter().any(names)
    }

    pub fn measure_heads(&mut self) {
        self.chain.measures_heads = true;
    }

    fn respond_with(&mut self, run: Arc<dyn OnResponse>, always: bool) {
        let order = self.order();
        self.chain.response.push(ResponseStep { order, always, run });
    }

    /// The place of the part that registers itself at the moment: the last one.
    fn order(&self) -> usize {
        self.chain.parts.len().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Writes down when it runs, and answers where it is told to.
    struct Probe {
        name: &'static str,
        answers: bool,
        waits: bool,
        seen: Arc<Mutex<Vec<String>>>,
    }

    impl OnRequest for Probe {
        fn on_request<'a>(&'a self, _: &'a mut Exchange) -> Next<'a> {
            self.seen.lock().unwrap().push(format!(">{}", self.name));
            match (self.answers, self.waits) {
                (true, true) => Next::Wait(Box::pin(async { Verdict::Answer(Box::default()) })),
                (true, false) => Next::Answer(Box::default()),
                (false, true) => Next::Wait(Box::pin(async { Verdict::Continue })),
                (false, false) => Next::Continue,
            }
        }
    }

    impl OnResponse for Probe {
        fn on_response(&self, _: &mut Exchange, _: &mut response::Parts) {
            self.seen.lock().unwrap().push(format!("<{}", self.name));
        }
    }

    /// A chain a, b, c of which `answering` answers; c is marked always.
    async fn walk(answering: &str, waits: bool) -> String {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let metrics = Metrics::default();
        let mut builder = Builder::new(&metrics);
        for name in ["a", "b", "c"] {
            let site = Site { scope: "test".into(), chain: None };
            builder.chain.parts.push(Part { kind: name, site });
            let probe = Arc::new(Probe { name, answers: name == answering, waits, seen: seen.clone() });
            builder.on_request(probe.clone());
            match name {
                "c" => builder.on_every_response(probe),
                _ => builder.on_response(probe),
            }
        }
        let mut chain = builder.chain;
        chain.response.reverse();
        let mut exchange = Exchange::for_tests("GET", "/");
        let answered = chain.enter(&mut exchange).await.is_some();
        assert_eq!(answered, !answering.is_empty());
        chain.respond(&mut exchange, &mut http::Response::new(()).into_parts().0);
        let seen = seen.lock().unwrap();
        seen.join(" ")
    }

    #[tokio::test]
    async fn a_response_goes_back_through_what_was_entered() {
        assert_eq!(walk("", false).await, ">a >b >c <c <b <a");
        assert_eq!(walk("b", false).await, ">a >b <c <b <a");
        assert_eq!(walk("a", true).await, ">a <c <a");
        assert_eq!(walk("", true).await, ">a >b >c <c <b <a");
    }
}
