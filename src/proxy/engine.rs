//! The life of a request: arrival, chain, action, chain back, access record.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request};

use super::{
    absolute::{self, Errand},
    answers,
    arrival::{Arrival, Plan},
    asked::{Asked, Target},
    call::Call,
    connect,
    destination::{Destination, Pool},
    downstream::{Downstream, Progress},
    patience::patiently,
    prepare::prepare,
    pump::{self, Waits},
    record, recover,
    session::{Handler, Session},
    spans::{self, Traced},
    split::SplitSide,
    sticky::StickySession,
};
use crate::{
    action::{
        forward,
        proxy::{self, Proxy},
    },
    error::Reason,
    http::{
        accept::Accept,
        connection::{Connection, Peer},
        errors::Errors,
        seen::Seen,
        target, websocket,
    },
    middleware::{Exchange, HeadSize, Stop},
    snapshot::{Action, Listener, Route, Snapshot},
    telemetry::metrics,
    upstream::{self, Connections, Connector},
    value::Bind,
};

/// Runs requests by the configuration that is current when each arrives.
pub struct Engine {
    /// Nothing before the first configuration is published.
    current: ArcSwapOption<Snapshot>,
    /// Connects to origins.
    connector: Arc<Connector>,
    /// The connections to targets of forward routes.
    targets: Arc<Connections>,
}

impl Engine {
    pub fn new(connector: Arc<Connector>) -> Self {
        Self { current: ArcSwapOption::empty(), connector, targets: Arc::default() }
    }

