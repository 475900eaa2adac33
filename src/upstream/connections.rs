//! Connections to origins: idle ones wait in a stack per endpoint, new ones are made by Pingora's connectors.
//!
//! A connection serves one kind of request alone: what tells kinds apart (server name, client announced by the PROXY
//! protocol, tunnels) is part of its [`Key`].

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pingora::{
    connectors::{ConnectorOptions, TransportConnector},
    protocols::{ALPN, Stream},
    time::fast_timeout::set_fast_timeout_to_tokio_threshold,
    upstreams::peer::HttpPeer,
};
use tokio::sync::Notify;

use super::{
    config::Protocol,
    exchange::{Exchange, Failure, Http1, Http2Connection, Processed},
    failure::reason_for,
};
use crate::wire::h1::response::HeadLimits;

/// Makes connections, and closes those that were idle for too long. One per process.
pub struct Connector {
    options: Option<ConnectorOptions>,
    /// Made for the first connection: it loads the system's authorities.
    transport: OnceLock<TransportConnector>,
    sweeper: Arc<Sweeper>,
}

/// The connections to one endpoint that can be used again.
#[derive(Default)]
pub struct Connections {
    idle: Mutex<Idle>,
    /// Whether the sweeper knows of them.
    is_swept: AtomicBool,
}

#[derive(Default)]
struct Idle {
    http1: Vec<(Key, Instant, Box<Http1>)>,
    http2: Vec<Shared>,
}

/// A connection that carries streams, idle or not.
struct Shared {
    key: Key,
    idle_for: Duration,
    /// When it was last used.
    used: Instant,
    connection: Http2Connection,
}

/// What tells connections to one endpoint apart that must not be shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key(pub u64);

/// How an endpoint is connected to, for one attempt.
pub struct Route {
    pub connections: Arc<Connections>,
    pub key: Key,
    pub protocol: Protocol,
    pub limits: HeadLimits,
    /// How long the connection may wait for its next use.
    pub idle: Duration,
}

/// Closes connections that were idle for too long, or that the origin has closed.
#[derive(Default)]
struct Sweeper {
    /// Those that have idle connections.
    busy: Mutex<Vec<Weak<Connections>>>,
    begun: Notify,
}

/// Idle HTTP/1 connections to one endpoint at most: more than that a burst leaves behind, not a load.
const MOST_IDLE: usize = 256;
/// How often idle connections are looked at, while there are any.
const SWEEP: Duration = Duration::from_secs(1);

// === impl Connector ===

impl Connector {
    /// `options`: whose authorities are trusted where an upstream names none.
    pub fn new(options: Option<ConnectorOptions>) -> Self {
        // Pingora's own timers wake a thread a hundred times a second from the first one on.
        set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
        Self { options, transport: OnceLock::new(), sweeper: Arc::default() }
    }

    /// Loads the system's authorities now, so that no request waits for it.
    pub fn prepare(&self) {
        self.transport();
    }

    fn transport(&self) -> &TransportConnector {
        self.transport.get_or_init(|| TransportConnector::new(self.options.clone()))
    }

    /// A new connection as bytes.
    pub async fn connect(&self, peer: &HttpPeer) -> Result<Stream, Failure> {
        self.transport()
            .new_stream(peer)
            .await
            .map_err(|error| Failure::new(reason_for(&error), Processed::Unsent, error.to_string()))
    }

    /// A new connection, ready for an exchange.
    pub async fn open(&self, route: &Route, peer: Box<HttpPeer>) -> Result<Exchange, Failure> {
        let stream = self.connect(&peer).await?;
        let is_http2 = match route.protocol {
            Protocol::H1 => false,
            Protocol::H2c => true,
            Protocol::H2 | Protocol::Auto => matches!(stream.selected_alpn_proto(), Some(ALPN::H2)),
        };
        if !is_http2 {
            if route.protocol == Protocol::H2 {
                return Err(Failure::protocol("the endpoint does not speak HTTP/2 (ALPN)"));
            }
            return Ok(Exchange::Http1(Box::new(Http1::new(stream, route.limits))));
        }
        let connection = Http2Connection::begin(stream, &route.limits).await?;
        let exchange = connection.stream();
        let shared = Shared { key: route.key, idle_for: route.idle, used: Instant::now(), connection };
        route.connections.lock().http2.push(shared);
        self.sweeper.watch(&route.connections);
        Ok(Exchange::Http2(Box::new(exchange)))
    }

