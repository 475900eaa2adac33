//! Requests in flight, by key. A key is known as long as a request has it, so that memory is bounded by what is
//! in flight.

use std::{
    collections::HashMap,
    hash::RandomState,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use super::{By, Key};
use crate::middleware::Exchange;

/// The requests of one limit that are in flight.
#[derive(Debug)]
pub struct InFlight {
    by: By,
    /// SipHash, as for buckets.
    seed: RandomState,
    counts: Counts,
    refused: AtomicU64,
}

/// A request's place among those in flight: left when it is dropped.
#[derive(Debug)]
pub struct Permit {
    of: Arc<InFlight>,
    key: Key,
}

#[derive(Debug)]
enum Counts {
    /// All requests are one.
    One(AtomicU32),
    Many(Box<[Mutex<Shard>]>),
}

type Shard = HashMap<Key, u32, foldhash::fast::RandomState>;

const SHARDS: usize = 32;

impl InFlight {
    pub fn new(by: By) -> Self {
        let counts = match by.is_all_together() {
            true => Counts::One(AtomicU32::default()),
            false => Counts::Many((0..SHARDS).map(|_| Mutex::default()).collect()),
        };
        Self { by, seed: RandomState::new(), counts, refused: AtomicU64::default() }
    }

    /// A place for a request, where fewer than `max` of its key are in flight.
    pub fn enter(self: &Arc<Self>, exchange: &Exchange, max: u32) -> Option<Permit> {
        let permit = self.find_place(exchange, max);
        if permit.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        permit
    }

    fn find_place(self: &Arc<Self>, exchange: &Exchange, max: u32) -> Option<Permit> {
        let one_more = |count: u32| (count < max).then(|| count + 1);
        let key = match &self.counts {
            Counts::One(count) => {
                count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
                Key::NONE
            }
            Counts::Many(shards) => {
                let key = self.by.key(exchange, &self.seed);
                let mut shard = lock(shards, key);
                let count = one_more(shard.get(&key).copied().unwrap_or_default())?;
                shard.insert(key, count);
                key
            }
        };
        Some(Permit { of: self.clone(), key })
    }

    fn leave(&self, key: Key) {
        match &self.counts {
            Counts::One(count) => {
                count.fetch_sub(1, Ordering::Relaxed);
            }
            Counts::Many(shards) => {
                let mut shard = lock(shards, key);
                match shard.get_mut(&key) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => drop(shard.remove(&key)),
                }
            }
        }
    }

    /// How many requests were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many keys have requests in flight, and how many these are.
    pub fn held(&self) -> (usize, u64) {
        match &self.counts {
            Counts::One(count) => (1, count.load(Ordering::Relaxed).into()),
            Counts::Many(shards) => shards.iter().fold((0, 0), |(keys, requests), shard| {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                (keys + shard.len(), requests + shard.values().map(|count| u64::from(*count)).sum::<u64>())
            }),
        }
    }
}

fn lock(shards: &[Mutex<Shard>], key: Key) -> MutexGuard<'_, Shard> {
    shards[key.shard(SHARDS)].lock().unwrap_or_else(PoisonError::into_inner)
}

impl Permit {
    /// Whether it is one of these.
    pub fn is_of(&self, in_flight: &Arc<InFlight>) -> bool {
        Arc::ptr_eq(&self.of, in_flight)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of.leave(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(ip: &str) -> Exchange {
        let mut exchange = Exchange::for_tests("GET", "/");
        exchange.client_ip = ip.parse().unwrap();
        exchange
    }

    #[test]
    fn no_more_than_the_most_are_in_and_who_leaves_makes_room() {
        for by in [By::all_together(), By::client_ip()] {
            let in_flight = Arc::new(InFlight::new(by));
            let enter = || in_flight.enter(&exchange("10.0.0.1"), 2);
            let (first, second) = (enter().unwrap(), enter().unwrap());
            assert!(enter().is_none());
            drop(first);
            let third = enter().unwrap();
            assert!(enter().is_none());
            drop((second, third));
            assert!(enter().is_some());
        }
    }

    #[test]
    fn each_key_has_its_own_and_is_forgotten_with_its_last() {
        let in_flight = Arc::new(InFlight::new(By::client_ip()));
        let permits: Vec<_> =
            (0..200).map(|n| in_flight.enter(&exchange(&format!("10.0.0.{}", n % 100)), 2)).collect();
        assert!(permits.iter().all(Option::is_some));
        assert_eq!(in_flight.held().0, 100);
        drop(permits);
        assert_eq!(in_flight.held().0, 0);
    }
}
