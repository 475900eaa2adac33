//! Both directions at once: an origin that answers while it reads the body, and a client that first sends all of it.

use std::{
    future::poll_fn,
    io::{Read, Write},
    net::Shutdown,
    thread,
};

use bytes::Bytes;
use tokio::runtime::Builder;

use super::support::{Client, H2Origin, Origin, Proxy, Reply, config};

/// More than the buffers on the way hold, whichever way the bytes go.
const LENGTH: usize = 48 << 20;

const CONFIGURATION: &str = r#"
listeners: { web: { bind: "127.0.0.1:0", timeouts: { write_idle: 20s } } }
upstreams: { origin: { protocol: PROTOCOL, endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      compressed: { path: /compressed, middleware: [compress: {}], proxy: { upstream: origin } }
      limited: { path: /limited, middleware: [bandwidth: { rate: 1GB/s }], proxy: { upstream: origin } }
"#;

fn before(protocol: &str, address: &dyn std::fmt::Display) -> Proxy {
    Proxy::start(&config(CONFIGURATION, &[("PROTOCOL", &protocol), ("ORIGIN", address)]))
}

/// Writes as much as it reads, without waiting for either. Once all is read it closes.
fn answering_at_once() -> Origin {
    let text = text();
    Origin::serving_early(move |exchange| {
        let mut writer = exchange.writer();
        let text = text.clone();
        let is_tunnel = exchange.request.field("upgrade").is_some();
        let writing = thread::spawn(move || {
            let head = match is_tunnel {
                true => {
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n".into()
                }
                false => {
                    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {LENGTH}\r\n\r\n")
                }
            };
            let _ = writer.write_all(head.as_bytes());
            let _ = writer.write_all(&text);
            let _ = writer.shutdown(Shutdown::Write);
        });
        let mut left = LENGTH;
        while left > 0 {
            match exchange.read_some().len() {
                0 => break,
                length => left -= length,
            }
        }
        writing.join().unwrap();
        Reply::Close
    })
}

/// Text that does not compress well: it repeats itself farther apart than a compressor looks back.
fn text() -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b' ' + (state >> 24) as u8 % 90
    };
    let block: Vec<u8> = std::iter::repeat_with(next).take(1 << 20).collect();
    block.repeat(LENGTH >> 20)
}

fn post(path: &str, fields: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n{fields}\r\n")
}

/// Sends a head and all that follows it before it reads anything.
fn send_all(proxy: &Proxy, head: &str) -> Client {
    let mut client = proxy.client();
    client.send(head);
    let sent = client.try_send(vec![b'x'; LENGTH]);
    assert!(sent.is_ok(), "the proxy takes no more of the body: {sent:?}");
    client
}

#[test]
fn an_upload_goes_on_while_the_client_takes_nothing_of_the_response() {
    let (origin, h2_origin) = (answering_at_once(), H2Origin::answering_at_once(LENGTH));
    for (protocol, address) in [("h1", origin.address().to_string()), ("h2c", h2_origin.address())] {
        let proxy = before(protocol, &address);
        let response = send_all(&proxy, &post("/", "")).response();
        assert_eq!((response.status, response.message.body.len()), (200, LENGTH), "{protocol}");
        assert_eq!(over_http2(proxy.port("web")), LENGTH, "{protocol}");
        let line = proxy.access_line_of("/");
        assert!(line["reason"].is_null(), "{line}");
    }
}

#[test]
fn it_goes_on_while_the_response_is_compressed_or_limited() {
    let origin = answering_at_once();
    let proxy = before("h1", &origin.address());
    for path in ["/compressed", "/limited"] {
        let mut client = send_all(&proxy, &post(path, "Accept-Encoding: zstd\r\n"));
        let response = client.response();
        assert_eq!(response.status, 200, "{path}");
        let is_coded = response.field("content-encoding") == Some("zstd");
        assert_eq!(is_coded, path == "/compressed");
        assert!(is_coded || response.message.body.len() == LENGTH, "{}", response.message.body.len());
    }
}

#[test]
fn both_directions_of_a_tunnel_go_on() {
    let origin = answering_at_once();
    let proxy = before("h1", &origin.address());
    let head = "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n";
    let mut client = send_all(&proxy, head);
    assert_eq!(client.response_head().status, 101);
    assert_eq!(client.read_exactly(LENGTH), text());
}

/// A client that reads the body of the response once it has sent its own: the length of it.
fn over_http2(port: u16) -> usize {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post("http://a/h2").header("content-length", LENGTH).body(()).unwrap();
        let (response, mut body) = sender.send_request(request, false).unwrap();
        let mut left = LENGTH;
        while left > 0 {
            body.reserve_capacity(left.min(64 << 10));
            let room = poll_fn(|cx| body.poll_capacity(cx)).await.expect("a stream").expect("room");
            let room = room.min(left);
            left -= room;
            body.send_data(Bytes::from(vec![b'x'; room]), left == 0).expect("the proxy takes the body");
        }
        let mut received = response.await.expect("a response").into_body();
        let mut length = 0;
        while let Some(data) = received.data().await {
            let data = data.expect("a whole response");
            length += data.len();
            received.flow_control().release_capacity(data.len()).unwrap();
        }
        length
    })
}

/// The origin decides how much of a body is taken: one that reads nothing is not read for.
#[test]
fn what_the_origin_does_not_take_is_left_with_the_client() {
    let origin = Origin::serving_early(|exchange| {
        let mut writer = exchange.writer();
        let _ = writer.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
        let _ = writer.write_all(&vec![b'y'; LENGTH]);
        let length = exchange.request.field("content-length").map_or(0, |length| length.parse().unwrap());
        match exchange.stream.read_exact(&mut vec![0; length]) {
            Ok(()) => Reply::Keep,
            Err(_) => Reply::Close,
        }
    });
    let proxy = before("h1", &origin.address());
    let before = proxy.resident();
    let mut client = proxy.client();
    client.send(post("/", ""));
    client.write_until_blocked();
    assert!(proxy.resident() - before < 32 << 20, "{} {}", before, proxy.resident());
    assert_eq!(client.response_head().status, 200);
}
