//! What requests are held to, and what becomes of their paths, before they go upstream.

use super::support::{Origin, Proxy, Response, Tree, config, curl, portolan};

const CONFIG: &str = r#"
listeners:
  web: { bind: "127.0.0.1:0" }
  exposed: { bind: "127.0.0.1:0", expose: { scheme: https, port: 443 } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  shop:
    names: [www.shop.example, shop.example, "*.shop.example"]
    middleware: [{ canonical_host: { to: www.shop.example } }]
    routes: { all: { path: "/**", proxy: { upstream: origin } } }
  rest:
    names: ["*"]
    routes:
      users:
        path: "/users/**"
        proxy: { upstream: origin, rewrite: { regex: '^/users/(?<id>[0-9]+)(?<rest>/.*)?$', to: "/u/{id}{rest}" } }
      files:
        path: { regex: '^/files.*$' }
        proxy: { upstream: origin, rewrite: { regex: '^/files(?<rest>.*)$', to: "/public/{rest}" } }
      found: { path: /found, middleware: [{ canonical_host: { to: a.example, status: 302 } }], respond: { body: here } }
      methods: { path: /methods, middleware: [{ methods: { allow: [GET, POST] } }], proxy: { upstream: origin } }
      types:
        path: /types
        middleware: [{ content_types: { allow: [application/json, "image/*"] } }]
        proxy: { upstream: origin }
      small:
        path: /small
        middleware: [{ header_limits: { size: 200B, headers: 6, uri: 20B } }]
        proxy: { upstream: origin }
      tried:
        path: /tried
        middleware:
          - methods: { allow: [PUT], mode: observe }
          - content_types: { allow: [text/plain], mode: observe }
          - header_limits: { headers: 1, mode: observe }
        proxy: { upstream: origin }
"#;

fn start() -> (Origin, Proxy) {
    let origin = Origin::saying("taken");
    let proxy = Proxy::start(&config(CONFIG, &[("ORIGIN", &origin.address())]));
    (origin, proxy)
}

/// "/files.." is a path like others until what follows the prefix stands by itself.
#[test]
fn no_rewrite_leads_out_of_where_it_leads() {
    let (origin, proxy) = start();
    for path in ["/files../secret", "/files..", "/files%2e%2E/secret"] {
        assert_eq!(proxy.client().get(path).status, 400, "{path}");
    }
    assert_eq!(proxy.access_line_of("/files..")["reason"], "bad_path");
    assert_eq!(proxy.client().get("/files/a?b=../c").text(), "taken");
    let sent: Vec<String> = origin.requests().iter().map(|request| request.start.clone()).collect();
    assert_eq!(sent, ["GET /public/a?b=../c HTTP/1.1"]);
}

fn send(proxy: &Proxy, request: &str) -> Response {
    proxy.client().send(request).response()
}

#[test]
fn a_path_that_an_expression_matches_goes_upstream_as_another() {
    let (origin, proxy) = start();
    for path in ["/users/7?x=1", "/users/7/a%20b", "/users/me?x=1"] {
        assert_eq!(proxy.client().get(path).text(), "taken");
    }
    let sent: Vec<String> = origin.requests().iter().map(|request| request.start.clone()).collect();
    assert_eq!(sent, ["GET /u/7?x=1 HTTP/1.1", "GET /u/7/a%20b HTTP/1.1", "GET /users/me?x=1 HTTP/1.1"]);
}

#[test]
fn explain_and_tests_show_the_path_that_is_sent() {
    let tree = Tree::new();
    let yaml = r#"
listeners: { web: { bind: ":80" } }
upstreams: { app: { endpoints: ["127.0.0.1:1"] } }
hosts:
  all:
    names: ["*"]
    routes:
      users: { path: "/users/**", proxy: { upstream: app, rewrite: { regex: '^/users/(?<id>[0-9]+)$', to: "/u/{id}" } } }
tests:
  - request: { url: "http://a.example/users/7" }
    expect: { rewrite: EXPECTED }
"#;
    let file = tree.write("portolan.yaml", config(yaml, &[("EXPECTED", &"/u/7")]));
    let file = file.to_str().unwrap();
    let explained =
        portolan(&tree.path(""), &["explain", "GET", "http://a.example/users/12", "--config", file]);
    assert!(explained.stdout.contains("/u/12"), "{explained:?}");
    assert_eq!(portolan(&tree.path(""), &["test", file]).code, 0);
    tree.write("portolan.yaml", config(yaml, &[("EXPECTED", &"/u/8")]));
    let failed = portolan(&tree.path(""), &["test", file]);
    assert!(failed.code == 1 && format!("{failed:?}").contains("/u/7"), "{failed:?}");
}

#[test]
fn other_names_of_a_host_are_redirected_to_its_own() {
    let (_origin, proxy) = start();
    let ask = |listener: &str, host: &str, target: &str| {
        let mut client = super::support::Client::tcp(proxy.port(listener));
        let response =
            client.send(format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"));
        let response = response.response();
        (response.status, response.field("location").map(str::to_owned))
    };
    let to = |location: &str| (308, Some(location.to_owned()));
    assert_eq!(ask("web", "shop.example", "/a?x=1"), to("http://www.shop.example/a?x=1"));
    assert_eq!(ask("web", "SHOP.example:8080", "//a/../b"), to("http://www.shop.example:8080/b"));
    assert_eq!(ask("exposed", "img.shop.example:8080", "/"), to("https://www.shop.example/"));
    for canonical in ["www.shop.example", "WWW.shop.example.", "www.shop.example:81"] {
        assert_eq!(ask("web", canonical, "/"), (200, None), "{canonical}");
    }
    assert_eq!(ask("web", "b.example", "/found").0, 302);
    assert_eq!(ask("web", "a.example", "/found").0, 200);
    let port = proxy.port("web").to_string();
    let resolve = ["shop.example", "www.shop.example"].map(|name| format!("{name}:{port}:127.0.0.1"));
    let url = format!("http://shop.example:{port}/x");
    let arguments = [
        "-sSL",
        "--max-redirs",
        "1",
        "--resolve",
        &resolve[0],
        "--resolve",
        &resolve[1],
        "-w",
        "%{url_effective}",
        &url,
    ];
    assert_eq!(curl(&arguments).stdout, format!("takenhttp://www.shop.example:{port}/x"), "followed once");
}

#[test]
fn methods_that_are_not_listed_are_refused() {
    let (origin, proxy) = start();
    for (method, status) in [("GET", 200), ("POST", 200), ("DELETE", 405), ("OPTIONS", 405), ("BREW", 405)] {
        let request = format!("{method} /methods HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let response = send(&proxy, &request);
        assert_eq!(response.status, status, "{method}");
        assert_eq!(response.field("allow"), (status == 405).then_some("GET, HEAD, POST"), "{method}");
    }
    assert_eq!(origin.requests().len(), 2);
    assert_eq!(proxy.access_line(|line| line["method"] == "BREW")["reason"], "method_not_allowed");
}

#[test]
fn bodies_of_types_that_are_not_listed_are_refused() {
    let (_origin, proxy) = start();
    let post = |fields: &str| send(&proxy, &format!("POST /types HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    for taken in [
        "Content-Type: application/json; charset=utf-8\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\n",
        "Content-Type: text/plain\r\nContent-Length: 0\r\n",
    ] {
        assert_eq!(post(taken).status, 200, "{taken}");
    }
    let image = "POST /types HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(send(&proxy, image).status, 200);
    for refused in [
        "Content-Type: text/plain\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\nExpect: 100-continue\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        let response = post(refused);
        assert_eq!(response.status, 415, "{refused}");
        assert_eq!(response.field("accept-post"), Some("application/json, image/*"));
        assert_eq!(response.field("accept"), Some("application/json, image/*"));
    }
    let patch = "PATCH /types HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(send(&proxy, patch).field("accept-patch"), Some("application/json, image/*"));
    assert_eq!(proxy.access_line(|line| line["method"] == "PATCH")["reason"], "unsupported_media_type");
}

#[test]
fn heads_are_held_to_the_limits_of_a_place() {
    let (_origin, proxy) = start();
    let get = |target: &str, fields: &str| {
        send(&proxy, &format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).status
    };
    assert_eq!(
        get("/small?3456789abcdef", "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\n"),
        200,
        "up to the limits"
    );
    assert_eq!(get("/small?3456789abcdefg", ""), 414);
    assert_eq!(get("/small", "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: 6\r\n"), 431);
    assert_eq!(get("/small", &format!("A: {}\r\n", "x".repeat(190))), 431);
    assert_eq!(proxy.access_line(|line| line["status"] == 414)["reason"], "uri_too_long");
    assert_eq!(proxy.access_line(|line| line["status"] == 431)["reason"], "header_too_large");
}

#[test]
fn what_only_observes_lets_in_and_says_so() {
    let (_origin, proxy) = start();
    let post = "POST /tried HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(send(&proxy, post).text(), "taken");
    let observed = &proxy.access_line_of("/tried")["observed"];
    let all = ["method_not_allowed", "unsupported_media_type", "header_too_large"];
    assert_eq!(observed, &serde_json::json!(all));
    let series = "portolan_middleware_decisions_total{decision=\"observed\",kind=\"content_types\"}";
    assert_eq!(proxy.metric(series), Some(1.0));
}
