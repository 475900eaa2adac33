//! Connections to origins: idle ones wait in a stack per endpoint, new ones are made by Pingora's connectors.
//!
//! A connection serves one kind of request alone: what tells kinds apart (server name, client announced by the PROXY
//! protocol, tunnels) is part of its [`Key`].

mod bounded;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use pingora::{
    connectors::{ConnectorOptions, TransportConnector},
    protocols::{ALPN, Stream},
    time::fast_timeout::set_fast_timeout_to_tokio_threshold,
    upstreams::peer::HttpPeer,
};
use tokio::sync::{Notify, OwnedMutexGuard};

use super::{
    config::Protocol,
    exchange::{Exchange, Failure, Http1, Http2, Http2Connection, Processed},
    failure::reason_for,
    handshake::Handshakes,
    lifetime::Lifetime,
    queue::Queue,
    settings::Pool,
};
use crate::{error::Reason, telemetry::metrics, wire::h1::response::HeadLimits};

/// Makes connections, and closes those that were idle for too long. One per process.
pub struct Connector {
    options: Option<ConnectorOptions>,
    /// Made for the first connection: it loads the system's authorities.
    transport: OnceLock<TransportConnector>,
    handshakes: Handshakes,
    sweeper: Arc<Sweeper>,
}

/// The connections to one endpoint that can be used again.
#[derive(Default)]
pub struct Connections {
    idle: Mutex<Idle>,
    /// Whether the sweeper knows of them.
    is_swept: AtomicBool,
    /// Held while a connection is made that others can share, until the endpoint has said how many streams it allows.
    sharing: Arc<tokio::sync::Mutex<()>>,
    /// The last connection to share that could not be made, and when that was known.
    failed: Mutex<Option<(Instant, Reason)>>,
    /// Whether ALPN chose HTTP/2 before.
    speaks_http2: AtomicBool,
    /// The HTTP/1 connections in use, where they are counted, and who waits for one.
    places: Arc<Queue>,
    /// Told that a stream has ended, where somebody waits for one.
    freed: Arc<Notify>,
    /// Whether somebody waits for a stream.
    waiting: AtomicU32,
    metrics: Option<Arc<metrics::Endpoint>>,
}

#[derive(Default)]
struct Idle {
    http1: Vec<(Key, Instant, Box<Http1>)>,
    http2: Vec<Shared>,
    /// Which of them is asked first for the next stream.
    turn: usize,
}

/// A connection that carries streams, idle or not.
struct Shared {
    key: Key,
    pool: Pool,
    lifetime: Lifetime,
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
    /// How long the connection is kept.
    pub pool: Pool,
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
/// HTTP/2 connections to one endpoint that are shared at most.
const MOST_SHARED: usize = 64;
/// How often idle connections are looked at, while there are any.
const SWEEP: Duration = Duration::from_secs(1);

// === impl Connector ===

impl Connector {
    /// `options`: whose authorities are trusted where an upstream names none.
    pub fn new(options: Option<ConnectorOptions>) -> Self {
        // Pingora's own timers wake a thread a hundred times a second from the first one on.
        set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
        Self {
            options,
            transport: OnceLock::new(),
            handshakes: Handshakes::default(),
            sweeper: Arc::default(),
        }
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
        let transport = self.transport();
        let connected = match Handshakes::are_for(peer) {
            true => self.handshakes.connect(transport, self.options.as_ref(), peer).await,
            false => transport.new_stream(peer).await,
        };
        connected.map_err(|error| Failure::new(reason_for(&error), Processed::Unsent, error.to_string()))
    }

    /// A new connection, ready for an exchange. Those who ask at once for a connection to share wait for one, else each
    /// would make its own; `fresh`: it has to be a new one.
    pub async fn open(&self, route: &Route, peer: Box<HttpPeer>, fresh: bool) -> Result<Exchange, Failure> {
        let connections = &route.connections;
        if !connections.shares(route.protocol) {
            return match route.pool.is_counted() {
                true => self.open_counted(route, peer, fresh).await,
                false => self.open_alone(route, peer, None).await,
            };
        }
        let since = Instant::now();
        let turn = match route.pool.max {
            Some(max) => {
                let limit = peer.options.total_connection_timeout;
                match connections.stream_or_turn(route, (max, fresh), limit).await? {
                    Ok(exchange) => return Ok(exchange),
                    Err(turn) => turn,
                }
            }
            None => {
                let turn = connections.sharing.clone().lock_owned().await;
                if !fresh && let Some(exchange) = connections.take(route) {
                    return Ok(exchange);
                }
                turn
            }
        };
        if let Some((at, reason)) = *connections.failure()
            && at >= since
        {
            return Err(Failure::new(reason, Processed::Unsent, "the connection that was waited for failed"));
        }
        let opened = self.open_alone(route, peer, Some(turn)).await;
        if let Err(failure) = &opened {
            *connections.failure() = Some((Instant::now(), failure.reason));
        }
        opened
    }

    async fn open_alone(
        &self,
        route: &Route,
        peer: Box<HttpPeer>,
        turn: Option<OwnedMutexGuard<()>>,
    ) -> Result<Exchange, Failure> {
        let stream = self.connect(&peer).await?;
        let is_http2 = match route.protocol {
            Protocol::H1 => false,
            Protocol::H2c => true,
            Protocol::H2 | Protocol::Auto => matches!(stream.selected_alpn_proto(), Some(ALPN::H2)),
        };
        route.connections.speaks_http2.store(is_http2, Ordering::Relaxed);
        if !is_http2 {
            if route.protocol == Protocol::H2 {
                return Err(Failure::protocol("the endpoint does not speak HTTP/2 (ALPN)"));
            }
            return Ok(Exchange::Http1(Box::new(Http1::new(stream, route.limits))));
        }
        let connection = Http2Connection::begin(stream, &route.limits, turn).await?;
        let exchange = connection.stream();
        let shared = Shared::new(route, connection);
        let mut idle = route.connections.lock();
        // Past the bound it serves this one exchange.
        if idle.http2.len() < MOST_SHARED && !shared.is_over(route) {
            idle.http2.push(shared);
        }
        drop(idle);
        self.sweeper.watch(&route.connections);
        Ok(Exchange::Http2(Box::new(exchange)))
    }

