//! From files to traffic: load, compile, test, acquire, commit, retire. One at a time, and all or nothing:
//! until the commit nothing that serves has been touched, and the commit cannot fail.

use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
    time::timeout_at,
};

use super::{
    attempt::Attempt,
    discovery, memory, notify,
    report::{Cause, Outcome, Report},
    sockets::{Acquired, Failed, Sockets, Wanted},
    status::Status,
    tasks::{Kind, Tasks},
    tenants::{Tenants, tested},
    watch::Watcher,
};
use crate::{
    compile::Registries,
    diagnostic::{Code, Diagnostic, Severity},
    listen::{Bound, Listening},
    proxy::Engine,
    snapshot::{Process, Snapshot},
    telemetry::log::Log,
    value::Bind,
};

/// A request holds the table while it is looked up: far shorter, unless its thread does not run.
const LONGEST_LOOKUP: Duration = Duration::from_secs(10);

/// What spans that wait have to be sent, where seeing connections off took all the time there was.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// What the reloader is told to do.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration; whoever asked may want to hear of it.
    Reload(Cause, Option<oneshot::Sender<Report>>),
    /// Close the listeners, see all connections off, and say whether they ended by themselves.
    Drain(oneshot::Sender<bool>),
}

/// What serves, and how it is replaced.
pub struct Reloader {
    pub root: PathBuf,
    pub registries: Arc<Registries>,
    pub engine: Arc<Engine>,
    pub sockets: Sockets<Engine>,
    pub tasks: Tasks,
    pub watcher: Watcher,
    /// Watches files that list endpoints.
    pub endpoint_files: Watcher,
    pub status: Arc<Status>,
    pub log: Log,
    /// What the process was started with and keeps.
    pub fixed: Fixed,
    /// What is live.
    pub current: Option<Arc<Snapshot>>,
    /// The memory of the previous reload, while it is freed.
    pub freeing: Option<JoinHandle<()>>,
    /// How the tenants in it do whose parts others write.
    pub tenants: Tenants,
}

/// Settings that a running process cannot change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    pub process: Process,
    pub admin: Option<Bind>,
}

// === impl Reloader ===

