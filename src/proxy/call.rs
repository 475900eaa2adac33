//! A request's way upstream: where it was tried, and what became of it.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode, Version, header, request};
use pingora::{
    Error,
    http::{RequestHeader, ResponseHeader},
    protocols::ALPN,
    upstreams::peer::HttpPeer,
};

use super::{
    destination::Destination,
    downstream::Exchanged,
    errors,
    spans::Traced,
    tunnel::{self, Tunnel},
};
use crate::{
    error::{Blame, Reason},
    http::{
        connection_auth::{self, Lease},
        hop_by_hop,
    },
    trace::TRACEPARENT,
    upstream::{self, Upstream, config::Protocol},
    value::Address,
};

/// Sets the connections of HTTP/2 apart that carry tunnels. Pingora does not show whether a server allows extended
/// CONNECT: one that ends the connection for it ends no request of others.
const OF_TUNNELS: u64 = 0x7475_6e6e_656c_7321;

/// One request's call to an upstream.
pub struct Call {
    to: Destination,
    /// The tunnel that is asked for.
    tunnel: Option<Tunnel>,
    /// Whether writing the request takes no time that a timer would have to guard.
    at_once: bool,
    /// The endpoint had closed the kept connection that was used: it is asked again.
    stale: bool,
    pub attempts: u32,
    began: Instant,
    attempt_began: Instant,
    pub connected_after: Option<Duration>,
    pub first_byte_after: Option<Duration>,
    pub failure: Option<Reason>,
    /// Whether it carries credentials that sign in the connection.
    with_credentials: bool,
    /// The use of a connection that is reserved for the client connection.
    lease: Option<Arc<Lease>>,
    /// Whether the response asked for such credentials on a connection that is not reserved.
    challenged: bool,
    /// What is recorded of it, where it is.
    pub traced: Option<Box<Traced>>,
}

impl Call {
    pub(super) fn new(to: Destination, traced: Option<Box<Traced>>) -> Self {
        let began = Instant::now();
        Self {
            to,
            tunnel: None,
            at_once: false,
            stale: false,
            attempts: 0,
            began,
            attempt_began: began,
            connected_after: None,
            first_byte_after: None,
            failure: None,
            with_credentials: false,
            lease: None,
            challenged: false,
            traced,
        }
    }

    /// The upstream that is asked, where it is one.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.to.upstream()
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

    /// Looks for challenges in a final head: what answers them is to go over a reserved connection.
    pub(super) fn look_for_challenge(&mut self, headers: &HeaderMap) {
        let challenged = connection_auth::has_challenge(headers);
        match &self.lease {
            Some(lease) => lease.answered(self.with_credentials, challenged),
            None => self.challenged = challenged,
        }
    }

    /// Whether the response asked for credentials on a connection that others could use.
    pub(super) fn is_challenged(&self) -> bool {
        self.challenged
    }

    /// Has the upstream asked for what the request asks for, where it can be: see [`Tunnel::ask`].
    pub(super) fn ask_tunnel(&mut self, head: &mut request::Parts, bodiless: bool) -> Option<Tunnel> {
        self.tunnel = Tunnel::ask(head, self.to.protocol(), bodiless);
        self.tunnel.clone()
    }

    /// Whether the upstream speaks the one protocol whose trailers Pingora leaves behind.
    pub(super) fn is_http1(&self) -> bool {
        self.to.protocol() == Protocol::H1
    }

    /// The request is so small that writing it cannot wait: no timer guards it.
    pub(super) fn write_at_once(&mut self) {
        self.at_once = true;
    }

    /// The next endpoint: one that was not tried yet, or the same where only a kept connection was stale.
    pub(super) fn next_peer(&mut self) -> Option<Box<HttpPeer>> {
        let Some(mut peer) = self.to.next(std::mem::take(&mut self.stale)) else {
            // A failure of the endpoints that were tried says more than that there are no others.
            self.failure.get_or_insert(Reason::NoEndpoint);
            return None;
        };
        self.attempts += 1;
        if self.attempts > 1 {
            self.attempt_began = Instant::now();
        }
        if let (Some(traced), Some(address)) = (&mut self.traced, self.to.address()) {
            traced.begin(address.into_owned());
        }
        // The session's own wait limits first_byte and body_idle apart, without a timer for each read,
        // and lets a tunnel be silent.
        peer.options.read_timeout = None;
        if self.at_once {
            peer.options.write_timeout = None;
        }
        match &self.tunnel {
            None => {}
            Some(tunnel) if tunnel.connects_upstream() => peer.group_key ^= OF_TUNNELS,
            Some(_) => peer.options.alpn = ALPN::H1,
        }
        Some(peer)
    }

