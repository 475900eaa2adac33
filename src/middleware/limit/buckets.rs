//! Buckets by key. What is kept of a key is a hash with a seed of this process's own, and only as long as its
//! bucket is not full.
//!
//! Memory is bounded: a limit keeps at most 1.8 million keys in at most 36 MiB. Keys whose buckets are full again
//! are forgotten each time a shard has doubled, so that what is kept stays within twice what has to be. Where all
//! that room is taken by buckets that are not full, the quarter that lacks least is forgotten.

use std::{
    collections::HashMap,
    hash::RandomState,
    mem,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{
    bucket::{self, Quota, Refused, Taken},
    key::{By, Key},
};
use crate::{middleware::Exchange, value::Clock};

/// The buckets of one limit.
#[derive(Debug)]
pub struct Buckets {
    clock: Clock,
    began: Instant,
    by: By,
    /// SipHash: nobody shall find another one's key and empty its bucket.
    seed: RandomState,
    kept: Kept,
    refused: AtomicU64,
}

#[derive(Debug)]
enum Kept {
    /// All requests are one.
    One(AtomicU64),
    Many(Box<[RwLock<Shard>]>),
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<Key, AtomicU64, foldhash::fast::RandomState>,
    sweep_at: usize,
}

const SHARDS: usize = 32;

/// What a shard's table holds before it would double to more than a megabyte.
const MOST: usize = (1 << 16) / 8 * 7;
const LEAST: usize = 64;

impl Buckets {
    pub fn new(clock: Clock, by: By) -> Self {
        let kept = match by.is_all_together() {
            true => Kept::One(AtomicU64::default()),
            false => Kept::Many((0..SHARDS).map(|_| RwLock::default()).collect()),
        };
        Self { began: clock.now(), clock, by, seed: RandomState::new(), kept, refused: AtomicU64::default() }
    }

    /// The key of a request.
    pub fn key(&self, exchange: &Exchange) -> Key {
        match self.kept {
            Kept::One(_) => Key::NONE,
            Kept::Many(_) => self.by.key(exchange, &self.seed),
        }
    }

    /// The key of something else than a request.
    pub fn key_of(&self, bytes: &[u8]) -> Key {
        Key::of(bytes, &self.seed)
    }

    pub fn take(&self, key: Key, quota: &Quota) -> Result<Taken, Refused> {
        let now = self.now();
        let said = self.with(key, now, |bucket| quota.take(bucket, now));
        if said.is_err() {
            self.count_refusal();
        }
        said
    }

    /// Whether the request's key can be told already.
    pub fn is_key_known(&self, exchange: &Exchange) -> bool {
        self.by.is_known(exchange)
    }

    /// Whether a request with this key would be refused. Nothing is counted.
    pub fn look(&self, key: Key, quota: &Quota) -> Option<Refused> {
        let now = self.now();
        match &self.kept {
            Kept::One(bucket) => quota.look(bucket, now),
            Kept::Many(shards) => {
                let shard = shards[key.shard(SHARDS)].read().unwrap_or_else(PoisonError::into_inner);
                quota.look(shard.buckets.get(&key)?, now)
            }
        }
    }

    /// Counts a request that was refused by the word of somebody else.
    pub fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many keys are kept.
    pub fn keys(&self) -> usize {
        match &self.kept {
            Kept::One(_) => 1,
            Kept::Many(shards) => {
                let shards = shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner));
                shards.map(|shard| shard.buckets.len()).sum()
            }
        }
    }

    pub fn give_back(&self, key: Key, quota: &Quota, taken: Taken) {
        let now = self.now();
        self.with(key, now, |bucket| quota.give_back(bucket, taken, now));
    }

    fn now(&self) -> u64 {
        bucket::time(self.clock.now().duration_since(self.began).as_nanos())
    }

    fn with<R>(&self, key: Key, now: u64, act: impl Fn(&AtomicU64) -> R) -> R {
        let shards = match &self.kept {
            Kept::One(bucket) => return act(bucket),
            Kept::Many(shards) => shards,
        };
        let shard = &shards[key.shard(SHARDS)];
        if let Some(bucket) = shard.read().unwrap_or_else(PoisonError::into_inner).buckets.get(&key) {
            return act(bucket);
        }
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        shard.make_room(now);
        act(shard.buckets.entry(key).or_default())
    }

    /// How many keys are kept, and how many the tables have room for.
    #[cfg(test)]
    fn kept(&self) -> (usize, usize) {
        let Kept::Many(shards) = &self.kept else { return (1, 1) };
        let shards = || shards.iter().map(|shard| shard.read().unwrap());
        let kept = shards().map(|shard| shard.buckets.len()).sum();
        (kept, shards().map(|shard| shard.buckets.capacity()).sum())
    }
}

