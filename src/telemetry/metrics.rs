//! What is counted and measured, in Prometheus' terms. Every metric stands in one table below.
//!
//! Label values are names of the configuration and words of ours, never what a client sends: how many series
//! there are is known when the configuration is. What counts (a route by a listener, an endpoint, ...) holds
//! its series itself, so that counting is an atomic addition. It is known by its names: a reload goes on
//! counting where it was. What is in no configuration any more, and serves nobody, is shown once more to
//! whoever asks next, and then its series are gone.

mod endpoint;
mod family;
mod kept;
mod listener;
mod mirror;
mod process;
mod redis;
mod route;
mod side;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Registry, TextEncoder};

pub use endpoint::{Discovery, EJECTION_CAUSES, Endpoint, STICKY_OUTCOMES, Upstream};
pub use listener::{Limit, Listener, Open, Protocol, ProxyHeader};
pub use mirror::Mirror;
pub use redis::Redis;
pub use route::{ByListener, InFlight, Outcome, Route};
pub use side::Side;

use crate::value::Name;
use family::{Family, FloatCounter, FloatGauge, Histograms};
use kept::Kept;

macro_rules! metrics {
    ($($field:ident: $family:ident = $name:literal [$($label:literal),*], $help:literal;)*) => {
        /// A metric as operators read of it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Metric {
            pub name: &'static str,
            /// counter, gauge or histogram
            pub kind: &'static str,
            pub labels: &'static [&'static str],
            pub help: &'static str,
        }

        /// Every metric there is, in the order of the reference.
        pub const TABLE: &[Metric] = &[$(Metric {
            name: $name,
            kind: <$family as Family>::KIND,
            labels: &[$($label),*],
            help: $help,
        },)*];

        /// The series of each metric.
        struct Families { $($field: $family,)* }

        impl Families {
            fn register(registry: &Registry) -> Self {
                Self { $($field: {
                    let family = <$family as Family>::make($name, $help, &[$($label),*]);
                    registry.register(Box::new(family.clone())).expect("each name stands once in the table");
                    family
                },)* }
            }
        }
    };
}

