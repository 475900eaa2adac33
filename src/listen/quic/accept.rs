//! The accept loop of a UDP socket, which a reload hands new settings but never disturbs.

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwapOption;
use quinn::{Endpoint, Incoming, ServerConfig};
use ring::hkdf::Prk;
use tokio::{runtime::Handle, sync::Notify, task::AbortHandle};

use super::{client_hello::Strict, connection, socket::Bound};
use crate::{
    http::connection::Peer,
    listen::{connection::Accepted, live::Live},
    proxy::session::Handler,
    snapshot::settings::{Listener, Quic},
    value::Bind,
};

/// A socket whose connections are accepted. Its last handle closes it, once its last connection has ended.
#[derive(Clone, Debug)]
pub struct Accepting(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    local: Bind,
    endpoint: Endpoint,
    tokens: Arc<Prk>,
    /// The listener that connections come in for; none while nobody wants the socket.
    live: Arc<ArcSwapOption<Live>>,
    /// Somebody wants it again.
    wanted: Notify,
    accepting: OnceLock<AbortHandle>,
}

/// Where a socket can be found again as long as it is open.
#[derive(Clone, Debug)]
pub struct Kept(Weak<Shared>);

/// A socket that accepts nothing any more.
#[derive(Debug)]
pub struct Stopped(Accepting);

struct Loop<H> {
    local: Bind,
    endpoint: Endpoint,
    tokens: Arc<Prk>,
    live: Arc<ArcSwapOption<Live>>,
    handler: Arc<H>,
    /// The settings of the last connection, and what was made of them.
    config: Option<(Arc<Listener>, Arc<ServerConfig>)>,
    /// Handshakes that have not come to their end.
    unfinished: Arc<AtomicUsize>,
}

/// A handshake that counts as unfinished until dropped.
pub(super) struct Unfinished(Arc<AtomicUsize>);

/// From so many unfinished handshakes on, a client has to prove its address before anything is kept of it (RFC 9000
/// section 8.1.2).
const MANY: usize = 64;

// === impl Accepting ===

impl Accepting {
    pub(super) fn new(local: Bind, endpoint: Endpoint, tokens: Prk) -> Self {
        Self(Arc::new(Shared {
            local,
            endpoint,
            tokens: Arc::new(tokens),
            live: Arc::default(),
            wanted: Notify::new(),
            accepting: OnceLock::new(),
        }))
    }

    pub(super) fn start<H: Handler>(&self, runtime: &Handle, live: Arc<Live>, handler: Arc<H>) {
        self.assign(live);
        let shared = &self.0;
        shared.accepting.get_or_init(|| {
            let accepting = Loop {
                local: shared.local.clone(),
                endpoint: shared.endpoint.clone(),
                tokens: shared.tokens.clone(),
                live: shared.live.clone(),
                handler,
                config: None,
                unfinished: Arc::default(),
            };
            runtime.spawn(accepting.run()).abort_handle()
        });
    }

    pub(in crate::listen) fn local(&self) -> &Bind {
        &self.0.local
    }

    /// Gives the socket to another listener.
    pub(in crate::listen) fn assign(&self, live: Arc<Live>) {
        if let Some(quic) = &live.settings().quic {
            // Without one, the endpoint drops whatever begins a connection.
            self.0.endpoint.set_server_config(Some(config(quic, &self.0.tokens)));
        }
        self.0.live.store(Some(live));
        self.0.wanted.notify_waiters();
    }

    pub(in crate::listen) fn kept(&self) -> Kept {
        Kept(Arc::downgrade(&self.0))
    }

    /// Refuses new connections from now on.
    pub(in crate::listen) fn stop(self) -> Stopped {
        self.0.live.store(None);
        Stopped(self)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.get() {
            accepting.abort();
        }
    }
}

// === impl Kept ===

impl Kept {
    /// The socket, if it is still open.
    pub(in crate::listen) fn take_up(&self) -> Option<Bound> {
        self.0.upgrade().map(Accepting).map(Bound::Again)
    }

    /// Whether it is closed for good.
    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

// === impl Stopped ===

impl Stopped {
    /// Waits until the last connection has ended and the client has been told, or until somebody wants the socket again.
    pub async fn ended(self) {
        let shared = &self.0.0;
        let wanted = shared.wanted.notified();
        if shared.live.load().is_some() {
            return;
        }
        tokio::select! {
            () = shared.endpoint.wait_idle() => {}
            () = wanted => {}
        }
    }
}

// === impl Loop ===

impl<H: Handler> Loop<H> {
    async fn run(mut self) {
        while let Some(incoming) = self.endpoint.accept().await {
            match self.live.load_full() {
                Some(live) => self.admit(incoming, &live),
                None => incoming.refuse(),
            }
        }
    }

    /// Starts a connection, if the limits allow it one.
    fn admit(&mut self, incoming: Incoming, live: &Live) {
        let settings = live.settings();
        let Some(quic) = &settings.quic else { return incoming.refuse() };
        let peer = Peer::Tcp(incoming.remote_address());
        let is_crowded = self.unfinished.load(Ordering::Relaxed) >= MANY;
        // Anybody can begin connections in the name of an address, and so use up what it may have.
        let is_counted = settings.limits.connections_per_ip.is_some();
        if (is_crowded || is_counted) && incoming.may_retry() && !incoming.remote_address_validated() {
            settings.metrics.quic.retries.inc();
            // It may: that was asked.
            let _ = incoming.retry();
            return;
        }
        let Some(permit) = live.admit(&settings, peer, Some(peer)) else { return incoming.refuse() };
        let config = self.config(&settings, quic);
        let connecting = match incoming.accept_with(config) {
            Ok(connecting) => connecting,
            Err(error) => {
                settings.metrics.quic.shaken(false);
                tracing::debug!(listener = %settings.name, %peer, %error, "no QUIC");
                return;
            }
        };
        let accepted = Accepted {
            peer,
            local: self.local.clone(),
            settings,
            alt_svc: live.alt_svc(&self.local),
            ending: live.ending(),
            permit,
        };
        let (handler, unfinished) = (self.handler.clone(), Unfinished::new(&self.unfinished));
        tokio::spawn(connection::serve(connecting, unfinished, accepted, handler));
    }

    /// What the connection is held to: made once for each configuration.
    fn config(&mut self, settings: &Arc<Listener>, quic: &Quic) -> Arc<ServerConfig> {
        if let Some((of, config)) = &self.config
            && Arc::ptr_eq(of, settings)
        {
            return config.clone();
        }
        let made = config(quic, &self.tokens);
        self.endpoint.set_server_config(Some(made.clone()));
        let made = Arc::new(made);
        self.config = Some((settings.clone(), made.clone()));
        made
    }
}

fn config(quic: &Quic, tokens: &Arc<Prk>) -> ServerConfig {
    let mut config = ServerConfig::new(Arc::new(Strict(quic.crypto.clone())), tokens.clone());
    config.transport_config(quic.transport.clone());
    config
}

// === impl Unfinished ===

impl Unfinished {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