impl Shard {
    /// Forgets keys, where it has doubled since it did so last. What is kept goes to a table of its own: one with
    /// places left behind in it would grow beyond its bound.
    fn make_room(&mut self, now: u64) {
        if self.buckets.len() < self.sweep_at.max(LEAST) {
            return;
        }
        let all = mem::take(&mut self.buckets).into_iter();
        let all = all.map(|(key, full_at)| (key, full_at.into_inner()));
        let mut kept: Vec<(Key, u64)> = all.filter(|(_, full_at)| *full_at > now).collect();
        forget_the_fullest(&mut kept);
        self.sweep_at = (kept.len() * 2).clamp(LEAST, MOST);
        self.buckets.reserve(self.sweep_at);
        self.buckets.extend(kept.into_iter().map(|(key, full_at)| (key, AtomicU64::new(full_at))));
    }
}

/// Leaves a quarter of the room free.
fn forget_the_fullest(kept: &mut Vec<(Key, u64)>) {
    let excess = kept.len().saturating_sub(MOST / 4 * 3);
    if excess > 0 {
        kept.select_nth_unstable_by_key(excess, |(_, full_at)| *full_at);
        kept.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn quota(rate: &str, burst: u32) -> Quota {
        Quota::new(rate.parse().unwrap(), burst.try_into().unwrap()).unwrap()
    }

    fn by_client() -> By {
        By::for_tests(&["client_ip"])
    }

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let buckets = Buckets::new(Clock::manual(), by_client());
        let (quota, [a, b]) = (quota("1/s", 1), [b"a", b"b"].map(|key| buckets.key_of(key)));
        assert!(buckets.take(a, &quota).is_ok() && buckets.take(a, &quota).is_err());
        assert!(buckets.take(b, &quota).is_ok());
    }

    #[test]
    fn a_million_keys_are_kept_until_their_buckets_are_full() {
        let (clock, quota) = (Clock::manual(), quota("1/h", 1));
        let buckets = Buckets::new(clock.clone(), by_client());
        let take = |number: u32| buckets.take(buckets.key_of(&number.to_le_bytes()), &quota).is_ok();
        assert!((0..1_000_000).all(take));
        assert!(!(0..1_000_000).step_by(997).any(take), "they are all known");
        clock.advance(Duration::from_secs(3601));
        assert!((1_000_000..3_000_000).step_by(2).all(take));
        let (kept, room) = buckets.kept();
        assert!(kept <= 1_100_000 && room <= MOST * SHARDS, "{kept} in {room}");
    }

    #[test]
    fn what_is_kept_has_a_bound_that_the_emptiest_outlast() {
        let buckets = Buckets::new(Clock::manual(), by_client());
        let (quota, greedy) = (quota("10/h", 10), buckets.key_of(b"greedy"));
        (0..10).for_each(|_| assert!(buckets.take(greedy, &quota).is_ok()));
        for number in 0..4_000_000u32 {
            assert!(buckets.take(buckets.key_of(&number.to_le_bytes()), &quota).is_ok());
        }
        let (kept, room) = buckets.kept();
        assert!(kept <= room && room <= MOST * SHARDS, "{kept} in {room}");
        assert!(buckets.take(greedy, &quota).is_err());
    }
}
