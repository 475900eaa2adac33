//! Endpoints have points on a ring, as many as their weights say; a key belongs to the next point. An endpoint
//! that comes or goes moves only the keys next to its points.
//!
//! The ring is ketama's idea but not pingora-ketama's, which knows no unix sockets and hashes to 32 bits.

use std::sync::Arc;

use super::{Balancer, Candidates, Dice, GOLDEN, common_divisor, place};
use crate::upstream::{
    endpoint::Endpoint,
    key::{self, PickKey, mix},
};

/// Points of an endpoint for each unit of weight: shares are then true to some 4 %.
const POINTS: u64 = 512;

/// A ring of more points than this is thinned out, in proportion.
const MOST_POINTS: u64 = 1 << 17;

#[derive(Debug)]
pub struct ConsistentHash {
    /// Sorted.
    ring: Box<[Point]>,
    dice: Dice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    place: u64,
    endpoint: u32,
}

impl ConsistentHash {
    pub fn new(endpoints: &[Arc<Endpoint>], dice: Dice) -> Self {
        let unit = endpoints.iter().fold(0, |unit, endpoint| common_divisor(unit, endpoint.weight));
        let unit = u64::from(unit.max(1));
        let points = |endpoint: &Endpoint| POINTS * u64::from(endpoint.weight) / unit;
        let total: u64 = endpoints.iter().map(|endpoint| points(endpoint)).sum();
        let mut ring = Vec::new();
        for (endpoint, index) in endpoints.iter().zip(0u32..) {
            let own = points(endpoint);
            let count = if total > MOST_POINTS { (own * MOST_POINTS / total).max(1) } else { own };
            // An endpoint's points depend on nothing but its address.
            let first = key::hash(endpoint.address.to_string().as_bytes());
            ring.extend((0..count).map(|nth| Point {
                place: mix(first.wrapping_add(nth.wrapping_mul(GOLDEN))),
                endpoint: index,
            }));
        }
        ring.sort_unstable();
        Self { ring: ring.into(), dice }
    }
}

impl Balancer for ConsistentHash {
    fn choose(&self, among: Candidates<'_>, key: PickKey) -> Option<usize> {
        // Spares a walk of the whole ring where none is usable.
        among.iter().next()?;
        let place = place(key, &self.dice);
        let start = self.ring.partition_point(|point| point.place < place);
        let around = || {
            let points = self.ring[start..].iter().chain(&self.ring[..start]);
            points.map(|point| point.endpoint as usize)
        };
        // The key decides whether one that starts slowly has it already: it comes once, and stays.
        let takes = |index: &usize| among.takes(*index, || mix(place ^ *index as u64));
        around().find(takes).or_else(|| around().find(|index| among.usable(*index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::testing::{Pool, keys, picks};

    fn choices(pool: &Pool) -> Vec<usize> {
        let balancer = ConsistentHash::new(&pool.endpoints, Dice::new(1));
        keys(12_000).map(|key| balancer.choose(pool.candidates(), key).unwrap()).collect()
    }

    #[test]
    fn keys_share_by_weight() {
        let picks = picks(4, choices(&Pool::new(&[100, 200, 300, 600])));
        for (got, weight) in picks.iter().zip([1, 2, 3, 6]) {
            let due = 1000 * weight;
            assert!(got.abs_diff(due) < due / 4, "{picks:?}");
        }
    }

    #[test]
    fn a_new_endpoint_takes_its_share_and_moves_nothing_else() {
        let before = choices(&Pool::new(&[1, 1, 1]));
        let after = choices(&Pool::new(&[1, 1, 1, 1]));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| **after == 3));
        assert!((2000..4000).contains(&moved.len()), "{}", moved.len());
    }

    #[test]
    fn one_down_moves_its_own_keys_alone() {
        let pool = Pool::new(&[1, 1, 1]);
        let before = choices(&pool);
        pool.down(2);
        let after = choices(&pool);
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == 2));
        assert!(!after.contains(&2));
    }

    #[test]
    fn a_ring_is_bounded_and_has_everyone() {
        let weights: Vec<u16> = (1..=1000).collect();
        let ring = ConsistentHash::new(&Pool::new(&weights).endpoints, Dice::new(1)).ring;
        assert!(ring.len() as u64 <= MOST_POINTS + 1000);
        let present: std::collections::HashSet<_> = ring.iter().map(|point| point.endpoint).collect();
        assert_eq!(present.len(), 1000);
    }

    #[test]
    fn none_is_chosen_where_none_is_usable() {
        let pool = Pool::new(&[1]);
        let balancer = ConsistentHash::new(&pool.endpoints, Dice::new(1));
        pool.down(0);
        assert_eq!(balancer.choose(pool.candidates(), PickKey(Some(1))), None);
    }
}
