//! A client's session with the request that it carries: the place where the chain's response half runs,
//! whoever the response is from.

use std::{pin::pin, sync::Arc, task::Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header, response};
use tokio::time::{Instant, sleep_until};

use super::{
    meanwhile::{Meanwhile, Nothing, at_once, until, until_sent},
    patience::{passed, patiently},
    session::{ClientError, Session},
    tunnel,
};
use crate::{
    error::Reason,
    http::{alt_svc::AltSvc, connection_auth::Lease, date, forwarded, hop_by_hop},
    middleware::{Chain, Exchange, Held, Stop, body_limit, decompress, limit::Way},
};

/// The session of one request, with its exchange.
pub struct Downstream<S> {
    pub session: S,
    pub exchange: Exchange,
    pub chain: Arc<Chain>,
    /// It is the client that chose whose response it is, and us for a proxy.
    pub(super) is_proxied: bool,
    /// What was read of the request's body before the action, until the action reads it.
    held: Option<Held>,
    pub(super) progress: Progress,
    pub(super) exchanged: Exchanged,
    /// The use of an upstream connection that is reserved for the client connection.
    pub(super) lease: Option<Arc<Lease>>,
}

/// Bytes of bodies as the action has them: decoded where the request's is, not yet coded where the response's will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exchanged {
    pub read: u64,
    pub given: u64,
}

/// How far the response is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    #[default]
    Waiting,
    /// The final head has been sent.
    Begun,
    /// After a 101, or what stands for it in HTTP/2: bytes both ways.
    Tunnel,
    Ended,
}

impl<S: Session> Downstream<S> {
    pub fn new(session: S, exchange: Exchange, chain: Arc<Chain>) -> Self {
        let (progress, exchanged) = (Progress::Waiting, Exchanged::default());
        Self { session, exchange, chain, is_proxied: false, held: None, progress, exchanged, lease: None }
    }

    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether the request's body has been read to its end.
    pub fn body_is_done(&self) -> bool {
        let is_decoded = self.exchange.decoder.as_ref().is_none_or(|decoder| decoder.is_done());
        self.held.is_none() && is_decoded && self.session.body_is_done()
    }

    /// Whether the client holds its body back, and no middleware has asked for it.
    pub fn awaits_continue(&self) -> bool {
        self.held.is_none() && self.session.awaits_continue()
    }

    /// Reads the body, where it has one, up to `most` bytes or its end, and shows it to the parts of the chain that look
    /// at bodies.
    pub async fn hold_body(&mut self, most: u64, deadline: Option<Instant>) -> Result<Option<Stop>, Reason> {
        if !self.exchange.has_body {
            return Ok(None);
        }
        let length = content_length(&self.exchange);
        // What is known to be too large need not be held in part.
        let held = match length.is_some_and(|length| length > most) {
            true => Held::default(),
            // That the client goes is found by reading.
            false => tokio::select! {
                biased;
                held = self.read_up_to(most) => held?,
                () = passed(deadline) => return Err(Reason::BodyTimeout),
            },
        };
        if held.is_whole && length.is_none() {
            self.exchange.head.headers.insert(header::CONTENT_LENGTH, held.data.len().into());
        }
        let held = self.held.insert(held);
        patiently(self.chain.inspect(&mut self.exchange, held), &mut self.session, deadline).await
    }

    async fn read_up_to(&mut self, most: u64) -> Result<Held, Reason> {
        let mut all = BytesMut::new();
        while all.len() as u64 <= most {
            match self.next_piece().await? {
                None => return Ok(Held { data: all.freeze(), is_whole: true }),
                Some(data) if all.is_empty() && self.body_is_done() => {
                    return Ok(Held { data, is_whole: true });
                }
                Some(data) => all.extend_from_slice(&data),
            }
        }
        Ok(Held { data: all.freeze(), is_whole: false })
    }

    /// The next piece of the request's body for the action, `None` at its end.
    pub async fn read_body(&mut self) -> Result<Option<Bytes>, Reason> {
        let piece = self.next_piece().await?;
        self.exchanged.read += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Ok(piece)
    }

