//! A wheel with a sector for each endpoint, as wide as its weight.

use std::sync::Arc;

use crate::upstream::endpoint::Endpoint;

/// Finds the endpoint at a place on the wheel in logarithmic time.
#[derive(Debug)]
pub struct Wheel {
    /// Where each sector ends; the last is the sum of weights.
    ends: Box<[u64]>,
}

impl Wheel {
    pub fn new(endpoints: &[Arc<Endpoint>]) -> Self {
        let mut end = 0;
        let ends = endpoints.iter().map(|endpoint| {
            end += u64::from(endpoint.weight);
            end
        });
        Self { ends: ends.collect() }
    }

    /// The endpoint at `place`, a part of 2^64 of the way around.
    pub fn at(&self, place: u64) -> usize {
        let total = self.ends.last().copied().unwrap_or_default();
        let point = ((u128::from(place) * u128::from(total)) >> 64) as u64;
        self.ends.partition_point(|end| *end <= point)
    }
}
