//! The endpoint with the fewest requests in flight for its weight, those counted that failed lately. Among equals,
//! such as all that are idle, chance decides by weight.
//!
//! Of many endpoints five are drawn by weight, and the least busy of them is chosen; an idle one at once. The busiest
//! has then hardly more than the mean (with 1,000 endpoints at 8 requests each none has more than 10), at a cost
//! that does not grow with them, and several proxies do not run to the one endpoint that all hold for the least busy.

use std::{cmp::Ordering, sync::Arc};

use super::{Balancer, Candidates, Dice, wheel::Wheel};
use crate::upstream::{endpoint::Endpoint, key::PickKey};

const DRAWS: usize = 5;

#[derive(Debug)]
pub struct LeastRequests {
    wheel: Wheel,
    dice: Dice,
}

impl LeastRequests {
    pub fn new(endpoints: &[Arc<Endpoint>], dice: Dice) -> Self {
        Self { wheel: Wheel::new(endpoints), dice }
    }

    fn of_all(&self, among: Candidates<'_>) -> Option<usize> {
        let mut best: Option<(usize, Load)> = None;
        let mut tied = 0;
        for (index, endpoint) in among.iter() {
            let load = Load::of(endpoint);
            let order = best.map_or(Ordering::Less, |(_, least)| load.cmp(least));
            tied = match order {
                Ordering::Less => 0,
                Ordering::Equal => tied,
                Ordering::Greater => continue,
            } + load.weight;
            // The first of its kind always replaces, a further one with the probability of its share so far.
            if order.is_lt() || self.dice.roll() % tied < load.weight {
                best = Some((index, load));
            }
        }
        best.map(|(index, _)| index)
    }

    fn of_drawn(&self, among: Candidates<'_>) -> Option<usize> {
        let mut best: Option<(usize, Load)> = None;
        for _ in 0..DRAWS {
            let index = self.wheel.at(self.dice.roll());
            if !among.takes(index, || self.dice.roll()) {
                continue;
            }
            let load = Load::of(&among.endpoints[index]);
            if load.busy == 0 {
                return Some(index);
            }
            // A tie goes to the first, which was drawn by weight.
            if best.is_none_or(|(_, least)| load.cmp(least).is_lt()) {
                best = Some((index, load));
            }
        }
        best.map(|(index, _)| index)
    }
}

impl Balancer for LeastRequests {
    fn choose(&self, among: Candidates<'_>, _: PickKey) -> Option<usize> {
        let drawn = if among.are_few() { None } else { self.of_drawn(among) };
        drawn.or_else(|| self.of_all(among))
    }
}

/// Requests for each unit of weight. Read once: it changes meanwhile.
#[derive(Clone, Copy)]
struct Load {
    busy: u64,
    weight: u64,
}

impl Load {
    fn of(endpoint: &Endpoint) -> Self {
        Self { busy: endpoint.state.load(), weight: endpoint.weight_now() }
    }

    fn cmp(self, other: Self) -> Ordering {
        (self.busy * other.weight).cmp(&(other.busy * self.weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::testing::{Pool, assert_shares, picks};

    fn choices(pool: &Pool, count: usize) -> Vec<u32> {
        let balancer = LeastRequests::new(&pool.endpoints, Dice::new(1));
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
        let balancer = LeastRequests::new(&pool.endpoints, Dice::new(1));
        for _ in 0..800 {
            pool.load(balancer.choose(pool.candidates(), PickKey::NONE).unwrap(), 1);
        }
        let loads: Vec<_> = pool.endpoints.iter().map(|endpoint| endpoint.state.in_flight()).collect();
        assert_eq!(loads, [100, 200, 500]);
    }
}
