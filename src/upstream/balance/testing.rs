//! Pools for the balancers' tests.

use super::*;
use crate::{
    upstream::{Registry, Upstream, tests::settings},
    value::Clock,
};

/// Endpoints at 10.0.0.1, 10.0.0.2 and so on, watched, all healthy.
pub struct Pool {
    pub endpoints: Box<[Arc<Endpoint>]>,
    pub clock: Clock,
    tried: Tried,
}

impl Pool {
    pub fn new(weights: &[u16]) -> Self {
        let clock = Clock::manual();
        let registry = Registry::new(clock.clone(), None, std::sync::Arc::default());
        let endpoints = Upstream::build(settings(weights), &registry).endpoints().to_vec().into();
        Self { endpoints, clock, tried: Tried::default() }
    }

    pub fn candidates(&self) -> Candidates<'_> {
        Candidates { endpoints: &self.endpoints, tried: &self.tried, despite: 0 }
    }

    /// Where this one was tried already.
    pub fn candidates_after(&self, tried: usize) -> Candidates<'_> {
        let tried = Tried::of(&self.endpoints[tried]);
        Candidates { endpoints: &self.endpoints, tried: Box::leak(Box::new(tried)), despite: 0 }
    }

    pub fn down(&self, index: usize) {
        self.endpoints[index].state.set_healthy(false);
    }

    pub fn load(&self, index: usize, requests: usize) {
        (0..requests).for_each(|_| self.endpoints[index].state.begin());
    }
}

/// So many different keys.
pub fn keys(count: u64) -> impl Iterator<Item = PickKey> {
    (0..count).map(|nth| PickKey(Some(crate::upstream::key::hash(&nth.to_le_bytes()))))
}

/// How often each was chosen.
pub fn picks(endpoints: usize, chosen: impl IntoIterator<Item = usize>) -> Vec<u32> {
    let mut picks = vec![0; endpoints];
    chosen.into_iter().for_each(|index| picks[index] += 1);
    picks
}

/// A chi-square test: shares differ from the weights by no more than chance explains, once in a thousand.
pub fn assert_shares(picks: &[u32], weights: &[u32]) {
    let scale = f64::from(picks.iter().sum::<u32>()) / f64::from(weights.iter().sum::<u32>());
    let mut chi_square = 0.0;
    for (got, weight) in picks.iter().zip(weights) {
        let due = f64::from(*weight) * scale;
        if *weight == 0 {
            assert_eq!(*got, 0, "{picks:?}");
        } else {
            chi_square += (f64::from(*got) - due).powi(2) / due;
        }
    }
    // For up to three degrees of freedom.
    assert!(chi_square < 16.27, "{picks:?} is not {weights:?}: {chi_square}");
}
