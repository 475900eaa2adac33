//! Scripts of other origins: who may read what, and what browsers are told before.

use super::support::{Origin, Proxy, Response, config, curl, free_port};

const CONFIG: &str = r#"
listeners: { web: { bind: "127.0.0.1:0", middleware: [{ response_headers: { set: { X-Chain: listener } } }] } }
upstreams: { origin: { endpoints: ["ORIGIN"] }, down: { endpoints: ["127.0.0.1:DOWN"] } }
middleware:
  listed:
    - cors:
        origins: ["https://app.example", "https://*.example.org", { regex: 'https://pr-[0-9]+\.example\.net' }]
        methods: [PUT]
        headers: [X-Token, Content-Type]
        expose: [X-Total]
        credentials: true
        max_age: 1d
        private_network: true
hosts:
  all:
    names: ["*"]
    routes:
      api: { path: /api, methods: [GET, PUT], proxy: { upstream: origin }, middleware: [listed] }
      open: { path: /open, methods: [POST, PATCH], respond: { body: ok }, middleware: [{ cors: { origins: ["*"], methods: ["*"], headers: ["*"] } }] }
      plain: { path: /plain, proxy: { upstream: origin } }
      mixed-get: { path: /mixed, methods: [GET], respond: { body: ok } }
      mixed-put: { path: /mixed, methods: [PUT], respond: { body: ok }, middleware: [listed] }
      large: { path: /large, respond: { body: ok }, middleware: [{ body_limit: { size: 1B } }, listed] }
      down: { path: /down, proxy: { upstream: down }, middleware: [listed] }
"#;

const UPSTREAM: &[u8] =
    b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Origin: https://upstream\r\n\
    Access-Control-Expose-Headers: X-Secret\r\nVary: Accept\r\nX-Total: 7\r\nContent-Length: 2\r\n\r\nok";

fn start() -> (Origin, Proxy) {
    let origin = Origin::replying(UPSTREAM);
    let words: [(&str, &dyn std::fmt::Display); 2] = [("ORIGIN", &origin.address()), ("DOWN", &free_port())];
    let proxy = Proxy::start(&config(CONFIG, &words));
    (origin, proxy)
}

fn ask(proxy: &Proxy, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    proxy.client().send(request).response()
}

fn preflight(proxy: &Proxy, path: &str, origin: &str, method: &str, more: &[(&str, &str)]) -> Response {
    let fields = [&[("Origin", origin), ("Access-Control-Request-Method", method)], more].concat();
    ask(proxy, "OPTIONS", path, &fields)
}

#[test]
fn preflights_are_answered_by_the_route_of_what_they_ask_for() {
    let (origin, proxy) = start();
    // Path, origin, method; then who may, and which methods.
    for (path, from, method, reader, methods) in [
        ("/api", "https://app.example", "PUT", Some("https://app.example"), Some("PUT")),
        ("/api", "https://app.example", "GET", Some("https://app.example"), Some("PUT")),
        ("/api", "https://a.b.example.org", "PUT", Some("https://a.b.example.org"), Some("PUT")),
        ("/api", "https://pr-12.example.net", "PUT", Some("https://pr-12.example.net"), Some("PUT")),
        ("/api", "https://pr-12.example.net.evil.example", "PUT", None, None),
        ("/api", "https://example.org", "PUT", None, None),
        ("/api", "http://app.example", "PUT", None, None),
        ("/api", "null", "PUT", None, None),
        ("/mixed", "https://app.example", "PUT", Some("https://app.example"), Some("PUT")),
        ("/open", "https://anyone.example", "PATCH", Some("*"), Some("PATCH")),
        ("/open", "null", "POST", Some("*"), Some("POST")),
    ] {
        let case = format!("{path} {from} {method}");
        let answer = preflight(&proxy, path, from, method, &[]);
        assert_eq!((answer.status, answer.text().as_str()), (204, ""), "{case}");
        assert_eq!(answer.field("access-control-allow-origin"), reader, "{case}");
        assert_eq!(answer.field("access-control-allow-methods"), methods, "{case}");
        let lists = path != "/open";
        let credentials = (lists && reader.is_some()).then_some("true");
        assert_eq!(answer.field("access-control-allow-credentials"), credentials, "{case}");
        assert_eq!(answer.field("access-control-max-age"), credentials.map(|_| "86400"), "{case}");
        assert_eq!(answer.values("vary").contains(&"Origin"), lists, "{case}: {:?}", answer.fields);
        assert_eq!(answer.field("x-chain"), Some("listener"), "{case}: it passes the chain");
    }
    assert!(origin.requests().is_empty(), "none went upstream");
}

