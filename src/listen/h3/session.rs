//! One HTTP/3 request and its response.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, request::Parts, response};
use quinn::{RecvStream, SendStream, StoppedError, VarInt};
use tokio::time::timeout;

use super::{
    Ended,
    code::{Code, Fault},
    head::{self, Head, NoHead, Unfit},
    message::{Message, Part},
    piece::Gathered,
    unsent::Unsent,
};
use crate::{
    error::Reason,
    http::hop_by_hop,
    listen::{
        deadline::Deadline,
        head as common,
        pace::{Pace, Rule},
    },
    proxy::session::{ClientError, Closed, Session},
    snapshot::settings::Listener,
};

/// A stream of an HTTP/3 connection.
pub(super) struct Http3 {
    quic: quinn::Connection,
    request: RecvStream,
    respond: SendStream,
    message: Message,
    /// The size that a field section may have.
    most_fields: usize,
    /// Some of the body that was read before anybody asked for it.
    early: Option<Bytes>,
    trailers: Option<HeaderMap>,
    /// What is left of the length that the head announced.
    announced: Option<u64>,
    body_is_empty: bool,
    request_ended: bool,
    /// What ended the request before its time: never its end, however often it is asked for.
    failed: Option<ClientError>,
    /// The client has given it up.
    given_up: bool,
    response_begun: bool,
    response_ended: bool,
    response_reset: bool,
    head_only: bool,
    owes_continue: bool,
    /// Came as CONNECT, extended (RFC 9220) or not: a 2xx makes a tunnel of it.
    connects: bool,
    is_tunnel: bool,
    unsent: Unsent,
    /// Ends when the client wants no response any more.
    refused: Option<Refused>,
    pub(super) pace: Pace,
    write_idle: Duration,
    read_deadline: Deadline,
    write_deadline: Deadline,
    /// Since something was read or sent.
    silence: Deadline,
    received: u64,
    sent: u64,
}

type Refused = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync>>;

// === impl Http3 ===

impl Http3 {
    pub(super) fn new(
        quic: quinn::Connection,
        (respond, request): (SendStream, RecvStream),
        settings: &Listener,
    ) -> Self {
        let most_fields = super::most_fields(settings);
        Self {
            quic,
            request,
            respond,
            message: Message::new(most_fields),
            most_fields,
            early: None,
            trailers: None,
            announced: None,
            body_is_empty: false,
            request_ended: false,
            failed: None,
            given_up: false,
            response_begun: false,
            response_ended: false,
            response_reset: false,
            head_only: false,
            owes_continue: false,
            connects: false,
            is_tunnel: false,
            unsent: Unsent::default(),
            refused: None,
            pace: Pace::new(Rule::of(settings)),
            write_idle: settings.timeouts.write_idle,
            read_deadline: Deadline::default(),
            write_deadline: Deadline::default(),
            silence: Deadline::default(),
            received: 0,
            sent: 0,
        }
    }

    /// Reads the head, for at most `limit`.
    pub(super) async fn read_head(&mut self, limit: Duration) -> Result<Parts, NoHead> {
        let read = self.try_head(limit).await;
        if let Err(NoHead::Refuse(..)) = read {
            self.refuse_rest();
        }
        read
    }

