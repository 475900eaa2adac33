//! What a chain waits for ends with the client's patience, and with the route's.

use std::time::{Duration, Instant};

use super::support::{Held, Origin, Proxy, Tree, config, curl, until};

/// How long a service may take: longer than any test.
const FOREVER: &str = "60s";
/// What is over by then did not wait for the service.
const SOON: Duration = Duration::from_secs(20);

const TREE: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] }, auth: { endpoints: ["AUTH"] } }
middleware:
  guarded: [concurrency: { max: 1 }, forward_auth: { upstream: auth, timeout: FOREVER, public: /free }]
hosts:
  all:
    names: ["*"]
    middleware: [guarded]
    routes: { all: { path: "/**", proxy: { upstream: origin }, TIMEOUTS } }
"#;

fn behind(service: &Held, origin: &Origin, timeouts: &str) -> Proxy {
    let (origin, auth) = (origin.address(), service.origin.address());
    Proxy::start(&config(
        TREE,
        &[("ORIGIN", &origin), ("AUTH", &auth), ("FOREVER", &FOREVER), ("TIMEOUTS", &timeouts)],
    ))
}

fn status(proxy: &Proxy, path: &str) -> u16 {
    proxy.client().get(path).status
}

/// A request that waits for the service, and holds the only place there is.
fn assert_waits(proxy: &Proxy, service: &Held) {
    until("the service is asked", || !service.origin.requests().is_empty());
    until("the place is taken", || status(proxy, "/free") == 503);
}

/// Its place is free, and its end is in the log.
fn assert_over(proxy: &Proxy, path: &str, since: Instant) {
    until("the place is free", || status(proxy, "/free") == 200);
    let line = proxy.access_line_of(path);
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_gone".into()), "{line}");
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}

#[test]
fn a_client_that_goes_ends_the_wait_for_a_service() {
    let (service, origin) = (Held::new(), Origin::saying(""));
    let proxy = behind(&service, &origin, "");
    let silent = service.hold();
    let since = Instant::now();
    let mut client = proxy.client();
    client.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_waits(&proxy, &service);
    drop(client);
    assert_over(&proxy, "/gone", since);
    drop(silent);
    assert_eq!(status(&proxy, "/served"), 200, "others are still asked about");
}

#[test]
fn one_that_resets_its_stream_does_so_too() {
    let (service, origin) = (Held::new(), Origin::saying(""));
    let proxy = behind(&service, &origin, "");
    let _silent = service.hold();
    let since = Instant::now();
    let url = proxy.url("web", "/reset");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| curl(&["--http2-prior-knowledge", "--max-time", "3", &url]));
        assert_waits(&proxy, &service);
        assert_eq!(run.join().unwrap().code, 28, "curl gives up");
    });
    assert_over(&proxy, "/reset", since);
}

#[test]
fn the_routes_deadline_ends_the_wait() {
    let (service, origin) = (Held::new(), Origin::saying(""));
    let proxy = behind(&service, &origin, "timeouts: { total: 300ms }");
    let silent = service.hold();
    let since = Instant::now();
    assert_eq!(status(&proxy, "/late"), 504);
    assert!((Duration::from_millis(300)..SOON).contains(&since.elapsed()), "{:?}", since.elapsed());
    assert_eq!(proxy.access_line_of("/late")["reason"], "total_timeout");
    until("the place is free", || status(&proxy, "/free") == 200);
    drop(silent);
    assert_eq!(status(&proxy, "/served"), 200);
}

#[test]
fn the_deadline_counts_what_came_before_the_body() {
    let origin = Origin::saying("");
    let tree = Tree::new();
    tree.write("any.json", "{}");
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    middleware: [{ buffer: {} }, { validate: { body: any.json } }]
    routes: { all: { path: "/**", proxy: { upstream: origin }, timeouts: { total: 300ms } } }
"#;
    let proxy = Proxy::start_in(tree, &config(yaml, &[("ORIGIN", &origin.address())]));
    let head =
        "POST /PATH HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{";
    let mut stalled = proxy.client();
    stalled.send(head.replace("PATH", "stalled"));
    assert_eq!(stalled.response().status, 408);
    assert_eq!(proxy.access_line_of("/stalled")["reason"], "body_timeout");
    let mut gone = proxy.client();
    gone.send(head.replace("PATH", "gone"));
    drop(gone);
    assert_eq!(proxy.access_line_of("/gone")["reason"], "client_gone");
    let mut whole = proxy.client();
    whole.send(head.replace("PATH", "whole") + "}");
    assert_eq!(whole.response().status, 200);
}

