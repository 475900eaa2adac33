//! The client's direction of an exchange: its body on the way to the origin, and what else the client does meanwhile.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;

use super::{
    downstream::{Downstream, Progress},
    meanwhile::{Meanwhile, Pause},
    outgoing::Request,
    pump::{Broken, Step, Waits},
    session::{Closed, Session},
};
use crate::{
    error::Reason,
    upstream::exchange::{Exchange, Failure},
};

/// How long an origin may take to ask for a body that the client holds back (RFC 9110 section 10.1.1): there are origins
/// that do not know the expectation.
const CONTINUE: Duration = Duration::from_secs(1);

/// The body of the request on its way to the origin.
pub(super) struct Upload<'a> {
    request: &'a mut Request,
    exchange: &'a mut Exchange,
    pause: Pause,
}

impl<'a> Upload<'a> {
    pub fn new(request: &'a mut Request, exchange: &'a mut Exchange) -> Self {
        Self { request, exchange, pause: Pause::default() }
    }

    pub fn pass_on<S: Session>(
        &mut self,
        piece: Option<Bytes>,
        downstream: &mut Downstream<S>,
    ) -> Result<(), Failure> {
        match piece {
            Some(piece) => {
                self.request.keep(&piece);
                self.exchange.send_data(piece)
            }
            None => {
                let trailers = downstream.session.take_trailers();
                self.request.ended(trailers);
                self.exchange.send_end(self.request.trailers.clone())
            }
        }
    }
}

impl<S: Session> Meanwhile<S> for Upload<'_> {
    type Error = Broken;

    fn is_due(&self) -> bool {
        let Request { is_whole, expects_continue, is_unwanted, .. } = *self.request;
        !is_whole && !expects_continue && !is_unwanted
    }

    fn poll(&mut self, downstream: &mut Downstream<S>, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        ready!(self.exchange.poll_room(cx));
        if !Meanwhile::<S>::is_due(self) || !self.exchange.has_room() {
            return Poll::Pending;
        }
        ready!(self.pause.poll(downstream.due(), cx));
        let piece = ready!(pin!(downstream.read_body()).poll(cx))?;
        self.pass_on(piece, downstream)?;
        Poll::Ready(Ok(()))
    }
}

/// Waits for what the client does: reads its body where the origin takes more of it, else notices that it disconnects, or
/// that the origin lets it wait for too long.
pub(super) async fn listen<S: Session>(
    downstream: &mut Downstream<S>,
    request: &Request,
    has_room: bool,
    is_sent: bool,
    waits: Waits,
) -> Result<Step, Broken> {
    let (limit, late) = match downstream.progress() {
        Progress::Waiting => (waits.first_byte, Reason::FirstByteTimeout),
        _ => (waits.body_idle, Reason::UpstreamBodyTimeout),
    };
    if request.expects_continue {
        return tokio::select! {
            () = downstream.session.gone() => Err(Reason::ClientGone.into()),
            () = tokio::time::sleep(CONTINUE) => Ok(Step::Unasked),
        };
    }
    if request.is_whole || request.is_unwanted || is_sent {
        return Err(match downstream.session.closed(limit).await {
            Closed::Gone => Reason::ClientGone.into(),
            Closed::Idle => late.into(),
        });
    }
    if has_room {
        return Ok(Step::Body(downstream.read_body().await?));
    }
    tokio::select! {
        () = downstream.session.gone() => Err(Reason::ClientGone.into()),
        () = tokio::time::sleep(waits.body_idle) => Err(Reason::UpstreamWriteTimeout.into()),
    }
}
