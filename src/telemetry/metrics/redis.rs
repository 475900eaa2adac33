//! What is counted of Redis and of what is decided by its word.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use super::{Families, NONE};

/// What is asked of a Redis, and what comes of it.
#[derive(Debug)]
pub struct Redis {
    /// A limit let a request pass.
    pub passed: IntCounter,
    /// A limit refused a request.
    pub refused: IntCounter,
    /// A limit had to decide without.
    pub unavailable: IntCounter,
    errors: [(&'static str, IntCounter); 3],
    duration: Histogram,
}

impl Redis {
    pub(super) fn new(families: &Families) -> Self {
        let decisions = |outcome| families.shared_decisions.with_label_values(&[outcome]);
        let errors = ["timeout", "connection", "reply"];
        Self {
            passed: decisions("passed"),
            refused: decisions("refused"),
            unavailable: decisions("unavailable"),
            errors: errors.map(|cause| (cause, families.redis_errors.with_label_values(&[cause]))),
            duration: families.redis_duration.with_label_values(NONE),
        }
    }

    pub fn answered(&self, after: Duration) {
        self.duration.observe(after.as_secs_f64());
    }

    /// There was no answer, or it was an error.
    pub fn failed(&self, cause: &str) {
        self.errors.iter().filter(|(known, _)| *known == cause).for_each(|(_, counter)| counter.inc());
    }
}
