//! A browser that does what pages do (support/browser.html), over HTTP/3 and over HTTP/2.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{
    support::{Certificates, Origin, Proxy, Reply, Tree, browse, config, until},
    websocket::echo,
};

const YAML: &str = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners: { secure: { bind: "127.0.0.1:0", protocols: PROTOCOLS, tls: { certificates: [web] } } }
upstreams:
  origin: { endpoints: ["ORIGIN"] }
  sockets: { endpoints: ["SOCKETS"] }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      page:
        path: /
        middleware: [{ early_hints: { links: ["</hinted>; rel=preload; as=style"] } }]
        proxy: { upstream: origin }
      socket: { path: /socket, proxy: { upstream: sockets } }
      here: { path: /here, respond: { body: here } }
      moved: { path: /moved, redirect: { to: /here } }
      zipped:
        path: /zipped
        middleware: [{ compress: { min_size: 1B } }]
        respond: { body: "TEXT", headers: { Content-Type: text/plain } }
"#;

const LARGE: usize = 10_000_000;

fn large() -> Vec<u8> {
    (0..LARGE as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// What the page asks for. The page itself comes when the browser has asked for what it was hinted at.
fn origin() -> Origin {
    let (large, hinted) = (large(), AtomicBool::new(false));
    Origin::serving(move |exchange| {
        let path = exchange.request.start.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
        let (kind, body) = match path.as_str() {
            "/" => {
                until("the hint is taken", || hinted.load(Ordering::Acquire));
                ("text/html", include_bytes!("support/browser.html").to_vec())
            }
            "/large" => ("application/octet-stream", large.clone()),
            "/back" => ("application/octet-stream", exchange.request.body.clone()),
            "/echo" => ("text/plain", exchange.request.raw.clone()),
            "/hinted" => {
                hinted.store(true, Ordering::Release);
                ("text/css", Vec::new())
            }
            "/events" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
                exchange.send(format!("{head}data: one\n\n"));
                exchange.send("data: two\n\n");
                exchange.read_to_end();
                return Reply::Close;
            }
            "/held" => {
                exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nsome");
                exchange.read_to_end();
                return Reply::Close;
            }
            _ => {
                exchange.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
                return Reply::Keep;
            }
        };
        let length = body.len();
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"));
        exchange.send(body);
        Reply::Keep
    })
}

/// What the browser has of the page, and the proxy that it came by.
fn browsed(protocols: &str, origin: &Origin, arguments: impl Fn(u16) -> Vec<String>) -> (Value, Proxy) {
    let (_sockets, sockets) = echo();
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["localhost"]);
    let certificate = certificates.file("web.pem");
    let words: [(&str, &dyn std::fmt::Display); 4] = [
        ("ORIGIN", &origin.address()),
        ("SOCKETS", &sockets),
        ("PROTOCOLS", &protocols),
        ("TEXT", &"text ".repeat(1000)),
    ];
    let proxy = Proxy::start_in(tree, &config(YAML, &words));
    let port = proxy.port("secure");
    let arguments = arguments(port);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let run = browse(port, "/", &certificate, &arguments);
    let said = run.stdout.split_once(r#"<pre id="said">"#).and_then(|(_, rest)| rest.split_once("</pre>"));
    let said = said.and_then(|(said, _)| serde_json::from_str(said).ok());
    (said.unwrap_or_else(|| panic!("the page has not run: {run:?}")), proxy)
}

fn expected(protocol: &str) -> Value {
    let digest = ring::digest::digest(&ring::digest::SHA256, &large());
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "get": "GET /echo?a=b HTTP/1.1",
        "post": "hello",
        "sends": true,
        "streams": true,
        "receives": digest,
        "many": 150,
        "compressed": true,
        "moved": "here",
        "missing": 404,
        "events": "one two",
        "aborted": "AbortError",
        "socket": "hello true 4321 done true",
        "protocols": protocol,
        "hinted": true,
    })
}

/// All that the page asked for came by one protocol, but for its WebSocket, whose line of the access log this is.
#[track_caller]
fn came_by(proxy: &Proxy, protocol: &str) -> Value {
    assert_eq!(proxy.access_line_of("/held")["reason"], "client_gone");
    let socket = proxy.access_line_of("/socket");
    let log = proxy.access_log();
    let others = log.iter().filter(|line| line["path"] != "/socket");
    let wrong: Vec<_> = others.filter(|line| line["protocol"] != protocol).collect();
    assert!(wrong.is_empty() && log.len() > 160, "{wrong:?} of {}", log.len());
    socket
}

fn connections(proxy: &Proxy, protocol: &str) -> Option<f64> {
    let series = format!("portolan_connections_total{{listener=\"secure\",protocol=\"{protocol}\"}}");
    proxy.metric(&series)
}

#[test]
fn a_page_does_all_over_http_3() {
    let origin = origin();
    // Without this a browser takes QUIC only from certificates of authorities that it came with.
    let forced = |port| vec![format!("--origin-to-force-quic-on=localhost:{port}")];
    let (said, proxy) = browsed("[h1, h2, h3]", &origin, forced);
    assert_eq!(said, expected("h3"));
    until("given-up requests reach the origin", || origin.closed() >= 2);
    // Browsers open no WebSocket over HTTP/3.
    assert_eq!(came_by(&proxy, "HTTP/3")["protocol"], "HTTP/1.1");
    assert_eq!(connections(&proxy, "h3"), Some(1.0));
}

#[test]
fn a_page_does_all_over_http_2() {
    let origin = origin();
    let (said, proxy) = browsed("[h1, h2]", &origin, |_| Vec::new());
    assert_eq!(said, expected("h2"));
    until("given-up requests reach the origin", || origin.closed() >= 2);
    let socket = came_by(&proxy, "HTTP/2");
    assert_eq!((&socket["protocol"], &socket["status"]), (&"HTTP/2".into(), &200.into()), "{socket}");
}
