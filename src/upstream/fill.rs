//! Keeps connections to an endpoint ready (`pool.min`).

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{connections::Connector, endpoint::Endpoint};

/// What a task needs to keep connections ready. Those that serve from the endpoint share it.
#[derive(Debug)]
pub struct Filler {
    endpoint: Endpoint,
    connector: Arc<Connector>,
    /// Whether its task was handed out.
    runs: AtomicBool,
}

/// Opens connections to an endpoint where fewer than `min` are open. It keeps nothing alive, and ends with its endpoint.
#[derive(Debug)]
pub struct FillTask(Weak<Filler>);

/// How often connections are counted.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause where connections fail.
const LONGEST: Duration = Duration::from_secs(30);
/// Between two connections.
const BETWEEN: Duration = Duration::from_millis(20);

impl Filler {
    pub fn new(endpoint: Endpoint, connector: Arc<Connector>) -> Self {
        Self { endpoint, connector, runs: AtomicBool::new(false) }
    }
}

impl FillTask {
    /// The task of an endpoint, unless there is one already.
    pub(super) fn claim(filler: &Arc<Filler>) -> Option<Self> {
        let claimed = !filler.runs.swap(true, Ordering::Relaxed);
        claimed.then(|| Self(Arc::downgrade(filler)))
    }

    pub async fn run(self) {
        // The first connections come soon, but not those of all endpoints at once.
        let mut wait = PAUSE / 4;
        loop {
            tokio::time::sleep(jittered(wait)).await;
            let Some(filler) = self.0.upgrade() else { return };
            wait = match fill(&filler.endpoint, &filler.connector).await {
                true => PAUSE,
                false => (wait * 2).min(LONGEST),
            };
        }
    }
}

/// Says whether every connection could be made.
async fn fill(endpoint: &Endpoint, connector: &Connector) -> bool {
    let route = endpoint.route("", None);
    let open = route.connections.count(route.protocol);
    for _ in open..route.pool.min as usize {
        if !endpoint.is_usable() {
            return true;
        }
        if let Err(error) = connector.fill(&route, endpoint.peer("", None)).await {
            tracing::debug!(endpoint = &*endpoint.shown, %error, "no connection could be made to be kept ready");
            return false;
        }
        tokio::time::sleep(jittered(BETWEEN)).await;
    }
    true
}

/// From half of it to the whole.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.5 + fastrand::f64() / 2.0)
}
