//! Seeing connections off: what is in flight finishes, within a limit.

use std::time::Duration;

use tokio::time::timeout;

use crate::listen::Draining;

/// Waits until the connections have ended; those that have not when the limit is reached are cut. Says
/// whether all ended by themselves.
pub async fn finish(draining: Draining, limit: Duration) -> bool {
    if timeout(limit, draining.ended()).await.is_ok() {
        return true;
    }
    draining.cut();
    // They end at once, but for their tasks to be polled.
    let _ = timeout(Duration::from_secs(1), draining.ended()).await;
    false
}
