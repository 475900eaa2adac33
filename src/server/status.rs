//! How the process does, for those who administer it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde_json::{Value, json};

use super::{
    discovery,
    report::{Outcome, Report},
    splits,
    tasks::Tasks,
    tenants::Tenants,
    watch::{POLL, Watching},
};
use crate::{
    action::split::Split,
    admin::{
        serve::Readiness,
        upstream::{Change, Order},
    },
    compile::Registries,
    listen::Live,
    snapshot::Snapshot,
    telemetry::metrics::Present,
    upstream::{Drained, Upstream},
    value::{Bind, Name, Secret, Timestamp},
};

/// What is known of the process. Reloads write it, whoever asks reads it.
pub struct Status {
    started: Instant,
    /// The root of the configuration, from the file system's root on.
    configuration: String,
    tasks: Tasks,
    registries: Arc<Registries>,
    /// How changes of files are noticed.
    watching: Watching,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    snapshot: Option<Arc<Snapshot>>,
    required: Vec<Required>,
    splits: Vec<Arc<Split>>,
    listeners: Vec<(Name, Vec<Bind>, Arc<Live>)>,
    tenants: Tenants,
    last: Option<Report>,
    draining: bool,
}

/// An upstream that hosts send requests to.
struct Required {
    upstream: Arc<Upstream>,
    hosts: BTreeSet<Name>,
}

// === impl Status ===

impl Status {
    pub fn new(root: &Path, tasks: Tasks, registries: Arc<Registries>, watching: Watching) -> Self {
        let configuration = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let configuration = configuration.to_string_lossy().into_owned();
        let (started, now) = (Instant::now(), Mutex::default());
        Self { started, configuration, tasks, registries, watching, now }
    }

    /// The root of the configuration.
    pub fn configuration(&self) -> String {
        self.configuration.clone()
    }

