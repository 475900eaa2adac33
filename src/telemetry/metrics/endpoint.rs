//! What is counted of upstreams and their endpoints.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::{
    Families,
    kept::Counts,
    route::{CLASSES, class},
};
use crate::value::Name;

/// An endpoint's upstream and its address.
pub(super) type Key = (Name, String);

/// Why endpoints are ejected.
pub const EJECTION_CAUSES: [&str; 3] = ["consecutive_failures", "failure_ratio", "latency"];
/// Why requests are tried again.
const RETRY_CAUSES: [&str; 5] = ["connect_failure", "reset", "timeout", "status", "hedge"];

/// Why requests are rejected at an upstream's limit.
const OVERLOAD_CAUSES: [&str; 2] = ["queue_full", "queue_timeout"];

/// What becomes of requests where clients stay at an endpoint.
pub const STICKY_OUTCOMES: [&str; 3] = ["hit", "moved", "new"];
/// Why cookies of sticky sessions are ignored.
const STICKY_CAUSES: [&str; 3] = ["malformed", "signature", "expired"];

/// What is sent to an upstream.
#[derive(Debug)]
pub struct Upstream {
    name: Name,
    requests: IntCounter,
    circuit: IntGauge,
    opened: IntCounter,
    rejected: IntCounter,
    panics: IntGauge,
    retries: [IntCounter; RETRY_CAUSES.len()],
    retries_denied: IntCounter,
    hedges_won: IntCounter,
    queued: IntGauge,
    in_flight_limit: IntGauge,
    /// By cause.
    overloaded: [IntCounter; OVERLOAD_CAUSES.len()],
    queue_time: Histogram,
    /// By outcome.
    sticky: [IntCounter; STICKY_OUTCOMES.len()],
    /// By cause.
    sticky_rejected: [IntCounter; STICKY_CAUSES.len()],
}

/// How a source of endpoints does for one upstream.
#[derive(Debug)]
pub struct Discovery {
    key: Key,
    last_success: Gauge,
    failures: IntCounter,
    endpoints: IntGauge,
}

/// What is sent to one endpoint, and what comes of it.
#[derive(Debug)]
pub struct Endpoint {
    key: Key,
    attempts: IntCounter,
    connect_failures: IntCounter,
    connection_wait: Histogram,
    /// By class of status.
    responses: [IntCounter; CLASSES.len()],
    first_byte: Histogram,
    sent: IntCounter,
    received: IntCounter,
    healthy: IntGauge,
    is_ejected: IntGauge,
    /// By cause.
    ejections: [IntCounter; EJECTION_CAUSES.len()],
    in_flight: IntGauge,
}

impl Upstream {
    pub(super) fn new(name: &Name, families: &Families) -> Self {
        let values = [name.as_str()];
        Self {
            requests: families.upstream_requests.with_label_values(&values),
            circuit: families.circuit.with_label_values(&values),
            opened: families.circuit_opened.with_label_values(&values),
            rejected: families.circuit_rejected.with_label_values(&values),
            panics: families.panics.with_label_values(&values),
            retries: RETRY_CAUSES.map(|cause| families.retries.with_label_values(&[name.as_str(), cause])),
            retries_denied: families.retries_denied.with_label_values(&values),
            hedges_won: families.hedges_won.with_label_values(&values),
            in_flight_limit: families.in_flight_limit.with_label_values(&values),
            queued: families.queued.with_label_values(&values),
            overloaded: OVERLOAD_CAUSES
                .map(|cause| families.overloaded.with_label_values(&[values[0], cause])),
            queue_time: families.queue_time.with_label_values(&values),
            sticky: STICKY_OUTCOMES.map(|outcome| families.sticky.with_label_values(&[values[0], outcome])),
            sticky_rejected: STICKY_CAUSES
                .map(|cause| families.sticky_rejected.with_label_values(&[values[0], cause])),
            name: name.clone(),
        }
    }

    pub fn asked(&self) {
        self.requests.inc();
    }