    async fn try_head(&mut self, limit: Duration) -> Result<Parts, NoHead> {
        let part = poll_fn(|cx| match self.poll_part(cx) {
            Poll::Pending => self.read_deadline.poll(limit, cx).map(|()| None),
            ready => ready.map(Some),
        });
        let part = match part.await {
            None => return Err(NoHead::unread(Reason::HeaderTimeout)),
            Some(part) => part.map_err(|_| NoHead::Over)?,
        };
        self.read_deadline.clear();
        let Head { parts, content_length } = match part {
            Some(Part::Head(section)) => match head::request(section, self.most_fields) {
                Ok(head) => head,
                Err(Unfit::TooLarge) => return Err(NoHead::unread(Reason::HeaderTooLarge)),
                Err(unfit) => {
                    self.fail(unfit.fault());
                    return Err(NoHead::Over);
                }
            },
            Some(Part::TooLarge) => return Err(NoHead::unread(Reason::HeaderTooLarge)),
            // No other part comes before the head, and no end.
            _ => return Err(NoHead::Over),
        };
        self.connects = parts.method == Method::CONNECT;
        // What follows CONNECT is a tunnel's and no body, whatever the head says (RFC 9110 section 9.3.6).
        self.announced = content_length.filter(|_| !self.connects);
        // That no body follows is known when the end has come with the head.
        match poll_fn(|cx| Poll::Ready(self.poll_piece(cx))).await {
            Poll::Ready(Err(_)) => return Err(NoHead::Over),
            Poll::Ready(Ok(early)) => self.early = early,
            Poll::Pending => {}
        }
        self.body_is_empty = self.request_ended && self.early.is_none() && self.trailers.is_none();
        self.head_only = parts.method == Method::HEAD;
        self.owes_continue = !self.body_is_empty && common::expects_continue(&parts.headers);
        Ok(parts)
    }

    /// The exchange is over: a response without its end is given up, so that the client can tell; an unread rest of the
    /// request is refused (RFC 9114 section 4.1). Waits until the client has the response, since a connection that is
    /// closed takes along what is on its way.
    pub(super) async fn finish(mut self) -> Ended {
        if !self.response_ended {
            self.reset();
        }
        // Nobody would say that a response which was given up has come.
        if !self.response_reset {
            self.refuse_rest();
            // One that acknowledges nothing is not waited for.
            let told = timeout(self.write_idle, self.respond.stopped()).await;
            self.given_up |= !matches!(told, Ok(Ok(None) | Err(_)));
        }
        match self.given_up || self.failed.is_some() {
            true => Ended::Spoilt,
            false => Ended::Served,
        }
    }

    fn refuse_rest(&mut self) {
        if !std::mem::replace(&mut self.request_ended, true) {
            let _ = self.request.stop(Code::NoError.into());
        }
    }

