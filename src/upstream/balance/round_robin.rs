//! One after the other. An endpoint has as many turns in a round as its weight says, and has them spread out. A
//! retry takes no turn: if it did, the requests after it would begin with the same endpoint again and again.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Balancer, Candidates, Dice, GOLDEN, common_divisor, wheel::Wheel};
use crate::upstream::{endpoint::Endpoint, key::PickKey};

/// A counter of turns is all that changes.
#[derive(Debug)]
pub struct RoundRobin {
    turns: Arc<Turns>,
    order: Order,
    dice: Dice,
}

/// How many turns an upstream's endpoints have had, over reloads: else each would begin with the first of them.
#[derive(Debug, Default)]
pub struct Turns(AtomicU64);

/// Whose turn it is.
#[derive(Debug)]
enum Order {
    /// Of so many that weigh the same.
    Equal(u64),
    /// A round, turn by turn.
    Round(Box<[u32]>),
    /// A round would be too long: multiples of the golden ratio fall evenly on the wheel, and shares come out nearly as exact.
    Wheel(Wheel),
}

/// A round has at most so many turns.
const LONGEST: u64 = 2048;

/// So many turns of unusable endpoints are passed over before chance finds a usable one quicker.
const MOST_SKIPS: u64 = 32;

impl RoundRobin {
    pub fn new(endpoints: &[Arc<Endpoint>], turns: Arc<Turns>, dice: Dice) -> Self {
        Self { turns, order: Order::new(endpoints), dice }
    }
}

impl Balancer for RoundRobin {
    fn choose(&self, among: Candidates<'_>, _: PickKey) -> Option<usize> {
        if !among.tried.is_empty() {
            let turn = self.turns.0.load(Ordering::Relaxed);
            return among.next_from(self.order.at(turn));
        }
        for _ in 0..MOST_SKIPS {
            let index = self.order.at(self.turns.0.fetch_add(1, Ordering::Relaxed));
            if among.takes(index, || self.dice.roll()) {
                return Some(index);
            }
        }
        among.by_weight(&self.dice)
    }
}

impl Order {
    fn new(endpoints: &[Arc<Endpoint>]) -> Self {
        let divisor = endpoints.iter().fold(0, |divisor, endpoint| common_divisor(divisor, endpoint.weight));
        let weights: Vec<i64> =
            endpoints.iter().map(|endpoint| i64::from(endpoint.weight / divisor.max(1))).collect();
        let total: i64 = weights.iter().sum();
        match total as u64 {
            total if total == endpoints.len() as u64 => Self::Equal(total),
            LONGEST.. => Self::Wheel(Wheel::new(endpoints)),
            _ => Self::Round(round(&weights, total)),
        }
    }

    fn at(&self, turn: u64) -> usize {
        match self {
            Self::Equal(count) => (turn % count) as usize,
            Self::Round(round) => round[(turn % round.len() as u64) as usize] as usize,
            Self::Wheel(wheel) => wheel.at(turn.wrapping_mul(GOLDEN)),
        }
    }
}

/// Smooth weighted round robin, as nginx's: in each turn all gain their weights, and the one that has most pays for all.
fn round(weights: &[i64], total: i64) -> Box<[u32]> {
    let mut gains = vec![0; weights.len()];
    let turns = (0..total).map(|_| {
        let mut most = 0;
        for (index, weight) in weights.iter().enumerate() {
            gains[index] += weight;
            if gains[index] > gains[most] {
                most = index;
            }
        }
        gains[most] -= total;
        most as u32
    });
    turns.collect()
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
    fn a_retry_takes_no_turn() {
        let pool = Pool::new(&[1, 1]);
        let balancer = RoundRobin::new(&pool.endpoints, Arc::default(), Dice::new(1));
        let firsts: Vec<_> = (0..6)
            .map(|_| {
                let first = balancer.choose(pool.candidates(), PickKey::NONE).unwrap();
                let second = balancer.choose(pool.candidates_after(first), PickKey::NONE);
                assert_eq!(second, Some(1 - first));
                first
            })
            .collect();
        assert_eq!(firsts, [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn long_rounds_are_nearly_as_exact() {
        let weights: Vec<u16> = (1..=100).collect();
        let picks = picks(100, choices(&Pool::new(&weights), 50_500));
        for (got, weight) in picks.iter().zip(weights) {
            assert!(got.abs_diff(u32::from(weight) * 10) <= 3, "{picks:?}");
        }
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
