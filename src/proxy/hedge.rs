//! Hedged requests: where an endpoint is slow to answer, another one is asked beside it, and the first answer wins.
//!
//! The attempts run here up to the head of the response that wins; the others are dropped then, and with them their connections
//! or streams. Each attempt books what becomes of it at its own endpoint.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::response;
use tokio::time::{Sleep, sleep};

use super::{
    call::{Attempt, Call},
    downstream::Downstream,
    outgoing::Request,
    session::{Closed, Session},
};
use crate::{
    error::Reason,
    upstream::{
        Connector, Route,
        exchange::{Event, Exchange, Failure, Processed},
    },
};

/// A connection that an attempt goes on with.
pub(super) struct Opened {
    pub route: Route,
    pub exchange: Exchange,
    pub reused: bool,
    /// The head of the response, where the request is sent already; and whether no body follows.
    pub head: Option<(response::Parts, bool)>,
}

/// Why there is none.
pub(super) enum Broken {
    Connecting(Failure),
    /// Over a connection that was reused, or not.
    Answering(Failure, bool),
}

/// Attempts of one request that run at the same time. The first is the call's own.
struct Race<'c> {
    connector: &'c Connector,
    /// The host asked for.
    host: Box<str>,
    legs: Vec<Leg<'c>>,
    /// Until the next attempt starts, where there is one to come.
    due: Option<Pin<Box<Sleep>>>,
    after: Option<Duration>,
    /// Further attempts that may start.
    left: u8,
    began: Instant,
}

/// One attempt.
struct Leg<'c> {
    /// None: the call's own.
    attempt: Option<Attempt>,
    state: State<'c>,
    /// Whether its connection was made for it.
    is_fresh: bool,
    /// Its own time, where a try has one.
    patience: Option<Pin<Box<Sleep>>>,
}

enum State<'c> {
    Connecting(Pin<Box<dyn Future<Output = Connected> + Send + 'c>>),
    Waiting(Route, Exchange, bool),
    /// It was answered with a status that is tried again: it wins only where no other attempt does.
    Refused(Box<(Route, Exchange, bool, response::Parts, bool, Instant)>),
    Gone,
}

type Connected = (Route, Result<Exchange, Failure>);

enum Step {
    Connected(usize, Route, Result<Exchange, Failure>),
    Event(usize, Result<Event, Failure>),
    Due,
    Client(Closed),
}

/// Whether the request may have several attempts at a time: it may be repeated, and all of it is here.
pub(super) fn is_due(call: &Call, request: &Request) -> bool {
    call.may_hedge()
        && request.is_whole
        && request.head.method.is_idempotent()
        && request.can_be_repeated(Processed::Unanswered, call.methods())
}

/// Sends the request, and again where the answer takes long, up to the head of the response that wins. `fresh`: the first
/// connection has to be a new one.
pub(super) async fn race<S: Session>(
    downstream: &mut Downstream<S>,
    call: &mut Call,
    connector: &Connector,
    request: &mut Request,
    first_byte: Duration,
    (route, fresh): (Route, bool),
) -> Result<Result<Opened, Broken>, Reason> {
    let (after, left) = call.hedge_plan();
    let due = after.filter(|_| left > 0).map(|after| Box::pin(sleep(after)));
    let host = downstream.exchange.host.as_str().into();
    let mut race = Race { connector, host, legs: Vec::new(), due, after, left, began: Instant::now() };
    let first = Leg { attempt: None, state: State::Gone, is_fresh: fresh, patience: None };
    if let Some(over) = race.start(first, route, call, request) {
        return Ok(over);
    }
    loop {
        match race.next(downstream, first_byte).await {
            Step::Client(Closed::Gone) => return Err(Reason::ClientGone),
            Step::Client(Closed::Idle) => {
                race.late(call);
                return Err(Reason::FirstByteTimeout);
            }
            Step::Due => race.hedge(call, request),
            Step::Connected(nth, route, Ok(exchange)) => {
                let reused = exchange.is_reused();
                if let Some(over) = race.send(nth, (route, exchange, reused), call, request) {
                    return Ok(over);
                }
            }
            Step::Connected(nth, _, Err(failure)) => {
                if let Some(over) = race.lost(nth, Broken::Connecting(failure), call) {
                    return Ok(over);
                }
            }
            Step::Event(nth, Ok(Event::Head(head, end))) => {
                if race.is_parked(nth, &head, call) {
                    race.park(nth, head, end);
                } else {
                    return Ok(Ok(race.won(nth, (head, end), call)));
                }
            }
            Step::Event(_, Ok(Event::Informational(head))) => {
                downstream.forward_head(head, false).await.map_err(|error| error.reason())?;
            }
            Step::Event(_, Ok(_)) => {}
            Step::Event(nth, Err(failure)) => {
                if let Some(over) = race.failed(nth, failure, call) {
                    return Ok(over);
                }
            }
        }
    }
}

