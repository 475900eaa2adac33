//! What a connection is told once: that it shall drain, that its tunnels shall leave, or that it is cut.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{sync::watch, task::unconstrained};

/// Whether it was said. The waker is registered with the first poll alone, since to register it anew takes a lock that all
/// connections share: who polls it does so from one task.
pub struct Signal<T = bool> {
    said: watch::Receiver<T>,
    /// Until it was.
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    registered: bool,
}

/// Anything but the default says something.
impl<T: Default + PartialEq + Send + Sync + 'static> Signal<T> {
    /// It counts as said, too, once nobody is left who could say it.
    pub fn or_gone(said: watch::Receiver<T>) -> Self {
        let mut receiver = said.clone();
        Self::new(said, async move {
            let _ = receiver.wait_for(|said| *said != T::default()).await;
        })
    }

    /// It is never said where nobody is left who could.
    pub fn said(said: watch::Receiver<T>) -> Self {
        let mut receiver = said.clone();
        Self::new(said, async move {
            if receiver.wait_for(|said| *said != T::default()).await.is_err() {
                std::future::pending().await
            }
        })
    }

    fn new(said: watch::Receiver<T>, wait: impl Future<Output = ()> + Send + Sync + 'static) -> Self {
        // Unconstrained: a task whose budget is spent would not be registered.
        Self { said, wait: Some(Box::pin(unconstrained(wait))), registered: false }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(wait) = &mut self.wait else { return Poll::Ready(()) };
        if mem::replace(&mut self.registered, true) && !self.said.has_changed().unwrap_or(true) {
            return Poll::Pending;
        }
        ready!(wait.as_mut().poll(cx));
        self.wait = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, time::Duration};

    use tokio::{
        task::consume_budget,
        time::{Instant, timeout},
    };

    use super::*;

    async fn is_said(signal: &mut Signal) -> bool {
        timeout(Duration::from_secs(5), poll_fn(|cx| signal.poll(cx))).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_whose_budget_is_spent_hears_it() {
        let sender = watch::Sender::new(false);
        let mut signal = Signal::or_gone(sender.subscribe());
        let first = poll_fn(|cx| {
            // It spends its budget.
            while pin!(consume_budget()).poll(cx).is_ready() {}
            Poll::Ready(signal.poll(cx))
        });
        assert!(first.await.is_pending());
        let start = Instant::now();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sender.send_replace(true);
        });
        assert!(is_said(&mut signal).await);
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_before_or_after_it_is_asked_for_is_heard() {
        let sender = watch::Sender::new(false);
        let mut early = Signal::said(sender.subscribe());
        assert!(!is_said(&mut early).await);
        sender.send_replace(true);
        assert!(is_said(&mut early).await && is_said(&mut early).await);
        assert!(is_said(&mut Signal::said(sender.subscribe())).await);
        assert!(is_said(&mut Signal::or_gone(sender.subscribe())).await);
    }

    #[tokio::test(start_paused = true)]
    async fn it_wakes_who_waits() {
        let sender = watch::Sender::new(false);
        let mut signal = Signal::said(sender.subscribe());
        let waiting = tokio::spawn(async move { is_said(&mut signal).await });
        tokio::task::yield_now().await;
        sender.send_replace(true);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_sender_it_is_said_or_never() {
        let sender = watch::Sender::new(false);
        let (mut said, mut or_gone) = (Signal::said(sender.subscribe()), Signal::or_gone(sender.subscribe()));
        assert!(!is_said(&mut said).await && !is_said(&mut or_gone).await);
        drop(sender);
        assert!(!is_said(&mut said).await && is_said(&mut or_gone).await);
    }
}
