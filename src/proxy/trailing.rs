//! Exchanges over HTTP/1.1 that Pingora's own HTTP/1 client cannot carry out: it reads past trailers and cannot send any, and
//! cannot write every target. Pingora makes and keeps the connections, hyper speaks on them.

use std::{
    future::{Future, ready},
    pin::{Pin, pin},
    sync::OnceLock,
    task::{Context, Poll, ready as polled},
    time::Duration,
};

use atomic_refcell::AtomicRefCell;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header, request, response};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use pingora::{
    Error, ErrorType, Result,
    connectors::{ConnectorOptions, TransportConnector},
    http::{RequestHeader, ResponseHeader},
    protocols::Stream,
    upstreams::peer::{HttpPeer, Peer},
};
use tokio::sync::mpsc;

use super::{
    adapter::Waits,
    call::Call,
    downstream::{Downstream, Progress},
    errors::{gone, ours},
    patience::patiently,
    replay::Replay,
    request_line::RequestLine,
    session::{Closed, Session},
};
use crate::{error::Reason, http::hop_by_hop};

/// Connections for exchanges with trailers, kept apart from those of Pingora's proxy.
pub struct Trailing {
    options: ConnectorOptions,
    /// Made for the first of them: it loads the system's authorities.
    connector: OnceLock<TransportConnector>,
}

/// What is sent of a request, and what of it can be sent again.
struct Sent {
    head: request::Parts,
    bodiless: bool,
    /// Its body so far, while it is short.
    body: Replay,
    /// All of its body has been read.
    is_whole: bool,
    trailers: Option<HeaderMap>,
}

/// One exchange over one connection.
struct Attempt<'a, S> {
    downstream: &'a mut Downstream<S>,
    sent: &'a mut Sent,
    call: &'a AtomicRefCell<Call>,
    waits: Waits,
    /// The request's body on its way to hyper: nothing once it has ended, or the upstream takes no more.
    upload: Option<mpsc::Sender<Frame<Bytes>>>,
}

/// The body as hyper takes it.
struct Upload {
    frames: mpsc::Receiver<Frame<Bytes>>,
    is_empty: bool,
}

/// What a client did while the upstream was waited for.
enum Client {
    /// There is room for this piece of the body, or for its end.
    Sent(mpsc::OwnedPermit<Frame<Bytes>>, Option<Bytes>),
    /// The upstream takes no more of the body.
    Unheard,
}

type Driven = std::result::Result<http1::Parts<TokioIo<RequestLine<Stream>>>, hyper::Error>;

/// As many as Pingora's own client reads.
const MOST_FIELDS: usize = 256;
/// Pieces of a request's body that wait for hyper; what was kept of it is one, its trailers another.
const UPLOAD_WAITING: usize = 3;
/// How long the end of a request may take to leave after its response: an upstream that has answered may take no more.
const SETTLING: Duration = Duration::from_millis(100);
/// Interim responses that wait to be passed on; what comes beyond is left out, as any of them may be.
const INTERIM_WAITING: usize = 16;

impl Trailing {
    pub fn new(options: ConnectorOptions) -> Self {
        Self { options, connector: OnceLock::new() }
    }

    /// Carries the exchange out. Where it fails, `call.failure` says why.
    pub async fn forward<S: Session>(
        &self,
        downstream: &mut Downstream<S>,
        request: RequestHeader,
        call: &AtomicRefCell<Call>,
        waits: Waits,
    ) {
        let connector = self.connector.get_or_init(|| TransportConnector::new(Some(self.options.clone())));
        let mut sent = Sent::of(request.into(), downstream.session.body_is_empty());
        loop {
            let Some(peer) = call.borrow_mut().next_peer() else { return };
            let connecting = patiently(connector.get_stream(&*peer), &mut downstream.session, None);
            let again = match connecting.await {
                Err(reason) => {
                    call.borrow_mut().failure = Some(reason);
                    return;
                }
                Ok(Err(error)) => call.borrow_mut().connect_failed(&error.into_up()),
                Ok(Ok((stream, reused))) => {
                    call.borrow_mut().connected(reused);
                    let attempt = Attempt { downstream, sent: &mut sent, call, waits, upload: None };
                    match attempt.run(stream).await {
                        Ok(kept) => return keep(connector, kept, &peer),
                        Err(error) => {
                            let stale = reused && sent.can_be_repeated() && error.retry();
                            call.borrow_mut().failed(&error, stale)
                        }
                    }
                }
            };
            if !again {
                return;
            }
        }
    }
}

