//! A request's way upstream: where it was tried, and what became of it.

mod beside;

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderValue, StatusCode, header, request, response};
use pingora::upstreams::peer::HttpPeer;

pub(in crate::proxy) use beside::Attempt;

use super::{
    destination::Destination, downstream::Exchanged, spans::Traced, split::SplitSide, tunnel::Tunnel,
};
use crate::{
    action::proxy::Proxy,
    error::{Blame, Reason},
    http::connection_auth::{self, Lease},
    upstream::{
        InQueue, Overload, Route, Upstream,
        config::Protocol,
        exchange::Failure,
        retry::{self, Cause, Methods},
    },
    value::Address,
};

/// One request's call to an upstream.
pub struct Call {
    to: Destination,
    /// The tunnel that is asked for.
    pub(super) tunnel: Option<Tunnel>,
    /// The same endpoint is asked again, on a new connection.
    again: bool,
    /// How often that was done.
    repeats: u32,
    /// What is waited for before the next attempt.
    pause: Option<Duration>,
    /// How often was waited.
    pauses: u32,
    pub attempts: u32,
    /// Those of them that started beside a slow one.
    hedges: u32,
    began: Instant,
    attempt_began: Instant,
    pub connected_after: Option<Duration>,
    pub first_byte_after: Option<Duration>,
    pub failure: Option<Reason>,
    /// The use of a connection that is reserved for the client connection.
    lease: Option<Arc<Lease>>,
    /// Whether it carries credentials that sign in the connection.
    with_credentials: bool,
    /// Whether the response asked for such credentials on a connection that is not reserved.
    challenged: bool,
    /// What is recorded of it, where it is.
    pub traced: Option<Box<Traced>>,
    /// The side of a split that it goes to.
    pub(super) split: Option<Box<SplitSide>>,
}

/// So often one endpoint is asked again because it closed a connection or did not process a request.
const MOST_REPEATS: u32 = 3;
/// Why a request was rejected that waited for a connection.
const POOL_TIMEOUT: &str = "pool_timeout";

impl Call {
    pub(super) fn new(to: Destination, traced: Option<Box<Traced>>) -> Self {
        let began = Instant::now();
        Self {
            to,
            tunnel: None,
            again: false,
            repeats: 0,
            pause: None,
            pauses: 0,
            attempts: 0,
            hedges: 0,
            began,
            attempt_began: began,
            connected_after: None,
            first_byte_after: None,
            failure: None,
            lease: None,
            with_credentials: false,
            challenged: false,
            traced,
            split: None,
        }
    }

