//! By which scheme, host and port users reach what they ask for, where a balancer stands between: one answer for all who
//! ask.

use super::support::{Origin, Proxy, config};

/// TLS ends at a balancer before `web`.
const BALANCED: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" LISTENER } }
upstreams: { origin: { endpoints: ["ORIGIN"] }, auth: { endpoints: ["AUTH"] } }
defaults: { middleware: [{ security_headers: { hsts: { max_age: 365d } } }] }
hosts:
  all:
    names: [a.test, www.a.test]
    middleware: [{ request_headers: { set: { X-Scheme-Seen: "{request.scheme}" } } }]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      asks: { path: /asks, middleware: [{ forward_auth: { upstream: auth, request_headers: "*" } }], proxy: { upstream: origin } }
      local: { path: /local, middleware: [{ forward_auth: { upstream: auth, request_headers: "*" } }], respond: { body: ok } }
      moved: { path: /moved, redirect: { to: "{request.scheme}://{request.host}/new" } }
      canonical: { path: /canonical, middleware: [{ canonical_host: { to: www.a.test } }], respond: { body: ok } }
"#;

fn start(listener: &str, origin: &Origin, auth: &Origin) -> Proxy {
    let words: [(&str, &dyn std::fmt::Display); 3] =
        [("LISTENER", &listener), ("ORIGIN", &origin.address()), ("AUTH", &auth.address())];
    Proxy::start(&config(BALANCED, &words))
}

const EXPOSED: &str = ", expose: { scheme: https, port: 443 }";
const TRUSTING: &str = ", trusted_proxies: { from: [127.0.0.1] }";

#[test]
fn all_who_ask_for_the_scheme_get_one_answer() {
    for (listener, field, scheme, canonical) in [
        ("", "", "http", "http://www.a.test:8080/canonical"),
        ("", "X-Forwarded-Proto: https\r\n", "http", "http://www.a.test:8080/canonical"),
        (EXPOSED, "", "https", "https://www.a.test/canonical"),
        (EXPOSED, "X-Forwarded-Proto: http\r\n", "https", "https://www.a.test/canonical"),
        (", expose: { scheme: https, port: 8443 }", "", "https", "https://www.a.test:8443/canonical"),
        (TRUSTING, "X-Forwarded-Proto: https\r\n", "https", "https://www.a.test:8080/canonical"),
        (TRUSTING, "X-Forwarded-Proto: wss\r\n", "https", "https://www.a.test:8080/canonical"),
        (TRUSTING, "X-Forwarded-Proto: https,http\r\n", "http", "http://www.a.test:8080/canonical"),
        (
            TRUSTING,
            "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n",
            "http",
            "http://www.a.test:8080/canonical",
        ),
        (
            ", expose: { scheme: https, port: 443 }, trusted_proxies: { from: [127.0.0.1] }",
            "X-Forwarded-Proto: http\r\n",
            "http",
            "http://www.a.test/canonical",
        ),
        (
            ", expose: { scheme: https, port: 443 }, trusted_proxies: { from: [127.0.0.1] }",
            "X-Forwarded-Proto: \u{e9}\r\n",
            "https",
            "https://www.a.test/canonical",
        ),
    ] {
        let (origin, auth) = (Origin::saying(""), Origin::saying(""));
        let proxy = start(listener, &origin, &auth);
        let what = format!("{listener} {field:?}");
        let ask = |path: &str| {
            proxy.client().send(format!("GET {path} HTTP/1.1\r\nHost: a.test:8080\r\n{field}\r\n")).response()
        };
        let response = ask("/asks");
        assert_eq!(response.status, 200, "{what}");
        assert_eq!(response.field("strict-transport-security").is_some(), scheme == "https", "{what}");
        let request = origin.request();
        assert_eq!(request.field("x-forwarded-proto"), Some(scheme), "{what}");
        assert_eq!(request.field("x-scheme-seen"), Some(scheme), "{what}");
        assert_eq!(auth.request().values("x-forwarded-proto"), [scheme], "{what}");
        assert_eq!(proxy.access_line_of("/asks")["scheme"], scheme, "{what}");
        assert_eq!(
            ask("/moved").field("location"),
            Some(format!("{scheme}://a.test/new").as_str()),
            "{what}"
        );
        assert_eq!(ask("/canonical").field("location"), Some(canonical), "{what}");
        let malformed = proxy.client().send("GET / HTTP/1.1\r\nHost : a\r\n\r\n").response();
        let own = listener.contains("expose");
        assert_eq!(malformed.field("strict-transport-security").is_some(), own, "{what}");
    }
}

