//! HTTP/2 with an origin: streams that share connections. The frames are the h2 crate's matter, which also applies flow
//! control: what is queued here and there is bounded by windows.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
    ext::Protocol,
};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header, uri::PathAndQuery};
use pingora::protocols::Stream;
use tokio::sync::{Notify, OwnedMutexGuard};

use super::{
    Event, Failure, Processed, RequestHead, TunnelRequest,
    shared::{Open, Shared},
};
use crate::{
    error::Reason,
    http::{hop_by_hop, websocket},
    wire::h1::{body::BodyLength, response::HeadLimits},
};

/// A connection that carries streams.
pub struct Connection {
    sender: SendRequest<Bytes>,
    shared: Arc<Shared>,
    limits: HeadLimits,
}

/// One stream.
pub struct Http2 {
    sender: SendRequest<Bytes>,
    connection: Open,
    limits: HeadLimits,
    /// Informational responses so far.
    interim: usize,
    send: Option<SendStream<Bytes>>,
    sending: Sending,
    /// The piece that is being sent.
    piece: Bytes,
    receiving: Receiving,
    /// Bytes given away last, for which the origin may send as many again.
    taken: usize,
    /// Bytes of the response body that are missing by its Content-Length.
    missing: Option<u64>,
    is_tunnel: bool,
    owes_room: bool,
}

enum Sending {
    Open,
    /// Ends when the queued piece is sent.
    Ending(Option<HeaderMap>),
    Done,
    Failed,
}

enum Receiving {
    /// Whether the origin supports extended CONNECT is known once its SETTINGS are.
    Settings(Box<Request<()>>, Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    Head(ResponseFuture),
    Body(RecvStream),
    Trailers(RecvStream),
    Done,
}

/// What an origin may send on one stream before it is taken on, and on all streams of a connection.
///
/// The connection's is as large as those of all its streams: clients that take nothing must not hold up others.
const STREAM_WINDOW: u32 = 1 << 18;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MOST_STREAMS as u32;
/// Bytes that a stream buffers of what it sends.
const SEND_BUFFER: usize = 64 * 1024;
/// More informational responses than any origin has a reason to send.
const MOST_INTERIM: usize = 16;
/// Streams that share a connection at most, whatever the origin allows.
const MOST_STREAMS: usize = 128;

// === impl Connection ===

impl Connection {
    /// Starts HTTP/2 on a new connection. It carries one stream until the origin has said how many it allows; `turn` is held
    /// until then.
    pub async fn begin(
        stream: Stream,
        limits: &HeadLimits,
        turn: Option<OwnedMutexGuard<()>>,
    ) -> Result<Self, Failure> {
        let size = u32::try_from(limits.size).unwrap_or(u32::MAX);
        let handshake = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(size)
            .max_send_buffer_size(SEND_BUFFER)
            // One stream until the origin's SETTINGS say how many it allows: more could exceed its limit.
            .initial_max_send_streams(1)
            .handshake(stream);
        let (sender, mut connection) = handshake
            .await
            .map_err(|error| Failure::new(Reason::UpstreamProtocol, Processed::Unsent, error.to_string()))?;
        let shared = Arc::<Shared>::default();
        let ping = connection.ping_pong();
        // It ends with the last stream once nobody keeps a sender.
        shared.run(connection, ping, turn);
        Ok(Self { sender, shared, limits: *limits })
    }

    /// Whether new streams can be opened on it now or later.
    pub fn is_open(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.shared.is_closed() && !matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Whether another stream can be opened at once.
    pub fn has_room(&self) -> bool {
        self.shared.open_streams() < self.sender.current_max_send_streams().min(MOST_STREAMS)
    }

    /// Streams of it tell whoever waits when they end.
    pub fn tell(&self, freed: &Arc<Notify>) {
        self.shared.tell(freed);
    }

    /// Whether no stream is open.
    pub fn is_idle(&self) -> bool {
        self.shared.open_streams() == 0
    }

    /// A stream to open.
    pub fn stream(&self) -> Http2 {
        Http2 {
            sender: self.sender.clone(),
            connection: self.shared.open(),
            limits: self.limits,
            interim: 0,
            send: None,
            sending: Sending::Done,
            piece: Bytes::new(),
            receiving: Receiving::Done,
            taken: 0,
            missing: None,
            is_tunnel: false,
            owes_room: false,
        }
    }
}

// === impl Http2 ===

impl Http2 {
    pub(super) fn send_head(&mut self, head: RequestHead<'_>) -> Result<(), Failure> {
        let end = head.body == BodyLength::Empty && head.tunnel.is_none();
        let request = request(&head)?;
        self.sending = if end { Sending::Done } else { Sending::Open };
        (self.is_tunnel, self.owes_room) = (head.tunnel.is_some(), !end);
        if head.tunnel == Some(TunnelRequest::Connect) {
            let settings = Box::pin(self.connection.settings());
            self.receiving = Receiving::Settings(Box::new(request), settings);
            return Ok(());
        }
        self.open(request, end)
    }