    /// One path for whoever reads it.
    async fn next_piece(&mut self) -> Result<Option<Bytes>, Reason> {
        if let Some(held) = self.held.take().filter(|held| !held.data.is_empty()) {
            return Ok(Some(held.data));
        }
        loop {
            if self.exchange.decoder.is_some() {
                // Much can come of little: others have their turn in between. No piece is at hand that would be lost
                // where nobody waits any more.
                tokio::task::coop::consume_budget().await;
            }
            if let Some(data) = self.next_decoded()? {
                return Ok(Some(data));
            }
            let data = match &self.exchange.decoder {
                Some(decoder) if decoder.is_done() => return Ok(None),
                _ => self.read_coded().await?,
            };
            match &mut self.exchange.decoder {
                Some(decoder) => decoder.feed(data),
                None => return Ok(data),
            }
        }
    }

    /// What has come of the body and is decoded, where it is to be.
    fn next_decoded(&mut self) -> Result<Option<Bytes>, Reason> {
        let Exchange { decoder, observed, .. } = &mut self.exchange;
        let Some(decoder) = decoder else { return Ok(None) };
        let decisions = || self.chain.decisions(decompress::KIND);
        let decoded = decoder.next(|| {
            observed.push(Reason::DecodedTooLarge);
            decisions().inspect(|decisions| decisions.observed.inc());
        });
        if decoded.is_err() {
            decisions().inspect(|decisions| decisions.refused.inc());
        }
        decoded
    }

    /// The next piece of the body as it comes.
    async fn read_coded(&mut self) -> Result<Option<Bytes>, Reason> {
        if let Some(throttle) = &mut self.exchange.throttle {
            let due = throttle.due();
            self.wait(due, &mut Nothing).await.map_err(ClientError::reason)?;
        }
        let data = self.session.read_body().await.map_err(ClientError::reason)?;
        if let (Some(throttle), Some(data)) = (&mut self.exchange.throttle, &data) {
            throttle.read(data.len());
        }
        let Exchange { body_limits, observed, .. } = &mut self.exchange;
        let decisions = || self.chain.decisions(body_limit::KIND);
        let allowed = body_limits.allow(self.session.bytes().0, |reason| {
            observed.push(reason);
            decisions().inspect(|decisions| decisions.observed.inc());
        });
        match allowed {
            true => Ok(data),
            false => {
                decisions().inspect(|decisions| decisions.refused.inc());
                Err(Reason::BodyTooLarge)
            }
        }
    }

    /// When the client may be listened to again.
    pub fn due(&mut self) -> Instant {
        self.exchange.throttle.as_mut().map_or_else(Instant::now, |throttle| throttle.due())
    }

    /// What a client sends through a tunnel, from some time on: that has a speed, and no end like a body's.
    pub async fn read_tunnel(&mut self, due: Instant) -> Result<Option<Bytes>, ClientError> {
        if self.exchange.throttle.is_some() && due > Instant::now() {
            sleep_until(due).await;
        }
        let data = self.session.read_body().await?;
        if let (Some(throttle), Some(data)) = (&mut self.exchange.throttle, &data) {
            throttle.read(data.len());
        }
        self.exchanged.read += data.as_ref().map_or(0, |data| data.len() as u64);
        Ok(data)
    }

    /// Says what the answer will need, before it is there.
    pub async fn send_early_hints(&mut self) -> Result<(), Reason> {
        let Some(fields) = self.exchange.early_hints.take() else { return Ok(()) };
        let sent = self.session.send_informational(StatusCode::EARLY_HINTS, &fields).await;
        sent.map_err(ClientError::reason)
    }

    /// Sends a head that an upstream gave: its connection's own fields stay behind.
    pub async fn forward_head(&mut self, mut head: response::Parts, end: bool) -> Result<(), ClientError> {
        if self.is_proxied {
            // A gateway need not (RFC 9110 section 7.6.3).
            forwarded::via(&mut head.headers, head.version);
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.send_head(head, false).await;
        }
        hop_by_hop::strip(&mut head.headers);
        if head.status.is_informational() {
            return self.session.send_informational(head.status, &head.headers).await;
        }
        self.send_head(head, end).await
    }

