mod together;

use std::time::Duration;

use h2::client::{self, SendRequest};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::*;
use crate::{
    error::Reason as Refusal,
    http::{
        connection::{Peer, Protocol},
        forwarded::Hop,
    },
    listen::{
        stream::Io,
        testing::{Scripted, next_turn},
    },
    proxy::session::ClientError,
    value::Bind,
};

/// A client of a served connection.
struct Client {
    send: SendRequest<Bytes>,
    /// Ends with the connection.
    driver: JoinHandle<Result<(), h2::Error>>,
    server: JoinHandle<()>,
    handler: Arc<Scripted>,
    drain: watch::Sender<bool>,
}

fn settings() -> Listener {
    Listener::for_tests("web")
}

fn start(settings: Listener) -> (UnixStream, JoinHandle<()>, Arc<Scripted>, watch::Sender<bool>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (server, handler, drain) = start_on(Stream::plain(Io::Unix(theirs), Bytes::new()), settings);
    (ours, server, handler, drain)
}

fn start_on(stream: Stream, settings: Listener) -> (JoinHandle<()>, Arc<Scripted>, watch::Sender<bool>) {
    let handler = Arc::new(Scripted::default());
    let (drain, draining) = watch::channel(false);
    let connection = Arc::new(Connection {
        listener: settings.name.clone(),
        peer: Peer::Unix,
        hop: Hop::new(Peer::Unix.ip()),
        local: Bind::Any(80),
        protocol: Protocol::Http2,
        tls: None,
        alt_svc: None,
        draining,
        leaving: watch::channel(None).1,
        kept: Default::default(),
        reservations: Default::default(),
    });
    let server = tokio::spawn(serve(stream, connection, Arc::new(settings), handler.clone()));
    (server, handler, drain)
}

async fn connect(settings: Listener) -> Client {
    connect_with(settings, &client::Builder::new()).await
}

async fn connect_with(settings: Listener, builder: &client::Builder) -> Client {
    let (io, server, handler, drain) = start(settings);
    let (send, connection) = builder.handshake(io).await.unwrap();
    let driver = tokio::spawn(connection);
    Client { send, driver, server, handler, drain }
}

fn request(path: &str) -> http::request::Builder {
    Request::builder().uri(format!("https://a.test{path}"))
}

impl Client {
    async fn get(&mut self, path: &str) -> Result<Response<RecvStream>, h2::Error> {
        self.send(request(path), true).await.0.await
    }

    async fn send(
        &mut self,
        request: http::request::Builder,
        end: bool,
    ) -> (client::ResponseFuture, h2::SendStream<Bytes>) {
        let mut ready = self.send.clone().ready().await.unwrap();
        ready.send_request(request.body(()).unwrap(), end).unwrap()
    }
}

