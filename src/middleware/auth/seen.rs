//! Secrets that were found right a moment ago, known again by a keyed hash: neither the secret nor anything that
//! could be tried out elsewhere is kept.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ring::{hmac, rand::SystemRandom};

/// A key of chance, so that nobody outside can tell what a secret's tag is or looks like.
#[derive(Debug)]
pub struct Seal(hmac::Key);

/// What a secret is known by.
pub type Tag = [u8; 32];

/// What was found out about secrets, by their tags: the newest, within a bound.
pub struct Seen<T> {
    seal: Seal,
    shards: [Mutex<Generations<T>>; SHARDS],
}

/// Few enough to cost nothing while empty, enough that cores seldom meet.
const SHARDS: usize = 16;

/// As many in each of a shard's two generations: 4096 in all.
const MOST: usize = 128;

/// What was asked for lately is young; when the young are too many the old ones go and the young grow old.
struct Generations<T> {
    young: HashMap<Tag, T>,
    old: HashMap<Tag, T>,
}

impl Seal {
    pub fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Self(key.expect("the system has a source of random numbers"))
    }

    pub fn tag(&self, secret: &[u8]) -> Tag {
        let mut tag = Tag::default();
        tag.copy_from_slice(hmac::sign(&self.0, secret).as_ref());
        tag
    }
}

impl<T: Clone> Seen<T> {
    pub fn new() -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(Generations::new()));
        Self { seal: Seal::new(), shards }
    }

    pub fn tag(&self, secret: &[u8]) -> Tag {
        self.seal.tag(secret)
    }

    pub fn get(&self, tag: &Tag) -> Option<T> {
        let mut shard = self.shard(tag);
        if let Some(found) = shard.young.get(tag) {
            return Some(found.clone());
        }
        let found = shard.old.remove(tag)?;
        shard.put(*tag, found.clone());
        Some(found)
    }

    pub fn put(&self, tag: Tag, value: T) {
        self.shard(&tag).put(tag, value);
    }

    pub fn forget(&self, tag: &Tag) {
        let mut shard = self.shard(tag);
        shard.young.remove(tag);
        shard.old.remove(tag);
    }

    fn shard(&self, tag: &Tag) -> MutexGuard<'_, Generations<T>> {
        let shard = &self.shards[usize::from(tag[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Generations<T> {
    fn new() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }

    fn put(&mut self, tag: Tag, value: T) {
        if self.young.len() >= MOST {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(tag, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_again() {
        let seen = Seen::new();
        let tag = seen.tag(b"secret");
        assert_eq!(seen.get(&tag), None);
        seen.put(tag, 1);
        assert_eq!((seen.get(&tag), seen.get(&seen.tag(b"other"))), (Some(1), None));
        assert_ne!(tag, Seen::<u8>::new().tag(b"secret"), "each has a key of its own");
        seen.forget(&tag);
        assert_eq!(seen.get(&tag), None);
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_asked_for() {
        let seen = Seen::new();
        let kept = seen.tag(b"kept");
        seen.put(kept, 0);
        for number in 0..100_000_u32 {
            seen.put(seen.tag(&number.to_be_bytes()), number);
            assert_eq!(seen.get(&kept), Some(0));
        }
        let held: usize =
            seen.shards.iter().map(|shard| shard.lock().unwrap()).map(|s| s.young.len() + s.old.len()).sum();
        assert!(held <= 2 * SHARDS * MOST, "{held}");
    }
}