    /// Sends a final head through the chain.
    pub async fn send_head(&mut self, mut head: response::Parts, end: bool) -> Result<(), ClientError> {
        if self.progress != Progress::Waiting {
            return Ok(());
        }
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if !switching && hop_by_hop::find(&head.headers, &header::DATE).is_none() {
            // RFC 9110 section 6.6.1 asks for it of those who answer and of those who forward.
            head.headers.insert(header::DATE, date::now());
        }
        let alt_svc = self.exchange.connection.alt_svc.as_ref().filter(|_| !switching && !self.is_proxied);
        if let Some(value) = alt_svc.and_then(AltSvc::value) {
            // An upstream's would be of itself. The chain may say otherwise.
            head.headers.insert(header::ALT_SVC, value);
        }
        self.chain.respond(&mut self.exchange, &mut head);
        if end && self.exchange.encoder.is_some() {
            // An empty body has a form of its own in each coding.
            self.commit_head(head, false).await?;
            return self.send_data(Bytes::new(), true).await;
        }
        self.commit_head(head, end).await
    }

    async fn commit_head(&mut self, mut head: response::Parts, end: bool) -> Result<(), ClientError> {
        self.progress = match (head.status, end) {
            (StatusCode::SWITCHING_PROTOCOLS, _) => Progress::Tunnel,
            (_, true) => Progress::Ended,
            (_, false) => Progress::Begun,
        };
        if self.progress == Progress::Ended {
            self.end_lease();
        }
        if self.progress == Progress::Tunnel && self.exchange.connects {
            tunnel::answer_connect(&mut head);
        }
        self.exchange.status = Some(head.status);
        self.session.send_head(head, end).await
    }

