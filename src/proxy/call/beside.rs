//! Attempts of a call that run at the same time: each is booked at its own endpoint.

use std::time::{Duration, Instant};

use http::StatusCode;

use super::Call;
use crate::upstream::{Pick, Route, exchange::Failure};

/// What an attempt that runs beside others is booked by.
pub(in crate::proxy) struct Attempt {
    pick: Option<Pick>,
    began: Instant,
    /// Its place among the attempts that are traced.
    traced: usize,
}

// === impl Call ===

impl Call {
    /// How many attempts started beside a slow one.
    pub fn hedges(&self) -> u32 {
        self.hedges
    }

    /// Whether its upstream has hedges, and they can be had: not where only one connection or endpoint may be used.
    pub(in crate::proxy) fn may_hedge(&self) -> bool {
        self.upstream().is_some_and(|upstream| upstream.retry.hedge.is_some())
            && self.tunnel.is_none()
            && self.lease.is_none()
            && self.to.circuit().is_none()
            && !self.to.is_bound()
    }

    /// The time after which a further attempt starts, where one is known, and how many may.
    pub(in crate::proxy) fn hedge_plan(&self) -> (Option<Duration>, u8) {
        let hedge =
            self.upstream().and_then(|upstream| Some((upstream.hedge_after(), upstream.retry.hedge?.max)));
        let (after, most) = hedge.unwrap_or((None, 0));
        (after, most.saturating_sub(u8::try_from(self.hedges).unwrap_or(u8::MAX)))
    }

    /// A further attempt at an endpoint that was not tried yet, where the budget allows one.
    pub(in crate::proxy) fn hedge(&mut self, host: &str) -> Option<(Attempt, Route)> {
        let pick = self.to.hedge()?;
        self.attempts += 1;
        self.hedges += 1;
        let address = pick.endpoint.address.clone();
        let mut attempt = Attempt { pick: Some(pick), began: Instant::now(), traced: 0 };
        if let Some(traced) = &mut self.traced {
            attempt.traced = traced.begin_beside(address);
        }
        self.switch(&mut attempt);
        let route = self.to.route(None, host);
        self.switch(&mut attempt);
        Some((attempt, route?))
    }

    /// Goes over to another attempt: what is booked from now on is of that one.
    pub(in crate::proxy) fn switch(&mut self, other: &mut Attempt) {
        self.to.switch(&mut other.pick);
        std::mem::swap(&mut self.attempt_began, &mut other.began);
        if let Some(traced) = &mut self.traced {
            traced.switch(&mut other.traced);
        }
    }

    /// An attempt found no connection, while others go on.
    pub(in crate::proxy) fn lost_connecting(&mut self, failure: &Failure) {
        self.note(failure.reason, failure);
        if let Some(pick) = self.to.pick() {
            pick.connect_failed();
        }
    }

    /// The exchange of an attempt broke, while others go on.
    pub(in crate::proxy) fn lost_answering(&mut self, failure: &Failure) {
        self.note(self.reason_for(failure), failure);
    }

    /// An attempt was answered at a time with a status that is tried again, and another one won.
    pub(in crate::proxy) fn refused(&mut self, status: StatusCode, at: Instant) {
        self.count_answer_at(status, at);
    }

    /// Another attempt won: that says nothing of the endpoint.
    pub(in crate::proxy) fn cancelled(&mut self) {
        if let Some(traced) = &mut self.traced {
            traced.cancelled();
        }
    }

    /// An attempt that started beside a slow one won.
    pub(in crate::proxy) fn hedge_won(&self) {
        if let Some(upstream) = self.upstream() {
            upstream.hedge_won();
        }
    }

    /// There is a response: what became of attempts before it does not count.
    pub(in crate::proxy) fn succeeded(&mut self) {
        self.failure = None;
    }
}