    /// Takes a connection back after its exchange. It is closed unless another exchange can follow.
    pub fn release(&self, route: &Route, exchange: Exchange) {
        let Exchange::Http1(mut exchange) = exchange else { return };
        if !exchange.is_reusable() {
            return;
        }
        exchange.rest();
        let mut idle = route.connections.lock();
        if idle.http1.len() < MOST_IDLE {
            idle.http1.push((route.key, Instant::now() + route.idle, exchange));
        }
        drop(idle);
        self.sweeper.watch(&route.connections);
    }

    /// Closes idle connections in time. Runs as long as the process does, and sleeps while there are none.
    pub async fn sweep(self: Arc<Self>) {
        loop {
            self.sweeper.begun.notified().await;
            while self.sweeper.sweep(Instant::now()) {
                tokio::time::sleep(SWEEP).await;
            }
        }
    }
}

// === impl Route ===

impl Route {
    /// The same over connections that nothing else uses.
    pub fn private(&self) -> Self {
        Self { connections: Arc::default(), ..*self }
    }
}

// === impl Connections ===

impl Connections {
    /// A connection that is ready for another exchange.
    pub fn reuse(&self, key: Key) -> Option<Exchange> {
        let mut idle = self.lock();
        while let Some(at) = idle.http1.iter().rposition(|(other, ..)| *other == key) {
            let (_, until, mut connection) = idle.http1.swap_remove(at);
            if until > Instant::now() && connection.is_open() {
                return Some(Exchange::Http1(connection));
            }
        }
        idle.http2.retain_mut(|shared| shared.connection.is_open());
        // In turn, so that the streams are spread over connections.
        let at = idle.http2.iter().position(|shared| shared.key == key && shared.connection.has_room())?;
        let mut shared = idle.http2.remove(at);
        shared.used = Instant::now();
        let exchange = shared.connection.stream();
        idle.http2.push(shared);
        Some(Exchange::Http2(Box::new(exchange)))
    }

    /// How many wait for their next use.
    pub fn idle(&self) -> usize {
        self.lock().http1.len()
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what was idle for too long or is closed; says whether any is left.
    fn sweep(&self, now: Instant) -> bool {
        let mut idle = self.lock();
        idle.http1.retain_mut(|(_, until, connection)| *until > now && connection.is_open());
        idle.http2.retain_mut(|shared| {
            if !shared.connection.is_idle() {
                shared.used = now;
            }
            shared.connection.is_open() && shared.used + shared.idle_for > now
        });
        !idle.http1.is_empty() || !idle.http2.is_empty()
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let idle = self.lock();
        f.debug_struct("Connections")
            .field("http1", &idle.http1.len())
            .field("http2", &idle.http2.len())
            .finish()
    }
}

// === impl Sweeper ===

impl Sweeper {
    fn watch(&self, connections: &Arc<Connections>) {
        if connections.is_swept.load(Ordering::Relaxed) || connections.is_swept.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.push(Arc::downgrade(connections));
        self.begun.notify_one();
    }

    /// Says whether connections are left to be looked at again.
    fn sweep(&self, now: Instant) -> bool {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|connections| {
            let Some(connections) = connections.upgrade() else { return false };
            if connections.sweep(now) {
                return true;
            }
            connections.is_swept.store(false, Ordering::Release);
            // One may have come back in between.
            connections.sweep(now) && !connections.is_swept.swap(true, Ordering::AcqRel)
        });
        !busy.is_empty()
    }
}
