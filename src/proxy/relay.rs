//! Relays what goes through a tunnel, in both directions, until both have ended, neither says anything any more, or the
//! tunnel is drained.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    downstream::Downstream,
    farewell::{Farewell, Next, next},
    meanwhile::{Meanwhile, Pause},
    session::{ClientError, Session},
    tunnel::Silence,
};
use crate::{
    error::Reason,
    upstream::exchange::{Event, Exchange},
};

/// How long a tunnel may be silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub idle: Duration,
    /// Once one direction has ended.
    pub half_open: Duration,
}

/// What happens next.
enum Step {
    Origin(Event),
    /// The origin says nothing at the moment: what it said so far is handed to the network.
    Flush,
    /// The origin takes more.
    Room,
    /// The client says something, or ends its direction.
    Client(Option<Bytes>),
    Farewell(Next),
    Silent,
}

/// Both ends of a tunnel.
struct Ends<'a, S> {
    downstream: &'a mut Downstream<S>,
    exchange: &'a mut Exchange,
    /// What is followed of a WebSocket, which is closed politely.
    farewell: Option<Box<Farewell>>,
    silence: Silence,
    client_ended: bool,
    origin_ended: bool,
    /// The origin had its turn.
    client_first: bool,
}

pub(super) async fn relay<S: Session>(
    downstream: &mut Downstream<S>,
    exchange: &mut Exchange,
    limits: Limits,
    farewell: Option<Box<Farewell>>,
) -> Result<(), Reason> {
    let silence = Silence::default();
    let mut ends = Ends {
        downstream,
        exchange,
        farewell,
        silence,
        client_ended: false,
        origin_ended: false,
        client_first: false,
    };
    ends.run(limits).await
}

