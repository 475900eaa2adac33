//! Where lines go: a bounded queue in memory and a thread of its own that empties it, so that no request
//! ever waits for a disk or a reader. Sinks are shared by their destination and live on over reloads.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    AccessLog, Lines,
    output::{Destination, Lost, Output, Rotation},
};

/// A destination of the access log that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the access log {destination} cannot be opened: {source}")]
pub struct OpenError {
    pub destination: Destination,
    pub source: io::Error,
}

/// The sinks of the process by their destinations. A sink that no [`AccessLog`] names any more writes what it
/// has and ends.
#[derive(Debug, Default)]
pub struct Sinks {
    by_destination: Mutex<HashMap<Destination, Weak<Sink>>>,
}

/// A destination's queue.
#[derive(Debug)]
pub(super) struct Sink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    destination: Destination,
    queue: Mutex<Queue>,
    /// The thread waits here for lines.
    filled: Condvar,
    /// Who flushes waits here.
    emptied: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    lines: Vec<u8>,
    /// As those have it who wrote last.
    rotation: Option<Rotation>,
    state: State,
    /// Write now rather than in a batch.
    hurry: bool,
    reopen: bool,
    /// The thread has lines in hand that are not in the queue any more.
    writing: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing has been opened yet: lines are not taken.
    #[default]
    Unopened,
    Open,
    /// Nobody has the sink any more.
    Closing,
}

/// Bytes that wait at most.
const MOST_QUEUED: usize = 4 << 20;
/// As many are written at once without waiting for more.
const BATCH: usize = 64 << 10;
/// How long fewer wait for more, so that a busy proxy does not pay a system call for each line.
const BATCH_TIME: Duration = Duration::from_millis(20);
/// How often a file is looked after, and losses are told of.
const LOOK_AFTER: Duration = Duration::from_secs(1);
const TELL_AGAIN: Duration = Duration::from_secs(10);

// === impl Sinks ===

impl Sinks {
    /// The log of a destination. It takes lines once [`Sinks::open`] has succeeded.
    pub fn log(&self, destination: &Destination, lines: Lines) -> AccessLog {
        let mut sinks = self.sinks();
        let sink = sinks.get(destination).and_then(Weak::upgrade).unwrap_or_else(|| {
            sinks.retain(|_, sink| sink.strong_count() > 0);
            let sink = Arc::new(Sink::new(destination.clone()));
            sinks.insert(destination.clone(), Arc::downgrade(&sink));
            sink
        });
        AccessLog { lines, sink }
    }

    /// Opens what is not open yet. Where one fails, those that are open stay so.
    pub fn open(&self) -> Result<(), OpenError> {
        self.living().iter().try_for_each(|sink| sink.open())
    }

    /// Opens files anew, as after they have been renamed away.
    pub fn reopen(&self) {
        for sink in self.living() {
            sink.shared.queue().reopen = true;
            sink.shared.filled.notify_one();
        }
    }

    /// Waits until all that is queued is written, for this long at most.
    pub fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.living().iter().for_each(|sink| sink.flush(deadline));
    }

    /// Lines lost so far, by destination.
    pub fn dropped(&self) -> Vec<(Destination, u64)> {
        let mut list: Vec<_> = self
            .living()
            .iter()
            .map(|sink| (sink.shared.destination.clone(), sink.shared.dropped.load(Ordering::Relaxed)))
            .collect();
        list.sort();
        list
    }

    fn living(&self) -> Vec<Arc<Sink>> {
        self.sinks().values().filter_map(Weak::upgrade).collect()
    }

    fn sinks(&self) -> MutexGuard<'_, HashMap<Destination, Weak<Sink>>> {
        self.by_destination.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sink ===

