//! How fast bodies pass, whatever the protocol and the direction.

use std::{
    io::{Read, Write},
    net::TcpListener,
    time::{Duration, Instant},
};

use super::support::{Client, Origin, Proxy, Reply, config, curl, eventually, h2load};

const KIB: usize = 1024;

/// Everything to this origin, with these keys of the route and of the listener.
fn limited(limit: &str, listener: &str, origin: &Origin) -> Proxy {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0", LISTENER } }
upstreams: { origin: { endpoints: ["ORIGIN"], timeouts: { body_idle: 500ms } } }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", proxy: { upstream: origin }, middleware: [{ bandwidth: LIMIT }] }
"#;
    Proxy::start(&config(yaml, &[("LISTENER", &listener), ("LIMIT", &limit), ("ORIGIN", &origin.address())]))
}

fn body(length: usize) -> String {
    "x".repeat(length)
}

fn post(client: &mut Client, length: usize) -> u16 {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    client.send(head).send(body(length)).response().status
}

/// Measures again and again until it took that long within 5 %; on a machine that is busy it may take longer, but it
/// never takes less.
fn takes(seconds: f64, mut run: impl FnMut()) {
    eventually("it takes as long as it should", || {
        let start = Instant::now();
        run();
        let took = start.elapsed().as_secs_f64();
        assert!(took > seconds * 0.95, "{took} instead of {seconds}");
        (took < seconds * 1.05).then_some(())
    });
}

#[test]
fn a_response_is_as_fast_as_it_may() {
    let origin = Origin::saying(&body(512 * KIB));
    let proxy = limited("{ rate: 256KiB/s, burst: 16KiB, direction: response }", "", &origin);
    // What passes at once is the burst, and the last piece is not waited for.
    takes((512.0 - 16.0 - 16.0) / 256.0, || {
        assert_eq!(proxy.client().get("/").body.len(), 512 * KIB);
    });
}

#[test]
fn a_request_is_as_fast_as_it_may() {
    let origin = Origin::saying("ok");
    let proxy = limited("{ rate: 256KiB/s, burst: 16KiB, direction: request }", "", &origin);
    let start = Instant::now();
    assert_eq!(post(&mut proxy.client(), 512 * KIB), 200);
    // What is read at once may be four pieces.
    assert!(start.elapsed().as_secs_f64() > (512.0 - 16.0 - 64.0) / 256.0);
    assert_eq!(origin.request().body.len(), 512 * KIB);
}

#[test]
fn http2_is_no_faster() {
    let origin = Origin::saying(&body(256 * KIB));
    let proxy = limited("{ rate: 256KiB/s, burst: 16KiB }", "", &origin);
    let url = proxy.url("web", "/");
    let start = Instant::now();
    let outcome = curl(&["--http2-prior-knowledge", &url]);
    assert_eq!(outcome.stdout.len(), 256 * KIB);
    assert!(start.elapsed().as_secs_f64() > (256.0 - 32.0) / 256.0);
}

#[test]
fn requests_of_a_connection_share_what_it_has() {
    let origin = Origin::saying(&body(64 * KIB));
    let proxy = limited("{ rate: 64KiB/s, burst: 64KiB, per: connection }", "", &origin);
    let fresh = || assert_eq!(proxy.client().get("/").body.len(), 64 * KIB);
    let mut client = proxy.client();
    let start = Instant::now();
    (0..2).for_each(|_| assert_eq!(client.get("/").body.len(), 64 * KIB));
    assert!(start.elapsed().as_secs_f64() > (64.0 - 16.0) / 64.0);
    eventually("another connection has its own", || {
        let start = Instant::now();
        fresh();
        (start.elapsed() < Duration::from_millis(700)).then_some(())
    });
}

#[test]
fn streams_of_a_connection_share_what_it_has() {
    let origin = Origin::saying(&body(64 * KIB));
    let proxy = limited("{ rate: 128KiB/s, burst: 16KiB, per: connection }", "", &origin);
    let url = proxy.url("web", "/");
    let seconds = |clients: &str| {
        let start = Instant::now();
        let load = h2load(&["-n", "4", "-c", clients, "-m", "4", &url]);
        assert_eq!((load.succeeded, load.failed), (4, 0), "{}", load.report);
        start.elapsed().as_secs_f64()
    };
    let together = seconds("1");
    assert!(together > (4.0 * 64.0 - 32.0) / 128.0, "four streams at once: {together}");
    eventually("connections of their own have their own", || (seconds("4") < 1.5).then_some(()));
}

/// Each is one piece: what passes at once may do so once, not with each of them.
#[test]
fn many_small_bodies_are_no_faster_than_a_large_one() {
    let small = body(2 * KIB);
    let origin = Origin::saying(&small);
    for direction in ["response", "request"] {
        let limit = format!("{{ rate: 32KiB/s, burst: 16KiB, per: connection, direction: {direction} }}");
        let proxy = limited(&limit, "", &origin);
        let mut client = proxy.client();
        let start = Instant::now();
        for _ in 0..40 {
            assert_eq!(post(&mut client, 2 * KIB), 200);
        }
        let took = start.elapsed().as_secs_f64();
        assert!(took > (80.0 - 16.0 - 4.0) / 32.0, "{direction}: {took}");
    }
}