    /// There is a connection. A kept one was there at once.
    pub(super) fn connected(&mut self, kept: bool) {
        if let Some(pick) = self.to.pick() {
            pick.connected();
        }
        if let Some(lease) = &self.lease {
            lease.reserved().set_busy();
        }
        if self.connected_after.is_none() {
            let waited = if kept && self.attempts == 1 { Duration::ZERO } else { self.began.elapsed() };
            self.connected_after = Some(waited);
        }
        self.failure = None;
    }

    /// Writes what depends on the endpoint chosen: the Host, and TE where the connection carries trailers.
    pub(super) fn address(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        if request.version != Version::HTTP_2 && hop_by_hop::has_rare(&request.headers, &header::TE) {
            request.remove_header(&header::TE);
        }
        if self.tunnel.as_ref().is_some_and(Tunnel::connects_upstream) {
            tunnel::connect(request);
        }
        if let Some(traced) = &self.traced {
            request.insert_header(TRACEPARENT, traced.traceparent())?;
        }
        self.to.address_to(request)
    }

    /// The final head is there. An error where it cannot be the answer to what was asked.
    pub(super) fn answered(&mut self, head: &ResponseHeader) -> Result<(), Reason> {
        match &self.tunnel {
            None if head.status == StatusCode::SWITCHING_PROTOCOLS => return Err(Reason::UpstreamProtocol),
            None => {}
            Some(tunnel) => tunnel.check(head)?,
        }
        let status = head.status;
        let now = Instant::now();
        if let Some(traced) = &mut self.traced {
            traced.answered(status);
        }
        self.first_byte_after = Some(now - self.began);
        if let Some(pick) = self.to.pick() {
            pick.answered(status, now, now - self.attempt_began);
        }
        Ok(())
    }

    /// It is over: what went to the endpoint that was asked last, and what came from it, is counted.
    pub(super) fn ended(&self, exchanged: Exchanged) {
        if let Some(pick) = self.to.pick() {
            pick.endpoint.state.metrics().exchanged(exchanged.read, exchanged.given);
        }
    }

    /// Says whether another endpoint is to be tried.
    pub(super) fn connect_failed(&mut self, error: &Error) -> bool {
        self.note(error, true);
        if let Some(pick) = self.to.pick() {
            pick.endpoint.state.metrics().connect_failed();
        }
        self.may_retry()
    }

    /// An exchange broke; says whether it may be tried again. `stale`: on a kept connection, in a way that
    /// tells nothing of the endpoint but that it closed it meanwhile (RFC 9112 section 9.3.1).
    pub(super) fn failed(&mut self, error: &Error, stale: bool) -> bool {
        if errors::is_end(error) {
            return false;
        }
        self.stale = stale && self.first_byte_after.is_none();
        match (self.stale, &mut self.traced) {
            (false, _) => self.note(error, false),
            (true, Some(traced)) => traced.failed(upstream::reason_for(error, false)),
            (true, None) => {}
        }
        self.stale
    }

    /// Pingora is through with it and has nothing to show.
    pub(super) fn give_up(&mut self, error: &Error) {
        if self.failure.is_none() && !errors::is_end(error) {
            self.note(error, false);
        }
    }

    /// A server of HTTP/2 without extended CONNECT takes it for a breach of the protocol (RFC 8441 section 4).
    fn reason_for(&self, error: &Error, connecting: bool) -> Reason {
        let reason = upstream::reason_for(error, connecting);
        let connects = self.tunnel.as_ref().is_some_and(Tunnel::connects_upstream);
        match reason {
            Reason::UpstreamProtocol | Reason::UpstreamClosed
                if connects && !connecting && self.first_byte_after.is_none() =>
            {
                Reason::UpgradeFailed
            }
            reason => reason,
        }
    }

    fn may_retry(&self) -> bool {
        self.to.has_more(self.attempts)
    }

    fn note(&mut self, error: &Error, connecting: bool) {
        let reason = errors::reason_of(error).unwrap_or_else(|| self.reason_for(error, connecting));
        if reason.blame() == Blame::Upstream
            && let Some(pick) = self.to.pick()
        {
            pick.failed();
        }
        let (upstream, endpoint) = (self.upstream().map(|upstream| &upstream.name), self.endpoint());
        tracing::debug!(?upstream, ?endpoint, reason = reason.code(), cause = %error, "an attempt failed");
        self.failure = Some(reason);
        if let Some(traced) = &mut self.traced {
            traced.failed(reason);
        }
    }
}
