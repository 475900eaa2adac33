//! Sends a request upstream through Pingora.

use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use atomic_refcell::AtomicRefCell;
use http::{Version, header, request};
use pingora::{
    apps::HttpServerApp,
    connectors::ConnectorOptions,
    http::RequestHeader,
    protocols::http::ServerSession,
    proxy::{HttpProxy, http_proxy},
    server::configuration::ServerConf,
    time::fast_timeout::set_fast_timeout_to_tokio_threshold,
};
use tokio::{sync::watch, time::Instant};

use super::{
    adapter::{Adapter, Waits},
    call::Call,
    downstream::{Downstream, Progress},
    gateway::{CALL, Gateway},
    patience::patiently,
    recover,
    session::Session,
    slot::Slot,
    trailing::Trailing,
    tunnel::Tunnel,
};
use crate::{
    error::Reason,
    http::{connection_auth, target},
};

/// Pingora with its pool of upstream connections.
pub struct Forwarder {
    proxy: Arc<HttpProxy<Gateway>>,
    trailing: Trailing,
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
        // Those of less than a second are Pingora's own: a thread of its wakes a hundred times a second from the first one on.
        set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
        let conf = ServerConf { upstream_keepalive_pool_size: idle_connections, ..ServerConf::default() };
        let trailing = Trailing::new(ConnectorOptions::from_server_conf(&conf));
        let proxy = Arc::new(http_proxy(&Arc::new(conf), Gateway));
        // Draining is the sessions' own matter: Pingora never hears of it.
        Self { proxy, trailing, shutdown: watch::channel(false).1 }
    }

    /// Sends the request of `downstream.exchange.head` upstream and the response back. Gives back the
    /// session; where `call.failure` is set and the response has not begun, the client waits for an answer.
    pub async fn forward<S: Session>(
        &self,
        mut downstream: Box<Downstream<S>>,
        call: &Arc<AtomicRefCell<Call>>,
        limits: Limits,
    ) -> Box<Downstream<S>> {
        let Outgoing { mut request, tunnel, mut trailing, is_raw, with_credentials } =
            outgoing(&mut downstream, call);
        if with_credentials || is_reserved(&downstream, call) {
            // In a box: it is rare.
            let reserving = Box::pin(reserve(&mut downstream, call, with_credentials, limits.total));
            if let Err(reason) = reserving.await {
                call.borrow_mut().failure = Some(reason);
                return downstream;
            }
            if trailing && !is_raw {
                // The login is that of Pingora's connection.
                trailing = false;
                request.remove_header(&header::TRAILER);
            }
        }
        let tunnels = tunnel.is_some();
        if trailing {
            // In a box: it is rare, and every request would make room for it.
            let exchange = Box::pin(async {
                self.trailing.forward(&mut downstream, request, call, limits.waits).await;
                None
            });
            if let Some(reason) = within(limits.total, exchange).await {
                call.borrow_mut().failure = Some(reason);
            }
            settle(&mut downstream, &call.borrow(), tunnels);
            return downstream;
        }
        let slot = Arc::new(Slot::new(downstream));
        let adapter = Adapter::new(slot.clone(), call.clone(), request, tunnel, limits.waits);
        let session = ServerSession::new_custom(Box::new(adapter));
        let run = self.proxy.process_new_http(session, &self.shutdown);
        if let Some(reason) = within(limits.total, while_wanted(run, call, &slot)).await {
            call.borrow_mut().failure = Some(reason);
        }
        let mut downstream = slot.take();
        settle(&mut downstream, &call.borrow(), tunnels);
        downstream
    }
}

/// Whether requests of this client to this destination have upstream connections of their own.
fn is_reserved<S: Session>(downstream: &Downstream<S>, call: &AtomicRefCell<Call>) -> bool {
    let reservations = &downstream.exchange.connection.reservations;
    !reservations.is_empty() && reservations.has(&call.borrow().destination())
}

/// Has a request carried out on an upstream connection that is reserved for its client's connection.
async fn reserve<S: Session>(
    downstream: &mut Downstream<S>,
    call: &AtomicRefCell<Call>,
    with_credentials: bool,
    total: Option<Duration>,
) -> Result<(), Reason> {
    let connection = downstream.exchange.connection.clone();
    let destination = call.borrow().destination().into_owned();
    let leasing = connection.reservations.lease(&destination, with_credentials);
    let deadline = total.map(|total| Instant::now() + total);
    let lease = Arc::new(patiently(leasing, &mut downstream.session, deadline).await?);
    downstream.lease = Some(lease.clone());
    call.borrow_mut().reserve(lease, with_credentials);
    Ok(())
}

/// The exchange is over: a reserved connection is kept where it can be used again, and one is reserved where the response
/// asked for credentials.
fn settle<S: Session>(downstream: &mut Downstream<S>, call: &Call, tunnels: bool) {
    match &downstream.lease {
        Some(lease) if call.failure.is_none() && !tunnels && downstream.progress() == Progress::Ended => {
            lease.set_intact();
        }
        Some(_) => {}
        None if call.is_challenged() => {
            let (destination, endpoint) = (call.destination(), call.address_tried());
            downstream.exchange.connection.reservations.reserve(&destination, endpoint);
        }
        None => {}
    }
}

