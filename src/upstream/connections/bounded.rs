//! Connections to an endpoint where they are bounded (`max`) or kept ready (`min`).
//!
//! An HTTP/1 connection in use holds a place, and a request waits for one in turn. Over HTTP/2 requests wait in turn for a
//! stream of the connections that there are.

use std::{
    num::NonZeroU32,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::{sync::OwnedMutexGuard, time::timeout};

use super::{Connections, Connector, Exchange, Failure, HttpPeer, Processed, Protocol, Reason, Route};
use crate::upstream::queue::{Entry, Place};

/// Somebody waits for a stream while this lives.
struct AwaitsStream<'a>(&'a Connections);

impl Connector {
    /// A connection for one exchange: one that was given back while the request waited, or a new one.
    pub(super) async fn open_counted(
        &self,
        route: &Route,
        peer: Box<HttpPeer>,
        fresh: bool,
    ) -> Result<Exchange, Failure> {
        let connections = &route.connections;
        let place = connections.place(peer.options.total_connection_timeout).await?;
        if !fresh && let Some(exchange) = connections.take(route) {
            return Ok(with_place(exchange, place));
        }
        connections.make_room(route.pool.max);
        Ok(with_place(self.open_alone(route, peer, None).await?, place))
    }

    /// Opens a connection for later requests.
    pub async fn fill(&self, route: &Route, peer: Box<HttpPeer>) -> Result<(), Failure> {
        let connections = &route.connections;
        if connections.shares(route.protocol) {
            let turn = connections.sharing.clone().lock_owned().await;
            return self.open_alone(route, peer, Some(turn)).await.map(drop);
        }
        let Ok(Entry::In(place)) = connections.places.enter(0) else { return Ok(()) };
        let exchange = with_place(self.open_alone(route, peer, None).await?, place);
        self.release(route, exchange);
        Ok(())
    }
}

impl Connections {
    /// From now on so many HTTP/1 connections can be in use.
    pub fn set_max(&self, max: Option<NonZeroU32>) {
        self.places.set_limit(max.map_or(u32::MAX, NonZeroU32::get));
    }

    /// Connections that are open, where they are counted.
    pub fn count(&self, protocol: Protocol) -> usize {
        let idle = self.lock();
        match self.shares(protocol) {
            true => idle.http2.len(),
            false => idle.http1.len() + self.places.taken() as usize,
        }
    }

    /// A connection that is ready for another exchange, unless others wait for one.
    pub(super) fn reuse_counted(&self, route: &Route) -> Option<Exchange> {
        if self.shares(route.protocol) {
            return if self.waiting.load(Ordering::Acquire) == 0 { self.take(route) } else { None };
        }
        let Ok(Entry::In(place)) = self.places.enter(0) else { return None };
        self.take(route).map(|exchange| with_place(exchange, place))
    }

    /// A place for an HTTP/1 connection in use.
    async fn place(&self, limit: Option<Duration>) -> Result<Place, Failure> {
        let waiting = match self.places.enter(u32::MAX).map_err(|_| busy())? {
            Entry::In(place) => return Ok(place),
            Entry::Wait(waiting) => waiting,
        };
        let began = Instant::now();
        let place = timeout(limit.unwrap_or(Duration::MAX), waiting).await;
        self.waited(began);
        match place {
            Ok(Ok(place)) => Ok(place),
            _ => Err(busy()),
        }
    }

    /// Closes idle connections of other requests where a new one would be too many.
    fn make_room(&self, max: Option<NonZeroU32>) {
        let Some(max) = max else { return };
        let mut closed = Vec::new();
        let mut idle = self.lock();
        while !idle.http1.is_empty()
            && idle.http1.len() as u64 + u64::from(self.places.taken()) > max.get().into()
        {
            closed.push(idle.http1.remove(0));
        }
        drop(idle);
    }

    /// A stream of a connection that there is, or the turn to make another.
    pub(super) async fn stream_or_turn(
        &self,
        route: &Route,
        (max, fresh): (NonZeroU32, bool),
        limit: Option<Duration>,
    ) -> Result<Result<Exchange, OwnedMutexGuard<()>>, Failure> {
        let began = Instant::now();
        let found = async {
            let turn = self.sharing.clone().lock_owned().await;
            if fresh && self.has_space(route, max) {
                return (Err(turn), false);
            }
            let mut awaits = None;
            loop {
                if let Some(exchange) = self.take(route) {
                    return (Ok(exchange), awaits.is_some());
                }
                if self.has_space(route, max) {
                    return (Err(turn), awaits.is_some());
                }
                if awaits.is_none() {
                    awaits = Some(AwaitsStream::of(self));
                    // One may have ended before it was to say so.
                    continue;
                }
                self.freed.notified().await;
            }
        };
        let found = timeout(limit.unwrap_or(Duration::MAX), found).await;
        if !matches!(found, Ok((_, false))) {
            self.waited(began);
        }
        found.map(|(found, _)| found).map_err(|_| busy())
    }

    /// Whether another HTTP/2 connection may be made. One that is idle makes room where it is for other requests.
    fn has_space(&self, route: &Route, max: NonZeroU32) -> bool {
        let mut idle = self.lock();
        if idle.http2.len() < max.get() as usize {
            return true;
        }
        let other =
            idle.http2.iter().position(|shared| shared.key != route.key && shared.connection.is_idle());
        other.map(|at| idle.http2.remove(at)).is_some()
    }

    fn waited(&self, began: Instant) {
        if let Some(metrics) = &self.metrics {
            metrics.waited_for_connection(began.elapsed());
        }
    }
}

impl<'a> AwaitsStream<'a> {
    /// Streams say from now on when they end.
    fn of(connections: &'a Connections) -> Self {
        connections.waiting.fetch_add(1, Ordering::AcqRel);
        connections.lock().http2.iter().for_each(|shared| shared.connection.tell(&connections.freed));
        Self(connections)
    }
}

impl Drop for AwaitsStream<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

fn with_place(mut exchange: Exchange, place: Place) -> Exchange {
    if let Exchange::Http1(http1) = &mut exchange {
        http1.place = Some(place);
    }
    exchange
}

fn busy() -> Failure {
    Failure::new(Reason::UpstreamOverloaded, Processed::Unsent, "no connection of the pool was free in time")
}
