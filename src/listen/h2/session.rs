//! One HTTP/2 request and its response.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Method, Response, StatusCode, request, response};

use tokio::time::timeout;

use super::requests::One;
use crate::{
    http::hop_by_hop,
    listen::{
        deadline::Deadline,
        head,
        pace::{Pace, Rule},
    },
    proxy::session::{ClientError, Closed, Session},
    snapshot::settings::Listener,
};

/// A stream of an HTTP/2 connection.
pub(super) struct Http2 {
    request: RecvStream,
    respond: SendResponse<Bytes>,
    /// Once the head is sent.
    response: Option<SendStream<Bytes>>,
    /// The piece of the response that is being sent, and whether it ends it.
    piece: Bytes,
    piece_ends: bool,
    trailers: Option<HeaderMap>,
    body_is_empty: bool,
    data_ended: bool,
    request_ended: bool,
    response_ended: bool,
    head_only: bool,
    /// What the request says of its body's length.
    length: Option<u64>,
    owes_continue: bool,
    /// Came as CONNECT, extended (RFC 8441) or not: a 2xx makes a tunnel of it.
    connects: bool,
    is_tunnel: bool,
    pace: Pace,
    write_idle: Duration,
    read_deadline: Deadline,
    write_deadline: Deadline,
    received: u64,
    sent: u64,
    /// Its place among the connection's requests, whose timer waits since something was read or sent.
    one: One,
}

/// An unread rest of a body up to this, in bytes, is read past, for as long.
const MOST_DRAINED: u64 = 64 << 10;
const DRAINING: Duration = Duration::from_secs(2);

impl Http2 {
    /// In a box: it is handed on many times.
    pub(super) fn new(
        head: &request::Parts,
        request: RecvStream,
        respond: SendResponse<Bytes>,
        settings: &Listener,
        one: One,
    ) -> Box<Self> {
        let body_is_empty = request.is_end_stream();
        Box::new(Self {
            respond,
            response: None,
            piece: Bytes::new(),
            piece_ends: false,
            trailers: None,
            body_is_empty,
            data_ended: body_is_empty,
            request_ended: body_is_empty,
            response_ended: false,
            head_only: head.method == Method::HEAD,
            length: head::length(&head.headers),
            owes_continue: !body_is_empty && head::expects_continue(&head.headers),
            connects: head.method == Method::CONNECT,
            is_tunnel: false,
            pace: Pace::new(match body_is_empty {
                true => Rule::of(settings),
                false => Rule::of_stream(settings, &head.headers),
            }),
            write_idle: settings.timeouts.write_idle,
            read_deadline: Deadline::default(),
            write_deadline: Deadline::default(),
            received: 0,
            sent: 0,
            request,
            one,
        })
    }

    /// The exchange is over: a response without its end is given up, so that the client can tell. What is left of a short
    /// body is read past: there are clients that lose the response over the reset that would refuse it. The rest of a
    /// long one is refused by h2 with NO_ERROR (RFC 9113 section 8.1).
    pub(super) async fn finish(mut self: Box<Self>) {
        if !self.response_ended {
            self.reset();
        } else if self.length.is_some_and(|length| length <= MOST_DRAINED) {
            let draining = async { while let Ok(Some(_)) = self.read_body().await {} };
            let _ = timeout(DRAINING, draining).await;
        }
    }

    /// Waits for the end of a body whose length is said to be 0: its request would be whole upstream before h2 sees that
    /// more comes.
    pub(super) async fn is_as_empty_as_said(&mut self) -> bool {
        let says_empty = !self.body_is_empty && self.length == Some(0);
        !says_empty || self.read_body().await.is_ok_and(|data| data.is_none())
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ClientError>> {
        while !self.data_ended {
            match self.request.poll_data(cx) {
                // Empty frames are no progress; h2 bounds their number.
                Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                Poll::Ready(Some(Ok(data))) => return Poll::Ready(self.take(data).map(Some)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(client_error(&error))),
                Poll::Ready(None) => self.data_ended = true,
                Poll::Pending => return self.poll_stalled(cx),
            }
        }
        self.poll_trailers(cx)
    }

    /// What is read may be followed by as much.
    fn take(&mut self, data: Bytes) -> Result<Bytes, ClientError> {
        self.read_deadline.clear();
        self.pace.resume();
        self.one.timer.clear();
        self.received += data.len() as u64;
        self.request.flow_control().release_capacity(data.len()).map_err(|error| client_error(&error))?;
        Ok(data)
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ClientError>> {
        if self.request_ended {
            return Poll::Ready(Ok(None));
        }
        match self.request.poll_trailers(cx) {
            Poll::Ready(Ok(Some(trailers))) if forbids(&trailers) => {
                Poll::Ready(Err(ClientError::Malformed("a field that must not stand in trailers")))
            }
            Poll::Ready(Ok(trailers)) => {
                self.trailers = trailers;
                self.request_ended = true;
                Poll::Ready(Ok(None))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(client_error(&error))),
            Poll::Pending => self.poll_stalled(cx),
        }
    }

    /// Nothing has come: asks for it where the client waits to be asked (RFC 9110 section 10.1.1).
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ClientError>> {
        if std::mem::take(&mut self.owes_continue) {
            self.inform(StatusCode::CONTINUE, HeaderMap::new())?;
        }
        if self.is_tunnel {
            // How long it may be silent is said where both its ways are seen.
            return Poll::Pending;
        }
        ready!(self.read_deadline.poll(self.pace.limit(self.received), cx));
        Poll::Ready(Err(ClientError::BodyTimeout))
    }

    fn inform(&mut self, status: StatusCode, fields: HeaderMap) -> Result<(), ClientError> {
        if self.response.is_some() {
            return Ok(());
        }
        let mut informational = Response::new(());
        *informational.status_mut() = status;
        *informational.headers_mut() = fields;
        self.respond.send_informational(informational).map_err(|error| client_error(&error))
    }

    /// Waits until the client takes some of `wanted` bytes.
    fn poll_room(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<Result<usize, ClientError>> {
        let Some(response) = &mut self.response else { return Poll::Ready(Err(ClientError::Gone)) };
        response.reserve_capacity(wanted);
        let room = loop {
            match response.capacity() {
                0 => {}
                room => break room,
            }
            match response.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(client_error(&error))),
                Poll::Ready(None) => return Poll::Ready(Err(ClientError::Gone)),
                Poll::Pending => {
                    ready!(self.write_deadline.poll(self.write_idle, cx));
                    return Poll::Ready(Err(ClientError::WriteTimeout));
                }
            }
        };
        self.write_deadline.clear();
        Poll::Ready(Ok(room.min(wanted)))
    }

    fn push(&mut self, data: Bytes, end: bool) -> Result<(), ClientError> {
        let Some(response) = &mut self.response else { return Err(ClientError::Gone) };
        self.one.timer.clear();
        self.one.hands_over(data.len());
        self.sent += data.len() as u64;
        response.send_data(data, end).map_err(|error| client_error(&error))?;
        self.response_ended = end;
        Ok(())
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.response {
            Some(response) => response.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.map(drop)
    }
}

impl Session for Http2 {
    fn body_is_empty(&self) -> bool {
        self.body_is_empty
    }

    fn body_is_done(&self) -> bool {
        self.request_ended || self.request.is_end_stream() || (self.is_tunnel && self.response_ended)
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
            Poll::Pending => self.one.timer.poll(limit, cx).map(|()| Closed::Idle),
        })
        .await
    }

