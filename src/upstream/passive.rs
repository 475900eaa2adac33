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
    readmission::ReadmissionTask,
    registry::EndpointTask,
    state::{TRIED, is_failure},
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
        if let Some(cause) = cause.or(failed_trial(pick, failed)) {
            self.eject(pick, outlier, cause, now);
        } else if pick.is_trial && endpoint.state.pass_trial() {
            let (upstream, endpoint) = (self.name.as_str(), &*endpoint.shown);
            tracing::info!(
                upstream,
                endpoint,
                reason = "a request succeeded",
                "endpoint is no longer ejected"
            );
        } else if let Some(percent) = outlier.latency
            && watched.observe(latency, now)
            && self.is_slow(endpoint, outlier, percent, now)
        {
            self.eject(pick, outlier, Cause::Latency, now);
        }
    }

    /// It could not be connected to, or broke before its response was whole.
    pub fn failed(&self, pick: &Pick) {
        let endpoint = &*pick.endpoint;
        endpoint.state.failed();
        let Some(outlier) = &endpoint.outlier else { return };
        let now = endpoint.state.now();
        let cause = endpoint.state.watched().ended_exchange(outlier, endpoint.window.as_deref(), now, true);
        if let Some(cause) = cause.or(failed_trial(pick, true)) {
            self.eject(pick, outlier, cause, now);
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
    fn eject(&self, pick: &Pick, outlier: &Outlier, cause: Cause, now: u64) {
        let endpoint = &*pick.endpoint;
        let _one = match self.shared.ejecting.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another is being ejected: the next failure tries again.
            Err(TryLockError::WouldBlock) => return,
        };
        if !endpoint.is_usable_despite(TRIED) {
            return;
        }
        let (upstream, address) = (self.name.as_str(), &*endpoint.shown);
        let set = self.endpoints();
        let serial = endpoint.state.serial();
        let out = set.iter().filter(|other| other.state.serial() != serial && !other.is_usable()).count();
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
        let until = now + length.as_millis() as u64;
        endpoint.state.eject(until);
        if let Some(window) = &endpoint.window {
            window.clear();
        }
        endpoint.state.metrics().ejected(cause.code());
        let seconds = length.as_secs();
        tracing::warn!(upstream, endpoint = address, cause = cause.code(), seconds, "endpoint is ejected");
        // Health checks say more than a connection.
        if !pick.was_connected() && !endpoint.is_checked() {
            let task = ReadmissionTask::new(&self.name, endpoint, until, self.registry.connector());
            self.registry.start(EndpointTask::Readmission(task));
        }
    }
}

/// Why an endpoint is ejected again, where a request of its trial failed.
fn failed_trial(pick: &Pick, failed: bool) -> Option<Cause> {
    (failed && pick.is_trial).then_some(Cause::ConsecutiveFailures)
}
