//! What outlives a snapshot: counts. The registry holds them weakly; the chains that count by them keep them, and
//! what nobody keeps is forgotten.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Buckets, By, InFlight, Meter, Quota};
use crate::{
    telemetry::metrics::LimitState,
    value::{Clock, Name, Span, Spanned, Weaks},
};

/// What a count is known by over reloads: where it is, and what it tells requests apart by. Never how much it
/// allows: that may change while it counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub place: Place,
    pub by: By,
}

/// Where a count is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Wherever this name is said.
    Named(Name),
    /// Where it is written, whatever the file: the first, second... of its kind.
    Written(Within, usize),
}

/// What something of a chain is written in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Within {
    Chain(Name),
    /// "defaults", "listener web", "tenant acme", "host www", "route www/stream".
    Scope(Arc<str>),
}

/// Counts by what they are known by. One per process.
pub struct Registry {
    clock: Clock,
    buckets: Mutex<Weaks<Identity, Buckets>>,
    in_flight: Mutex<Weaks<Identity, InFlight>>,
    meters: Mutex<Weaks<Identity, Meter>>,
}

/// The quotas of a configuration's counts, and where they are counted: a count that stands in several places has one.
#[derive(Default)]
pub struct Quotas(HashMap<Identity, Spanned<(Quota, Scope)>>);

/// Where it is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RateLimitScope")]
pub enum Scope {
    /// In this process
    #[default]
    Local,
    /// In Redis, with all who share it
    Shared,
}

/// As the metrics call it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (within, nth) = match self {
            Self::Named(name) => return name.fmt(f),
            Self::Written(within, nth) => (within, nth),
        };
        match within {
            Within::Chain(name) => write!(f, "chain {name}")?,
            Within::Scope(scope) => f.write_str(scope)?,
        }
        match nth {
            0 => Ok(()),
            nth => write!(f, " {}", nth + 1),
        }
    }
}

impl Registry {
    pub fn new(clock: Clock) -> Self {
        Self { clock, buckets: Mutex::default(), in_flight: Mutex::default(), meters: Mutex::default() }
    }

    pub(in crate::middleware) fn buckets(&self, identity: Identity) -> Arc<Buckets> {
        let by = identity.by.clone();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.find_or(identity, || Buckets::new(self.clock.clone(), by))
    }

    /// The state of all that counts: of those that have one name together.
    pub fn states(&self) -> Vec<LimitState> {
        let mut states = BTreeMap::new();
        let mut add = |kind, place: &Place, keys, in_flight, refused| {
            let state: &mut LimitState = states.entry((kind, place.to_string())).or_default();
            state.keys += keys;
            state.in_flight += in_flight;
            state.refused += refused;
        };
        for (identity, buckets) in self.buckets.lock().unwrap_or_else(PoisonError::into_inner).living() {
            add("rate_limit", &identity.place, buckets.keys(), 0, buckets.refused());
        }
        for (identity, held) in self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).living() {
            let (keys, in_flight) = held.held();
            add("concurrency", &identity.place, keys, in_flight, held.refused());
        }
        states.into_iter().map(|((kind, bucket), state)| LimitState { kind, bucket, ..state }).collect()
    }

    pub(in crate::middleware) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    pub(in crate::middleware) fn meter(&self, identity: Identity) -> Arc<Meter> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        meters.find_or(identity, || Meter::new(self.clock.clone()))
    }

    pub(in crate::middleware) fn in_flight(&self, identity: Identity) -> Arc<InFlight> {
        let by = identity.by.clone();
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        in_flight.find_or(identity, || InFlight::new(by))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Quotas {
    /// Where the same count has another quota.
    pub(in crate::middleware) fn other(
        &mut self,
        identity: &Identity,
        quota: Spanned<(Quota, Scope)>,
    ) -> Option<Span> {
        let known = self.0.entry(identity.clone()).or_insert(quota);
        (known.value != quota.value).then_some(known.span)
    }
}
