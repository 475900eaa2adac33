//! What the streams of one HTTP/2 connection share: whether it takes more of them, whether the origin's SETTINGS are known,
//! and whether the connection still leads to the origin, which a PING finds out (RFC 9113 section 6.7).

use std::{
    future::Future,
    ops::Deref,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::{
    sync::{Notify, OwnedMutexGuard, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

/// The state of a connection.
#[derive(Default)]
pub(super) struct Shared {
    /// It gets no more streams.
    closed: AtomicBool,
    /// The origin did not answer a PING.
    given_up: AtomicBool,
    /// Streams that are open.
    open: AtomicUsize,
    /// A stream was opened since somebody looked.
    opened: AtomicBool,
    /// Something came or went on a stream since somebody looked.
    moved: AtomicBool,
    /// Whether the origin's SETTINGS are known, or will never be.
    settings: watch::Sender<bool>,
    /// Ends the connection.
    driver: OnceLock<AbortHandle>,
    /// Told when a stream ends, once somebody waits for that.
    freed: OnceLock<Arc<Notify>>,
}

/// A reference that counts as a stream.
pub(super) struct Open(Arc<Shared>);

/// How long others wait to share a connection whose origin does not say how many streams it allows.
const SETTINGS: Duration = Duration::from_secs(1);
/// Streams that wait in silence for so long have the connection checked.
const SILENCE: Duration = Duration::from_secs(5);
/// The connection is given up where nothing comes for so long after a PING.
const PONG: Duration = Duration::from_secs(10);
/// So many times `SILENCE` lie between two PINGs in one silence: there are origins that close a connection for more.
const AGAIN: u32 = 60;

// === impl Shared ===

impl Shared {
    /// Runs a connection until it ends by itself or is given up. `turn` is held until the origin's SETTINGS are known.
    pub(super) fn run(
        self: &Arc<Self>,
        connection: impl Future<Output = Result<(), h2::Error>> + Send + 'static,
        ping: Option<PingPong>,
        turn: Option<OwnedMutexGuard<()>>,
    ) {
        let watching = ping.map(|ping| tokio::spawn(self.clone().watch(ping, turn)).abort_handle());
        let ended = Ended(self.clone(), watching);
        let driver = tokio::spawn(async move {
            let _ended = ended;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP/2 connection to an endpoint ended");
            }
        });
        let _ = self.driver.set(driver.abort_handle());
    }

    async fn watch(self: Arc<Self>, mut ping: PingPong, turn: Option<OwnedMutexGuard<()>>) {
        // Its SETTINGS go before all else that the origin sends (RFC 9113 section 3.4), the answer to a PING too.
        {
            let mut answer = pin!(ping.ping(Ping::opaque()));
            let in_time = timeout(SETTINGS, &mut answer).await.is_ok();
            drop(turn);
            if !in_time && !self.is_answered(answer).await {
                return;
            }
            self.settings.send_replace(true);
        }
        let mut silent = 0;
        loop {
            sleep(SILENCE).await;
            silent = if self.is_silent() { silent + 1 } else { 0 };
            let is_due = silent % AGAIN == 1;
            if is_due && !self.is_answered(pin!(ping.ping(Ping::opaque()))).await {
                return;
            }
        }
    }

    /// Waits for the answer to a PING. Gives the connection up where the origin does not answer while streams wait for it.
    async fn is_answered<T>(&self, mut answer: impl Future<Output = Result<T, h2::Error>> + Unpin) -> bool {
        loop {
            match timeout(PONG, &mut answer).await {
                Ok(answered) => return answered.is_ok(),
                // The answer may stand behind much that is on its way.
                Err(_) if !self.is_silent() => {}
                Err(_) => {
                    self.given_up.store(true, Ordering::Relaxed);
                    self.close();
                    if let Some(driver) = self.driver.get() {
                        driver.abort();
                    }
                    return false;
                }
            }
        }
    }

    /// Whether all streams have waited in silence since somebody asked.
    fn is_silent(&self) -> bool {
        let opened = self.opened.swap(false, Ordering::Relaxed);
        let moved = self.moved.swap(false, Ordering::Relaxed);
        !opened && !moved && self.open_streams() > 0
    }

    /// Something came or went on a stream.
    pub(super) fn moved(&self) {
        if !self.moved.load(Ordering::Relaxed) {
            self.moved.store(true, Ordering::Relaxed);
        }
    }

    /// The connection gets no more streams.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether the origin did not answer a PING.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    pub(super) fn tell(&self, freed: &Arc<Notify>) {
        self.freed.get_or_init(|| freed.clone());
    }

    pub(super) fn open_streams(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Ends when the origin's SETTINGS are known, or the connection has ended.
    pub(super) fn settings(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let mut settings = self.settings.subscribe();
        async move { drop(settings.wait_for(|known| *known).await) }
    }

    /// Counts another stream.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        if !self.opened.load(Ordering::Relaxed) {
            self.opened.store(true, Ordering::Relaxed);
        }
        Open(self.clone())
    }
}

// === impl Open ===

impl Deref for Open {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        if let Some(freed) = self.0.freed.get() {
            freed.notify_one();
        }
    }
}

/// Says so when the connection has ended, however it did.
struct Ended(Arc<Shared>, Option<AbortHandle>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.close();
        self.0.settings.send_replace(true);
        if let Some(watching) = &self.1 {
            watching.abort();
        }
    }
}
