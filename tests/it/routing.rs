//! Which host, which route, and what is said where there is none.

use super::support::{Client, Proxy, Response};

const HOSTS: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" }, other: { bind: "127.0.0.1:0" } }
hosts:
  exact: { names: [www.example.com], routes: { all: { path: "/**", respond: { body: exact } } } }
  deep: { names: ["*.deep.example.com"], routes: { all: { path: "/**", respond: { body: deep } } } }
  wild: { names: ["*.example.com"], routes: { all: { path: "/**", respond: { body: wild } } } }
  here: { names: [same.example], listeners: [web], routes: { all: { path: "/**", respond: { body: web } } } }
  there: { names: [same.example], listeners: [other], routes: { all: { path: "/**", respond: { body: other } } } }
  rest: { names: ["*"], listeners: [web], routes: { all: { path: "/**", respond: { body: rest } } } }
"#;

#[test]
fn the_most_specific_host_answers() {
    let proxy = Proxy::start(HOSTS);
    let mut client = proxy.client();
    for (host, expected) in [
        ("www.example.com", "exact"),
        ("WWW.Example.COM", "exact"),
        ("www.example.com.", "exact"),
        ("www.example.com:8443", "exact"),
        ("a.example.com", "wild"),
        ("a.b.example.com", "wild"),
        ("a.deep.example.com", "deep"),
        ("deep.example.com", "wild"),
        ("example.com", "rest"),
        ("same.example", "web"),
        ("127.0.0.1", "rest"),
        ("[::1]:80", "rest"),
    ] {
        assert_eq!(ask(&mut client, "GET", host, "/", "").text(), expected, "{host}");
    }
    let mut client = Client::tcp(proxy.port("other"));
    assert_eq!(ask(&mut client, "GET", "same.example", "/", "").text(), "other");
    assert_eq!(ask(&mut client, "GET", "nobody.example", "/", "").status, 404);
    assert_eq!(proxy.access_line(|line| line["status"] == 404)["reason"], "no_host");
}

const PATHS: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    routes:
      literal: { path: /a/b, respond: { body: literal } }
      param: { path: "/a/{x}", respond: { body: param } }
      tail: { path: "/a/**", respond: { body: tail } }
      list: { path: [/one, "/two/{x}"], respond: { body: list } }
      regex: { path: { regex: '^/v(?<major>[0-9]+)/' }, priority: 10, respond: { body: regex } }
      late: { path: { regex: '^/late' }, priority: -1, respond: { body: late } }
      early: { path: "/late/pattern", respond: { body: pattern } }
      under: { path: "/v1/x", respond: { body: under } }
      get: { path: /m, methods: [GET], respond: { body: get } }
      post: { path: /m, methods: [POST], respond: { body: post } }
      header: { path: /c, headers: { X-Beta: 1 }, respond: { body: header } }
      cookie: { path: /c, cookies: { beta: { present: true } }, priority: 1, respond: { body: cookie } }
      query: { path: /c, query: { beta: { regex: '^[0-9]+$' } }, priority: 2, respond: { body: query } }
      plain: { path: /c, respond: { body: plain } }
      both: { path: /c, headers: { X-Beta: 1 }, query: { beta: yes }, respond: { body: both } }
      inside: { path: /ip, client_ip: 10.0.0.0/8, respond: { body: inside } }
      outside: { path: /ip, respond: { body: outside } }
      only: { path: /only, client_ip: 10.0.0.0/8, respond: { body: only } }
"#;

