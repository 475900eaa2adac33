//! How many requests of a connection are at work, and the timers that they leave to each other.
//!
//! Tokio's `JoinSet` would know their tasks themselves, which costs each an allocation, a lock and a wake. A request sees by
//! itself that its connection has ended.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
};

use atomic_waker::AtomicWaker;

use crate::listen::deadline::Deadline;

pub(super) struct Requests(Arc<Shared>);

struct Shared {
    at_work: AtomicUsize,
    /// As many as may be at work at once.
    most: usize,
    /// Of who waits until there are none, or room for one more.
    waiting: AtomicWaker,
    /// Bytes of bodies handed over to h2 since the connection's last turn.
    handed_over: AtomicUsize,
    /// Of those that are over: to arm a timer costs more than to have an armed one wait for longer.
    timers: Mutex<Vec<Deadline>>,
}

/// One of them, for as long as it lasts.
pub(super) struct One {
    shared: Arc<Shared>,
    /// For a wait of its.
    pub timer: Deadline,
}

/// So many timers are kept: a connection may be idle for long.
const MOST_TIMERS: usize = 8;

impl Requests {
    pub fn new(most: usize) -> Self {
        let (at_work, handed_over) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (waiting, timers) = (AtomicWaker::new(), Mutex::default());
        Self(Arc::new(Shared { at_work, most, waiting, handed_over, timers }))
    }

    pub fn begin(&self) -> One {
        self.0.at_work.fetch_add(1, Ordering::Relaxed);
        let timer = self.0.timers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        One { shared: self.0.clone(), timer: timer.unwrap_or_default() }
    }

    pub fn at_work(&self) -> usize {
        self.0.at_work.load(Ordering::Acquire)
    }

    /// How much of bodies there is to send, in bytes.
    pub fn handed_over(&self) -> usize {
        self.0.handed_over.load(Ordering::Relaxed)
    }

    /// All that there was is on its way.
    pub fn took_over(&self) {
        self.0.handed_over.store(0, Ordering::Relaxed);
    }

    pub fn is_full(&self) -> bool {
        self.at_work() >= self.0.most
    }

    /// Waits until there is none any more, or room again where they `were_full`.
    pub fn poll_change(&self, were_full: bool, cx: &Context<'_>) -> Poll<()> {
        // Before they are counted: one that ends from here on wakes.
        self.0.waiting.register(cx.waker());
        match self.at_work() == 0 || (were_full && !self.is_full()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    pub fn poll_none(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll_change(false, cx)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(target: crate::telemetry::log::CLIENTS, "a request's task failed");
        }
        self.leave_timer();
        let before = self.shared.at_work.fetch_sub(1, Ordering::AcqRel);
        if before == 1 || before == self.shared.most {
            self.shared.waiting.wake();
        }
    }
}

impl One {
    pub fn hands_over(&self, count: usize) {
        self.shared.handed_over.fetch_add(count, Ordering::Relaxed);
    }

    fn leave_timer(&mut self) {
        self.timer.clear();
        let mut timers = self.shared.timers.lock().unwrap_or_else(PoisonError::into_inner);
        if timers.len() < MOST_TIMERS && self.timer.is_armed() {
            timers.push(std::mem::take(&mut self.timer));
        }
    }
}
