//! The order in which the routes of a host are tried.

use std::cmp::Reverse;

use super::{path::Segment, pattern::Pattern, table::Route};
use crate::matcher::Conditions;

/// The place of one pattern of one route; the least is tried first. Two routes of one place are a tie,
/// and an error unless their conditions exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place<'a> {
    pub pattern: PatternPlace<'a>,
    pub conditions: Reverse<usize>,
    pub priority: Reverse<i32>,
    /// At last those for requests that are made to a proxy go before those for any.
    pub to_proxy: Reverse<bool>,
}

/// The place of a pattern: regular expressions of a priority above 0, patterns, the other regular
/// expressions. Patterns go segment by segment from the left, literal before capture before rest, and
/// "/p" before "/p/**". A regular expression's priority counts before its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PatternPlace<'a> {
    RegexBefore { priority: Reverse<i32>, text: &'a str },
    Path(&'a [Segment]),
    RegexAfter { priority: Reverse<i32>, text: &'a str },
}

/// One pattern of one route, by their places in what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct At {
    pub route: usize,
    pub pattern: usize,
}

/// One pattern of one route with its place in the order.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    pub place: Place<'a>,
    pub at: At,
}

/// Every pattern of every route, in the order in which they are tried; a tie keeps the order given.
pub fn in_order<R>(routes: &[Route<R>]) -> Vec<Placed<'_>> {
    let mut placed: Vec<Placed<'_>> = Vec::with_capacity(routes.len());
    for (index, route) in routes.iter().enumerate() {
        placed.extend(route.patterns.iter().enumerate().map(|(pattern, written)| Placed {
            place: Place::new(written, &route.conditions, route.priority),
            at: At { route: index, pattern },
        }));
    }
    placed.sort_by(|a, b| a.place.cmp(&b.place));
    placed
}

impl At {
    pub fn pattern<R>(self, routes: &[Route<R>]) -> &Pattern {
        &routes[self.route].patterns[self.pattern]
    }

    pub fn conditions<R>(self, routes: &[Route<R>]) -> &Conditions {
        &routes[self.route].conditions
    }
}

impl<'a> Place<'a> {
    pub fn new(pattern: &'a Pattern, conditions: &Conditions, priority: i32) -> Self {
        let pattern = PatternPlace::new(pattern, priority);
        Self {
            pattern,
            conditions: Reverse(conditions.count()),
            priority: Reverse(priority),
            to_proxy: Reverse(conditions.are_to_proxy()),
        }
    }
}

impl<'a> PatternPlace<'a> {
    pub fn new(pattern: &'a Pattern, priority: i32) -> Self {
        match pattern {
            Pattern::Path(path) => Self::Path(path.segments()),
            Pattern::Regex(regex) if priority > 0 => {
                Self::RegexBefore { priority: Reverse(priority), text: regex.as_str() }
            }
            Pattern::Regex(regex) => Self::RegexAfter { priority: Reverse(priority), text: regex.as_str() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::conditions;

    fn ordered(lines: &[(&str, &[&str], i32)]) {
        let routes: Vec<(Pattern, Conditions, i32)> = lines
            .iter()
            .map(|(text, words, priority)| {
                let pattern = text.strip_prefix('~').map_or_else(|| Pattern::path(text), Pattern::regex);
                (pattern.unwrap(), conditions(words), *priority)
            })
            .collect();
        let places: Vec<Place> = routes.iter().map(|(p, c, priority)| Place::new(p, c, *priority)).collect();
        for (pair, lines) in places.windows(2).zip(lines.windows(2)) {
            assert!(pair[0] < pair[1], "{lines:?}");
        }
    }

    #[test]
    fn patterns_go_from_the_left_literal_capture_rest() {
        ordered(&[
            ("/", &[], 0),
            ("/a", &[], 0),
            ("/a/b/{x}", &[], 0),
            ("/a/b/**", &[], 0),
            ("/a/{x}", &[], 0),
            ("/a/{x}/c", &[], 0),
            ("/a/{x}/{y}", &[], 0),
            ("/a/{rest...}", &[], 0),
            ("/{x}", &[], 0),
            ("/{x}/b", &[], 0),
            ("/**", &[], 0),
        ]);
    }

    #[test]
    fn routes_of_one_pattern_go_by_conditions_then_priority() {
        ordered(&[
            ("/{a}", &["GET", "header x=1"], 0),
            ("/{b}", &["header x=1"], 5),
            ("/{c}", &["GET"], 1),
            ("/{d}", &[], 9),
            ("/{e}", &[], 0),
        ]);
        ordered(&[("/", &["GET", "query q"], 0), ("/", &["proxy"], 0), ("/", &["GET"], 0), ("/", &[], 9)]);
    }

    #[test]
    fn regexes_go_by_their_priority_around_the_patterns() {
        ordered(&[
            ("~^/z", &[], 2),
            ("~^/b", &["GET"], 1),
            ("~^/b", &[], 1),
            ("/a", &[], -5),
            ("/**", &[], -9),
            ("~^/a", &[], 0),
            ("~^/a", &["GET", "query q"], -1),
        ]);
    }

    #[test]
    fn names_of_captures_make_no_other_pattern() {
        let place = |text| PatternPlace::new(Box::leak(Box::new(Pattern::path(text).unwrap())), 0);
        assert_eq!(place("/p/{a}/{b...}"), place("/p/{x}/**"));
    }
}