impl Reloader {
    /// Does what it is told, one thing after the other, until nobody can tell it anything more.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            let mut next = Some(order);
            while let Some(order) = next.take() {
                match order {
                    Order::Drain(done) => {
                        let limit = self.current.as_ref().map_or_else(Default::default, |s| s.drain_timeout);
                        self.status.draining();
                        let end = Instant::now() + limit;
                        let clean = self.sockets.drain(limit).await;
                        // Copies of requests end by their own timeouts.
                        let _ = timeout_at(end.into(), self.tasks.ended(Kind::Mirror)).await;
                        self.registries.spans.flush(end.max(Instant::now() + LAST_SPANS)).await;
                        let _ = done.send(clean);
                    }
                    Order::Reload(cause, asked) => {
                        next = self.reload_for_all(cause, asked, &mut orders).await
                    }
                }
            }
        }
    }

    /// One reload for everybody who waits for one by now. Hands back the order after them, if it is another.
    async fn reload_for_all(
        &mut self,
        mut cause: Cause,
        asked: Option<oneshot::Sender<Report>>,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Option<Order> {
        let mut all: Vec<_> = asked.into_iter().collect();
        let mut next = None;
        while let Ok(order) = orders.try_recv() {
            match order {
                Order::Reload(other, asked) => {
                    cause = cause.max(other);
                    all.extend(asked);
                }
                drain @ Order::Drain(_) => {
                    next = Some(drain);
                    break;
                }
            }
        }
        let report = self.reload(cause).await;
        for asked in all {
            // Who has gone is told nothing.
            let _ = asked.send(report.clone());
        }
        next
    }

    /// Reads the configuration and goes over to it, if nothing is wrong with it.
    async fn reload(&mut self, cause: Cause) -> Report {
        notify::reloading();
        let (asked, start) = (SystemTime::now(), Instant::now());
        let (root, registries) = (self.root.clone(), self.registries.clone());
        // Two tables are in memory at a time, and not three.
        if let Some(freeing) = self.freeing.take() {
            let _ = freeing.await;
        }
        // All that takes time is done beside what serves and what answers.
        let before = self.tenants.clone();
        let attempted = spawn_blocking(move || tested(&root, &registries, &before)).await;
        let report = match attempted {
            Ok(attempt) => self.take(cause, attempt, asked, start).await,
            // A panic is an error of ours; what serves goes on all the same.
            Err(error) => {
                tracing::error!(%error, "reading the configuration failed");
                self.report(cause, Outcome::Refused, &Attempt::failed(&error.to_string()), start)
            }
        };
        notify::ready(report.generation);
        report
    }

    /// Goes over to what was read, if nothing is wrong with it. `asked` is when the reading began.
    pub async fn take(
        &mut self,
        cause: Cause,
        mut attempt: Attempt,
        asked: SystemTime,
        start: Instant,
    ) -> Report {
        // A tree that is refused is watched as well: mending it shall be noticed.
        self.watcher.renew(&attempt.watch, asked);
        let before = self.current.clone();
        if attempt.snapshot.is_some() && !attempt.diagnostics.has_errors() {
            discovery::begin(&self.registries.upstreams, &self.tasks).await;
        }
        let outcome = self.apply(cause, &mut attempt);
        discovery::watch(&mut self.endpoint_files, &self.registries.upstreams, asked);
        let report = self.report(cause, outcome, &attempt, start);
        report.log();
        self.status.read(&report);
        let retired = before.filter(|_| outcome == Outcome::Applied);
        // Large documents and tables take their time to be dropped.
        self.freeing = Some(spawn_blocking(move || {
            drop(attempt);
            if let Some(retired) = retired {
                retire(retired);
            }
            memory::give_back();
        }));
        report
    }

    fn apply(&mut self, cause: Cause, attempt: &mut Attempt) -> Outcome {
        let unchanged = self.current.as_ref().is_some_and(|current| current.hash == attempt.hash);
        if unchanged && !cause.is_asked_for() {
            return Outcome::Unchanged;
        }
        let Some(snapshot) = attempt.snapshot.take() else { return Outcome::Refused };
        let wanted = wanted(&snapshot);

        // acquire: what is missing is bound, and given back if anything below fails.
        let bound = self.acquire(&wanted, attempt);
        self.open_access_logs(attempt);
        let Some(bound) = bound.filter(|_| !attempt.diagnostics.has_errors()) else {
            return Outcome::Refused;
        };
        let Some(listening) = self.listen(bound, attempt) else { return Outcome::Refused };

        // From here on nothing can fail.
        self.warn_of_restart(&snapshot, attempt);
        self.tenants = attempt.tenants.clone();
        self.commit(snapshot, &wanted, listening);
        Outcome::Applied
    }

    fn acquire(&self, wanted: &[Wanted], attempt: &mut Attempt) -> Option<Acquired<Bound>> {
        self.sockets.acquire(wanted).map_err(|failed| tell(attempt, failed)).ok()
    }

    fn listen(&self, bound: Acquired<Bound>, attempt: &mut Attempt) -> Option<Acquired<Listening>> {
        self.sockets.listen(bound).map_err(|failed| tell(attempt, failed)).ok()
    }

    fn open_access_logs(&self, attempt: &mut Attempt) {
        if let Err(error) = self.registries.access_logs.open() {
            attempt.diagnostics.push(Diagnostic::nowhere(Code::UnreadableFile, error.to_string()));
        }
    }

    /// Publishes the table, goes over to the listeners, starts what runs beside requests.
    fn commit(&mut self, mut snapshot: Snapshot, wanted: &[Wanted], listening: Acquired<Listening>) {
        snapshot.generation = self.generation() + 1;
        let drain_timeout = snapshot.drain_timeout;
        let snapshot = Arc::new(snapshot);
        self.engine.publish(snapshot.clone());
        self.sockets.commit(wanted, listening, drain_timeout);
        snapshot.upstreams.values().for_each(|upstream| upstream.begin_to_serve());
        for task in snapshot.upstreams.values().flat_map(|upstream| upstream.health_tasks()) {
            self.tasks.spawn(Kind::Health, task.run());
        }
        for task in snapshot.upstreams.values().flat_map(|upstream| upstream.fill_tasks()) {
            self.tasks.spawn(Kind::Connections, task.run());
        }
        for task in self.registries.jwks.tasks() {
            self.tasks.spawn(Kind::Jwks, task.run());
        }
        for task in self.registries.spans.tasks() {
            self.tasks.spawn(Kind::Spans, task.run());
        }
        for task in self.registries.redis.tasks() {
            self.tasks.spawn(Kind::Redis, task.run());
        }
        self.log.apply(&snapshot.log);
        self.status.applied(snapshot.clone(), self.sockets.list(), self.tenants.clone());
        self.current = Some(snapshot);
    }

    /// What a running process cannot change stays as it was, which is said.
    fn warn_of_restart(&self, snapshot: &Snapshot, attempt: &mut Attempt) {
        let Some(document) = &attempt.document else { return };
        let mut warn = |changed: bool, span, what: &str| {
            if changed {
                let message =
                    format!("{what} has changed: it takes effect when the process is started again");
                attempt.diagnostics.push(match span {
                    Some(span) => Diagnostic::warning(Code::RestartNeeded, span, message),
                    None => Diagnostic {
                        severity: Severity::Warning,
                        ..Diagnostic::nowhere(Code::RestartNeeded, message)
                    },
                });
            }
        };
        let threads = document.process.threads.as_ref().map(|threads| threads.span);
        let admin = document.admin.as_ref().map(|admin| admin.bind.span);
        warn(snapshot.process != self.fixed.process, threads, "process.threads");
        warn(snapshot.admin != self.fixed.admin, admin, "admin.bind");
    }

    fn report(&self, cause: Cause, outcome: Outcome, attempt: &Attempt, start: Instant) -> Report {
        let live = (self.generation(), attempt.hash.clone());
        let failed = outcome == Outcome::Refused;
        self.registries.metrics.read(outcome.word(), failed, live.0);
        let mut said = attempt.diagnostics.clone();
        said.extend(attempt.broken.clone());
        let tenants = if failed { Value::Null } else { attempt.tenants.json() };
        let configuration = self.status.configuration();
        Report {
            tenants,
            configuration,
            ..Report::new((cause, outcome), live, (&said, &attempt.sources), start.elapsed())
        }
    }

    fn generation(&self) -> u64 {
        self.current.as_ref().map_or(0, |snapshot| snapshot.generation)
    }
}

