//! Limits and deadlines: what is too slow, too large or too much is cut, and nobody else suffers.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use super::support::{Client, Origin, Proxy, Reply, config, eventually, until};

fn with(keys: &str, origin: &Origin) -> Proxy {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0", KEYS } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    Proxy::start(&config(yaml, &[("KEYS", &keys), ("ORIGIN", &origin.address())]))
}

/// Sends a byte now and then until the proxy has enough, and says how long that took.
fn trickle(client: &mut Client, bytes: &[u8]) -> Duration {
    let start = Instant::now();
    client.patience(Duration::from_millis(100));
    let mut bytes = bytes.iter().cycle();
    eventually("the proxy cuts the trickle", || {
        let byte = bytes.next().expect("it goes round");
        // A closed connection takes a few bytes before it says so; a response in between is an answer too.
        let sent = client.try_send([*byte]);
        (sent.is_err() || client.is_closed()).then_some(())
    });
    start.elapsed()
}

#[test]
fn a_header_that_trickles_is_cut_while_others_are_served() {
    let origin = Origin::saying("ok");
    let proxy = with("timeouts: { header: 1s }", &origin);
    let mut slow = proxy.client();
    slow.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    let others = std::thread::spawn({
        let port = proxy.port("web");
        move || (0..100).all(|_| Client::tcp(port).get("/").status == 200)
    });
    let took = trickle(&mut slow, b"a");
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(others.join().unwrap());
    assert_eq!(proxy.access_line(|line| line["status"] == 408)["reason"], "header_timeout");
}

#[test]
fn a_header_deadline_holds_for_the_second_request_too() {
    let origin = Origin::saying("ok");
    let proxy = with("timeouts: { header: 1s }", &origin);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    let took = trickle(&mut client, b"a");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn a_body_that_stands_still_is_cut() {
    let origin = Origin::serving_early(|exchange| {
        exchange.read_to_end();
        Reply::Close
    });
    let proxy = with("timeouts: { body_idle: 500ms }", &origin);
    let mut client = proxy.client();
    client.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome");
    let response = client.response();
    assert_eq!(response.status, 408);
    assert!(client.is_closed());
    assert_eq!(proxy.access_line_of("/slow")["reason"], "body_timeout");
}

#[test]
fn an_idle_connection_is_closed() {
    let origin = Origin::saying("ok");
    let proxy = with("timeouts: { idle: 500ms, header: 500ms }", &origin);
    let mut silent = proxy.client();
    let mut used = proxy.client();
    assert_eq!(used.get("/").status, 200);
    assert!(used.is_closed(), "after a request");
    assert!(silent.is_closed(), "before any");
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        while exchange.try_send(&piece).is_ok() {}
        Reply::Close
    });
    let proxy = with("timeouts: { write_idle: 500ms }", &origin);
    let mut client = proxy.client();
    client.send("GET /unread HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(proxy.access_line_of("/unread")["reason"], "client_too_slow");
}

#[test]
fn requests_of_a_connection_are_counted() {
    let origin = Origin::saying("ok");
    let proxy = with("limits: { requests_per_connection: 3 }", &origin);
    let mut client = proxy.client();
    client.get("/");
    client.get("/");
    assert_eq!(client.get("/").field("connection"), Some("close"));
    assert!(client.is_closed());
}

#[test]
fn sizes_of_a_head_are_limited() {
    let origin = Origin::saying("ok");
    let proxy = with("limits: { header_size: 2KiB, headers: 10, uri: 100B }", &origin);
    let ask = |text: &str| proxy.client().send(text).response().status;
    assert_eq!(ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    assert_eq!(ask(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(100))), 414);
    assert_eq!(ask(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "a".repeat(3000))), 431);
    assert_eq!(ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-A: b\r\n".repeat(10))), 431);
    let line = proxy.access_line(|line| line["status"] == 431);
    assert_eq!(line["reason"], "header_too_large");
}

#[test]
fn connections_are_limited_and_freed() {
    let origin = Origin::saying("ok");
    let proxy = with("limits: { connections: 4 }", &origin);
    let mut held: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    assert!(held.iter_mut().all(|client| client.get("/").status == 200));
    assert!(!is_served(&proxy), "a fifth");
    held.pop();
    until("a place is free again", || is_served(&proxy));
}

#[test]
fn connections_of_one_address_are_limited() {
    let origin = Origin::saying("ok");
    let proxy = with("limits: { connections_per_ip: 2 }", &origin);
    let mut held: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    assert!(held.iter_mut().all(|client| client.get("/").status == 200));
    assert!(!is_served(&proxy), "a third");
    drop(held);
    until("a place is free again", || is_served(&proxy));
}

#[test]
fn a_thousand_silent_connections_hinder_nobody() {
    let origin = Origin::saying("ok");
    let proxy = with("timeouts: { header: 20s, idle: 20s }", &origin);
    let port = proxy.port("web");
    let before = proxy.resident();
    let silent: Vec<TcpStream> = (0..500).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let mut client = proxy.client();
    assert!((0..100).all(|_| client.get("/").status == 200));
    let each = (proxy.resident() - before.min(proxy.resident())) / silent.len() as u64;
    assert!(each < 64 * 1024, "{each} bytes for a silent connection");
}

/// Whether a new connection gets an answer of the origin's, and soon.
fn is_served(proxy: &Proxy) -> bool {
    let mut client = Client::tcp(proxy.port("web"));
    client.patience(Duration::from_millis(500));
    let asked = client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    asked.is_ok() && client.try_response_to("GET").is_ok_and(|response| response.status == 200)
}