#[test]
fn fields_and_private_networks_are_given_leave_where_asked_for() {
    let (_origin, proxy) = start();
    let app = "https://app.example";
    let asked = [("Access-Control-Request-Headers", "x-token,x-other")];
    let listed = preflight(&proxy, "/api", app, "PUT", &asked);
    assert_eq!(listed.field("access-control-allow-headers"), Some("x-token, content-type"));
    assert_eq!(listed.field("access-control-allow-private-network"), None);
    let private =
        preflight(&proxy, "/api", app, "PUT", &[("Access-Control-Request-Private-Network", "true")]);
    assert_eq!(private.field("access-control-allow-private-network"), Some("true"));
    let open = preflight(&proxy, "/open", app, "POST", &asked);
    assert_eq!(open.field("access-control-allow-headers"), Some("x-token,x-other"));
    assert_eq!(
        open.values("vary"),
        ["Access-Control-Request-Method", "Access-Control-Request-Headers"],
        "it depends on what is asked"
    );
    let odd = preflight(&proxy, "/open", app, "POST", &[("Access-Control-Request-Headers", "a;b\"c")]);
    assert_eq!(odd.field("access-control-allow-headers"), None);
}

#[test]
fn what_asks_for_nothing_that_cors_stands_before_is_an_ordinary_options() {
    let (origin, proxy) = start();
    let app = ("Origin", "https://app.example");
    let upstream = preflight(&proxy, "/plain", app.1, "PUT", &[]);
    assert_eq!(upstream.status, 200, "a route without cors asks its upstream");
    assert_eq!(upstream.values("access-control-allow-origin"), ["*", "https://upstream"]);
    assert_eq!(origin.request().field("access-control-request-method"), Some("PUT"));
    for (path, fields) in [
        ("/mixed", &[app, ("Access-Control-Request-Method", "GET")][..]),
        ("/api", &[app]),
        ("/api", &[("Access-Control-Request-Method", "PUT")]),
        ("/api", &[app, ("Access-Control-Request-Method", "DELETE")]),
        ("/api", &[app, ("Access-Control-Request-Method", "P U T")]),
    ] {
        let answer = ask(&proxy, "OPTIONS", path, fields);
        assert_eq!(answer.status, 204, "{path} {fields:?}");
        assert!(answer.field("allow").is_some_and(|allow| allow.contains("GET")), "{path} {fields:?}");
        assert_eq!(answer.field("access-control-allow-origin"), None, "{path} {fields:?}");
    }
}

#[test]
fn responses_say_who_may_read_them_whatever_the_upstream_said() {
    let (origin, proxy) = start();
    for (from, reader) in [
        (Some("https://app.example"), Some("https://app.example")),
        (Some("https://evil.example"), None),
        (Some("null"), None),
        (None, None),
    ] {
        let fields: Vec<_> = from.iter().map(|from| ("Origin", *from)).collect();
        let response = ask(&proxy, "GET", "/api", &fields);
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "ok"),
            "{from:?}: it goes on all the same"
        );
        assert_eq!(response.values("access-control-allow-origin"), Vec::from_iter(reader), "{from:?}");
        let expose = reader.map(|_| "X-Total".to_lowercase());
        assert_eq!(response.field("access-control-expose-headers"), expose.as_deref(), "{from:?}");
        assert_eq!(response.values("vary"), ["Accept", "Origin"], "{from:?}");
    }
    assert_eq!(origin.requests().len(), 4);
    let twice =
        ask(&proxy, "GET", "/api", &[("Origin", "https://app.example"), ("Origin", "https://evil.example")]);
    assert_eq!(twice.field("access-control-allow-origin"), None, "nobody can tell which is true");
    for from in [&[("Origin", "https://anyone.example")][..], &[]] {
        let open = ask(&proxy, "POST", "/open", &[from, &[("Content-Length", "0")]].concat());
        assert_eq!(open.field("access-control-allow-origin"), Some("*"));
        assert_eq!(open.field("vary"), None, "it is the same for all");
    }
}

#[test]
fn errors_can_be_read_too() {
    let (_origin, proxy) = start();
    let app = ("Origin", "https://app.example");
    for (path, fields, status) in [
        ("/down", &[app][..], 502),
        ("/large", &[app, ("Content-Length", "2"), ("Connection", "close")], 413),
    ] {
        let response = ask(&proxy, "POST", path, fields);
        assert_eq!(response.status, status, "{path}");
        assert_eq!(response.values("access-control-allow-origin"), [app.1], "{path}");
        assert_eq!(response.values("vary"), ["Origin"], "{path}");
    }
}

#[test]
fn curl_gets_its_preflight_and_its_response() {
    let (_origin, proxy) = start();
    let url = proxy.url("web", "/api");
    let asks = ["-H", "Origin: https://app.example", "-H", "Access-Control-Request-Method: PUT"];
    let preflight =
        curl(&[&["-i", "-X", "OPTIONS"][..], &asks, &[&url]].concat()).stdout.to_ascii_lowercase();
    assert!(preflight.starts_with("http/1.1 204"), "{preflight}");
    assert!(preflight.contains("access-control-allow-methods: put\r\n"), "{preflight}");
    let response = curl(&["-i", "-X", "PUT", "-d", "x", "-H", "Origin: https://app.example", &url]).stdout;
    let response = response.to_ascii_lowercase();
    assert_eq!(response.matches("access-control-allow-origin:").count(), 1, "{response}");
    assert!(response.ends_with("ok"), "{response}");
}
