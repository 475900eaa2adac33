//! Copies of a request for the mirrors of its route: collected while the request is read, sent when it is complete. The
//! request itself never waits for them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Uri, header, request};

use super::call::Call;
use crate::{
    action::proxy::{HostHeader, Proxy},
    middleware::Exchange,
    trace::{TRACEPARENT, Trace},
    upstream::{CopyPermit, Facts, PickKey, RequestCopy},
    wire::h1::body::BodyLength,
};

/// The copies of one request.
pub(super) struct Mirroring {
    proxy: Arc<Proxy>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    host: String,
    body: BytesMut,
    copies: Vec<Collected>,
}

/// One copy, while its body is collected.
struct Collected {
    /// Its mirror's place among the action's.
    mirror: usize,
    key: PickKey,
    permit: CopyPermit,
}

// === impl Mirroring ===

impl Mirroring {
    /// Draws which mirrors get a copy. None of a request that asks for a tunnel.
    pub fn of(
        call: &Call,
        exchange: &Exchange,
        head: &request::Parts,
        body: BodyLength,
    ) -> Option<Box<Self>> {
        let proxy = call.proxy().filter(|proxy| !proxy.mirrors.is_empty() && call.tunnel.is_none())?;
        Self::drawn(proxy, exchange, head, body)
    }

    #[cold]
    fn drawn(
        proxy: &Arc<Proxy>,
        exchange: &Exchange,
        head: &request::Parts,
        body: BodyLength,
    ) -> Option<Box<Self>> {
        let facts = Facts {
            client_ip: exchange.client_ip,
            host: &exchange.host,
            path: &exchange.path,
            query: exchange.query.as_deref(),
            headers: &head.headers,
        };
        let drawn =
            proxy.mirrors.iter().enumerate().filter(|(_, mirror)| fastrand::u8(..100) < mirror.sample);
        let copies: Vec<_> = drawn
            .filter_map(|(place, mirror)| {
                let permit = mirror.to.reserve(mirror.in_flight)?;
                Some(Collected { mirror: place, key: mirror.to.key(&facts), permit })
            })
            .collect();
        let mut mirroring = Self {
            proxy: proxy.clone(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: HeaderMap::new(),
            host: exchange.host.clone(),
            body: BytesMut::new(),
            copies,
        };
        if let BodyLength::Exact(length) = body {
            mirroring.drop_smaller_than(length);
        }
        if mirroring.copies.is_empty() {
            return None;
        }
        mirroring.headers = fields(&head.headers, exchange.trace.as_ref());
        Some(Box::new(mirroring))
    }

    /// Keeps a piece of the body, as long as a mirror takes so much.
    pub fn keep(&mut self, piece: &Bytes) {
        if self.copies.is_empty() {
            return;
        }
        self.drop_smaller_than((self.body.len() + piece.len()) as u64);
        match self.copies.is_empty() {
            true => self.body = BytesMut::new(),
            false => self.body.extend_from_slice(piece),
        }
    }

    /// The request is complete.
    pub fn send(self) {
        let Self { proxy, method, uri, headers, host: server_name, body, copies } = self;
        let host = match &proxy.host_header {
            HostHeader::Original => headers.get(header::HOST).cloned(),
            HostHeader::Fixed(host) => Some(host.clone()),
            HostHeader::Upstream => None,
        };
        let body = body.freeze();
        for Collected { mirror, key, permit } in copies {
            let mirror = &proxy.mirrors[mirror];
            let mut request = http::Request::new(body.clone());
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = headers.clone();
            let copy = RequestCopy {
                upstream: mirror.to.upstream.clone(),
                key,
                request,
                host: host.clone(),
                server_name: server_name.clone(),
                timeout: mirror.timeout,
            };
            mirror.to.send(copy, permit);
        }
    }

    /// Ends the copies that may not have so long a body.
    fn drop_smaller_than(&mut self, length: u64) {
        let mirrors = &self.proxy.mirrors;
        let is_too_large = |copy: &mut Collected| length > mirrors[copy.mirror].max_body as u64;
        self.copies.extract_if(.., is_too_large).for_each(|copy| copy.permit.give_up_too_large());
    }
}

/// The fields of the copy: those of the request, less what is agreed upon with one server only.
fn fields(headers: &HeaderMap, trace: Option<&Trace>) -> HeaderMap {
    let mut headers = headers.clone();
    for name in [header::EXPECT, header::UPGRADE, header::TRAILER] {
        headers.remove(name);
    }
    // An attempt has a place of its own in a recorded trace; a copy stands directly below the request.
    let traceparent = trace.map(|trace| trace.context().traceparent());
    traceparent.and_then(|place: HeaderValue| headers.insert(TRACEPARENT, place));
    headers
}
