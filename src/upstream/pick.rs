//! A choice made: the endpoint of one attempt, counted while it lasts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use smallvec::SmallVec;

use super::endpoint::Endpoint;

/// An endpoint chosen for one attempt. It counts as a request in flight until dropped.
#[derive(Debug)]
pub struct Pick {
    pub endpoint: Arc<Endpoint>,
    /// Whether it decides if an endpoint that was ejected gets its share again.
    pub(super) is_trial: bool,
    /// Whether there was a connection at the last try.
    connected: AtomicBool,
}

/// The endpoints that a request has tried, by the serial numbers of their states: an upstream's endpoints may change
/// between two attempts. Nothing is allocated for the first few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried(SmallVec<[u64; 4]>);

// === impl Pick ===

impl Pick {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        let is_trial = endpoint.begin();
        Self { endpoint, is_trial, connected: AtomicBool::new(false) }
    }

    /// There is a connection, new or kept.
    pub fn connected(&self) {
        self.connected.store(true, Ordering::Relaxed);
        self.endpoint.state.connected();
    }

    /// No connection could be made.
    pub fn connect_failed(&self) {
        self.connected.store(false, Ordering::Relaxed);
        self.endpoint.state.metrics().connect_failed();
    }

    pub(super) fn was_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.endpoint.end(self.is_trial);
    }
}

// === impl Tried ===

impl Tried {
    pub fn add(&mut self, pick: &Pick) {
        self.0.push(pick.endpoint.state.serial());
    }

    #[cfg(test)]
    pub fn of(endpoint: &Endpoint) -> Self {
        Self(SmallVec::from_iter([endpoint.state.serial()]))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, endpoint: &Endpoint) -> bool {
        self.0.contains(&endpoint.state.serial())
    }
}
