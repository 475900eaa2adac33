//! Chains: what runs, in which order, and what an inner one replaces.

use super::support::{Nginx, Origin, Proxy, config};

fn with(middleware: &str, origin: &dyn std::fmt::Display) -> Proxy {
    let yaml = r#"
defaults: { middleware: [MIDDLEWARE] }
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      local: { path: /local, respond: { body: here } }
"#;
    Proxy::start(&config(yaml, &[("MIDDLEWARE", &middleware), ("ORIGIN", origin)]))
}

#[test]
fn every_request_gets_an_id_of_its_own() {
    let origin = Origin::saying("");
    let proxy = with("{ request_id: {} }", &origin.address());
    let mut client = proxy.client();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\nX-Request-ID: mine\r\n\r\n");
    let first = client.response().field("x-request-id").expect("an id").to_owned();
    let second = client.get("/b").field("x-request-id").expect("an id").to_owned();
    assert_ne!(first, second);
    assert_ne!(first, "mine", "an id is not trusted unless that is said");
    assert_eq!(origin.requests()[0].field("x-request-id"), Some(first.as_str()), "the origin sees the same");
    assert_eq!(proxy.access_line_of("/a")["request_id"], first.as_str());
}

#[test]
fn a_trusted_id_is_kept() {
    let origin = Origin::saying("");
    let proxy = with("{ request_id: { header: X-Trace, trust: true } }", &origin.address());
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Trace: mine\r\n\r\n");
    assert_eq!(client.response().field("x-trace"), Some("mine"));
    assert_eq!(origin.request().field("x-trace"), Some("mine"));
}

#[test]
fn answers_of_our_own_carry_the_id_too() {
    let nginx = Nginx::saying("hello");
    let proxy = with("{ request_id: {} }", &nginx.address());
    let response = proxy.client().get("/local");
    assert_eq!(response.text(), "here");
    assert!(response.field("x-request-id").is_some());
}

#[test]
fn fields_of_the_request_are_edited() {
    let origin = Origin::saying("");
    let edits = "{ request_headers: { remove: [X-Secret], set: { X-Client: \"{client.ip}\", X-Path: \"{request.path}\" }, add: { X-More: two } } }";
    let proxy = with(edits, &origin.address());
    let mut client = proxy.client();
    client
        .send("GET /p?q=1 HTTP/1.1\r\nHost: a\r\nX-Secret: s\r\nX-Client: fake\r\nX-More: one\r\n\r\n")
        .response();
    let request = origin.request();
    assert_eq!(request.values("x-secret"), [""; 0]);
    assert_eq!(request.field("x-client"), Some("127.0.0.1"));
    assert_eq!(request.field("x-path"), Some("/p"));
    assert_eq!(request.values("x-more"), ["one", "two"]);
}

#[test]
fn fields_of_the_response_are_edited() {
    let origin =
        Origin::replying(b"HTTP/1.1 200 OK\r\nServer: secret/1.0\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n");
    let edits =
        "{ response_headers: { remove: [Server], set: { X-A: \"2\" }, add: { X-B: \"{request.host}\" } } }";
    let proxy = with(edits, &origin.address());
    let response = proxy.client().get("/");
    assert_eq!(response.values("server"), [""; 0]);
    assert_eq!(response.field("x-a"), Some("2"));
    assert_eq!(response.field("x-b"), Some("localhost"));
}

