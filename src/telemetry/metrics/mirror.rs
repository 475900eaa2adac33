//! What is counted of copies of requests that are sent to an upstream.

use prometheus::IntCounter;

use super::{Families, kept::Counts};
use crate::value::Name;

/// Copies that are sent to an upstream, and what comes of them.
#[derive(Debug)]
pub struct Mirror {
    name: Name,
    pub sent: IntCounter,
    pub failed: IntCounter,
    /// By cause.
    dropped: [IntCounter; DROP_CAUSES.len()],
}

/// Why a copy is not sent.
const DROP_CAUSES: [&str; 3] = ["in_flight", "body_too_large", "incomplete"];

impl Mirror {
    pub(super) fn new(name: &Name, families: &Families) -> Self {
        let values = [name.as_str()];
        Self {
            sent: families.mirror_sent.with_label_values(&values),
            failed: families.mirror_failed.with_label_values(&values),
            dropped: DROP_CAUSES.map(|cause| families.mirror_dropped.with_label_values(&[values[0], cause])),
            name: name.clone(),
        }
    }

    /// A copy is not sent, for one of [`DROP_CAUSES`].
    pub fn dropped(&self, cause: &str) {
        if let Some(place) = DROP_CAUSES.iter().position(|known| *known == cause) {
            self.dropped[place].inc();
        }
    }
}

impl Counts for Mirror {
    fn forget(&self, families: &Families) {
        let values = [self.name.as_str()];
        let _ = families.mirror_sent.remove_label_values(&values);
        let _ = families.mirror_failed.remove_label_values(&values);
        for cause in DROP_CAUSES {
            let _ = families.mirror_dropped.remove_label_values(&[values[0], cause]);
        }
    }
}
