//! HTTP/1 with an origin: one exchange after the other over one connection.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use pingora::protocols::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop::unconstrained,
};
use tokio_util::io::poll_read_buf;

use super::{Event, Failure, Processed, RequestHead, TunnelRequest};
use crate::{
    error::Reason,
    http::{hop_by_hop, target},
    upstream::{lifetime::Lifetime, queue::Place},
    wire::h1::{
        body::{Body, BodyLength, Piece},
        response::{self, HeadLimits},
        write,
    },
};

/// A connection to an origin with the exchange that it carries.
pub struct Http1 {
    stream: Stream,
    pub lifetime: Lifetime,
    /// Where connections in use are counted. It is free when the connection is closed.
    pub place: Option<Place>,
    /// Received and not yet parsed.
    input: BytesMut,
    /// Queued: heads, framing, small pieces.
    output: BytesMut,
    /// Queued behind `output`: a large piece, which is not copied.
    piece: Bytes,
    limits: HeadLimits,
    sending: Sending,
    receiving: Receiving,
    method: Method,
    /// How far `input` was searched for the end of a head.
    scanned: usize,
    /// Whether the request asks for a tunnel.
    asks_tunnel: bool,
    /// Both sides keep the connection open after this exchange.
    keep_alive: bool,
    /// Informational responses so far.
    interim: usize,
    /// A byte of this request was handed to the network.
    wrote: bool,
    /// A byte of this response arrived.
    read: bool,
    /// [`Event::Room`] is owed once everything queued is sent.
    owes_room: bool,
    /// What was written may still lie in the encryption layer.
    unflushed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// Bytes of the body that are still to come.
    Exact(u64),
    Chunked,
    Tunnel,
    /// The tunnel's direction ends when everything queued is sent.
    TunnelEnding,
    Done,
    /// The origin takes no more.
    Failed,
}

#[derive(Debug)]
enum Receiving {
    Head,
    Body(Body),
    Done,
}

/// Read at once while a head or a short body is expected.
const READ: usize = 16 * 1024;
/// Read at once of a long body.
const READ_LONG: usize = 64 * 1024;
/// With less room than this the buffer grows before it is read into.
const READ_LEAST: usize = 2 * 1024;
/// Pieces up to this size are copied behind the head, so that both leave in one packet.
const COALESCE: usize = 4 * 1024;
/// More informational responses than any origin has a reason to send.
const MOST_INTERIM: usize = 16;

impl Http1 {
    pub fn new(stream: Stream, limits: HeadLimits) -> Self {
        Self {
            stream,
            lifetime: Lifetime::new(Instant::now()),
            place: None,
            input: BytesMut::new(),
            output: BytesMut::new(),
            piece: Bytes::new(),
            limits,
            sending: Sending::Done,
            receiving: Receiving::Done,
            method: Method::GET,
            scanned: 0,
            asks_tunnel: false,
            keep_alive: true,
            interim: 0,
            wrote: false,
            read: false,
            owes_room: false,
            unflushed: false,
        }
    }

    /// A connection that is a tunnel from its first byte on.
    pub fn tunnel(stream: Stream) -> Self {
        let mut tunnel = Self::new(stream, HeadLimits::default());
        tunnel.become_tunnel();
        tunnel
    }

    /// Whether the connection is idle and open. An origin that sends something while nothing was asked has lost its
    /// place in the protocol: what it sent could be taken for the next response.
    pub fn is_open(&mut self) -> bool {
        let mut byte = [MaybeUninit::uninit(); 1];
        let mut cx = Context::from_waker(Waker::noop());
        // Whatever else the task has done: what is asked is whether something has come.
        let nothing_came = pin!(unconstrained(poll_fn(|cx| {
            let mut room = ReadBuf::uninit(&mut byte);
            Pin::new(&mut self.stream).poll_read(cx, &mut room)
        })))
        .poll(&mut cx)
        .is_pending();
        nothing_came && self.input.is_empty()
    }

    /// Whether another exchange can follow on this connection. Whether it is still open then shows before that.
    pub fn is_reusable(&self) -> bool {
        self.keep_alive
            && self.sending == Sending::Done
            && matches!(self.receiving, Receiving::Done)
            && self.is_written()
            && self.input.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        matches!(self.sending, Sending::Exact(_) | Sending::Chunked | Sending::Tunnel) && self.is_written()
    }

    pub(super) fn is_sent(&self) -> bool {
        matches!(self.sending, Sending::Done | Sending::Failed)
    }

    pub(super) fn takes_trailers(&self) -> bool {
        self.sending == Sending::Chunked
    }

    pub(super) fn send_head(&mut self, head: RequestHead<'_>) {
        self.sending = match (head.body, head.tunnel) {
            (BodyLength::Empty, _) => Sending::Done,
            (BodyLength::Exact(length), _) => Sending::Exact(length),
            _ => Sending::Chunked,
        };
        self.lifetime.count();
        self.receiving = Receiving::Head;
        self.method = head.parts.method.clone();
        self.asks_tunnel = head.tunnel == Some(TunnelRequest::Upgrade);
        (self.keep_alive, self.wrote, self.read) = (true, false, false);
        (self.scanned, self.interim) = (0, 0);
        self.owes_room = self.sending != Sending::Done;
        write_head(&mut self.output, &head);
    }

