//! One request on its way through a chain: what middleware and actions see and edit.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, request};
use smallvec::SmallVec;

use super::{
    HeadSize, bandwidth::Throttle, body_limit::Limits, compress::Encoder, cors, decompress::Decoder, jwt,
    limit::Permit, rate_limit,
};
use crate::{
    error::Reason,
    http::{
        accept::Accept,
        coding::Coding,
        connection::{ClientCertificate, Connection, Tls},
        external::Expose,
        field_name::Lookalikes,
    },
    trace::{Attributes, Kind, Recorded, SpanId, Trace},
    value::{Name, Params, Variable, Variables},
};

/// A request with what was found out about it.
#[derive(Debug)]
pub struct Exchange {
    pub connection: Arc<Connection>,
    /// When the head was there.
    pub started: Instant,
    /// The client's address, by the word of trusted proxies where there are any.
    pub client_ip: IpAddr,
    /// The scheme by which the client came: that of a trusted proxy's word, of `expose`, or of the connection.
    pub scheme: &'static str,
    /// What users see of its listener.
    pub expose: Expose,
    /// The host asked for: lower-case, without port and trailing dot.
    pub host: String,
    /// The normalised path, as it was routed.
    pub path: String,
    pub query: Option<String>,
    /// The method as it came; what goes upstream is `head`'s.
    pub method: Method,
    /// The request as it goes upstream.
    pub head: request::Parts,
    /// Whether servers may read some of its fields as others.
    pub lookalikes: Lookalikes,
    /// How large the head came, where a part of the chain asks.
    pub head_size: Option<Box<HeadSize>>,
    /// Whether the head says that a body follows.
    pub has_body: bool,
    /// Whether it came as extended CONNECT: a success would make a tunnel of the answer (RFC 8441 section 5).
    pub connects: bool,
    /// Whether it is asked of us as of a forward proxy.
    pub to_proxy: bool,
    /// The values of the route's captures, in their order.
    pub captures: Params,
    pub routed: Arc<Routed>,
    pub request_id: Option<HeaderValue>,
    /// Its place in a trace, where requests are traced.
    pub trace: Option<Trace>,
    /// The name of the user or the key that the chain found it to be from.
    pub user: Option<Box<HeaderValue>>,
    /// Whether a part of the chain accepted the client's certificate.
    pub has_accepted_certificate: bool,
    /// The token that the chain found right.
    pub token: Option<Arc<jwt::Verified>>,
    /// Why the answer is ours, where it is.
    pub reason: Option<Reason>,
    /// What made a part of the chain refuse it, or say that it would: for the log alone.
    pub cause: Option<&'static str>,
    /// For what it would have been refused, by parts that only observe.
    pub observed: SmallVec<[Reason; 1]>,
    /// What media types the client wants, kept where the form of errors depends on it.
    pub accept: Option<Box<Accept>>,
    /// The content coding that the client wants, of those that its chain offers.
    pub coding: Option<Coding>,
    /// If-None-Match, where a part writes responses in such a coding.
    pub held_tags: Option<Box<[HeaderValue]>>,
    /// Whether scripts of its origin may read the response, where a part was asked.
    pub cors: Option<cors::Asked>,
    /// What the response gets by the word of who let the request in.
    pub granted: Option<Box<HeaderMap>>,
    /// Writes the response's body, where it is written in a coding.
    pub encoder: Option<Box<Encoder>>,
    /// What is said before the answer is there.
    pub early_hints: Option<Arc<HeaderMap>>,
    /// Takes the coding off the request's body, where that has one that is not to go upstream.
    pub decoder: Option<Box<Decoder>>,
    /// What the request's body is held to while it comes.
    pub body_limits: Limits,
    /// How fast its bodies pass, where that is limited.
    pub throttle: Option<Box<Throttle>>,
    /// What rate limits said to it.
    pub rate_limits: SmallVec<[rate_limit::Reading; 1]>,
    /// Its places among the requests in flight: left when it ends, whatever way.
    pub permits: SmallVec<[Permit; 1]>,
    /// The status sent, once a final head has been.
    pub status: Option<StatusCode>,
    /// Which parts of the chain were entered: the first so many.
    pub entered: usize,
}

/// What a request was routed to, by the names that it has in the configuration.
#[derive(Debug)]
pub struct Routed {
    /// Unmatched and redirecting routes of a listener belong to no host.
    pub host: Option<Name>,
    pub tenant: Option<Name>,
    pub route: Name,
}

impl Exchange {
    /// A request that nothing is known of but its head: of the peer itself, to no host and no path.
    pub fn new(connection: Arc<Connection>, head: request::Parts, routed: Arc<Routed>) -> Self {
        Self {
            started: Instant::now(),
            client_ip: connection.hop.ip,
            scheme: if connection.tls.is_some() { "https" } else { "http" },
            connection,
            expose: Expose::default(),
            host: String::new(),
            path: String::new(),
            query: None,
            method: head.method.clone(),
            lookalikes: Lookalikes::default(),
            head,
            head_size: None,
            has_body: false,
            connects: false,
            to_proxy: false,
            captures: Params::default(),
            routed,
            request_id: None,
            trace: None,
            user: None,
            has_accepted_certificate: false,
            token: None,
            reason: None,
            cause: None,
            observed: SmallVec::new(),
            accept: None,
            coding: None,
            held_tags: None,
            cors: None,
            granted: None,
            encoder: None,
            early_hints: None,
            decoder: None,
            body_limits: Limits::default(),
            throttle: None,
            rate_limits: SmallVec::new(),
            permits: SmallVec::new(),
            status: None,
            entered: 0,
        }
    }