impl Sink {
    fn new(destination: Destination) -> Self {
        let shared = Shared {
            destination,
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes a line, its line break included.
    pub(super) fn queue(&self, line: &[u8], rotation: Option<Rotation>) {
        let mut queue = self.shared.queue();
        if queue.state != State::Open || queue.lines.len() + line.len() > MOST_QUEUED {
            drop(queue);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = queue.lines.len();
        queue.lines.extend_from_slice(line);
        queue.rotation = rotation;
        let wake = before == 0 || (before < BATCH && queue.lines.len() >= BATCH);
        drop(queue);
        if wake {
            self.shared.filled.notify_one();
        }
    }

    fn open(&self) -> Result<(), OpenError> {
        if self.shared.queue().state != State::Unopened {
            return Ok(());
        }
        let failed = |source| OpenError { destination: self.shared.destination.clone(), source };
        let output = Output::open(&self.shared.destination).map_err(failed)?;
        let shared = self.shared.clone();
        let writer = Writer { output, shared, told: None, cause: None, looked: Instant::now() };
        thread::Builder::new().name("access-log".into()).spawn(move || writer.run()).map_err(failed)?;
        self.shared.queue().state = State::Open;
        Ok(())
    }

    fn flush(&self, deadline: Instant) {
        let mut queue = self.shared.queue();
        while queue.state == State::Open && (queue.writing || !queue.lines.is_empty()) {
            queue.hurry = true;
            self.shared.filled.notify_one();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = wait(&self.shared.emptied, queue, left);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.queue().state = State::Closing;
        self.shared.filled.notify_one();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>, limit: Duration) -> MutexGuard<'a, T> {
    condition.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner).0
}

// === the thread ===

struct Writer {
    output: Output,
    shared: Arc<Shared>,
    /// How many losses were told of last, and when.
    told: Option<(u64, Instant)>,
    /// Why lines could not be written, where that was why they were lost.
    cause: Option<String>,
    looked: Instant,
}

/// What a batch comes to.
struct Batch {
    rotation: Option<Rotation>,
    reopen: bool,
    last: bool,
}

impl Writer {
    fn run(mut self) {
        let mut lines = Vec::new();
        loop {
            let batch = self.next(&mut lines);
            self.look_after(batch.reopen);
            if let Err(lost) = self.output.write(&lines, batch.rotation) {
                self.lost(&lost);
            }
            self.written(&mut lines);
            self.tell();
            if batch.last {
                return;
            }
        }
    }

    /// Waits for lines and takes them out of the queue into `lines`, which is empty.
    fn next(&self, lines: &mut Vec<u8>) -> Batch {
        let mut queue = self.shared.queue();
        while queue.lines.is_empty() && !queue.reopen && queue.state != State::Closing {
            queue = self.shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let full = |queue: &Queue| queue.lines.len() >= BATCH || queue.hurry || queue.reopen;
        if !full(&queue) && queue.state != State::Closing {
            let more = self
                .shared
                .filled
                .wait_timeout_while(queue, BATCH_TIME, |queue| !full(queue) && queue.state != State::Closing);
            queue = more.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut queue.lines, lines);
        queue.writing = true;
        Batch {
            rotation: queue.rotation,
            reopen: std::mem::take(&mut queue.reopen),
            last: queue.state == State::Closing,
        }
    }

    fn written(&self, lines: &mut Vec<u8>) {
        lines.clear();
        if lines.capacity() > BATCH * 4 {
            *lines = Vec::new();
        }
        let mut queue = self.shared.queue();
        queue.writing = false;
        queue.hurry = !queue.lines.is_empty() && queue.hurry;
        drop(queue);
        self.shared.emptied.notify_all();
    }

    /// Opens the file anew where that is asked for, or where another lies at its path.
    fn look_after(&mut self, reopen: bool) {
        let due = self.looked.elapsed() >= LOOK_AFTER;
        if due {
            self.looked = Instant::now();
        }
        if reopen || (due && self.output.was_moved()) {
            match Output::open(&self.shared.destination) {
                Ok(output) => self.output = output,
                Err(error) => {
                    tracing::error!(file = %self.shared.destination, %error, "the access log cannot be opened anew");
                }
            }
        }
    }

    fn lost(&mut self, lost: &Lost) {
        self.shared.dropped.fetch_add(lost.lines, Ordering::Relaxed);
        self.cause = Some(lost.error.to_string());
    }

    /// Tells of losses, not more than once a while.
    fn tell(&mut self) {
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        let (known, due) = match self.told {
            Some((known, at)) => (known, at.elapsed() >= TELL_AGAIN),
            None => (0, true),
        };
        if dropped > known && due {
            self.told = Some((dropped, Instant::now()));
            let (lines, error) = (dropped - known, self.cause.take());
            let error = error.as_deref().unwrap_or("they come faster than they are written");
            tracing::warn!(file = %self.shared.destination, lines, error, "lines of the access log were dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::telemetry::access_log::{Format, Record};

    const LIMIT: Duration = Duration::from_secs(30);

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("portolan-sink-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn lines(path: &Path) -> usize {
        fs::read_to_string(path).unwrap_or_default().lines().count()
    }

    #[test]
    fn lines_reach_the_file_and_logs_of_one_target_share_it() {
        let path = directory("share").join("log");
        let _ = fs::remove_file(&path);
        let (sinks, target) = (Sinks::default(), Destination::File(path.clone()));
        let combined = Lines { format: Format::Combined, ..Lines::default() };
        let (json, combined) = (sinks.log(&target, Lines::default()), sinks.log(&target, combined));
        assert!(Arc::ptr_eq(&json.sink, &combined.sink));
        sinks.open().unwrap();
        json.write(&Record::for_tests());
        combined.write(&Record::for_tests());
        sinks.flush(LIMIT);
        assert_eq!(lines(&path), 2);
        assert_eq!(sinks.dropped(), [(target, 0)]);
    }

    #[test]
    fn a_file_that_was_renamed_is_opened_anew() {
        let directory = directory("rename");
        let (path, old) = (directory.join("log"), directory.join("log.1"));
        let _ = (fs::remove_file(&path), fs::remove_file(&old));
        let sinks = Sinks::default();
        let log = sinks.log(&Destination::File(path.clone()), Lines::default());
        sinks.open().unwrap();
        log.write(&Record::for_tests());
        sinks.flush(LIMIT);
        fs::rename(&path, &old).unwrap();
        sinks.reopen();
        log.write(&Record::for_tests());
        sinks.flush(LIMIT);
        assert_eq!((lines(&path), lines(&old)), (1, 1));
    }

    #[test]
    fn rotation_under_load_loses_no_line_and_says_none_twice() {
        let path = directory("load").join("log");
        let rotation = Rotation { size: 64 << 10, keep: 1000.try_into().unwrap() };
        let sinks = Sinks::default();
        let log = sinks.log(&Destination::File(path.clone()), Lines::default());
        sinks.open().unwrap();
        thread::scope(|scope| {
            for writer in 0..4 {
                let sink = log.sink.clone();
                scope.spawn(move || {
                    (0..10_000)
                        .for_each(|n| sink.queue(format!("line {writer} {n}\n").as_bytes(), Some(rotation)));
                });
            }
        });
        sinks.flush(LIMIT);
        assert_eq!(sinks.dropped()[0].1, 0);
        let mut all = Vec::new();
        let mut files = 0;
        for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(text.len() <= 64 << 10 && text.ends_with('\n'));
            all.extend(text.lines().map(str::to_owned));
            files += 1;
        }
        assert!(files > 5, "{files}");
        all.sort();
        let mut expected: Vec<_> =
            (0..4).flat_map(|writer| (0..10_000).map(move |n| format!("line {writer} {n}"))).collect();
        expected.sort();
        assert!(all == expected);
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let sink = Sink::new(Destination::Stdout);
        sink.queue(b"before it is open\n", None);
        assert_eq!(sink.shared.dropped.load(Ordering::Relaxed), 1);
        // Open, but with no thread that would empty the queue.
        sink.shared.queue().state = State::Open;
        let line = vec![b'x'; 1 << 20];
        (0..6).for_each(|_| sink.queue(&line, None));
        assert_eq!(sink.shared.queue().lines.len(), 4 << 20);
        assert_eq!(sink.shared.dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let sinks = Sinks::default();
        let _log = sinks.log(&Destination::File("/no/such/directory/log".into()), Lines::default());
        assert!(sinks.open().unwrap_err().to_string().contains("/no/such/directory/log"));
    }
}
