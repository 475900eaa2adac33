//! The endpoints of an upstream at one time, with the balancers built for them. A set never changes: another takes its
//! place.

use std::{ops::Deref, sync::Arc};

use super::{
    balance::{self, Balancer, Candidates, Turns},
    endpoint::Endpoint,
    key::PickKey,
    pick::Tried,
    settings::Balance,
};

/// Endpoints in the order of their priorities. Those of a lower number are chosen while one of them can be.
#[derive(Debug)]
pub struct EndpointSet {
    endpoints: Box<[Arc<Endpoint>]>,
    tiers: Box<[Tier]>,
}

/// Endpoints of one priority.
#[derive(Debug)]
struct Tier {
    start: usize,
    end: usize,
    balancer: Box<dyn Balancer>,
}

// === impl EndpointSet ===

impl EndpointSet {
    /// `turns`: those that the upstream's endpoints had, for the balancer that counts them.
    pub(super) fn new(mut endpoints: Vec<Arc<Endpoint>>, balance: &Balance, turns: &Arc<Turns>) -> Self {
        endpoints.sort_by_key(|endpoint| endpoint.priority);
        let mut start = 0;
        let tiers = endpoints.chunk_by(|a, b| a.priority == b.priority).map(|tier| {
            let end = start + tier.len();
            let tier = Tier { start, end, balancer: balance::balancer(balance, tier, turns.clone()) };
            start = end;
            tier
        });
        Self { tiers: tiers.collect(), endpoints: endpoints.into() }
    }

    /// A usable endpoint that was not tried yet; these flags keep no requests away.
    pub(super) fn choose(&self, key: PickKey, tried: &Tried, despite: u8) -> Option<&Arc<Endpoint>> {
        self.tiers.iter().find_map(|tier| {
            let endpoints = &self.endpoints[tier.start..tier.end];
            let index = tier.balancer.choose(Candidates { endpoints, tried, despite }, key)?;
            endpoints.get(index)
        })
    }
}

impl Deref for EndpointSet {
    type Target = [Arc<Endpoint>];

    fn deref(&self) -> &Self::Target {
        &self.endpoints
    }
}