    /// Makes a configuration the one that requests arriving from now on go by.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.current.store(Some(snapshot));
    }

    /// The listener of a connection as it is configured now.
    fn listener(&self, connection: &Connection) -> Option<Arc<Listener>> {
        self.current.load().as_ref()?.listeners.get(&connection.listener).cloned()
    }

    /// Runs a request to its end, counts it and writes its record.
    async fn carry_out<S: Session>(
        &self,
        mut downstream: Box<Downstream<S>>,
        route: &Arc<Route>,
        place: usize,
        plan: Plan,
        asked: Option<Box<Asked>>,
    ) -> S {
        let running = route.metrics.of(place).map(metrics::Route::begin);
        // Filled where it stays: it is large.
        let mut call = None;
        self.run(&mut downstream, &mut call, route, plan).await;
        let ended = record::outcome(&downstream);
        spans::end(&mut downstream, &ended, route, call.as_mut(), asked.as_deref());
        record::write(&downstream, &ended, route, call.as_ref(), asked);
        if let Some(running) = running {
            running.end(&ended);
        }
        downstream.session
    }

    async fn run<S: Session>(
        &self,
        downstream: &mut Downstream<S>,
        call: &mut Option<Call>,
        route: &Arc<Route>,
        plan: Plan,
    ) {
        let entered = recover::catching(pin!(enter(downstream, &plan, &route.action))).await;
        let stopped = match entered.unwrap_or(Err(Reason::Panic)) {
            Ok(stopped) => stopped,
            Err(reason) => {
                downstream.exchange.reason = Some(reason);
                fail(downstream, reason, &route.errors).await;
                return;
            }
        };
        let answer = match (stopped, plan) {
            (Some(Stop::Answer(answer)), _) => *answer,
            (Some(Stop::Refuse(refusal)), _) => {
                downstream.exchange.reason = Some(refusal.reason);
                answers::refused(*refusal, &route.errors, &downstream.exchange)
            }
            (None, Plan::Options(allow)) => answers::options(allow.as_ref()),
            (None, Plan::Refuse(reason, allow)) => {
                downstream.exchange.reason = Some(reason);
                if is_mistrusted(reason) {
                    downstream.session.close();
                }
                answers::refusal(reason, allow.as_ref(), &route.errors, &downstream.exchange)
            }
            (None, Plan::Act) => match &route.action {
                Action::Forward(forward) => {
                    // In a box: it is rare, and every request would make room for it.
                    return Box::pin(connect::through(downstream, forward, &route.errors)).await;
                }
                action => match proxied(action, &mut downstream.exchange) {
                    Some((proxy, side)) => return self.proxy(downstream, call, proxy, side, route).await,
                    None => local(action, route, &mut downstream.exchange),
                },
            },
            (None, Plan::Send(errand)) => {
                // As rare.
                return Box::pin(self.send_on(downstream, call, *errand, route)).await;
            }
        };
        let answer = match downstream.exchange.connects && answer.status().is_success() {
            // The client would take the answer's body for what comes through a tunnel.
            true => {
                downstream.exchange.reason = Some(Reason::UnsupportedProtocol);
                answers::refusal(Reason::UnsupportedProtocol, None, &route.errors, &downstream.exchange)
            }
            false => answer,
        };
        send(downstream, answer, &route.errors).await;
    }

    async fn proxy<S: Session>(
        &self,
        downstream: &mut Downstream<S>,
        call: &mut Option<Call>,
        proxy: Arc<Proxy>,
        side: Option<Box<SplitSide>>,
        route: &Route,
    ) {
        let exchange = &mut downstream.exchange;
        if proxy.rewrites() {
            let target = proxy.target(&exchange.path, exchange.query.as_deref(), exchange);
            match target.map(|target| target::set(&mut exchange.head, target)) {
                Some(Ok(())) => {}
                // Escaped as it is, only its length can make it unfit.
                Some(Err(_)) => exchange.reason = Some(Reason::UriTooLong),
                None => exchange.reason = Some(Reason::BadPath),
            }
        }
        let facts = upstream::Facts {
            client_ip: exchange.client_ip,
            host: &exchange.host,
            path: &exchange.path,
            query: exchange.query.as_deref(),
            headers: &exchange.head.headers,
        };
        let key = proxy.upstream.key(&facts);
        let traced = exchange.trace.as_ref().and_then(Traced::of);
        let client = match proxy.upstream.announces {
            true => announced(&exchange.connection, exchange.client_ip),
            false => None,
        };
        let sticky = proxy.upstream.sticky.as_ref().map(|_| {
            let is_https = exchange.scheme == "https";
            StickySession::begin(&proxy.upstream, &mut exchange.head.headers, is_https)
        });
        let timeouts = proxy.timeouts;
        let pool = Pool::new(proxy, key, client, sticky);
        let call = call.insert(Call::new(Destination::Pool(pool), traced));
        call.split = side;
        if let Some(upstream) = call.upstream().filter(|_| exchange.reason.is_none()) {
            upstream.asked(call.began());
        }
        let proxy::Timeouts { total, first_byte, body_idle, tunnel_idle } = timeouts;
        self.carry(downstream, call, total, Waits { first_byte, body_idle, tunnel_idle }, route).await;
    }

    /// Sends a request to the origin of its target.
    async fn send_on<S: Session>(
        &self,
        downstream: &mut Downstream<S>,
        call: &mut Option<Call>,
        errand: Errand,
        route: &Route,
    ) {
        let forward = errand.forward.clone();
        match absolute::call(downstream, errand, self.targets.clone()).await {
            Ok(to_target) => {
                let call = call.insert(to_target);
                let forward::Timeouts { total, first_byte, body_idle } = forward.timeouts;
                let waits = Waits { first_byte, body_idle, tunnel_idle: forward.idle };
                self.carry(downstream, call, total, waits, route).await;
            }
            Err(reason) => {
                downstream.exchange.reason = Some(reason);
                fail(downstream, reason, &route.errors).await;
            }
        }
    }

    /// Carries a call out, unless something has come in its way already.
    async fn carry<S: Session>(
        &self,
        downstream: &mut Downstream<S>,
        call: &mut Call,
        total: Option<Duration>,
        waits: Waits,
        route: &Route,
    ) {
        if downstream.exchange.reason.is_none() {
            let since = downstream.exchange.started;
            let left = total.map(|total| total.saturating_sub(since.elapsed()));
            pump::carry(downstream, call, &self.connector, waits, left).await;
            call.ended(downstream.exchanged);
            // Where nothing failed, the exchange may have said why it ended.
            downstream.exchange.reason = call.failure.or(downstream.exchange.reason);
            downstream.exchange.cause = call.cause().or(downstream.exchange.cause);
        }
        match (downstream.exchange.reason, call.retry_after()) {
            (Some(reason), Some(after)) if downstream.progress() == Progress::Waiting => {
                let answer = answers::refusal_for(after, reason, &route.errors, &downstream.exchange);
                // In a box: it is rare, and every request would make room for it.
                Box::pin(send(downstream, answer, &route.errors)).await;
            }
            (Some(reason), _) => fail(downstream, reason, &route.errors).await,
            (None, _) => {}
        }
    }
}

