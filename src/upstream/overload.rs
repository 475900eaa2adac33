//! The limit of an upstream's requests in flight: further ones wait in a queue or are rejected.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{
    InFlight, Upstream,
    queue::{Entry, Full, Place, Waiting},
};

/// How a request passes the limit.
#[derive(Debug)]
pub enum Admission {
    /// `None` where there is no limit.
    Admitted(Option<Place>),
    Queued(InQueue),
}

/// A request that waits until another ends. Dropped, it leaves the queue.
#[derive(Debug)]
pub struct InQueue {
    waiting: Waiting,
    began: Instant,
    limit: InFlight,
}

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    QueueFull,
    QueueTimeout,
}

impl Upstream {
    /// Lets a request pass the limit of requests in flight, has it wait, or rejects it.
    pub fn enter(&self) -> Result<Admission, Overload> {
        let Some(limit) = self.in_flight else { return Ok(Admission::Admitted(None)) };
        match self.shared.admission.enter(limit.queue) {
            Ok(Entry::In(place)) => Ok(Admission::Admitted(Some(place))),
            Ok(Entry::Wait(waiting)) => {
                Ok(Admission::Queued(InQueue { waiting, began: Instant::now(), limit }))
            }
            Err(Full) => {
                self.metrics.overloaded(Overload::QueueFull.cause());
                Err(Overload::QueueFull)
            }
        }
    }

    /// Waits until the request is let through, and says how long that took.
    pub async fn wait(&self, queued: &mut InQueue) -> (Result<Place, Overload>, Duration) {
        let until = queued.began + queued.limit.timeout;
        let place = timeout_at(until, &mut queued.waiting).await.map_err(|_| Overload::QueueTimeout);
        let waited = queued.began.elapsed();
        self.metrics.queued(waited);
        if place.is_err() {
            self.metrics.overloaded(Overload::QueueTimeout.cause());
        }
        (place, waited)
    }
}

impl Overload {
    /// What a client is told: a request in flight may end at any time.
    pub const RETRY_AFTER: Duration = Duration::from_secs(1);

    /// The cause in the access log and in metrics.
    pub fn cause(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
        }
    }
}