fn keep(connector: &TransportConnector, stream: Option<Stream>, peer: &HttpPeer) {
    if let Some(stream) = stream {
        connector.release_stream(stream, peer.reuse_hash(), peer.idle_timeout());
    }
}

impl Sent {
    fn of(mut head: request::Parts, bodiless: bool) -> Self {
        if hop_by_hop::has_rare(&head.headers, &header::TRAILER) {
            // Trailers come after chunks alone (RFC 9112 section 7.1.2).
            head.headers.remove(if bodiless { header::TRAILER } else { header::CONTENT_LENGTH });
        }
        // Hyper takes a GET for one without a body, where nothing says otherwise.
        if !bodiless && !head.headers.contains_key(header::CONTENT_LENGTH) {
            head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        Self { head, bodiless, body: Replay::default(), is_whole: bodiless, trailers: None }
    }

    fn can_be_repeated(&self) -> bool {
        self.head.method.is_idempotent() && self.body.is_whole()
    }

    /// The trailers that go on: none says again what the head says, as who the user is. There are servers that put the two
    /// together.
    fn allowed(&self, trailers: HeaderMap) -> HeaderMap {
        without(trailers, |name| self.head.headers.contains_key(name))
    }

    /// The head for one endpoint.
    fn addressed(&self, call: &AtomicRefCell<Call>) -> Result<Request<()>> {
        let mut request = RequestHeader::from(self.head.clone());
        call.borrow().address(&mut request)?;
        let mut head = request::Parts::from(request);
        if self.head.headers.contains_key(header::TE) {
            head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("TE"));
        }
        Ok(Request::from_parts(head, ()))
    }
}

