//! Keeps a panic in one exchange from becoming more than that.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::Poll,
};

/// A panic that was caught: what it said.
#[derive(Debug)]
pub struct Panicked(pub String);

/// Runs the future; a panic in it ends it alone. It is pinned where it stands: taken by value it would have room
/// here a second time.
pub async fn catching<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, Panicked> {
    poll_fn(|cx| {
        // Whatever the panic left half-done is never looked at again.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => {
                let panicked = Panicked(message(&*panic));
                tracing::error!(target: crate::telemetry::log::CLIENTS, panic = %panicked.0, "a request panicked");
                Poll::Ready(Err(panicked))
            }
        }
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_value() {
        assert_eq!(catching(pin!(async { 7 })).await.unwrap(), 7);
        let panicking = pin!(async {
            tokio::task::yield_now().await;
            panic!("at {}", 3)
        });
        assert_eq!(catching(panicking).await.unwrap_err().0, "at 3");
    }
}
