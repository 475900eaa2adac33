//! Endpoints of attempts that run at the same time.

use super::Destination;
use crate::upstream::{Pick, retry::Cause};

// === impl Destination ===

impl Destination {
    /// Exchanges the choice that the last attempt counts for.
    pub fn switch(&mut self, other: &mut Option<Pick>) {
        if let Self::Pool(pool) = self {
            std::mem::swap(&mut pool.pick, other);
        }
    }

    /// Chooses an endpoint that was not tried yet for an attempt beside others, where the budget allows one.
    pub fn hedge(&mut self) -> Option<Pick> {
        let Self::Pool(pool) = self else { return None };
        let pick = pool.untried().filter(|_| pool.proxy.upstream.retries(Cause::Hedge))?;
        pool.tried.add(&pick);
        pick.endpoint.state.metrics().tried();
        Some(pick)
    }

    /// Whether its client is kept at an endpoint.
    pub fn is_bound(&self) -> bool {
        matches!(self, Self::Pool(pool) if pool.sticky.as_ref().is_some_and(|session| session.is_bound()))
    }
}