    fn restart_wait(&mut self) {
        self.one.timer.clear();
    }

    async fn gone(&mut self) {
        poll_fn(|cx| self.poll_gone(cx)).await;
    }

    async fn send_informational(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
    ) -> Result<(), ClientError> {
        // There is no switching of protocols in HTTP/2 (RFC 9113 section 8.6).
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        self.owes_continue &= status != StatusCode::CONTINUE;
        let mut fields = fields.clone();
        hop_by_hop::strip(&mut fields);
        self.inform(status, fields)
    }

    async fn send_head(&mut self, mut head: response::Parts, end: bool) -> Result<(), ClientError> {
        let end = head::finish_response(&mut head, end, self.head_only);
        self.owes_continue = false;
        self.one.timer.clear();
        let is_tunnel = self.connects && head.status.is_success();
        let sent = self.respond.send_response(Response::from_parts(head, ()), end);
        self.response = Some(sent.map_err(|error| client_error(&error))?);
        self.is_tunnel = is_tunnel;
        self.response_ended = end;
        Ok(())
    }

    async fn send_data(&mut self, data: Bytes, end: bool) -> Result<(), ClientError> {
        if self.response_ended {
            // A body that the head says is not there (RFC 9110 section 9.3.2) is not sent.
            return Ok(());
        }
        (self.piece, self.piece_ends) = (data, end);
        poll_fn(|cx| self.poll_sent(cx)).await
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        while !self.piece.is_empty() {
            let room = ready!(self.poll_room(self.piece.len(), cx))?;
            let piece = self.piece.split_to(room);
            self.push(piece, self.piece_ends && self.piece.is_empty())?;
        }
        match self.piece_ends && !self.response_ended {
            true => Poll::Ready(self.push(Bytes::new(), true)),
            false => Poll::Ready(Ok(())),
        }
    }

    async fn say(&mut self, data: &mut Bytes) -> Result<(), ClientError> {
        while !data.is_empty() {
            let room = poll_fn(|cx| self.poll_room(data.len(), cx)).await?;
            self.push(data.split_to(room), false)?;
        }
        Ok(())
    }

    async fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), ClientError> {
        if self.response_ended {
            return Ok(());
        }
        let Some(response) = &mut self.response else { return Err(ClientError::Gone) };
        response.send_trailers(trailers).map_err(|error| client_error(&error))?;
        self.response_ended = true;
        Ok(())
    }

    /// The connection's task writes whatever there is as soon as it can.
    async fn flush(&mut self) -> Result<(), ClientError> {
        Ok(())
    }

    fn reset(&mut self) {
        self.response_ended = true;
        // What resets a connection in HTTP/1.1 is CANCEL to a tunnel (RFC 8441 section 5).
        let reason = if self.is_tunnel { Reason::CANCEL } else { Reason::INTERNAL_ERROR };
        match &mut self.response {
            Some(response) => response.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    fn bytes(&self) -> (u64, u64) {
        (self.received, self.sent)
    }
}

/// h2 resets by itself the requests that break the protocol, as by a length other than announced
/// (RFC 9113 section 8.1.1); every other end is the client's going.
fn client_error(error: &h2::Error) -> ClientError {
    match error.is_reset() && error.is_library() {
        true => ClientError::Malformed("it breaks the rules of HTTP/2"),
        false => ClientError::Gone,
    }
}

/// Trailers must not frame, route or secure what has gone before (RFC 9110 section 6.5.1).
fn forbids(trailers: &HeaderMap) -> bool {
    trailers.keys().any(hop_by_hop::forbidden_in_trailers)
}