    /// The next part of the request, `None` at its end.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, ClientError>> {
        loop {
            match self.message.part() {
                Ok(None) => {}
                Ok(part) => return Poll::Ready(Ok(part)),
                Err(fault) => return Poll::Ready(Err(self.fail(fault))),
            }
            let chunk = ready!(pin!(self.request.read_chunk(usize::MAX, true)).poll(cx));
            match chunk {
                Ok(Some(chunk)) => self.message.feed(chunk.bytes),
                Ok(None) => {
                    let ended = self.message.end();
                    return Poll::Ready(ended.map(|()| None).map_err(|fault| self.fail(fault)));
                }
                Err(_) => return Poll::Ready(Err(self.lose())),
            }
        }
    }

    /// The client has taken back what it asked.
    fn lose(&mut self) -> ClientError {
        self.given_up = true;
        ClientError::Gone
    }

    /// What has come of the body, up to some size; `None` at its end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ClientError>> {
        if let Some(failed) = self.failed {
            return Poll::Ready(Err(failed));
        }
        let mut gathered = Gathered::default();
        while !self.request_ended && !gathered.is_full() {
            match self.poll_part(cx) {
                Poll::Pending if gathered.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(part) => match part? {
                    Some(Part::Data(data)) => {
                        self.count(data.len())?;
                        gathered.push(data);
                    }
                    Some(Part::Trailers(section)) => self.read_trailers(section)?,
                    Some(Part::Head(_) | Part::TooLarge) => {
                        return Poll::Ready(Err(self.fail(Fault::Request(Code::MessageError))));
                    }
                    None => self.end_request()?,
                },
            }
        }
        Poll::Ready(Ok(Some(gathered.take()).filter(|data| !data.is_empty())))
    }

    /// A body longer than announced is malformed, as is a shorter one (RFC 9114 section 4.1.2).
    fn count(&mut self, length: usize) -> Result<(), ClientError> {
        match &mut self.announced {
            None => return Ok(()),
            Some(left) => {
                if let Some(less) = left.checked_sub(length as u64) {
                    *left = less;
                    return Ok(());
                }
            }
        }
        Err(self.fail(Fault::Request(Code::MessageError)))
    }

    fn end_request(&mut self) -> Result<(), ClientError> {
        if self.announced.is_some_and(|left| left > 0) {
            return Err(self.fail(Fault::Request(Code::MessageError)));
        }
        self.request_ended = true;
        Ok(())
    }

    fn read_trailers(&mut self, section: Bytes) -> Result<(), ClientError> {
        let read = head::trailers(section, self.most_fields);
        self.trailers = Some(read.map_err(|unfit| self.fail(unfit.fault()))?);
        Ok(())
    }

    /// Ends what cannot go on, the request or the whole connection.
    fn fail(&mut self, fault: Fault) -> ClientError {
        if let Fault::Connection(code) = fault {
            self.quic.close(code.into(), b"");
        }
        let (Fault::Connection(code) | Fault::Request(code)) = fault;
        self.give_up(code);
        *self.failed.insert(ClientError::Malformed("it breaks the rules of HTTP/3"))
    }

    fn give_up(&mut self, code: Code) {
        self.response_ended = true;
        self.response_reset = true;
        self.unsent.clear();
        let _ = self.respond.reset(code.into());
        if !std::mem::replace(&mut self.request_ended, true) {
            let _ = self.request.stop(code.into());
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ClientError>> {
        let piece = match self.early.take() {
            Some(early) => Some(early),
            None => match self.poll_piece(cx) {
                Poll::Ready(piece) => piece?,
                Poll::Pending => return self.poll_stalled(cx),
            },
        };
        self.read_deadline.clear();
        self.pace.resume();
        self.silence.clear();
        self.received += piece.as_ref().map_or(0, Bytes::len) as u64;
        Poll::Ready(Ok(piece))
    }

    /// Nothing has come: asks for it where the client waits to be asked (RFC 9110 section 10.1.1).
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ClientError>> {
        if std::mem::take(&mut self.owes_continue) && !self.response_begun {
            self.unsent.queue(head::put_response(StatusCode::CONTINUE, &HeaderMap::new()), Bytes::new());
        }
        if !self.unsent.is_empty() {
            let _ = self.poll_unsent(cx)?;
        }
        if self.is_tunnel {
            // How long it may be silent is said where both its ways are seen.
            return Poll::Pending;
        }
        ready!(self.read_deadline.poll(self.pace.limit(self.received), cx));
        Poll::Ready(Err(ClientError::BodyTimeout))
    }

    /// Waits until the client has room for all that is unsent.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        loop {
            let payload = self.unsent.payload();
            let Some(rest) = self.unsent.rest() else { break };
            let written = pin!(self.respond.write_chunks(rest)).poll(cx);
            match written {
                Poll::Ready(Ok(_)) => {
                    self.write_deadline.clear();
                    self.silence.clear();
                    self.sent += (payload - self.unsent.payload()) as u64;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(self.lose())),
                Poll::Pending => {
                    ready!(self.write_deadline.poll(self.write_idle, cx));
                    return Poll::Ready(Err(ClientError::WriteTimeout));
                }
            }
        }
        match std::mem::take(&mut self.unsent.ends) {
            true => Poll::Ready(self.end_response()),
            false => Poll::Ready(Ok(())),
        }
    }

    /// Sends a frame, after what was left of another. `end`: it is the last one.
    async fn send(&mut self, head: Bytes, payload: Bytes, end: bool) -> Result<(), ClientError> {
        poll_fn(|cx| self.poll_unsent(cx)).await?;
        self.unsent.queue(head, payload);
        self.unsent.ends = end;
        poll_fn(|cx| self.poll_unsent(cx)).await
    }

    fn end_response(&mut self) -> Result<(), ClientError> {
        self.response_ended = true;
        self.respond.finish().map_err(|_| ClientError::Gone)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.request_ended {
            let reset = pin!(self.request.received_reset()).poll(cx);
            if let Poll::Ready(Ok(Some(_)) | Err(_)) = reset {
                self.lose();
                return Poll::Ready(());
            }
        }
        if self.response_ended {
            return Poll::Pending;
        }
        let refused = self.refused.get_or_insert_with(|| Box::pin(self.respond.stopped()));
        ready!(refused.as_mut().poll(cx)).ok();
        self.lose();
        Poll::Ready(())
    }
}

