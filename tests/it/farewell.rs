//! What WebSockets are told before their connections are cut: Close with 1001 (RFC 6455 section 7.4.1), to both ends, and
//! never in the middle of a frame.

use std::{
    fmt::Display,
    sync::{Arc, Mutex},
};

use serde_json::json;

use super::{
    extended_connect::H2_CLIENT,
    support::{Certificates, Client, Http3, Origin, Proxy, Python, Reply, Tree, config, to, until},
    websocket::ECHO,
};

const CLIENT: &str = r#"
import asyncio, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1]) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        print("open")
        try:
            await socket.recv()
        except websockets.exceptions.ConnectionClosed:
            pass
        print(socket.close_code)
asyncio.run(main())
"#;

const YAML: &str = r#"
drain_timeout: 4s
certificates: { web: { cert: web.pem, key: web.key } }
listeners:
  web: { bind: "127.0.0.1:0" }
  secure: { bind: "127.0.0.1:0", protocols: [h1, h2, h3], tls: { certificates: [web] } }
upstreams: { origin: { PROTOCOL endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;

struct Server {
    proxy: Proxy,
    certificates: Certificates,
}

impl Server {
    fn before(origin: &dyn Display, protocol: &str) -> Self {
        let tree = Tree::new();
        let certificates = Certificates::new(&tree);
        certificates.sign("web", &["localhost"]);
        let yaml = config(YAML, &[("ORIGIN", origin), ("PROTOCOL", &protocol)]);
        Self { proxy: Proxy::start_in(tree, &yaml), certificates }
    }
}

/// An origin with its address and what it needs of an upstream's configuration.
fn origins() -> [(Python, String, &'static str); 2] {
    let begin = |program: &str, protocol| {
        let mut origin = Python::run(program, &[]);
        let address = format!("127.0.0.1:{}", origin.line());
        (origin, address, protocol)
    };
    [begin(ECHO, ""), begin(include_str!("support/h2_websocket_origin.py"), "protocol: h2c,")]
}

/// Drains, and sees that nothing had to be cut.
#[track_caller]
fn drain(proxy: &mut Proxy) {
    proxy.signal("TERM");
    assert!(proxy.ended().success());
    let log = proxy.log();
    assert!(log.contains("all connections have ended"), "{log}");
}

#[track_caller]
fn check(proxy: &Proxy, origin: &mut Python) {
    assert_eq!(origin.line(), "closed 1001");
    let line = proxy.access_line_of("/ws");
    assert_eq!(line["reason"], "tunnel_drained", "{line}");
}

#[test]
fn both_ends_are_told_over_http_1() {
    for (mut origin, address, protocol) in origins() {
        let mut server = Server::before(&address, protocol);
        let url = format!("ws://127.0.0.1:{}/ws", server.proxy.port("web"));
        let mut client = Python::run(CLIENT, &[&url]);
        assert_eq!(client.line(), "open");
        drain(&mut server.proxy);
        assert_eq!(client.finish().trim(), "1001", "{protocol}");
        check(&server.proxy, &mut origin);
    }
}

#[test]
fn both_ends_are_told_over_http_2() {
    for (mut origin, address, protocol) in origins() {
        let mut server = Server::before(&address, protocol);
        let port = server.proxy.port("web").to_string();
        let mut client = Python::run(H2_CLIENT, &["left", &port, "/ws"]);
        assert_eq!(client.line(), "open");
        drain(&mut server.proxy);
        assert_eq!(client.finish().trim(), "1001 ended", "{protocol}");
        check(&server.proxy, &mut origin);
    }
}

#[test]
fn both_ends_are_told_over_http_3() {
    for (mut origin, address, protocol) in origins() {
        let mut server = Server::before(&address, protocol);
        let port = server.proxy.port("secure");
        let mut client = Http3::run("ws_left", port, &server.certificates.ca(), json!({ "path": "/ws" }));
        assert_eq!(client.next()["open"], true);
        drain(&mut server.proxy);
        assert_eq!(client.next(), json!({ "code": 1001, "reset": null, "failed": null }), "{protocol}");
        check(&server.proxy, &mut origin);
    }
}

#[test]
fn a_listener_that_goes_tells_its_own() {
    let [(mut origin, address, _), _] = origins();
    let one = format!("drain_timeout: 1s\n{}", to(&[&address]));
    let two = one.replace("listeners: {", "listeners: { more: { bind: \"127.0.0.1:0\" },");
    let mut proxy = Proxy::start(&two);
    let client = |port| {
        let mut client = Python::run(CLIENT, &[&format!("ws://127.0.0.1:{port}/ws")]);
        assert_eq!(client.line(), "open");
        client
    };
    let leaves = client(proxy.port("more"));
    let _stays = client(proxy.port("web"));
    proxy.change(&one);
    assert_eq!(leaves.finish().trim(), "1001");
    check(&proxy, &mut origin);
    assert_eq!(proxy.access_log().len(), 1, "the other goes on");
}

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: PROTOCOL\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// A Close with 1001, as a server says it, and its beginning as a client does.
const CLOSE: &[u8] = b"\x88\x02\x03\xe9";
const MASKED_CLOSE: &[u8] = b"\x88\x82";
const TEXT: &[u8] = b"\x81\x0a0123456789";

/// An origin that switches to a protocol, says `first`, and once it has heard something says `then`. It keeps all that it
/// hears to the end.
fn scripted(protocol: &str, first: &'static [u8], then: &'static [u8]) -> (Origin, Arc<Mutex<Vec<u8>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = heard.clone();
    let switching = SWITCHING.replace("PROTOCOL", protocol);
    let origin = Origin::serving(move |exchange| {
        exchange.send([switching.as_bytes(), first].concat());
        loop {
            let some = exchange.read_some();
            if some.is_empty() {
                return Reply::Close;
            }
            kept.lock().unwrap().extend(some);
            exchange.send(then);
        }
    });
    (origin, heard)
}

fn upgrade(client: &mut Client, protocol: &str) {
    client.send(format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    assert_eq!(client.response_head().status, 101);
}

/// What the client is told to its end, and what the origin has heard, where the proxy drains after each has said its part.
fn drained(protocol: &str, first: &'static [u8], then: &'static [u8], says: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (origin, heard) = scripted(protocol, first, then);
    let mut proxy = Proxy::start(&format!("drain_timeout: 1s\n{}", to(&[&origin.address()])));
    let mut client = proxy.client();
    upgrade(&mut client, protocol);
    client.send(says);
    let mut told = client.read_exactly(first.len());
    until("the origin has heard it", || heard.lock().unwrap().len() == says.len());
    proxy.signal("TERM");
    told.extend(client.read_to_end());
    proxy.ended();
    until("the origin is left", || origin.closed() == 1);
    let heard = heard.lock().unwrap().clone();
    (told, heard)
}

#[test]
fn nothing_is_put_into_a_frame_of_the_upstreams() {
    let (told, heard) = drained("websocket", &TEXT[..5], b"", b"");
    assert_eq!(told, TEXT[..5]);
    assert!(heard.starts_with(MASKED_CLOSE) && heard.len() == 8, "{heard:?}");
    let key = &heard[2..6];
    assert_eq!([heard[6] ^ key[0], heard[7] ^ key[1]], [0x03, 0xe9]);
}

#[test]
fn nothing_is_put_into_a_frame_of_the_clients() {
    let half = b"\x81\x8akeys01234";
    let (told, heard) = drained("websocket", TEXT, b"", half);
    assert_eq!(told, [TEXT, CLOSE].concat());
    assert_eq!(heard, half);
}

#[test]
fn a_frame_that_ends_in_time_is_followed_by_the_close_and_by_nothing_else() {
    // What the origin says on hearing the Close: the rest of its frame, and another.
    let (told, heard) = drained("websocket", &TEXT[..5], b"3456789\x81\x03abc", b"");
    assert_eq!(told, [&TEXT[..5], b"3456789", CLOSE].concat());
    assert!(heard.starts_with(MASKED_CLOSE) && heard.len() == 8, "{heard:?}");
}

#[test]
fn who_has_said_close_is_told_nothing_more() {
    let close = b"\x88\x02\x03\xe8";
    let (told, heard) = drained("websocket", close, b"", b"");
    assert_eq!(told, close);
    assert!(heard.starts_with(MASKED_CLOSE), "{heard:?}");
}

#[test]
fn another_protocol_is_cut_as_it_is() {
    let (told, heard) = drained("tcp", TEXT, b"", b"hello");
    assert_eq!((told, heard), (TEXT.to_vec(), b"hello".to_vec()));
}

#[test]
fn an_encrypted_tunnel_ends_as_tls_does() {
    let (origin, _) = scripted("websocket", TEXT, b"");
    let mut server = Server::before(&origin.address(), "");
    let port = server.proxy.port("secure");
    let mut client = Client::tls(port, "localhost", server.certificates.client(&[])).unwrap();
    upgrade(&mut client, "websocket");
    assert_eq!(client.read_exactly(TEXT.len()), TEXT);
    server.proxy.signal("TERM");
    assert_eq!(client.read_exactly(CLOSE.len()), CLOSE);
    assert!(client.has_ended_well(), "close_notify goes before the end");
    server.proxy.ended();
}
