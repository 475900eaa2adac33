//! Carries a request to its origin and the response back: one loop for attempts, one for both bodies, one for tunnels,
//! whatever the protocols on both sides.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{StatusCode, header, response};
use tokio::time::Sleep;

use super::{
    call::Call,
    downstream::{Downstream, Progress},
    farewell::Farewell,
    hedge::{self, Opened},
    outgoing::Request,
    patience::patiently,
    recover,
    relay::{self, relay},
    reserved,
    session::{ClientError, Session},
    tunnel::Tunnel,
    upload::{Upload, listen},
};
use crate::{
    error::{Blame, Reason},
    http::hop_by_hop,
    upstream::{
        Connector, Route,
        exchange::{Event, Exchange, Failure, Processed},
    },
};

/// How long each wait of an exchange may last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// Of each attempt.
    pub first_byte: Duration,
    pub body_idle: Duration,
    pub tunnel_idle: Duration,
}

/// How long an origin may be silent to a client that has ended its direction of a tunnel, and a client to an origin.
const HALF_OPEN: Duration = Duration::from_secs(10);

/// Sends the request of `downstream.exchange.head` upstream and the response back. `call.failure` says why it failed, where
/// it did; the client waits for an answer then, unless its response has begun.
pub(super) async fn carry<S: Session>(
    downstream: &mut Downstream<S>,
    call: &mut Call,
    connector: &Connector,
    waits: Waits,
    total: Option<Duration>,
) {
    let ended = {
        let run = pin!(run(downstream, call, connector, waits));
        let run = recover::catching(run);
        match total {
            None => run.await,
            Some(total) => match tokio::time::timeout(total, run).await {
                Ok(ended) => ended,
                Err(_) => Ok(Err(Reason::TotalTimeout)),
            },
        }
    };
    match ended.unwrap_or(Err(Reason::Panic)) {
        Ok(()) => {}
        // The attempt was dropped, and has not heard of it.
        Err(reason @ (Reason::TotalTimeout | Reason::Panic)) => call.broke(reason),
        Err(reason) => call.failure = Some(reason),
    }
}

async fn run<S: Session>(
    downstream: &mut Downstream<S>,
    call: &mut Call,
    connector: &Connector,
    waits: Waits,
) -> Result<(), Reason> {
    let mut request = Request::of(downstream, call);
    if request.signs_in || reserved::is_reserved(downstream, call) {
        // In a box: it is rare.
        Box::pin(reserved::reserve(downstream, call, request.signs_in)).await?;
    }
    if let Some(queued) = call.enter()? {
        // As rare.
        let waiting = Box::pin(call.wait(queued));
        patiently(waiting, &mut downstream.session, None).await??;
    }
    loop {
        if let Some(pause) = call.pause() {
            patiently(Box::pin(tokio::time::sleep(pause)), &mut downstream.session, None).await?;
        }
        let Some((route, is_repeat)) = call.next(&downstream.exchange.host) else {
            return call.failure.map_or(Ok(()), Err);
        };
        request.begins();
        let opened = match hedge::is_due(call, &request) {
            false => open(downstream, call, connector, (route, is_repeat)).await?,
            true => {
                // In a box: it is rare.
                let (request, to) = (&mut request, (route, is_repeat));
                Box::pin(hedge::race(downstream, call, connector, request, waits.first_byte, to)).await?
            }
        };
        let Opened { route, mut exchange, reused, head } = match opened {
            Ok(opened) => opened,
            Err(hedge::Broken::Connecting(failure)) if call.connect_failed(&failure) => continue,
            Err(hedge::Broken::Answering(failure, reused))
                if is_repeated(downstream, call, &request, &failure, reused) =>
            {
                continue;
            }
            Err(_) => return call.failure.map_or(Ok(()), Err),
        };
        let mut attempt = Attempt {
            downstream,
            call,
            request: &mut request,
            exchange: &mut exchange,
            waits,
            patience: None,
            head,
        };
        match attempt.run().await {
            Ok(()) => {
                reserved::settle(downstream, call);
                if !call.is_challenged() {
                    connector.release(&route, exchange);
                }
                return Ok(());
            }
            Err(Broken::Exchange(reason)) => {
                if reason.blame() == Blame::Upstream {
                    exchange.distrust();
                }
                // It is the origin's, where it is not the client's.
                call.broke(reason);
                return Err(reason);
            }
            Err(Broken::Refused) => {
                if exchange.discard() {
                    connector.release(&route, exchange);
                }
                downstream.session.restart_wait();
            }
            Err(Broken::Upstream(failure)) => {
                if !is_repeated(downstream, call, &request, &failure, reused) {
                    return call.failure.map_or(Ok(()), Err);
                }
            }
        }
    }
}