type Over = Result<Opened, Broken>;

// === impl Race ===

impl Race<'_> {
    /// Waits for what comes first. What an attempt has is taken before the next one starts.
    async fn next<S: Session>(&mut self, downstream: &mut Downstream<S>, first_byte: Duration) -> Step {
        let mut client = pin!(downstream.session.closed(first_byte));
        poll_fn(|cx| {
            for (nth, leg) in self.legs.iter_mut().enumerate() {
                if let Poll::Ready(step) = leg.poll(nth, cx) {
                    return Poll::Ready(step);
                }
            }
            if let Some(due) = &mut self.due
                && due.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Step::Due);
            }
            client.as_mut().poll(cx).map(Step::Client)
        })
        .await
    }

    /// Begins an attempt over an idle connection, or a new one.
    fn start(&mut self, leg: Leg<'_>, route: Route, call: &mut Call, request: &mut Request) -> Option<Over> {
        let Leg { attempt, is_fresh, patience, .. } = leg;
        let nth = self.legs.len();
        self.legs.push(Leg { attempt, state: State::Gone, is_fresh, patience });
        let idle = if is_fresh { None } else { route.connections.reuse(&route) };
        match idle {
            Some(exchange) => self.send(nth, (route, exchange, true), call, request),
            None => self.connect(nth, route, call),
        }
    }

    fn connect(&mut self, nth: usize, route: Route, call: &mut Call) -> Option<Over> {
        let Self { connector, host, legs, .. } = self;
        let connector = *connector;
        let leg = &mut legs[nth];
        let Some(peer) = leg.book(call, |call| call.peer(&route, host)) else {
            let failure = Failure::new(Reason::NoEndpoint, Processed::Unsent, "the endpoint is gone");
            return self.lost(nth, Broken::Connecting(failure), call);
        };
        let fresh = leg.is_fresh;
        leg.state = State::Connecting(Box::pin(async move {
            let opened = connector.open(&route, peer, fresh).await;
            (route, opened)
        }));
        None
    }

    fn send(
        &mut self,
        nth: usize,
        (route, mut exchange, reused): (Route, Exchange, bool),
        call: &mut Call,
        request: &mut Request,
    ) -> Option<Over> {
        let leg = &mut self.legs[nth];
        let begun = leg.book(call, |call| {
            call.connected(reused);
            request.begin(call, &mut exchange)
        });
        leg.patience = call.per_try_timeout().map(|limit| Box::pin(sleep(limit)));
        leg.state = State::Waiting(route, exchange, reused);
        match begun {
            Ok(()) => None,
            Err(failure) => self.failed(nth, failure, call),
        }
    }

    /// Starts a further attempt, where there is another endpoint for it and the budget allows one.
    fn hedge(&mut self, call: &mut Call, request: &mut Request) {
        self.due = None;
        let Some((attempt, route)) = call.hedge(&self.host) else { return };
        self.left -= 1;
        self.due = self.after.filter(|_| self.left > 0).map(|after| Box::pin(sleep(after)));
        let leg = Leg { attempt: Some(attempt), state: State::Gone, is_fresh: false, patience: None };
        // It is not over: the attempts before go on.
        let _ = self.start(leg, route, call, request);
    }

    /// An exchange broke. Where that was only because its connection was closed meanwhile, it begins anew once.
    fn failed(&mut self, nth: usize, failure: Failure, call: &mut Call) -> Option<Over> {
        let leg = &mut self.legs[nth];
        let State::Waiting(route, exchange, reused) = std::mem::replace(&mut leg.state, State::Gone) else {
            return None;
        };
        drop(exchange);
        if failure.can_begin_anew(reused) && !leg.is_fresh {
            leg.is_fresh = true;
            return self.connect(nth, route, call);
        }
        self.lost(nth, Broken::Answering(failure, reused), call)
    }

    /// An attempt is over without a response. The request goes on with the others, or with a response that was held back.
    fn lost(&mut self, nth: usize, broken: Broken, call: &mut Call) -> Option<Over> {
        self.legs[nth].state = State::Gone;
        let others = self.legs.iter().any(Leg::is_running);
        let refused = self.legs.iter().position(|leg| matches!(leg.state, State::Refused(_)));
        if others || refused.is_some() {
            self.legs[nth].book(call, |call| match &broken {
                Broken::Connecting(failure) => call.lost_connecting(failure),
                Broken::Answering(failure, _) => call.lost_answering(failure),
            });
        }
        match refused {
            _ if others => None,
            Some(refused) => {
                let leg = &mut self.legs[refused];
                let State::Refused(held) = std::mem::replace(&mut leg.state, State::Gone) else {
                    return None;
                };
                let (route, exchange, reused, head, end, _) = *held;
                leg.state = State::Waiting(route, exchange, reused);
                Some(Ok(self.won(refused, (head, end), call)))
            }
            None => {
                // Nothing else runs: what comes next is decided as without hedges.
                self.legs[nth].take_over(call);
                Some(Err(broken))
            }
        }
    }

    /// Whether a response is held back: it would be tried again, and another attempt may have a better one.
    fn is_parked(&self, nth: usize, head: &response::Parts, call: &Call) -> bool {
        let mut others = self.legs.iter().enumerate();
        call.is_tried_again(head) && others.any(|(other, leg)| other != nth && leg.is_running())
    }

    fn park(&mut self, nth: usize, head: response::Parts, end: bool) {
        let leg = &mut self.legs[nth];
        leg.patience = None;
        if let State::Waiting(route, exchange, reused) = std::mem::replace(&mut leg.state, State::Gone) {
            leg.state = State::Refused(Box::new((route, exchange, reused, head, end, Instant::now())));
        }
    }

    /// The head of an attempt's response is that of the request's. The other attempts are dropped.
    fn won(&mut self, nth: usize, head: (response::Parts, bool), call: &mut Call) -> Opened {
        if let Some(upstream) = call.upstream() {
            // Where a hedge was faster, the first attempt takes at least so long.
            upstream.responded(self.began.elapsed());
        }
        let State::Waiting(route, exchange, reused) =
            std::mem::replace(&mut self.legs[nth].state, State::Gone)
        else {
            unreachable!("a head comes of an exchange that waits for it")
        };
        for (other, leg) in self.legs.iter_mut().enumerate() {
            if other != nth {
                leg.give_up(self.connector, call);
            }
        }
        if self.legs[nth].attempt.is_some() {
            self.legs[nth].take_over(call);
            call.hedge_won();
        }
        call.succeeded();
        Opened { route, exchange, reused, head: Some(head) }
    }

    /// No attempt was answered in time.
    fn late(&mut self, call: &mut Call) {
        for leg in &mut self.legs {
            if let State::Waiting(_, exchange, _) = &leg.state {
                exchange.distrust();
            }
            if leg.is_running() {
                leg.book(call, |call| call.broke(Reason::FirstByteTimeout));
            }
        }
    }
}

