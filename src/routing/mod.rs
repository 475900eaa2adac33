//! The routing table: from host, path and conditions to one route. Built once from all hosts, never
//! changed, and as fast with a hundred thousand routes as with ten.
//!
//! The order in which routes are tried is one `Ord`, [`order::Place`]; the table is that order laid out
//! as hash maps and tries.

mod build;
mod find;
mod host;
mod nearest;
pub mod order;
mod pattern;
mod problem;
mod regex;
mod table;
mod trie;

use crate::matcher::path;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use self::{
    build::Builder,
    find::{Allow, Found},
    host::HostPattern,
    nearest::NearMiss,
    order::At,
    path::{PathPattern, Segment},
    pattern::{Pattern, captures},
    problem::Problem,
    regex::PathRegex,
    table::{Host, Listed, Route, Table},
};
