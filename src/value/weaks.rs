//! What is shared while somebody keeps it, found again by its key, and forgotten with its last user.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
};

/// A map that forgets what is no longer used, often enough to stay within twice what is.
pub struct Weaks<K, V> {
    map: HashMap<K, Weak<V>>,
    sweep_at: usize,
}

impl<K: Hash + Eq, V> Weaks<K, V> {
    pub fn find_or(&mut self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        if let Some(known) = self.map.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if self.map.len() >= self.sweep_at {
            self.map.retain(|_, weak| weak.strong_count() > 0);
            self.sweep_at = (self.map.len() * 2).max(64);
        }
        let made = Arc::new(make());
        self.map.insert(key, Arc::downgrade(&made));
        made
    }
}

impl<K, V> Weaks<K, V> {
    pub fn living(&self) -> impl Iterator<Item = Arc<V>> {
        self.map.values().filter_map(Weak::upgrade)
    }
}

impl<K, V> Default for Weaks<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), sweep_at: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_keeps_is_forgotten() {
        let mut weaks = Weaks::default();
        let kept = weaks.find_or(0, || "kept");
        for key in 1..10_000 {
            weaks.find_or(key, || "dropped");
        }
        assert!(weaks.map.len() <= 64, "{}", weaks.map.len());
        assert!(Arc::ptr_eq(&kept, &weaks.find_or(0, || "another")));
    }
}