    /// When it began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// The upstream that is asked, where it is one.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.to.upstream()
    }

    /// The action that it is for, where its endpoints are those of an upstream.
    pub(super) fn proxy(&self) -> Option<&Arc<Proxy>> {
        self.to.proxy()
    }

    /// How a circuit breaker that is not closed dealt with it.
    pub fn circuit(&self) -> Option<&'static str> {
        self.to.circuit().map(|(state, _)| state)
    }

    /// What became of a sticky session, where the endpoint answered.
    pub fn sticky(&self) -> Option<&'static str> {
        self.to.sticky()
    }

    /// When it may be tried again, where a circuit breaker or a queue knows.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self.failure {
            Some(Reason::UpstreamOverloaded) => Some(Overload::RETRY_AFTER),
            _ => self.to.circuit().and_then(|(_, left)| left),
        }
    }

    /// How long it waited for its place among the upstream's requests in flight, where it did.
    pub fn queued_for(&self) -> Option<Duration> {
        self.to.queued().0
    }

    /// Why it was rejected, more closely than the client is told.
    pub(super) fn cause(&self) -> Option<&'static str> {
        let pool = (self.failure == Some(Reason::UpstreamOverloaded)).then_some(POOL_TIMEOUT);
        self.to.queued().1.map(Overload::cause).or(pool)
    }

    /// Passes the upstream's limit of requests in flight. Says where it has to wait for that.
    pub(super) fn enter(&mut self) -> Result<Option<InQueue>, Reason> {
        self.to.enter()
    }

    /// Waits until it passes the limit.
    pub(super) async fn wait(&mut self, queued: InQueue) -> Result<(), Reason> {
        self.to.wait(queued).await
    }

    /// Which requests may be repeated although an endpoint may have acted on them.
    pub(super) fn methods(&self) -> &Methods {
        self.upstream().map_or(&Methods::Idempotent, |upstream| &upstream.retry.methods)
    }

    /// How long the origin may take for the response's head, until the request is tried again.
    pub(super) fn per_try_timeout(&self) -> Option<Duration> {
        self.upstream().and_then(|upstream| upstream.retry.per_try_timeout)
    }

    /// Where it was tried last.
    pub fn endpoint(&self) -> Option<Cow<'_, str>> {
        self.to.shown()
    }

    /// Where the last attempt went.
    pub(super) fn address_tried(&self) -> Option<Address> {
        self.to.address().map(Cow::into_owned)
    }

    /// What the destination is known by among reserved connections.
    pub(super) fn destination(&self) -> Cow<'_, str> {
        self.to.name()
    }

    /// Has it carried out on a reserved connection.
    pub(super) fn reserve(&mut self, lease: Arc<Lease>, with_credentials: bool) {
        self.to.reserve(lease.clone());
        (self.lease, self.with_credentials) = (Some(lease), with_credentials);
    }

    /// Whether the response asked for credentials on a connection that others could use.
    pub(super) fn is_challenged(&self) -> bool {
        self.challenged
    }

    /// Looks for challenges in a final head: what answers them is to go over a reserved connection.
    fn look_for_challenge(&mut self, headers: &HeaderMap) {
        let challenged = connection_auth::has_challenge(headers);
        match &self.lease {
            Some(lease) => lease.answered(self.with_credentials, challenged),
            None => self.challenged = challenged,
        }
    }

    /// What the upstream speaks.
    pub(super) fn protocol(&self) -> Protocol {
        self.to.protocol()
    }

    /// Begins the next attempt to ask for `host`: at an endpoint that was not tried yet, or at the same again. Says how it is
    /// connected, and whether the connection has to be a new one.
    pub(super) fn next(&mut self, host: &str) -> Option<(Route, bool)> {
        let again = std::mem::take(&mut self.again);
        let asks = self.tunnel.as_ref().map(Tunnel::request);
        let route = self.to.next(again).and_then(|()| self.to.route(asks, host).ok_or(Reason::NoEndpoint));
        let route = match route {
            Ok(route) => route,
            Err(reason) => {
                // A failure of the endpoints that were tried says more than that there are no others.
                self.failure.get_or_insert(reason);
                return None;
            }
        };
        self.attempts += 1;
        if self.attempts > 1 {
            self.attempt_began = Instant::now();
        }
        if let (Some(traced), Some(address)) = (&mut self.traced, self.to.address()) {
            traced.begin(address.into_owned());
        }
        Some((route, again))
    }

    /// What is waited for before the next attempt.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        self.pause.take()
    }

    /// A new connection for the attempt.
    pub(super) fn peer(&self, route: &Route, host: &str) -> Option<Box<HttpPeer>> {
        self.to.peer(route.protocol, host)
    }

    /// There is a connection. A reused one was there at once.
    pub(super) fn connected(&mut self, reused: bool) {
        if let Some(pick) = self.to.pick() {
            pick.connected();
        }
        if self.connected_after.is_none() {
            let waited = if reused && self.attempts == 1 { Duration::ZERO } else { self.began.elapsed() };
            self.connected_after = Some(waited);
        }
        self.failure = None;
    }

    /// The Host that the endpoint is asked for.
    pub(super) fn host(&self, head: &request::Parts) -> HeaderValue {
        self.to.host(head)
    }

    /// The attempt's place in the trace, as the endpoint is told, where the trace is recorded.
    pub(super) fn traceparent(&self) -> Option<HeaderValue> {
        self.traced.as_ref().map(|traced| traced.traceparent())
    }

    pub(super) fn is_tls(&self) -> bool {
        self.to.is_tls()
    }

    /// The final head is there. An error where it cannot be the answer to what was asked.
    pub(super) fn answered(&mut self, head: &response::Parts) -> Result<(), Reason> {
        self.look_for_challenge(&head.headers);
        match &self.tunnel {
            None if head.status == StatusCode::SWITCHING_PROTOCOLS => return Err(Reason::UpstreamProtocol),
            None => {}
            Some(tunnel) => tunnel.check(head)?,
        }
        self.count_answer(head.status);
        Ok(())
    }

    /// Adds to a response that is passed on what keeps the client where it is: on its side of a split, at its endpoint.
    pub(super) fn set_cookies(&mut self, status: StatusCode, headers: &mut HeaderMap) {
        if let Some(side) = &mut self.split
            && let Some(cookie) = side.answered(status, self.began.elapsed())
        {
            headers.append(header::SET_COOKIE, cookie);
        }
        if let Some(cookie) = self.to.sticky_cookie() {
            headers.append(header::SET_COOKIE, cookie);
        }
    }

    fn count_answer(&mut self, status: StatusCode) {
        self.count_answer_at(status, Instant::now());
    }

    fn count_answer_at(&mut self, status: StatusCode, now: Instant) {
        if let Some(traced) = &mut self.traced {
            traced.answered(status);
        }
        self.first_byte_after = Some(now - self.began);
        self.to.answered(status, now, now - self.attempt_began);
    }

    /// It is over: what went to the endpoint that was asked last, and what came from it, is counted.
    pub(super) fn ended(&mut self, exchanged: Exchanged) {
        self.to.leave();
        if let Some(side) = &self.split {
            side.ended(self.failure, self.began.elapsed());
        }
        if let Some(pick) = self.to.pick() {
            pick.endpoint.state.metrics().exchanged(exchanged.read, exchanged.given);
        }
    }

    /// Says whether another endpoint is to be tried.
    pub(super) fn connect_failed(&mut self, failure: &Failure) -> bool {
        if let Some(pick) = self.to.pick() {
            pick.connect_failed();
        }
        self.note(failure.reason, failure);
        // An endpoint whose connections are all in use is not asked again: the request has waited for one.
        let is_busy = failure.reason == Reason::UpstreamOverloaded;
        (!is_busy || self.to.has_untried()) && self.tries_again(Cause::ConnectFailure, None)
    }

    /// Whether the response's status asks for another try, and there may be one. Then it is not passed on.
    pub(super) fn retries_response(&mut self, head: &response::Parts) -> bool {
        if !self.is_tried_again(head) {
            return false;
        }
        let retry_after = retry::after(&head.headers, SystemTime::now());
        let again = self.tries_again(Cause::Status, retry_after);
        if again {
            self.count_answer(head.status);
            tracing::debug!(endpoint = ?self.endpoint(), status = %head.status, "upstream response is not passed on");
        }
        again
    }

    /// Whether the response's status is one that is tried again.
    pub(super) fn is_tried_again(&self, head: &response::Parts) -> bool {
        let Some(upstream) = self.to.upstream() else { return false };
        upstream.retry.when.has_status(head.status) && !connection_auth::has_challenge(&head.headers)
    }

    /// Whether there may be another try, and what it has to wait for.
    fn tries_again(&mut self, cause: Cause, retry_after: Option<Duration>) -> bool {
        if !self.to.has_more(self.attempts - self.repeats - self.hedges) {
            return false;
        }
        let Some(upstream) = self.to.upstream() else { return true };
        let policy = &upstream.retry;
        let wait = match self.to.has_untried() {
            true => None,
            // The endpoint says when it may be asked again.
            false if retry_after.is_some_and(|after| after > policy.max_retry_after) => return false,
            false => {
                Some(policy.backoff.wait(self.pauses, fastrand::f64()).max(retry_after.unwrap_or_default()))
            }
        };
        if !policy.when.has(cause) || !upstream.retries(cause) {
            return false;
        }
        self.pauses += u32::from(wait.is_some());
        self.pause = wait;
        true
    }

    /// An exchange broke. Says whether it is tried again, which it is only where it `can_repeat`, and no more often than an
    /// endpoint may need: on another endpoint, or on a new connection to the same where that only closed the `reused` one or
    /// did not process the request.
    pub(super) fn failed(&mut self, failure: &Failure, reused: bool, can_repeat: bool) -> bool {
        let is_late = failure.reason == Reason::FirstByteTimeout;
        if can_repeat && failure.can_begin_anew(reused) && self.repeats < MOST_REPEATS {
            self.repeats += 1;
            self.again = true;
            if let Some(traced) = &mut self.traced {
                traced.failed(failure.reason);
            }
            return true;
        }
        self.note(self.reason_for(failure), failure);
        let cause = if is_late { Cause::Timeout } else { Cause::Reset };
        can_repeat && self.tries_again(cause, None)
    }

    /// It failed for a reason that is not the origin's message.
    pub(super) fn broke(&mut self, reason: Reason) {
        self.note(reason, &reason.code());
    }

    /// A server of HTTP/2 without extended CONNECT takes it for a breach of the protocol (RFC 8441 section 4).
    fn reason_for(&self, failure: &Failure) -> Reason {
        let connects = self.tunnel.as_ref().is_some_and(Tunnel::connects_upstream);
        match failure.reason {
            Reason::UpstreamProtocol | Reason::UpstreamClosed
                if connects && self.first_byte_after.is_none() =>
            {
                Reason::UpgradeFailed
            }
            reason => reason,
        }
    }

    /// Whether a failure says something of the endpoint. That it does not speak what was asked for does not, nor that a
    /// long response took all of the request's time.
    fn is_failure_of_endpoint(&self, reason: Reason) -> bool {
        match reason {
            Reason::UpgradeFailed | Reason::UpstreamOverloaded => false,
            Reason::TotalTimeout => self.attempts > 0 && self.first_byte_after.is_none(),
            reason => reason.blame() == Blame::Upstream,
        }
    }

    fn note(&mut self, reason: Reason, cause: &dyn std::fmt::Display) {
        if self.is_failure_of_endpoint(reason) {
            self.to.failed();
            if matches!(reason, Reason::FirstByteTimeout | Reason::TotalTimeout)
                && let Some(upstream) = self.upstream()
            {
                // It takes at least so long.
                upstream.took(Instant::now(), self.attempt_began.elapsed());
            }
        }
        let (upstream, endpoint) = (self.upstream().map(|upstream| &upstream.name), self.endpoint());
        tracing::debug!(?upstream, ?endpoint, reason = reason.code(), %cause, "upstream attempt failed");
        self.failure = Some(reason);
        if let Some(traced) = &mut self.traced {
            traced.failed(reason);
        }
    }
}