#[test]
fn chains_run_from_the_outside_in_and_add_up() {
    let yaml = r#"
defaults: { middleware: [outer] }
tenants: { acme: { middleware: [{ response_headers: { set: { X-Tenant: acme, X-Last: tenant } } }] } }
middleware:
  outer: [{ response_headers: { set: { X-Default: "1", X-Last: default } } }, { request_id: {} }]
listeners:
  web: { bind: "127.0.0.1:0", middleware: [{ response_headers: { set: { X-Listener: "1" } } }] }
hosts:
  all:
    names: ["*"]
    tenant: acme
    middleware: [{ response_headers: { set: { X-Host: "1" } } }]
    routes:
      inner:
        path: /inner
        respond: { body: ok }
        middleware: [{ response_headers: { set: { X-Route: "1" } } }]
      without: { path: /without, respond: { body: ok }, without: [request_id] }
"#;
    let proxy = Proxy::start(yaml);
    let mut client = proxy.client();
    let inner = client.get("/inner");
    for field in ["x-default", "x-listener", "x-tenant", "x-host", "x-route", "x-request-id"] {
        assert!(inner.field(field).is_some(), "{field} in {:?}", inner.fields);
    }
    let without = client.get("/without");
    assert_eq!(without.values("x-request-id"), [""; 0]);
    assert_eq!(without.field("x-host"), Some("1"));
    let nowhere = client.get("/nowhere");
    assert_eq!(nowhere.status, 404);
    assert_eq!(nowhere.field("x-listener"), Some("1"), "the listener's part runs for every answer");
}

#[test]
fn the_inner_one_of_a_kind_replaces_the_outer() {
    let yaml = r#"
defaults: { middleware: [{ request_id: { header: X-Outer } }] }
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    routes: { all: { path: "/**", respond: { body: ok }, middleware: [{ request_id: { header: X-Inner } }] } }
"#;
    let proxy = Proxy::start(yaml);
    let response = proxy.client().get("/");
    assert!(response.field("x-inner").is_some());
    assert_eq!(response.values("x-outer"), [""; 0]);
}

#[test]
fn malformed_requests_pass_the_listeners_chain() {
    let proxy = Proxy::start(
        r#"
listeners: { web: { bind: "127.0.0.1:0", middleware: [{ response_headers: { set: { X-Listener: "1" } } }] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: ok } } } } }
"#,
    );
    let mut client = proxy.client();
    let response = client.send("GET / HTTP/1.1\r\n\r\n").response();
    assert_eq!((response.status, response.field("x-listener")), (400, Some("1")));
    assert_eq!(proxy.access_line(|line| line["status"] == 400)["reason"], "bad_host");
}

#[test]
fn a_body_past_its_limit_is_refused_before_and_while_it_comes() {
    let origin = Origin::saying("taken");
    let proxy = with("{ body_limit: { size: 1KiB } }, { body_limit: { size: 10B } }", &origin.address());
    let mut client = proxy.client();
    client.send("POST /fits HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789");
    assert_eq!(client.response().text(), "taken");
    client.send("POST /announced HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().status, 413, "before it is asked for");
    assert_eq!(proxy.access_line_of("/announced")["reason"], "body_too_large");
    let mut client = proxy.client();
    client.send("POST /grown HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n");
    client.send("3\r\n890\r\n");
    assert_eq!(client.response().status, 413);
    assert!(client.is_closed(), "what is left of it is not waited for");
    assert_eq!(proxy.access_line_of("/grown")["reason"], "body_too_large");
    assert!(origin.requests().iter().all(|request| !request.raw.ends_with(b"0\r\n\r\n")), "none came whole");
}

#[test]
fn what_only_observes_says_what_it_would_have_refused() {
    let origin = Origin::saying("taken");
    let proxy = with("{ body_limit: { size: 10B, mode: observe } }", &origin.address());
    let mut client = proxy.client();
    client.send("POST /announced HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n01234567890");
    assert_eq!(client.response().text(), "taken");
    client.send(
        "POST /grown HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n",
    );
    assert_eq!(client.response().text(), "taken");
    client.send("POST /fits HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n01");
    assert_eq!(client.response().text(), "taken");
    for path in ["/announced", "/grown"] {
        let line = proxy.access_line_of(path);
        assert_eq!(
            (&line["observed"][0], &line["status"]),
            (&"body_too_large".into(), &200.into()),
            "{line}"
        );
        assert!(line.get("reason").is_none(), "{line}");
    }
    assert!(proxy.access_line_of("/fits").get("observed").is_none());
}
