//! Watching one endpoint's health: checks in a loop, and the thresholds that turn their results into a verdict.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::{
    key,
    probe::{Prober, Target},
    settings::Health,
    state::EndpointState,
};
use crate::value::{Address, Name};

/// How one endpoint is checked. Snapshots share it while nothing of it changes; its task ends with it.
pub struct Checker {
    upstream: Name,
    address: Address,
    health: Health,
    state: Arc<EndpointState>,
    target: Target,
    prober: Arc<Prober>,
    /// Why the last check failed, where it did.
    failed: Mutex<Option<Arc<str>>>,
    /// Whether a task was handed out that has not ended.
    runs: AtomicBool,
    /// Dropped with the checker, by which its task learns at once that it is gone.
    alive: watch::Sender<()>,
}

/// A health check to be spawned. It keeps nothing alive, and ends when its endpoint or its settings go.
#[derive(Debug)]
pub struct HealthTask {
    checker: Weak<Checker>,
    alive: watch::Receiver<()>,
}

/// Results in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    /// That speak against the verdict.
    against: u16,
    /// That passed while it was ejected.
    passed: u16,
}

// === impl Checker ===

impl Checker {
    pub fn new(
        upstream: Name,
        address: Address,
        health: Health,
        state: Arc<EndpointState>,
        target: Target,
        prober: Arc<Prober>,
    ) -> Self {
        let (runs, alive) = (AtomicBool::new(false), watch::Sender::new(()));
        Self { upstream, address, health, state, target, prober, failed: Mutex::default(), runs, alive }
    }

    /// Why the last check failed; `None` where it passed, or was not done yet.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn check(&self, streak: &mut Streak) {
        let result = self.prober.check(&self.health.probe, &self.target);
        let result = tokio::time::timeout(self.health.timeout, result)
            .await
            .unwrap_or_else(|_| Err(format!("no answer in {:?}", self.health.timeout)));
        let failed = result.as_ref().err().map(|reason| reason.as_str().into());
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        self.end_ejection(streak, result.is_ok());
        if streak.turns(self.state.is_healthy(), result.is_ok(), &self.health) {
            self.state.set_healthy(result.is_ok());
            self.log(result);
        }
    }

    /// As many good checks in a row as make it healthy end an ejection: they say more than the time that it was to last.
    fn end_ejection(&self, streak: &mut Streak, passed: bool) {
        streak.passed = if passed && self.state.ejected_for().is_some() { streak.passed + 1 } else { 0 };
        if streak.passed >= self.health.healthy_after {
            streak.passed = 0;
            self.state.end_ejection(true);
            let (upstream, endpoint) = (self.upstream.as_str(), self.address.to_string());
            tracing::info!(upstream, endpoint, reason = "checks pass", "endpoint is no longer ejected");
        }
    }

    /// Waits for the next check. It comes early where requests fail, but no more than ten times as often.
    async fn pause(state: &EndpointState, wait: Duration) {
        let least = wait / 10;
        tokio::time::sleep(least).await;
        tokio::select! {
            () = tokio::time::sleep(wait - least) => {}
            () = state.suspected() => {}
        }
    }

    fn log(&self, result: Result<(), String>) {
        let (upstream, endpoint) = (self.upstream.as_str(), self.address.to_string());
        match result {
            Ok(()) => tracing::info!(
                upstream,
                endpoint,
                healthy = true,
                reason = "checks pass",
                "endpoint is healthy"
            ),
            Err(reason) => {
                tracing::warn!(upstream, endpoint, healthy = false, reason, "endpoint is unhealthy")
            }
        }
    }

    /// The first pause is a part of the interval that differs by endpoint, so that checks do not come in bursts.
    fn first_pause(&self) -> Duration {
        let place = key::hash(format!("{} {}", self.upstream, self.address).as_bytes()) as u32;
        self.health.interval.mul_f64(f64::from(place) / f64::from(u32::MAX))
    }
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.health)
    }
}

// === impl HealthTask ===

impl HealthTask {
    /// The checker's task, unless there is one already.
    pub(super) fn claim(checker: &Arc<Checker>) -> Option<Self> {
        let claimed = !checker.runs.swap(true, Ordering::Relaxed);
        claimed.then(|| Self { checker: Arc::downgrade(checker), alive: checker.alive.subscribe() })
    }

    /// Checks, pauses, and so on, until the checker is gone.
    pub async fn run(mut self) {
        let checker = self.checker.clone();
        let checks = async {
            let mut streak = Streak::default();
            let mut pause = None;
            loop {
                let Some(checker) = checker.upgrade() else { return };
                checker.check(&mut streak).await;
                let next = pause.get_or_insert_with(|| checker.first_pause());
                let wait = std::mem::replace(next, checker.health.interval);
                let state = checker.state.clone();
                drop(checker);
                Checker::pause(&state, wait).await;
            }
        };
        tokio::select! {
            () = checks => {}
            _ = self.alive.changed() => {}
        }
    }
}

impl Drop for HealthTask {
    fn drop(&mut self) {
        if let Some(checker) = self.checker.upgrade() {
            checker.runs.store(false, Ordering::Relaxed);
        }
    }
}

// === impl Streak ===

impl Streak {
    /// Takes a result in, and says whether the verdict turns.
    fn turns(&mut self, healthy: bool, passed: bool, health: &Health) -> bool {
        let needed = if passed { health.healthy_after } else { health.unhealthy_after };
        self.against = if passed == healthy { 0 } else { self.against + 1 };
        let turns = self.against >= needed;
        if turns {
            self.against = 0;
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::settings::Probe;

    #[test]
    fn only_results_in_a_row_turn_the_verdict() {
        let health = Health {
            probe: Probe::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 2,
        };
        let mut streak = Streak::default();
        let mut healthy = true;
        // (the check's result, the verdict after it)
        for (step, (passed, verdict)) in [
            (true, true),
            (false, true),
            (false, true),
            (true, true),
            (false, true),
            (false, true),
            (false, false),
            (false, false),
            (true, false),
            (false, false),
            (true, false),
            (true, true),
            (true, true),
        ]
        .into_iter()
        .enumerate()
        {
            healthy ^= streak.turns(healthy, passed, &health);
            assert_eq!(healthy, verdict, "step {step}");
        }
    }
}
