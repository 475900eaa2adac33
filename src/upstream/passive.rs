//! What exchanges say of an endpoint: how they ended, and when that ejects it.

use std::{
    sync::TryLockError,
    time::{Duration, Instant},
};

use http::StatusCode;

use super::{
    Upstream,
    endpoint::Endpoint,
    outlier::{Cause, Outlier, is_slow},
    pick::Pick,
    state::is_failure,
};

impl Upstream {
    /// The response's head came `at` a time, this long after the request was sent.
    pub fn answered(&self, pick: &Pick, status: StatusCode, at: Instant, latency: Duration) {
        let endpoint = &*pick.endpoint;
        endpoint.state.answered(status, at, latency);
        if !is_failure(status) {
            self.took(at, latency);
        }
        let Some(outlier) = &endpoint.outlier else { return };
        let now = endpoint.state.millis(at);
        let failed = outlier.counts_statuses && is_failure(status);
        let watched = endpoint.state.watched();
        let cause = watched.ended_exchange(outlier, endpoint.window.as_deref(), now, failed);
        if let Some(cause) = cause {
            self.eject(endpoint, outlier, cause, now);
        } else if let Some(percent) = outlier.latency
            && watched.observe(latency, now)
            && self.is_slow(endpoint, outlier, percent, now)
        {
            self.eject(endpoint, outlier, Cause::Latency, now);
        }
    }

    /// It could not be connected to, or broke before its response was whole.
    pub fn failed(&self, pick: &Pick) {
        let endpoint = &*pick.endpoint;
        endpoint.state.failed();
        let Some(outlier) = &endpoint.outlier else { return };
        let now = endpoint.state.now();
        let cause = endpoint.state.watched().ended_exchange(outlier, endpoint.window.as_deref(), now, true);
        if let Some(cause) = cause {
            self.eject(endpoint, outlier, cause, now);
        }
    }

    fn is_slow(&self, endpoint: &Endpoint, outlier: &Outlier, percent: u32, now: u64) -> bool {
        let total = endpoint.window.as_ref().map_or(0, |window| window.counts(now).total);
        if total < u64::from(outlier.min_requests) {
            return false;
        }
        let set = self.endpoints();
        let others = set.iter().filter(|other| !std::ptr::eq(&***other, endpoint));
        let known = others.map(|other| other.state.watched().mean()).filter(|mean| *mean > 0);
        is_slow(percent, endpoint.state.watched().mean(), &mut known.collect::<Vec<_>>())
    }

    /// Ejects an endpoint, unless too many would be out then.
    #[cold]
    fn eject(&self, endpoint: &Endpoint, outlier: &Outlier, cause: Cause, now: u64) {
        let _one = match self.shared.ejecting.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another is being ejected: the next failure tries again.
            Err(TryLockError::WouldBlock) => return,
        };
        if !endpoint.is_usable() {
            return;
        }
        let (upstream, address) = (self.name.as_str(), &*endpoint.shown);
        let set = self.endpoints();
        let out = set.iter().filter(|endpoint| !endpoint.is_usable()).count();
        if out + 1 > outlier.most_out(set.len()) {
            tracing::debug!(
                upstream,
                endpoint = address,
                cause = cause.code(),
                out,
                "endpoint is not ejected"
            );
            return endpoint.state.watched().forget();
        }
        let length = endpoint.state.watched().next_ejection(outlier, now);
        endpoint.state.eject(now + length.as_millis() as u64);
        if let Some(window) = &endpoint.window {
            window.clear();
        }
        endpoint.state.metrics().ejected(cause.code());
        let seconds = length.as_secs();
        tracing::warn!(upstream, endpoint = address, cause = cause.code(), seconds, "endpoint is ejected");
    }
}
