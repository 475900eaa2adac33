//! A request's way upstream: which endpoints were tried, and what became of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{StatusCode, Version, header, request};
use pingora::{
    Error,
    http::{RequestHeader, ResponseHeader},
    protocols::ALPN,
    upstreams::peer::HttpPeer,
};

use super::{
    adapter,
    downstream::Exchanged,
    spans::Traced,
    tunnel::{self, Tunnel},
};
use crate::{
    action::proxy::{HostHeader, Proxy},
    error::{Blame, Reason},
    http::hop_by_hop,
    trace::TRACEPARENT,
    upstream::{self, Endpoint, Pick, PickKey, Tried, Upstream, config::Protocol},
};

/// Sets the connections of HTTP/2 apart that carry tunnels. Pingora does not show whether a server allows extended
/// CONNECT: one that ends the connection for it ends no request of others.
const OF_TUNNELS: u64 = 0x7475_6e6e_656c_7321;

/// One request's call to an upstream.
pub struct Call {
    proxy: Arc<Proxy>,
    /// The hash of what the balancer goes by, where it goes by something.
    key: PickKey,
    /// The host that is asked for, for SNI where the upstream has no name of its own.
    host: String,
    /// Whose request it is, where the upstream is told.
    client: Option<upstream::Client>,
    /// The tunnel that is asked for.
    tunnel: Option<Tunnel>,
    /// Whether writing the request takes no time that a timer would have to guard.
    at_once: bool,
    tried: Tried,
    pick: Option<Pick>,
    /// The endpoint had closed the kept connection that was used: it is asked again.
    stale: bool,
    pub attempts: u32,
    began: Instant,
    attempt_began: Instant,
    pub connected_after: Option<Duration>,
    pub first_byte_after: Option<Duration>,
    pub failure: Option<Reason>,
    /// What is recorded of it, where it is.
    pub traced: Option<Box<Traced>>,
}

impl Call {
    pub fn new(proxy: Arc<Proxy>, key: PickKey, host: String, traced: Option<Box<Traced>>) -> Self {
        let began = Instant::now();
        Self {
            proxy,
            key,
            host,
            client: None,
            tunnel: None,
            at_once: false,
            tried: Tried::default(),
            pick: None,
            stale: false,
            attempts: 0,
            began,
            attempt_began: began,
            connected_after: None,
            first_byte_after: None,
            failure: None,
            traced,
        }
    }

    /// The upstream is to be told whose request it is.
    pub fn announce(&mut self, client: Option<upstream::Client>) {
        self.client = client;
    }

    pub fn upstream(&self) -> &Upstream {
        &self.proxy.upstream
    }

    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.pick.as_ref().map(|pick| &pick.endpoint)
    }

    /// Has the upstream asked for what the request asks for, where it can be: see [`Tunnel::ask`].
    pub(super) fn ask_tunnel(&mut self, head: &mut request::Parts, bodiless: bool) -> Option<Tunnel> {
        self.tunnel = Tunnel::ask(head, self.proxy.upstream.protocol, bodiless);
        self.tunnel.clone()
    }

    /// Whether the upstream speaks the one protocol whose trailers Pingora leaves behind.
    pub(super) fn is_http1(&self) -> bool {
        self.proxy.upstream.protocol == Protocol::H1
    }

    /// The request is so small that writing it cannot wait: no timer guards it.
    pub(super) fn write_at_once(&mut self) {
        self.at_once = true;
    }

    /// The next endpoint: one that was not tried yet, or the same where only a kept connection was stale.
    pub(super) fn next_peer(&mut self) -> Option<Box<HttpPeer>> {
        let same = if std::mem::take(&mut self.stale) { self.pick.take() } else { None };
        let Some(pick) = same.or_else(|| self.proxy.upstream.pick(self.key, &self.tried)) else {
            // A failure of the endpoints that were tried says more than that there are no others.
            self.failure.get_or_insert(Reason::NoEndpoint);
            return None;
        };
        self.attempts += 1;
        if self.attempts > 1 {
            self.attempt_began = Instant::now();
        }
        self.tried.add(&pick);
        if let Some(traced) = &mut self.traced {
            traced.begin(&pick.endpoint);
        }
        pick.endpoint.state.metrics().tried();
        let mut peer = pick.endpoint.peer(&self.host);
        if let Some(client) = self.client {
            pick.endpoint.announce(&mut peer, client);
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
        self.pick = Some(pick);
        Some(peer)
    }

    /// There is a connection. A kept one was there at once.
    pub(super) fn connected(&mut self, kept: bool) {
        if let Some(pick) = &self.pick {
            pick.connected();
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
        let host = match &self.proxy.host_header {
            // A client of HTTP/1.0 may have named none; upstream there must be one (RFC 9112 section 3.2).
            HostHeader::Original if request.headers.contains_key(header::HOST) => return Ok(()),
            HostHeader::Fixed(host) => host.clone(),
            HostHeader::Original | HostHeader::Upstream => match &self.pick {
                Some(pick) => pick.endpoint.host_header().clone(),
                None => return Ok(()),
            },
        };
        request.insert_header(header::HOST, host)
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
        if let Some(pick) = &self.pick {
            pick.answered(status, now, now - self.attempt_began);
        }
        Ok(())
    }

    /// It is over: what went to the endpoint that was asked last, and what came from it, is counted.
    pub(super) fn ended(&self, exchanged: Exchanged) {
        if let Some(pick) = &self.pick {
            pick.endpoint.state.metrics().exchanged(exchanged.read, exchanged.given);
        }
    }

    /// Says whether another endpoint is to be tried.
    pub(super) fn connect_failed(&mut self, error: &Error) -> bool {
        self.note(error, true);
        if let Some(pick) = &self.pick {
            pick.endpoint.state.metrics().connect_failed();
        }
        self.may_retry()
    }

    /// An exchange broke; says whether it may be tried again. `stale`: on a kept connection, in a way that
    /// tells nothing of the endpoint but that it closed it meanwhile (RFC 9112 section 9.3.1).
    pub(super) fn failed(&mut self, error: &Error, stale: bool) -> bool {
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
        if self.failure.is_none() {
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
        self.attempts <= u32::from(self.proxy.upstream.retries)
    }

    fn note(&mut self, error: &Error, connecting: bool) {
        let reason = adapter::reason_of(error).unwrap_or_else(|| self.reason_for(error, connecting));
        if reason.blame() == Blame::Upstream
            && let Some(pick) = &self.pick
        {
            pick.failed();
        }
        let (upstream, endpoint) =
            (&self.proxy.upstream.name, self.endpoint().map(|endpoint| &endpoint.address));
        tracing::debug!(%upstream, ?endpoint, reason = reason.code(), cause = %error, "an attempt failed");
        self.failure = Some(reason);
        if let Some(traced) = &mut self.traced {
            traced.failed(reason);
        }
    }
}