#[test]
fn a_redirecting_listener_does_not_redirect_what_has_come_by_its_scheme() {
    let yaml = r#"
listeners:
  web: { bind: "127.0.0.1:0", redirect: { scheme: https, port: 443 }, trusted_proxies: { from: [127.0.0.1] } }
  strangers: { bind: "127.0.0.1:0", redirect: { scheme: https, port: 443 } }
hosts: { all: { names: [a.test], listeners: [web], routes: { all: { path: "/**", respond: { body: reached } } } } }
"#;
    let proxy = Proxy::start(yaml);
    let ask = |listener: &str, field: &str| {
        let mut client = super::support::Client::tcp(proxy.port(listener));
        let response = client.send(format!("GET /x?y HTTP/1.1\r\nHost: a.test\r\n{field}\r\n")).response();
        (response.status, response.field("location").map(str::to_owned), response.text())
    };
    let redirected = (308, Some("https://a.test/x?y".to_owned()), String::new());
    for field in
        ["", "X-Forwarded-Proto: http\r\n", "X-Forwarded-Proto: ws\r\n", "X-Forwarded-Proto: https, http\r\n"]
    {
        assert_eq!(ask("web", field), redirected, "{field:?}");
    }
    for field in
        ["X-Forwarded-Proto: https\r\n", "X-Forwarded-Proto: WSS\r\n", "X-Forwarded-Proto: http, https\r\n"]
    {
        assert_eq!(ask("web", field), (200, None, "reached".into()), "{field:?}");
        assert_eq!(ask("strangers", field), redirected, "{field:?}");
    }
}

#[test]
fn a_location_names_a_host_or_there_is_none() {
    let yaml = r#"
listeners:
  web: { bind: "127.0.0.1:0" }
  redirecting: { bind: "127.0.0.1:0", redirect: { scheme: https, port: 443 } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      moved: { path: /moved, redirect: { to: "https://{request.host}/new" } }
      www: { path: /www, redirect: { to: "https://www.{request.host}{request.path}" } }
      sni: { path: /sni, redirect: { to: "https://{tls.sni}/new" } }
      part: { path: "/part/{rest...}", redirect: { to: "https://{rest}/new" } }
      link: { path: /link, middleware: [{ response_headers: { set: { Link: "https://{request.host}/x" } } }], respond: { body: ok } }
      told: { path: /told, middleware: [{ request_headers: { set: { X-Address: "http://{request.host}{request.path}" } } }], proxy: { upstream: origin } }
"#;
    let origin = Origin::saying("");
    let proxy = Proxy::start(&config(yaml, &[("ORIGIN", &origin.address())]));
    let ask = |listener: &str, path: &str, rest: &str| {
        let mut client = super::support::Client::tcp(proxy.port(listener));
        client.send(format!("GET {path} HTTP/1.{rest}\r\n\r\n")).response()
    };
    for (listener, path) in [("redirecting", "/x"), ("web", "/moved"), ("web", "/www")] {
        let response = ask(listener, path, "0");
        assert_eq!((response.status, response.field("location")), (400, None), "{path}");
        assert_eq!(proxy.access_line_of(path)["reason"], "bad_host");
        assert_eq!(ask(listener, path, "1\r\nHost: a.test").status, 308, "{path}");
    }
    for path in ["/sni", "/part/", "/part/u@evil.test", "/part/a.test:http"] {
        let response = ask("web", path, "1\r\nHost: a.test");
        assert_eq!((response.status, response.field("location")), (400, None), "{path}");
        assert_eq!(proxy.access_line_of(path)["reason"], "bad_path");
    }
    assert_eq!(ask("web", "/part/b.test", "1\r\nHost: a.test").field("location"), Some("https://b.test/new"));
    assert_eq!(ask("web", "/link", "0").field("link"), None);
    assert_eq!(ask("web", "/link", "1\r\nHost: a.test").field("link"), Some("https://a.test/x"));
    assert_eq!(ask("web", "/told", "0").status, 200);
    assert_eq!(origin.request().field("x-address"), None);
}

#[test]
fn what_strangers_say_of_their_address_reaches_neither_upstream_nor_service() {
    const SAID: [&str; 13] = [
        "X-Forwarded-Prefix",
        "X-Forwarded-Ssl",
        "X-Forwarded-Scheme",
        "X-Forwarded-Server",
        "X-Forwarded-Port",
        "X-Forwarded-Protocol",
        "X-Forwarded-User",
        "X-Real-IP",
        "X-Client-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "Front-End-Https",
        "True-Client-IP",
    ];
    for (listener, passes) in [("", false), (TRUSTING, true)] {
        let (origin, auth) = (Origin::saying(""), Origin::saying(""));
        let proxy = start(listener, &origin, &auth);
        let fields: String = SAID.iter().map(|name| format!("{name}: forged\r\n")).collect();
        for path in ["/asks", "/local"] {
            let said = format!("{fields}X-Forwarded-Host: other.test\r\n");
            let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{said}\r\n");
            assert_eq!(proxy.client().send(request).response().status, 200, "{path}");
        }
        let mut seen = auth.requests();
        seen.push(origin.request());
        for request in seen {
            for name in SAID {
                assert_eq!(request.field(name).is_some(), passes, "{name} {listener}");
            }
            let host = if passes { "other.test" } else { "a.test" };
            assert_eq!(request.values("x-forwarded-host"), [host], "{listener}");
        }
    }
}

#[test]
fn no_route_is_chosen_by_what_a_stranger_says_of_the_connection() {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" LISTENER } }
hosts:
  all:
    names: ["*"]
    routes:
      secure: { path: "/**", headers: { X-Forwarded-Proto: https }, respond: { body: secure } }
      all: { path: "/**", respond: { body: plain } }
"#;
    for (listener, reached) in [("", "plain"), (TRUSTING, "secure")] {
        let proxy = Proxy::start(&config(yaml, &[("LISTENER", &listener)]));
        let response =
            proxy.client().send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n").response();
        assert_eq!(response.text(), reached, "{listener}");
    }
}
