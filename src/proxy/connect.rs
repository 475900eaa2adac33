//! A tunnel that CONNECT opened: bytes both ways, until both sides have ended or neither says anything any more.

use http::{Response, StatusCode};
use pingora::protocols::l4::stream::Stream;
use tokio::net::TcpStream;

use super::{
    downstream::Downstream,
    engine::fail,
    relay::{self, relay},
    session::{ClientError, Session},
};
use crate::{
    action::forward::Forward,
    error::Reason,
    http::errors::Errors,
    upstream::exchange::{Exchange, Http1},
};

/// Opens the tunnel that the request asks for and carries what comes, to its end.
pub(super) async fn through<S: Session>(downstream: &mut Downstream<S>, forward: &Forward, errors: &Errors) {
    let target = match open(downstream, forward).await {
        Ok(target) => target,
        Err(reason) => {
            downstream.exchange.reason = Some(reason);
            // Whatever follows was meant for the tunnel.
            downstream.session.close();
            return fail(downstream, reason, errors).await;
        }
    };
    if let Err(reason) = carry(downstream, target, forward).await {
        downstream.exchange.reason = Some(reason);
        downstream.session.reset();
    }
}

/// Connects to what the request asks for.
async fn open<S: Session>(downstream: &mut Downstream<S>, forward: &Forward) -> Result<TcpStream, Reason> {
    let authority = downstream.exchange.head.uri.authority().cloned().ok_or(Reason::BadHost)?;
    tokio::select! {
        biased;
        opened = forward.open(authority.as_str()) => opened,
        () = downstream.session.gone() => Err(Reason::ClientGone),
    }
}

/// Says that the tunnel is there, and carries what comes.
async fn carry<S: Session>(
    downstream: &mut Downstream<S>,
    target: TcpStream,
    forward: &Forward,
) -> Result<(), Reason> {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = StatusCode::OK;
    downstream.send_head(head, false).await.map_err(ClientError::reason)?;
    let target: Box<Stream> = Box::new(target.into());
    let mut exchange = Exchange::Http1(Box::new(Http1::tunnel(target)));
    let limits = relay::Limits { idle: forward.idle, half_open: forward.idle };
    match relay(downstream, &mut exchange, limits, None).await {
        // Nobody said anything any more: that is an end as good as any.
        Err(Reason::TunnelIdle) => Ok(downstream.finish().await.map_err(ClientError::reason)?),
        ended => ended,
    }
}
