//! One after the other. Endpoints of equal weight take turns; others are passed over in some rounds, so that
//! each gets exactly its share and gets it spread out.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Balancer, Candidates, Dice};
use crate::upstream::{endpoint::Endpoint, key::PickKey};

/// A static stride scheduler, as gRPC's: a counter is all that changes. In round `r` an endpoint of weight `w`
/// has its turn where `w * r` has just passed a multiple of the greatest weight, which happens in exactly `w` of
/// as many rounds as that weight.
#[derive(Debug)]
pub struct RoundRobin {
    turns: Arc<Turns>,
    heaviest: u64,
    dice: Dice,
}

/// How many turns an upstream's endpoints have had, over reloads: else each would begin with the first of them.
#[derive(Debug, Default)]
pub struct Turns(AtomicU64);

impl RoundRobin {
    pub fn new(endpoints: &[Arc<Endpoint>], turns: Arc<Turns>, dice: Dice) -> Self {
        let heaviest = endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).max().unwrap_or(1);
        Self { turns, heaviest, dice }
    }

    fn has_turn(&self, index: u64, round: u64, weight: u64) -> bool {
        // Shifting every other one by half keeps light endpoints from having their turns in the same round.
        let shift = index * (self.heaviest / 2);
        let passed = (weight * (round % self.heaviest) + shift) % self.heaviest;
        passed >= self.heaviest - weight
    }
}

impl Balancer for RoundRobin {
    fn choose(&self, among: Candidates<'_>, _: PickKey) -> Option<usize> {
        let count = among.endpoints.len() as u64;
        // Two rounds hold a turn of the heaviest. Where that one is not usable, chance finds the rest quicker.
        for _ in 0..2 * count {
            let turn = self.turns.0.fetch_add(1, Ordering::Relaxed);
            let index = (turn % count) as usize;
            let weight = u64::from(among.endpoints[index].weight);
            if self.has_turn(turn % count, turn / count, weight) && among.usable(index) {
                return Some(index);
            }
        }
        among.by_weight(&self.dice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::testing::{Pool, picks};

    fn choices(pool: &Pool, count: usize) -> Vec<usize> {
        let balancer = RoundRobin::new(&pool.endpoints, Arc::default(), Dice::new(1));
        (0..count).filter_map(|_| balancer.choose(pool.candidates(), PickKey::NONE)).collect()
    }

    #[test]
    fn equals_take_turns() {
        assert_eq!(choices(&Pool::new(&[1, 1, 1]), 7), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(choices(&Pool::new(&[7, 7]), 4), [0, 1, 0, 1]);
    }

    #[test]
    fn shares_are_exact_and_spread_out() {
        let pool = Pool::new(&[5, 1, 1]);
        let chosen = choices(&pool, 14);
        assert_eq!(picks(3, chosen.iter().copied()), [10, 2, 2]);
        let longest = chosen.chunk_by(|a, b| a == b).map(<[_]>::len).max();
        assert!(longest <= Some(4), "{chosen:?}");
        assert_eq!(picks(4, choices(&Pool::new(&[1, 10, 100, 1000]), 2222)), [2, 20, 200, 2000]);
    }

    #[test]
    fn the_share_of_one_that_is_down_goes_to_all_others() {
        let pool = Pool::new(&[1, 1, 1]);
        pool.down(1);
        assert_eq!(picks(3, choices(&pool, 100)), [50, 0, 50]);
    }

    #[test]
    fn light_ones_share_by_weight_where_the_heaviest_is_down() {
        let pool = Pool::new(&[1000, 1, 2]);
        pool.down(0);
        let picks = picks(3, choices(&pool, 3000));
        assert_eq!(picks[0], 0);
        assert!((900..1100).contains(&picks[1]), "{picks:?}");
    }

    #[test]
    fn none_is_chosen_where_none_is_usable() {
        let pool = Pool::new(&[1, 1]);
        pool.down(0);
        pool.down(1);
        assert!(choices(&pool, 3).is_empty());
    }
}