impl<S: Session> Attempt<'_, S> {
    /// Gives back the connection where it can be used again.
    async fn run(mut self, stream: Stream) -> Result<Option<Stream>> {
        let (interim, mut hints) = mpsc::channel(INTERIM_WAITING);
        let request = self.request(interim)?;
        let stream = TokioIo::new(RequestLine::new(stream, &request));
        let handshake = http1::Builder::new().max_headers(MOST_FIELDS).handshake(stream).await;
        let (mut sender, connection) = handshake.map_err(|error| failure(&error))?;
        let mut connection = pin!(connection.without_shutdown());
        let mut driven: Option<Driven> = None;
        let mut answer = pin!(sender.send_request(request));
        let mut response: Option<Incoming> = None;
        let mut unsent = false;
        while self.upload.is_some() || self.downstream.progress() != Progress::Ended {
            let awaited = self.downstream.progress() == Progress::Waiting;
            tokio::select! {
                biased;
                ended = &mut connection, if driven.is_none() => driven = Some(ended),
                Some(head) = hints.recv(), if awaited => {
                    self.downstream.forward_head(head, false).await.map_err(gone)?;
                }
                head = &mut answer, if awaited => {
                    response = self.begin(head.map_err(|error| failure(&error))?).await?;
                    unsent = true;
                }
                frame = next(&mut response) => {
                    self.pass(frame).await?;
                    unsent = true;
                }
                () = ready(()), if unsent => {
                    self.downstream.flush().await.map_err(gone)?;
                    unsent = false;
                }
                client = listen(self.downstream, self.upload.as_ref(), self.waits) => self.hear(client?)?,
            }
        }
        drop(response);
        self.downstream.finish().await.map_err(gone)?;
        if self.call.borrow().is_challenged() {
            return Ok(None);
        }
        Ok(settled(driven, connection, sender).await)
    }

    /// The request with its body to come: what is known of it already is on its way.
    fn request(&mut self, interim: mpsc::Sender<response::Parts>) -> Result<Request<Upload>> {
        let request = self.sent.addressed(self.call)?;
        let (upload, frames) = mpsc::channel(UPLOAD_WAITING);
        let room = "there is room for all that was kept";
        if let Some(kept) = self.sent.body.kept() {
            upload.try_send(Frame::data(kept)).expect(room);
        }
        if let Some(trailers) = self.sent.trailers.clone() {
            upload.try_send(Frame::trailers(trailers)).expect(room);
        }
        self.upload = (!self.sent.is_whole).then_some(upload);
        let mut request = request.map(|()| Upload { frames, is_empty: self.sent.bodiless });
        hyper::ext::on_informational(&mut request, move |head| {
            let (mut parts, ()) = Response::new(()).into_parts();
            parts.status = head.status();
            parts.headers = head.headers().clone();
            let _ = interim.try_send(parts);
        });
        Ok(request)
    }

    /// The final head is there.
    async fn begin(&mut self, response: Response<Incoming>) -> Result<Option<Incoming>> {
        let (mut head, body) = response.into_parts();
        if head.headers.contains_key(header::TRANSFER_ENCODING) {
            // It is what hyper has read the body by (RFC 9112 section 6.3).
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let shown = ResponseHeader::build_no_case(head.status, Some(0))?;
        self.call.borrow_mut().look_for_challenge(&head.headers);
        self.call.borrow_mut().answered(&shown).map_err(|reason| ours(reason).into_up())?;
        let end = body.is_end_stream();
        self.downstream.forward_head(head, end).await.map_err(gone)?;
        Ok((!end).then_some(body))
    }

    async fn pass(&mut self, frame: Option<std::result::Result<Frame<Bytes>, hyper::Error>>) -> Result<()> {
        let passed = match frame.transpose() {
            Ok(None) => self.downstream.send_data(Bytes::new(), true).await,
            Ok(Some(frame)) => match frame.into_data() {
                Ok(data) => self.downstream.send_data(data, false).await,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let allowed = without(trailers, hop_by_hop::forbidden_in_trailers);
                    self.downstream.send_trailers(allowed).await
                }
            },
            Err(error) => {
                // What has come is handed on before the end is shown to be none.
                self.downstream.flush().await.map_err(gone)?;
                return Err(failure(&error));
            }
        };
        passed.map_err(gone)
    }

    fn hear(&mut self, client: Client) -> Result<()> {
        match client {
            Client::Unheard => self.upload = None,
            Client::Sent(permit, Some(piece)) => {
                self.sent.body.keep(&piece);
                permit.send(Frame::data(piece));
            }
            Client::Sent(permit, None) => {
                self.sent.is_whole = true;
                self.sent.trailers =
                    self.downstream.session.take_trailers().map(|said| self.sent.allowed(said));
                if let Some(trailers) = self.sent.trailers.clone() {
                    permit.send(Frame::trailers(trailers));
                }
                self.upload = None;
            }
        }
        Ok(())
    }
}

/// Waits for what the client does: reads its body where there is room for more of it, else notices that it
/// goes, or that the upstream lets it wait for too long.
async fn listen<S: Session>(
    downstream: &mut Downstream<S>,
    upload: Option<&mpsc::Sender<Frame<Bytes>>>,
    waits: Waits,
) -> Result<Client> {
    let (limit, late) = match downstream.progress() {
        Progress::Waiting => (waits.first_byte, Reason::FirstByteTimeout),
        _ => (waits.body_idle, Reason::UpstreamBodyTimeout),
    };
    let Some(upload) = upload else {
        return Err(match downstream.session.closed(limit).await {
            Closed::Gone => ours(Reason::ClientGone),
            Closed::Idle => ours(late),
        });
    };
    let Some(permit) = room(downstream, upload, limit).await? else { return Ok(Client::Unheard) };
    let piece = downstream.read_body().await.map_err(|reason| ours(reason).into_down())?;
    Ok(Client::Sent(permit, piece))
}