/// A connection to the endpoint that was chosen, idle or new.
async fn open<S: Session>(
    downstream: &mut Downstream<S>,
    call: &mut Call,
    connector: &Connector,
    (route, fresh): (Route, bool),
) -> Result<Result<Opened, hedge::Broken>, Reason> {
    let idle = if fresh { None } else { route.connections.reuse(&route) };
    let (exchange, reused) = match idle {
        Some(exchange) => (exchange, true),
        None => {
            let Some(peer) = call.peer(&route, &downstream.exchange.host) else {
                return Err(Reason::NoEndpoint);
            };
            // In a box: it is rare, and every request would make room for it.
            let connecting = Box::pin(connector.open(&route, peer, fresh));
            match patiently(connecting, &mut downstream.session, None).await? {
                Ok(exchange) => {
                    let reused = exchange.is_reused();
                    (exchange, reused)
                }
                Err(failure) => return Ok(Err(hedge::Broken::Connecting(failure))),
            }
        }
    };
    call.connected(reused);
    Ok(Ok(Opened { route, exchange, reused, head: None }))
}

/// An exchange broke: whether the request is sent again. Each attempt has its own wait for the first byte.
fn is_repeated<S: Session>(
    downstream: &mut Downstream<S>,
    call: &mut Call,
    request: &Request,
    failure: &Failure,
    reused: bool,
) -> bool {
    let can_repeat = request.can_be_repeated(failure.processed, call.methods())
        && downstream.progress() == Progress::Waiting;
    let is_repeated = call.failed(failure, reused, can_repeat);
    if is_repeated {
        downstream.session.restart_wait();
    }
    is_repeated
}

/// Why an attempt did not come to its end.
pub(super) enum Broken {
    /// By the origin or on the way to it: it may be repeated.
    Upstream(Failure),
    /// By the client, or because a wait took too long.
    Exchange(Reason),
    /// By the status of the response: the request is tried again.
    Refused,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Upstream(failure)
    }
}

impl From<ClientError> for Broken {
    fn from(error: ClientError) -> Self {
        Self::Exchange(error.reason())
    }
}

impl From<Reason> for Broken {
    fn from(reason: Reason) -> Self {
        Self::Exchange(reason)
    }
}

/// One attempt over one connection.
struct Attempt<'a, S> {
    downstream: &'a mut Downstream<S>,
    call: &'a mut Call,
    request: &'a mut Request,
    exchange: &'a mut Exchange,
    waits: Waits,
    /// How long the origin may take for the response's head, where a try has a time of its own.
    patience: Option<Pin<Box<Sleep>>>,
    /// The head of the response, where the request is sent already.
    head: Option<(response::Parts, bool)>,
}

/// What happens next.
pub(super) enum Step {
    Event(Event),
    /// The origin says nothing at the moment: what it said so far is handed to the network.
    Flush,
    /// The client sent a piece of its body, or its end.
    Body(Option<Bytes>),
    /// The origin did not ask for the body in time.
    Unasked,
    /// The origin has the whole request, or takes no more of it.
    Sent,
}

// === impl Attempt ===

