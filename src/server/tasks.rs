//! The one place that starts what runs beside requests. A task holds its state weakly and ends with it; how
//! many live of each kind is known, and is the same after a thousand reloads.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{runtime::Handle, sync::Notify};

/// What a task is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Watches an endpoint's health.
    Health,
    /// Asks a source of endpoints.
    Discovery,
    /// Fetches a JWK set.
    Jwks,
    /// Sends spans to a collector.
    Spans,
    /// Keeps the connection to Redis open.
    Redis,
    /// Closes a socket and sees its connections off.
    Drain,
    /// Sends a copy of a request.
    Mirror,
    /// Closes idle connections to endpoints, and keeps some ready.
    Connections,
}

/// Starts tasks on the workers' runtime and counts them.
#[derive(Clone, Debug)]
pub struct Tasks {
    runtime: Handle,
    living: Arc<Living>,
}

#[derive(Debug, Default)]
struct Living {
    count: Mutex<BTreeMap<Kind, usize>>,
    /// One ended.
    ended: Notify,
}

/// A task's place in the count, given back when it ends, be it by a panic.
struct Counted(Kind, Arc<Living>);

// === impl Kind ===

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Discovery => "discovery",
            Self::Jwks => "jwks",
            Self::Spans => "spans",
            Self::Redis => "redis",
            Self::Drain => "drain",
            Self::Mirror => "mirror",
            Self::Connections => "connections",
        }
    }
}

// === impl Tasks ===

impl Tasks {
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, living: Arc::default() }
    }

    pub fn spawn(&self, kind: Kind, task: impl Future<Output = ()> + Send + 'static) {
        *self.living.count().entry(kind).or_default() += 1;
        let counted = Counted(kind, self.living.clone());
        self.runtime.spawn(async move {
            let _counted = counted;
            task.await;
        });
    }

    /// How many live, by kind.
    pub fn count(&self) -> BTreeMap<Kind, usize> {
        self.living.count().clone()
    }

    /// Waits until none of a kind lives.
    pub async fn ended(&self, kind: Kind) {
        loop {
            let ended = self.living.ended.notified();
            if self.living.count().get(&kind).is_none_or(|count| *count == 0) {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Self(kind, list) = self;
        if let Some(count) = list.count().get_mut(kind) {
            *count -= 1;
        }
        list.ended.notify_waiters();
    }
}

// === impl Living ===

impl Living {
    fn count(&self) -> MutexGuard<'_, BTreeMap<Kind, usize>> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn tasks_are_counted_while_they_live() {
        let tasks = Tasks::new(Handle::current());
        let (end, ended) = oneshot::channel::<()>();
        let (done, finished) = oneshot::channel::<()>();
        tasks.spawn(Kind::Health, async {
            let _ = ended.await;
            drop(done);
        });
        assert_eq!(tasks.count()[&Kind::Health], 1);
        drop(end);
        let _ = finished.await;
        while tasks.count()[&Kind::Health] > 0 {
            tokio::task::yield_now().await;
        }
    }
}
