//! The process: workers that serve, and one control thread that reads configurations, watches files and
//! answers questions, so that none of that ever takes time from a request's thread.

mod attempt;
mod discovery;
mod drain;
mod memory;
mod notify;
mod open_files;
mod poll;
mod reload;
mod report;
mod signals;
mod sockets;
mod splits;
mod status;
mod tasks;
mod tenants;
mod watch;
mod workers;

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
};

pub use attempt::{Attempt, attempt};
pub use report::{Cause, Outcome, Report};
pub use tenants::intact;

use crate::{
    admin::{
        self, AdminSocket,
        serve::{Readiness, Reloaded},
    },
    compile::Registries,
    diagnostic::Code,
    proxy::Engine,
    telemetry::log::Log,
    upstream::EndpointTask,
    value::{Bind, Secret},
};
use reload::{Fixed, Order, Reloader};
use signals::{Signal, Signals};
use sockets::Sockets;
use status::Status;
use tasks::{Kind, Tasks};
use tenants::Tenants;
use watch::{Changes, Watcher};
use workers::Workers;

/// Why the process does not start.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something is wrong with the configuration.
    #[error("the configuration is refused")]
    Configuration(Box<Attempt>),
    /// It was refused for what the log says.
    #[error("the configuration is refused")]
    Refused,
    /// Something is wrong with the machine.
    #[error("{0}")]
    Runtime(String),
}

/// What is left of the access log gets at the end.
const FLUSH: Duration = Duration::from_secs(2);

/// Serves the configuration that starts at `root` until it is told to end.
pub fn run(root: &Path) -> Result<(), Failure> {
    let (asked, start) = (SystemTime::now(), Instant::now());
    crate::tls::install();
    let registries = Arc::new(Registries::default());
    let attempt = tenants::tested(root, &registries, &Tenants::default());
    let snapshot = match &attempt.snapshot {
        Some(snapshot) if !attempt.diagnostics.has_errors() => snapshot,
        _ => return Err(Failure::Configuration(Box::new(attempt))),
    };
    let log = Log::start(&snapshot.log).map_err(Failure::Runtime)?;
    open_files::raise_limit();
    let fixed = Fixed { process: snapshot.process, admin: snapshot.admin.clone() };

    let workers = Workers::start(fixed.process.threads).map_err(runtime("the workers cannot be started"))?;
    let control = Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
    let control = control.map_err(runtime("the control thread cannot be started"))?;

    let connector = registries.upstreams.connector();
    connector.prepare();
    let engine = Arc::new(Engine::new(connector.clone()));
    let tasks = Tasks::new(workers.handle().clone());
    tasks.spawn(Kind::Connections, connector.clone().sweep());
    let endpoint_tasks = tasks.clone();
    registries.upstreams.start_by(move |task| match task {
        EndpointTask::Health(task) => endpoint_tasks.spawn(Kind::Health, task.run()),
        EndpointTask::Readmission(task) => endpoint_tasks.spawn(Kind::Health, task.run()),
        EndpointTask::Fill(task) => endpoint_tasks.spawn(Kind::Connections, task.run()),
        EndpointTask::Mirror(task) => endpoint_tasks.spawn(Kind::Mirror, task.run()),
    });
    let (watcher, changes) = Watcher::new();
    let (endpoint_files, endpoint_changes) = Watcher::new();
    let status = Status::new(root, tasks.clone(), registries.clone(), watcher.watching());
    let status = Arc::new(status);
    let reloader = Reloader {
        root: root.to_owned(),
        registries: registries.clone(),
        engine: engine.clone(),
        sockets: Sockets::new(workers.handle().clone(), tasks.clone(), engine),
        tasks,
        watcher,
        endpoint_files,
        status,
        log,
        fixed,
        current: None,
        freeing: None,
        tenants: Tenants::default(),
    };
    let ended = control.block_on(serve(reloader, (changes, endpoint_changes), attempt, asked, start));
    registries.access_logs.flush(FLUSH);
    // A reload that hangs on a file system shall not keep the process.
    control.shutdown_background();
    drop(workers);
    ended
}