    fn open(&mut self, request: Request<()>, end: bool) -> Result<(), Failure> {
        let (response, send) = self.sender.send_request(request, end).map_err(|error| {
            let failure = self.failure(&error, false);
            Failure { processed: Processed::Unsent, ..failure }
        })?;
        (self.send, self.receiving) = (Some(send), Receiving::Head(response));
        Ok(())
    }

    /// The origin's SETTINGS are known: a tunnel is asked for where it supports that (RFC 8441 section 3).
    fn connect(&mut self, request: Request<()>) -> Result<(), Failure> {
        if !self.connection.is_closed() && !self.sender.is_extended_connect_protocol_enabled() {
            let cause = "the origin does not support extended CONNECT (RFC 8441)";
            return Err(Failure::new(Reason::UpgradeFailed, Processed::Unknown, cause));
        }
        self.open(request, false)
    }

    /// Whether a tunnel is asked for and not open yet: nothing goes through it.
    fn is_early(&self) -> bool {
        self.is_tunnel && matches!(self.receiving, Receiving::Settings(..) | Receiving::Head(_))
    }

    /// The origin does not answer: the connection may lead nowhere, and gets no more streams.
    pub(super) fn distrust(&self) {
        self.connection.close();
    }

    pub(super) fn has_room(&self) -> bool {
        matches!(self.sending, Sending::Open) && self.piece.is_empty() && !self.is_early()
    }

    pub(super) fn is_sent(&self) -> bool {
        matches!(self.sending, Sending::Done | Sending::Failed)
    }

    pub(super) fn send_data(&mut self, data: Bytes) {
        if matches!(self.sending, Sending::Open) {
            self.piece = data;
            self.owes_room = true;
        }
    }

    pub(super) fn send_end(&mut self, trailers: Option<HeaderMap>) {
        if matches!(self.sending, Sending::Open) {
            self.sending = Sending::Ending(trailers);
            self.owes_room = false;
        }
    }

    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Failure>> {
        let event = ready!(self.poll_next(cx));
        self.connection.moved();
        Poll::Ready(event)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Failure>> {
        if self.poll_room(cx).is_ready() && std::mem::take(&mut self.owes_room) {
            return Poll::Ready(Ok(Event::Room));
        }
        match &mut self.receiving {
            Receiving::Done => Poll::Ready(Ok(Event::End)),
            Receiving::Settings(request, settings) => {
                ready!(settings.as_mut().poll(cx));
                let request = std::mem::take(&mut **request);
                self.connect(request)?;
                self.poll_next(cx)
            }
            Receiving::Head(response) => {
                if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
                    let (mut parts, ()) = interim.into_parts();
                    self.interim += 1;
                    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
                        // RFC 9113 section 8.6.
                        return Poll::Ready(Err(Failure::protocol("an HTTP/2 response has the status 101")));
                    }
                    if self.interim > MOST_INTERIM || parts.headers.len() > self.limits.fields {
                        return Poll::Ready(Err(Failure::protocol(
                            "too many informational responses or fields",
                        )));
                    }
                    hop_by_hop::strip(&mut parts.headers);
                    parts.headers.remove(header::CONTENT_LENGTH);
                    return Poll::Ready(Ok(Event::Informational(parts)));
                }
                let response = match ready!(Pin::new(response).poll(cx)) {
                    Ok(response) => response,
                    Err(error) => return Poll::Ready(Err(self.failure(&error, false))),
                };
                let (mut parts, body) = response.into_parts();
                if parts.headers.len() > self.limits.fields {
                    return Poll::Ready(Err(Failure::protocol("the response has too many fields")));
                }
                // h2 has compared them.
                let mut lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter();
                if let (Some(first), Some(_)) = (lengths.next(), lengths.next()) {
                    let first = first.clone();
                    parts.headers.insert(header::CONTENT_LENGTH, first);
                }
                let end = body.is_end_stream();
                self.missing = content_length(&parts.headers);
                self.receiving = Receiving::Body(body);
                Poll::Ready(Ok(Event::Head(parts, end)))
            }
            Receiving::Body(body) => {
                let taken = std::mem::take(&mut self.taken);
                if taken > 0 {
                    // It fails where the stream has ended meanwhile, which shows below.
                    let _ = body.flow_control().release_capacity(taken);
                }
                match ready!(body.poll_data(cx)) {
                    Some(Ok(data)) => {
                        self.taken = data.len();
                        self.missing = self.missing.map(|missing| missing.saturating_sub(data.len() as u64));
                        if body.is_end_stream() {
                            // What happens to the connection from now on is no matter of this response.
                            self.receiving = Receiving::Done;
                        }
                        Poll::Ready(Ok(Event::Data(data)))
                    }
                    // While the request is still being sent, the h2 crate forgets the end of a response behind which the
                    // origin closes the connection.
                    Some(Err(error)) if error.is_io() && self.missing == Some(0) => {
                        (self.receiving, self.sending) = (Receiving::Done, Sending::Failed);
                        Poll::Ready(Ok(Event::End))
                    }
                    Some(Err(error)) => Poll::Ready(Err(self.failure(&error, true))),
                    None => {
                        let Receiving::Body(body) = std::mem::replace(&mut self.receiving, Receiving::Done)
                        else {
                            unreachable!("it is the body that was read")
                        };
                        self.receiving = Receiving::Trailers(body);
                        self.poll_next(cx)
                    }
                }
            }
            Receiving::Trailers(body) => {
                let trailers = match ready!(body.poll_trailers(cx)) {
                    Ok(trailers) => trailers,
                    Err(error) => return Poll::Ready(Err(self.failure(&error, true))),
                };
                self.receiving = Receiving::Done;
                let mut trailers = trailers.unwrap_or_default();
                hop_by_hop::retain_trailers(&mut trailers);
                Poll::Ready(Ok(if trailers.is_empty() { Event::End } else { Event::Trailers(trailers) }))
            }
        }
    }

