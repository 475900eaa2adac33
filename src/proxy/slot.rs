//! Where a client's session lies while a request of its is carried out: who has to do with it borrows it.

use atomic_refcell::{AtomicRefCell, AtomicRefMut};

use super::downstream::Downstream;

/// Where the session lies. It is borrowed many times for each request, always from the task of that: a lock, which could
/// wait, would cost more.
pub struct Slot<S>(AtomicRefCell<Option<Box<Downstream<S>>>>);

/// The session on loan.
pub type Lent<'a, S> = AtomicRefMut<'a, Downstream<S>>;

impl<S> Slot<S> {
    pub fn new(downstream: Box<Downstream<S>>) -> Self {
        Self(AtomicRefCell::new(Some(downstream)))
    }

    /// The session, unless somebody uses it.
    pub fn try_lend(&self) -> Option<Lent<'_, S>> {
        let content = self.0.try_borrow_mut().ok()?;
        AtomicRefMut::filter_map(content, |content| content.as_deref_mut())
    }

    pub fn lend(&self) -> Lent<'_, S> {
        self.try_lend().expect("one at a time uses the session")
    }

    /// The session for good.
    pub fn take(&self) -> Box<Downstream<S>> {
        self.0.borrow_mut().take().expect("whoever has used the session has given it back")
    }
}
