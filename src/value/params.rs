//! What a path captured.

use std::ops::Range;

use smallvec::SmallVec;

/// The ranges of a path that its route's captures took, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(pub SmallVec<[Range<u32>; 4]>);

impl Params {
    /// The text of a capture, of the path that was looked up; empty where it took no part.
    pub fn get<'p>(&self, index: usize, path: &'p str) -> &'p str {
        let range = self.0.get(index).and_then(|range| path.get(range.start as usize..range.end as usize));
        range.unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