    /// Its circuit opened.
    pub fn opened(&self) {
        self.opened.inc();
    }

    /// Its open circuit rejected a request.
    pub fn rejected(&self) {
        self.rejected.inc();
    }

    /// A request of a sticky session was answered, with one of [`STICKY_OUTCOMES`].
    pub fn sticky(&self, outcome: &str) {
        if let Some(place) = STICKY_OUTCOMES.iter().position(|known| *known == outcome) {
            self.sticky[place].inc();
        }
    }

    /// A cookie of a sticky session was ignored, for one of [`STICKY_CAUSES`].
    pub fn sticky_rejected(&self, cause: &str) {
        if let Some(place) = STICKY_CAUSES.iter().position(|known| *known == cause) {
            self.sticky_rejected[place].inc();
        }
    }

    /// A request was rejected, for one of [`OVERLOAD_CAUSES`].
    pub fn overloaded(&self, cause: &str) {
        if let Some(place) = OVERLOAD_CAUSES.iter().position(|known| *known == cause) {
            self.overloaded[place].inc();
        }
    }

    /// A request waited for so long, whatever came of it.
    pub fn queued(&self, waited: Duration) {
        self.queue_time.observe(waited.as_secs_f64());
    }

    /// How it does at the moment: the circuit is 0 (closed), 1 (half open) or 2 (open).
    pub fn show(&self, circuit: i64, panics: bool, queued: u32) {
        self.circuit.set(circuit);
        self.queued.set(queued.into());
        self.panics.set(i64::from(panics));
    }

    /// How many requests may be in flight at the moment; 0 where that is not limited.
    pub fn show_limit(&self, limit: u32) {
        self.in_flight_limit.set(limit.into());
    }

    /// A request is tried again.
    pub fn retried(&self, cause: &str) {
        if let Some(at) = RETRY_CAUSES.iter().position(|name| *name == cause) {
            self.retries[at].inc();
        }
    }

    /// The response of a hedge was the first.
    pub fn hedge_won(&self) {
        self.hedges_won.inc();
    }

    /// The budget for retries was spent.
    pub fn retry_denied(&self) {
        self.retries_denied.inc();
    }
}

impl Endpoint {
    pub(super) fn new(key: &Key, families: &Families) -> Self {
        let values = [key.0.as_str(), key.1.as_str()];
        Self {
            attempts: families.attempts.with_label_values(&values),
            connect_failures: families.connect_failures.with_label_values(&values),
            connection_wait: families.connection_wait.with_label_values(&values),
            responses: CLASSES
                .map(|class| families.responses.with_label_values(&[values[0], values[1], class])),
            first_byte: families.first_byte.with_label_values(&values),
            sent: families.upstream_sent.with_label_values(&values),
            received: families.upstream_received.with_label_values(&values),
            healthy: families.endpoint_healthy.with_label_values(&values),
            is_ejected: families.endpoint_ejected.with_label_values(&values),
            ejections: EJECTION_CAUSES
                .map(|cause| families.ejections.with_label_values(&[values[0], values[1], cause])),
            in_flight: families.endpoint_in_flight.with_label_values(&values),
            key: key.clone(),
        }
    }

    pub fn tried(&self) {
        self.attempts.inc();
    }

    /// A request waited so long for a connection, whatever came of it.
    pub fn waited_for_connection(&self, waited: Duration) {
        self.connection_wait.observe(waited.as_secs_f64());
    }

    pub fn connect_failed(&self) {
        self.connect_failures.inc();
    }

    /// It was ejected, for one of [`EJECTION_CAUSES`].
    pub fn ejected(&self, cause: &str) {
        if let Some(place) = EJECTION_CAUSES.iter().position(|known| *known == cause) {
            self.ejections[place].inc();
        }
    }

    /// The response's head came, this long after the request was sent.
    pub fn answered(&self, status: StatusCode, after: Duration) {
        self.responses[class(status)].inc();
        self.first_byte.observe(after.as_secs_f64());
    }

