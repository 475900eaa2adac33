//! Copies of requests that an upstream gets besides its own requests. Their responses are thrown away.
//!
//! A copy has its own time and its own place among the copies in flight. It is sent once, and nothing of it reaches the
//! request that it is a copy of.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request};

use super::{
    Upstream,
    key::{Facts, PickKey},
    registry::{EndpointTask, Registry},
};
use crate::telemetry::metrics;

/// Where copies go.
#[derive(Debug)]
pub struct Mirror {
    pub upstream: Arc<Upstream>,
    registry: Registry,
    metrics: Arc<metrics::Mirror>,
}

/// A place among the copies in flight to an upstream, of all routes. It is free again when this is dropped: a copy that was
/// not sent until then counts as dropped.
#[derive(Debug)]
pub struct CopyPermit {
    upstream: Arc<Upstream>,
    metrics: Arc<metrics::Mirror>,
    drop_cause: Option<&'static str>,
}

/// A copy as it is sent.
#[derive(Debug)]
pub struct RequestCopy {
    pub upstream: Arc<Upstream>,
    /// The hash of its balancer's key.
    pub key: PickKey,
    pub request: Request<Bytes>,
    /// The Host that is sent; without one the endpoint's own.
    pub host: Option<HeaderValue>,
    /// The host that is asked for, for SNI where the upstream has no name of its own.
    pub server_name: String,
    /// From its sending to the end of the response.
    pub timeout: Duration,
}

/// A copy on its way.
#[derive(Debug)]
pub struct MirrorTask {
    copy: RequestCopy,
    permit: CopyPermit,
    registry: Registry,
}

// === impl Mirror ===

impl Mirror {
    pub(super) fn new(upstream: Arc<Upstream>, registry: Registry, metrics: Arc<metrics::Mirror>) -> Self {
        Self { upstream, registry, metrics }
    }

    /// Takes a place among at most `most` copies in flight, where one is free. Else the copy is dropped.
    pub fn reserve(&self, most: u32) -> Option<CopyPermit> {
        let copies = &self.upstream.shared.copies;
        let taken = copies.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |copies| {
            (copies < most).then_some(copies + 1)
        });
        if taken.is_err() {
            self.metrics.dropped("in_flight");
            return None;
        }
        let (upstream, metrics) = (self.upstream.clone(), self.metrics.clone());
        Some(CopyPermit { upstream, metrics, drop_cause: Some("incomplete") })
    }

    /// The key that its balancer wants of a request.
    pub fn key(&self, facts: &Facts<'_>) -> PickKey {
        self.upstream.key(facts)
    }

    /// Sends a copy beside whatever else is done.
    pub fn send(&self, copy: RequestCopy, mut permit: CopyPermit) {
        permit.drop_cause = None;
        self.metrics.sent.inc();
        self.registry.start(EndpointTask::Mirror(Box::new(MirrorTask {
            copy,
            permit,
            registry: self.registry.clone(),
        })));
    }
}

// === impl CopyPermit ===

impl CopyPermit {
    /// The body is larger than may be copied.
    pub fn give_up_too_large(mut self) {
        self.drop_cause = Some("body_too_large");
    }
}

impl Drop for CopyPermit {
    fn drop(&mut self) {
        self.upstream.shared.copies.fetch_sub(1, Ordering::Relaxed);
        if let Some(cause) = self.drop_cause {
            self.metrics.dropped(cause);
        }
    }
}

// === impl MirrorTask ===

impl MirrorTask {
    /// Ends with the response, and by the copy's timeout at the latest.
    pub async fn run(self) {
        if let Err(error) = self.registry.caller().send(&self.copy).await {
            self.permit.metrics.failed.inc();
            let upstream = self.copy.upstream.name.as_str();
            tracing::debug!(upstream, %error, "copy of a request failed");
        }
    }
}