/// A listener that nobody accepts from and whose queue is full: connecting to it takes for ever.
pub struct Unreachable {
    pub address: std::net::SocketAddr,
    _listener: socket2::Socket,
    _waiting: Vec<std::net::TcpStream>,
}

impl Unreachable {
    pub fn new() -> Self {
        // What the library's own calls take for a queue is too long to fill.
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
        let waiting: Vec<_> = std::iter::from_fn(connect).take(64).collect();
        assert!(waiting.len() < 64, "the queue has an end");
        Self { address, _listener: listener, _waiting: waiting }
    }
}

/// Everything but /free goes where nobody accepts.
fn before(unreachable: &Unreachable) -> Proxy {
    Proxy::start(&config(
        r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"], timeouts: { connect: FOREVER }, retry: { retries: 2 } } }
hosts:
  all:
    names: ["*"]
    middleware: [concurrency: { max: 1 }]
    routes: { free: { path: /free, respond: {} }, all: { path: "/**", proxy: { upstream: origin } } }
"#,
        &[("ORIGIN", &unreachable.address), ("FOREVER", &FOREVER)],
    ))
}

fn connecting(proxy: &Proxy, unreachable: &Unreachable) -> Option<f64> {
    let address = unreachable.address;
    proxy.metric(&format!("portolan_endpoint_in_flight{{endpoint=\"{address}\",upstream=\"origin\"}}"))
}

/// A request that waits for its connection.
fn assert_connects(proxy: &Proxy, unreachable: &Unreachable) {
    until("the endpoint is connected to", || connecting(proxy, unreachable) == Some(1.0));
    assert_eq!(status(proxy, "/free"), 503, "the place is taken");
}

/// Its place is free after one attempt, and so is its endpoint.
fn assert_given_up(proxy: &Proxy, unreachable: &Unreachable, path: &str, since: Instant) {
    assert_over(proxy, path, since);
    assert_eq!(proxy.access_line_of(path)["attempts"], 1);
    assert_eq!(connecting(proxy, unreachable), Some(0.0));
}

#[test]
fn a_client_that_goes_while_its_upstream_is_connected_to_ends_that() {
    let unreachable = Unreachable::new();
    let proxy = before(&unreachable);
    // The second asks for trailers, which another connector is for.
    for (path, fields) in [("/plain", ""), ("/trailers", "TE: trailers\r\nConnection: TE\r\n")] {
        let since = Instant::now();
        let mut client = proxy.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_connects(&proxy, &unreachable);
        drop(client);
        assert_given_up(&proxy, &unreachable, path, since);
    }
}

#[test]
fn one_that_goes_in_the_middle_of_its_body_does_so_too() {
    let unreachable = Unreachable::new();
    let proxy = before(&unreachable);
    let since = Instant::now();
    let mut client = proxy.client();
    client.send("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_connects(&proxy, &unreachable);
    client.send(" of it");
    drop(client);
    assert_given_up(&proxy, &unreachable, "/body", since);
}

#[test]
fn one_that_resets_its_stream_while_its_upstream_is_connected_to_does_so_too() {
    let unreachable = Unreachable::new();
    let proxy = before(&unreachable);
    let since = Instant::now();
    let url = proxy.url("web", "/reset");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| curl(&["--http2-prior-knowledge", "--max-time", "3", &url]));
        assert_connects(&proxy, &unreachable);
        assert_eq!(run.join().unwrap().code, 28, "curl gives up");
    });
    assert_given_up(&proxy, &unreachable, "/reset", since);
}