    /// Notes what a part would have refused it for.
    pub fn observe(&mut self, reason: Reason) {
        self.observed.push(reason);
    }

    /// When its time is up, where it has `total` from its beginning.
    pub fn deadline(&self, total: Option<Duration>) -> Option<tokio::time::Instant> {
        total.and_then(|total| self.started.checked_add(total)).map(tokio::time::Instant::from_std)
    }

    /// Whether what it causes is recorded.
    pub fn is_recorded(&self) -> bool {
        self.trace.as_ref().is_some_and(Trace::is_recorded)
    }

    /// Records that a part of this kind has had it wait until now; `refused`: for what it was refused then.
    pub(super) fn record_wait(&mut self, kind: &'static str, began: Instant, refused: Option<Reason>) {
        let Some(trace) = &mut self.trace else { return };
        let mut attributes = Attributes::default();
        attributes.text("portolan.middleware", kind);
        attributes.some("portolan.reason", refused.map(Reason::code));
        let failed = refused.is_some_and(|reason| reason.status().is_server_error());
        let (span, name, ended) = (SpanId::random(), kind.to_owned(), Instant::now());
        trace.add(Recorded { span, name, kind: Kind::Internal, began, ended, attributes, failed });
    }

    /// What its token says, as far as a part of the chain asks for it.
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.token.as_ref()?.claim(name)
    }

    /// The authenticated user, as the access log names it: by basic_auth, api_key or forward_auth, else by the token, else by
    /// the client certificate.
    pub fn user_name(&self) -> Option<&[u8]> {
        let named = self.user.as_ref().map(|user| user.as_bytes());
        let certificate = || self.client_certificate().filter(|_| self.has_accepted_certificate);
        let subject = || certificate().map(|certificate| certificate.subject.as_str());
        named.or_else(|| self.claim(jwt::SUBJECT).or_else(subject).map(str::as_bytes))
    }

    fn tls(&self) -> Option<&Tls> {
        self.connection.tls.as_ref()
    }

    fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.tls()?.client.as_deref()
    }
}

impl Variables for Exchange {
    fn capture(&self, index: usize) -> &str {
        self.captures.get(index, &self.path)
    }

    fn variable(&self, variable: Variable, out: &mut String) {
        let text = match variable {
            Variable::RequestHost => Some(self.host.as_str()),
            Variable::RequestPath => Some(self.path.as_str()),
            Variable::RequestQuery => self.query.as_deref(),
            Variable::RequestScheme => Some(self.scheme),
            Variable::RequestMethod => Some(self.method.as_str()),
            Variable::RequestId => self.request_id.as_ref().and_then(|id| id.to_str().ok()),
            Variable::ClientIp => return write(out, self.client_ip),
            Variable::ClientPort => return write(out, self.connection.peer.port()),
            Variable::TlsClientSubject => self.client_certificate().map(|client| client.subject.as_str()),
            Variable::TlsClientFingerprint => {
                self.client_certificate().map(|client| client.fingerprint.as_str())
            }
            Variable::TlsSni => self.tls().and_then(|tls| tls.sni.as_deref()),
            Variable::TlsVersion => self.tls().map(|tls| tls.version),
        };
        out.push_str(text.unwrap_or_default());
    }
}

fn write(out: &mut String, value: impl std::fmt::Display) {
    use std::fmt::Write;
    write!(out, "{value}").expect("writing to a string cannot fail");
}

#[cfg(test)]
impl Exchange {
    pub(crate) fn for_tests(method: &str, target: &str) -> Self {
        use crate::http::{
            connection::{Peer, Protocol},
            forwarded::Hop,
        };

        let mut head = http::Request::new(()).into_parts().0;
        head.method = method.parse().expect("a test's method is one");
        head.uri = target.parse().expect("a test's target is one");
        let connection = Connection {
            listener: "test".parse().expect("a name"),
            peer: Peer::Unix,
            hop: Hop::new(Peer::Unix.ip()),
            local: crate::value::Bind::Any(80),
            protocol: Protocol::Http1,
            tls: None,
            alt_svc: None,
            draining: tokio::sync::watch::channel(false).1,
            leaving: tokio::sync::watch::channel(None).1,
            kept: crate::http::connection::Kept::default(),
            reservations: Default::default(),
        };
        let routed = Routed { host: None, tenant: None, route: "test".parse().expect("a name") };
        let (path, query) = (head.uri.path().to_owned(), head.uri.query().map(Into::into));
        Self {
            host: "test.example".into(),
            path,
            query,
            ..Self::new(Arc::new(connection), head, Arc::new(routed))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    #[test]
    fn what_few_requests_have_takes_no_room_in_all() {
        assert!(size_of::<Exchange>() <= 864, "{}", size_of::<Exchange>());
    }
}