/// Room for a piece of the body; nothing where the upstream takes no more.
async fn room<S: Session>(
    downstream: &mut Downstream<S>,
    upload: &mpsc::Sender<Frame<Bytes>>,
    limit: Duration,
) -> Result<Option<mpsc::OwnedPermit<Frame<Bytes>>>> {
    if let Ok(permit) = upload.clone().try_reserve_owned() {
        return Ok(Some(permit));
    }
    tokio::select! {
        permit = upload.clone().reserve_owned() => Ok(permit.ok()),
        () = downstream.session.gone() => Err(ours(Reason::ClientGone)),
        () = tokio::time::sleep(limit) => Err(ours(Reason::UpstreamWriteTimeout).into_up()),
    }
}

/// The next frame of the response, where it has begun and has not ended.
async fn next(response: &mut Option<Incoming>) -> Option<std::result::Result<Frame<Bytes>, hyper::Error>> {
    let Some(body) = response else { return std::future::pending().await };
    let frame = body.frame().await;
    if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
        *response = None;
    }
    frame
}

fn without(mut trailers: HeaderMap, refused: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let refused: Vec<_> = trailers.keys().filter(|name| refused(name)).cloned().collect();
    refused.iter().for_each(|name| drop(trailers.remove(name)));
    trailers
}

/// The connection, where both messages have ended on it and more may follow.
async fn settled(
    driven: Option<Driven>,
    mut connection: Pin<&mut impl Future<Output = Driven>>,
    mut sender: SendRequest<Upload>,
) -> Option<Stream> {
    if driven.is_some() {
        return None;
    }
    tokio::select! {
        biased;
        _ = &mut connection => return None,
        ready = sender.ready() => ready.ok()?,
        () = tokio::time::sleep(SETTLING) => return None,
    }
    drop(sender);
    let parts = connection.await.ok()?;
    parts.read_buf.is_empty().then(|| parts.io.into_inner().into_inner())
}

/// Hyper's error as Pingora would have it.
fn failure(error: &hyper::Error) -> Box<Error> {
    let malformed = error.is_parse() || error.is_parse_too_large() || error.is_parse_status();
    let kind = match malformed {
        true => ErrorType::InvalidHTTPHeader,
        false => ErrorType::ConnectionClosed,
    };
    let mut failure = Error::explain(kind, error.to_string());
    failure.set_retry(!malformed);
    failure.into_up()
}

impl Body for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(polled!(self.frames.poll_recv(cx)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_empty {
            true => SizeHint::with_exact(0),
            false => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use pingora::protocols::l4;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpSocket},
        time::timeout,
    };

    use super::*;

    #[tokio::test]
    async fn an_upstream_that_answers_and_takes_no_more_keeps_nobody() {
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(4096).unwrap();
        let (stream, accepted) = tokio::join!(socket.connect(origin.local_addr().unwrap()), origin.accept());
        let (mut far, _) = accepted.unwrap();
        let stream: Stream = Box::new(l4::stream::Stream::from(stream.unwrap()));
        let stream = TokioIo::new(RequestLine::new(stream, &Request::new(())));
        let (mut sender, connection) = http1::handshake(stream).await.unwrap();
        let mut connection = pin!(connection.without_shutdown());
        let (upload, frames) = mpsc::channel(64);
        for _ in 0..64 {
            upload.try_send(Frame::data(Bytes::from(vec![b'x'; 1 << 20]))).unwrap();
        }
        drop(upload);
        let request = Request::post("/").body(Upload { frames, is_empty: false }).unwrap();
        let mut answer = pin!(sender.send_request(request));
        let served = async {
            let mut head = [0; 16];
            far.read_exact(&mut head).await.unwrap();
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        };
        let answered = async {
            tokio::select! {
                _ = &mut connection => panic!("it ended"),
                answer = &mut answer => assert!(answer.unwrap().body().is_end_stream()),
            }
        };
        tokio::join!(served, answered);
        let settled = timeout(Duration::from_secs(5), settled(None, connection, sender)).await;
        assert!(settled.expect("it ends").is_none());
    }
}
