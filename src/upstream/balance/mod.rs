//! Choosing an endpoint. One file per way; all skip endpoints that are unhealthy or tried, honour weights,
//! take no lock and allocate nothing.

mod consistent_hash;
mod ewma;
mod hash;
mod least_requests;
mod random_two;
mod round_robin;
mod wheel;

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    endpoint::{Endpoint, FULL},
    key::{PickKey, mix},
    pick::Tried,
    settings::Balance,
};

pub use round_robin::Turns;

/// A way to choose.
pub trait Balancer: fmt::Debug + Send + Sync {
    fn choose(&self, among: Candidates<'_>, key: PickKey) -> Option<usize>;
}

/// What may be chosen: of the pool's endpoints those that are usable and not tried.
#[derive(Clone, Copy)]
pub struct Candidates<'a> {
    pub endpoints: &'a [Arc<Endpoint>],
    pub tried: &'a Tried,
    /// Flags of endpoints that keep no requests away.
    pub despite: u8,
}

/// Chance without a lock: SplitMix64 over a shared counter.
#[derive(Debug)]
pub struct Dice(AtomicU64);

/// So many endpoints are compared one by one. Of more, some are drawn: the cost of a choice does not grow with them.
const FEW: usize = 16;

/// The odd number nearest 2^64 divided by the golden ratio: its multiples spread evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The balancer for a pool of these endpoints, which goes on with the turns that they had.
pub fn balancer(balance: &Balance, endpoints: &[Arc<Endpoint>], turns: Arc<Turns>) -> Box<dyn Balancer> {
    let dice = Dice::new(RandomState::new().hash_one(()));
    match balance {
        Balance::RoundRobin => Box::new(round_robin::RoundRobin::new(endpoints, turns, dice)),
        Balance::RandomTwo => Box::new(random_two::RandomTwo::new(endpoints, dice)),
        Balance::LeastRequests => Box::new(least_requests::LeastRequests::new(endpoints, dice)),
        Balance::Ewma => Box::new(ewma::Ewma::new(endpoints, dice)),
        Balance::Hash(_) => Box::new(hash::Hash::new(endpoints, dice)),
        Balance::ConsistentHash(_) => Box::new(consistent_hash::ConsistentHash::new(endpoints, dice, None)),
        Balance::BoundedHash(_, bound) => {
            Box::new(consistent_hash::ConsistentHash::new(endpoints, dice, Some(*bound)))
        }
    }
}

// === impl Candidates ===

impl<'a> Candidates<'a> {
    pub fn usable(self, index: usize) -> bool {
        self.endpoints[index].is_usable_despite(self.despite) && !self.tried.has(&self.endpoints[index])
    }

    /// Whether a choice that goes by the whole weights may fall on it: on one that starts slowly it may now and then.
    pub fn takes(self, index: usize, roll: impl FnOnce() -> u64) -> bool {
        if !self.usable(index) {
            return false;
        }
        match self.endpoints[index].share() {
            FULL => true,
            share => roll() % FULL < share,
        }
    }

    /// All of them, where they are few enough to be compared one by one.
    pub fn are_few(self) -> bool {
        self.endpoints.len() <= FEW
    }

    pub fn iter(self) -> impl Iterator<Item = (usize, &'a Endpoint)> {
        let all = self.endpoints.iter().enumerate();
        all.filter(move |(index, _)| self.usable(*index)).map(|(index, endpoint)| (index, &**endpoint))
    }

    /// The first usable one from `start` on, around the end.
    pub fn next_from(self, start: usize) -> Option<usize> {
        let count = self.endpoints.len();
        (start..start + count).map(|at| at % count).find(|index| self.usable(*index))
    }

    /// One by chance, each as likely as its share says. One pass: a later one replaces the choice so far with
    /// the probability of its share in all seen.
    pub fn by_share(self, dice: &Dice, share: impl Fn(&Endpoint) -> f64) -> Option<usize> {
        let mut total = 0.0;
        let mut chosen = None;
        for (index, endpoint) in self.iter() {
            let share = share(endpoint);
            total += share;
            if dice.roll_unit() * total < share {
                chosen = Some(index);
            }
        }
        chosen
    }

    pub fn by_weight(self, dice: &Dice) -> Option<usize> {
        self.by_share(dice, |endpoint| endpoint.weight_now() as f64)
    }
}

// === impl Dice ===

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub fn roll(&self) -> u64 {
        mix(self.0.fetch_add(GOLDEN, Ordering::Relaxed))
    }

    /// From 0, and below 1.
    pub fn roll_unit(&self) -> f64 {
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Where a key leads on a wheel or ring; a request without one goes anywhere.
fn place(key: PickKey, dice: &Dice) -> u64 {
    key.0.unwrap_or_else(|| dice.roll())
}

fn common_divisor(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod testing;