    pub(super) fn send_data(&mut self, data: Bytes) -> Result<(), Failure> {
        if data.is_empty() {
            return Ok(());
        }
        self.owes_room = true;
        match self.sending {
            Sending::Exact(left) => {
                let left = left.checked_sub(data.len() as u64).ok_or_else(longer)?;
                self.sending = Sending::Exact(left);
                self.queue(data);
            }
            Sending::Chunked => {
                write::write_chunk_size(&mut self.output, data.len());
                self.output.put_slice(&data);
                self.output.put_slice(b"\r\n");
            }
            Sending::Tunnel => self.queue(data),
            Sending::TunnelEnding | Sending::Done | Sending::Failed => {}
        }
        Ok(())
    }

    pub(super) fn send_end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        self.owes_room = false;
        self.sending = match self.sending {
            Sending::Exact(0) | Sending::Done => Sending::Done,
            Sending::Exact(_) => return Err(shorter()),
            Sending::Chunked => {
                write::write_trailers(&mut self.output, &trailers.unwrap_or_default());
                Sending::Done
            }
            Sending::Tunnel | Sending::TunnelEnding => Sending::TunnelEnding,
            Sending::Failed => Sending::Failed,
        };
        Ok(())
    }

    fn queue(&mut self, data: Bytes) {
        match data.len() <= COALESCE {
            true => self.output.put_slice(&data),
            false => self.piece = data,
        }
    }

    fn is_written(&self) -> bool {
        !self.has_queued() && !self.unflushed
    }

    fn has_queued(&self) -> bool {
        !self.output.is_empty() || !self.piece.is_empty()
    }

    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Failure>> {
        // What fails here shows again where it is read: the origin may have answered before it closed.
        if self.poll_send(cx).is_ready() && self.owes_room {
            self.owes_room = false;
            return Poll::Ready(Ok(Event::Room));
        }
        loop {
            match self.parse() {
                Ok(Some(event)) => return Poll::Ready(Ok(event)),
                Ok(None) => {}
                Err(cause) => return Poll::Ready(Err(Failure::protocol(cause))),
            }
            match ready!(self.poll_fill(cx)) {
                Ok(1..) => self.read = true,
                ended => return Poll::Ready(self.ended(ended.err())),
            }
        }
    }

    /// Sends what is queued. Ready when the origin takes more of the request, or takes no more at all.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_send(cx)
    }

    /// Lets go of memory that an idle connection does not need.
    pub fn rest(&mut self) {
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.capacity() > READ {
                *buffer = BytesMut::new();
            }
        }
    }

    /// How large response heads may be from now on.
    pub fn set_limits(&mut self, limits: HeadLimits) {
        self.limits = limits;
    }

    /// The next event that `input` holds.
    fn parse(&mut self) -> Result<Option<Event>, &'static str> {
        match &mut self.receiving {
            Receiving::Done => Ok(Some(Event::End)),
            Receiving::Body(body) => match body.take(&mut self.input)? {
                Piece::Data(data) => Ok(Some(Event::Data(data))),
                Piece::More => Ok(None),
                Piece::End => {
                    let trailers = body.take_trailers();
                    self.receiving = Receiving::Done;
                    self.response_ended();
                    Ok(Some(trailers.map_or(Event::End, Event::Trailers)))
                }
            },
            Receiving::Head => match response::take(&mut self.input, &mut self.scanned, &self.limits)? {
                None => Ok(None),
                Some(head) => self.begin(head).map(Some),
            },
        }
    }

    fn begin(&mut self, head: response::Head) -> Result<Event, &'static str> {
        let body = head.body(&self.method);
        let mut parts = head.parts;
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return match (self.asks_tunnel, self.sending) {
                (false, _) => Err("the origin switches to a protocol that was not asked for"),
                (true, Sending::Done) => {
                    self.become_tunnel();
                    Ok(Event::Head(parts, false))
                }
                (true, _) => Err("the origin switches protocols before the request is complete"),
            };
        }
        if parts.status.is_informational() {
            self.interim += 1;
            if self.interim > MOST_INTERIM {
                return Err("the origin sends too many informational responses");
            }
            // They frame nothing (RFC 9112 section 6.3).
            hop_by_hop::strip(&mut parts.headers);
            parts.headers.remove(header::CONTENT_LENGTH);
            return Ok(Event::Informational(parts));
        }
        self.keep_alive = head.keep_alive && !matches!(body, BodyLength::UntilClose);
        self.receiving = match body {
            BodyLength::Empty => Receiving::Done,
            length => Receiving::Body(Body::of_response(length)),
        };
        self.response_ended();
        Ok(Event::Head(parts, body == BodyLength::Empty))
    }

    /// Where the origin closes the connection behind its response, it takes no more of the request.
    fn response_ended(&mut self) {
        if matches!(self.receiving, Receiving::Done) && !self.keep_alive && self.sending != Sending::Done {
            let _ = self.fail_sending();
        }
    }

    fn become_tunnel(&mut self) {
        let mut body = Body::of_response(BodyLength::Empty);
        body.become_tunnel();
        self.receiving = Receiving::Body(body);
        (self.sending, self.keep_alive) = (Sending::Tunnel, false);
    }

    /// The origin has closed the connection, or it broke.
    fn ended(&mut self, error: Option<io::Error>) -> Result<Event, Failure> {
        self.keep_alive = false;
        if error.is_none()
            && let Receiving::Body(body) = &self.receiving
            && body.ends_with_connection()
        {
            let is_tunnel = body.is_tunnel();
            self.receiving = Receiving::Done;
            if !is_tunnel {
                self.response_ended();
            }
            return Ok(Event::End);
        }
        let processed = match (self.read, self.wrote) {
            (true, _) => Processed::Unknown,
            (false, true) => Processed::Unanswered,
            (false, false) => Processed::Unsent,
        };
        let cause = match error {
            Some(error) => error.to_string().into(),
            None => "the origin closed the connection early".into(),
        };
        Err(Failure { reason: Reason::UpstreamClosed, processed, cause })
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < READ_LEAST {
            let is_long = matches!(self.receiving, Receiving::Body(_));
            self.input.reserve(if is_long { READ_LONG } else { READ });
        }
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input)
    }

    /// Sends what is queued. Ready when nothing is left to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.has_queued() {
            match ready!(self.poll_write(cx)) {
                Ok(count @ 1..) => self.written(count),
                _ => return self.fail_sending(),
            }
        }
        if self.unflushed {
            if ready!(Pin::new(&mut self.stream).poll_flush(cx)).is_err() {
                return self.fail_sending();
            }
            self.unflushed = false;
        }
        if self.sending == Sending::TunnelEnding {
            let _ = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
            self.sending = Sending::Done;
        }
        Poll::Ready(())
    }

    fn fail_sending(&mut self) -> Poll<()> {
        self.output.clear();
        (self.piece, self.unflushed) = (Bytes::new(), false);
        (self.sending, self.keep_alive) = (Sending::Failed, false);
        Poll::Ready(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        match (self.output.is_empty(), self.piece.is_empty()) {
            (false, true) => stream.poll_write(cx, &self.output),
            (true, _) => stream.poll_write(cx, &self.piece),
            (false, false) => {
                stream.poll_write_vectored(cx, &[IoSlice::new(&self.output), IoSlice::new(&self.piece)])
            }
        }
    }

    fn written(&mut self, count: usize) {
        (self.wrote, self.unflushed) = (true, true);
        let of_output = count.min(self.output.len());
        match of_output == self.output.len() {
            true => self.output.clear(),
            false => self.output.advance(of_output),
        }
        self.piece.advance(count - of_output);
    }
}