    /// An exchange is over in which so many bytes of bodies went there and came from there.
    pub fn exchanged(&self, sent: u64, received: u64) {
        if sent > 0 {
            self.sent.inc_by(sent);
        }
        if received > 0 {
            self.received.inc_by(received);
        }
    }

    /// How it does at the moment: its own state knows, and is asked when somebody wants to see.
    pub fn show(&self, healthy: bool, is_ejected: bool, in_flight: u32) {
        self.healthy.set(i64::from(healthy));
        self.is_ejected.set(i64::from(is_ejected));
        self.in_flight.set(in_flight.into());
    }
}

impl Discovery {
    pub(super) fn new(key: &Key, families: &Families) -> Self {
        let values = [key.0.as_str(), key.1.as_str()];
        Self {
            last_success: families.discovery_success.with_label_values(&values),
            failures: families.discovery_failures.with_label_values(&values),
            endpoints: families.discovery_endpoints.with_label_values(&values),
            key: key.clone(),
        }
    }

    /// How it has done up to now: the source knows, and is asked when somebody wants to see.
    pub fn show(&self, last_success: Option<SystemTime>, failures: u64, endpoints: usize) {
        self.last_success.set(last_success.map_or(0.0, super::seconds));
        self.failures.reset();
        self.failures.inc_by(failures);
        self.endpoints.set(i64::try_from(endpoints).unwrap_or(i64::MAX));
    }
}

impl Counts for Discovery {
    fn forget(&self, families: &Families) {
        let values = [self.key.0.as_str(), self.key.1.as_str()];
        let _ = families.discovery_success.remove_label_values(&values);
        let _ = families.discovery_failures.remove_label_values(&values);
        let _ = families.discovery_endpoints.remove_label_values(&values);
    }
}

impl Counts for Upstream {
    fn forget(&self, families: &Families) {
        let values = [self.name.as_str()];
        let _ = families.upstream_requests.remove_label_values(&values);
        let _ = families.circuit.remove_label_values(&values);
        let _ = families.circuit_opened.remove_label_values(&values);
        let _ = families.circuit_rejected.remove_label_values(&values);
        let _ = families.panics.remove_label_values(&values);
        let _ = families.retries_denied.remove_label_values(&values);
        let _ = families.hedges_won.remove_label_values(&values);
        for cause in RETRY_CAUSES {
            let _ = families.retries.remove_label_values(&[values[0], cause]);
        }
        let _ = families.in_flight_limit.remove_label_values(&values);
        let _ = families.queued.remove_label_values(&values);
        for cause in OVERLOAD_CAUSES {
            let _ = families.overloaded.remove_label_values(&[values[0], cause]);
        }
        let _ = families.queue_time.remove_label_values(&values);
        for outcome in STICKY_OUTCOMES {
            let _ = families.sticky.remove_label_values(&[values[0], outcome]);
        }
        for cause in STICKY_CAUSES {
            let _ = families.sticky_rejected.remove_label_values(&[values[0], cause]);
        }
    }
}

impl Counts for Endpoint {
    fn forget(&self, families: &Families) {
        let values = [self.key.0.as_str(), self.key.1.as_str()];
        let _ = families.attempts.remove_label_values(&values);
        let _ = families.connect_failures.remove_label_values(&values);
        let _ = families.connection_wait.remove_label_values(&values);
        for class in CLASSES {
            let _ = families.responses.remove_label_values(&[values[0], values[1], class]);
        }
        let _ = families.first_byte.remove_label_values(&values);
        let _ = families.upstream_sent.remove_label_values(&values);
        let _ = families.upstream_received.remove_label_values(&values);
        let _ = families.endpoint_healthy.remove_label_values(&values);
        let _ = families.endpoint_ejected.remove_label_values(&values);
        for cause in EJECTION_CAUSES {
            let _ = families.ejections.remove_label_values(&[values[0], values[1], cause]);
        }
        let _ = families.endpoint_in_flight.remove_label_values(&values);
    }
}