impl Drop for Http3 {
    /// Without this, a response whose task has failed would look as if it had ended.
    fn drop(&mut self) {
        if !self.response_ended {
            self.give_up(Code::InternalError);
        }
    }
}

impl Session for Http3 {
    fn body_is_empty(&self) -> bool {
        self.body_is_empty
    }

    fn body_is_done(&self) -> bool {
        let is_read = self.request_ended && self.failed.is_none() && self.early.is_none();
        is_read || (self.is_tunnel && self.response_ended)
    }

    fn awaits_continue(&self) -> bool {
        self.owes_continue
    }

    async fn read_body(&mut self) -> Result<Option<Bytes>, ClientError> {
        poll_fn(|cx| self.poll_body(cx)).await
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    async fn closed(&mut self, limit: Duration) -> Closed {
        poll_fn(|cx| match self.poll_gone(cx) {
            Poll::Ready(()) => Poll::Ready(Closed::Gone),
            Poll::Pending => self.silence.poll(limit, cx).map(|()| Closed::Idle),
        })
        .await
    }

    fn restart_wait(&mut self) {
        self.silence.clear();
    }

    async fn gone(&mut self) {
        poll_fn(|cx| self.poll_gone(cx)).await;
    }

    async fn send_informational(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
    ) -> Result<(), ClientError> {
        // There is no switching of protocols in HTTP/3 (RFC 9114 section 4.5).
        if status == StatusCode::SWITCHING_PROTOCOLS || self.response_begun {
            return Ok(());
        }
        self.owes_continue &= status != StatusCode::CONTINUE;
        let mut fields = fields.clone();
        hop_by_hop::strip(&mut fields);
        self.send(head::put_response(status, &fields), Bytes::new(), false).await
    }

    async fn send_head(&mut self, mut head: response::Parts, end: bool) -> Result<(), ClientError> {
        if self.response_ended {
            return Err(ClientError::Gone);
        }
        let end = common::finish_response(&mut head, end, self.head_only);
        self.owes_continue = false;
        self.response_begun = true;
        self.is_tunnel = self.connects && head.status.is_success();
        if self.is_tunnel {
            self.message.become_tunnel();
        }
        self.send(head::put_response(head.status, &head.headers), Bytes::new(), end).await
    }

    async fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), ClientError> {
        if self.response_ended {
            // A body that the head says is not there (RFC 9110 section 9.3.2) is not sent.
            return Ok(());
        }
        poll_fn(|cx| self.poll_unsent(cx)).await?;
        self.unsent.queue_data(data);
        self.unsent.ends = end;
        poll_fn(|cx| self.poll_unsent(cx)).await
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        self.poll_unsent(cx)
    }

    async fn say(&mut self, data: &mut Bytes) -> Result<(), ClientError> {
        // What waits goes first, whosever it is.
        poll_fn(|cx| self.poll_unsent(cx)).await?;
        self.unsent.queue_data(std::mem::take(data));
        poll_fn(|cx| self.poll_unsent(cx)).await
    }

    async fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), ClientError> {
        if self.response_ended {
            return Ok(());
        }
        self.send(head::put_trailers(&trailers), Bytes::new(), true).await
    }

    fn reset(&mut self) {
        // What resets a connection in HTTP/1.1 is a cancelled request to a tunnel (RFC 9220 section 3).
        self.give_up(if self.is_tunnel { Code::RequestCancelled } else { Code::InternalError });
    }

    fn bytes(&self) -> (u64, u64) {
        (self.received, self.sent)
    }
}
