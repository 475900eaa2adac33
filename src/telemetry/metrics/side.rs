//! What is counted of the sides of splits.

use prometheus::{IntCounter, IntGauge};

use super::{Families, kept::Counts};
use crate::value::Name;

/// Where a split is written, and a side's name.
pub(super) type Key = (String, Name);

/// Why canaries step back.
const CAUSES: [&str; 2] = ["failures", "latency"];

/// The requests that go to one side of a split.
#[derive(Debug)]
pub struct Side {
    key: Key,
    requests: IntCounter,
    state: IntGauge,
    /// By cause.
    step_backs: [IntCounter; CAUSES.len()],
}

impl Side {
    pub(super) fn new(key: &Key, families: &Families) -> Self {
        let values = [key.0.as_str(), key.1.as_str()];
        Self {
            requests: families.split_requests.with_label_values(&values),
            state: families.canary_state.with_label_values(&values),
            step_backs: CAUSES
                .map(|cause| families.canary_step_backs.with_label_values(&[values[0], values[1], cause])),
            key: key.clone(),
        }
    }

    /// A request goes there.
    pub fn chosen(&self) {
        self.requests.inc();
    }

    /// The canary stepped back, for one of [`CAUSES`].
    pub fn stepped_back(&self, cause: &str) {
        if let Some(place) = CAUSES.iter().position(|known| *known == cause) {
            self.step_backs[place].inc();
        }
    }

    /// How the canary does at the moment: 0 (steady), 1 (on trial) or 2 (stepped back).
    pub fn show(&self, state: i64) {
        self.state.set(state);
    }
}

impl Counts for Side {
    fn forget(&self, families: &Families) {
        let values = [self.key.0.as_str(), self.key.1.as_str()];
        let _ = families.split_requests.remove_label_values(&values);
        let _ = families.canary_state.remove_label_values(&values);
        for cause in CAUSES {
            let _ = families.canary_step_backs.remove_label_values(&[values[0], values[1], cause]);
        }
    }
}
