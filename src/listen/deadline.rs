//! A deadline that costs nothing while it is not near: the timer is armed on the first wait and moved
//! only when it fires too early.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// One deadline at a time, for a connection's life.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes.
    waits: Option<Waker>,
}

impl Deadline {
    /// The wait is over; the next [`Deadline::poll`] starts a new one.
    pub fn clear(&mut self) {
        self.at = None;
    }

    /// Whether it has a timer that may yet fire, which another wait need not arm.
    pub fn is_armed(&self) -> bool {
        self.timer.as_ref().is_some_and(|timer| !timer.is_elapsed())
    }

    /// Waits until `limit` after the first poll since [`Deadline::clear`].
    pub fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let at = *self.at.get_or_insert_with(|| Instant::now() + limit);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
            self.waits = None;
        }
        // To be registered again costs more than all else here.
        if self.waits.as_ref().is_some_and(|waits| waits.will_wake(cx.waker())) && !timer.is_elapsed() {
            return Poll::Pending;
        }
        // Unconstrained: a task whose budget is spent would not be registered.
        while pin!(unconstrained(timer.as_mut())).poll(cx).is_ready() {
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
        self.waits = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::task::consume_budget;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_later_deadline_does_not_end_with_an_earlier_timer() {
        let mut deadline = Deadline::default();
        let start = Instant::now();
        poll_fn(|cx| deadline.poll(Duration::from_secs(1), cx)).await;
        assert_eq!(start.elapsed().as_secs(), 1);

        deadline.clear();
        let mut polled = std::pin::pin!(poll_fn(|cx| deadline.poll(Duration::from_secs(10), cx)));
        assert!(tokio::time::timeout(Duration::from_secs(9), &mut polled).await.is_err());
        polled.await;
        assert_eq!(start.elapsed().as_secs(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_whose_budget_is_spent_is_woken() {
        let mut deadline = Deadline::default();
        let mut waiting = pin!(poll_fn(|cx| deadline.poll(Duration::from_secs(1), cx)));
        let first = poll_fn(|cx| {
            // It spends its budget.
            while pin!(consume_budget()).poll(cx).is_ready() {}
            Poll::Ready(waiting.as_mut().poll(cx))
        });
        assert!(first.await.is_pending());
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_moves_the_timer_forward() {
        let mut deadline = Deadline::default();
        let start = Instant::now();
        let long = poll_fn(|cx| deadline.poll(Duration::from_secs(60), cx));
        assert!(tokio::time::timeout(Duration::from_millis(1), long).await.is_err());
        deadline.clear();
        poll_fn(|cx| deadline.poll(Duration::from_secs(2), cx)).await;
        assert!(start.elapsed() < Duration::from_secs(3));
    }
}
