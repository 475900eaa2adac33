//! WebSocket over HTTP/2 (RFC 8441), by hyper-h2 and wsproto, to origins of HTTP/1.1 (Python's `websockets`) and of
//! HTTP/2 (hyper-h2).

use serde_json::Value;

use super::{
    absolute_form,
    support::{H2Origin, HyperH2, Origin, Proxy, Python, Reply, config, to, until},
    websocket::{CLIENT, HELD, MANY, echo},
    websocket_cases::switching,
};

/// A client of WebSocket over HTTP/2.
pub const H2_CLIENT: &str =
    concat!(include_str!("support/ws_messages.py"), include_str!("support/h2_websocket.py"));

/// What the client says that it was told.
fn client(what: &str, proxy: &Proxy, path: &str, fields: &[&str]) -> Python {
    let port = proxy.port("web").to_string();
    Python::run(H2_CLIENT, &[&[what, &port, path], fields].concat())
}

#[track_caller]
fn said(what: &str, proxy: &Proxy, path: &str) -> String {
    client(what, proxy, path, &[]).finish().trim().to_owned()
}

/// An origin of WebSocket over HTTP/2, with its address.
fn h2_echo() -> (Python, String) {
    let mut server = Python::run(include_str!("support/h2_websocket_origin.py"), &[]);
    let address = format!("127.0.0.1:{}", server.line());
    (server, address)
}

pub fn h2c(address: &str) -> String {
    to(&[&address]).replace("endpoints:", "protocol: h2c, endpoints:")
}

#[test]
fn messages_pings_and_closes_pass_to_http_1() {
    let (_server, address) = echo();
    let proxy = Proxy::start(&to(&[&address]));
    assert_eq!(said("echo", &proxy, "/ws?x=1"), "4321 done ended");
    let line = proxy.access_line_of("/ws");
    assert_eq!(
        (&line["status"], &line["method"], &line["protocol"]),
        (&200.into(), &"GET".into(), &"HTTP/2".into())
    );
    assert!(line["reason"].is_null(), "{line}");
    for bytes in ["received", "sent"] {
        assert!(line[bytes].as_u64().unwrap() > 2_100_000, "{line}");
    }
}

#[test]
fn what_an_origin_says_to_a_client_that_has_ended_still_comes() {
    let (_server, address) = echo();
    let proxy = Proxy::start(&to(&[&address]));
    assert_eq!(said("close", &proxy, "/ws"), "(4321, 'done') ended");
    let line = proxy.access_line_of("/ws");
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &serde_json::Value::Null), "{line}");
    let (_server, address) = h2_echo();
    assert_eq!(said("close", &Proxy::start(&h2c(&address)), "/ws"), "(4321, 'done') ended");
}

#[test]
fn an_origin_sees_an_upgrade_with_a_key_of_its_own() {
    let origin = Origin::replying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let proxy = Proxy::before(&origin);
    for _ in 0..2 {
        let fields = [
            "sec-websocket-key=dGhlIHNhbXBsZSBub25jZQ==",
            "origin=https://a.test",
            "sec-websocket-protocol=chat",
        ];
        assert_eq!(client("answer", &proxy, "/ws?x=1", &fields).finish().trim(), "403");
    }
    let requests = origin.requests();
    assert_eq!(requests[0].start, "GET /ws?x=1 HTTP/1.1");
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("origin", "https://a.test"),
        ("host", "localhost"),
    ] {
        assert_eq!(requests[0].field(name), Some(value), "{name}");
    }
    let key = |n: usize| requests[n].field("sec-websocket-key").unwrap().to_owned();
    assert_ne!(key(0), key(1));
    assert_ne!(key(0), "dGhlIHNhbXBsZSBub25jZQ==");
}

#[test]
fn compression_is_the_two_ends_own() {
    let (_server, address) = echo();
    let proxy = Proxy::start(&to(&[&address]).replace("path:", "middleware: [{ compress: {} }], path:"));
    assert_eq!(said("deflate", &proxy, "/ws"), "deflated");
}

#[test]
fn what_nobody_takes_waits_where_it_is_sent_from() {
    let (_server, address) = echo();
    let proxy = Proxy::start(&to(&[&address]));
    let before = proxy.resident();
    assert_eq!(said("stall", &proxy, "/ws"), "stalled");
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown}");
}

#[test]
fn many_tunnels_at_once() {
    let (_server, address) = echo();
    let proxy = Proxy::start(&to(&[&address]));
    assert_eq!(said("many", &proxy, "/ws"), "all");
}

