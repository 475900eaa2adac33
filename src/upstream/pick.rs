//! A choice made: the endpoint of one attempt, counted while it lasts.

use std::sync::Arc;

use smallvec::SmallVec;

use super::endpoint::Endpoint;

/// An endpoint chosen for one attempt. It counts as a request in flight until dropped.
#[derive(Debug)]
pub struct Pick {
    pub endpoint: Arc<Endpoint>,
}

/// The endpoints that a request has tried, by the serial numbers of their states: an upstream's endpoints may change
/// between two attempts. Nothing is allocated for the first few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried(SmallVec<[u64; 4]>);

// === impl Pick ===

impl Pick {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.begin();
        Self { endpoint }
    }

    /// There is a connection, new or kept.
    pub fn connected(&self) {
        self.endpoint.state.connected();
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.endpoint.end();
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
