//! HTTP/2 over TLS and in the clear, by curl and h2load.

use super::support::{
    Certificates, Client, H2Origin, Nginx, Origin, Proxy, Secure, Tree, config, curl, h2load, to, until,
};

const SECURE: &str = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners:
  web: { bind: "127.0.0.1:0", timeouts: { body_idle: 500ms } }
  secure: { bind: "127.0.0.1:0", tls: { certificates: [web] }, timeouts: { body_idle: 500ms } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      only-get: { path: /get, methods: [GET], proxy: { upstream: origin } }
"#;

fn before(origin: &dyn std::fmt::Display) -> Secure {
    Secure::start(&config(SECURE, &[("ORIGIN", origin)]))
}

#[test]
fn http1_is_told_over_tls_and_closed_in_the_clear_where_only_http2_is_spoken() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["localhost"]);
    let proxy = Proxy::start_in(
        tree,
        r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners:
  web: { bind: "127.0.0.1:0", protocols: [h2c] }
  secure: { bind: "127.0.0.1:0", protocols: [h2], tls: { certificates: [web] } }
defaults: { middleware: [{ response_headers: { set: { X-Chain: passed } } }] }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: ok } } } } }
"#,
    );
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    for other in [request, "PRI * HTTP/1.1\r\n\r\n", "\u{16}\u{3}\u{1}", "PROXY UNKNOWN\r\n"] {
        assert_eq!(proxy.client().send(other).read_to_end(), b"", "{other:?} is answered");
    }
    let mut client = Client::tls(proxy.port("secure"), "localhost", certificates.client(&[])).unwrap();
    let answer = client.send(request).response();
    assert_eq!((answer.status, answer.field("x-chain")), (505, Some("passed")));
    assert!(answer.field("proxy-status").unwrap().contains("http_request_error"), "{answer:?}");
    assert!(client.is_closed());
    let line = proxy.access_line(|line| line["listener"] == "secure");
    assert_eq!((&line["status"], &line["reason"]), (&505.into(), &"unsupported_version".into()), "{line}");
    assert!(proxy.access_log().iter().all(|line| line["listener"] == "secure"));
    until("it is counted", || {
        let text = proxy.metrics();
        let mut counts = text.lines().filter(|line| line.starts_with("portolan_requests_total{"));
        counts
            .any(|line| line.contains("listener=\"secure\"") && line.contains("5xx") && line.ends_with(" 1"))
    });
    assert_eq!(curl(&["--http2-prior-knowledge", &proxy.url("web", "/")]).stdout, "ok");
}

#[test]
fn requests_of_every_kind_pass() {
    let origin = Origin::echoing();
    let secure = before(&origin.address());
    assert!(secure.curl("/a?b=c", &[]).starts_with("GET /a?b=c HTTP/1.1\r\n"));
    assert!(secure.curl("/p", &["-d", "hello"]).ends_with("\r\n\r\nhello"));
    assert!(secure.curl("/h", &["--head"]).starts_with("HTTP/2 200"));
    assert_eq!(secure.curl("/", &["-o", "/dev/null", "-w", "%{http_version} %{http_code}"]), "2 200");
    assert_eq!(secure.curl("/get", &["-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}"]), "405");
    let request = &origin.requests()[0];
    assert_eq!(request.field("host"), Some(format!("localhost:{}", secure.proxy.port("secure")).as_str()));
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    assert!(request.field("via").unwrap().starts_with("2"), "the client's protocol in Via");
}

#[test]
fn a_large_body_passes() {
    let origin = Origin::echoing();
    let secure = before(&origin.address());
    let file = secure.proxy.tree().write("body", "x".repeat(300_000));
    let text = secure.curl("/p", &["--data-binary", &format!("@{}", file.display())]);
    assert!(text.len() > 300_000, "{}", text.len());
}

#[test]
fn many_streams_of_one_connection_are_served() {
    let nginx = Nginx::saying("hello");
    let secure = before(&nginx.address());
    let url = format!("https://127.0.0.1:{}/", secure.proxy.port("secure"));
    let load = h2load(&["-n", "5000", "-c", "4", "-m", "50", &url]);
    assert_eq!((load.succeeded, load.failed), (5000, 0), "{}", load.report);
}

#[test]
fn prior_knowledge_in_the_clear_stands_beside_http_1() {
    let nginx = Nginx::saying("hello");
    let proxy = Proxy::start(&to(&[&nginx.address()]));
    let url = proxy.url("web", "/");
    let run = curl(&["--http2-prior-knowledge", &url, "-w", " %{http_version}"]);
    assert_eq!(run.stdout, "hello 2", "{run:?}");
    let run = curl(&["--http1.1", &url, "-w", " %{http_version}"]);
    assert_eq!(run.stdout, "hello 1.1", "{run:?}");
    let load = h2load(&["-n", "2000", "-c", "4", "-m", "20", &url]);
    assert_eq!((load.succeeded, load.failed), (2000, 0), "{}", load.report);
}

#[test]
fn a_listener_of_http_1_alone_takes_no_preface() {
    let yaml = to(&[&"127.0.0.1:1"]).replace("\"127.0.0.1:0\"", "\"127.0.0.1:0\", protocols: [h1]");
    let proxy = Proxy::start(&yaml);
    let run = curl(&["--http2-prior-knowledge", &proxy.url("web", "/")]);
    assert_ne!(run.code, 0, "{run:?}");
}

#[test]
fn bodies_are_not_read_faster_than_they_are_taken() {
    let nginx = Nginx::serving("location / { try_files $uri =404; }");
    nginx.tree().write("root/large", vec![b'x'; 50_000_000]);
    let secure = before(&nginx.address());
    let sizes = secure.curl("/large", &["-o", "/dev/null", "-w", "%{size_download}", "--limit-rate", "20M"]);
    assert_eq!(sizes, "50000000");
}

#[test]
fn trailers_reach_the_client() {
    let origin = H2Origin::with_trailers();
    let h2c = SECURE.replace("endpoints:", "protocol: h2c, endpoints:");
    let secure = Secure::start(&config(&h2c, &[("ORIGIN", &origin.address())]));
    let headers = secure.proxy.tree().path("headers");
    let text = secure.curl("/file", &["-H", "TE: trailers", "-D", &headers.to_string_lossy()]);
    assert_eq!(text, "abc");
    let seen = secure.proxy.tree().read("headers").to_lowercase();
    assert!(seen.contains("x-sum: 42"), "{seen}");
}

#[test]
fn a_cancelled_stream_ends_the_exchange_with_the_origin() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        exchange.read_to_end();
        super::support::Reply::Close
    });
    let secure = before(&origin.address());
    let url = format!("https://localhost:{}/", secure.proxy.port("secure"));
    let run = curl(&["--http2", "--cacert", &secure.ca, "--max-time", "1", &url]);
    assert_eq!(run.code, 28, "curl gave up: {run:?}");
    until("the origin's connection is closed", || origin.closed() > 0);
}
