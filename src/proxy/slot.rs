//! Where a client's session lies while a request of its is carried out: who has to do with it borrows it.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::downstream::Downstream;

/// Where the session lies while nobody uses it.
pub struct Slot<S>(Mutex<Option<Box<Downstream<S>>>>);

/// The session on loan. It goes back where it was when this is dropped.
pub struct Lent<'a, S> {
    slot: &'a Slot<S>,
    downstream: Option<Box<Downstream<S>>>,
}

impl<S> Slot<S> {
    pub fn new(downstream: Box<Downstream<S>>) -> Self {
        Self(Mutex::new(Some(downstream)))
    }

    fn content(&self) -> MutexGuard<'_, Option<Box<Downstream<S>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, unless somebody uses it.
    pub fn try_lend(&self) -> Option<Lent<'_, S>> {
        let downstream = self.content().take()?;
        Some(Lent { slot: self, downstream: Some(downstream) })
    }

    pub fn lend(&self) -> Lent<'_, S> {
        self.try_lend().expect("one at a time uses the session")
    }

    /// The session for good.
    pub fn take(&self) -> Box<Downstream<S>> {
        self.content().take().expect("whoever has used the session has given it back")
    }
}

impl<S> Deref for Lent<'_, S> {
    type Target = Downstream<S>;

    fn deref(&self) -> &Downstream<S> {
        self.downstream.as_ref().expect("it is given back in drop alone")
    }
}

impl<S> DerefMut for Lent<'_, S> {
    fn deref_mut(&mut self) -> &mut Downstream<S> {
        self.downstream.as_mut().expect("it is given back in drop alone")
    }
}

impl<S> Drop for Lent<'_, S> {
    fn drop(&mut self) {
        *self.slot.content() = self.downstream.take();
    }
}
