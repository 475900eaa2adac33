//! Keeps a panic in one exchange from becoming more than that.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

/// A panic that was caught: what it said.
#[derive(Debug)]
pub struct Panicked(pub String);

/// Runs the future; a panic in it ends it alone. What it held is dropped by then.
pub async fn catching<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        // Whatever the panic left half-done is dropped with the future and never looked at again.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => {
                let panicked = Panicked(message(&*panic));
                tracing::error!(panic = %panicked.0, "a request panicked");
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
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_value() {
        assert_eq!(catching(async { 7 }).await.unwrap(), 7);
        let caught = catching(async {
            tokio::task::yield_now().await;
            panic!("at {}", 3)
        });
        assert_eq!(caught.await.unwrap_err().0, "at 3");
    }
}
