//! How long anybody waits for what the chain waits for: until the client goes, or the route's deadline passes.

use std::future::{Future, pending};

use tokio::time::{Instant, sleep_until};

use super::session::Session;
use crate::error::Reason;

/// Gives up the wait, which is dropped then, when nobody waits for the answer any more. What need not wait is asked
/// once, and costs nothing else.
pub(super) async fn patiently<S: Session, T>(
    wait: impl Future<Output = T>,
    session: &mut S,
    deadline: Option<Instant>,
) -> Result<T, Reason> {
    tokio::select! {
        biased;
        done = wait => Ok(done),
        () = session.gone() => Err(Reason::ClientGone),
        () = passed(deadline) => Err(Reason::TotalTimeout),
    }
}

/// The timer is made where it is asked for: what is ready at once has none.
pub(super) async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => Box::pin(sleep_until(deadline)).await,
        None => pending().await,
    }
}