    /// Takes a connection back after its exchange. It is closed unless another exchange can follow.
    pub fn release(&self, route: &Route, exchange: Exchange) {
        let Exchange::Http1(mut exchange) = exchange else { return };
        if !exchange.is_reusable() {
            return;
        }
        let now = Instant::now();
        if exchange.lifetime.is_over(&route.pool, now) {
            return;
        }
        exchange.rest();
        // It is free when the connection is back, so that whoever waits finds it.
        let place = exchange.place.take();
        let until = now + route.pool.idle;
        let until = exchange.lifetime.end(&route.pool).map_or(until, |end| end.min(until));
        let mut idle = route.connections.lock();
        let oldest = (idle.http1.len() >= MOST_IDLE).then(|| idle.http1.remove(0));
        idle.http1.push((route.key, until, exchange));
        drop(idle);
        drop((place, oldest));
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

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

// === impl Route ===

impl Route {
    /// The same over connections that nothing else uses.
    pub fn private(&self) -> Self {
        Self { connections: Arc::default(), ..*self }
    }
}

// === impl Shared ===

impl Shared {
    /// A connection that carries its first stream.
    fn new(route: &Route, connection: Http2Connection) -> Self {
        let now = Instant::now();
        let mut lifetime = Lifetime::new(now);
        lifetime.count();
        Self { key: route.key, pool: route.pool, lifetime, used: now, connection }
    }

    /// Another stream.
    fn stream(&mut self) -> Http2 {
        self.used = Instant::now();
        self.lifetime.count();
        self.connection.stream()
    }

    /// Whether it is to get no further streams, by what holds now.
    fn is_over(&self, route: &Route) -> bool {
        let Pool { max_age, max_requests, .. } = route.pool;
        (max_age.is_some() || max_requests.is_some()) && self.lifetime.is_over(&route.pool, Instant::now())
    }
}

// === impl Connections ===

impl Connections {
    pub fn of(metrics: Arc<metrics::Endpoint>) -> Self {
        Self { metrics: Some(metrics), ..Self::default() }
    }

    /// A connection that is ready for another exchange.
    pub fn reuse(&self, route: &Route) -> Option<Exchange> {
        if route.pool.is_counted() { self.reuse_counted(route) } else { self.take(route) }
    }

    fn take(&self, route: &Route) -> Option<Exchange> {
        // Those that are closed are dropped when the lock is free again.
        let mut closed = Vec::new();
        let mut idle = self.lock();
        while let Some(at) = idle.http1.iter().rposition(|(key, ..)| *key == route.key) {
            let (_, until, mut connection) = idle.http1.remove(at);
            let now = Instant::now();
            if until > now && !connection.lifetime.is_over(&route.pool, now) && connection.is_open() {
                connection.set_limits(route.limits);
                return Some(Exchange::Http1(connection));
            }
            closed.push(connection);
        }
        if route.protocol == Protocol::H1 {
            return None;
        }
        // One that is over ends with its last stream.
        idle.http2.retain_mut(|shared| shared.connection.is_open() && !shared.is_over(route));
        let fits = |shared: &Shared| shared.key == route.key && shared.connection.has_room();
        let first = if idle.turn < idle.http2.len() { idle.turn } else { 0 };
        let mut in_turn = (first..idle.http2.len()).chain(0..first);
        let at = in_turn.find(|at| fits(&idle.http2[*at]))?;
        idle.turn = at + 1;
        let exchange = idle.http2[at].stream();
        if idle.http2[at].is_over(route) {
            idle.http2.remove(at);
            idle.turn = at;
        }
        Some(Exchange::Http2(Box::new(exchange)))
    }

    /// Whether a new connection will carry several exchanges at once, as far as that is known.
    fn shares(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::H1 => false,
            Protocol::H2 | Protocol::H2c => true,
            Protocol::Auto => self.speaks_http2.load(Ordering::Relaxed),
        }
    }

    fn failure(&self) -> MutexGuard<'_, Option<(Instant, Reason)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
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
            let is_over = shared.lifetime.is_over(&shared.pool, now);
            shared.connection.is_open() && !is_over && shared.used + shared.pool.idle > now
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
        self.lock().push(Arc::downgrade(connections));
        self.begun.notify_one();
    }

    /// Says whether connections are left to be looked at again.
    fn sweep(&self, now: Instant) -> bool {
        // Without the lock: whoever has a first idle connection takes it.
        let looked_at = std::mem::take(&mut *self.lock());
        let mut left: Vec<_> =
            looked_at.into_iter().filter(|connections| Self::is_busy(connections, now)).collect();
        let mut busy = self.lock();
        busy.append(&mut left);
        !busy.is_empty()
    }

    fn is_busy(connections: &Weak<Connections>, now: Instant) -> bool {
        let Some(connections) = connections.upgrade() else { return false };
        if connections.sweep(now) {
            return true;
        }
        connections.is_swept.store(false, Ordering::Release);
        // One may have come back in between.
        connections.sweep(now) && !connections.is_swept.swap(true, Ordering::AcqRel)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Connections>>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
