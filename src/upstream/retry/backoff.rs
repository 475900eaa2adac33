//! The wait between two tries at one endpoint.

use std::time::Duration;

/// It doubles with each retry, up to a bound, and is drawn by chance from zero to that: clients that failed together do not
/// come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(25), most: Duration::from_millis(250) }
    }
}

impl Backoff {
    /// Before the `nth` wait, counted from 0. `chance` is between 0 and 1.
    pub fn wait(&self, nth: u32, chance: f64) -> Duration {
        let bound = self.first.saturating_mul(1 << nth.min(16)).min(self.most);
        bound.mul_f64(chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_bound() {
        let longest = |nth| Backoff::default().wait(nth, 1.0).as_millis();
        assert_eq!([0, 1, 2, 3, 4, 99].map(longest), [25, 50, 100, 200, 250, 250]);
        assert_eq!(Backoff::default().wait(3, 0.0), Duration::ZERO);
    }
}