async fn serve(
    mut reloader: Reloader,
    (changes, endpoint_changes): (Changes, Changes),
    attempt: Attempt,
    asked: SystemTime,
    start: Instant,
) -> Result<(), Failure> {
    let mut signals = Signals::listen().map_err(runtime("signals cannot be handled"))?;
    let socket = admin_socket(reloader.fixed.admin.as_ref())?;
    reloader.registries.admin.listens_at(socket.local());
    let report = reloader.take(Cause::Start, attempt, asked, start).await;
    if report.result == Outcome::Refused {
        return Err(refused(&report));
    }
    let (registries, status) = (reloader.registries.clone(), reloader.status.clone());
    summarise(&status.json());
    tracing::info!(address = %socket.local(), "administered");
    let (orders, inbox) = mpsc::channel(64);
    tokio::spawn(reloader.run(inbox));
    tokio::spawn(follow(changes, orders.clone()));
    tokio::spawn(discovery::follow(endpoint_changes, registries.upstreams.clone()));
    let serving = tokio::spawn(socket.serve(Arc::new(Desk { orders: orders.clone(), status })));
    notify::ready(report.generation);

    loop {
        match signals.next().await {
            Signal::Reload => order(&orders, Order::Reload(Cause::Signal, None)).await,
            Signal::Reopen => {
                registries.access_logs.reopen();
                tracing::info!("log files are opened anew");
            }
            Signal::Stop => break,
        }
    }
    notify::stopping();
    tracing::info!("draining: what is in flight finishes; a second signal ends it");
    let (done, drained) = oneshot::channel();
    order(&orders, Order::Drain(done)).await;
    tokio::select! {
        clean = drained => match clean {
            Ok(true) => tracing::info!("all connections have ended"),
            _ => tracing::warn!("connections were cut: drain_timeout was reached"),
        },
        () = second_stop(&mut signals) => tracing::warn!("ended at once, connections were cut"),
    }
    // Dropped with its task, the socket takes its file along.
    serving.abort();
    let _ = serving.await;
    Ok(())
}

async fn second_stop(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
}

/// Every burst of changes is a reload.
async fn follow(mut changes: Changes, orders: mpsc::Sender<Order>) {
    loop {
        changes.next().await;
        order(&orders, Order::Reload(Cause::Files, None)).await;
    }
}

async fn order(orders: &mpsc::Sender<Order>, order: Order) {
    // The reloader takes orders as long as anybody can give them.
    let _ = orders.send(order).await;
}

/// Who answers those who administer.
struct Desk {
    orders: mpsc::Sender<Order>,
    status: Arc<Status>,
}

impl admin::Desk for Desk {
    fn metrics_path(&self) -> String {
        self.status.metrics_path()
    }

    fn token(&self) -> Option<Secret> {
        self.status.admin_token()
    }

    fn metrics(&self) -> String {
        self.status.metrics()
    }

    fn status(&self) -> Value {
        self.status.json()
    }

    fn readiness(&self) -> Readiness {
        self.status.readiness()
    }

    fn complaints(&self) -> Vec<Value> {
        self.status.complaints()
    }

    fn change(&self, order: &admin::upstream::Order) -> Result<(), String> {
        self.status.change(order)
    }

    async fn reload(&self) -> Option<Reloaded> {
        let (tell, told) = oneshot::channel();
        order(&self.orders, Order::Reload(Cause::Command, Some(tell))).await;
        let report = told.await.ok()?;
        let refused = report.result == Outcome::Refused;
        Some(Reloaded { report: serde_json::to_value(report).unwrap_or(Value::Null), refused })
    }
}

fn admin_socket(configured: Option<&Bind>) -> Result<AdminSocket, Failure> {
    let bind = match configured {
        Some(bind) => bind.clone(),
        None => {
            let path = admin::default_path();
            Bind::Unix(path.map_err(runtime("there is no place for the administration's socket"))?)
        }
    };
    AdminSocket::bind(&bind).map_err(|error| {
        let help = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "\n  Give each process its own address: admin: { bind: \"unix:/run/portolan/NAME.sock\" }, and name it to \
                 `portolan reload` and `status` by --config or --socket"
            }
            _ => "",
        };
        Failure::Runtime(format!("the admin API cannot listen at {bind}: {error}{help}"))
    })
}

/// A start that is refused because an address is taken is the machine's fault, else the configuration's.
fn refused(report: &Report) -> Failure {
    let taken =
        report.diagnostics.as_array().into_iter().flatten().any(|d| d["code"] == Code::BindFailed.as_str());
    match taken {
        true => Failure::Runtime("an address cannot be had".into()),
        false => Failure::Refused,
    }
}

fn runtime(what: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::Runtime(format!("{what}: {error}"))
}

/// What it serves and where it can be reached, a line for each listener.
fn summarise(status: &Value) {
    let (generation, hosts) = (&status["generation"], &status["hosts"]);
    tracing::info!(%generation, %hosts, version = env!("CARGO_PKG_VERSION"), "serving");
    for listener in status["listeners"].as_array().into_iter().flatten() {
        let list = |key: &str| {
            let values = listener[key].as_array().into_iter().flatten();
            values.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        };
        let name = listener["name"].as_str().unwrap_or_default();
        tracing::info!(name, addresses = list("addresses"), protocols = list("protocols"), "listening");
    }
}
