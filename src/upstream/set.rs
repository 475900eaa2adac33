//! The endpoints of an upstream at one time, with the balancers built for them. A set never changes: another takes its
//! place.

use std::{
    ops::Deref,
    sync::{Arc, atomic::AtomicU64},
};

use super::{
    balance::{self, Balancer, Candidates},
    endpoint::Endpoint,
    key::PickKey,
    pick::Tried,
    settings::Balance,
    shared::Shared,
    sticky::EndpointCode,
    threshold::Threshold,
};

/// Endpoints in the order of their priorities, and of one priority those of the own zone first. Those of a later tier are chosen
/// where too few of the tiers before it are usable.
#[derive(Debug)]
pub struct EndpointSet {
    endpoints: Box<[Arc<Endpoint>]>,
    tiers: Box<[Tier]>,
    /// By what they are known by in cookies, sorted; none without sticky sessions.
    codes: Box<[(EndpointCode, usize)]>,
    changes: Arc<AtomicU64>,
}

/// Endpoints of one priority and zone.
#[derive(Debug)]
struct Tier {
    start: usize,
    end: usize,
    balancer: Box<dyn Balancer>,
    /// Where it is missed, the next tier is used; none in the last.
    threshold: Option<Threshold>,
}

/// While half of the own zone's endpoints are usable, no other zone is used.
const ENOUGH_OF_ZONE: u8 = 50;

// === impl EndpointSet ===

impl EndpointSet {
    /// `enough`: the share of usable endpoints in percent below which the next tier is used. Without it that is none, or half in the
    /// own zone.
    pub(super) fn new(
        mut endpoints: Vec<Arc<Endpoint>>,
        balance: &Balance,
        enough: Option<u8>,
        shared: &Arc<Shared>,
    ) -> Self {
        let place = |endpoint: &Arc<Endpoint>| (endpoint.priority, endpoint.is_second, endpoint.is_far);
        endpoints.sort_by_key(place);
        let last = endpoints.last().map(place);
        let mut start = 0;
        let tiers = endpoints.chunk_by(|a, b| place(a) == place(b)).map(|tier| {
            let end = start + tier.len();
            let next = endpoints.get(end).map(place);
            let (priority, is_second, _) = place(&tier[0]);
            let is_left_by_zone = next.is_some_and(|next| (next.0, next.1) == (priority, is_second));
            let enough = enough.or(is_left_by_zone.then_some(ENOUGH_OF_ZONE));
            let threshold = enough.filter(|_| last != Some(place(&tier[0]))).map(Threshold::new);
            let balancer = balance::balancer(balance, tier, shared.turns.clone());
            start = end;
            Tier { start: end - tier.len(), end, balancer, threshold }
        });
        let tiers = tiers.collect();
        let codes = endpoints.iter().zip(0..).filter_map(|(endpoint, place)| Some((endpoint.code?, place)));
        let mut codes: Box<[_]> = codes.collect();
        codes.sort_unstable();
        Self { tiers, codes, endpoints: endpoints.into(), changes: shared.changes.clone() }
    }

    /// The endpoint that is known by this code.
    pub fn of_code(&self, code: EndpointCode) -> Option<&Arc<Endpoint>> {
        let found = self.codes.binary_search_by_key(&code, |(code, _)| *code).ok()?;
        self.endpoints.get(self.codes[found].1)
    }

    /// A usable endpoint that was not tried yet; these flags keep no requests away.
    pub(super) fn choose(&self, key: PickKey, tried: &Tried, despite: u8) -> Option<&Arc<Endpoint>> {
        let choose = |tier: &Tier| {
            let endpoints = &self.endpoints[tier.start..tier.end];
            let index = tier.balancer.choose(Candidates { endpoints, tried, despite }, key)?;
            endpoints.get(index)
        };
        let has_enough = |tier: &&Tier| {
            let endpoints = &self.endpoints[tier.start..tier.end];
            tier.threshold.as_ref().is_none_or(|threshold| !threshold.is_missed(endpoints, &self.changes))
        };
        let chosen = self.tiers.iter().filter(has_enough).find_map(choose);
        // Few are better than none.
        if self.tiers.len() > 1 { chosen.or_else(|| self.tiers.iter().find_map(choose)) } else { chosen }
    }
}

impl Deref for EndpointSet {
    type Target = [Arc<Endpoint>];

    fn deref(&self) -> &Self::Target {
        &self.endpoints
    }
}