impl<S: Session> Ends<'_, S> {
    async fn run(&mut self, limits: Limits) -> Result<(), Reason> {
        // The head of the tunnel goes out at once.
        let mut unsent = true;
        while !self.has_ended() {
            self.close_websocket().await.map_err(ClientError::reason)?;
            let step = match self.next(limits, unsent).await {
                // The origin has ended, and the client has taken all of it.
                Err(Reason::ClientGone) if self.origin_ended => return Ok(()),
                step => step?,
            };
            // In turn: an origin that says much must not keep the client waiting.
            self.client_first = matches!(step, Step::Origin(_));
            match step {
                Step::Room => {}
                Step::Flush => {
                    let (downstream, mut upward) = self.split();
                    downstream.flush(&mut upward).await?;
                    unsent = false;
                }
                Step::Origin(event) => unsent |= self.pass_down(event).await?,
                Step::Client(data) => self.split().1.pass_up(data)?,
                Step::Farewell(Next::Leave) => {}
                Step::Farewell(Next::End) => {
                    // The client has its Close; the origin had its time.
                    self.downstream.finish().await.map_err(ClientError::reason)?;
                    return Err(Reason::TunnelDrained);
                }
                Step::Silent if self.client_ended || self.origin_ended => break,
                Step::Silent => return Err(Reason::TunnelIdle),
            }
        }
        self.downstream.finish().await.map_err(ClientError::reason)
    }

    /// Whether both directions have: what the origin does not take has ended as well.
    fn has_ended(&self) -> bool {
        self.origin_ended && (self.client_ended || self.exchange.is_sent())
    }

    async fn next(&mut self, limits: Limits, unsent: bool) -> Result<Step, Reason> {
        let Self { downstream, exchange, farewell, silence, client_ended, origin_ended, client_first } = self;
        let limit =
            if *client_ended || *origin_ended { limits.half_open.min(limits.idle) } else { limits.idle };
        let had_room = exchange.has_room();
        let due = downstream.due();
        // What waits for its turn is no silence.
        let limit = limit + due.saturating_duration_since(Instant::now());
        let reads = !*client_ended && had_room;
        let mut client = pin!(async {
            let session = &mut **downstream;
            let heard = async {
                match reads {
                    true => session.read_tunnel(due).await.map_err(ClientError::reason),
                    false => {
                        session.session.gone().await;
                        Err(Reason::ClientGone)
                    }
                }
            };
            tokio::select! {
                biased;
                data = heard => data.map(Step::Client),
                next = next(farewell) => Ok(Step::Farewell(next)),
                () = silence.lasts(limit) => Ok(Step::Silent),
            }
        });
        poll_fn(|cx| {
            if *client_first && let Poll::Ready(step) = client.as_mut().poll(cx) {
                return Poll::Ready(step);
            }
            let polled = match *origin_ended {
                false => exchange.poll_event(cx).map(|event| event.map_err(|failure| failure.reason)),
                true => exchange.poll_room(cx).map(|()| Ok(Event::Room)),
            };
            match polled {
                Poll::Ready(Ok(Event::Room)) if !had_room && exchange.has_room() => {
                    return Poll::Ready(Ok(Step::Room));
                }
                Poll::Ready(Ok(Event::Room)) if *origin_ended => {}
                Poll::Ready(event) => return Poll::Ready(event.map(Step::Origin)),
                Poll::Pending => {}
            }
            if unsent {
                return Poll::Ready(Ok(Step::Flush));
            }
            client.as_mut().poll(cx)
        })
        .await
    }

    /// Says whether something is to be handed to the network.
    async fn pass_down(&mut self, event: Event) -> Result<bool, Reason> {
        match event {
            Event::Data(data) => {
                self.silence.broken();
                let data = match &mut self.farewell {
                    Some(farewell) => farewell.down(data),
                    None => data,
                };
                let (downstream, mut upward) = self.split();
                downstream.send_data_while(data, false, &mut upward).await?;
                Ok(true)
            }
            Event::End | Event::Trailers(_) => {
                self.origin_ended = true;
                self.close_websocket().await.map_err(ClientError::reason)?;
                self.hear_client_out().await;
                let (downstream, mut upward) = self.split();
                downstream.finish_while(&mut upward).await?;
                Ok(false)
            }
            Event::Room | Event::Informational(_) | Event::Head(..) => Ok(false),
        }
    }

    /// Both directions, so that the client's goes on while a write to the client waits.
    fn split(&mut self) -> (&mut Downstream<S>, Upward<'_>) {
        let Self { downstream, exchange, farewell, silence, client_ended, .. } = self;
        (downstream, Upward { exchange, farewell, silence, client_ended, pause: Pause::default() })
    }

    /// Sends each end of a WebSocket its Close, where it is time for that.
    async fn close_websocket(&mut self) -> Result<(), ClientError> {
        let Self { downstream, exchange, farewell: Some(farewell), .. } = self else { return Ok(()) };
        if exchange.has_room()
            && let Some(close) = farewell.close_upstream()
        {
            // It fails where the origin takes no more, which shows where it is listened to.
            let _ = exchange.send_data(close);
        }
        if let Some(close) = farewell.close_client() {
            downstream.session.say(close).await?;
            downstream.exchange.reason = Some(Reason::TunnelDrained);
            farewell.client_closed();
        }
        Ok(())
    }

    /// The origin has ended. The client is still to say its own Close (RFC 6455 section 7.1.1): what comes when its end is
    /// closed could cost it ours.
    async fn hear_client_out(&mut self) {
        let Self { downstream, farewell: Some(farewell), .. } = self else { return };
        while farewell.awaits_client() {
            tokio::select! {
                data = downstream.session.read_body() => match data {
                    Ok(Some(data)) => drop(farewell.up(data)),
                    _ => return,
                },
                _ = farewell.next() => return,
            }
        }
    }
}

/// The client's direction of a tunnel.
struct Upward<'a> {
    exchange: &'a mut Exchange,
    farewell: &'a mut Option<Box<Farewell>>,
    silence: &'a mut Silence,
    client_ended: &'a mut bool,
    pause: Pause,
}

impl Upward<'_> {
    fn pass_up(&mut self, data: Option<Bytes>) -> Result<(), Reason> {
        self.silence.broken();
        let passed = match data {
            None => {
                *self.client_ended = true;
                self.exchange.send_end(None)
            }
            Some(data) => {
                let data = match self.farewell {
                    Some(farewell) => farewell.up(data),
                    None => data,
                };
                self.exchange.send_data(data)
            }
        };
        passed.map_err(|failure| failure.reason)
    }
}

impl<S: Session> Meanwhile<S> for Upward<'_> {
    type Error = Reason;

    fn is_due(&self) -> bool {
        !*self.client_ended
    }

    fn poll(&mut self, downstream: &mut Downstream<S>, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        ready!(self.exchange.poll_room(cx));
        if *self.client_ended || !self.exchange.has_room() {
            return Poll::Pending;
        }
        let due = downstream.due();
        ready!(self.pause.poll(due, cx));
        let data = ready!(pin!(downstream.read_tunnel(due)).poll(cx)).map_err(ClientError::reason)?;
        Poll::Ready(self.pass_up(data))
    }
}
