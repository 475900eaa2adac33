//! What the process does at once at most, for all requests together.

use std::{sync::Arc, thread::available_parallelism};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Refusal;
use crate::error::Reason;

/// Work that would stop a thread that serves: done beside them, on as many at a time as there are cores.
#[derive(Clone)]
pub struct HeavyWork {
    turns: Arc<Semaphore>,
    /// Of those who can be refused instead: whose turn it is, and who wait for it.
    places: Arc<Semaphore>,
}

/// The memory that bodies which are being decoded may look back at.
#[derive(Clone)]
pub struct Windows(Arc<Semaphore>);

/// A body's share of it, until it is gone.
pub type Window = OwnedSemaphorePermit;

/// How many wait at most for each core: checking their passwords takes seconds already.
const WAITING: usize = 32;

/// In MiB.
const WINDOWS: usize = 1024;

// === impl HeavyWork ===

impl HeavyWork {
    /// For so many at a time.
    fn on(cores: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(cores)),
            places: Arc::new(Semaphore::new(cores * (1 + WAITING))),
        }
    }

    /// Waits for its turn and for the work. The turn lasts as long as the work, also where nobody waits any more.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let turn = self.turns.clone().acquire_owned().await.expect("the semaphore is never closed");
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        match task.await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is going, and this task with it.
            Err(_) => std::future::pending().await,
        }
    }

    /// The same for what a client can have as much of as it likes: not where too many wait already.
    pub async fn offer<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Box<Refusal>> {
        let _place = self.places.try_acquire().map_err(|_| overloaded("heavy_work"))?;
        Ok(self.run(work).await)
    }
}

impl Default for HeavyWork {
    fn default() -> Self {
        Self::on(available_parallelism().map_or(1, usize::from))
    }
}

// === impl Windows ===

impl Windows {
    /// A share of so many MiB, while there is one.
    pub fn take(&self, size: u32) -> Result<Window, Box<Refusal>> {
        self.0.clone().try_acquire_many_owned(size).map_err(|_| overloaded("decoders"))
    }
}

impl Default for Windows {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WINDOWS)))
    }
}

fn overloaded(what: &'static str) -> Box<Refusal> {
    Box::new(Refusal::new(Reason::Overloaded).because(what))
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::mpsc, task::Poll};

    use super::*;

    #[tokio::test]
    async fn who_finds_too_many_waiting_is_refused_at_once() {
        let heavy = HeavyWork::on(1);
        let (done, is_done) = mpsc::channel::<()>();
        let mut first = pin!(heavy.offer(move || is_done.recv().is_ok()));
        assert!(polled(first.as_mut()).is_pending());
        let mut waiting: Vec<_> = (0..WAITING).map(|_| Box::pin(heavy.offer(|| true))).collect();
        for one in &mut waiting {
            assert!(polled(one.as_mut()).is_pending());
        }
        let refusal = heavy.offer(|| true).await.unwrap_err();
        assert_eq!((refusal.reason, refusal.cause), (Reason::Overloaded, Some("heavy_work")));
        // Who gives up leaves its place to another.
        drop(waiting.pop());
        let mut other = pin!(heavy.offer(|| true));
        assert!(polled(other.as_mut()).is_pending());
        done.send(()).unwrap();
        drop(waiting);
        assert!(first.await.unwrap() && other.await.unwrap() && heavy.run(|| true).await);
    }

    #[test]
    fn windows_are_shared_out_and_given_back() {
        let windows = Windows::default();
        let most = u32::try_from(WINDOWS).unwrap();
        let held = windows.take(most - 1).unwrap();
        assert!(windows.take(2).is_err() && windows.take(1).is_ok());
        drop(held);
        assert!(windows.take(most).is_ok());
    }

    /// What it comes to when it is asked once.
    fn polled<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}
