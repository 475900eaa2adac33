//! A request whose target is an http URI (RFC 9112 section 3.2.2): to a forward proxy, which sends it to that URI's origin.

use std::sync::Arc;

use http::{
    HeaderValue, Uri, header, request,
    uri::{PathAndQuery, Scheme},
};

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
    http::{path, target::WholeServer},
};

/// Where a request is to be sent on to.
pub(super) struct Errand {
    pub forward: Arc<Forward>,
    /// The URI's, which is the Host of what is sent.
    pub authority: HeaderValue,
}

impl Errand {
    /// Makes of a request for a URI the one that the URI's origin is sent.
    pub fn of(forward: &Arc<Forward>, uri: &Uri, head: &mut request::Parts) -> Result<Self, Reason> {
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
            head.uri = PathAndQuery::from_static("*").into();
        } else if forward.takes_all_paths && !path::has_dot_segments(uri.path()) {
            // The origin's own spelling is not ours to change (RFC 9110 section 7.7), where nothing was decided by another
            // and none leads elsewhere.
            head.uri = as_it_came(uri)?;
        }
        Ok(Self { forward: forward.clone(), authority })
    }
}

fn as_it_came(uri: &Uri) -> Result<Uri, Reason> {
    let target = uri.path_and_query().ok_or(Reason::BadPath)?;
    match target.as_str().starts_with('/') {
        true => Ok(target.clone().into()),
        // Written out, it has a slash before its query.
        false => Ok(PathAndQuery::try_from(target.to_string()).map_err(|_| Reason::BadPath)?.into()),
    }
}

/// Finds out where an errand goes. What the client said to us as a proxy does not go with it.
pub(super) async fn call<S: Session>(downstream: &mut Downstream<S>, errand: Errand) -> Result<Call, Reason> {
    let Errand { forward, authority } = errand;
    // The chain may have looked at it (RFC 9110 section 11.7.2).
    downstream.exchange.head.headers.remove(header::PROXY_AUTHORIZATION);
    let deadline = downstream.exchange.deadline(forward.timeouts.total);
    let find = forward.find(authority.to_str().map_err(|_| Reason::BadHost)?);
    let found = patiently(find, &mut downstream.session, deadline).await??;
    let target = Target::new(authority, found, &forward);
    let traced = downstream.exchange.trace.as_ref().and_then(Traced::of);
    Ok(Call::new(Destination::Target(target), traced))
}
