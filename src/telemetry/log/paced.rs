//! Bounds the lines that clients can cause: a client that repeats what a line is about would fill the disk with it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::{Layer, layer::Context};

/// The target of our own lines that a client can cause.
pub const CLIENTS: &str = "portolan::client";
/// All other targets of ours.
const OWN: &str = "portolan";

/// Lets so many lines of a place in the code pass in each [`WINDOW`].
const MOST: u32 = 5;
const WINDOW: Duration = Duration::from_secs(10);

/// A layer that drops what is too much of libraries' lines and of those of [`CLIENTS`]. The next line that passes is preceded by
/// one that says how many were dropped. What is asked for by `debug` and `trace` is not bounded.
#[derive(Debug, Default)]
pub struct Paced(Mutex<HashMap<Place, Count>>);

/// Where a line comes from: the target and the line of the source, where that is known.
type Place = (String, Option<u32>);

#[derive(Debug)]
struct Count {
    since: Instant,
    passed: u32,
    dropped: u64,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Drop,
    /// So many were dropped before it.
    Pass(u64),
}

impl Paced {
    fn judge(&self, metadata: &Metadata<'_>, now: Instant) -> Verdict {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (metadata.target().to_owned(), metadata.line());
        let count = counts.entry(place).or_insert(Count { since: now, passed: 0, dropped: 0 });
        count.take(now)
    }
}

impl Count {
    fn take(&mut self, now: Instant) -> Verdict {
        if now.saturating_duration_since(self.since) >= WINDOW {
            (self.since, self.passed) = (now, 0);
        }
        if self.passed == MOST {
            self.dropped += 1;
            return Verdict::Drop;
        }
        self.passed += 1;
        Verdict::Pass(std::mem::take(&mut self.dropped))
    }
}

/// Whether a client may cause lines of this kind without end.
fn is_bounded(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_own = target == OWN || target.starts_with("portolan::");
    *metadata.level() <= Level::INFO && (!is_own || target == CLIENTS)
}

impl<S: Subscriber> Layer<S> for Paced {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        // Lines of the `log` crate are all of one place, unless they are looked at more closely.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        if !is_bounded(metadata) {
            return true;
        }
        match self.judge(metadata, Instant::now()) {
            Verdict::Drop => false,
            Verdict::Pass(0) => true,
            Verdict::Pass(lines) => {
                tracing::warn!(of = metadata.target(), lines, "log lines dropped: they came too fast");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tracing_subscriber::{layer::SubscriberExt, registry};

    use super::*;

    #[test]
    fn so_many_pass_in_a_window_and_the_next_one_tells_of_the_others() {
        let start = Instant::now();
        let mut count = Count { since: start, passed: 0, dropped: 0 };
        let verdicts: Vec<_> = (0..8).map(|_| count.take(start)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Pass(0)).count(), MOST as usize);
        assert_eq!(count.take(start + WINDOW), Verdict::Pass(8 - u64::from(MOST)));
        assert_eq!(count.take(start + WINDOW), Verdict::Pass(0));
    }

    /// Counts what passes.
    struct Counted(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Counted {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn libraries_and_what_clients_cause_are_bounded_and_nothing_else() {
        let counted = |write: fn()| {
            let count = Arc::new(AtomicUsize::new(0));
            let subscriber = registry().with(Paced::default()).with(Counted(count.clone()));
            tracing::subscriber::with_default(subscriber, || (0..100).for_each(|_| write()));
            count.load(Ordering::Relaxed)
        };
        assert_eq!(counted(|| tracing::warn!(target: "h2::proto::ping_pong", "an ACK")), MOST as usize);
        assert_eq!(counted(|| tracing::error!(target: CLIENTS, "it panicked")), MOST as usize);
        assert_eq!(counted(|| tracing::warn!(target: "portolan::server", "a reload failed")), 100);
        assert_eq!(counted(|| tracing::debug!(target: "h2::proto", "a frame")), 100);
    }
}