impl Handler for Engine {
    async fn handle<S: Session>(
        &self,
        connection: &Arc<Connection>,
        mut head: request::Parts,
        session: S,
    ) -> S {
        let Some(listener) = self.listener(connection) else {
            return refuse_plainly(session, Reason::ListenerGone).await;
        };
        let target = Target::of(&head);
        let arrival = Arrival::of(&listener, connection, &mut head);
        let trace = listener.tracer.as_ref().map(|tracer| tracer.begin(&mut head.headers));
        let asked = Asked::of(&head, target, &arrival.route, trace.as_ref());
        let head_size = arrival.route.chain.measures_heads().then(|| Box::new(HeadSize::of(&head)));
        prepare(&mut head, &arrival, &connection.hop, &listener, trace.as_ref());
        let (place, expose) = (listener.place, listener.expose);
        drop(listener);
        let Arrival { route, plan, client, lookalikes, host, path, query, params, .. } = arrival;
        let connects = websocket::connect(&head).is_some();
        let accept = route.errors.negotiate().then(|| Box::new(Accept::of(&head.headers)));
        let has_body = !session.body_is_empty() && !connects;
        // The box first, then piece by piece: made elsewhere it would be copied as a whole.
        let place_of_downstream = Box::new_uninit();
        let exchange = Exchange::new(connection.clone(), head, route.names.clone());
        let mut downstream =
            Box::write(place_of_downstream, Downstream::new(session, exchange, route.chain.clone()));
        let exchange = &mut downstream.exchange;
        (exchange.client_ip, exchange.scheme, exchange.expose) = (client.ip, client.scheme, expose);
        (exchange.host, exchange.path, exchange.query, exchange.captures) = (host, path, query, params);
        exchange.lookalikes = lookalikes;
        (exchange.head_size, exchange.trace, exchange.accept) = (head_size, trace, accept);
        (exchange.has_body, exchange.connects) = (has_body, connects);
        exchange.to_proxy = plan.is_of_a_proxy(&route.action);
        downstream.is_proxied = matches!(plan, Plan::Send(_));
        self.carry_out(downstream, &route, place, plan, asked).await
    }

    async fn refuse<S: Session>(
        &self,
        connection: &Arc<Connection>,
        reason: Reason,
        seen: Box<Seen>,
        session: S,
    ) -> S {
        // The chain sees nothing of a head that is not sound.
        let mut head = http::Request::new(()).into_parts().0;
        head.method = seen.method.clone().unwrap_or(Method::GET);
        let Some(listener) = self.listener(connection) else { return refuse_plainly(session, reason).await };
        let route = listener.unmatched.clone();
        let trace = listener.tracer.as_ref().map(|tracer| tracer.begin(&mut head.headers));
        let asked = Asked::of_seen(*seen, &route, trace.as_ref());
        let mut exchange = Exchange { trace, ..Exchange::new(connection.clone(), head, route.names.clone()) };
        let (place, expose) = (listener.place, listener.expose);
        (exchange.scheme, exchange.expose) = (expose.scheme(connection.tls.is_some()), expose);
        drop(listener);
        let downstream = Box::new(Downstream::new(session, exchange, route.chain.clone()));
        self.carry_out(downstream, &route, place, Plan::Refuse(reason, None), asked).await
    }
}

/// Takes the request through the chain, and its body where a part is to see it before the action.
async fn enter<S: Session>(
    downstream: &mut Downstream<S>,
    plan: &Plan,
    action: &Action,
) -> Result<Option<Stop>, Reason> {
    let (goes_on, total) = match (plan, action) {
        (Plan::Act, Action::Proxy(proxy)) => (true, proxy.timeouts.total),
        (Plan::Act, Action::Split(split)) => (true, split.any_proxy().timeouts.total),
        (Plan::Send(errand), _) => (true, errand.forward.timeouts.total),
        _ => (false, None),
    };
    let deadline = downstream.exchange.deadline(total);
    let Downstream { chain, exchange, session, .. } = &mut *downstream;
    let stopped = patiently(chain.enter(exchange), session, deadline).await?;
    if stopped.is_some() || !matches!(plan, Plan::Act | Plan::Send(_)) {
        return Ok(stopped);
    }
    if goes_on {
        downstream.send_early_hints().await?;
    }
    match downstream.chain.held(goes_on) {
        Some(most) => downstream.hold_body(most, deadline).await,
        None => Ok(None),
    }
}

