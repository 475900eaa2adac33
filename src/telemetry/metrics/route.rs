//! What is counted of requests, by listener and route.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::StatusCode;
use prometheus::{Histogram, IntCounter, IntGauge};

use super::{Families, kept::Counts};
use crate::{error::Reason, value::Name};

/// The names that requests are counted by.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    listener: Name,
    host: Option<Name>,
    tenant: Option<Name>,
    route: Name,
}

/// The requests that one listener takes to one route. Series are made by the first of them: most of a
/// hundred thousand routes may never see one.
pub struct Route {
    key: Arc<Key>,
    families: Arc<Families>,
    series: OnceLock<Box<Series>>,
}

/// The counts of a route by the listeners that it is reached by.
#[derive(Debug)]
pub struct ByListener(Box<[(usize, Arc<Route>)]>);

/// A request that runs. It counts as such until dropped, as where its connection is cut.
pub struct InFlight<'a> {
    route: &'a Route,
    series: &'a Series,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub status: StatusCode,
    pub reason: Option<Reason>,
    pub received: u64,
    pub sent: u64,
    pub duration: Duration,
}

struct Series {
    in_flight: IntGauge,
    duration: Histogram,
    received: IntCounter,
    sent: IntCounter,
    /// By class, without a reason.
    answered: [OnceLock<IntCounter>; CLASSES.len()],
    /// By class and reason.
    failed: OnceLock<Box<[OnceLock<IntCounter>]>>,
}

/// As the metrics call them.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The place of a status among them.
pub(super) fn class(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1
}

// === impl Key ===

impl Key {
    pub fn new(listener: &Name, host: Option<&Name>, tenant: Option<&Name>, route: &Name) -> Self {
        let (host, tenant) = (host.cloned(), tenant.cloned());
        Self { listener: listener.clone(), host, tenant, route: route.clone() }
    }

    /// The labels' values: nothing, where the route belongs to no host or tenant.
    fn values(&self) -> [&str; 4] {
        [
            self.listener.as_str(),
            self.host.as_ref().map_or("", Name::as_str),
            self.tenant.as_ref().map_or("", Name::as_str),
            self.route.as_str(),
        ]
    }

    fn values_of(&self, class: usize, reason: Option<Reason>) -> [&str; 6] {
        let [listener, host, tenant, route] = self.values();
        [listener, host, tenant, route, CLASSES[class], reason.map_or("", Reason::code)]
    }
}

// === impl Route ===

impl Route {
    pub(super) fn new(key: Arc<Key>, families: Arc<Families>) -> Self {
        Self { key, families, series: OnceLock::new() }
    }

    /// A request begins.
    pub fn begin(&self) -> InFlight<'_> {
        let series = self.series.get_or_init(|| Box::new(Series::new(&self.key, &self.families)));
        series.in_flight.inc();
        InFlight { route: self, series }
    }

    fn requests(&self, class: usize, reason: Option<Reason>) -> IntCounter {
        self.families.requests.with_label_values(&self.key.values_of(class, reason))
    }
}

impl Counts for Route {
    fn forget(&self, families: &Families) {
        let Some(series) = self.series.get() else { return };
        let values = self.key.values();
        // What is not there cannot be taken away, and need not be.
        let _ = families.in_flight.remove_label_values(&values);
        let _ = families.durations.remove_label_values(&values);
        let _ = families.received.remove_label_values(&values);
        let _ = families.sent.remove_label_values(&values);
        let answered = series.answered.iter().enumerate().map(|(class, cell)| (class, None, cell));
        let failed = series.failed.get().into_iter().flatten().enumerate().map(|(place, cell)| {
            let reasons = Reason::ALL.len();
            (place / reasons, Some(Reason::ALL[place % reasons]), cell)
        });
        for (class, reason, _) in answered.chain(failed).filter(|(_, _, cell)| cell.get().is_some()) {
            let _ = families.requests.remove_label_values(&self.key.values_of(class, reason));
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.key.values()).finish()
    }
}

// === impl ByListener ===

impl ByListener {
    /// Of listeners by their places, of which there is at least one.
    pub fn new(counts: impl IntoIterator<Item = (usize, Arc<Route>)>) -> Self {
        Self(counts.into_iter().collect())
    }

    /// The counts for a listener that reaches the route.
    pub fn of(&self, place: usize) -> Option<&Route> {
        self.0.iter().find(|(own, _)| *own == place).map(|(_, route)| &**route)
    }
}

// === impl InFlight ===

impl InFlight<'_> {
    /// The request has ended.
    pub fn end(self, outcome: &Outcome) {
        let Outcome { status, reason, received, sent, duration } = *outcome;
        let class = class(status);
        let cell = match reason {
            None => &self.series.answered[class],
            Some(reason) => &self.series.failed()[class * Reason::ALL.len() + place(reason)],
        };
        cell.get_or_init(|| self.route.requests(class, reason)).inc();
        self.series.duration.observe(duration.as_secs_f64());
        if received > 0 {
            self.series.received.inc_by(received);
        }
        if sent > 0 {
            self.series.sent.inc_by(sent);
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.series.in_flight.dec();
    }
}

// === impl Series ===

impl Series {
    fn new(key: &Key, families: &Families) -> Self {
        let values = key.values();
        Self {
            in_flight: families.in_flight.with_label_values(&values),
            duration: families.durations.with_label_values(&values),
            received: families.received.with_label_values(&values),
            sent: families.sent.with_label_values(&values),
            answered: Default::default(),
            failed: OnceLock::new(),
        }
    }

    fn failed(&self) -> &[OnceLock<IntCounter>] {
        self.failed.get_or_init(|| (0..CLASSES.len() * Reason::ALL.len()).map(|_| OnceLock::new()).collect())
    }
}

/// Where a reason stands in [`Reason::ALL`], which lists them in their order.
fn place(reason: Reason) -> usize {
    reason as usize
}