async fn body(response: Response<RecvStream>) -> Result<Vec<u8>, h2::Error> {
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

#[tokio::test]
async fn a_request_is_answered_and_known_by_host_and_path() {
    let mut client = connect(settings()).await;
    let response = client.get("/x?y").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(body(response).await.unwrap(), b"hello");
    client.handler.next_end().await.unwrap();
    let heads = client.handler.heads.lock().unwrap();
    let (connection, head) = &heads[0];
    assert_eq!((head.uri.to_string().as_str(), &head.headers["host"]), ("/x?y", &"a.test".parse().unwrap()));
    assert_eq!((head.version, connection.protocol), (http::Version::HTTP_2, Protocol::Http2));
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways() {
    let mut client = connect(settings()).await;
    let (response, mut sending) = client.send(request("/echo").method("POST"), false).await;
    // More than all windows, so that both sides must give capacity back.
    let sent = vec![b'x'; 3 << 20];
    let echoed = tokio::spawn(async move {
        let mut response = response.await.unwrap();
        let mut all = 0;
        while let Some(piece) = response.body_mut().data().await {
            let piece = piece.unwrap();
            response.body_mut().flow_control().release_capacity(piece.len()).unwrap();
            all += piece.len();
        }
        (all, response.body_mut().trailers().await.unwrap())
    });
    for piece in sent.chunks(64 << 10) {
        let mut piece = Bytes::copy_from_slice(piece);
        while !piece.is_empty() {
            sending.reserve_capacity(piece.len());
            let room = match sending.capacity() {
                0 => poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap(),
                room => room,
            };
            sending.send_data(piece.split_to(room.min(piece.len())), false).unwrap();
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", HeaderValue::from_static("1"));
    sending.send_trailers(trailers.clone()).unwrap();
    assert_eq!(echoed.await.unwrap(), (sent.len(), Some(trailers)));
    client.handler.next_end().await.unwrap();
}

#[tokio::test]
async fn trailers_that_frame_the_body_are_malformed() {
    let mut client = connect(settings()).await;
    let (_response, mut sending) = client.send(request("/read").method("POST"), false).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("content-length", HeaderValue::from_static("0"));
    sending.send_trailers(trailers).unwrap();
    assert!(matches!(client.handler.next_end().await, Err(ClientError::Malformed(_))));
}

#[tokio::test]
async fn informational_heads_come_before_the_final_one() {
    let mut client = connect(settings()).await;
    let (mut response, _) = client.send(request("/hints"), true).await;
    let hints = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!(hints.status(), StatusCode::EARLY_HINTS);
    assert_eq!(hints.headers()["link"], "</a.css>; rel=preload");
    assert_eq!(body(response.await.unwrap()).await.unwrap(), b"hinted");
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_is_asked() {
    let mut client = connect(settings()).await;
    let asking = request("/read").method("POST").header("expect", "100-continue");
    let (mut response, mut sending) = client.send(asking, false).await;
    let asked = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!(asked.status(), StatusCode::CONTINUE);
    sending.send_data(Bytes::from_static(b"x"), true).unwrap();
    assert_eq!(body(response.await.unwrap()).await.unwrap(), b"read");
}

#[tokio::test]
async fn heads_without_a_body_get_none() {
    let mut client = connect(settings()).await;
    let response = client.send(request("/").method("HEAD"), true).await.0.await.unwrap();
    assert!(response.body().is_end_stream());
    let response = client.get("/204").await.unwrap();
    assert_eq!(response.status(), 204);
    assert!(response.body().is_end_stream());
    assert!(!response.headers().contains_key("content-length"));
    assert!(!response.headers().contains_key("keep-alive"));
}

#[tokio::test]
async fn an_early_answer_refuses_the_rest_of_the_body() {
    let mut client = connect(settings()).await;
    let (response, mut sending) = client.send(request("/early").method("POST"), false).await;
    let response = response.await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(body(response).await.unwrap(), b"too large");
    let reason = poll_fn(|cx| sending.poll_reset(cx)).await.unwrap();
    assert_eq!(reason, h2::Reason::NO_ERROR);
}

#[tokio::test]
async fn a_cancelled_request_is_known_to_be() {
    let mut client = connect(settings()).await;
    let (_response, mut sending) = client.send(request("/hang"), true).await;
    client.handler.next_begin().await;
    sending.send_reset(h2::Reason::CANCEL);
    assert_eq!(client.handler.next_end().await, Err(ClientError::Gone));
    assert_eq!(client.get("/").await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_lost_connection_ends_its_requests() {
    let mut client = connect(settings()).await;
    let (response, sending) = client.send(request("/hang"), true).await;
    client.handler.next_begin().await;
    client.driver.abort();
    drop((response, sending, client.send));
    assert_eq!(client.handler.next_end().await, Err(ClientError::Gone));
    client.server.await.unwrap();
}

#[tokio::test]
async fn a_response_given_up_is_reset() {
    let mut client = connect(settings()).await;
    // h2 may throw away what it has not written yet, the head included.
    let error = match client.get("/reset").await {
        Ok(response) => body(response).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn a_panic_ends_its_request_alone() {
    let mut client = connect(settings()).await;
    let (other, _keep) = client.send(request("/echo").method("POST"), false).await;
    let error = client.get("/panic").await.unwrap_err();
    assert!(error.is_reset(), "{error}");
    assert_eq!(other.await.unwrap().status(), 200);
    assert_eq!(client.get("/").await.unwrap().status(), 200);
}

#[tokio::test]
async fn heads_past_the_limits_are_refused_each_by_its_status() {
    let mut client = connect(settings()).await;
    let long = format!("/{}", "x".repeat(9000));
    let many = (0..129).fold(request("/"), |request, n| request.header("x", n));
    let large = request("/").header("x", "x".repeat(70_000));
    let hosts = request("/").header("host", "b.test");
    let cases = [(request(&long), 414), (many, 431), (large, 431), (hosts, 400)];
    for (request, status) in cases {
        let (response, _) = client.send(request, true).await;
        assert_eq!(response.await.unwrap().status(), status);
    }
    let told = client.handler.refusals.lock().unwrap().clone();
    assert_eq!(
        told,
        [Refusal::UriTooLong, Refusal::HeaderTooLarge, Refusal::HeaderTooLarge, Refusal::BadHost]
    );
}

/// A frame with HTTP/2's own names for its parts (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A GET with these fields, literals without indexing (RFC 7541 section 6.2.2).
fn head_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x84, 0x01, 6];
    block.extend(b"a.test");
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM_AND_HEADERS: u8 = 5;

/// Says these frames and reads until one of `kind` comes; gives its payload.
async fn talk(frames: &[u8], kind: u8) -> Vec<u8> {
    let (mut io, _server, _handler, _drain) = start(settings());
    io.write_all(crate::listen::preface::PREFACE).await.unwrap();
    io.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    io.write_all(frames).await.unwrap();
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        io.read_exact(&mut payload).await.unwrap();
        if head[3] == kind {
            return payload;
        }
    }
}

#[tokio::test]
async fn fields_of_a_connection_are_refused() {
    for (name, value) in [("connection", "close"), ("transfer-encoding", "chunked"), ("te", "gzip")] {
        let block = head_block(&[(name, value)]);
        let reset = talk(&frame(HEADERS, END_STREAM_AND_HEADERS, 1, &block), RST_STREAM).await;
        assert_eq!(reset, [0, 0, 0, 1], "{name} is no PROTOCOL_ERROR");
    }
}

#[tokio::test]
async fn a_broken_connection_does_not_wait_for_its_requests_to_close() {
    let (mut io, _server, handler, _drain) = start(settings());
    let head = [&[0x82, 0x87, 0x04, 5][..], b"/gate", &[0x01, 6], b"a.test"].concat();
    let request = frame(HEADERS, END_STREAM_AND_HEADERS, 1, &head);
    let begin = [&crate::listen::preface::PREFACE[..], &frame(SETTINGS, 0, 0, &[]), &request].concat();
    io.write_all(&begin).await.unwrap();
    handler.next_begin().await;
    // Of a length that no PING has.
    io.write_all(&frame(6, 0, 0, &[0])).await.unwrap();
    let closed = async {
        while io.write_all(&[0]).await.is_ok() {
            next_turn().await
        }
    };
    timeout(Duration::from_secs(10), closed).await.expect("the socket is closed");
}

#[tokio::test]
async fn a_flood_of_cancelled_requests_ends_the_connection() {
    let mut flood = Vec::new();
    for stream in (1..400).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM_AND_HEADERS, stream, &head_block(&[])));
        flood.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    let goaway = talk(&flood, GOAWAY).await;
    assert_eq!(goaway[4..8], [0, 0, 0, 11], "no ENHANCE_YOUR_CALM");
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_malformed() {
    let mut client = connect(settings()).await;
    let announced = request("/read").method("POST").header("content-length", "5");
    let (response, mut sending) = client.send(announced, false).await;
    sending.send_data(Bytes::from_static(b"too long"), true).unwrap();
    assert_eq!(response.await.unwrap_err().reason(), Some(h2::Reason::PROTOCOL_ERROR));
    assert!(matches!(client.handler.next_end().await, Err(ClientError::Malformed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_meets_its_deadline() {
    let mut client = connect(settings()).await;
    let (_response, mut sending) = client.send(request("/read").method("POST"), false).await;
    sending.send_data(Bytes::from_static(b"x"), false).unwrap();
    let start = Instant::now();
    assert_eq!(client.handler.next_end().await, Err(ClientError::BodyTimeout));
    assert_eq!(start.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_meets_its_deadline() {
    let mut client = connect(settings()).await;
    let response = client.get("/large").await.unwrap();
    let start = Instant::now();
    assert_eq!(client.handler.next_end().await, Err(ClientError::WriteTimeout));
    assert_eq!(start.elapsed().as_secs(), 60);
    assert!(body(response).await.unwrap_err().is_reset());
}

#[tokio::test(start_paused = true)]
async fn a_preface_that_does_not_come_is_not_waited_for() {
    let (client, server, ..) = start(settings());
    let start = Instant::now();
    server.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 10);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_told_to_go() {
    let mut client = connect(settings()).await;
    assert_eq!(client.get("/").await.unwrap().status(), 200);
    let start = Instant::now();
    client.driver.await.unwrap().unwrap();
    client.server.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_wait_for_the_client() {
    let mut client = connect(settings()).await;
    let (_response, _keep) = client.send(request("/hang"), true).await;
    let start = Instant::now();
    client.handler.next_end().await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 3600);
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_a_request_has_left_ends_the_next_ones_wait_in_its_own_time() {
    let mut client = connect(settings()).await;
    let (response, keep) = client.send(request("/hang"), true).await;
    assert!(timeout(Duration::from_secs(1000), response).await.is_err());
    // The client gives it up.
    drop(keep);
    client.handler.next_end().await.unwrap_err();
    let (_response, _keep) = client.send(request("/hang"), true).await;
    let start = Instant::now();
    client.handler.next_end().await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 3600);
}

#[tokio::test(start_paused = true)]
async fn a_request_at_work_keeps_the_connection() {
    let mut client = connect(settings()).await;
    let (response, _keep) = client.send(request("/hang"), true).await;
    assert!(timeout(Duration::from_secs(600), response).await.is_err());
    assert!(!client.server.is_finished());
}

#[tokio::test]
async fn draining_finishes_what_is_at_work_and_takes_no_more() {
    let mut client = connect(settings()).await;
    let (response, mut sending) = client.send(request("/echo").method("POST"), false).await;
    let response = response.await.unwrap();
    client.drain.send_replace(true);
    // The client hears of it and asks for nothing more.
    poll_fn(|cx| match client.send.poll_ready(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        _ => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
    sending.send_data(Bytes::from_static(b"finished"), true).unwrap();
    assert_eq!(body(response).await.unwrap(), b"finished");
    client.driver.await.unwrap().unwrap();
    client.server.await.unwrap();
}

#[tokio::test]
async fn a_connection_ends_after_its_number_of_requests() {
    let mut settings = settings();
    settings.limits.requests_per_connection = 2;
    let mut client = connect(settings).await;
    assert_eq!(client.get("/").await.unwrap().status(), 200);
    assert_eq!(client.get("/").await.unwrap().status(), 200);
    client.driver.await.unwrap().unwrap();
    client.server.await.unwrap();
}

#[tokio::test]
async fn whoever_asks_for_much_at_once_lets_others_have_their_turn() {
    let mut client = connect(settings()).await;
    client.get("/").await.unwrap();
    let mut all = Vec::new();
    for _ in 0..100 {
        all.push(client.send(request("/"), true).await.0);
    }
    let handler = client.handler.clone();
    let served = move || handler.heads.lock().unwrap().len() - 1;
    assert_eq!(served(), 0, "they are asked for all at once");
    // As a task: the test's own future has its turn more seldom.
    let counting = tokio::spawn(async move {
        let mut most = 0;
        while served() < 100 {
            let before = served();
            next_turn().await;
            most = most.max(served() - before);
        }
        most
    });
    let most = counting.await.unwrap();
    assert!((1..=2 * AT_ONCE).contains(&most), "{most} were served before anybody else's turn");
    for one in all {
        assert_eq!(one.await.unwrap().status(), 200);
    }
}
