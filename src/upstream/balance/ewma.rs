//! By chance, the faster and the less busy the likelier; one that would take half as long again as the best gets
//! nothing. Its average fades, so that it is asked again in time.
//!
//! Of many endpoints three are drawn by weight and compared: a slow one is then chosen only among slow ones.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Balancer, Candidates, Dice, FEW, wheel::Wheel};
use crate::upstream::{
    endpoint::{Endpoint, FULL},
    key::PickKey,
};

/// Response times below this are equal: there is more noise than difference in them.
const FLOOR: Duration = Duration::from_micros(100);

/// What an endpoint of unknown speed counts as once a request is on its way to tell: others wait for the answer.
const UNKNOWN: Duration = Duration::from_secs(1);

/// What a cost may be of the least one.
const COMPARABLE: f32 = 1.5;

const DRAWS: usize = 3;

#[derive(Debug)]
pub struct Ewma {
    wheel: Wheel,
    dice: Dice,
}

/// Endpoints to be compared, with their costs and their chances among equals.
#[derive(Default)]
struct Compared {
    list: [(u32, f32, f32); FEW],
    count: usize,
}

impl Ewma {
    pub fn new(endpoints: &[Arc<Endpoint>], dice: Dice) -> Self {
        Self { wheel: Wheel::new(endpoints), dice }
    }
}

impl Balancer for Ewma {
    fn choose(&self, among: Candidates<'_>, _: PickKey) -> Option<usize> {
        let now = among.endpoints.first()?.state.clock().now();
        let mut compared = Compared::default();
        if among.are_few() {
            for (index, endpoint) in among.iter() {
                compared.add(index, cost(endpoint, now), endpoint.weight_now() as f32);
            }
            return compared.choose(&self.dice);
        }
        for _ in 0..DRAWS {
            let index = self.wheel.at(self.dice.roll());
            if among.takes(index, || self.dice.roll()) {
                compared.add(index, cost(&among.endpoints[index], now), 1.0);
            }
        }
        compared.choose(&self.dice).or_else(|| among.by_weight(&self.dice))
    }
}

impl Compared {
    fn add(&mut self, index: usize, cost: f32, chance: f32) {
        self.list[self.count] = (index as u32, cost, chance);
        self.count += 1;
    }

    /// The square makes one that costs a fifth more a third less likely.
    fn choose(&self, dice: &Dice) -> Option<usize> {
        let list = &self.list[..self.count];
        let least = list.iter().fold(f32::INFINITY, |least, (_, cost, _)| least.min(*cost));
        let share = |cost: f32, chance: f32| match cost <= least * COMPARABLE {
            true => chance * (least / cost) * (least / cost),
            false => 0.0,
        };
        let total: f32 = list.iter().map(|(_, cost, chance)| share(*cost, *chance)).sum();
        let mut left = dice.roll_unit() as f32 * total;
        let mut chosen = None;
        for (index, cost, chance) in list {
            let share = share(*cost, *chance);
            if share > 0.0 {
                chosen = Some(*index as usize);
                if left < share {
                    break;
                }
                left -= share;
            }
        }
        chosen
    }
}

/// How long a request would take, those before it included.
fn cost(endpoint: &Endpoint, now: Instant) -> f32 {
    let in_flight = endpoint.state.in_flight();
    let latency = match endpoint.state.latency_at(now) {
        Some(latency) if latency > FLOOR => latency,
        Some(_) => FLOOR,
        None if in_flight == 0 => FLOOR,
        None => UNKNOWN,
    };
    let weight = endpoint.weight_now() as f32 / FULL as f32;
    latency.as_secs_f32() * (1.0 + in_flight as f32 / weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::testing::{Pool, assert_shares, picks};

    fn answered(pool: &Pool, endpoint: &Endpoint, millis: u64) {
        endpoint.state.answered(http::StatusCode::OK, pool.clock.now(), Duration::from_millis(millis));
    }

    fn choices(pool: &Pool, count: usize) -> Vec<u32> {
        let balancer = Ewma::new(&pool.endpoints, Dice::new(1));
        picks(
            pool.endpoints.len(),
            (0..count).filter_map(|_| balancer.choose(pool.candidates(), PickKey::NONE)),
        )
    }

    #[test]
    fn equally_fast_ones_share_by_weight() {
        let pool = Pool::new(&[1, 2, 3]);
        pool.endpoints.iter().for_each(|endpoint| answered(&pool, endpoint, 20));
        assert_shares(&choices(&pool, 9000), &[1, 2, 3]);
    }

    #[test]
    fn the_slower_is_less_likely_and_the_slow_or_busy_gets_nothing() {
        let pool = Pool::new(&[1, 1, 1, 1]);
        for (endpoint, millis) in pool.endpoints.iter().zip([40, 50, 80, 40]) {
            answered(&pool, endpoint, millis);
        }
        pool.load(3, 1);
        assert_shares(&choices(&pool, 8200), &[25, 16, 0, 0]);
    }

    #[test]
    fn an_unknown_one_is_asked_once_and_then_waited_for() {
        let pool = Pool::new(&[1, 1]);
        answered(&pool, &pool.endpoints[0], 20);
        assert!(choices(&pool, 100)[1] > 95);
        pool.load(1, 1);
        assert!(choices(&pool, 100)[1] < 5);
    }

    #[test]
    fn one_that_fails_is_avoided_and_asked_again_in_time() {
        let pool = Pool::new(&[1, 1]);
        answered(&pool, &pool.endpoints[0], 20);
        pool.endpoints[1].state.failed();
        assert!(choices(&pool, 100)[1] < 5);
        pool.clock.advance(Duration::from_secs(200));
        answered(&pool, &pool.endpoints[0], 20);
        assert!(choices(&pool, 100)[1] > 95);
    }
}
