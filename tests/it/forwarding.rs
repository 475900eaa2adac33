//! What the origin is told: who asked, by which way, and nothing of the connection before.

use super::support::{Nginx, Origin, Proxy, Tree, config, curl};

/// Everything goes to the origin, from a listener that trusts `TRUSTED`, with further keys of `proxy`.
const TRUSTING: &str = r#"
listeners: { web: { bind: "127.0.0.1:0", trusted_proxies: { from: [TRUSTED], header: HEADER } } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;

const ROUTED: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "PATH", proxy: { upstream: origin PROXY } } } } }
"#;

#[test]
fn the_origin_learns_who_asked() {
    let origin = Origin::saying("");
    let proxy = Proxy::before(&origin);
    proxy.client().send("GET / HTTP/1.1\r\nHost: www.example.com:8080\r\n\r\n").response();
    let request = origin.request();
    assert_eq!(request.field("host"), Some("www.example.com:8080"));
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("www.example.com:8080"));
    assert_eq!(request.values("forwarded"), [""; 0], "nobody here speaks it");
    let via = request.field("via").expect("Via (RFC 9110 section 7.6.3)");
    assert!(via.starts_with("1.1 "), "{via}");
}

#[test]
fn what_a_client_claims_about_itself_is_replaced() {
    let origin = Origin::saying("");
    let proxy = Proxy::before(&origin);
    proxy
        .client()
        .send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n\r\n")
        .response();
    let request = origin.request();
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("a"));
    assert!(!request.field("forwarded").unwrap_or_default().contains("6.6.6.6"));
}