metrics! {
    // requests
    requests: IntCounterVec = "portolan_requests_total" ["listener", "host", "tenant", "route", "class", "reason"],
        "Requests that have ended, by class of status; reason is why Portolan answered itself or cut them short.";
    durations: Histograms = "portolan_request_duration_seconds" ["listener", "host", "tenant", "route"],
        "From a request's head to its response's end.";
    in_flight: IntGaugeVec = "portolan_requests_in_flight" ["listener", "host", "tenant", "route"],
        "Requests that run.";
    received: IntCounterVec = "portolan_received_bytes_total" ["listener", "host", "tenant", "route"],
        "Bytes of requests' bodies.";
    sent: IntCounterVec = "portolan_sent_bytes_total" ["listener", "host", "tenant", "route"],
        "Bytes of responses' bodies.";
    decisions: IntCounterVec = "portolan_middleware_decisions_total" ["kind", "decision"],
        "Requests that middleware refused, or with mode: observe would have refused (observed).";
    limit_keys: IntGaugeVec = "portolan_limit_keys" ["kind", "bucket"],
        "Keys that a rate_limit or concurrency keeps counts of.";
    limit_in_flight: IntGaugeVec = "portolan_limit_in_flight" ["kind", "bucket"],
        "Requests that a concurrency counts in flight.";
    limit_refused: IntCounterVec = "portolan_limit_refused_total" ["kind", "bucket"],
        "Requests that a rate_limit or concurrency refused, or with mode: observe would have refused.";
    // what several processes share
    shared_decisions: IntCounterVec = "portolan_shared_limit_decisions_total" ["outcome"],
        "Requests that a rate_limit with scope: shared let pass (passed) or refused (refused) by Redis' word, or decided on without it (unavailable).";
    redis_up: IntGaugeVec = "portolan_redis_up" [],
        "1 where Redis answers in time, 0 where it is gone.";
    redis_errors: IntCounterVec = "portolan_redis_errors_total" ["cause"],
        "What Redis was asked in vain, by cause: timeout, connection, or reply (it answered with an error).";
    redis_duration: Histograms = "portolan_redis_duration_seconds" [],
        "From a question of a request's to Redis' answer.";
    // upstreams
    upstream_requests: IntCounterVec = "portolan_upstream_requests_total" ["upstream"],
        "Requests sent to an upstream, however many endpoints were tried.";
    circuit: IntGaugeVec = "portolan_upstream_circuit_state" ["upstream"],
        "The circuit breaker of an upstream: 0 closed, or there is none, 1 half open, 2 open.";
    circuit_opened: IntCounterVec = "portolan_upstream_circuit_opened_total" ["upstream"],
        "How often the circuit breaker of an upstream opened.";
    circuit_rejected: IntCounterVec = "portolan_upstream_circuit_rejected_total" ["upstream"],
        "Requests that an open circuit breaker rejected.";
    in_flight_limit: IntGaugeVec = "portolan_upstream_in_flight_limit" ["upstream"],
        "The limit of requests in flight to an upstream, found by response times where it is adaptive; 0 where there is none.";
    queued: IntGaugeVec = "portolan_upstream_queued_requests" ["upstream"],
        "Requests that wait because limits.in_flight of the upstream is reached.";
    overloaded: IntCounterVec = "portolan_upstream_overloaded_total" ["upstream", "cause"],
        "Requests rejected because limits.in_flight was reached, by cause: queue_full or queue_timeout.";
    queue_time: Histograms = "portolan_upstream_queue_seconds" ["upstream"],
        "Time that requests waited because limits.in_flight was reached. Requests that did not wait are not counted.";
    panics: IntGaugeVec = "portolan_upstream_panic" ["upstream"],
        "1 while fewer endpoints than panic_threshold are usable, so that all are used.";
    sticky: IntCounterVec = "portolan_upstream_sticky_requests_total" ["upstream", "outcome"],
        "Requests of sticky sessions that an endpoint answered: hit (the cookie's endpoint), moved (another one) or new (no valid cookie).";
    sticky_rejected: IntCounterVec = "portolan_upstream_sticky_cookies_rejected_total" ["upstream", "cause"],
        "Cookies of sticky sessions that were ignored, by cause: malformed, signature (changed, or of another key or upstream) or expired.";
    attempts: IntCounterVec = "portolan_upstream_attempts_total" ["upstream", "endpoint"],
        "Tries of an endpoint.";
    retries: IntCounterVec = "portolan_upstream_retries_total" ["upstream", "cause"],
        "Requests tried again, by cause: connect_failure, reset, timeout, status, or hedge (beside an attempt that was slow).";
    retries_denied: IntCounterVec = "portolan_upstream_retries_denied_total" ["upstream"],
        "Requests not tried again because the budget for retries was spent.";
    hedges_won: IntCounterVec = "portolan_upstream_hedges_won_total" ["upstream"],
        "Requests whose response came from a hedge: an attempt that started beside a slow one.";
    connect_failures: IntCounterVec = "portolan_upstream_connect_failures_total" ["upstream", "endpoint"],
        "Tries that found no connection.";
    connection_wait: Histograms = "portolan_upstream_connection_wait_seconds" ["upstream", "endpoint"],
        "Time that requests waited for a connection because pool.max was reached. Requests that did not wait are not counted.";
    responses: IntCounterVec = "portolan_upstream_responses_total" ["upstream", "endpoint", "class"],
        "Responses of an endpoint, by class of status.";
    first_byte: Histograms = "portolan_upstream_first_byte_seconds" ["upstream", "endpoint"],
        "From a try's beginning to the response's head.";
    upstream_sent: IntCounterVec = "portolan_upstream_sent_bytes_total" ["upstream", "endpoint"],
        "Bytes of requests' bodies that went to an endpoint.";
    upstream_received: IntCounterVec = "portolan_upstream_received_bytes_total" ["upstream", "endpoint"],
        "Bytes of responses' bodies that came from an endpoint, before compress.";
    endpoint_healthy: IntGaugeVec = "portolan_endpoint_healthy" ["upstream", "endpoint"],
        "1 where the endpoint's health checks pass, or where it has none; 0 where they fail.";
    endpoint_ejected: IntGaugeVec = "portolan_endpoint_ejected" ["upstream", "endpoint"],
        "1 while the endpoint is ejected because requests to it failed, or because it was slow.";
    ejections: IntCounterVec = "portolan_endpoint_ejections_total" ["upstream", "endpoint", "cause"],
        "Ejections of an endpoint, by cause: consecutive_failures, failure_ratio or latency.";
    endpoint_in_flight: IntGaugeVec = "portolan_endpoint_in_flight" ["upstream", "endpoint"],
        "Requests that an endpoint is answering.";
    discovery_success: FloatGauge = "portolan_upstream_discovery_last_success_timestamp_seconds" ["upstream", "source"],
        "When a source of endpoints last gave an answer that could be used, 0 where it never did.";
    discovery_failures: IntCounterVec = "portolan_upstream_discovery_failures_total" ["upstream", "source"],
        "Questions to a source of endpoints (DNS, file) without an answer that could be used: the last endpoints stay.";
    discovery_endpoints: IntGaugeVec = "portolan_upstream_discovery_endpoints" ["upstream", "source"],
        "Endpoints that a source gave last.";
    mirror_sent: IntCounterVec = "portolan_mirror_sent_total" ["upstream"],
        "Copies of requests that a mirror sent to an upstream.";
    mirror_failed: IntCounterVec = "portolan_mirror_failed_total" ["upstream"],
        "Copies of these that got no response: no endpoint could be used, the exchange failed, or timeout passed.";
    mirror_dropped: IntCounterVec = "portolan_mirror_dropped_total" ["upstream", "cause"],
        "Copies that were not sent, by cause: in_flight (too many at once), body_too_large, or incomplete (the request ended before its body was complete or an endpoint was chosen).";
    split_requests: IntCounterVec = "portolan_split_requests_total" ["split", "side"],
        "Requests that went to a side of a split.";
    canary_state: IntGaugeVec = "portolan_split_canary_state" ["split", "side"],
        "The state of a canary: 0 steady, or it is none, 1 on trial, 2 stepped back.";
    canary_step_backs: IntCounterVec = "portolan_split_canary_step_backs_total" ["split", "side", "cause"],
        "How often a canary stepped back, by cause: failures or latency.";
    // connections
    open: IntGaugeVec = "portolan_connections_open" ["listener", "protocol"],
        "Connections of clients, by what they speak (h1, h2, h3).";
    connections: IntCounterVec = "portolan_connections_total" ["listener", "protocol"],
        "Connections that came to speak a protocol.";
    refused: IntCounterVec = "portolan_connections_refused_total" ["listener", "limit"],
        "Connections closed at once for a limit: connections or connections_per_ip.";
    proxy_headers: IntCounterVec = "portolan_proxy_protocol_headers_total" ["listener", "outcome"],
        "Connections that were to begin with a PROXY header: taken, or closed because the peer is not listed (not_listed) or the header is missing, malformed or late.";
    handshakes: IntCounterVec = "portolan_tls_handshakes_total" ["listener", "outcome", "version"],
        "TLS handshakes over TCP, ok or failed, with the version agreed upon.";
    certificate_expiry: FloatGauge = "portolan_certificate_expiry_timestamp_seconds" ["certificate"],
        "When a certificate ends, since the epoch.";
    quic_handshakes: IntCounterVec = "portolan_quic_handshakes_total" ["listener", "outcome"],
        "QUIC handshakes, ok or failed.";
    quic_retries: IntCounterVec = "portolan_quic_retries_total" ["listener"],
        "Clients asked to prove their address (Retry) before anything was kept of them: while many handshakes were unfinished, or since connections_per_ip is set.";
    quic_streams: IntCounterVec = "portolan_quic_streams_total" ["listener"],
        "Streams that clients opened for a request.";
    quic_early: IntCounterVec = "portolan_quic_early_streams_total" ["listener"],
        "Streams of these that came with early data (0-RTT), before the handshake was over.";
    quic_sent: IntCounterVec = "portolan_quic_sent_packets_total" ["listener"],
        "Packets sent on QUIC connections that have ended.";
    quic_lost: IntCounterVec = "portolan_quic_lost_packets_total" ["listener"],
        "Packets of these that were lost.";
    quic_migrations: IntCounterVec = "portolan_quic_migrations_total" ["listener"],
        "QUIC connections seen at another address of the client than before.";
    // the configuration
    reloads: IntCounterVec = "portolan_reloads_total" ["result"],
        "Readings of the configuration: applied, unchanged or refused.";
    generation: IntGaugeVec = "portolan_configuration_generation" [],
        "How many configurations have been live, the present one included.";
    last_success: FloatGauge = "portolan_configuration_last_success_timestamp_seconds" [],
        "When the configuration was last read without an error.";
    last_failed: IntGaugeVec = "portolan_configuration_last_reload_failed" [],
        "1 where the configuration that was read last has errors, so that an earlier one serves.";
    delegated_state: IntGaugeVec = "portolan_delegated_state" ["tenant", "state"],
        "1 by what a tenant with delegated files serves: current, kept (its files are wrong, earlier ones serve) or absent (it has no hosts).";
    // the process
    build: IntGaugeVec = "portolan_build_info" ["version"],
        "1, with the version that runs.";
    lines_dropped: IntCounterVec = "portolan_access_log_dropped_lines_total" ["to"],
        "Lines of the access log that were lost: nobody read fast enough, or they could not be written.";
    spans_exported: IntCounterVec = "portolan_spans_exported_total" [],
        "Spans of traces that the collector has taken.";
    spans_dropped: IntCounterVec = "portolan_spans_dropped_total" ["cause"],
        "Spans of traces that were lost: queue_full (the collector is too slow or gone) or not_taken (it refused them, or did not answer to the end).";
    tasks: IntGaugeVec = "portolan_tasks" ["kind"],
        "Tasks that run beside requests.";
    cpu: FloatCounter = "process_cpu_seconds_total" [],
        "Processor time used, in user and system mode.";
    resident: IntGaugeVec = "process_resident_memory_bytes" [],
        "Memory held.";
    open_fds: IntGaugeVec = "process_open_fds" [],
        "File descriptors open.";
    start_time: FloatGauge = "process_start_time_seconds" [],
        "When the process was started, since the epoch.";
}

