//! The limit of an upstream's requests in flight: further ones wait in a queue or are rejected.

use std::{
    sync::{MutexGuard, PoisonError},
    time::{self, Duration},
};

use tokio::time::{Instant, timeout_at};

use super::{
    InFlight, Upstream,
    adaptive::{Adaptive, Gradient},
    config::QueueOrder,
    queue::{Entry, Full, Place, Turn, Waiting},
    settings::Most,
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

/// Which requests are served first where they queue by priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// After all others
    Low,
    #[default]
    Normal,
    /// Before all others
    High,
}

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    QueueFull,
    QueueTimeout,
}

impl Upstream {
    /// Lets a request pass the limit of requests in flight, has it wait, or rejects it.
    pub fn enter(&self, priority: Priority) -> Result<Admission, Overload> {
        let Some(limit) = self.in_flight else { return Ok(Admission::Admitted(None)) };
        match self.shared.admission.enter_in_turn(limit.queue, limit.turn(priority)) {
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
        let place = match timeout_at(until, &mut queued.waiting).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(Full)) => Err(Overload::QueueFull),
            Err(_) => Err(Overload::QueueTimeout),
        };
        let waited = queued.began.elapsed();
        self.metrics.queued(waited);
        if let Err(overload) = &place {
            self.metrics.overloaded(overload.cause());
        }
        (place, waited)
    }

    /// Requests in flight and how many there may be, where that is limited.
    pub fn limit(&self) -> Option<(u32, u32)> {
        let limit = match self.in_flight?.most {
            Most::Fixed(limit) => limit,
            Most::Adaptive(settings) => self.gradient().limit(&settings),
        };
        Some((self.shared.admission.taken(), limit))
    }

    /// Its limit holds from now on.
    pub(super) fn begin_to_limit(&self) {
        self.shared.admission.set_limit(self.limit().map_or(u32::MAX, |(_, limit)| limit));
    }

    /// A response's head took so long. Failures that are fast say nothing of how much an endpoint can do.
    pub fn took(&self, at: time::Instant, time: Duration) {
        if let Some(InFlight { most: Most::Adaptive(settings), .. }) = &self.in_flight {
            self.adapt(settings, at, time);
        }
    }

    fn adapt(&self, settings: &Adaptive, at: time::Instant, time: Duration) {
        let in_flight = self.shared.admission.taken();
        let limit = self.gradient().sample(settings, at, time, in_flight);
        if let Some(limit) = limit {
            self.shared.admission.set_limit(limit);
        }
    }

    fn gradient(&self) -> MutexGuard<'_, Gradient> {
        self.shared.gradient.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether requests queue by priority.
    pub fn has_priorities(&self) -> bool {
        self.in_flight.is_some_and(|limit| limit.order == QueueOrder::Priority)
    }
}

impl InFlight {
    fn turn(&self, priority: Priority) -> Turn {
        match (self.order, priority) {
            (QueueOrder::OldestFirst, _) => Turn::Oldest,
            (QueueOrder::NewestFirst, _) => Turn::Newest,
            (QueueOrder::Priority, Priority::High) => Turn::Rank(0),
            (QueueOrder::Priority, Priority::Normal) => Turn::Rank(1),
            (QueueOrder::Priority, Priority::Low) => Turn::Rank(2),
        }
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
