//! The request that an origin gets, and what of it can be sent again.

use http::{HeaderMap, HeaderName, Version, header, request};

use bytes::Bytes;

use super::{
    call::Call, downstream::Downstream, mirroring::Mirroring, replay::Replay, session::Session,
    tunnel::Tunnel,
};
use crate::{
    http::{connection::Protocol, connection_auth},
    trace::TRACEPARENT,
    upstream::{
        exchange::{Exchange, Failure, Processed, RequestHead},
        retry::Methods,
    },
    wire::h1::body::BodyLength,
};

/// The request as it is sent, and what of it can be sent again.
pub(super) struct Request {
    pub head: request::Parts,
    pub body: BodyLength,
    /// The body so far, while it is short.
    pub replay: Replay,
    /// The body was read to its end.
    pub is_whole: bool,
    pub trailers: Option<HeaderMap>,
    /// The client holds the body back until it is asked for it.
    pub expects_continue: bool,
    /// The origin has answered without asking for the body, which the client will not send.
    pub is_unwanted: bool,
    /// Whether the client takes trailers: over HTTP/1 it has to say so (RFC 9110 section 6.5.1).
    pub takes_trailers: bool,
    /// Whether credentials sign in the connection.
    pub signs_in: bool,
    /// Copies of it that are sent when it is complete.
    mirroring: Option<Box<Mirroring>>,
}

// === impl Request ===

impl Request {
    pub fn of<S: Session>(downstream: &mut Downstream<S>, call: &mut Call) -> Self {
        let empty = http::Request::new(()).into_parts().0;
        let mut head = std::mem::replace(&mut downstream.exchange.head, empty);
        head.version = Version::HTTP_11;
        let bodiless = downstream.session.body_is_empty();
        let Sight { upgrades, announces, expects, takes_trailers, authorizes } = Sight::of(&head.headers);
        let signs_in = authorizes && connection_auth::has_credentials(&head.headers);
        let takes_trailers = takes_trailers || downstream.exchange.connection.protocol != Protocol::Http1;
        if upgrades {
            call.tunnel = Tunnel::ask(&mut head, call.protocol(), bodiless);
        }
        // What a client sends behind CONNECT is the tunnel's.
        let bodiless = bodiless || call.tunnel.as_ref().is_some_and(Tunnel::is_connect);
        if announces {
            // Trailers come after chunks alone (RFC 9112 section 7.1.2).
            head.headers.remove(if bodiless { header::TRAILER } else { header::CONTENT_LENGTH });
        }
        let expects_continue = expects && !bodiless && downstream.awaits_continue();
        if expects && !expects_continue {
            head.headers.remove(header::EXPECT);
        }
        let body = match bodiless {
            true => BodyLength::Empty,
            false => content_length(&head.headers).map_or(BodyLength::Chunked, BodyLength::Exact),
        };
        let mirroring = Mirroring::of(call, &downstream.exchange, &head, body);
        Self {
            mirroring,
            head,
            body,
            replay: Replay::default(),
            is_whole: bodiless,
            trailers: None,
            expects_continue,
            is_unwanted: false,
            takes_trailers,
            signs_in,
        }
    }

    /// Whether the request can be sent again after a failure: always where the origin did not process it, else as `methods`
    /// allow.
    pub fn can_be_repeated(&self, processed: Processed, methods: &Methods) -> bool {
        self.replay.is_whole()
            && match processed {
                Processed::Unsent | Processed::Refused => true,
                Processed::Unanswered => methods.allow(&self.head.method),
                Processed::Unknown => false,
            }
    }

    /// Queues it: its head, and of its body what was read by an attempt before.
    pub fn begin(&mut self, call: &Call, exchange: &mut Exchange) -> Result<(), Failure> {
        if let Some(traceparent) = call.traceparent() {
            self.head.headers.insert(TRACEPARENT, traceparent);
        }
        exchange.send_head(RequestHead {
            host: &call.host(&self.head),
            parts: &self.head,
            tls: call.is_tls(),
            body: self.body,
            tunnel: call.tunnel.as_ref().map(Tunnel::request),
        })?;
        if let Some(kept) = self.replay.kept() {
            exchange.send_data(kept)?;
        }
        if self.is_whole && call.tunnel.as_ref().is_none_or(|tunnel| !tunnel.connects_upstream()) {
            exchange.send_end(self.trailers.clone())?;
        }
        Ok(())
    }

    /// An endpoint is tried: where the request is complete, its copies are sent.
    pub fn begins(&mut self) {
        if self.is_whole
            && let Some(mirroring) = self.mirroring.take()
        {
            mirroring.send();
        }
    }

    /// Keeps a piece of the body.
    pub fn keep(&mut self, piece: &Bytes) {
        self.replay.keep(piece);
        if let Some(mirroring) = &mut self.mirroring {
            mirroring.keep(piece);
        }
    }

    /// The body is complete. Keeps the trailers that may go on: none says again what the head says, as who the user is.
    /// There are servers that put the two together.
    pub fn ended(&mut self, trailers: Option<HeaderMap>) {
        self.is_whole = true;
        self.begins();
        self.trailers = trailers.map(|mut trailers| {
            let named = |name: &&HeaderName| self.head.headers.contains_key(*name);
            let said: Vec<_> = trailers.keys().filter(named).cloned().collect();
            said.iter().for_each(|name| drop(trailers.remove(name)));
            trailers
        });
    }
}

/// The fields that decide how a request is sent, found by one look at all names.
#[derive(Default)]
struct Sight {
    upgrades: bool,
    announces: bool,
    expects: bool,
    takes_trailers: bool,
    authorizes: bool,
}

impl Sight {
    fn of(headers: &HeaderMap) -> Self {
        let mut sight = Self::default();
        for name in headers.keys() {
            match *name {
                header::UPGRADE => sight.upgrades = true,
                header::TRAILER => sight.announces = true,
                header::EXPECT => sight.expects = true,
                header::TE => sight.takes_trailers = true,
                header::AUTHORIZATION | header::PROXY_AUTHORIZATION => sight.authorizes = true,
                _ => {}
            }
        }
        sight
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    std::str::from_utf8(headers.get(header::CONTENT_LENGTH)?.as_bytes()).ok()?.parse().ok()
}