/// Runs Pingora to its end, or until the client goes at a time when Pingora does not look: while it connects.
async fn while_wanted<S: Session, T>(
    mut run: impl Future<Output = T> + Unpin,
    call: &Arc<AtomicRefCell<Call>>,
    slot: &Slot<S>,
) -> Option<Reason> {
    // Pingora asks for it before it waits for anything.
    let mut call = Some(call.clone());
    loop {
        let poll = poll_fn(|cx| {
            Poll::Ready(match call.take() {
                Some(call) => CALL.sync_scope(call, || Pin::new(&mut run).poll(cx)),
                None => Pin::new(&mut run).poll(cx),
            })
        });
        if poll.await.is_ready() {
            return None;
        }
        let Some(mut idle) = slot.try_lend() else {
            until_woken(pending()).await;
            continue;
        };
        if until_woken(idle.session.gone()).await {
            return Some(Reason::ClientGone);
        }
    }
}

/// Waits for something that can be asked for again, until the task is woken for that or anything else. Says whether it has
/// come already.
async fn until_woken(something: impl Future<Output = ()>) -> bool {
    let mut something = pin!(something);
    let mut asked = false;
    poll_fn(|cx| match std::mem::replace(&mut asked, true) {
        true => Poll::Ready(false),
        false => something.as_mut().poll(cx).map(|()| true),
    })
    .await
}

/// Runs an exchange to its end, which may be for a reason, to the request's deadline or to a panic. Its future is gone
/// then.
async fn within(total: Option<Duration>, run: impl Future<Output = Option<Reason>>) -> Option<Reason> {
    let run = pin!(run);
    let run = recover::catching(run);
    let ended = match total {
        None => run.await,
        Some(total) => match tokio::time::timeout(total, run).await {
            Ok(ended) => ended,
            Err(_) => return Some(Reason::TotalTimeout),
        },
    };
    ended.unwrap_or(Some(Reason::Panic))
}

/// A request of this size leaves at once: an idle connection's buffers hold as much on every system.
const WRITTEN_AT_ONCE: usize = 4 * 1024;

/// What one look at a head's fields tells.
struct Sight {
    /// About how long the head is when it is written.
    length: usize,
    /// Whether there is Upgrade, TE, or Trailer.
    upgrades: bool,
    takes: bool,
    announces: bool,
    /// Whether credentials sign in the connection.
    with_credentials: bool,
}

impl Sight {
    fn of(head: &request::Parts) -> Self {
        let target = target::of(head).len();
        let mut sight =
            Self { length: target, upgrades: false, takes: false, announces: false, with_credentials: false };
        for (name, value) in &head.headers {
            sight.length += name.as_str().len() + value.len() + 4;
            match *name {
                header::UPGRADE => sight.upgrades = true,
                header::TE => sight.takes = true,
                header::TRAILER => sight.announces = true,
                header::AUTHORIZATION | header::PROXY_AUTHORIZATION => {
                    sight.with_credentials |= connection_auth::is_credentials(name, value);
                }
                _ => {}
            }
        }
        sight
    }
}

/// A request as it goes on.
struct Outgoing {
    request: RequestHeader,
    /// The tunnel that it asks for.
    tunnel: Option<Tunnel>,
    /// Whether trailers or a target are to pass that Pingora would leave behind.
    trailing: bool,
    /// Whether a target is to pass so.
    is_raw: bool,
    /// Whether it carries credentials that sign in the connection.
    with_credentials: bool,
}

fn outgoing<S: Session>(downstream: &mut Downstream<S>, call: &AtomicRefCell<Call>) -> Outgoing {
    let empty = http::Request::new(()).into_parts().0;
    let mut head = std::mem::replace(&mut downstream.exchange.head, empty);
    head.version = Version::HTTP_11;
    let bodiless = downstream.session.body_is_empty();
    let Sight { length, upgrades, takes, announces, with_credentials } = Sight::of(&head);
    let tunnel = if upgrades { call.borrow_mut().ask_tunnel(&mut head, bodiless) } else { None };
    // The client takes trailers, or its request brings some (RFC 9110 sections 6.6.2 and 10.1.4).
    let asked = takes || (announces && !bodiless);
    // Pingora writes the target of the URI.
    let is_raw = head.extensions.get::<target::Raw>().is_some();
    let trailing = tunnel.is_none() && (asked || is_raw) && call.borrow().is_http1();
    if bodiless && tunnel.is_none() && length <= WRITTEN_AT_ONCE {
        call.borrow_mut().write_at_once();
    }
    if announces && !trailing {
        // None is announced that is not going to come.
        head.headers.remove(header::TRAILER);
    }
    Outgoing { request: RequestHeader::from(head), tunnel, trailing, is_raw, with_credentials }
}
