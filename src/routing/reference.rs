//! What the table must answer, said as plainly as it can be: sort everything, try one after the other.
//! The table is tested against this.

use std::collections::BTreeSet;

use super::{order::in_order, table::Route};
use crate::matcher::{Facts, Verdict};

/// An answer: the route's index with its captures, the methods allowed, or nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Route(usize, Vec<String>),
    Method(BTreeSet<String>),
    Nothing,
}

/// Tries the patterns in their order. Of those of one pattern the first whose conditions hold is it; if
/// none is, and some fail by the method alone, their methods are the answer; else the next pattern's turn.
pub fn find<R>(routes: &[Route<R>], path: &str, facts: &impl Facts) -> Answer {
    let ordered = in_order(routes);
    for same_pattern in ordered.chunk_by(|a, b| a.place.pattern == b.place.pattern) {
        let mut allowed = BTreeSet::new();
        for placed in same_pattern {
            let route = &routes[placed.at.route];
            let pattern = &route.patterns[placed.at.pattern];
            let Some(captured) = pattern.matches(path) else { continue };
            match route.conditions.check(facts) {
                Verdict::Fails => {}
                Verdict::WrongMethod => {
                    allowed.extend(route.conditions.allowed(facts).iter().map(ToString::to_string))
                }
                Verdict::Holds => {
                    let names = super::captures(&route.patterns).into_iter();
                    let place =
                        |name: &str| pattern.captures().iter().position(|own| **own == *name).unwrap();
                    let texts = names.map(|name| captured[place(name)].clone());
                    let texts = texts.map(|range| path[range.start as usize..range.end as usize].to_owned());
                    return Answer::Route(placed.at.route, texts.collect());
                }
            }
        }
        if !allowed.is_empty() {
            allowed.insert("OPTIONS".to_owned());
            return Answer::Method(allowed);
        }
    }
    Answer::Nothing
}
