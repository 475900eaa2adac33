//! The accept loop: one task per socket, which a reload hands new settings but never disturbs.

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, sync::oneshot, task::JoinHandle};

use super::{connection, live::Live, proxy_protocol, socket::Listening, stream::Io};
use crate::{http::connection::Peer, proxy::session::Handler, value::Bind};

/// A socket whose connections are accepted. Dropping it is [`Accepting::stop`] without the waiting.
#[derive(Debug)]
pub struct Accepting {
    local: Bind,
    live: Arc<ArcSwap<Live>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// How long to wait after an error that lasts, as when there are no more file descriptors.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
const MOST_PAUSE: Duration = Duration::from_secs(1);

struct Loop<H> {
    local: Bind,
    live: Arc<ArcSwap<Live>>,
    handler: Arc<H>,
}

// === impl Accepting ===

impl Accepting {
    /// Starts to accept, on this runtime.
    pub fn start<H: Handler>(runtime: &Handle, socket: Listening, live: Arc<Live>, handler: Arc<H>) -> Self {
        let local = socket.local().clone();
        let live = Arc::new(ArcSwap::new(live));
        let (stop, stopped) = oneshot::channel();
        let accepting = Loop { local: local.clone(), live: live.clone(), handler };
        let task = runtime.spawn(accepting.run(socket, stopped));
        Self { local, live, stop, task }
    }

    /// The address, with the port that was given where 0 was asked for.
    pub fn local(&self) -> &Bind {
        &self.local
    }

    /// The listener that connections come in for.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Gives the socket to another listener.
    pub fn assign(&self, live: Arc<Live>) {
        self.live.store(live);
    }

    /// Accepts what waits in the socket's queue and closes it. The connections go on.
    pub async fn stop(self) {
        drop(self.stop);
        // A panic of the loop has closed the socket as well.
        let _ = self.task.await;
    }
}

// === impl Loop ===

impl<H: Handler> Loop<H> {
    async fn run(self, socket: Listening, mut stopped: oneshot::Receiver<()>) {
        let mut pause = LEAST_PAUSE;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = &mut stopped => break,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((io, peer)) => {
                    pause = LEAST_PAUSE;
                    self.admit(io, peer);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(target: crate::telemetry::log::CLIENTS, listener = %self.live.load().settings().name, socket = %self.local, %error, "cannot accept");
                    tokio::select! {
                        _ = &mut stopped => break,
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(MOST_PAUSE),
                    }
                }
            }
        }
        for (io, peer) in socket.close() {
            self.admit(io, peer);
        }
    }

    /// Starts a connection, if the limits allow it one.
    fn admit(&self, io: Io, peer: Peer) {
        let live = self.live.load();
        let settings = live.settings();
        // Whose connection it is that a listed peer hands on is known when its header is.
        let known = (!proxy_protocol::is_listed(&settings, peer)).then_some(peer);
        let Some(permit) = live.admit(&settings, peer, known) else { return };
        let (alt_svc, ending) = (live.alt_svc(&self.local), live.ending());
        let local = self.local.clone();
        let accepted = connection::Accepted { peer, local, settings, alt_svc, ending, permit };
        let handler = self.handler.clone();
        tokio::spawn(connection::serve(io, accepted, handler));
    }
}

/// Errors that concern the connection which was to be accepted, not the socket (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    const OF_ONE: [i32; 9] = [
        libc::ECONNABORTED,
        libc::ECONNRESET,
        libc::EINTR,
        libc::EPERM,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EHOSTDOWN,
    ];
    error.raw_os_error().is_some_and(|code| OF_ONE.contains(&code))
}
