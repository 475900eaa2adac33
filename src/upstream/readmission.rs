//! Ends an ejection early where an endpoint that refused connections accepts them again.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use pingora::upstreams::peer::{HttpPeer, Scheme};
use tokio::time::{sleep, timeout};

use super::{connections::Connector, endpoint::Endpoint, state::EndpointState};
use crate::value::Name;

/// Connects to an ejected endpoint again and again, and gives it a trial once that succeeds. It keeps nothing alive, and ends with the
/// ejection.
#[derive(Debug)]
pub struct ReadmissionTask {
    upstream: Name,
    endpoint: Box<str>,
    state: Weak<EndpointState>,
    /// What tells this ejection from a later one.
    until: u64,
    peer: Box<HttpPeer>,
    connector: Arc<Connector>,
}

/// Between two connections.
const PAUSE: Duration = Duration::from_secs(1);
/// A connection that takes longer than this fails.
const LIMIT: Duration = Duration::from_secs(1);

impl ReadmissionTask {
    pub(super) fn new(upstream: &Name, endpoint: &Endpoint, until: u64, connector: &Arc<Connector>) -> Self {
        Self {
            upstream: upstream.clone(),
            endpoint: endpoint.shown.clone(),
            state: Arc::downgrade(&endpoint.state),
            until,
            // TLS is no part of it.
            peer: Box::new(HttpPeer { scheme: Scheme::HTTP, ..*endpoint.peer("", None) }),
            connector: connector.clone(),
        }
    }

    pub async fn run(self) {
        loop {
            // Several proxies do not connect at once.
            sleep(PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            if self.ejected().is_none() {
                return;
            }
            let connected = timeout(LIMIT, self.connector.connect(&self.peer)).await;
            if let Ok(Ok(_)) = connected {
                return self.readmit();
            }
        }
    }

    fn readmit(&self) {
        let Some(state) = self.ejected() else { return };
        state.end_ejection(true);
        let (upstream, endpoint) = (self.upstream.as_str(), &*self.endpoint);
        tracing::info!(upstream, endpoint, "endpoint accepts connections again: it gets a request");
    }

    /// Its state, while this ejection lasts.
    fn ejected(&self) -> Option<Arc<EndpointState>> {
        let state = self.state.upgrade()?;
        (state.is_ejected_until(self.until)).then_some(state)
    }
}