/// All that is counted. One per process; a command that only compiles has one of its own.
pub struct Metrics {
    registry: Registry,
    families: Arc<Families>,
    routes: Kept<Arc<route::Key>, Route>,
    listeners: Kept<Name, Listener>,
    upstreams: Kept<Name, Upstream>,
    endpoints: Kept<endpoint::Key, Endpoint>,
    discoveries: Kept<endpoint::Key, Discovery>,
    mirrors: Kept<Name, Mirror>,
    sides: Kept<side::Key, Side>,
    /// One at a time: what is looked up when asked for is set and read in one go.
    rendering: Mutex<()>,
}

/// What became of the requests that a kind of middleware has a say in.
#[derive(Clone, Debug)]
pub struct Decisions {
    pub refused: IntCounter,
    pub observed: IntCounter,
}

/// What became of the spans of traces.
#[derive(Clone, Debug)]
pub struct Spans {
    pub exported: IntCounter,
    /// There was no place in the queue.
    pub queue_full: IntCounter,
    /// The collector refused them, or did not answer to the end.
    pub not_taken: IntCounter,
}

/// The state of limits that have one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitState {
    /// rate_limit or concurrency
    pub kind: &'static str,
    /// Its bucket's name, or where it is written.
    pub bucket: String,
    pub keys: usize,
    pub in_flight: u64,
    pub refused: u64,
}

