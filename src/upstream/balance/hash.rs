//! A key's hash picks a place on the wheel. While the endpoints stay, a key stays with its endpoint; a change of
//! the pool moves most keys, but one endpoint's going down moves only its own.

use std::sync::Arc;

use super::{Balancer, Candidates, Dice, GOLDEN, place, wheel::Wheel};
use crate::upstream::{
    endpoint::Endpoint,
    key::{PickKey, mix},
};

/// How often the key is hashed again where its endpoint cannot be used.
const REHASHES: u64 = 20;

#[derive(Debug)]
pub struct Hash {
    wheel: Wheel,
    dice: Dice,
}

impl Hash {
    pub fn new(endpoints: &[Arc<Endpoint>], dice: Dice) -> Self {
        Self { wheel: Wheel::new(endpoints), dice }
    }
}

impl Balancer for Hash {
    fn choose(&self, among: Candidates<'_>, key: PickKey) -> Option<usize> {
        let key = place(key, &self.dice);
        let places = (0..=REHASHES).map(|nth| mix(key.wrapping_add(nth.wrapping_mul(GOLDEN))));
        // The key decides whether one that starts slowly has it already: it comes once, and stays.
        let takes = |place: &u64| among.takes(self.wheel.at(*place), || mix(*place));
        let found = places.into_iter().find(takes).map(|place| self.wheel.at(place));
        found.or_else(|| among.next_from(self.wheel.at(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::testing::{Pool, assert_shares, keys, picks};

    #[test]
    fn keys_share_by_weight_and_stay() {
        let pool = Pool::new(&[1, 2, 3]);
        let (one, two) = (Hash::new(&pool.endpoints, Dice::new(1)), Hash::new(&pool.endpoints, Dice::new(2)));
        let choose = |hash: &Hash| {
            keys(9000).map(|key| hash.choose(pool.candidates(), key).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(choose(&one), choose(&two));
        assert_shares(&picks(3, choose(&one)), &[1, 2, 3]);
    }

    #[test]
    fn one_down_moves_its_own_keys_to_all_others() {
        let pool = Pool::new(&[1, 1, 1]);
        let hash = Hash::new(&pool.endpoints, Dice::new(1));
        let choose =
            || keys(3000).map(|key| hash.choose(pool.candidates(), key).unwrap()).collect::<Vec<_>>();
        let before = choose();
        pool.down(1);
        let after = choose();
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == 1));
        assert_shares(&picks(3, after), &[1, 0, 1]);
    }

    #[test]
    fn without_a_key_chance_decides() {
        let pool = Pool::new(&[1, 1]);
        let hash = Hash::new(&pool.endpoints, Dice::new(1));
        assert_shares(
            &picks(2, (0..1000).filter_map(|_| hash.choose(pool.candidates(), PickKey::NONE))),
            &[1, 1],
        );
    }

    #[test]
    fn the_last_usable_one_is_found() {
        let pool = Pool::new(&[1000, 1000, 1]);
        let hash = Hash::new(&pool.endpoints, Dice::new(1));
        pool.down(0);
        pool.down(1);
        assert!(keys(50).all(|key| hash.choose(pool.candidates(), key) == Some(2)));
        pool.down(2);
        assert_eq!(hash.choose(pool.candidates(), PickKey(Some(7))), None);
    }
}
