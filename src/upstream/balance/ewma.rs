//! By chance, the faster and the less busy the likelier. Taking always the fastest would send everything to
//! one endpoint until it is the slowest, and would never hear of the others again.

use std::time::Duration;

use super::{Balancer, Candidates, Dice};
use crate::upstream::{endpoint::Endpoint, key::PickKey};

/// Response times below this are equal: there is more noise than difference in them.
const FLOOR: Duration = Duration::from_micros(100);

/// What an endpoint of unknown speed counts as once a request is on its way to tell: others wait for the answer.
const UNKNOWN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Ewma {
    dice: Dice,
}

impl Ewma {
    pub fn new(dice: Dice) -> Self {
        Self { dice }
    }
}

impl Balancer for Ewma {
    fn choose(&self, among: Candidates<'_>, _: PickKey) -> Option<usize> {
        among.by_share(&self.dice, share)
    }
}

/// The square makes twice as slow a quarter as likely.
fn share(endpoint: &Endpoint) -> f64 {
    let weight = f64::from(endpoint.weight);
    let in_flight = endpoint.state.in_flight();
    let latency = match endpoint.state.latency() {
        Some(latency) if latency > FLOOR => latency,
        Some(_) => FLOOR,
        None if in_flight == 0 => FLOOR,
        None => UNKNOWN,
    };
    let cost = latency.as_secs_f64() * (1.0 + f64::from(in_flight) / weight);
    weight / (cost * cost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::testing::{Pool, assert_shares, picks};

    fn answered(pool: &Pool, endpoint: &Endpoint, millis: u64) {
        endpoint.state.answered(http::StatusCode::OK, pool.clock.now(), Duration::from_millis(millis));
    }

    fn choices(pool: &Pool, count: usize) -> Vec<u32> {
        let balancer = Ewma::new(Dice::new(1));
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
    fn twice_as_slow_or_busy_is_a_quarter_as_likely() {
        let pool = Pool::new(&[1, 1, 1]);
        answered(&pool, &pool.endpoints[0], 20);
        answered(&pool, &pool.endpoints[1], 40);
        answered(&pool, &pool.endpoints[2], 20);
        pool.load(2, 1);
        assert_shares(&choices(&pool, 9000), &[4, 1, 1]);
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
