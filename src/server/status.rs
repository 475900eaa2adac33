//! How the process does, for `portolan status`.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde_json::{Value, json};

use super::{
    report::{Outcome, Report},
    tasks::Tasks,
};
use crate::{
    compile::Registries,
    listen::Live,
    snapshot::Snapshot,
    upstream::Upstream,
    value::{Bind, Name, Timestamp},
};

/// What is known of the process. Reloads write it, whoever asks reads it.
pub struct Status {
    started: Instant,
    tasks: Tasks,
    registries: Arc<Registries>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    snapshot: Option<Arc<Snapshot>>,
    listeners: Vec<(Name, Vec<Bind>, Arc<Live>)>,
    last: Option<Report>,
    draining: bool,
}

// === impl Status ===

impl Status {
    pub fn new(tasks: Tasks, registries: Arc<Registries>) -> Self {
        Self { started: Instant::now(), tasks, registries, now: Mutex::default() }
    }

    /// This is live now.
    pub fn applied(&self, snapshot: Arc<Snapshot>, listeners: Vec<(Name, Vec<Bind>, Arc<Live>)>) {
        let mut now = self.now();
        now.listeners = listeners;
        let old = now.snapshot.replace(snapshot);
        drop(now);
        // A large table takes its time to be dropped.
        drop(old);
    }

    /// The last time that the configuration was read, this came of it.
    pub fn read(&self, report: &Report) {
        self.now().last = Some(report.clone());
    }

    /// The process ends; its listeners are gone.
    pub fn draining(&self) {
        let mut now = self.now();
        now.draining = true;
        now.listeners.clear();
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let now = self.now();
        let snapshot = now.snapshot.as_deref();
        let refused = now.last.as_ref().filter(|report| report.result == Outcome::Refused);
        let dropped = self.registries.access_logs.dropped();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "state": if now.draining { "draining" } else { "serving" },
            "uptime_seconds": self.started.elapsed().as_secs(),
            "generation": snapshot.map_or(0, |snapshot| snapshot.generation),
            "hash": snapshot.map(|snapshot| &snapshot.hash),
            "loaded_at": snapshot.map(|snapshot| Timestamp(snapshot.loaded_at).to_string()),
            "last_error": refused.map(error),
            "listeners": now.listeners.iter().map(listener).collect::<Value>(),
            "upstreams": snapshot.into_iter().flat_map(|s| s.upstreams.values()).map(upstream).collect::<Value>(),
            "hosts": snapshot.map_or(0, hosts),
            "connections": now.listeners.iter().map(|(_, _, live)| live.connections()).sum::<usize>(),
            "tasks": self.tasks.count().iter().map(|(kind, count)| (kind.as_str(), *count)).collect::<Value>(),
            "access_log_lost": dropped.iter().map(|(to, lines)| (to.to_string(), *lines)).collect::<Value>(),
        })
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many hosts there are, each counted once.
fn hosts(snapshot: &Snapshot) -> usize {
    let names = snapshot.listeners.values().flat_map(|listener| listener.hosts.iter()).map(|host| &host.name);
    names.collect::<BTreeSet<_>>().len()
}

fn error(report: &Report) -> Value {
    json!({ "time": report.time, "diagnostics": report.diagnostics, "text": report.text })
}

fn listener((name, addresses, live): &(Name, Vec<Bind>, Arc<Live>)) -> Value {
    json!({
        "name": name.as_str(),
        "addresses": addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "protocols": protocols(live),
        "connections": live.connections(),
    })
}

fn protocols(live: &Live) -> Vec<&'static str> {
    let settings = live.settings();
    let h2 = if settings.tls.is_some() { "h2" } else { "h2c" };
    let spoken = [(settings.protocols.h1, "h1"), (settings.protocols.h2, h2)];
    spoken.into_iter().filter(|(spoken, _)| *spoken).map(|(_, name)| name).collect()
}

fn upstream(upstream: &Arc<Upstream>) -> Value {
    let endpoint = |endpoint: &Arc<crate::upstream::Endpoint>| {
        json!({
            "address": endpoint.address.to_string(),
            "weight": endpoint.weight,
            "healthy": endpoint.is_healthy(),
            "in_flight": endpoint.state.in_flight(),
        })
    };
    json!({
        "name": upstream.name.as_str(),
        "endpoints": upstream.endpoints.iter().map(endpoint).collect::<Value>(),
    })
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::{
        compile,
        config::{self, Inputs},
        diagnostic::{Diagnostics, Sources},
        server::report::Cause,
    };

    const YAML: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { endpoints: ["10.0.0.1:80"] } }
hosts: { www: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: app } } } } }
"#;

    fn snapshot(registries: &Registries) -> Arc<Snapshot> {
        let inputs = Inputs::memory([("p.yaml", YAML)], [("", ""); 0]);
        let loaded = config::load(Path::new("p.yaml"), &inputs);
        let (snapshot, _) = compile::compile(&loaded.document.unwrap(), &loaded.sources, &inputs, registries);
        Arc::new(Snapshot { generation: 3, ..snapshot.unwrap() })
    }

    fn report(result: Outcome) -> Report {
        let nothing = (&Diagnostics::default(), &Sources::default());
        Report::new((Cause::Files, result), (3, String::new()), nothing, Duration::ZERO)
    }

    #[tokio::test]
    async fn it_says_what_is_live_and_what_went_wrong_last() {
        let registries = Arc::new(Registries::default());
        let status = Status::new(Tasks::new(tokio::runtime::Handle::current()), registries.clone());
        assert_eq!(status.json()["generation"], 0);

        let live = Live::new(crate::snapshot::settings::Listener::for_tests("web"));
        let listeners = vec![("web".parse().unwrap(), vec!["127.0.0.1:4711".parse().unwrap()], live)];
        status.applied(snapshot(&registries), listeners);
        let json = status.json();
        assert_eq!(
            (&json["generation"], &json["hosts"], &json["state"]),
            (&3.into(), &1.into(), &"serving".into())
        );
        assert_eq!(json["listeners"][0]["addresses"], json!(["127.0.0.1:4711"]));
        assert_eq!(json["listeners"][0]["protocols"], json!(["h1", "h2c"]));
        let endpoint = json!({ "address": "10.0.0.1:80", "weight": 1, "healthy": true, "in_flight": 0 });
        assert_eq!(json["upstreams"], json!([{ "name": "app", "endpoints": [endpoint] }]));

        status.read(&report(Outcome::Refused));
        assert!(status.json()["last_error"]["time"].is_string());
        status.read(&report(Outcome::Unchanged));
        assert!(status.json()["last_error"].is_null());
        status.draining();
        assert_eq!(status.json()["state"], "draining");
    }
}