#[test]
fn the_most_specific_path_answers() {
    let proxy = Proxy::start(PATHS);
    let mut client = proxy.client();
    for (path, expected) in [
        ("/a/b", "literal"),
        ("/a/c", "param"),
        ("/a/b/c", "tail"),
        ("/a", "tail"),
        ("/one", "list"),
        ("/two/x", "list"),
        ("/v1/x", "regex"),
        ("/late/pattern", "pattern"),
        ("/late/else", "late"),
        ("/c", "plain"),
        ("/c?beta=1", "query"),
        ("/c?beta=x", "plain"),
        ("/ip", "outside"),
    ] {
        assert_eq!(ask(&mut client, "GET", "a", path, "").text(), expected, "{path}");
    }
    assert_eq!(ask(&mut client, "GET", "a", "/c", "X-Beta: 1\r\n").text(), "header");
    assert_eq!(ask(&mut client, "GET", "a", "/c", "X-Beta: 2\r\n").text(), "plain");
    assert_eq!(ask(&mut client, "GET", "a", "/c", "Cookie: a=b; beta=\r\n").text(), "cookie");
    assert_eq!(
        ask(&mut client, "GET", "a", "/c?beta=yes", "X-Beta: 1\r\n").text(),
        "both",
        "more conditions first"
    );
    for path in ["/", "/onee", "/two", "/two/x/y", "/only", "/A/b"] {
        assert_eq!(ask(&mut client, "GET", "a", path, "").status, 404, "{path}");
    }
}

#[test]
fn a_method_that_is_not_allowed_is_told_which_are() {
    let proxy = Proxy::start(PATHS);
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "GET", "a", "/m", "").text(), "get");
    assert_eq!(ask(&mut client, "POST", "a", "/m", "Content-Length: 0\r\n").text(), "post");
    let refused = ask(&mut client, "DELETE", "a", "/m", "");
    assert_eq!(refused.status, 405);
    let mut allowed: Vec<_> =
        refused.field("allow").expect("Allow (RFC 9110 section 15.5.6)").split(", ").collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "OPTIONS", "POST"]);
    let head = client.send("HEAD /m HTTP/1.1\r\nHost: a\r\n\r\n").response_to("HEAD");
    assert_eq!((head.status, head.field("content-length")), (200, Some("3")), "GET answers HEAD");
    let options = ask(&mut client, "OPTIONS", "a", "/m", "");
    assert!(matches!(options.status, 200 | 204), "{}", options.status);
    assert!(options.field("allow").expect("Allow").contains("POST"));
    assert_eq!(proxy.access_line(|line| line["status"] == 405)["reason"], "method_not_allowed");
}

#[test]
fn errors_are_json_unless_something_else_is_said() {
    let proxy = Proxy::start(PATHS);
    let response = proxy.client().get("/nothing/here");
    assert_eq!(response.status, 404);
    assert_eq!(response.field("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(body["status"], 404);
    for key in ["error", "message", "request_id", "timestamp"] {
        assert!(body.get(key).is_some(), "{key} in {body}");
    }
    let status = response.field("proxy-status").expect("Proxy-Status (RFC 9209)");
    assert!(status.contains("destination_not_found"), "{status}");
    assert_eq!(proxy.access_line_of("/nothing/here")["reason"], "no_route");
}

#[test]
fn errors_are_html_or_a_page_where_that_is_said() {
    let tree = super::support::Tree::new();
    tree.write("404.html", "<h1>lost</h1>");
    let yaml = r#"
defaults: { errors: { format: html, 404: 404.html } }
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  html: { names: ["*"], routes: { gone: { path: /gone, respond: { status: 410 } } } }
  plain: { names: [plain.example], errors: { format: plain }, routes: { gone: { path: /gone, respond: { status: 410 } } } }
"#;
    let proxy = Proxy::start_in(tree, yaml);
    let mut client = proxy.client();
    let page = client.get("/nowhere");
    assert_eq!((page.status, page.text().as_str()), (404, "<h1>lost</h1>"));
    assert!(page.field("content-type").unwrap().starts_with("text/html"));
    let html = client.get("/gone");
    assert_eq!(html.status, 410);
    assert!(html.text().contains('<'), "{}", html.text());
    let plain = ask(&mut client, "GET", "plain.example", "/gone", "");
    assert!(plain.field("content-type").unwrap().starts_with("text/plain"));
}

#[test]
fn redirects_keep_captures_and_query() {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    routes:
      old: { path: "/old/{rest...}", redirect: { to: "/new/{rest}" } }
      query: { path: /q, redirect: { to: "/r?x=1", status: 302 } }
      full: { path: /full, redirect: { to: "https://www.{request.host}{request.path}", status: 301 } }
"#;
    let proxy = Proxy::start(yaml);
    let mut client = proxy.client();
    for (path, status, location) in [
        ("/old/a%20b/c", 308, "/new/a%20b/c"),
        ("/old/a?x=%20", 308, "/new/a?x=%20"),
        ("/q?y=2", 302, "/r?x=1"),
        ("/full", 301, "https://www.example.com/full"),
    ] {
        let response = ask(&mut client, "GET", "example.com", path, "");
        assert_eq!((response.status, response.field("location")), (status, Some(location)), "{path}");
    }
}

#[test]
fn a_listener_redirects_everything_to_https() {
    let yaml = r#"
certificates: { local: { self_signed: [localhost] } }
listeners:
  web: { bind: "127.0.0.1:0", redirect: { scheme: https } }
  secure: { bind: "127.0.0.1:0", tls: { certificates: [local] }, expose: { scheme: https, port: 443 } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: ok } } } } }