/// Both ends of the client's connection. Whom a trusted proxy names has no port that we know; who comes by a unix socket has
/// no address.
fn announced(connection: &Connection, client_ip: IpAddr) -> Option<upstream::Client> {
    let source = match connection.peer {
        Peer::Tcp(peer) if connection.peer.ip() == client_ip => peer,
        Peer::Unix if connection.peer.ip() == client_ip => return None,
        _ => SocketAddr::new(client_ip, 0),
    };
    let any = match client_ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let destination = match &connection.local {
        Bind::Tcp(local) => *local,
        Bind::Any(port) => SocketAddr::new(any, *port),
        Bind::Unix(_) => SocketAddr::new(any, 0),
    };
    Some(upstream::Client::new(source, destination))
}

/// What is done with a request that goes upstream, and the side of a split that it goes to.
fn proxied(action: &Action, exchange: &mut Exchange) -> Option<(Arc<Proxy>, Option<Box<SplitSide>>)> {
    match action {
        Action::Proxy(proxy) => Some((proxy.clone(), None)),
        Action::Split(split) => {
            let side = SplitSide::choose(split, exchange);
            Some((side.proxy().clone(), Some(side)))
        }
        _ => None,
    }
}

/// The answer of an action that needs no upstream.
fn local(action: &Action, route: &Route, exchange: &mut Exchange) -> Response<Bytes> {
    match action {
        Action::Redirect(redirect) => redirect.answer(exchange).unwrap_or_else(|| {
            let reason = if exchange.host.is_empty() { Reason::BadHost } else { Reason::BadPath };
            exchange.reason = Some(reason);
            answers::refusal(reason, None, &route.errors, exchange)
        }),
        Action::Respond(respond) if respond.body.is_some() => respond.answer(),
        Action::Respond(respond) => {
            let message = respond.status.canonical_reason().unwrap_or("Error");
            let mut answer = answers::error(respond.status, "respond", message, &route.errors, exchange);
            for (name, value) in &respond.headers {
                answer.headers_mut().insert(name.clone(), value.clone());
            }
            answer
        }
        Action::Unmatched | Action::Proxy(_) | Action::Split(_) | Action::Forward(_) => {
            exchange.reason = Some(Reason::NoRoute);
            answers::refusal(Reason::NoRoute, None, &route.errors, exchange)
        }
    }
}

async fn send<S: Session>(downstream: &mut Downstream<S>, answer: Response<Bytes>, errors: &Errors) {
    let (mut head, body) = answer.into_parts();
    answers::complete(&mut head, &body);
    let answered = {
        let answering = pin!(downstream.answer(Response::from_parts(head, body)));
        recover::catching(answering).await
    };
    match answered {
        Ok(Ok(())) => {}
        Ok(Err(error)) => downstream.exchange.reason = Some(error.reason()),
        Err(_) => {
            downstream.exchange.reason = Some(Reason::Panic);
            own_up(downstream, errors).await;
        }
    }
}

/// The chain's response half panicked: what is said of that passes it by.
async fn own_up<S: Session>(downstream: &mut Downstream<S>, errors: &Errors) {
    if downstream.progress() == Progress::Waiting && downstream.chain.recovers() {
        let answer = answers::refusal(Reason::Panic, None, errors, &downstream.exchange);
        let (mut head, body) = answer.into_parts();
        answers::complete(&mut head, &body);
        if downstream.answer_plainly(Response::from_parts(head, body)).await.is_ok() {
            return;
        }
    }
    downstream.session.reset();
}

/// A proxied exchange failed: an answer where none has begun, else the client is shown that it is cut.
pub(super) async fn fail<S: Session>(downstream: &mut Downstream<S>, reason: Reason, errors: &Errors) {
    match downstream.progress() {
        Progress::Waiting if reason == Reason::ClientGone => downstream.session.reset(),
        Progress::Waiting if reason == Reason::Panic && !downstream.chain.recovers() => {
            downstream.session.reset();
        }
        Progress::Waiting => {
            let answer = answers::refusal(reason, None, errors, &downstream.exchange);
            send(downstream, answer, errors).await;
            downstream.exchange.reason.get_or_insert(reason);
        }
        Progress::Begun | Progress::Tunnel => {
            // What has come is handed on before the end is shown to be none.
            let _ = downstream.session.flush().await;
            downstream.session.reset();
        }
        Progress::Ended => {}
    }
}

