//! A choice made: the endpoint of one attempt, counted while it lasts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;

use super::endpoint::Endpoint;

/// An endpoint chosen for one attempt. It counts as a request in flight until dropped.
#[derive(Debug)]
pub struct Pick {
    pub endpoint: Arc<Endpoint>,
    index: usize,
}

/// The endpoints that a request has tried. Nothing is allocated for it.
///
/// From 256 endpoints on, two may share a mark, and one is then passed over that was not tried; there are
/// always others left, as a request tries at most 256.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried([u64; 4]);

// === impl Pick ===

impl Pick {
    pub(super) fn new(endpoint: Arc<Endpoint>, index: usize) -> Self {
        endpoint.state.begin();
        Self { endpoint, index }
    }

    /// There is a connection, new or kept.
    pub fn connected(&self) {
        self.endpoint.state.connected();
    }

    /// The response's head came `at` a time, this long after the request was sent.
    pub fn answered(&self, status: StatusCode, at: Instant, latency: Duration) {
        self.endpoint.state.answered(status, at, latency);
    }

    /// It could not be connected to, or broke before it answered.
    pub fn failed(&self) {
        self.endpoint.state.failed();
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.endpoint.state.end();
    }
}

// === impl Tried ===

impl Tried {
    pub fn add(&mut self, pick: &Pick) {
        let (word, bit) = Self::place(pick.index);
        self.0[word] |= bit;
    }

    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    pub(super) fn has(&self, index: usize) -> bool {
        let (word, bit) = Self::place(index);
        self.0[word] & bit != 0
    }

    fn place(index: usize) -> (usize, u64) {
        (index / 64 % 4, 1 << (index % 64))
    }
}