impl<S: Session> Attempt<'_, S> {
    async fn run(&mut self) -> Result<(), Broken> {
        let mut begun = self.head.take().map(|(head, end)| Step::Event(Event::Head(head, end)));
        if begun.is_none() {
            self.request.begin(self.call, self.exchange)?;
        }
        let mut unsent = false;
        let mut answered = false;
        let mut client_first = false;
        loop {
            let step = match begun.take() {
                Some(step) => step,
                None => self.next(unsent, answered, client_first).await?,
            };
            // In turn: an origin that says much must not keep the client's body waiting.
            client_first = matches!(step, Step::Event(Event::Data(_)));
            match step {
                Step::Sent => break,
                Step::Flush => {
                    let (downstream, mut upload) = self.split();
                    downstream.flush(&mut upload).await?;
                    unsent = false;
                }
                Step::Body(piece) => {
                    let (downstream, mut upload) = self.split();
                    upload.pass_on(piece, downstream)?;
                }
                Step::Unasked => self.request.expects_continue = false,
                Step::Event(Event::Room) => {}
                Step::Event(Event::Informational(head)) => {
                    self.request.expects_continue &= head.status != StatusCode::CONTINUE;
                    self.downstream.forward_head(head, false).await?;
                }
                Step::Event(Event::Head(head, _)) if self.is_refused(&head) => return Err(Broken::Refused),
                Step::Event(Event::Head(head, end)) => match self.answer(head, end).await? {
                    Some(tunnel) => return self.tunnel(tunnel).await,
                    None => {
                        unsent = true;
                        if self.call.tunnel.as_ref().is_some_and(Tunnel::connects_upstream) {
                            // It was refused: nothing goes through it.
                            self.exchange.send_end(None)?;
                        }
                    }
                },
                Step::Event(Event::Data(data)) => {
                    let (downstream, mut upload) = self.split();
                    downstream.send_data_while(data, false, &mut upload).await?;
                    unsent = true;
                }
                Step::Event(Event::Trailers(trailers)) if self.request.takes_trailers => {
                    let (downstream, mut upload) = self.split();
                    downstream.send_trailers(trailers, &mut upload).await?;
                    (unsent, answered) = (true, true);
                }
                Step::Event(Event::Trailers(_) | Event::End) => {
                    let (downstream, mut upload) = self.split();
                    downstream.send_data_while(Bytes::new(), true, &mut upload).await?;
                    (unsent, answered) = (true, true);
                }
            }
        }
        Ok(self.downstream.finish().await?)
    }

    /// Both directions, so that the client's goes on while a write of the response waits.
    fn split(&mut self) -> (&mut Downstream<S>, Upload<'_>) {
        let Self { downstream, request, exchange, .. } = self;
        (downstream, Upload::new(request, exchange))
    }

    /// Waits for what comes first. The origin is asked first: what it has said goes on at once.
    async fn next(&mut self, unsent: bool, answered: bool, client_first: bool) -> Result<Step, Broken> {
        self.begin_patience();
        let Self { downstream, request, exchange, waits, patience, .. } = self;
        let had_room = exchange.has_room();
        let reads = !request.is_whole && !request.expects_continue && !request.is_unwanted;
        let mut client = pin!(listen(downstream, request, had_room, exchange.is_sent(), *waits));
        let client_first = client_first && had_room && reads;
        poll_fn(|cx| {
            if client_first && let Poll::Ready(step) = client.as_mut().poll(cx) {
                return Poll::Ready(step);
            }
            match answered {
                false => {
                    if let Poll::Ready(event) = exchange.poll_event(cx) {
                        return Poll::Ready(event.map(Step::Event).map_err(Broken::from));
                    }
                }
                true if request.is_unwanted => return Poll::Ready(Ok(Step::Sent)),
                true if exchange.poll_room(cx).is_ready() => {
                    if exchange.is_sent() {
                        return Poll::Ready(Ok(Step::Sent));
                    }
                    if !had_room && exchange.has_room() {
                        return Poll::Ready(Ok(Step::Event(Event::Room)));
                    }
                }
                true => {}
            }
            if unsent {
                return Poll::Ready(Ok(Step::Flush));
            }
            if let Some(patience) = patience
                && patience.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Err(Broken::Upstream(Failure::of_try_timeout())));
            }
            client.as_mut().poll(cx)
        })
        .await
    }

    /// The time of a try begins when the request is complete, and ends with the response's head.
    fn begin_patience(&mut self) {
        if self.downstream.progress() != Progress::Waiting {
            self.patience = None;
        } else if let Some(limit) = self.call.per_try_timeout()
            && self.request.is_whole
            && self.patience.is_none()
        {
            self.patience = Some(Box::pin(tokio::time::sleep(limit)));
        }
    }

    /// Whether the response is not passed on, but the request tried again.
    fn is_refused(&mut self, head: &response::Parts) -> bool {
        self.downstream.progress() == Progress::Waiting
            && self.request.can_be_repeated(Processed::Unanswered, self.call.methods())
            && self.call.retries_response(head)
    }

    /// The final head is there. Says which tunnel it begins, where it does.
    async fn answer(&mut self, mut head: response::Parts, end: bool) -> Result<Option<Begun>, Broken> {
        self.call.answered(&head)?;
        self.call.set_cookies(head.status, &mut head.headers);
        self.request.is_unwanted = std::mem::take(&mut self.request.expects_continue);
        if !self.request.takes_trailers && hop_by_hop::has_rare(&head.headers, &header::TRAILER) {
            head.headers.remove(header::TRAILER);
        }
        let mut is_websocket = false;
        if let Some(tunnel) = &self.call.tunnel {
            tunnel.switch(&mut head);
            is_websocket = tunnel.is_websocket(&head);
        }
        self.downstream.forward_head(head, end).await?;
        let begins = self.downstream.progress() == Progress::Tunnel;
        Ok(begins.then_some(if is_websocket { Begun::WebSocket } else { Begun::Other }))
    }

    async fn tunnel(&mut self, tunnel: Begun) -> Result<(), Broken> {
        let farewell = (tunnel == Begun::WebSocket).then(|| {
            let leaving = self.downstream.exchange.connection.leaving.clone();
            Box::new(Farewell::new(leaving))
        });
        let limits = relay::Limits { idle: self.waits.tunnel_idle, half_open: HALF_OPEN };
        // In a box: few requests become tunnels, and each would make room for it.
        Ok(Box::pin(relay(self.downstream, self.exchange, limits, farewell)).await?)
    }
}

/// A tunnel that a head begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    WebSocket,
    Other,
}