impl std::fmt::Debug for Http1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http1").field("sending", &self.sending).field("receiving", &self.receiving).finish()
    }
}

fn longer() -> Failure {
    Failure::new(Reason::Internal, Processed::Unknown, "the request body is longer than its Content-Length")
}

fn shorter() -> Failure {
    Failure::new(Reason::Internal, Processed::Unknown, "the request body is shorter than its Content-Length")
}

/// Writes a request head. The framing and the connection's own fields are written here, whatever the head holds of them.
fn write_head(out: &mut BytesMut, head: &RequestHead<'_>) {
    let RequestHead { parts, host, body, tunnel, .. } = *head;
    let target = match target::of(parts) {
        "" => "/",
        target => target,
    };
    let fields: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    out.reserve(parts.method.as_str().len() + target.len() + host.len() + fields + 128);
    for part in [parts.method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\nHost: "] {
        out.put_slice(part);
    }
    out.put_slice(host.as_bytes());
    out.put_slice(b"\r\n");
    let (mut has_length, mut takes_trailers) = (false, false);
    for (name, value) in &parts.headers {
        match *name {
            header::HOST | header::TRANSFER_ENCODING => {}
            header::CONTENT_LENGTH => has_length = true,
            header::TE => takes_trailers = true,
            header::CONNECTION if tunnel.is_none() => {}
            _ => write::write_field(out, name, value.as_bytes()),
        }
    }
    match body {
        BodyLength::Exact(length) => write_length(out, length),
        BodyLength::Chunked | BodyLength::UntilClose => out.put_slice(b"Transfer-Encoding: chunked\r\n"),
        // RFC 9110 section 8.6: a method that gives bodies a meaning says that there is none.
        BodyLength::Empty if has_length || has_body_semantics(&parts.method) => write_length(out, 0),
        BodyLength::Empty => {}
    }
    if takes_trailers && tunnel.is_none() {
        out.put_slice(b"TE: trailers\r\nConnection: TE\r\n");
    }
    out.put_slice(b"\r\n");
}

fn has_body_semantics(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

fn write_length(out: &mut BytesMut, length: u64) {
    out.put_slice(b"Content-Length: ");
    out.put_slice(itoa::Buffer::new().format(length).as_bytes());
    out.put_slice(b"\r\n");
}