#[test]
fn a_trusted_proxy_is_believed() {
    let origin = Origin::saying("");
    let yaml = config(
        TRUSTING,
        &[
            ("ORIGIN", &origin.address()),
            ("TRUSTED", &"127.0.0.0/8, 10.0.0.0/8"),
            ("HEADER", &"X-Forwarded-For"),
        ],
    );
    let proxy = Proxy::start(&yaml);
    proxy
        .client()
        .send("GET /trusted HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, 9.9.9.9, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n\r\n")
        .response();
    let request = origin.request();
    assert_eq!(request.field("x-forwarded-for"), Some("6.6.6.6, 9.9.9.9, 10.0.0.1, 127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    // The first address from the right that is not trusted is the client; what stands left of it is hearsay.
    assert_eq!(proxy.access_line_of("/trusted")["client_ip"], "9.9.9.9");
}

#[test]
fn the_forwarded_field_is_understood_too() {
    let origin = Origin::saying("");
    let yaml = config(
        TRUSTING,
        &[("ORIGIN", &origin.address()), ("TRUSTED", &"127.0.0.0/8"), ("HEADER", &"Forwarded")],
    );
    let proxy = Proxy::start(&yaml);
    proxy
        .client()
        .send("GET /trusted HTTP/1.1\r\nHost: a\r\nForwarded: for=\"[2001:db8::1]:4711\";proto=https\r\n\r\n")
        .response();
    assert_eq!(proxy.access_line_of("/trusted")["client_ip"], "2001:db8::1");
    let told = origin.request().values("forwarded").join(", ");
    assert!(told.starts_with("for=\"[2001:db8::1]:4711\";proto=https, for=127.0.0.1"), "{told}");
}

/// What a client writes before nginx appends to it decides nothing.
#[test]
fn a_balancers_word_is_found_behind_a_clients_rubbish() {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0", trusted_proxies: { from: [127.0.0.1] } } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      inside: { path: /inside, middleware: [{ ip: { allow: [127.0.0.1] } }], proxy: { upstream: origin } }
"#;
    let origin = Origin::saying("");
    let proxy = Proxy::start(&config(yaml, &[("ORIGIN", &origin.address())]));
    let nginx = Nginx::serving(&format!(
        "location / {{ proxy_pass http://127.0.0.1:{}; proxy_bind 127.0.0.1; \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}",
        proxy.port("web")
    ));
    let tree = Tree::new();
    let fields = tree.write("fields", b"X-Forwarded-For: \xe9\n").display().to_string();
    let ask = |path: &str, from: &str| {
        let url = format!("http://{}{path}", nginx.address());
        let field = format!("@{fields}");
        curl(&["--interface", from, "-H", &field, "-o", "/dev/null", "-w", "%{http_code}", &url]).stdout
    };
    assert_eq!(ask("/inside", "127.0.0.2"), "403");
    assert_eq!(ask("/inside", "127.0.0.1"), "200");
    assert_eq!(ask("/any", "127.0.0.2"), "200");
    assert_eq!(proxy.access_line_of("/any")["client_ip"], "127.0.0.2");
    let told = origin.requests().pop().unwrap().field("x-forwarded-for").unwrap().to_owned();
    assert!(told.ends_with(", 127.0.0.2, 127.0.0.1"), "{told}");
}

#[test]
fn what_may_go_no_further_is_answered_here() {
    let origin = Origin::saying("");
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let mut ask = |method: &str, left: &str| {
        client
            .send(format!("{method} /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: {left}\r\n\r\n"))
            .response()
            .status
    };
    assert_eq!((ask("OPTIONS", "0"), ask("TRACE", "0")), (204, 405));
    assert_eq!(origin.requests().len(), 0);
    for (method, left) in [("OPTIONS", "1"), ("TRACE", "8"), ("OPTIONS", "many"), ("GET", "0")] {
        assert_eq!(ask(method, left), 200, "{method} {left}");
    }
    let passed: Vec<_> =
        origin.requests().iter().map(|one| one.field("max-forwards").unwrap().to_owned()).collect();
    assert_eq!(passed, ["0", "7", "many", "0"]);
}

#[test]
fn the_path_is_rewritten_by_a_template() {
    let origin = Origin::saying("");
    let words: [(&str, &dyn std::fmt::Display); 3] = [
        ("ORIGIN", &origin.address()),
        ("PATH", &"/api/{id}/{rest...}"),
        ("PROXY", &", rewrite: \"/v2/{rest}/of/{id}\""),
    ];
    let proxy = Proxy::start(&config(ROUTED, &words));
    proxy.client().get("/api/7%20a/b/c?x=1&y=%2F");
    assert_eq!(origin.request().start, "GET /v2/b/c/of/7%20a?x=1&y=%2F HTTP/1.1");
}

#[test]
fn a_prefix_is_taken_off() {
    let origin = Origin::saying("");
    let words: [(&str, &dyn std::fmt::Display); 3] = [
        ("ORIGIN", &origin.address()),
        ("PATH", &"/api/**"),
        ("PROXY", &", rewrite: { strip_prefix: /api }"),
    ];
    let proxy = Proxy::start(&config(ROUTED, &words));
    let mut client = proxy.client();
    for path in ["/api/x/y?z", "/api/", "/api"] {
        client.get(path);
    }
    let starts: Vec<_> = origin.requests().into_iter().map(|request| request.start).collect();
    assert_eq!(starts, ["GET /x/y?z HTTP/1.1", "GET / HTTP/1.1", "GET / HTTP/1.1"]);
}

#[test]
fn the_host_sent_is_what_the_route_says() {
    for (said, expected) in [("original", "a.example"), ("upstream", "ORIGIN"), ("b.example", "b.example")] {
        let origin = Origin::saying("");
        let expected = expected.replace("ORIGIN", &origin.address().to_string());
        let said = format!(", host_header: {said}");
        let words: [(&str, &dyn std::fmt::Display); 3] =
            [("ORIGIN", &origin.address()), ("PATH", &"/**"), ("PROXY", &said)];
        let proxy = Proxy::start(&config(ROUTED, &words));
        proxy.client().send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").response();
        assert_eq!(origin.request().field("host"), Some(expected.as_str()), "{said}");
    }
}

#[test]
fn fields_of_the_origins_connection_do_not_reach_the_client() {
    let origin = Origin::replying(
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n\
          X-End: 2\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = Proxy::before(&origin);
    let response = proxy.client().get("/");
    assert_eq!(response.values("x-hop"), [""; 0]);
    assert_eq!(response.values("keep-alive"), [""; 0]);
    assert_eq!(response.field("x-end"), Some("2"));
}