/// Frees a configuration. Whoever is the last to let go of a large table pays for it: that shall be nobody
/// who just looks a request up in it.
#[expect(clippy::disallowed_methods, reason = "it runs on a thread for blocking work, beside the workers")]
fn retire(old: Arc<Snapshot>) {
    let is_used = || {
        Arc::strong_count(&old) > 1 || old.listeners.values().any(|listener| Arc::strong_count(listener) > 1)
    };
    let patience = Instant::now() + LONGEST_LOOKUP;
    while is_used() && Instant::now() < patience {
        thread::sleep(Duration::from_millis(1));
    }
}

fn wanted(snapshot: &Snapshot) -> Vec<Wanted> {
    let wanted = snapshot.listeners.values();
    wanted.map(|l| Wanted { settings: l.settings.clone(), binds: l.binds.clone() }).collect()
}

fn tell(attempt: &mut Attempt, failed: Vec<Failed>) {
    for Failed { listener, wanted, error } in failed {
        attempt.bind_failed(&listener, &wanted, &error);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        compile,
        config::{self, Inputs},
    };

    const YAML: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts: { www: { names: ["*"], routes: { all: { path: "/**", respond: {} } } } }
"#;

    #[test]
    fn a_table_that_a_request_looks_into_is_freed_after_it_and_not_by_it() {
        let inputs = Inputs::memory([("p.yaml", YAML)], [("", ""); 0]);
        let loaded = config::load(Path::new("p.yaml"), &inputs);
        let document = loaded.document.expect("it is sound");
        let (snapshot, _) = compile::compile(&document, &loaded.sources, &inputs, &Registries::default());
        let snapshot = Arc::new(snapshot.expect("it is sound"));
        let of_request = snapshot.listeners.values().next().cloned().expect("there is one");
        let table = Arc::downgrade(&of_request);

        let retired = thread::spawn(move || retire(snapshot));
        assert!(!retired.is_finished());
        drop(of_request);
        retired.join().expect("it ends");
        assert!(table.upgrade().is_none());
    }
}
