//! Endpoints have points on a ring, as many as their weights say; a key belongs to the next point. An endpoint
//! that comes or goes moves only the keys next to its points.
//!
//! With a bound, a key goes on to the next endpoint on the ring while its own has more requests in flight than its share of
//! all, so much more allowed (consistent hashing with bounded loads, Mirrokni et al. 2016).
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
    /// Where the points begin whose places begin with the same bits, and the end: a search looks at a handful of points.
    starts: Box<[u32]>,
    dice: Dice,
    /// The most requests in flight of an endpoint, in percent of the mean for its weight.
    bound: Option<u32>,
    /// The sum of weights.
    weights: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    place: u32,
    endpoint: u32,
}

impl ConsistentHash {
    pub fn new(endpoints: &[Arc<Endpoint>], dice: Dice, bound: Option<u32>) -> Self {
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
                place: (mix(first.wrapping_add(nth.wrapping_mul(GOLDEN))) >> 32) as u32,
                endpoint: index,
            }));
        }
        ring.sort_unstable();
        let weights = endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
        Self { starts: starts(&ring), ring: ring.into(), dice, bound, weights }
    }

    /// The first point from a place on.
    fn search(&self, place: u32) -> usize {
        let slot = slot(place, self.starts.len() - 1);
        let (start, end) = (self.starts[slot] as usize, self.starts[slot + 1] as usize);
        start + self.ring[start..end].partition_point(|point| point.place < place)
    }

    /// Whether an endpoint may have one request more, of `total` that run.
    fn has_room(&self, endpoint: &Endpoint, total: u64) -> bool {
        let Some(bound) = self.bound else { return true };
        let share = u128::from(total + 1) * u128::from(endpoint.weight) * u128::from(bound);
        let most = share.div_ceil(100 * u128::from(self.weights));
        u128::from(endpoint.state.in_flight()) < most
    }
}

impl Balancer for ConsistentHash {
    fn choose(&self, among: Candidates<'_>, key: PickKey) -> Option<usize> {
        // Spares a walk of the whole ring where none is usable.
        let total = among.iter().next()?.1.total_in_flight();
        let place = place(key, &self.dice);
        let start = self.search((place >> 32) as u32);
        let around = || {
            let points = self.ring[start..].iter().chain(&self.ring[..start]);
            points.map(|point| point.endpoint as usize)
        };
        // The key decides whether one that starts slowly has it already: it comes once, and stays.
        let takes = |index: &usize| {
            among.takes(*index, || mix(place ^ *index as u64))
                && self.has_room(&among.endpoints[*index], total)
        };
        around().find(takes).or_else(|| around().find(|index| among.usable(*index)))
    }
}

/// Where the points of each slot begin, some four to a slot.
fn starts(ring: &[Point]) -> Box<[u32]> {
    let slots = (ring.len() / 4).next_power_of_two();
    let mut starts = vec![0; slots + 1];
    for point in ring {
        starts[slot(point.place, slots) + 1] += 1;
    }
    for nth in 0..slots {
        starts[nth + 1] += starts[nth];
    }
    starts.into()
}

fn slot(place: u32, slots: usize) -> usize {
    ((u64::from(place) * slots as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::testing::{Pool, keys, picks};

    fn choices(pool: &Pool) -> Vec<usize> {
        let balancer = ConsistentHash::new(&pool.endpoints, Dice::new(1), None);
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
    fn one_of_n_that_goes_moves_a_share_of_the_keys_at_most() {
        for count in 2..=10 {
            let pool = Pool::new(&vec![1; count]);
            let before = choices(&pool);
            for gone in 0..count {
                pool.endpoints[gone].state.set_healthy(false);
                let moved =
                    before.iter().zip(choices(&pool)).filter(|(before, after)| **before != *after).count();
                pool.endpoints[gone].state.set_healthy(true);
                // Its own keys alone, which are about its share.
                assert_eq!(moved, before.iter().filter(|own| **own == gone).count());
                assert!(moved * count < before.len() * 115 / 100, "{moved} of {}, {count}", before.len());
            }
        }
    }

    #[test]
    fn a_search_finds_the_next_point() {
        for weights in [&[1][..], &[1, 2, 3]] {
            let balancer = ConsistentHash::new(&Pool::new(weights).endpoints, Dice::new(1), None);
            let dice = Dice::new(7);
            let places = (0..10_000).map(|_| dice.roll() as u32);
            let edges = balancer.ring.iter().flat_map(|point| [point.place, point.place.wrapping_add(1)]);
            for place in places.chain(edges).chain([0, u32::MAX]) {
                let expected = balancer.ring.partition_point(|point| point.place < place);
                assert_eq!(balancer.search(place), expected, "{place}");
            }
        }
    }

    #[test]
    fn a_ring_is_bounded_and_has_everyone() {
        let weights: Vec<u16> = (1..=1000).collect();
        let ring = ConsistentHash::new(&Pool::new(&weights).endpoints, Dice::new(1), None).ring;
        assert!(ring.len() as u64 <= MOST_POINTS + 1000);
        let present: std::collections::HashSet<_> = ring.iter().map(|point| point.endpoint).collect();
        assert_eq!(present.len(), 1000);
    }

    #[test]
    fn none_is_chosen_where_none_is_usable() {
        let pool = Pool::new(&[1]);
        let balancer = ConsistentHash::new(&pool.endpoints, Dice::new(1), None);
        pool.down(0);
        assert_eq!(balancer.choose(pool.candidates(), PickKey(Some(1))), None);
    }
}