#[test]
fn an_http_2_origin_is_asked_by_extended_connect() {
    let (_server, address) = h2_echo();
    let proxy = Proxy::start(&h2c(&address));
    assert_eq!(said("echo", &proxy, "/ws"), "CONNECT websocket 13 4321 done ended");
    assert!(proxy.access_line_of("/ws")["reason"].is_null());
    assert_eq!(said("many", &proxy, "/ws"), "all");
    assert_eq!(said("answer", &proxy, "/refused"), "403");
}

#[test]
fn a_forward_proxy_is_asked_for_one_to_an_http_uri() {
    let (_server, address) = echo();
    let proxy = absolute_form::start(&[address.parse().unwrap()], "", "");
    let ask = |target: &str, what: &str| {
        let client = H2_CLIENT.replace("\"localhost\"", &format!("\"{target}\""));
        Python::run(&client, &[what, &proxy.port("web").to_string(), "/ws"]).finish().trim().to_owned()
    };
    assert_eq!(ask(&address, "echo"), "4321 done ended");
    let line = proxy.access_line_of("/ws");
    assert_eq!((&line["status"], &line["endpoint"]), (&200.into(), &address.as_str().into()), "{line}");
    assert!(ask("127.0.0.1:1", "answer").starts_with("403 "), "it is not listed");
}

#[test]
fn an_upgrade_reaches_an_http_2_origin() {
    let (_server, address) = h2_echo();
    let proxy = Proxy::start(&h2c(&address));
    let url = format!("ws://127.0.0.1:{}/ws", proxy.port("web"));
    assert_eq!(Python::run(CLIENT, &[&url]).finish().trim(), "4321");
    assert_eq!(Python::run(MANY, &[&url]).finish().trim(), "all");
    let line = proxy.access_line_of("/ws");
    assert_eq!((&line["status"], &line["reason"]), (&101.into(), &serde_json::Value::Null), "{line}");
    let upgrade = |path: &str, protocol: &str, key: &str| {
        let mut client = proxy.client();
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        ));
        client.response_head()
    };
    let head = upgrade("/ws", "WebSocket", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(
        (head.status, head.field("sec-websocket-accept")),
        (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    );
    assert_eq!(head.field("x-seen"), Some("CONNECT websocket 13"));
    assert_eq!(upgrade("/refused", "websocket", "dGhlIHNhbXBsZSBub25jZQ==").status, 403);
    for (protocol, key) in [("websocket", "none"), ("tcp", "dGhlIHNhbXBsZSBub25jZQ==")] {
        let head = upgrade("/ws", protocol, key);
        assert_eq!(
            (head.status, head.field("x-seen")),
            (200, Some("GET None 13 key")),
            "passed over: {protocol} {key}"
        );
    }
}

#[test]
fn an_http_2_origin_without_extended_connect_is_answered_for() {
    let origin = H2Origin::with_trailers();
    let proxy = Proxy::start(&h2c(&origin.address()));
    assert!(said("answer", &proxy, "/ws").starts_with("502 "));
    let line = proxy.access_line_of("/ws");
    assert_eq!(line["reason"], "upgrade_failed", "{line}");
}

/// RFC 8441 section 3: a tunnel is asked for once the origin's SETTINGS allow it, and not at all where they do not.
#[test]
fn the_settings_of_an_http_2_origin_are_waited_for() {
    for (connect, late, status) in [
        (Some(1), None, 101),
        (Some(1), Some(0.4), 101),
        (Some(0), None, 502),
        (Some(0), Some(0.4), 502),
        (None, None, 502),
        (None, Some(0.4), 502),
    ] {
        let keys = [("connect", connect.map(Value::from)), ("late", late.map(Value::from))];
        let keys = keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let specification = Value::Object(keys.collect());
        let mut origin = HyperH2::run(&specification);
        let proxy = Proxy::start(&h2c(&origin.address()));
        let mut client = proxy.client();
        client.send(
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        assert_eq!(client.response_head().status, status, "{specification}");
        if status == 502 {
            let line = proxy.access_line_of("/ws");
            assert_eq!((&line["reason"], &line["attempts"]), (&"upgrade_failed".into(), &1.into()), "{line}");
            assert_eq!(proxy.client().get("/after").status, 200);
        }
        let mut next = || loop {
            let said = origin.next();
            // Other requests do not wait.
            let is_early = said["early"] == true && said["on"] == 0;
            assert!(!is_early, "{specification}: a stream before the SETTINGS");
            if said["early"].is_null() {
                return said;
            }
        };
        // Where it is not supported, what the origin sees first is another request.
        match status {
            101 => assert_eq!(next()["connect"], "/ws"),
            _ => assert_eq!(next()["path"], "/after"),
        }
    }
}

#[test]
fn what_does_not_switch_is_no_tunnel() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"[..],
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    ] {
        let origin = Origin::replying(answer);
        let proxy = Proxy::before(&origin);
        let text = String::from_utf8_lossy(answer);
        assert!(said("answer", &proxy, "/ws").starts_with("502 "), "{text}");
        assert_eq!(proxy.access_line_of("/ws")["reason"], "upgrade_failed", "{text}");
    }
}

