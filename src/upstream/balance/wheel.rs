//! A wheel with a sector for each endpoint, as wide as its weight.

use std::sync::Arc;

use crate::upstream::endpoint::Endpoint;

/// Finds the endpoint at a place on the wheel in logarithmic time, or at once where all weigh the same.
#[derive(Debug)]
pub struct Wheel {
    /// Where each sector ends; the last is the sum of weights. None where all are equal.
    ends: Box<[u64]>,
    /// The sum of weights, or the number of equal endpoints.
    total: u64,
}

impl Wheel {
    pub fn new(endpoints: &[Arc<Endpoint>]) -> Self {
        let first = endpoints.first().map(|endpoint| endpoint.weight);
        if endpoints.iter().all(|endpoint| Some(endpoint.weight) == first) {
            return Self { ends: Box::default(), total: endpoints.len() as u64 };
        }
        let mut end = 0;
        let ends = endpoints.iter().map(|endpoint| {
            end += u64::from(endpoint.weight);
            end
        });
        let ends: Box<[_]> = ends.collect();
        Self { ends, total: end }
    }

    /// The endpoint at `place`, a part of 2^64 of the way around.
    pub fn at(&self, place: u64) -> usize {
        let point = ((u128::from(place) * u128::from(self.total)) >> 64) as u64;
        if self.ends.is_empty() { point as usize } else { self.ends.partition_point(|end| *end <= point) }
    }
}
