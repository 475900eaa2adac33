//! Clients that take nothing of a response: once they are given up, nothing of their connections stays in the kernel.

use std::{fs, io, time::Duration};

use super::support::{
    Certificates, Client, Frames, Nginx, Proxy, Tree, config,
    frames::{END_HEADERS, END_STREAM, HEADERS, SETTINGS, WINDOW_UPDATE, request},
    until,
};

const YAML: &str = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners:
  web: { bind: "127.0.0.1:0", protocols: [h1, h2c], timeouts: { write_idle: 1s, idle: 1s } }
  secure: { bind: "127.0.0.1:0", tls: { certificates: [web] }, timeouts: { write_idle: 1s, idle: 1s } }
drain_timeout: 1s
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;

struct Slow {
    proxy: Proxy,
    certificates: Certificates,
    _nginx: Nginx,
}

fn start() -> Slow {
    let nginx = Nginx::serving("location / { }");
    nginx.tree().write("root/large", vec![b'x'; 64 << 20]);
    nginx.tree().write("root/medium", vec![b'x'; 600_000]);
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["localhost"]);
    let proxy = Proxy::start_in(tree, &config(YAML, &[("ORIGIN", &nginx.address())]));
    Slow { proxy, certificates, _nginx: nginx }
}

const GET: &str = "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Connections of a port, on the proxy's side, that the kernel keeps after they were closed.
fn left(port: u16) -> usize {
    // FIN-WAIT-1 and CLOSING.
    const STATES: [&str; 2] = ["04", "0B"];
    let text = fs::read_to_string("/proc/net/tcp").expect("connections are listed");
    let local = format!(":{port:04X}");
    let is_left = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let (from, state) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        from.ends_with(&local) && STATES.contains(&state)
    };
    text.lines().filter(is_left).count()
}

/// Connections of a port that are open.
fn open(port: u16) -> usize {
    let text = fs::read_to_string("/proc/net/tcp").expect("connections are listed");
    let local = format!(":{port:04X}");
    let is_open = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|from| from.ends_with(&local)) && words.nth(1) == Some("01")
    };
    text.lines().filter(is_open).count()
}

#[track_caller]
fn check_reset(slow: &Slow, listener: &str, client: &mut Client) {
    let line = slow.proxy.access_line_of("/large");
    assert_eq!(line["reason"], "client_too_slow", "{line}");
    until("it is closed", || open(slow.proxy.port(listener)) == 0);
    assert_eq!(left(slow.proxy.port(listener)), 0, "the kernel keeps what was not taken");
    let error = client.read_whole().expect_err("it does not end as if it were whole");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

#[test]
fn over_http_1_they_are_reset() {
    let slow = start();
    let mut client = slow.proxy.client();
    client.send(GET);
    check_reset(&slow, "web", &mut client);
}

#[test]
fn over_tls_they_are_reset() {
    let slow = start();
    let config = slow.certificates.client(&["http/1.1"]);
    let mut client = Client::tls(slow.proxy.port("secure"), "localhost", config).unwrap();
    client.send(GET);
    check_reset(&slow, "secure", &mut client);
}

#[test]
fn over_http_2_they_are_reset() {
    let slow = start();
    let port = slow.proxy.port("web");
    let mut frames = Frames::connect(port, &[]);
    // Windows that never fill: the socket does.
    frames.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    frames.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0xf0, 0, 0]);
    frames.send(HEADERS, END_STREAM | END_HEADERS, 1, &request("GET", "/large"));
    slow.proxy.access_line_of("/large");
    until("it is closed", || open(port) == 0);
    assert_eq!(left(port), 0, "the kernel keeps what was not taken");
    let ended = std::iter::from_fn(|| Some(frames.try_receive())).find_map(Result::err).unwrap();
    assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset, "{ended}");
}

#[test]
fn cut_by_the_end_of_a_drain_they_are_reset() {
    let mut slow = start();
    let port = slow.proxy.port("web");
    let mut client = slow.proxy.client();
    client.send(GET);
    client.read_exactly(1000);
    slow.proxy.signal("TERM");
    slow.proxy.ended();
    assert_eq!((open(port), left(port)), (0, 0));
    assert!(client.read_whole().is_err());
}

/// All of the response is in the kernel when the connection is closed for being idle.
#[test]
fn what_an_idle_connection_leaves_is_given_up_as_well() {
    let slow = start();
    let port = slow.proxy.port("web");
    let mut client = slow.proxy.client();
    client.patience(Duration::from_secs(20));
    client.send(GET.replace("large", "medium"));
    let line = slow.proxy.access_line_of("/medium");
    assert!(line["reason"].is_null(), "{line}");
    until("it is closed", || open(port) == 0);
    until("the kernel has given it up", || left(port) == 0);
    drop(client);
}
