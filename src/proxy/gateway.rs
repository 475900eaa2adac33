//! The only `impl ProxyHttp`: picks endpoints and says what became of them. Everything about the client
//! is done before Pingora sees a request and after it is through with it.

use std::sync::Arc;

use async_trait::async_trait;
use atomic_refcell::{AtomicRefCell, AtomicRefMut};
use http::{StatusCode, Version, header};
use pingora::{
    Error, ErrorType, RetryType,
    http::{RequestHeader, ResponseHeader},
    modules::http::HttpModules,
    protocols::Digest,
    proxy::{FailToProxy, ProxyHttp, Session},
    upstreams::peer::HttpPeer,
};

use super::{call::Call, errors};
use crate::http::hop_by_hop;

tokio::task_local! {
    /// The call that the request polled at the moment is: how [`Gateway::new_ctx`] comes by it.
    pub(super) static CALL: Arc<AtomicRefCell<Call>>;
}

/// What Pingora asks.
pub struct Gateway;

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Option<Arc<AtomicRefCell<Call>>>;

    fn new_ctx(&self) -> Self::CTX {
        CALL.try_with(Arc::clone).ok()
    }

    /// None: Pingora's own, for compression, would look at every request for nothing.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Self::CTX) -> pingora::Result<Box<HttpPeer>> {
        call(ctx)?.next_peer().ok_or_else(|| Error::explain(ErrorType::HTTPStatus(503), "no endpoint"))
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        _: std::os::fd::RawFd,
        _: Option<&Digest>,
        ctx: &mut Self::CTX,
    ) -> pingora::Result<()> {
        call(ctx)?.connected(reused);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> pingora::Result<()> {
        call(ctx)?.address(request)
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> pingora::Result<()> {
        if response.version != Version::HTTP_2 && hop_by_hop::has_rare(&response.headers, &header::TRAILER) {
            // Pingora leaves the trailers of HTTP/1 behind: none are to be announced.
            response.remove_header(&header::TRAILER);
        }
        let switching = response.status == StatusCode::SWITCHING_PROTOCOLS;
        if switching || !response.status.is_informational() {
            let mut call = call(ctx)?;
            call.look_for_challenge(&response.headers);
            call.answered(response).map_err(|reason| errors::ours(reason).into_up())?;
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Self::CTX,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Nothing was sent yet: another endpoint may be tried whatever the method.
        let again = call(ctx).is_ok_and(|mut call| call.connect_failed(&error));
        error.set_retry(again);
        error
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Self::CTX,
        reused: bool,
    ) -> Box<Error> {
        let replayable =
            session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
        let asked = error.retry != RetryType::Decided(false);
        let again = call(ctx).is_ok_and(|mut call| call.failed(&error, asked && reused && replayable));
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(&self, _: &mut Session, error: &Error, ctx: &mut Self::CTX) -> FailToProxy {
        // The answer is made by who called Pingora, on the way that every answer of ours goes.
        if let Ok(mut call) = call(ctx) {
            call.give_up(error);
        }
        FailToProxy { error_code: 0, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &Self::CTX, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Self::CTX,
        _: &Error,
        _: pingora::proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

fn call(ctx: &Option<Arc<AtomicRefCell<Call>>>) -> pingora::Result<AtomicRefMut<'_, Call>> {
    let call = ctx.as_ref().ok_or_else(|| {
        Error::explain(ErrorType::InternalError, "a request came to Pingora without its call")
    })?;
    Ok(call.borrow_mut())
}
