//! Health checks by gRPC: against a server that gRPC's own library runs, and against origins that answer anything.

use serde_json::json;

use super::support::{
    Certificates, H2Origin, Origin, Proxy, Python, Told, Tree, config, curl, eventually, until,
};

/// grpcio with its health service.
struct HealthServer {
    _python: Python,
    port: String,
    control: String,
}

impl HealthServer {
    fn start(arguments: &[&str]) -> Self {
        let mut python = Python::run(include_str!("support/grpc_health.py"), arguments);
        let (port, control) = (python.line(), python.line());
        Self { _python: python, port, control }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sets the status of a service; "-" is the whole server.
    fn set(&self, service: &str, status: &str) {
        let url = format!("http://127.0.0.1:{}/{service}/{status}", self.control);
        assert_eq!(curl(&["-f", &url]).code, 0, "{url}");
    }
}

const YAML: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams:
  app: { endpoints: ["ENDPOINT"], health: { grpc: { SERVICE }, interval: 50ms, timeout: 5s, unhealthy_after: 1, healthy_after: 1 }, UPSTREAM }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: app } } } } }
"#;

fn written(endpoint: &str, service: &str, upstream: &str) -> String {
    config(YAML, &[("ENDPOINT", &endpoint), ("SERVICE", &service), ("UPSTREAM", &upstream)])
}

/// Whether the endpoint is healthy, and why its last check failed.
fn health(proxy: &Proxy) -> (bool, Option<String>) {
    let endpoint = &proxy.status()["upstreams"][0]["endpoints"][0];
    (endpoint["healthy"] == json!(true), endpoint["check_failure"].as_str().map(str::to_owned))
}

/// Why the endpoint is unhealthy, once it is.
#[track_caller]
fn unhealthy(proxy: &Proxy) -> String {
    eventually("it is unhealthy", || match health(proxy) {
        (false, reason) => reason,
        _ => None,
    })
}

#[test]
fn a_service_is_healthy_while_it_serves() {
    let server = HealthServer::start(&[]);
    server.set("shop.v1.Orders", "SERVING");
    let proxy = Proxy::start(&written(&server.address(), "service: shop.v1.Orders", "protocol: h2c"));
    for status in ["NOT_SERVING", "UNKNOWN", "SERVICE_UNKNOWN"] {
        server.set("shop.v1.Orders", status);
        assert_eq!(unhealthy(&proxy), status);
        assert_eq!(proxy.client().get("/").status, 503);
        assert!(proxy.log().contains(status), "{}", proxy.log());
        server.set("shop.v1.Orders", "SERVING");
        until("it is healthy", || health(&proxy) == (true, None));
    }
}

#[test]
fn a_service_that_the_server_does_not_know_is_unhealthy_and_the_whole_server_is_the_default() {
    let server = HealthServer::start(&[]);
    let unknown = Proxy::start(&written(&server.address(), "service: nobody", "protocol: h2c"));
    let reason = unhealthy(&unknown);
    assert!(reason.starts_with("grpc-status NOT_FOUND (5)"), "{reason}");
    let whole = Proxy::start(&written(&server.address(), "", "protocol: h2c"));
    server.set("-", "NOT_SERVING");
    assert_eq!(unhealthy(&whole), "NOT_SERVING");
    server.set("-", "SERVING");
    until("it is healthy", || health(&whole) == (true, None));
}

#[test]
fn over_tls_it_is_asked_by_http2_alone() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("app", &["app.internal"]);
    let server = HealthServer::start(&[&certificates.file("app.pem"), &certificates.file("app.key")]);
    for protocol in ["h2", "auto"] {
        server.set("-", "NOT_SERVING");
        let tls =
            format!("protocol: {protocol}, tls: {{ server_name: app.internal, ca: {} }}", certificates.ca());
        let proxy = Proxy::start(&written(&server.address(), "", &tls));
        assert_eq!(unhealthy(&proxy), "NOT_SERVING", "{protocol}");
        server.set("-", "SERVING");
        until("it is healthy", || health(&proxy) == (true, None));
    }
}

#[test]
fn an_answer_that_is_not_serving_is_unhealthy_whatever_it_is() {
    const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc")];
    const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";
    const OK: &[(&str, &str)] = &[("grpc-status", "0")];
    const LONG: &[u8] = &[0; 8192];
    let grpc = Told { status: 200, head: GRPC, body: Some(SERVING), trailers: Some(OK) };
    for (told, reason) in [
        (Told { status: 503, ..grpc }, "status 503"),
        (Told { head: &[("content-type", "text/html")], ..grpc }, "the response is not gRPC"),
        (Told { trailers: None, ..grpc }, "the response has no grpc-status"),
        (Told { trailers: Some(&[("grpc-status", "13")]), ..grpc }, "grpc-status INTERNAL (13)"),
        (Told { trailers: Some(&[("grpc-status", "x")]), ..grpc }, "grpc-status UNKNOWN (2)"),
        (Told { body: None, ..grpc }, "the response has no message"),
        (Told { body: Some(b"\x01\0\0\0\0"), ..grpc }, "the response's message is compressed"),
        (Told { body: Some(b"\0\0\0\0\x09\x08\x01"), ..grpc }, "the response is not one complete message"),
        (Told { body: Some(b"\0\0\0\0\x01\x08"), ..grpc }, "the response's message cannot be decoded"),
        (Told { body: Some(b"\0\0\0\0\x02\x08\x09"), ..grpc }, "serving status 9"),
        (Told { body: Some(LONG), ..grpc }, "the response body is longer than 4096 bytes"),
    ] {
        let origin = H2Origin::answering(told);
        let proxy = Proxy::start(&written(&origin.address(), "", "protocol: h2c"));
        let got = unhealthy(&proxy);
        assert!(got.starts_with(reason), "{got} is not {reason}");
    }
    let in_head =
        &[("content-type", "application/grpc"), ("grpc-status", "12"), ("grpc-message", "no health here")];
    let origin = H2Origin::answering(Told { status: 200, head: in_head, ..Told::default() });
    let proxy = Proxy::start(&written(&origin.address(), "", "protocol: h2c"));
    assert_eq!(unhealthy(&proxy), "grpc-status UNIMPLEMENTED (12): no health here");
    let well = H2Origin::answering(grpc);
    let proxy = Proxy::start(&written(&well.address(), "", "protocol: h2c"));
    assert_eq!(health(&proxy), (true, None));
    // What speaks no HTTP/2 is unhealthy as well.
    let http1 = Origin::saying("hello");
    let proxy = Proxy::start(&written(&http1.address().to_string(), "", "protocol: h2c"));
    assert!(!unhealthy(&proxy).is_empty());
}
