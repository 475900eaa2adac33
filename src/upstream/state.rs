//! What is known of an endpoint from serving. It outlives reloads, and nothing on a request's way needs a lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use tokio::sync::Notify;

use super::{
    connections::Connections,
    latency::Latency,
    outlier::Watched,
    penalty::{Penalty, UNIT},
};
use crate::{telemetry::metrics, value::Clock};

/// An endpoint's state, known by its upstream, its address, and how it is connected to.
#[derive(Debug)]
pub struct EndpointState {
    /// Another for each state of the process.
    serial: u64,
    clock: Clock,
    start: Instant,
    flags: AtomicU8,
    in_flight: AtomicU32,
    failures: AtomicU32,
    latency: Latency,
    penalty: Penalty,
    watched: Watched,
    /// When it began to serve or to serve again, while [`WARMING`] is set.
    warming_since: AtomicU64,
    /// The weight that an operator gave it; 0 where none did.
    weight: AtomicU32,
    /// Requests failed: it is checked soon.
    suspected: Notify,
    /// Counts the changes of its upstream's endpoints.
    changes: Arc<AtomicU64>,
    metrics: Arc<metrics::Endpoint>,
    /// Idle connections.
    connections: Arc<Connections>,
}

/// Its health checks fail.
pub const UNHEALTHY: u8 = 1;
/// Requests to it failed, and it gets none for a while.
pub const EJECTED: u8 = 2;
/// An operator drains it: it gets no requests but those of its sticky clients.
pub const DRAINED: u8 = 4;
/// It serves again or is new: `slow_start` counts from then on.
pub const WARMING: u8 = 8;
/// An operator drains it of its sticky clients too.
pub const DRAINED_WHOLLY: u8 = 16;
/// Every state has it: it keeps requests away from endpoints with weight 0.
pub const EVERY: u8 = 32;
/// Its ejection is over: it gets one request at a time until one succeeds.
pub const ON_TRIAL: u8 = 64;
/// The one request of an endpoint on trial is in flight.
pub const TRIED: u8 = 128;

/// Which requests an operator keeps away from an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    No,
    /// All but those of its sticky clients.
    OfNewClients,
    Wholly,
}