    pub async fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), ClientError> {
        self.send_data_while(data, end, &mut Nothing).await
    }

    /// Sends a piece of the body, and does something else while the client takes nothing.
    pub async fn send_data_while<M: Meanwhile<S>>(
        &mut self,
        data: Bytes,
        end: bool,
        meanwhile: &mut M,
    ) -> Result<(), M::Error> {
        if self.progress == Progress::Ended {
            return Ok(());
        }
        self.exchanged.given += data.len() as u64;
        let data = match &mut self.exchange.encoder {
            None => data,
            Some(encoder) => encoder.encode(data, end).await,
        };
        if data.is_empty() && !end {
            return Ok(());
        }
        if end {
            self.progress = Progress::Ended;
            self.end_lease();
        }
        self.pass(data, end, meanwhile).await
    }

    /// Sends a piece of the body as it goes to the client, as fast as it may.
    async fn pass<M: Meanwhile<S>>(
        &mut self,
        data: Bytes,
        end: bool,
        meanwhile: &mut M,
    ) -> Result<(), M::Error> {
        match self.exchange.throttle.is_some() && self.exchange.method != Method::HEAD {
            false => self.write(data, end, meanwhile).await,
            true => Box::pin(self.pass_slowly(data, end, meanwhile)).await,
        }
    }

    async fn write<M: Meanwhile<S>>(
        &mut self,
        data: Bytes,
        end: bool,
        meanwhile: &mut M,
    ) -> Result<(), M::Error> {
        if !meanwhile.is_due() {
            return Ok(self.session.send_data(data, end).await?);
        }
        let sent = at_once(pin!(self.session.send_data(data, end))).await;
        match sent {
            Poll::Ready(sent) => Ok(sent?),
            Poll::Pending => until_sent(self, meanwhile).await,
        }
    }

    async fn pass_slowly<M: Meanwhile<S>>(
        &mut self,
        mut data: Bytes,
        end: bool,
        meanwhile: &mut M,
    ) -> Result<(), M::Error> {
        loop {
            let most = self.exchange.throttle.as_ref().and_then(|throttle| throttle.piece(Way::Response));
            let piece = data.split_to(most.map_or(data.len(), |most| most.min(data.len())));
            if let Some(throttle) = self.exchange.throttle.as_ref().filter(|_| !piece.is_empty()) {
                let due = throttle.book(piece.len());
                self.wait(due, meanwhile).await?;
            }
            self.write(piece, end && data.is_empty(), meanwhile).await?;
            if data.is_empty() {
                return Ok(());
            }
        }
    }

    /// Waits until more may pass. No deadline of the session runs meanwhile: the client is not to blame.
    async fn wait<M: Meanwhile<S>>(&mut self, due: Instant, meanwhile: &mut M) -> Result<(), M::Error> {
        match due > Instant::now() {
            false => Ok(()),
            true => Box::pin(self.wait_until(due, meanwhile)).await,
        }
    }

    async fn wait_until<M: Meanwhile<S>>(&mut self, at: Instant, meanwhile: &mut M) -> Result<(), M::Error> {
        // What has passed is not kept back with what waits.
        self.flush_session(meanwhile).await?;
        if meanwhile.is_due() {
            return until(at, self, meanwhile).await;
        }
        tokio::select! {
            biased;
            () = sleep_until(at) => Ok(()),
            () = self.session.gone() => Err(ClientError::Gone.into()),
        }
    }

    /// Hands over to the network what there is of the body so far.
    pub async fn flush<M: Meanwhile<S>>(&mut self, meanwhile: &mut M) -> Result<(), M::Error> {
        if self.progress == Progress::Begun
            && let Some(encoder) = &mut self.exchange.encoder
        {
            let data = encoder.flush();
            if !data.is_empty() {
                self.pass(data, false, meanwhile).await?;
            }
        }
        self.flush_session(meanwhile).await
    }

    async fn flush_session<M: Meanwhile<S>>(&mut self, meanwhile: &mut M) -> Result<(), M::Error> {
        if !meanwhile.is_due() {
            return Ok(self.session.flush().await?);
        }
        let sent = at_once(pin!(self.session.flush())).await;
        match sent {
            Poll::Ready(sent) => Ok(sent?),
            Poll::Pending => until_sent(self, meanwhile).await,
        }
    }

    pub async fn send_trailers<M: Meanwhile<S>>(
        &mut self,
        trailers: HeaderMap,
        meanwhile: &mut M,
    ) -> Result<(), M::Error> {
        if self.progress == Progress::Ended {
            return Ok(());
        }
        if let Some(mut encoder) = self.exchange.encoder.take() {
            let data = encoder.encode(Bytes::new(), true).await;
            self.pass(data, false, meanwhile).await?;
        }
        self.progress = Progress::Ended;
        self.end_lease();
        let sent = at_once(pin!(self.session.send_trailers(trailers))).await;
        match sent {
            Poll::Ready(sent) => Ok(sent?),
            Poll::Pending => until_sent(self, meanwhile).await,
        }
    }

    /// To be said before the client can know: its next request may follow at once.
    fn end_lease(&self) {
        if let Some(lease) = &self.lease {
            lease.end();
        }
    }

    /// Ends the body where it has not ended yet.
    pub async fn finish(&mut self) -> Result<(), ClientError> {
        self.finish_while(&mut Nothing).await
    }

    pub async fn finish_while<M: Meanwhile<S>>(&mut self, meanwhile: &mut M) -> Result<(), M::Error> {
        if matches!(self.progress, Progress::Begun | Progress::Tunnel) {
            self.send_data_while(Bytes::new(), true, meanwhile).await?;
        }
        self.flush_session(meanwhile).await
    }

    /// Sends a whole answer of our own.
    pub async fn answer(&mut self, answer: http::Response<Bytes>) -> Result<(), ClientError> {
        let (head, body) = answer.into_parts();
        self.session.leave_body();
        self.send_head(head, body.is_empty()).await?;
        self.rest_of_answer(body).await
    }

    /// Sends a whole answer past the chain: one that the chain cannot spoil.
    pub async fn answer_plainly(&mut self, answer: http::Response<Bytes>) -> Result<(), ClientError> {
        let (head, body) = answer.into_parts();
        self.exchange.encoder = None;
        self.session.leave_body();
        self.commit_head(head, body.is_empty()).await?;
        self.rest_of_answer(body).await
    }

    async fn rest_of_answer(&mut self, body: Bytes) -> Result<(), ClientError> {
        if !body.is_empty() {
            self.send_data(body, true).await?;
        }
        self.session.flush().await
    }
}

fn content_length(exchange: &Exchange) -> Option<u64> {
    exchange.head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