/// For a listener that is gone: there is no chain to pass.
async fn refuse_plainly<S: Session>(mut session: S, reason: Reason) -> S {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = reason.status();
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if session.send_head(head, true).await.is_ok() {
        let _ = session.flush().await;
    }
    session
}

/// Whether others may read this request otherwise: a tunnel's bytes may follow CONNECT, and a host that means two things
/// comes of a client or a proxy that is not to be trusted with the rest.
fn is_mistrusted(reason: Reason) -> bool {
    matches!(reason, Reason::BadHost | Reason::NoConnect)
}

/// RFC 9110 section 15.5.10 and nginx: what is logged where no head was sent.
pub(super) const NOTHING_SENT: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

#[cfg(test)]
mod tests {
    use std::{
        task::{Context, Poll},
        time::Duration,
    };

    use http::{HeaderMap, response};

    use super::*;
    use crate::{
        middleware::{Chain, OnResponse},
        proxy::session::{ClientError, Closed},
    };

    /// Writes down what is said to the client.
    #[derive(Default)]
    struct Said {
        status: Option<StatusCode>,
        ended: bool,
        reset: bool,
    }

    impl Session for Said {
        fn body_is_empty(&self) -> bool {
            true
        }

        fn body_is_done(&self) -> bool {
            true
        }

        async fn read_body(&mut self) -> Result<Option<Bytes>, ClientError> {
            Ok(None)
        }

        fn take_trailers(&mut self) -> Option<HeaderMap> {
            None
        }

        async fn closed(&mut self, _: Duration) -> Closed {
            Closed::Idle
        }

        fn restart_wait(&mut self) {}

        async fn gone(&mut self) {}

        async fn send_informational(&mut self, _: StatusCode, _: &HeaderMap) -> Result<(), ClientError> {
            Ok(())
        }

        async fn send_head(&mut self, head: response::Parts, end: bool) -> Result<(), ClientError> {
            self.status = Some(head.status);
            self.ended = end;
            Ok(())
        }

        async fn send_data(&mut self, _: Bytes, end: bool) -> Result<(), ClientError> {
            self.ended = end;
            Ok(())
        }

        fn poll_sent(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
            Poll::Ready(Ok(()))
        }

        async fn say(&mut self, _: &mut Bytes) -> Result<(), ClientError> {
            Ok(())
        }

        async fn send_trailers(&mut self, _: HeaderMap) -> Result<(), ClientError> {
            self.ended = true;
            Ok(())
        }

        async fn flush(&mut self) -> Result<(), ClientError> {
            Ok(())
        }

        fn reset(&mut self) {
            self.reset = true;
        }

        fn bytes(&self) -> (u64, u64) {
            (0, 0)
        }
    }

    struct Panics;

    impl OnResponse for Panics {
        fn on_response(&self, _: &mut Exchange, _: &mut response::Parts) {
            panic!("in the response half")
        }
    }

    async fn answered_through_a_panic(recovers: bool) -> Downstream<Said> {
        let chain = Arc::new(Chain::for_tests(Arc::new(Panics), recovers));
        let mut downstream = Downstream::new(Said::default(), Exchange::for_tests("GET", "/"), chain);
        send(&mut downstream, Response::new(Bytes::from_static(b"hello")), &Errors::default()).await;
        assert_eq!(downstream.exchange.reason, Some(Reason::Panic));
        downstream
    }

    #[tokio::test]
    async fn a_panic_in_the_response_half_is_answered_past_it() {
        let recovered = answered_through_a_panic(true).await;
        assert_eq!(recovered.session.status, Some(StatusCode::INTERNAL_SERVER_ERROR));
        assert_eq!(recovered.exchange.status, recovered.session.status);
        assert!(recovered.session.ended && !recovered.session.reset);
    }

    #[tokio::test]
    async fn without_recover_a_panic_ends_the_connection() {
        let lost = answered_through_a_panic(false).await;
        assert!(lost.session.reset && lost.session.status.is_none());
    }
}
