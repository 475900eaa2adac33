//! Why other routes were not chosen: for people who ask, so it need not be quick.

use super::{
    path::{PathPattern, Segment},
    pattern::Pattern,
    table::{Listed, Table},
};
use crate::{matcher::Facts, value::Name};

/// A route that nearly matched, and the conditions that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    pub route: Name,
    pub pattern: String,
    /// Why the path does not match, where it does not.
    pub path: Option<String>,
    /// The conditions that are not met.
    pub failed: Vec<String>,
}

/// How many are told.
const FEW: usize = 5;

impl<R> Table<R> {
    /// The routes nearest to a request that they do not match: those whose path matches first, those with
    /// fewest conditions failing among them, then those whose paths have most in common with the request's.
    pub fn nearest(&self, host: &str, path: &str, facts: &impl Facts) -> Vec<NearMiss> {
        let Some(host) = self.host_named(host) else { return Vec::new() };
        let mut misses: Vec<(usize, usize, NearMiss)> = Vec::new();
        for listed in self.host(host).listed() {
            let (missing, difference) = compare(listed.pattern, path);
            let failed: Vec<String> = listed.route.conditions.failed(facts);
            let failures = usize::from(difference.is_some()) + failed.len();
            if failures > 0 && missing < UNLIKE {
                misses.push((missing, failures, near_miss(listed, difference, failed)));
            }
        }
        misses.sort_by_key(|(missing, failed, _)| (*missing, *failed));
        misses.into_iter().map(|(_, _, miss)| miss).take(FEW).collect()
    }
}

/// The distance of paths that have nothing in common.
const UNLIKE: usize = usize::MAX;

fn near_miss<R>(listed: Listed<'_, R>, path: Option<String>, failed: Vec<String>) -> NearMiss {
    NearMiss { route: listed.route.name.clone(), pattern: listed.pattern.to_string(), path, failed }
}

/// How far a pattern is from a path, 0 where it matches, and in words why it does not.
fn compare(pattern: &Pattern, path: &str) -> (usize, Option<String>) {
    if pattern.matches(path).is_some() {
        return (0, None);
    }
    match pattern {
        Pattern::Regex(_) => (UNLIKE, None),
        Pattern::Path(pattern) if pattern.is_root() => {
            let difference = "\"/\" matches only \"/\", \"/**\" matches everything below it";
            (path.split('/').count(), Some(difference.to_owned()))
        }
        Pattern::Path(pattern) => compare_segments(pattern, path),
    }
}

fn compare_segments(pattern: &PathPattern, path: &str) -> (usize, Option<String>) {
    let given: Vec<&str> = path[1..].split('/').collect();
    let wanted = pattern.segments();
    let fits = |(segment, given): &(&Segment, &&str)| match segment {
        Segment::Literal(text) => **text == ***given,
        Segment::Capture => !given.is_empty(),
        Segment::Rest => true,
    };
    let common = wanted.iter().zip(&given).take_while(fits).count();
    let literal = |segment: &Segment| matches!(segment, Segment::Literal(text) if !text.is_empty());
    let differs_in_case = match (wanted.get(common), given.get(common)) {
        (Some(Segment::Literal(text)), Some(given)) => text.eq_ignore_ascii_case(given),
        _ => false,
    };
    if !wanted[..common].iter().any(literal) && !differs_in_case {
        return (UNLIKE, None);
    }
    let difference = match (wanted.get(common), given.get(common)) {
        (Some(Segment::Literal(text)), Some(given)) if differs_in_case => {
            format!("path has {given:?} where {text:?} is wanted: upper and lower case differ")
        }
        (Some(Segment::Literal(text)), Some(given)) => format!("path has {given:?} where {text:?} is wanted"),
        (Some(_), Some(_)) => "path has an empty segment where a capture is".to_owned(),
        (Some(_), None) => "path ends too early".to_owned(),
        (None, _) => format!("path goes on with {:?}", format!("/{}", given[common..].join("/"))),
    };
    let missing = wanted.len().max(given.len()) - common;
    (missing, Some(difference))
}
