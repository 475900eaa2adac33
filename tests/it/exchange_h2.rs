//! Exchanges with HTTP/2 origins: streams that an origin did not process, limits of streams, early responses.

use std::{collections::BTreeMap, future::poll_fn, thread};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::support::{
    Client, H2Origin, HyperH2, Load, Nginx, Proxy, Response, Tree, config, curl, eventually, free_port,
    h2load,
};

const CONFIGURATION: &str = r#"
listeners: { web: { bind: "127.0.0.1:0", limits: { requests_per_connection: 1000000 } } }
upstreams: { origin: { protocol: h2c, endpoints: ["ORIGIN"] KEYS } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;

fn before(address: &str, keys: &str) -> Proxy {
    Proxy::start(&config(CONFIGURATION, &[("ORIGIN", &address), ("KEYS", &keys)]))
}

fn send(client: &mut Client, method: &str, path: &str, length: usize) -> Response {
    let body = "x".repeat(length);
    let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
    client.send(head).response()
}

/// An origin that does this to the second stream of its first connection, and a proxy with that connection.
fn misbehaving(specification: &Value, keys: &str) -> (HyperH2, Proxy) {
    let mut origin = HyperH2::run(specification);
    let proxy = before(&origin.address(), keys);
    assert_eq!(proxy.client().get("/first").status, 200);
    let first = origin.next();
    assert_eq!((&first["connection"], &first["stream"]), (&json!(0), &json!(1)), "{first}");
    (origin, proxy)
}

/// The ways in which an origin says that it did not process a stream (RFC 9113 section 8.7).
fn not_processed() -> [Value; 6] {
    [
        // Streams after the last one that GOAWAY names are not processed, whatever its code (RFC 9113 section 6.8).
        json!({ "second": "goaway", "code": 2, "at": "head" }),
        json!({ "second": "goaway", "code": 11, "at": "end" }),
        json!({ "second": "goaway", "code": 0, "at": "head" }),
        json!({ "second": "goaway", "code": 0, "at": "end" }),
        json!({ "second": "refuse", "at": "head" }),
        json!({ "second": "refuse", "at": "end" }),
    ]
}

#[test]
fn a_post_that_was_not_processed_is_sent_again_on_a_new_connection() {
    for specification in not_processed() {
        for keys in ["", ", retry: { retries: 0 }"] {
            let (_origin, proxy) = misbehaving(&specification, keys);
            let response = send(&mut proxy.client(), "POST", "/again", 5);
            assert_eq!(response.status, 200, "{specification} {keys}");
            let seen: Value = serde_json::from_str(&response.text()).unwrap();
            assert_eq!((&seen["connection"], &seen["length"]), (&json!(1), &json!(5)), "{specification}");
        }
        let (_origin, proxy) = misbehaving(&specification, "");
        let run = curl(&["--http2-prior-knowledge", "-d", "01234", &proxy.url("web", "/again")]);
        let seen: Value = serde_json::from_str(&run.stdout).expect("an answer");
        assert_eq!((&seen["connection"], &seen["length"]), (&json!(1), &json!(5)), "{specification}");
    }
}

#[test]
fn what_is_not_known_to_be_unprocessed_is_sent_again_if_it_is_idempotent() {
    for specification in [
        json!({ "second": "goaway", "code": 0, "last": 3, "at": "head" }),
        json!({ "second": "goaway", "code": 2, "last": 3, "at": "end" }),
        json!({ "second": "drop", "at": "end" }),
    ] {
        let (mut origin, proxy) = misbehaving(&specification, "");
        assert_eq!(send(&mut proxy.client(), "POST", "/post", 5).status, 502, "{specification}");
        assert_eq!(proxy.access_line_of("/post")["attempts"], 1, "{specification}");
        // The next thing that the origin gets whole is not the POST again.
        assert_eq!(proxy.client().get("/after").status, 200);
        let later = std::iter::repeat_with(|| origin.next()).find(|said| said["connection"] == 1).unwrap();
        assert_eq!(later["path"], "/after", "{specification}");
        for method in ["GET", "PUT", "DELETE"] {
            let (_origin, proxy) = misbehaving(&specification, "");
            assert_eq!(
                send(&mut proxy.client(), method, "/again", 5).status,
                200,
                "{method} {specification}"
            );
        }
    }
}

#[test]
fn a_body_of_more_than_64_kib_is_not_sent_again() {
    for specification in not_processed().into_iter().filter(|specification| specification["at"] == "end") {
        for (length, status) in [(64 << 10, 200), ((64 << 10) + 1, 502), (1 << 20, 502)] {
            let (_origin, proxy) = misbehaving(&specification, "");
            let response = send(&mut proxy.client(), "POST", "/long", length);
            assert_eq!(response.status, status, "{length} bytes, {specification}");
        }
    }
}

#[test]
fn an_origin_that_refuses_every_stream_is_not_asked_for_ever() {
    let origin = HyperH2::run(&json!({ "refuse": true }));
    let proxy = before(&origin.address(), "");
    for (method, path) in [("POST", "/post"), ("GET", "/get")] {
        assert_eq!(send(&mut proxy.client(), method, path, 1).status, 502);
        let line = proxy.access_line_of(path);
        assert_eq!(line["reason"], "upstream_closed");
        assert!((2..=6).contains(&line["attempts"].as_u64().unwrap()), "{line}");
    }
}

#[test]
fn connections_that_end_after_twenty_requests_fail_none() {
    let server = "keepalive_requests 20; location / { return 200 ok; }";
    let nginx = Nginx::start(Tree::new(), free_port(), "http2", server);
    let proxy = before(&nginx.address(), "");
    let url = proxy.url("web", "/");
    let tree = Tree::new();
    let body = tree.write("body", "hello").display().to_string();
    for clients in ["1", "10"] {
        for protocol in [&["--h1"][..], &["-m", "1"], &["-m", "10"]] {
            let load = h2load(&[&["-n", "200", "-c", clients, "-d", &body, &url], protocol].concat());
            assert_eq!((load.succeeded, load.failed), (200, 0), "{clients} {protocol:?}: {}", load.report);
        }
    }
}

#[test]
fn more_streams_than_a_connection_may_have_take_more_connections() {
    const REQUESTS: u64 = 20;
    for limit in [1, 2, 7] {
        let mut origin = HyperH2::run(&json!({ "limit": limit, "hold": REQUESTS }));
        let proxy = before(&origin.address(), "");
        let url = proxy.url("web", "/");
        // The second round meets the connections of the first one.
        for round in 0..2 {
            let url = url.clone();
            let load = thread::spawn(move || h2load(&["-n", "20", "-c", "1", "-m", "20", &url]));
            let seen = std::iter::repeat_with(|| origin.next()).find(|said| said["most"].is_u64()).unwrap();
            assert_eq!(
                load.join().unwrap(),
                Load { succeeded: REQUESTS, ..Load::default() },
                "{limit}, {round}"
            );
            assert!(seen["most"].as_u64() <= Some(limit), "{limit}: {seen}");
            assert!(seen["connections"].as_u64() >= Some(REQUESTS.div_ceil(limit)), "{limit}: {seen}");
        }
    }
}

#[test]
fn streams_share_a_connection_where_the_origin_allows_it() {
    let mut origin = HyperH2::run(&json!({ "limit": 100 }));
    let proxy = before(&origin.address(), "");
    assert_eq!(proxy.client().get("/first").status, 200);
    let load = h2load(&["-n", "40", "-c", "4", "-m", "10", &proxy.url("web", "/")]);
    assert_eq!(load.failed, 0, "{}", load.report);
    let connections: Vec<Value> = (0..41).map(|_| origin.next()["connection"].clone()).collect();
    assert!(connections.iter().all(|connection| *connection == 0), "{connections:?}");
}

#[test]
fn streams_go_to_connections_in_turn() {
    let mut origin = HyperH2::run(&json!({ "limit": 2, "hold": 8 }));
    let proxy = before(&origin.address(), "");
    let load = h2load(&["-n", "8", "-c", "1", "-m", "8", &proxy.url("web", "/")]);
    assert_eq!(load.failed, 0, "{}", load.report);
    let seen = std::iter::repeat_with(|| origin.next()).find(|said| said["most"].is_u64()).unwrap();
    let connections = seen["connections"].as_u64().unwrap();
    assert!(connections >= 4, "{seen}");
    let mut client = proxy.client();
    let mut counts = BTreeMap::<u64, u64>::new();
    for _ in 0..3 * connections {
        let seen: Value = serde_json::from_str(&client.get("/free").text()).unwrap();
        *counts.entry(seen["connection"].as_u64().unwrap()).or_default() += 1;
    }
    assert_eq!(counts.len() as u64, connections, "{counts:?}");
    assert!(counts.values().all(|count| *count == 3), "{counts:?}");
}

/// The origin's end of the connection is still there, and says nothing any more: as behind a firewall that has forgotten it.
#[test]
fn a_connection_that_answers_no_ping_is_given_up() {
    let (mut origin, proxy) = misbehaving(&json!({ "second": "freeze", "at": "head" }), "");
    thread::scope(|scope| {
        let again = scope.spawn(|| proxy.client().get("/again"));
        // It goes by the same connection.
        let lost = scope.spawn(|| send(&mut proxy.client(), "POST", "/lost", 5));
        let again = again.join().unwrap();
        assert_eq!(again.status, 200);
        let seen: Value = serde_json::from_str(&again.text()).unwrap();
        assert_eq!(seen["connection"], 1);
        assert!(matches!(lost.join().unwrap().status, 200 | 502));
    });
    let line = proxy.access_line_of("/again");
    assert_eq!((&line["attempts"], &line["reason"]), (&json!(2), &Value::Null), "{line}");
    let ended = std::iter::repeat_with(|| origin.next()).find(|said| said["closed"].is_u64()).unwrap();
    assert_eq!(ended["closed"], 0, "the silent connection is closed");
}

#[test]
fn an_origin_that_answers_pings_is_waited_for() {
    let mut origin = HyperH2::run(&json!({ "pings": true, "hold": 2 }));
    let proxy = before(&origin.address(), "");
    thread::scope(|scope| {
        let slow = scope.spawn(|| proxy.client().get("/slow"));
        // The first PING asks for the SETTINGS, the second one whether the silent connection still stands.
        for _ in 0..2 {
            std::iter::repeat_with(|| origin.next()).find(|said| said["ping"] == 0).unwrap();
        }
        assert_eq!(proxy.client().get("/second").status, 200);
        assert_eq!(slow.join().unwrap().status, 200);
    });
    assert_eq!(proxy.access_line_of("/slow")["attempts"], 1);
}

/// Where the origin closes right behind a response without a length, while the request is still sent, the h2 crate may forget
/// that the response has ended. What the client gets then is an error.
#[test]
fn a_response_that_may_be_cut_does_not_pass_for_a_whole_one() {
    const LENGTH: usize = 200_000;
    let origin = HyperH2::run(&json!({}));
    let proxy = before(&origin.address(), "");
    for nth in 0..30 {
        let mut client = proxy.client();
        client.send("POST /early-cut HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx");
        let whole = match client.try_response_to("POST") {
            Ok(response) if response.status == 413 => {
                assert_eq!(response.message.body.len(), LENGTH, "cut, and not said to be");
                true
            }
            Ok(response) => {
                assert_eq!(response.status, 502);
                false
            }
            Err(_) => false,
        };
        let line = eventually("its line", || {
            proxy.access_log().into_iter().filter(|line| line["path"] == "/early-cut").nth(nth)
        });
        let reason = if whole { Value::Null } else { json!("upstream_closed") };
        assert_eq!(line["reason"], reason, "{line}");
    }
}

#[test]
fn an_early_response_arrives_while_the_body_is_still_sent() {
    let origin = HyperH2::run(&json!({}));
    let proxy = before(&origin.address(), "");
    const PATHS: [&str; 3] = ["/early", "/early-reset", "/early-close"];
    for path in PATHS {
        let mut client = proxy.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"));
        let response = client.send([b'x'; 1000]).response();
        assert_eq!((response.status, response.text().as_str()), (413, "big"), "{path}");
        if path != "/early" {
            // The origin takes no more, so that the exchange is over.
            let line = proxy.access_line_of(path);
            assert!(line["reason"].is_null() && line["status"] == 413, "{line}");
        }
    }
    let tree = Tree::new();
    let body = tree.write("body", vec![0; 10 << 20]).display().to_string();
    for path in PATHS {
        for _ in 0..5 {
            let url = proxy.url("web", path);
            let run = curl(&["--http1.1", "-H", "Expect:", "-w", "%{http_code}", "-T", &body, &url]);
            assert_eq!(run.stdout, "big413", "{path}: {}", run.stderr);
            assert_eq!(upload(proxy.port("web"), path, 10 << 20), (413, "big".into()), "{path}");
        }
    }
}

#[test]
fn bodies_of_many_streams_pass_at_once() {
    let origin = H2Origin::counting();
    let proxy = before(&origin.address(), "");
    let tree = Tree::new();
    let body = tree.write("body", vec![0; 3_000_000]).display().to_string();
    let url = proxy.url("web", "/");
    // Clients of their own; to the origin the streams share connections.
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let run = curl(&["--http2-prior-knowledge", "-H", "Expect:", "-T", &body, &url]);
                assert_eq!(run.stdout, "3000000", "{}", run.stderr);
            });
        }
    });
}

/// What an HTTP/2 client gets that sends a body until it has the whole response: not curl, which loses a response to the
/// RST_STREAM(NO_ERROR) behind it (RFC 9113 section 8.1).
pub fn upload(port: u16, path: &str, length: usize) -> (u16, String) {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post(format!("http://a{path}")).body(()).unwrap();
        let (response, mut body) = sender.send_request(request, false).unwrap();
        tokio::spawn(async move {
            let mut left = length;
            while left > 0 {
                body.reserve_capacity(left.min(64 << 10));
                let Some(Ok(room)) = poll_fn(|cx| body.poll_capacity(cx)).await else { return };
                let room = room.min(left);
                left -= room;
                if body.send_data(Bytes::from(vec![b'x'; room]), left == 0).is_err() {
                    return;
                }
            }
        });
        let (head, mut received) = response.await.expect("a response").into_parts();
        let mut text = Vec::new();
        while let Some(data) = received.data().await {
            text.extend(data.expect("a whole response"));
        }
        (head.status.as_u16(), String::from_utf8(text).unwrap())
    })
}
