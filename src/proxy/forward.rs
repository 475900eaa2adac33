//! Sends a request upstream through Pingora.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Version, header, request};
use pingora::{
    apps::HttpServerApp,
    http::RequestHeader,
    protocols::http::ServerSession,
    proxy::{HttpProxy, http_proxy},
    server::configuration::ServerConf,
};
use tokio::sync::watch;

use super::{
    adapter::{Adapter, Waits},
    call::Call,
    downstream::Downstream,
    gateway::{CALL, Gateway},
    recover,
    session::Session,
    tunnel::Tunnel,
};
use crate::{error::Reason, http::hop_by_hop};

/// Pingora with its pool of upstream connections.
pub struct Forwarder {
    proxy: Arc<HttpProxy<Gateway>>,
    shutdown: watch::Receiver<bool>,
}

/// What a request asks of its upstream's time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub waits: Waits,
    pub total: Option<Duration>,
}

impl Forwarder {
    /// `idle_connections`: how many unused upstream connections are kept in all.
    pub fn new(idle_connections: usize) -> Self {
        let conf = ServerConf { upstream_keepalive_pool_size: idle_connections, ..ServerConf::default() };
        let proxy = Arc::new(http_proxy(&Arc::new(conf), Gateway));
        // Draining is the sessions' own matter: Pingora never hears of it.
        Self { proxy, shutdown: watch::channel(false).1 }
    }

    /// Sends the request of `downstream.exchange.head` upstream and the response back. Gives back the
    /// session; where `call.failure` is set and the response has not begun, the client waits for an answer.
    pub async fn forward<S: Session>(
        &self,
        mut downstream: Box<Downstream<S>>,
        call: &Arc<Mutex<Call>>,
        limits: Limits,
    ) -> Box<Downstream<S>> {
        let (request, tunnel) = outgoing(&mut downstream, call);
        let slot = Arc::new(Mutex::new(None));
        let adapter = Adapter::new(downstream, slot.clone(), request, tunnel, limits.waits);
        let session = ServerSession::new_custom(Box::new(adapter));
        let failure = self.run(session, call.clone(), limits.total).await;
        if let Some(reason) = failure {
            lock(call).failure = Some(reason);
        }
        lock(&slot).take().expect("the adapter is gone and has left the session behind")
    }

    /// Runs Pingora's part to its end, to the request's deadline or to a panic. Its future is gone then.
    async fn run(
        &self,
        session: ServerSession,
        call: Arc<Mutex<Call>>,
        total: Option<Duration>,
    ) -> Option<Reason> {
        let run = CALL.scope(call, self.proxy.process_new_http(session, &self.shutdown));
        let run = recover::catching(run);
        let ended = match total {
            None => run.await,
            Some(total) => match tokio::time::timeout(total, run).await {
                Ok(ended) => ended,
                Err(_) => return Some(Reason::TotalTimeout),
            },
        };
        ended.err().map(|_| Reason::Panic)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request of this size leaves at once: an idle connection's buffers hold as much on every system.
const WRITTEN_AT_ONCE: usize = 4 * 1024;

/// About how long the head is when it is written.
fn length(head: &request::Parts) -> usize {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    head.headers.iter().fold(target, |length, (name, value)| length + name.as_str().len() + value.len() + 4)
}

/// The head as Pingora takes it, and the tunnel that it asks for.
fn outgoing<S: Session>(
    downstream: &mut Downstream<S>,
    call: &Mutex<Call>,
) -> (RequestHeader, Option<Tunnel>) {
    let empty = http::Request::new(()).into_parts().0;
    let mut head = std::mem::replace(&mut downstream.exchange.head, empty);
    head.version = Version::HTTP_11;
    let bodiless = downstream.session.body_is_empty();
    let asks = hop_by_hop::has_rare(&head.headers, &header::UPGRADE);
    let tunnel = if asks { lock(call).ask_tunnel(&mut head, bodiless) } else { None };
    if bodiless && tunnel.is_none() && length(&head) <= WRITTEN_AT_ONCE {
        lock(call).write_at_once();
    }
    (RequestHeader::from(head), tunnel)
}