    /// This is live now.
    pub fn applied(
        &self,
        snapshot: Arc<Snapshot>,
        listeners: Vec<(Name, Vec<Bind>, Arc<Live>)>,
        tenants: Tenants,
    ) {
        let required = required(&snapshot);
        let splits = splits::splits(&snapshot);
        let mut now = self.now();
        now.listeners = listeners;
        now.tenants = tenants;
        let old = (now.snapshot.replace(snapshot), std::mem::replace(&mut now.required, required));
        let old = (old, std::mem::replace(&mut now.splits, splits));
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

    /// Whether requests are to be sent here.
    pub fn readiness(&self) -> Readiness {
        let now = self.now();
        let mut causes = Vec::new();
        if now.draining {
            causes.push(json!({ "cause": "draining" }));
        }
        if now.snapshot.is_none() {
            causes.push(json!({ "cause": "no_configuration" }));
        }
        for Required { upstream, hosts } in &now.required {
            if !upstream.panics() && !upstream.endpoints().iter().any(|endpoint| endpoint.is_usable()) {
                let hosts: Vec<&str> = hosts.iter().map(Name::as_str).collect();
                causes.push(json!({
                    "cause": "no_healthy_endpoint",
                    "upstream": upstream.name.as_str(),
                    "hosts": hosts,
                }));
            }
        }
        Readiness { causes }
    }

    /// What is amiss, though requests are answered.
    pub fn complaints(&self) -> Vec<Value> {
        let now = self.now();
        let refused = now.last.as_ref().filter(|report| report.result == Outcome::Refused);
        let refused = refused.map(|report| json!({ "cause": "configuration_refused", "time": report.time }));
        let broken = now.tenants.broken().map(|(tenant, state)| {
            json!({ "cause": "delegated_files_wrong", "tenant": tenant.as_str(), "state": state.word() })
        });
        let redis = self.registries.redis.is_up().filter(|is_up| !is_up);
        let redis = redis.map(|_| json!({ "cause": "redis_unavailable" }));
        let polled = self.watching.polled_because();
        let polled = polled.map(|reason| json!({ "cause": "files_polled", "reason": reason }));
        let upstreams = now.snapshot.iter().flat_map(|snapshot| snapshot.upstreams.values());
        let unfound = upstreams.flat_map(|upstream| discovery::complaints(upstream));
        refused.into_iter().chain(broken).chain(redis).chain(polled).chain(unfound).collect()
    }

    pub fn metrics_path(&self) -> String {
        let now = self.now();
        now.snapshot.as_ref().map_or_else(String::new, |snapshot| snapshot.metrics_path.clone())
    }

    pub fn admin_token(&self) -> Option<Secret> {
        self.now().snapshot.as_ref().and_then(|snapshot| snapshot.admin_token.clone())
    }

    /// The metrics, with what is looked up for them.
    pub fn metrics(&self) -> String {
        let (snapshot, tenants) = {
            let now = self.now();
            splits::show(&now.splits);
            (now.snapshot.clone(), now.tenants.clone())
        };
        for upstream in snapshot.iter().flat_map(|snapshot| snapshot.upstreams.values()) {
            upstream.show();
        }
        let dropped = self.registries.access_logs.dropped();
        let tasks = self.tasks.count();
        self.registries.metrics.render(&Present {
            lines_dropped: dropped.into_iter().map(|(to, lines)| (to.to_string(), lines)).collect(),
            certificates: snapshot.iter().flat_map(|snapshot| snapshot.certificates.clone()).collect(),
            tenants: tenants.states().map(|(tenant, state)| (tenant.clone(), state.word())).collect(),
            tasks: tasks.into_iter().map(|(kind, count)| (kind.as_str(), count)).collect(),
            limits: self.registries.limits.states(),
            redis_up: self.registries.redis.is_up(),
        })
    }

    /// Changes how an endpoint is used; says why not.
    pub fn change(&self, order: &Order) -> Result<(), String> {
        let upstream = {
            let now = self.now();
            now.snapshot.as_ref().and_then(|snapshot| snapshot.upstreams.get(&order.upstream).cloned())
        };
        let upstream = upstream.ok_or(format!("there is no upstream {}", order.upstream))?;
        let found = match order.change {
            Change::Drain => upstream.drain(&order.endpoint, Drained::OfNewClients),
            Change::DrainAll => upstream.drain(&order.endpoint, Drained::Wholly),
            Change::Undrain => upstream.drain(&order.endpoint, Drained::No),
            Change::Weight(weight) => upstream.set_weight(&order.endpoint, weight),
        };
        match found {
            true => Ok(()),
            false => Err(format!("upstream {} has no endpoint {}", order.upstream, order.endpoint)),
        }
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
            "configuration": self.configuration,
            "state": if now.draining { "draining" } else { "serving" },
            "uptime_seconds": self.started.elapsed().as_secs(),
            "generation": snapshot.map_or(0, |snapshot| snapshot.generation),
            "hash": snapshot.map(|snapshot| &snapshot.hash),
            "loaded_at": snapshot.map(|snapshot| Timestamp(snapshot.loaded_at).to_string()),
            "last_error": refused.map(error),
            "watching": self.watching(),
            "listeners": now.listeners.iter().map(listener).collect::<Value>(),
            "upstreams": snapshot.into_iter().flat_map(|s| s.upstreams.values()).map(upstream).collect::<Value>(),
            "splits": now.splits.iter().map(|split| splits::json(split)).collect::<Value>(),
            "tenants": now.tenants.json(),
            "hosts": snapshot.map_or(0, hosts),
            "connections": now.listeners.iter().map(|(_, _, live)| live.connections()).sum::<usize>(),
            "tasks": self.tasks.count().iter().map(|(kind, count)| (kind.as_str(), *count)).collect::<Value>(),
            "access_log_lost": dropped.iter().map(|(to, lines)| (to.to_string(), *lines)).collect::<Value>(),
        })
    }

    fn watching(&self) -> Value {
        match self.watching.polled_because() {
            None => json!({ "by": "events" }),
            Some(reason) => json!({ "by": "polling", "interval_seconds": POLL.as_secs(), "reason": reason }),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The upstreams that routes lead to, with the hosts of these routes.
fn required(snapshot: &Snapshot) -> Vec<Required> {
    let mut by_name: BTreeMap<&Name, Required> = BTreeMap::new();
    for host in snapshot.listeners.values().flat_map(|listener| listener.table.hosts()) {
        for route in host.routes() {
            let upstreams = route.payload.action.upstreams().into_iter();
            for (upstream, _) in upstreams.filter(|(_, is_required)| *is_required) {
                let required = by_name
                    .entry(&upstream.name)
                    .or_insert_with(|| Required { upstream: upstream.clone(), hosts: BTreeSet::new() });
                if !required.hosts.contains(host.name()) {
                    required.hosts.insert(host.name().clone());
                }
            }
        }
    }
    by_name.into_values().collect()
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
    let spoken = [(settings.protocols.h1, "h1"), (settings.protocols.h2, h2), (settings.protocols.h3, "h3")];
    spoken.into_iter().filter(|(spoken, _)| *spoken).map(|(_, name)| name).collect()
}

fn upstream(upstream: &Arc<Upstream>) -> Value {
    let endpoint = |endpoint: &Arc<crate::upstream::Endpoint>| {
        let mut shown = json!({
            "address": endpoint.address.to_string(),
            "weight": endpoint.shown_weight(),
            "healthy": endpoint.is_healthy(),
            "check_failure": endpoint.check_failure().as_deref(),
            "drained": endpoint.state.drained() != Drained::No,
            "ejected_seconds": endpoint.ejected_for().map(|left| left.as_secs_f64().ceil() as u64),
            "in_flight": endpoint.state.in_flight(),
        });
        if upstream.sticky.is_some() {
            shown["drained_of_sticky_clients"] = (endpoint.state.drained() == Drained::Wholly).into();
        }
        shown
    };
    let mut shown = json!({
        "name": upstream.name.as_str(),
        "circuit": upstream.circuit(),
        "panic": upstream.panics(),
        "endpoints": upstream.endpoints().iter().map(endpoint).collect::<Value>(),
    });
    if let Some(sticky) = &upstream.sticky {
        shown["sticky"] = json!({
            "cookie": sticky.cookie(),
            "ttl_seconds": sticky.ttl().as_secs(),
            "key": if sticky.has_configured_key() { "configured" } else { "generated" },
        });
    }
    if let Some((in_flight, limit)) = upstream.limit() {
        shown["in_flight"] = json!(in_flight);
        shown["in_flight_limit"] = json!(limit);
    }
    if upstream.retry.hedge.is_some() {
        let after = upstream.hedge_after().map(|after| after.as_secs_f64() * 1000.0);
        shown["hedge_after_ms"] = json!(after);
    }
    if !upstream.sources().is_empty() {
        shown["discovery"] = discovery::json(upstream);
        shown["denied"] = discovery::denied(upstream);
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        compile,
        config::{self, Inputs},
        diagnostic::{Diagnostics, Sources},
        server::{report::Cause, watch::Watcher},
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
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let (watcher, _) = Watcher::new();
        let status = Status::new(Path::new("/p.yaml"), tasks, registries.clone(), watcher.watching());
        assert_eq!(status.json()["generation"], 0);
        assert_eq!(status.readiness().causes, [json!({ "cause": "no_configuration" })]);

        let live = Live::new(crate::snapshot::settings::Listener::for_tests("web"));
        let listeners = vec![("web".parse().unwrap(), vec!["127.0.0.1:4711".parse().unwrap()], live)];
        status.applied(snapshot(&registries), listeners, Tenants::default());
        let json = status.json();
        assert_eq!(
            (&json["generation"], &json["hosts"], &json["state"]),
            (&3.into(), &1.into(), &"serving".into())
        );
        assert_eq!(json["listeners"][0]["addresses"], json!(["127.0.0.1:4711"]));
        assert_eq!(json["listeners"][0]["protocols"], json!(["h1", "h2c"]));
        let endpoint = json!({
            "address": "10.0.0.1:80", "weight": 1, "healthy": true, "check_failure": null, "drained": false,
            "ejected_seconds": null, "in_flight": 0,
        });
        let upstream = json!({ "name": "app", "circuit": null, "panic": false, "endpoints": [endpoint] });
        assert_eq!(json["upstreams"], json!([upstream]));

        assert!(status.readiness().causes.is_empty() && status.complaints().is_empty());
        assert!(
            status
                .metrics()
                .contains("portolan_endpoint_healthy{endpoint=\"10.0.0.1:80\",upstream=\"app\"} 1")
        );

        status.read(&report(Outcome::Refused));
        assert_eq!(status.complaints()[0]["cause"], "configuration_refused");
        assert!(status.json()["last_error"]["time"].is_string());
        status.read(&report(Outcome::Unchanged));
        assert!(status.json()["last_error"].is_null());
        status.draining();
        assert_eq!(status.json()["state"], "draining");
        assert_eq!(status.readiness().causes, [json!({ "cause": "draining" })]);
    }
}
