//! Load, and what became of each request.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// What load generators counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub succeeded: u64,
    pub failed: u64,
    /// What they printed, where something failed.
    pub report: String,
}

/// One run of h2load.
#[track_caller]
pub fn h2load(arguments: &[&str]) -> Load {
    let output = Command::new("h2load").args(arguments).output().expect("h2load is installed: tests/install");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // requests: 100 total, 100 started, 100 done, 100 succeeded, 0 failed, 0 errored, 0 timeout
    let line = text.lines().find(|line| line.starts_with("requests:")).unwrap_or_default();
    let count = |word: &str| number_before(line, word).unwrap_or_else(|| panic!("no {word} in:\n{text}"));
    let succeeded = count("succeeded");
    let failed = count("total") - succeeded;
    Load { succeeded, failed, report: if failed > 0 { text } else { String::new() } }
}

/// One run of wrk.
#[track_caller]
pub fn wrk(arguments: &[&str]) -> Load {
    let output = Command::new("wrk").args(arguments).output().expect("wrk is installed: tests/install");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    //   12345 requests in 1.00s, 2.00MB read
    //   Socket errors: connect 0, read 0, write 0, timeout 0
    //   Non-2xx or 3xx responses: 1
    let done = text.lines().find_map(|line| number_before(line, "requests in"));
    let done = done.unwrap_or_else(|| panic!("no count in:\n{text}"));
    let after = |word: &str| text.split(word).nth(1).and_then(first_number).unwrap_or(0);
    let statuses = after("Non-2xx or 3xx responses:");
    let errors: u64 = match text.lines().find(|line| line.contains("Socket errors")) {
        Some(line) => line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok()).sum(),
        None => 0,
    };
    let failed = errors + statuses;
    Load { succeeded: done - statuses, failed, report: if failed > 0 { text } else { String::new() } }
}

impl Load {
    /// Runs `round` again and again on a thread of its own, until [`Running::stop`].
    pub fn repeat(round: impl Fn() -> Self + Send + 'static) -> Running {
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = thread::spawn(move || {
            let mut sum = Self::default();
            while !stopping.load(Ordering::Acquire) {
                sum += round();
            }
            sum
        });
        Running { stop, thread }
    }
}

/// Load that goes on.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Load>,
}

impl Running {
    /// The sum, once the round that runs is over.
    #[track_caller]
    pub fn stop(self) -> Load {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("load that could be counted")
    }
}

impl std::ops::AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        if self.report.len() < 4000 {
            self.report.push_str(&other.report);
        }
    }
}

fn number_before(line: &str, word: &str) -> Option<u64> {
    line.split(word)
        .next()
        .filter(|before| before.len() < line.len())?
        .split_whitespace()
        .last()?
        .parse()
        .ok()
}

fn first_number(text: &str) -> Option<u64> {
    text.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse().ok()
}
