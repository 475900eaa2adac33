//! Which side a request goes to, and why.

use std::fmt;

use super::{By, Phase, Side, Split, canary::TRIAL_SHARE};
use crate::{
    http::cookie,
    matcher::{Facts, Verdict},
    upstream::{self, hash_of, mix},
};

/// A side, by its place, and why it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub side: usize,
    pub why: Why,
}

/// Why a side was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// The request meets its conditions.
    Conditions,
    /// A cookie names it.
    Cookie,
    /// The key's hash is this point in [0, 1).
    Key(f64),
    /// It was drawn.
    Chance,
}

impl Eq for Why {}

/// What can be said of a request beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Side(Chosen),
    /// Chance decides: between the sides with a weight.
    Chance,
}

/// Sets a user's side apart from the endpoint that balancers choose by the same key.
const OF_SIDES: u64 = 0x7370_6c69_7473_6964;
/// The same for what decides whether a canary on trial takes a request, and where it goes else.
const OF_TRIALS: u64 = 0x6361_6e61_7279_7472;
const OF_OTHERS: u64 = 0x6f74_6865_7273_6964;

impl Split {
    /// Chooses a side. `roll`: chance.
    pub fn choose(&self, head: &impl Facts, facts: &upstream::Facts<'_>, roll: u64) -> Chosen {
        let chosen = match self.decide(head, facts) {
            Decision::Side(chosen) => chosen,
            Decision::Chance => Chosen { side: self.at(roll, Side::has_weight), why: Why::Chance },
        };
        let Some((_, state)) = &self.sides[chosen.side].canary else { return chosen };
        let point = match chosen.why {
            Why::Key(_) => self.point(facts).unwrap_or(roll),
            _ => roll,
        };
        let is_taken = match state.phase() {
            Phase::Steady => true,
            Phase::Trial => mix(point ^ OF_TRIALS) < u64::MAX / TRIAL_SHARE,
            Phase::SteppedBack => false,
        };
        if is_taken {
            return chosen;
        }
        // The users of the other sides stay where they are.
        let side = self.at(mix(point ^ OF_OTHERS), |side| side.is_lasting());
        Chosen { side, why: if let Why::Key(_) = chosen.why { chosen.why } else { Why::Chance } }
    }

    /// What can be said of a request, whatever canaries do.
    pub fn decide(&self, head: &impl Facts, facts: &upstream::Facts<'_>) -> Decision {
        let meets = |side: &Side| {
            side.conditions.as_ref().is_some_and(|conditions| conditions.check(head) == Verdict::Holds)
        };
        if let Some(side) = self.sides.iter().position(meets) {
            return Decision::Side(Chosen { side, why: Why::Conditions });
        }
        match &self.by {
            By::Chance => Decision::Chance,
            By::Key(_) => self.point(facts).map_or(Decision::Chance, |point| {
                let why = Why::Key(point as f64 / u64::MAX as f64);
                Decision::Side(Chosen { side: self.at(point, Side::has_weight), why })
            }),
            By::Cookie(name, _) => {
                let mut named = cookie::values(facts.headers, name.as_str());
                let named = named.find_map(|value| {
                    let is_it = |side: &Side| side.has_weight() && side.name.as_str().as_bytes() == value;
                    self.sides.iter().position(is_it)
                });
                named.map_or(Decision::Chance, |side| Decision::Side(Chosen { side, why: Why::Cookie }))
            }
        }
    }

    /// A user's point among 2^64.
    fn point(&self, facts: &upstream::Facts<'_>) -> Option<u64> {
        let By::Key(key) = &self.by else { return None };
        hash_of(key, facts).map(|hash| mix(hash ^ OF_SIDES))
    }

    /// The side at a point, among these alone.
    fn at(&self, point: u64, among: impl Fn(&Side) -> bool) -> usize {
        let weight = |side: &Side| if among(side) { u128::from(side.weight) } else { 0 };
        let total: u128 = self.sides.iter().map(weight).sum();
        let mut place = (u128::from(point) * total) >> 64;
        let found = self.sides.iter().position(|side| match weight(side) {
            weight if place < weight => true,
            weight => {
                place -= weight;
                false
            }
        });
        found.unwrap_or(0)
    }
}

impl Side {
    fn has_weight(&self) -> bool {
        self.weight > 0
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conditions => f.write_str("its conditions hold"),
            Self::Cookie => f.write_str("the cookie names it"),
            Self::Key(point) => write!(f, "the key is at {point:.4} of 1"),
            Self::Chance => f.write_str("by chance"),
        }
    }
}
