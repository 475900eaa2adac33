//! The endpoint with the fewest requests in flight for its weight. Among equals, such as all that are idle,
//! chance decides by weight.

use super::{Balancer, Candidates, Dice};
use crate::upstream::{endpoint::Endpoint, key::PickKey};

#[derive(Debug)]
pub struct LeastRequests {
    dice: Dice,
}

impl LeastRequests {
    pub fn new(dice: Dice) -> Self {
        Self { dice }
    }
}

impl Balancer for LeastRequests {
    fn choose(&self, among: Candidates<'_>, _: PickKey) -> Option<usize> {
        let mut best: Option<(usize, Load)> = None;
        let mut tied = 0;
        for (index, endpoint) in among.iter() {
            let load = Load::of(endpoint);
            let order = best.map_or(std::cmp::Ordering::Less, |(_, least)| load.cmp(least));
            tied = match order {
                std::cmp::Ordering::Less => 0,
                std::cmp::Ordering::Equal => tied,
                std::cmp::Ordering::Greater => continue,
            } + load.weight;
            // The first of its kind always replaces, a further one with the probability of its share so far.
            if order.is_lt() || self.dice.roll() % tied < load.weight {
                best = Some((index, load));
            }
        }
        best.map(|(index, _)| index)
    }
}

/// Requests in flight for each unit of weight. Read once: it changes meanwhile.
#[derive(Clone, Copy)]
struct Load {
    in_flight: u64,
    weight: u64,
}

impl Load {
    fn of(endpoint: &Endpoint) -> Self {
        Self { in_flight: endpoint.state.in_flight().into(), weight: endpoint.weight.into() }
    }

    fn cmp(self, other: Self) -> std::cmp::Ordering {
        (self.in_flight * other.weight).cmp(&(other.in_flight * self.weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::testing::{Pool, assert_shares, picks};

    fn choices(pool: &Pool, count: usize) -> Vec<u32> {
        let balancer = LeastRequests::new(Dice::new(1));
        picks(
            pool.endpoints.len(),
            (0..count).filter_map(|_| balancer.choose(pool.candidates(), PickKey::NONE)),
        )
    }

    #[test]
    fn idle_endpoints_share_by_weight() {
        assert_shares(&choices(&Pool::new(&[1, 2, 3, 4]), 10_000), &[1, 2, 3, 4]);
    }

    #[test]
    fn the_least_busy_for_its_weight_is_chosen() {
        let pool = Pool::new(&[1, 4, 1]);
        pool.load(0, 1);
        pool.load(1, 3);
        pool.load(2, 5);
        assert_eq!(choices(&pool, 10), [0, 10, 0]);
        pool.down(1);
        assert_eq!(choices(&pool, 10), [10, 0, 0]);
    }

    #[test]
    fn requests_that_last_fill_endpoints_by_weight() {
        let pool = Pool::new(&[1, 2, 5]);
        let balancer = LeastRequests::new(Dice::new(1));
        for _ in 0..800 {
            pool.load(balancer.choose(pool.candidates(), PickKey::NONE).unwrap(), 1);
        }
        let loads: Vec<_> = pool.endpoints.iter().map(|endpoint| endpoint.state.in_flight()).collect();
        assert_eq!(loads, [100, 200, 500]);
    }
}
