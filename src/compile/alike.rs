//! What many routes have alike is in memory once: of a hundred thousand, most lead to few upstreams in few ways.

use std::{cell::RefCell, sync::Arc};

/// Parts of routes, the last that were seen.
pub(super) struct Alike<T: ?Sized>(RefCell<Vec<Arc<T>>>);

/// As many are compared with.
const MOST: usize = 8;

impl<T: ?Sized> Alike<T> {
    /// The same part as before, where there was one; else this one.
    pub fn share(&self, part: Arc<T>, is_same: impl Fn(&T, &T) -> bool) -> Arc<T> {
        let mut seen = self.0.borrow_mut();
        if let Some(at) = seen.iter().position(|before| is_same(before, &part)) {
            return seen[at].clone();
        }
        if seen.len() == MOST {
            seen.remove(0);
        }
        seen.push(part.clone());
        part
    }
}

impl<T: ?Sized> Default for Alike<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_is_one() {
        let alike = Alike::<u32>::default();
        let one = alike.share(Arc::new(1), u32::eq);
        assert!(Arc::ptr_eq(&one, &alike.share(Arc::new(1), u32::eq)));
        (2..100).for_each(|n| drop(alike.share(Arc::new(n), u32::eq)));
        assert!(!Arc::ptr_eq(&one, &alike.share(Arc::new(1), u32::eq)), "it was seen long ago");
        assert_eq!(alike.0.borrow().len(), MOST);
    }
}
