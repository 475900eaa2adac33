//! How many requests of a connection are at work.
//!
//! Tokio's `JoinSet` would know their tasks themselves, which costs each an allocation, a lock and a wake. A request sees by
//! itself that its connection has ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
};

use atomic_waker::AtomicWaker;

pub(super) struct Requests(Arc<Shared>);

struct Shared {
    at_work: AtomicUsize,
    /// As many as may be at work at once.
    most: usize,
    /// Of who waits until there are none, or room for one more.
    waiting: AtomicWaker,
}

/// One of them, for as long as it lasts.
pub(super) struct One(Arc<Shared>);

impl Requests {
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Shared { at_work: AtomicUsize::new(0), most, waiting: AtomicWaker::new() }))
    }

    pub fn begin(&self) -> One {
        self.0.at_work.fetch_add(1, Ordering::Relaxed);
        One(self.0.clone())
    }

    pub fn at_work(&self) -> usize {
        self.0.at_work.load(Ordering::Acquire)
    }

    pub fn is_full(&self) -> bool {
        self.at_work() >= self.0.most
    }

    /// Waits until there are fewer than `known`, where that matters: none any more, or room again.
    pub fn poll_fewer(&self, known: usize, cx: &mut Context<'_>) -> Poll<()> {
        self.0.waiting.register(cx.waker());
        match self.at_work() < known {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    pub fn poll_none(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_fewer(1, cx)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("a request's task failed");
        }
        let before = self.0.at_work.fetch_sub(1, Ordering::AcqRel);
        if before == 1 || before == self.0.most {
            self.0.waiting.wake();
        }
    }
}
