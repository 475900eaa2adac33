//! A request whose target is an http URI (RFC 9112 section 3.2.2): to a forward proxy, which sends it to that URI's origin.

use std::sync::Arc;

use http::{HeaderValue, Uri, header, request, uri::Scheme};

use super::{
    call::Call,
    destination::{Destination, Target},
    downstream::Downstream,
    patience::patiently,
    session::Session,
    spans::Traced,
};
use crate::{
    action::forward::Forward,
    error::Reason,
    http::{
        path,
        target::{self, WholeServer},
    },
    upstream::Connections,
};

/// Where a request is to be sent on to.
pub(super) struct Errand {
    pub forward: Arc<Forward>,
    /// The URI's, which is the Host of what is sent.
    pub authority: HeaderValue,
}

/// The URI that a request names, and its path and query as they came.
pub(super) struct Named {
    uri: Uri,
    target: String,
}

impl Named {
    pub fn of(head: &request::Parts) -> Self {
        Self { uri: head.uri.clone(), target: target::of(head).to_owned() }
    }
}

impl Errand {
    /// Makes of a request for a URI the one that the URI's origin is sent.
    pub fn of(forward: &Arc<Forward>, named: &Named, head: &mut request::Parts) -> Result<Self, Reason> {
        let uri = &named.uri;
        if uri.scheme() != Some(&Scheme::HTTP) {
            // TLS is between the client and the origin: CONNECT leads there.
            return Err(Reason::UnsupportedProtocol);
        }
        let authority = uri.authority().ok_or(Reason::BadHost)?;
        let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::BadHost)?;
        // Whatever Host says (RFC 9112 section 3.2.2).
        head.headers.insert(header::HOST, authority.clone());
        if uri.path() == "*" || head.extensions.get() == Some(&WholeServer) {
            // RFC 9112 section 3.2.4.
            target::set(head, "*".to_owned()).map_err(|_| Reason::BadPath)?;
        } else if forward.takes_all_paths && !path::has_dot_segments(uri.path()) {
            // The origin's own spelling is not ours to change (RFC 9110 section 7.7), where nothing was decided by another
            // and none leads elsewhere.
            // Written out, it has a slash before its query.
            let slash = if named.target.starts_with('/') { "" } else { "/" };
            target::set(head, format!("{slash}{}", named.target)).map_err(|_| Reason::BadPath)?;
        }
        Ok(Self { forward: forward.clone(), authority })
    }
}

/// Finds out where an errand goes. What the client said to us as a proxy does not go with it.
pub(super) async fn call<S: Session>(
    downstream: &mut Downstream<S>,
    errand: Errand,
    connections: Arc<Connections>,
) -> Result<Call, Reason> {
    let Errand { forward, authority } = errand;
    // The chain may have looked at it (RFC 9110 section 11.7.2).
    downstream.exchange.head.headers.remove(header::PROXY_AUTHORIZATION);
    let deadline = downstream.exchange.deadline(forward.timeouts.total);
    let find = forward.find(authority.to_str().map_err(|_| Reason::BadHost)?);
    let found = patiently(find, &mut downstream.session, deadline).await??;
    let target = Target::new(authority, found, &forward, connections);
    let traced = downstream.exchange.trace.as_ref().and_then(Traced::of);
    Ok(Call::new(Destination::Target(target), traced))
}