// === impl Leg ===

impl Leg<'_> {
    fn is_running(&self) -> bool {
        matches!(self.state, State::Connecting(_) | State::Waiting(..))
    }

    /// Books something as of this attempt.
    fn book<T>(&mut self, call: &mut Call, book: impl FnOnce(&mut Call) -> T) -> T {
        let Some(attempt) = &mut self.attempt else { return book(call) };
        call.switch(attempt);
        let booked = book(call);
        call.switch(attempt);
        booked
    }

    /// The call goes on with this attempt.
    fn take_over(&mut self, call: &mut Call) {
        if let Some(attempt) = &mut self.attempt {
            call.switch(attempt);
        }
    }

    /// Another attempt has won. What was held back is booked, and its connection used again where it can be.
    fn give_up(&mut self, connector: &Connector, call: &mut Call) {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Refused(held) => {
                let (route, mut exchange, _, head, end, at) = *held;
                self.book(call, |call| call.refused(head.status, at));
                if end || exchange.discard() {
                    connector.release(&route, exchange);
                }
            }
            State::Connecting(_) | State::Waiting(..) => self.book(call, Call::cancelled),
            State::Gone => {}
        }
    }

    fn poll(&mut self, nth: usize, cx: &mut Context<'_>) -> Poll<Step> {
        match &mut self.state {
            State::Connecting(connecting) => {
                connecting.as_mut().poll(cx).map(|(route, opened)| Step::Connected(nth, route, opened))
            }
            State::Waiting(_, exchange, _) => {
                if let Poll::Ready(event) = exchange.poll_event(cx) {
                    return Poll::Ready(Step::Event(nth, event));
                }
                if let Some(patience) = &mut self.patience
                    && patience.as_mut().poll(cx).is_ready()
                {
                    return Poll::Ready(Step::Event(nth, Err(Failure::of_try_timeout())));
                }
                Poll::Pending
            }
            State::Refused(_) | State::Gone => Poll::Pending,
        }
    }
}
