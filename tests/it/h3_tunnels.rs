//! Tunnels over HTTP/3, by aioquic: WebSocket by extended CONNECT (RFC 9220), framed by wsproto, to an origin that is
//! Python's `websockets`; and plain CONNECT.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::{
    forward::is_gone_at_once,
    support::{Http3, Origin, Python, Secure, config},
    websocket::{HELD, echo},
};

const YAML: &str = r#"
drain_timeout: 500ms
certificates: { web: { cert: web.pem, key: web.key } }
listeners: { secure: { bind: "127.0.0.1:0", protocols: [h3], tls: { certificates: [web] } } }
upstreams: { origin: { PROTOCOL endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      ROUTES
  tunnels: { names: ["127.0.0.1"], routes: { tunnels: { path: "/", forward: { targets: ["ORIGIN"] } } } }
"#;

pub struct Server(Secure);

impl Server {
    pub fn before(origin: &dyn std::fmt::Display, protocol: &str) -> Self {
        let yaml = config(YAML, &[("ROUTES", &HELD), ("ORIGIN", origin), ("PROTOCOL", &protocol)]);
        Self(Secure::start(&yaml))
    }

    /// Before an origin that echoes, which ends with the other.
    fn echoing() -> (Python, Self) {
        let (origin, address) = echo();
        let server = Self::before(&address, "");
        (origin, server)
    }

    pub fn run(&self, what: &str, specification: Value) -> Http3 {
        self.0.run(what, specification)
    }

    /// What a client says last.
    #[track_caller]
    fn said(&self, what: &str, path: &str) -> Value {
        self.run(what, json!({ "path": path })).all().pop().expect("it says something")
    }

    #[track_caller]
    fn status(&self, specification: Value) -> Value {
        self.run("ws_answer", specification).next()["status"].clone()
    }
}

const REQUEST_CANCELLED: u64 = 0x10c;
const FRAME_UNEXPECTED: u64 = 0x105;

#[test]
fn messages_pings_and_closes_pass_to_http_1() {
    let (_origin, server) = Server::echoing();
    let said = server.said("ws_echo", "/ws?x=1");
    assert_eq!(
        (&said["code"], &said["reason"], &said["reset"]),
        (&json!(4321), &json!("done"), &Value::Null)
    );
    let line = server.0.proxy.access_line_of("/ws");
    assert_eq!(
        (&line["status"], &line["method"], &line["protocol"], &line["reason"]),
        (&200.into(), &"GET".into(), &"HTTP/3".into(), &Value::Null),
        "{line}"
    );
    for bytes in ["received", "sent"] {
        assert!(line[bytes].as_u64().unwrap() > 2_100_000, "{line}");
    }
}

#[test]
fn what_an_origin_says_to_a_client_that_has_ended_still_comes() {
    let (_origin, server) = Server::echoing();
    let said = server.said("ws_close", "/ws");
    assert_eq!(
        (&said["code"], &said["reason"], &said["reset"]),
        (&json!(4321), &json!("done"), &Value::Null)
    );
    assert_eq!(server.0.proxy.access_line_of("/ws")["reason"], Value::Null);
}

#[test]
fn an_http_2_origin_is_asked_by_extended_connect() {
    let mut origin = Python::run(include_str!("support/h2_websocket_origin.py"), &[]);
    let server = Server::before(&format!("127.0.0.1:{}", origin.line()), "protocol: h2c,");
    let said = server.said("ws_echo", "/ws");
    assert_eq!((&said["code"], &said["seen"]), (&json!(4321), &json!("CONNECT websocket 13")));
    assert_eq!(server.status(json!({ "path": "/refused" })), 403);
}

#[test]
fn a_forward_proxy_is_asked_for_one_to_an_http_uri() {
    let (_origin, address) = echo();
    let server = Server::before(&address, "");
    let ask = |target: &str| json!({ "path": "/", "scheme": "http", "authority": target });
    let said = server.run("ws_echo", ask(&address)).all().pop().unwrap();
    assert_eq!(
        (&said["code"], &said["reason"], &said["reset"]),
        (&json!(4321), &json!("done"), &Value::Null)
    );
    let line = server.0.proxy.access_line(|line| line["route"] == "tunnels");
    assert_eq!((&line["status"], &line["endpoint"]), (&200.into(), &address.as_str().into()), "{line}");
    assert_eq!(server.status(ask("127.0.0.1:1")), 403, "it is not listed");
}

#[test]
fn many_tunnels_share_a_connection_with_requests() {
    let (_origin, server) = Server::echoing();
    assert_eq!(server.said("ws_many", "/ws"), json!({ "tunnels": 50, "status": 200 }));
}

#[test]
fn the_chain_holds_and_only_an_upstream_opens_a_tunnel() {
    let (_origin, server) = Server::echoing();
    assert_eq!(server.status(json!({ "path": "/key" })), 401);
    let fields = json!([["x-api-key", "secret-of-mine"]]);
    assert_eq!(server.status(json!({ "path": "/key", "fields": fields })), 200);
    assert_eq!(server.status(json!({ "path": "/post" })), 405);
    assert_eq!(server.status(json!({ "path": "/here" })), 501);
    assert_eq!(server.status(json!({ "path": "/udp", "protocol": "connect-udp" })), 501);
    for path in ["/here", "/udp"] {
        assert_eq!(server.0.proxy.access_line_of(path)["reason"], "unsupported_protocol", "{path}");
    }
}

#[test]
fn a_length_beside_connect_is_none_of_a_tunnel() {
    let (_origin, server) = Server::echoing();
    let fields = json!([["content-length", "3"]]);
    let said = server.run("ws_echo", json!({ "path": "/ws", "fields": fields })).next();
    assert_eq!(said["code"], 4321);
}

#[test]
fn silence_and_time_end_a_tunnel() {
    let (_origin, server) = Server::echoing();
    for (path, reason) in [("/idle", "tunnel_idle"), ("/total", "total_timeout")] {
        assert_eq!(server.said("ws_held", path)["reset"], REQUEST_CANCELLED, "{path}");
        let line = server.0.proxy.access_line_of(path);
        assert_eq!((&line["reason"], &line["status"]), (&reason.into(), &200.into()), "{line}");
    }
}

#[test]
fn a_client_that_goes_takes_its_tunnel_along() {
    let (_origin, server) = Server::echoing();
    assert_eq!(server.said("ws_given_up", "/ws")["done"], true);
    assert_eq!(server.0.proxy.access_line_of("/ws")["reason"], "client_gone");
}

#[test]
fn nothing_but_data_means_anything_in_a_tunnel() {
    let (_origin, server) = Server::echoing();
    assert_eq!(server.said("ws_trailers", "/ws")["code"], FRAME_UNEXPECTED);
}

#[test]
fn a_drain_ends_tunnels_when_its_time_is_up() {
    let (_origin, mut server) = Server::echoing();
    let mut held = server.run("ws_held", json!({ "path": "/ws" }));
    assert_eq!(held.next()["open"], true);
    server.0.proxy.signal("TERM");
    assert!(server.0.proxy.ended().success());
    assert_eq!(held.next(), json!({ "reset": null, "failed": null }));
}

#[test]
fn connect_opens_a_tunnel_to_a_listed_target() {
    let origin = Origin::saying("reached");
    let server = Server::before(&origin.address(), "");
    let text = "GET /h3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let target = origin.address().to_string();
    let said = server.run("tunnel", json!({ "target": target, "text": text })).next();
    assert_eq!((&said["status"], &said["reset"]), (&json!(200), &Value::Null), "{said}");
    assert!(said["text"].as_str().unwrap().ends_with("reached"), "{said}");
    let line = server.0.proxy.access_line(|line| line["method"] == "CONNECT");
    assert_eq!((&line["protocol"], &line["status"]), (&"HTTP/3".into(), &200.into()), "{line}");
    let refused = server.run("tunnel", json!({ "target": "127.0.0.1:1", "text": "" })).next();
    assert_eq!(refused["status"], 403, "{refused}");
}

#[test]
fn a_client_that_gives_up_an_upload_nobody_takes_is_noticed() {
    for how in ["reset", "close"] {
        // It takes connections and reads nothing of them.
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = target.local_addr().unwrap().to_string();
        let server = Server::before(&address, "");
        let mut client = server.run("upload", json!({ "target": address, "how": how }));
        assert_eq!(client.next()["gone"], true);
        is_gone_at_once(&server.0.proxy);
    }
}