/// What is not counted but looked up when somebody asks.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// Lines of the access log lost so far, by destination.
    pub lines_dropped: Vec<(String, u64)>,
    /// Tasks that live, by kind.
    pub tasks: Vec<(&'static str, usize)>,
    pub limits: Vec<LimitState>,
    /// Whether Redis answers, where one is used.
    pub redis_up: Option<bool>,
    /// Certificates, and when each ends.
    pub certificates: Vec<(Name, SystemTime)>,
    /// Tenants with delegated files, and by what they serve.
    pub tenants: Vec<(Name, &'static str)>,
}

// === impl Metrics ===

impl Metrics {
    /// What is counted of requests that this listener takes to this route.
    pub fn route(
        &self,
        listener: &Name,
        host: Option<&Name>,
        tenant: Option<&Name>,
        route: &Name,
    ) -> Arc<Route> {
        let key = Arc::new(route::Key::new(listener, host, tenant, route));
        self.routes.find_or(key, |key| Route::new(key.clone(), self.families.clone()))
    }

    pub fn listener(&self, name: &Name) -> Arc<Listener> {
        self.listeners.find_or(name.clone(), |name| Listener::new(name, &self.families))
    }

    pub fn upstream(&self, name: &Name) -> Arc<Upstream> {
        self.upstreams.find_or(name.clone(), |name| Upstream::new(name, &self.families))
    }

    pub fn endpoint(&self, upstream: &Name, address: String) -> Arc<Endpoint> {
        let key = (upstream.clone(), address);
        self.endpoints.find_or(key, |key| Endpoint::new(key, &self.families))
    }

    /// How a source of endpoints does for an upstream.
    pub fn discovery(&self, upstream: &Name, source: String) -> Arc<Discovery> {
        let key = (upstream.clone(), source);
        self.discoveries.find_or(key, |key| Discovery::new(key, &self.families))
    }

    /// The copies of requests that an upstream gets.
    pub fn mirror(&self, upstream: &Name) -> Arc<Mirror> {
        self.mirrors.find_or(upstream.clone(), |name| Mirror::new(name, &self.families))
    }

    /// What is counted of a side of the split that is written there.
    pub fn side(&self, split: &str, side: &Name) -> Arc<Side> {
        let key = (split.to_owned(), side.clone());
        self.sides.find_or(key, |key| Side::new(key, &self.families))
    }

    /// For a kind of middleware.
    pub fn decisions(&self, kind: &'static str) -> Decisions {
        let of = |decision| self.families.decisions.with_label_values(&[kind, decision]);
        Decisions { refused: of("refused"), observed: of("observed") }
    }

    /// For the exporters of spans.
    pub fn spans(&self) -> Spans {
        let dropped = |cause| self.families.spans_dropped.with_label_values(&[cause]);
        Spans {
            exported: self.families.spans_exported.with_label_values(NONE),
            queue_full: dropped("queue_full"),
            not_taken: dropped("not_taken"),
        }
    }

    /// For a Redis.
    pub fn redis(&self) -> Redis {
        Redis::new(&self.families)
    }

    /// The configuration was read, `failed` or not, and this generation is live.
    pub fn read(&self, result: &str, failed: bool, generation: u64) {
        let families = &self.families;
        families.reloads.with_label_values(&[result]).inc();
        families.generation.with_label_values(NONE).set(generation.try_into().unwrap_or(i64::MAX));
        families.last_failed.with_label_values(NONE).set(i64::from(failed));
        if !failed {
            families.last_success.with_label_values(NONE).set(seconds(SystemTime::now()));
        }
    }

    /// All of it in Prometheus' text format, and what is gone for the last time.
    pub fn render(&self, present: &Present) -> String {
        let _one = self.rendering.lock().unwrap_or_else(PoisonError::into_inner);
        self.set(present);
        process::set(&self.families);
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        self.routes.sweep();
        self.listeners.sweep();
        self.upstreams.sweep();
        self.endpoints.sweep();
        self.discoveries.sweep();
        self.mirrors.sweep();
        self.sides.sweep();
        text.expect("a String takes all that is written")
    }

    fn set(&self, present: &Present) {
        let families = &self.families;
        for (to, lines) in &present.lines_dropped {
            let counter = families.lines_dropped.with_label_values(&[to]);
            counter.reset();
            counter.inc_by(*lines);
        }
        // What is no longer configured is no longer shown.
        families.limit_keys.reset();
        families.limit_in_flight.reset();
        families.limit_refused.reset();
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for LimitState { kind, bucket, keys, in_flight, refused } in &present.limits {
            let labels = [*kind, bucket.as_str()];
            families.limit_keys.with_label_values(&labels).set(gauge(*keys as u64));
            families.limit_refused.with_label_values(&labels).inc_by(*refused);
            if *kind == "concurrency" {
                families.limit_in_flight.with_label_values(&labels).set(gauge(*in_flight));
            }
        }
        families.redis_up.reset();
        if let Some(is_up) = present.redis_up {
            families.redis_up.with_label_values(NONE).set(i64::from(is_up));
        }
        families.certificate_expiry.reset();
        for (certificate, end) in &present.certificates {
            families.certificate_expiry.with_label_values(&[certificate.as_str()]).set(seconds(*end));
        }
        families.delegated_state.reset();
        for (tenant, state) in &present.tenants {
            families.delegated_state.with_label_values(&[tenant.as_str(), state]).set(1);
        }
        for (kind, count) in &present.tasks {
            families.tasks.with_label_values(&[kind]).set((*count).try_into().unwrap_or(i64::MAX));
        }
    }
}

/// The values of a metric that has no labels.
const NONE: &[&str] = &[];

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let families = Arc::new(Families::register(&registry));
        families.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // There from the beginning, so that the first refusal is a rise.
        for result in ["applied", "unchanged", "refused"] {
            families.reloads.with_label_values(&[result]);
        }
        Self {
            registry,
            routes: Kept::new(&families),
            listeners: Kept::new(&families),
            upstreams: Kept::new(&families),
            endpoints: Kept::new(&families),
            discoveries: Kept::new(&families),
            mirrors: Kept::new(&families),
            sides: Kept::new(&families),
            families,
            rendering: Mutex::default(),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use http::StatusCode;

    use super::*;
    use crate::error::Reason;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn ended(status: u16, reason: Option<Reason>) -> Outcome {
        Outcome {
            status: StatusCode::from_u16(status).unwrap(),
            reason,
            received: 10,
            sent: 100,
            duration: Duration::from_millis(20),
        }
    }

    fn series(text: &str) -> usize {
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    #[test]
    fn names_follow_the_conventions_and_stand_once() {
        let names: BTreeSet<_> = TABLE.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), TABLE.len());
        for metric in TABLE {
            assert_eq!(metric.kind == "counter", metric.name.ends_with("_total"), "{}", metric.name);
            assert_eq!(
                metric.kind == "histogram",
                metric.name.ends_with("_seconds")
                    && !metric.name.contains("timestamp")
                    && !metric.name.contains("start_time"),
                "{}",
                metric.name
            );
            assert!(metric.help.ends_with('.'), "{}", metric.help);
        }
    }

    #[test]
    fn a_request_is_counted_by_names_and_outcome() {
        let metrics = Metrics::default();
        let route = metrics.route(&name("web"), Some(&name("www")), Some(&name("acme")), &name("api"));
        let running = route.begin();
        let labels = r#"host="www",listener="web",route="api",tenant="acme""#;
        let text = metrics.render(&Present::default());
        assert!(text.contains(&format!("portolan_requests_in_flight{{{labels}}} 1")), "{text}");
        running.end(&ended(200, None));
        route.begin().end(&ended(502, Some(Reason::ConnectRefused)));
        drop(route.begin());
        let text = metrics.render(&Present::default());
        for line in [
            r#"portolan_requests_total{class="2xx",host="www",listener="web",reason="",route="api",tenant="acme"} 1"#,
            r#"portolan_requests_total{class="5xx",host="www",listener="web",reason="connect_refused",route="api",tenant="acme"} 1"#,
            &format!("portolan_requests_in_flight{{{labels}}} 0"),
            &format!("portolan_received_bytes_total{{{labels}}} 20"),
            &format!("portolan_sent_bytes_total{{{labels}}} 200"),
            &format!("portolan_request_duration_seconds_count{{{labels}}} 2"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn what_is_known_goes_on_counting_and_what_is_gone_is_forgotten_once_it_was_shown() {
        let metrics = Metrics::default();
        let before = series(&metrics.render(&Present::default()));
        let get = || metrics.route(&name("web"), None, None, &name("api"));
        let route = get();
        assert!(Arc::ptr_eq(&route, &get()));
        route.begin().end(&ended(404, Some(Reason::NoRoute)));
        drop(route);
        assert!(metrics.render(&Present::default()).contains("no_route"));
        assert_eq!(series(&metrics.render(&Present::default())), before);
        get().begin().end(&ended(200, None));
        assert!(!metrics.render(&Present::default()).contains("no_route"));
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten_all_the_same() {
        let metrics = Metrics::default();
        for round in 0..10_000 {
            let endpoint = metrics.endpoint(&name("app"), format!("10.0.0.1:{round}"));
            endpoint.tried();
        }
        assert!(series(&metrics.render(&Present::default())) < 5000);
    }

    #[test]
    fn what_is_looked_up_is_shown_as_it_is() {
        let metrics = Metrics::default();
        metrics.read("applied", false, 3);
        metrics.read("refused", true, 3);
        let present = Present {
            lines_dropped: vec![("stdout".into(), 7)],
            tasks: vec![("health", 2)],
            ..Present::default()
        };
        metrics.render(&present);
        let text = metrics.render(&present);
        for line in [
            "portolan_access_log_dropped_lines_total{to=\"stdout\"} 7",
            "portolan_tasks{kind=\"health\"} 2",
            "portolan_reloads_total{result=\"refused\"} 1",
            "portolan_configuration_generation 3",
            "portolan_configuration_last_reload_failed 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let value = |name: &str| -> f64 {
            let line =
                text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
            line.trim().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 1e6 && value("process_open_fds ") >= 3.0);
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        let age = seconds(SystemTime::now()) - value("process_start_time_seconds ");
        assert!((-1.0..86_400.0).contains(&age), "{age}");
    }
}
