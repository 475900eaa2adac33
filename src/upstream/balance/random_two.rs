//! The less busy of two drawn by chance: nearly as even as looking at all, at no cost, and without the herd that
//! runs to the one least busy.

use std::sync::Arc;

use super::{Balancer, Candidates, Dice, wheel::Wheel};
use crate::upstream::{endpoint::Endpoint, key::PickKey};

/// How often a draw is repeated that hit an unusable endpoint or the same one again.
const DRAWS: usize = 8;

#[derive(Debug)]
pub struct RandomTwo {
    wheel: Wheel,
    dice: Dice,
}

impl RandomTwo {
    pub fn new(endpoints: &[Arc<Endpoint>], dice: Dice) -> Self {
        Self { wheel: Wheel::new(endpoints), dice }
    }

    /// Draws by weight a usable one that is not `first`.
    fn draw(&self, among: Candidates<'_>, first: Option<usize>) -> Option<usize> {
        let draws = (0..DRAWS).map(|_| self.wheel.at(self.dice.roll()));
        draws.into_iter().find(|index| Some(*index) != first && among.takes(*index, || self.dice.roll()))
    }
}

impl Balancer for RandomTwo {
    fn choose(&self, among: Candidates<'_>, _: PickKey) -> Option<usize> {
        let Some(first) = self.draw(among, None) else { return among.by_weight(&self.dice) };
        let Some(second) = self.draw(among, Some(first)) else { return Some(first) };
        let (a, b) = (&among.endpoints[first], &among.endpoints[second]);
        // Requests for each unit of weight, without dividing. A tie goes to the first, which was drawn by weight.
        let first_is_busier = a.state.load() * b.weight_now() > b.state.load() * a.weight_now();
        Some(if first_is_busier { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::testing::{Pool, assert_shares, picks};

    fn choices(pool: &Pool, count: usize) -> Vec<u32> {
        let balancer = RandomTwo::new(&pool.endpoints, Dice::new(1));
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
    fn the_busier_of_two_is_passed_over() {
        let pool = Pool::new(&[1, 1]);
        pool.load(0, 3);
        pool.load(1, 2);
        assert!(choices(&pool, 1000)[0] < 20);
    }

    #[test]
    fn busy_is_measured_by_weight() {
        let pool = Pool::new(&[10, 1]);
        pool.load(0, 15);
        pool.load(1, 2);
        let picks = choices(&pool, 1000);
        assert!(picks[0] > 980, "{picks:?}");
    }

    #[test]
    fn a_lone_light_one_is_found_among_heavy_ones_that_are_down() {
        let pool = Pool::new(&[1000, 1000, 1]);
        pool.down(0);
        pool.down(1);
        assert_eq!(choices(&pool, 50), [0, 0, 50]);
        pool.down(2);
        assert_eq!(choices(&pool, 1), [0, 0, 0]);
    }
}
