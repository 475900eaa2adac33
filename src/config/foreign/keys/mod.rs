//! The tables of words for keys: the schema's definition and the words for its map.

mod listeners;
mod middleware;
mod sites;
mod upstreams;

use super::Word;

/// All tables.
pub(super) fn all() -> impl Iterator<Item = &'static (&'static str, &'static [Word])> {
    [sites::WORDS, listeners::WORDS, upstreams::WORDS, middleware::WORDS].into_iter().flatten()
}
