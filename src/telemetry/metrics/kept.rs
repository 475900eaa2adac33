//! What counts, by its names. Whoever serves by it holds it as well; what nobody else holds is forgotten
//! with its series.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Families;

/// Has series.
pub(super) trait Counts {
    /// Takes its series away.
    fn forget(&self, families: &Families);
}

pub(super) struct Kept<K, V> {
    families: Arc<Families>,
    known: Mutex<Known<K, V>>,
}

struct Known<K, V> {
    map: HashMap<K, Arc<V>, foldhash::fast::RandomState>,
    sweep_at: usize,
}

/// Fewer are not worth looking through.
const FEW: usize = 64;

impl<K: Hash + Eq, V: Counts> Kept<K, V> {
    pub fn new(families: &Arc<Families>) -> Self {
        let known = Known { map: HashMap::default(), sweep_at: FEW };
        Self { families: families.clone(), known: Mutex::new(known) }
    }

    pub fn find_or(&self, key: K, make: impl FnOnce(&K) -> V) -> Arc<V> {
        let mut known = self.known();
        if let Some(found) = known.map.get(&key) {
            return found.clone();
        }
        if known.map.len() >= known.sweep_at {
            self.forget_unused(&mut known);
        }
        let made = Arc::new(make(&key));
        known.map.insert(key, made.clone());
        made
    }

    pub fn sweep(&self) {
        self.forget_unused(&mut self.known());
    }

    /// Nobody can come to hold what is held here alone: that takes the lock.
    fn forget_unused(&self, known: &mut Known<K, V>) {
        known.map.retain(|_, value| {
            let is_used = Arc::strong_count(value) > 1;
            if !is_used {
                value.forget(&self.families);
            }
            is_used
        });
        known.sweep_at = (known.map.len() * 2).max(FEW);
    }

    fn known(&self) -> MutexGuard<'_, Known<K, V>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