impl EndpointState {
    /// An endpoint is taken for healthy until checks say otherwise.
    pub fn new(serial: u64, clock: Clock, changes: Arc<AtomicU64>, metrics: Arc<metrics::Endpoint>) -> Self {
        let start = clock.now();
        Self {
            serial,
            latency: Latency::new(start),
            start,
            clock,
            flags: AtomicU8::new(EVERY),
            in_flight: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            penalty: Penalty::default(),
            watched: Watched::default(),
            warming_since: AtomicU64::new(0),
            weight: AtomicU32::new(0),
            suspected: Notify::new(),
            changes,
            connections: Arc::new(Connections::of(metrics.clone())),
            metrics,
        }
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// What the last checks said.
    pub fn is_healthy(&self) -> bool {
        self.flags() & UNHEALTHY == 0
    }

    /// Requests that it is answering now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Connections that failed since the last one that was made.
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The moving average of its response times; `None` where none is known or all are long past.
    pub fn latency(&self) -> Option<Duration> {
        self.latency_at(self.clock.now())
    }

    /// The same of endpoints that are compared at one time.
    pub fn latency_at(&self, now: Instant) -> Option<Duration> {
        self.latency.at(now)
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Requests in flight, and those that failed lately, in [`UNIT`]s.
    pub fn load(&self) -> u64 {
        let in_flight = u64::from(self.in_flight()) * UNIT;
        if self.penalty.is_none() { in_flight } else { in_flight + self.penalty.at(self.now()) }
    }

    pub fn metrics(&self) -> &metrics::Endpoint {
        &self.metrics
    }

    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Milliseconds of its own.
    pub fn now(&self) -> u64 {
        self.millis(self.clock.now())
    }

    pub(super) fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_millis() as u64
    }

    pub(super) fn flags(&self) -> u8 {
        self.flags.load(Ordering::Relaxed)
    }

    pub(super) fn watched(&self) -> &Watched {
        &self.watched
    }

    pub(super) fn set_healthy(&self, healthy: bool) {
        match healthy {
            true if self.is_healthy() => {}
            true => {
                self.unset(UNHEALTHY);
                self.forget_failures();
                self.recovered();
            }
            false => self.set(UNHEALTHY),
        }
    }

    /// Which requests an operator keeps away.
    pub fn drained(&self) -> Drained {
        match (self.flags() & DRAINED_WHOLLY != 0, self.flags() & DRAINED != 0) {
            (true, _) => Drained::Wholly,
            (false, true) => Drained::OfNewClients,
            (false, false) => Drained::No,
        }
    }

    pub(super) fn set_drained(&self, drained: Drained) {
        match drained {
            Drained::Wholly => self.set(DRAINED | DRAINED_WHOLLY),
            Drained::OfNewClients => {
                self.set(DRAINED);
                self.unset(DRAINED_WHOLLY);
            }
            Drained::No if self.unset(DRAINED | DRAINED_WHOLLY) => self.recovered(),
            Drained::No => {}
        }
    }

    /// The weight that an operator gave it.
    pub(super) fn weight(&self) -> Option<u16> {
        let weight = self.weight.load(Ordering::Relaxed);
        u16::try_from(weight).ok().filter(|weight| *weight != 0)
    }

    pub(super) fn set_weight(&self, weight: Option<u16>) {
        self.weight.store(weight.unwrap_or(0).into(), Ordering::Relaxed);
    }

    /// It gets no requests until a time.
    pub(super) fn eject(&self, until: u64) {
        self.watched.eject(until);
        self.set(EJECTED);
        self.unset(ON_TRIAL | TRIED);
    }

    /// Whether this ejection lasts yet.
    pub(super) fn is_ejected_until(&self, until: u64) -> bool {
        self.ejected_for().is_some() && self.watched.ejected_until() == until
    }

    /// How long its ejection lasts yet; `None` where it is not ejected.
    pub fn ejected_for(&self) -> Option<Duration> {
        if self.flags() & EJECTED == 0 {
            return None;
        }
        let left = self.watched.ejected_until().saturating_sub(self.now());
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// Ends an ejection whose time is over, or any: the endpoint is on trial then. Says whether it is not ejected.
    pub(super) fn end_ejection(&self, now: bool) -> bool {
        if self.flags() & EJECTED == 0 {
            return true;
        }
        if !now && self.watched.ejected_until() > self.now() {
            return false;
        }
        // On trial first, else many requests could pass in between.
        self.flags.fetch_or(ON_TRIAL, Ordering::Relaxed);
        if self.unset(EJECTED) {
            self.watched.ended(self.now());
        }
        true
    }

    /// A request is sent to it. Says whether that is the one of its trial.
    pub(super) fn begin_trial(&self) -> bool {
        let is_trial = self.flags() & ON_TRIAL != 0;
        if is_trial {
            self.set(TRIED);
        }
        is_trial
    }

    /// The request of its trial is over.
    pub(super) fn end_trial(&self) {
        self.unset(TRIED);
    }

    /// The request of its trial succeeded: it gets its share again. Says whether it was on trial.
    pub(super) fn pass_trial(&self) -> bool {
        let passes = self.unset(ON_TRIAL | TRIED);
        if passes {
            self.forget_failures();
            self.recovered();
        }
        passes
    }

    fn set(&self, flag: u8) {
        self.flags.fetch_or(flag, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Says whether it was set.
    fn unset(&self, flag: u8) -> bool {
        let was = self.flags.fetch_and(!flag, Ordering::Relaxed) & flag != 0;
        if was {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        was
    }

    /// It serves from now on, or again.
    pub(super) fn recovered(&self) {
        self.warming_since.store(self.now(), Ordering::Relaxed);
        self.flags.fetch_or(WARMING, Ordering::Relaxed);
    }

    /// It is well again: what failed before keeps no requests away from it.
    fn forget_failures(&self) {
        self.penalty.forget();
        self.latency.forget();
    }

    pub(super) fn is_warming(&self) -> bool {
        self.flags() & WARMING != 0
    }

    /// How long it has served since it was new or out; `None` where it has long been serving.
    pub(super) fn warming_for(&self) -> Option<Duration> {
        let since = self.warming_since.load(Ordering::Relaxed);
        (self.flags() & WARMING != 0).then(|| Duration::from_millis(self.now().saturating_sub(since)))
    }

    pub(super) fn warmed(&self) {
        self.flags.fetch_and(!WARMING, Ordering::Relaxed);
    }

    /// Waits until a request fails.
    pub(super) async fn suspected(&self) {
        self.suspected.notified().await;
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn connected(&self) {
        if self.failures() != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        self.latency.failed(now, Duration::ZERO);
        self.has_failed(now);
    }

    /// Notes a response. One that says that the endpoint failed counts as slow, however fast it came.
    pub(super) fn answered(&self, status: StatusCode, at: Instant, latency: Duration) {
        match is_failure(status) {
            true => {
                self.latency.failed(at, latency);
                self.has_failed(at);
            }
            false => self.latency.observe(at, latency),
        }
        self.metrics.answered(status, latency);
    }

    fn has_failed(&self, at: Instant) {
        self.penalty.add(self.millis(at));
        self.suspected.notify_one();
    }
}

/// Whether a status says that the endpoint failed, or has too much to do. 501 and 505 are about the request.
pub fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}