    /// Sends what is queued, as far as windows allow.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_early() {
            return Poll::Pending;
        }
        let Some(send) = &mut self.send else { return Poll::Ready(()) };
        while !self.piece.is_empty() {
            send.reserve_capacity(self.piece.len());
            // Asked about capacity, the stream tells of changes alone.
            let room = match send.capacity() {
                0 => match ready!(send.poll_capacity(cx)) {
                    Some(Ok(room)) => room,
                    _ => return self.fail_sending(),
                },
                room => room,
            };
            let room = room.min(self.piece.len());
            if send.send_data(self.piece.split_to(room), false).is_err() {
                return self.fail_sending();
            }
            self.connection.moved();
        }
        if let Sending::Ending(trailers) = &mut self.sending {
            let ended = match trailers.take() {
                None => send.send_data(Bytes::new(), true),
                Some(trailers) => send.send_trailers(trailers),
            };
            self.sending = if ended.is_ok() { Sending::Done } else { Sending::Failed };
        }
        if matches!(self.sending, Sending::Open) && send.poll_reset(cx).is_ready() {
            // The origin wants no more (RFC 9113 section 8.1); its response may still be complete.
            return self.fail_sending();
        }
        Poll::Ready(())
    }

    fn failure(&self, error: &h2::Error, answered: bool) -> Failure {
        let failure = failure(error, answered);
        match self.connection.is_given_up() {
            true => {
                Failure { cause: "the connection was silent, and a PING was not answered".into(), ..failure }
            }
            false => failure,
        }
    }

    fn fail_sending(&mut self) -> Poll<()> {
        self.piece = Bytes::new();
        self.sending = Sending::Failed;
        Poll::Ready(())
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The request as HTTP/2 has it: scheme and authority beside the path, no fields of a connection.
fn request(head: &RequestHead<'_>) -> Result<Request<()>, Failure> {
    let invalid = |_| Failure::new(Reason::Internal, Processed::Unsent, "the request has no HTTP/2 form");
    let target = head.parts.uri.path_and_query().cloned();
    let uri = Uri::builder()
        .scheme(if head.tls { "https" } else { "http" })
        .authority(head.host.as_bytes())
        .path_and_query(target.unwrap_or(PathAndQuery::from_static("/")))
        .build()
        .map_err(invalid)?;
    let mut request = Request::new(());
    *request.method_mut() = head.parts.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let mut headers = head.parts.headers.clone();
    for name in [header::HOST, header::CONNECTION, header::UPGRADE, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    if head.tunnel == Some(TunnelRequest::Connect) {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static(websocket::NAME));
        headers.remove(header::SEC_WEBSOCKET_KEY);
    }
    *request.headers_mut() = headers;
    Ok(request)
}

fn failure(error: &h2::Error, answered: bool) -> Failure {
    // The crate gives a GOAWAY of the origin to those streams alone that the origin will not process (RFC 9113 section 6.8).
    let refused = (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
        || (error.is_go_away() && error.is_remote());
    let processed = match (answered, refused) {
        (true, _) => Processed::Unknown,
        (false, true) => Processed::Refused,
        (false, false) if error.is_io() => Processed::Unanswered,
        (false, false) => Processed::Unknown,
    };
    // What the origin ended is not what it broke.
    let reason = match error.is_library() || (error.is_go_away() && !error.is_remote()) {
        true => Reason::UpstreamProtocol,
        false => Reason::UpstreamClosed,
    };
    Failure { reason, processed, cause: error.to_string().into() }
}
