//! WebSocket by python's `websockets` at both ends, and upgrades byte by byte.

use std::thread;

use super::support::{Client, Origin, Proxy, Python, Reply, to};

/// Echoes, and says by which code a connection was closed.
pub const ECHO: &str = r#"
import asyncio, websockets
async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except websockets.exceptions.ConnectionClosed:
        pass
    print("closed", socket.close_code)
async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1])
        await asyncio.Future()
asyncio.run(main())
"#;

/// Routes to an upstream, each with something that holds for a tunnel as for any request.
pub const HELD: &str = r#"all: { path: "/**", proxy: { upstream: origin } }
      key: { path: /key, middleware: [{ api_key: { keys: { me: f2503ac13be999f85d3232ba05a38cd45832f7d30b3eaa0efcf5e6e470111d6e } } }], proxy: { upstream: origin } }
      post: { path: /post, methods: [POST], proxy: { upstream: origin } }
      idle: { path: /idle, timeouts: { tunnel_idle: 300ms }, proxy: { upstream: origin } }
      total: { path: /total, timeouts: { total: 500ms }, proxy: { upstream: origin } }
      here: { path: /here, respond: { status: 200, body: hello } }"#;

pub const CLIENT: &str = r#"
import asyncio, os, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1], max_size=None) as socket:
        for message in ["hello", b"\x00\xff" * 10, "", "x" * 100_000, os.urandom(2_000_000)]:
            await socket.send(message)
            assert await socket.recv() == message, len(message)
        pong = await socket.ping()
        await pong
        await socket.close(code=4321, reason="done")
        print(socket.close_code)
asyncio.run(main())
"#;

pub const MANY: &str = r#"
import asyncio, sys, websockets
async def one(n):
    async with websockets.connect(sys.argv[1]) as socket:
        for m in range(20):
            await socket.send(f"{n}:{m}")
            assert await socket.recv() == f"{n}:{m}"
async def main():
    await asyncio.gather(*(one(n) for n in range(50)))
    print("all")
asyncio.run(main())
"#;

pub fn echo() -> (Python, String) {
    let mut server = Python::run(ECHO, &[]);
    let address = format!("127.0.0.1:{}", server.line());
    (server, address)
}

#[test]
fn messages_of_every_kind_pass_both_ways() {
    let (_server, address) = echo();
    let proxy = Proxy::start(&to(&[&address]));
    let url = format!("ws://127.0.0.1:{}/ws", proxy.port("web"));
    assert_eq!(Python::run(CLIENT, &[&url]).finish().trim(), "4321");
    let line = proxy.access_line_of("/ws");
    assert_eq!(line["status"], 101, "{line}");
}

#[test]
fn many_sockets_at_once() {
    let (_server, address) = echo();
    let proxy = Proxy::start(&to(&[&address]));
    let url = format!("ws://127.0.0.1:{}/ws", proxy.port("web"));
    assert_eq!(Python::run(MANY, &[&url]).finish().trim(), "all");
}

const UPGRADE: &str = "GET /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn bytes_right_behind_the_switch_are_not_lost() {
    let origin = Origin::serving(|exchange| {
        exchange.send(format!("{SWITCHING}at once"));
        let said = exchange.read_some();
        exchange.send(said);
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    // Again and again: what is early is a matter of luck.
    for _ in 0..50 {
        let mut client = proxy.client();
        client.send(format!("{UPGRADE}early"));
        let head = client.response_head();
        assert_eq!((head.status, head.field("upgrade")), (101, Some("websocket")));
        assert_eq!(String::from_utf8(client.read_to_end()).unwrap(), "at onceearly");
    }
    let request = &origin.requests()[0];
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert_eq!(request.field("sec-websocket-version"), Some("13"));
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let origin = Origin::replying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let response = client.send(UPGRADE).response();
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
}

#[test]
fn one_end_that_closes_closes_the_other() {
    let origin = Origin::serving(|exchange| {
        exchange.send(SWITCHING);
        exchange.read_to_end();
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let port = proxy.port("web");
    let clients: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let mut client = Client::tcp(port);
                client.send(UPGRADE);
                assert_eq!(client.response_head().status, 101);
                client.finish_sending();
                assert!(client.is_closed());
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    super::support::until("the origin's ends are closed", || origin.closed() >= 4);
}
