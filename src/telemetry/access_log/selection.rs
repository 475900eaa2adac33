//! Which requests are logged.

use std::time::Duration;

use http::StatusCode;

use crate::{error::Reason, value::Percent};

/// Every slow one, every one that went wrong, and a share of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Those that take at least so long.
    pub slow: Option<Duration>,
    /// Those with a status of 400 or more, or with a reason.
    pub errors: bool,
    /// How many of the others.
    pub sample: Percent,
}

/// That a request which begins may be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Whatever becomes of it.
    Always,
    /// If it turns out slow or wrong.
    IfNotable,
}

impl Selection {
    /// Decides about a request that begins. `None`: it is not logged.
    pub fn choose(&self) -> Option<Chosen> {
        let notable = self.errors || self.slow.is_some();
        match self.sample {
            Percent(100..) => Some(Chosen::Always),
            Percent(share) if share > 0 && fastrand::u8(..100) < share => Some(Chosen::Always),
            _ => notable.then_some(Chosen::IfNotable),
        }
    }

    /// Decides about a request that has ended.
    pub fn takes(
        &self,
        chosen: Chosen,
        status: StatusCode,
        reason: Option<Reason>,
        duration: Duration,
    ) -> bool {
        chosen == Chosen::Always
            || self.slow.is_some_and(|slow| duration >= slow)
            || (self.errors && (status.as_u16() >= 400 || reason.is_some()))
    }
}

impl Default for Selection {
    fn default() -> Self {
        Self { slow: None, errors: false, sample: Percent(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: StatusCode = StatusCode::OK;

    /// Whether a request that was not among the sample is logged.
    fn takes(selection: Selection, status: StatusCode, reason: Option<Reason>, millis: u64) -> bool {
        selection.takes(Chosen::IfNotable, status, reason, Duration::from_millis(millis))
    }

    #[test]
    fn all_are_logged_unless_something_is_said() {
        assert_eq!(Selection::default().choose(), Some(Chosen::Always));
        assert!(Selection::default().takes(Chosen::Always, OK, None, Duration::ZERO));
    }

    #[test]
    fn what_is_slow_or_wrong_is_logged_whatever_the_sample() {
        let none = Selection { sample: Percent(0), ..Selection::default() };
        assert_eq!(none.choose(), None);
        let slow = Selection { slow: Some(Duration::from_millis(500)), ..none };
        let errors = Selection { errors: true, ..none };
        let both = Selection { errors: true, ..slow };
        for selection in [slow, errors, both] {
            assert_eq!(selection.choose(), Some(Chosen::IfNotable));
            assert!(!takes(selection, OK, None, 499));
        }
        assert!(takes(slow, OK, None, 500) && takes(both, OK, None, 500) && !takes(errors, OK, None, 500));
        assert!(takes(errors, StatusCode::NOT_FOUND, None, 0) && takes(both, StatusCode::NOT_FOUND, None, 0));
        assert!(takes(errors, OK, Some(Reason::UpstreamClosed), 0), "cut short after its head");
        assert!(!takes(slow, StatusCode::NOT_FOUND, None, 0));
    }

    #[test]
    fn a_share_is_chosen_by_chance() {
        let tenth = Selection { sample: Percent(10), ..Selection::default() };
        let chosen = (0..100_000).filter(|_| tenth.choose().is_some()).count();
        // Ten standard deviations to each side.
        assert!((9_000..11_000).contains(&chosen), "{chosen}");
    }
}