const GUARDED: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      ROUTES
      one: { path: /one, middleware: [{ concurrency: { max: 1 } }], proxy: { upstream: origin } }
      get: { path: /get, methods: [GET], proxy: { upstream: origin } }
      away: { path: /away, redirect: { to: "/ws", status: 308 } }
"#;

fn guarded() -> (Python, Proxy) {
    let (server, address) = echo();
    (server, Proxy::start(&config(GUARDED, &[("ROUTES", &HELD), ("ORIGIN", &address)])))
}

#[test]
fn the_chain_holds_for_tunnels() {
    let (_server, proxy) = guarded();
    assert!(said("answer", &proxy, "/key").starts_with("401 "));
    let key = ["x-api-key=secret-of-mine"];
    assert_eq!(client("echo", &proxy, "/key", &key).finish().trim(), "4321 done ended");
    let mut held = client("held", &proxy, "/one", &[]);
    assert_eq!(held.line(), "open");
    assert!(said("answer", &proxy, "/one").starts_with("503 "));
    drop(held);
    until("the place is free", || said("answer", &proxy, "/one").starts_with("200"));
}

#[test]
fn it_is_routed_as_a_get_and_only_an_upstream_opens_a_tunnel() {
    let (_server, proxy) = guarded();
    assert!(said("answer", &proxy, "/get").starts_with("200"));
    assert!(said("answer", &proxy, "/post").starts_with("405"));
    assert!(said("answer", &proxy, "/away").starts_with("308"));
    assert!(said("answer", &proxy, "/here").starts_with("501"));
    assert!(said("other", &proxy, "/udp").starts_with("501"));
    for path in ["/here", "/udp"] {
        assert_eq!(proxy.access_line_of(path)["reason"], "unsupported_protocol", "{path}");
    }
}

#[test]
fn silence_and_time_end_a_tunnel() {
    let (_server, proxy) = guarded();
    assert_eq!(said("held", &proxy, "/idle"), "open\nreset 8");
    let line = proxy.access_line_of("/idle");
    assert_eq!((&line["reason"], &line["status"]), (&"tunnel_idle".into(), &200.into()), "{line}");
    assert!(line["duration_ms"].as_f64().unwrap() >= 300.0, "{line}");
    assert_eq!(said("held", &proxy, "/total"), "open\nreset 8");
    assert_eq!(proxy.access_line_of("/total")["reason"], "total_timeout");
}

#[test]
fn a_client_that_has_ended_is_not_waited_for() {
    let origin = Origin::serving(|exchange| {
        let key = exchange.request.field("sec-websocket-key").expect("a key").to_owned();
        exchange.send(switching(&key));
        exchange.read_to_end();
        Reply::Close
    });
    let proxy = Proxy::start(&config(GUARDED, &[("ROUTES", &HELD), ("ORIGIN", &origin.address())]));
    assert_eq!(said("end", &proxy, "/idle"), "ended");
    until("the origin's connection is closed", || origin.closed() > 0);
    assert_eq!(proxy.access_line_of("/idle")["reason"], serde_json::Value::Null);
}

#[test]
fn silence_ends_an_upgrade_too() {
    let (_server, proxy) = guarded();
    let mut client = proxy.client();
    client.send(
        "GET /idle HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(client.response_head().status, 101);
    assert!(client.is_closed());
    assert_eq!(proxy.access_line_of("/idle")["reason"], "tunnel_idle");
}

#[test]
fn a_client_that_goes_takes_its_tunnel_along() {
    let (_server, address) = echo();
    let proxy = Proxy::start(&to(&[&address]));
    assert_eq!(said("given_up", &proxy, "/ws"), "reset");
    assert_eq!(proxy.access_line_of("/ws")["reason"], "client_gone");
}

#[test]
fn a_drain_ends_tunnels_when_its_time_is_up() {
    let (_server, address) = echo();
    let mut proxy = Proxy::start(&format!("drain_timeout: 500ms\n{}", to(&[&address])));
    let mut held = client("held", &proxy, "/ws", &[]);
    assert_eq!(held.line(), "open");
    proxy.signal("TERM");
    assert!(proxy.ended().success());
    assert_eq!(held.finish().trim(), "ended");
}