#[test]
fn the_hosts_of_a_tenant_share_what_it_has() {
    let origin = Origin::saying(&body(256 * KIB));
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
tenants: { acme: { limits: { bandwidth: 256KiB/s } } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  one: { names: [one], tenant: acme, routes: { all: { path: "/**", proxy: { upstream: origin } } } }
  two: { names: [two], tenant: acme, routes: { all: { path: "/**", proxy: { upstream: origin } } } }
"#;
    let proxy = Proxy::start(&config(yaml, &[("ORIGIN", &origin.address())]));
    let port = proxy.port("web");
    let start = Instant::now();
    let clients: Vec<_> = ["one", "two"]
        .map(|host| {
            std::thread::spawn(move || {
                let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
                Client::tcp(port).send(request).response().body.len()
            })
        })
        .into();
    assert!(clients.into_iter().all(|client| client.join().unwrap() == 256 * KIB));
    assert!(start.elapsed().as_secs_f64() > (512.0 - 16.0 - 32.0) / 256.0);
}

#[test]
fn a_tunnel_is_limited_both_ways() {
    const SWITCHING: &str =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let origin = Origin::serving(|exchange| {
        exchange.send(SWITCHING);
        exchange.send(body(128 * KIB));
        let mut read = 0;
        while read < 128 * KIB {
            match exchange.read_some().len() {
                0 => return Reply::Close,
                length => read += length,
            }
        }
        exchange.send("done");
        Reply::Close
    });
    let proxy = limited("{ rate: 128KiB/s, burst: 16KiB }", "", &origin);
    let mut client = proxy.client();
    client.send("GET /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response_head().status, 101);
    let start = Instant::now();
    client.read_exactly(128 * KIB);
    let down = start.elapsed().as_secs_f64();
    assert!(down > (128.0 - 32.0) / 128.0 - 0.1, "{down}");
    let start = Instant::now();
    client.send(body(128 * KIB));
    assert_eq!(client.read_exactly(4), b"done");
    let up = start.elapsed().as_secs_f64();
    assert!(up > (128.0 - 16.0 - 64.0) / 128.0, "{up}");
}

#[test]
fn a_tunnel_by_connect_is_limited_both_ways() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap();
    let proxy = Proxy::start(&config(
        r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    routes:
      tunnels:
        path: "/"
        forward: { targets: ["127.0.0.1:PORT"], idle: 500ms }
        middleware: [{ bandwidth: { rate: 64KiB/s, burst: 16KiB } }]
"#,
        &[("PORT", &address.port())],
    ));
    let mut client = proxy.client();
    client.send(format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n"));
    assert_eq!(client.response_head().status, 200);
    let (mut far, _) = target.accept().unwrap();
    let start = Instant::now();
    far.write_all(body(64 * KIB).as_bytes()).unwrap();
    client.read_exactly(64 * KIB);
    let down = start.elapsed().as_secs_f64();
    assert!(down > (64.0 - 32.0) / 64.0 - 0.1, "{down}");
    // What waits is no silence, and the end comes behind all of it.
    let start = Instant::now();
    client.send(body(128 * KIB)).finish_sending();
    let mut read = Vec::new();
    far.read_to_end(&mut read).unwrap();
    assert_eq!(read.len(), 128 * KIB);
    let up = start.elapsed().as_secs_f64();
    assert!(up > (128.0 - 16.0 - 64.0) / 64.0, "{up}");
}

#[test]
fn what_waits_is_not_the_clients_slowness() {
    let origin = Origin::saying(&body(19 * KIB));
    let timeouts = "timeouts: { body_idle: 500ms, write_idle: 500ms }";
    let proxy = limited("{ rate: 1KiB/s, direction: response }", timeouts, &origin);
    assert_eq!(proxy.client().get("/").body.len(), 19 * KIB);
    let origin = Origin::saying("ok");
    let proxy = limited("{ rate: 16KiB/s, burst: 0B, direction: request }", timeouts, &origin);
    assert_eq!(post(&mut proxy.client(), 96 * KIB), 200);
}

#[test]
fn who_goes_while_it_waits_is_let_go() {
    let origin = Origin::saying(&body(100 * KIB));
    // The next piece would come in a minute.
    let proxy = limited("{ rate: 16B/s }", "", &origin);
    let mut client = proxy.client();
    client.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_head().status, 200);
    client.read_exactly(16 * KIB);
    drop(client);
    assert_eq!(proxy.access_line_of("/gone")["reason"], "client_gone");
}

#[test]
fn answers_of_our_own_are_limited_and_heads_are_not() {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    middleware: [{ bandwidth: { rate: 1KiB/s, burst: 1KiB } }]
    routes: { all: { path: "/**", respond: { body: "BODY" } } }
"#;
    let proxy = Proxy::start(&config(yaml, &[("BODY", &body(4 * KIB))]));
    let start = Instant::now();
    assert_eq!(proxy.client().get("/").body.len(), 4 * KIB);
    assert!(start.elapsed() >= Duration::from_secs(2));
    // Nothing is said, and nothing is waited for.
    let head = proxy.client().send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").response_to("HEAD");
    assert_eq!((head.status, head.body.len()), (200, 0));
}
