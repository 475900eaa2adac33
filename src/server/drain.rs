//! Seeing connections off: what is in flight finishes, within a limit.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::listen::Draining;

/// How long before the cut tunnels are told, at most: half of it is for what they still have to hear and to say, half for
/// their connections to end.
const LEAVE: Duration = Duration::from_secs(2);

/// Waits until the connections have ended; those that have not when the limit is reached are cut. Says
/// whether all ended by themselves.
pub async fn finish(draining: Draining, limit: Duration) -> bool {
    let leave = LEAVE.min(limit / 4);
    if timeout(limit - leave, draining.ended()).await.is_ok() {
        return true;
    }
    draining.leave(Instant::now() + leave / 2);
    if timeout(leave, draining.ended()).await.is_ok() {
        return true;
    }
    draining.cut();
    // They end at once, but for their tasks to be polled.
    let _ = timeout(Duration::from_secs(1), draining.ended()).await;
    false
}
