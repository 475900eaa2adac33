//! A client's session with the request that it carries: the place where the chain's response half runs,
//! whoever the response is from.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header, response};
use tokio::time::{Instant, sleep_until};

use super::session::{ClientError, Session};
use crate::{
    error::Reason,
    http::{date, hop_by_hop},
    middleware::{Chain, Exchange, body_limit, limit::Way},
};

/// The session of one request, with its exchange.
pub struct Downstream<S> {
    pub session: S,
    pub exchange: Exchange,
    pub chain: Arc<Chain>,
    pub(super) progress: Progress,
}

/// How far the response is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    #[default]
    Waiting,
    /// The final head has been sent.
    Begun,
    /// After a 101: bytes both ways.
    Tunnel,
    Ended,
}

impl<S: Session> Downstream<S> {
    pub fn new(session: S, exchange: Exchange, chain: Arc<Chain>) -> Self {
        Self { session, exchange, chain, progress: Progress::Waiting }
    }

    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The next piece of the request's body, `None` at its end: one path for whoever reads it.
    pub async fn read_body(&mut self) -> Result<Option<Bytes>, Reason> {
        self.wait(Way::Request).await.map_err(ClientError::reason)?;
        let data = self.session.read_body().await.map_err(ClientError::reason)?;
        if let (Some(throttle), Some(data)) = (&mut self.exchange.throttle, &data) {
            throttle.passed(data.len(), Way::Request);
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

    /// Sends a head that an upstream gave: its connection's own fields stay behind.
    pub async fn forward_head(&mut self, mut head: response::Parts, end: bool) -> Result<(), ClientError> {
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
        if !switching && !head.headers.contains_key(header::DATE) {
            // RFC 9110 section 6.6.1 asks for it of those who answer and of those who forward.
            head.headers.insert(header::DATE, date::now());
        }
        self.chain.respond(&mut self.exchange, &mut head);
        if end && self.exchange.encoder.is_some() {
            // An empty body has a form of its own in each coding.
            self.commit_head(head, false).await?;
            return self.send_data(Bytes::new(), true).await;
        }
        self.commit_head(head, end).await
    }

    async fn commit_head(&mut self, head: response::Parts, end: bool) -> Result<(), ClientError> {
        self.exchange.status = Some(head.status);
        self.progress = match (head.status, end) {
            (StatusCode::SWITCHING_PROTOCOLS, _) => Progress::Tunnel,
            (_, true) => Progress::Ended,
            (_, false) => Progress::Begun,
        };
        self.session.send_head(head, end).await
    }

    pub async fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), ClientError> {
        if self.progress == Progress::Ended {
            return Ok(());
        }
        let data = match &mut self.exchange.encoder {
            None => data,
            Some(encoder) => encoder.encode(data, end).await,
        };
        if data.is_empty() && !end {
            return Ok(());
        }
        if end {
            self.progress = Progress::Ended;
        }
        self.pass(data, end).await
    }

    /// Sends a piece of the body as it goes to the client, as fast as it may.
    async fn pass(&mut self, data: Bytes, end: bool) -> Result<(), ClientError> {
        match self.exchange.throttle.is_some() && self.exchange.method != Method::HEAD {
            false => self.session.send_data(data, end).await,
            true => Box::pin(self.pass_slowly(data, end)).await,
        }
    }

    async fn pass_slowly(&mut self, mut data: Bytes, end: bool) -> Result<(), ClientError> {
        loop {
            let most = self.exchange.throttle.as_ref().and_then(|throttle| throttle.piece(Way::Response));
            let piece = data.split_to(most.map_or(data.len(), |most| most.min(data.len())));
            if !piece.is_empty() {
                self.wait(Way::Response).await?;
            }
            if let Some(throttle) = &mut self.exchange.throttle {
                throttle.passed(piece.len(), Way::Response);
            }
            self.session.send_data(piece, end && data.is_empty()).await?;
            if data.is_empty() {
                return Ok(());
            }
        }
    }

    /// Waits until more may pass. No deadline of the session runs meanwhile: the client is not to blame.
    async fn wait(&mut self, way: Way) -> Result<(), ClientError> {
        let free_at = self.exchange.throttle.as_ref().and_then(|throttle| throttle.free_at(way));
        match free_at.filter(|at| *at > Instant::now()) {
            None => Ok(()),
            Some(at) => Box::pin(self.wait_until(at)).await,
        }
    }

    async fn wait_until(&mut self, at: Instant) -> Result<(), ClientError> {
        // What has passed is not kept back with what waits.
        self.session.flush().await?;
        tokio::select! {
            biased;
            () = sleep_until(at) => Ok(()),
            () = self.session.gone() => Err(ClientError::Gone),
        }
    }

    /// Hands over to the network what there is of the body so far.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        if self.progress == Progress::Begun
            && let Some(encoder) = &mut self.exchange.encoder
        {
            let data = encoder.flush();
            if !data.is_empty() {
                self.pass(data, false).await?;
            }
        }
        self.session.flush().await
    }

    pub async fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), ClientError> {
        if self.progress == Progress::Ended {
            return Ok(());
        }
        if let Some(mut encoder) = self.exchange.encoder.take() {
            let data = encoder.encode(Bytes::new(), true).await;
            self.pass(data, false).await?;
        }
        self.progress = Progress::Ended;
        self.session.send_trailers(trailers).await
    }

    /// Ends the body where it has not ended yet.
    pub async fn finish(&mut self) -> Result<(), ClientError> {
        if matches!(self.progress, Progress::Begun | Progress::Tunnel) {
            self.send_data(Bytes::new(), true).await?;
        }
        self.session.flush().await
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