"#;
    let proxy = Proxy::start(yaml);
    let response = ask(&mut proxy.client(), "GET", "example.com:8080", "/a?b=c", "");
    assert_eq!((response.status, response.field("location")), (308, Some("https://example.com/a?b=c")));
}

#[test]
fn responses_say_what_the_configuration_says() {
    let tree = super::support::Tree::new();
    tree.write("page.html", "<p>page</p>");
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    routes:
      text: { path: /text, respond: { body: hello, headers: { X-A: "1" } } }
      file: { path: /file, respond: { file: page.html } }
      json: { path: /json, respond: { status: 201, body: "{}", headers: { Content-Type: application/json } } }
      empty: { path: /empty, respond: { status: 204 } }
"#;
    let proxy = Proxy::start_in(tree, yaml);
    let mut client = proxy.client();
    let text = client.get("/text");
    assert_eq!((text.text().as_str(), text.field("x-a")), ("hello", Some("1")));
    assert_eq!(text.field("content-type"), Some("text/plain; charset=utf-8"));
    let file = client.get("/file");
    assert_eq!(file.text(), "<p>page</p>");
    assert!(file.field("content-type").unwrap().starts_with("text/html"));
    let json = client.get("/json");
    assert_eq!((json.status, json.field("content-type")), (201, Some("application/json")));
    assert_eq!(client.get("/empty").status, 204);
    assert_eq!(client.get("/text").text(), "hello", "the connection lives on");
}

#[test]
fn encoded_slashes_follow_the_configuration() {
    for (rule, status, text) in [("reject", 400, ""), ("keep", 200, "one"), ("decode", 200, "two")] {
        let yaml = r#"
defaults: { paths: { encoded_slash: RULE } }
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    routes:
      one: { path: "/{a}", respond: { body: one } }
      two: { path: "/{a}/{b}", respond: { body: two } }
"#;
        let proxy = Proxy::start(&yaml.replace("RULE", rule));
        let response = proxy.client().get("/a%2Fb");
        assert_eq!(response.status, status, "{rule}");
        if status == 200 {
            assert_eq!(response.text(), text, "{rule}");
        }
    }
}

#[test]
fn shared_routes_stand_in_every_host_that_uses_them() {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
route_sets: { probes: { health: { path: /health, respond: { body: fine } } } }
hosts:
  a: { names: [a.example], use: [probes], routes: { all: { path: "/**", respond: { body: a } } } }
  b: { names: [b.example], use: [probes] }
"#;
    let proxy = Proxy::start(yaml);
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "GET", "a.example", "/health", "").text(), "fine");
    assert_eq!(ask(&mut client, "GET", "b.example", "/health", "").text(), "fine");
    assert_eq!(ask(&mut client, "GET", "b.example", "/", "").status, 404);
}

fn ask(client: &mut Client, method: &str, host: &str, path: &str, fields: &str) -> Response {
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).response_to(method)
}
