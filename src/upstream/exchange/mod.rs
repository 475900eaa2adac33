//! One exchange with an origin, whatever the protocol: the seam upstream, and the twin of `proxy::session::Session`.
//!
//! An exchange never answers twice and never cuts a body silently: a response that ends early is a [`Failure`], and a
//! connection that is not between two messages is never used again.

mod h1;
mod h2;
mod shared;
mod whole;

use std::{
    borrow::Cow,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, request, response};

use crate::{error::Reason, wire::h1::body::BodyLength};

pub use h1::Http1;
pub use h2::{Connection as Http2Connection, Http2};
pub use whole::{Trailers, discarded, whole};

/// A request on its way to an origin, and its response on the way back.
pub enum Exchange {
    Http1(Box<Http1>),
    Http2(Box<Http2>),
}

/// The head of a request as an origin gets it. Fields that frame a message or belong to a connection are written by the
/// codec, from what is said here.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Method, target in origin form, fields.
    pub parts: &'a request::Parts,
    /// The host that is asked for.
    pub host: &'a HeaderValue,
    /// Whether the connection is encrypted: the scheme of an HTTP/2 request.
    pub tls: bool,
    pub body: BodyLength,
    /// The tunnel that is asked for.
    pub tunnel: Option<TunnelRequest>,
}

/// How a tunnel is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelRequest {
    /// By `Connection: Upgrade` (RFC 9110 section 7.8).
    Upgrade,
    /// By extended CONNECT (RFC 8441).
    Connect,
}

/// What an origin sends, in its order.
#[derive(Debug)]
pub enum Event {
    /// A 1xx response other than 101.
    Informational(response::Parts),
    /// The final response, or the 101 that begins a tunnel; and whether no body follows.
    Head(response::Parts, bool),
    Data(Bytes),
    Trailers(HeaderMap),
    /// The response, or the origin's direction of a tunnel, is complete.
    End,
    /// Everything queued was sent: there is room for more of the request.
    Room,
}

/// Why an exchange broke.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Failure {
    pub reason: Reason,
    /// How much of the request the origin can have acted on.
    pub processed: Processed,
    cause: Cow<'static, str>,
}

/// How much of a request an origin can have acted on (RFC 9110 section 9.2.2, RFC 9113 section 8.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processed {
    /// Nothing was sent.
    Unsent,
    /// The origin says that it did not process the request.
    Refused,
    /// The connection ended before a byte of the response arrived.
    Unanswered,
    /// The origin broke the protocol, or broke off its response.
    Unknown,
}

// === impl Exchange ===

impl Exchange {
    /// Queues the head. Nothing is sent before [`Self::poll_event`].
    pub fn send_head(&mut self, head: RequestHead<'_>) -> Result<(), Failure> {
        match self {
            Self::Http1(exchange) => {
                exchange.send_head(head);
                Ok(())
            }
            Self::Http2(exchange) => exchange.send_head(head),
        }
    }

    /// Whether its connection carried another exchange before, as far as that is known.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.lifetime.is_used(),
            Self::Http2(_) => false,
        }
    }

    /// Whether a piece of the body can be queued: one at a time.
    pub fn has_room(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.has_room(),
            Self::Http2(exchange) => exchange.has_room(),
        }
    }

    /// Whether the origin takes no more of the request: it is complete, or sending it failed.
    pub fn is_sent(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.is_sent(),
            Self::Http2(exchange) => exchange.is_sent(),
        }
    }

    /// Queues a piece of the body, or of what goes through the tunnel. Only while there is room.
    pub fn send_data(&mut self, data: Bytes) -> Result<(), Failure> {
        match self {
            Self::Http1(exchange) => exchange.send_data(data),
            Self::Http2(exchange) => {
                exchange.send_data(data);
                Ok(())
            }
        }
    }

    /// Ends the request, or this direction of the tunnel.
    pub fn send_end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        match self {
            Self::Http1(exchange) => exchange.send_end(trailers),
            Self::Http2(exchange) => {
                exchange.send_end(trailers);
                Ok(())
            }
        }
    }

    /// Sends what is queued and gives what the origin says. May be asked again after each answer.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Failure>> {
        match self {
            Self::Http1(exchange) => exchange.poll_event(cx),
            Self::Http2(exchange) => exchange.poll_event(cx),
        }
    }

    /// Sends what is queued. Ready when the origin takes more of the request, or takes no more at all.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(exchange) => exchange.poll_room(cx),
            Self::Http2(exchange) => exchange.poll_room(cx),
        }
    }

    /// Reads past the rest of a response that nobody wants, as far as it has come and is short. Says whether it was read to its
    /// end, so that the connection can be used again.
    pub fn discard(&mut self) -> bool {
        const MOST: usize = 64 * 1024;
        let mut read = 0;
        let mut cx = Context::from_waker(Waker::noop());
        while read <= MOST && self.is_sent() {
            match self.poll_event(&mut cx) {
                Poll::Ready(Ok(Event::Data(data))) => read += data.len(),
                Poll::Ready(Ok(Event::Room)) => {}
                Poll::Ready(Ok(Event::End | Event::Trailers(_))) => return true,
                _ => return false,
            }
        }
        false
    }

    /// The origin did not answer in time: nothing more is sent to it over this connection.
    pub fn distrust(&self) {
        if let Self::Http2(exchange) = self {
            exchange.distrust();
        }
    }

    /// Whether trailers of the request can be sent.
    pub fn takes_trailers(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.takes_trailers(),
            Self::Http2(_) => true,
        }
    }
}

// === impl Failure ===

impl Failure {
    pub fn new(reason: Reason, processed: Processed, cause: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, processed, cause: cause.into() }
    }

    /// The response's head did not come in the time of one try.
    pub fn of_try_timeout() -> Self {
        Self::new(Reason::FirstByteTimeout, Processed::Unanswered, "per_try_timeout passed")
    }

    /// Whether the request can begin anew on a new connection: the origin closed the `reused` one before it answered, or
    /// says that it did not process the request.
    pub fn can_begin_anew(&self, reused: bool) -> bool {
        let is_late = self.reason == Reason::FirstByteTimeout;
        let is_stale = reused && !is_late && self.processed != Processed::Unknown;
        is_stale || self.processed == Processed::Refused
    }

    /// The origin's message breaks the protocol.
    pub(super) fn protocol(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::UpstreamProtocol, Processed::Unknown, cause)
    }
}
