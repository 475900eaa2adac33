//! What goes on while a client takes nothing of its response: what it sends is read and passed on, as far as the origin
//! takes it. An origin may answer while it reads, and a client may read nothing before it has sent all.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    downstream::Downstream,
    session::{ClientError, Session},
};

/// The client's direction of an exchange, as far as it goes on while the other one waits.
pub(super) trait Meanwhile<S> {
    type Error: From<ClientError>;

    /// Whether the client is to send more.
    fn is_due(&self) -> bool;

    /// Passes on one piece. Ready after each; pending where the client sends nothing, or where the origin takes nothing.
    fn poll(&mut self, downstream: &mut Downstream<S>, cx: &mut Context<'_>)
    -> Poll<Result<(), Self::Error>>;
}

/// Nothing goes on.
pub(super) struct Nothing;

impl<S> Meanwhile<S> for Nothing {
    type Error = ClientError;

    fn is_due(&self) -> bool {
        false
    }

    fn poll(&mut self, _: &mut Downstream<S>, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Pending
    }
}

/// Waits until what was begun to be written to the client is written.
pub(super) async fn until_sent<S: Session, M: Meanwhile<S>>(
    downstream: &mut Downstream<S>,
    meanwhile: &mut M,
) -> Result<(), M::Error> {
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(sent) = downstream.session.poll_sent(cx) {
                return Poll::Ready(Ok(sent?));
            }
            ready!(meanwhile.poll(downstream, cx))?;
        }
    })
    .await
}

/// Waits until some time.
pub(super) async fn until<S: Session, M: Meanwhile<S>>(
    at: Instant,
    downstream: &mut Downstream<S>,
    meanwhile: &mut M,
) -> Result<(), M::Error> {
    let mut time = pin!(sleep_until(at));
    poll_fn(|cx| {
        loop {
            if time.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            ready!(meanwhile.poll(downstream, cx))?;
        }
    })
    .await
}

/// The result of a write that is done at once. One that is not is dropped: the session has what is left of it.
pub(super) async fn at_once<T>(mut write: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await
}

/// The time from which on the client may be listened to again: there only where a limit holds.
#[derive(Default)]
pub(super) struct Pause(Option<Pin<Box<Sleep>>>);

impl Pause {
    /// Ready once that time has come.
    pub fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if due <= Instant::now() {
            return Poll::Ready(());
        }
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }
}
