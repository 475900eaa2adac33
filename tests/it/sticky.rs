//! Sticky sessions: a client stays at its endpoint while that is usable, and no cookie is an error.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::json;

use super::support::{
    Client, Origin, Outcome, Proxy, Reply, Response, config, eventually, free_port, portolan, until,
};

const CONFIGURATION: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { endpoints: [ENDPOINTS], sticky: { STICKY } KEYS } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: app } } } } }
"#;

const KEY: &str = "key: \"0123456789abcdef0123456789abcdef\"";

fn written(endpoints: &[String], sticky: &str, keys: &str) -> String {
    config(CONFIGURATION, &[("ENDPOINTS", &endpoints.join(", ")), ("STICKY", &sticky), ("KEYS", &keys)])
}

fn quoted(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(|address| format!("\"{address}\"")).collect()
}

/// Three origins that say a, b and c.
fn origins() -> [Origin; 3] {
    ["a", "b", "c"].map(Origin::saying)
}

fn addresses(origins: &[Origin]) -> Vec<SocketAddr> {
    origins.iter().map(Origin::address).collect()
}

fn ask(client: &mut Client, path: &str, cookie: &str) -> Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n")).response()
}

/// The pair of a response's cookie, as a browser sends it back.
fn given(response: &Response) -> Option<String> {
    Some(response.field("set-cookie")?.split(';').next()?.to_owned())
}

/// A new client: the endpoint that it is at, and its cookie.
fn arrive(proxy: &Proxy) -> (String, String) {
    let response = proxy.client().get("/");
    (response.text(), given(&response).expect("a cookie"))
}

/// A new client at this endpoint: its cookie.
fn arrive_at(proxy: &Proxy, endpoint: &str) -> String {
    eventually("a client is at the endpoint", || {
        let (at, cookie) = arrive(proxy);
        (at == endpoint).then_some(cookie)
    })
}

fn order(proxy: &Proxy, arguments: &[&str]) -> Outcome {
    let socket = proxy.tree().path("admin.sock").to_string_lossy().into_owned();
    let mut line = vec!["upstream"];
    line.extend(arguments);
    line.extend(["--socket", &socket]);
    portolan(&proxy.tree().path(""), &line)
}

fn counted(proxy: &Proxy, outcome: &str) -> f64 {
    let series = format!("portolan_upstream_sticky_requests_total{{outcome=\"{outcome}\",upstream=\"app\"}}");
    proxy.metric(&series).unwrap_or_default()
}

fn rejected(proxy: &Proxy, cause: &str) -> f64 {
    let series =
        format!("portolan_upstream_sticky_cookies_rejected_total{{cause=\"{cause}\",upstream=\"app\"}}");
    proxy.metric(&series).unwrap_or_default()
}

#[test]
fn a_client_stays_with_every_balancer() {
    let origins = origins();
    for balance in [
        "round_robin",
        "random_two",
        "least_requests",
        "ewma",
        "{ hash: path }",
        "{ consistent_hash: path }",
        "{ consistent_hash: { key: path, bound: 125% } }",
    ] {
        let keys = format!(", balance: {balance}, limits: {{ in_flight: 10, queue: 5 }}, pool: {{ max: 4 }}");
        let proxy = Proxy::start(&written(&quoted(&addresses(&origins)), "", &keys));
        let mut client = proxy.client();
        for nth in 0..3 {
            let first = client.get(&format!("/first/{nth}"));
            let cookie = given(&first).expect("a cookie");
            for again in 0..8 {
                let response = ask(&mut client, &format!("/{nth}/{again}"), &cookie);
                assert_eq!((response.text(), given(&response)), (first.text(), None), "{balance}");
            }
        }
        assert_eq!((counted(&proxy, "new"), counted(&proxy, "hit")), (3.0, 24.0), "{balance}");
    }
}

#[test]
fn the_cookie_has_its_attributes_and_does_not_go_upstream() {
    let origin = Origin::saying("a");
    let proxy = Proxy::start(&written(&quoted(&[origin.address()]), "", ""));
    let field = proxy.client().get("/").field("set-cookie").unwrap().to_owned();
    let (pair, attributes) = field.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
    assert!(!pair.contains(&origin.address().port().to_string()), "{pair}");
    let value = pair.strip_prefix("PORTOLAN_ROUTE=").unwrap();
    assert_eq!(value.len(), 75);

    ask(&mut proxy.client(), "/sent", &format!("a=1; {pair}; b=2"));
    ask(&mut proxy.client(), "/alone", pair);
    let cookies = |path: &str| {
        let requests = origin.requests();
        let request = requests.iter().find(|request| request.start.contains(path)).unwrap();
        request.field("cookie").map(str::to_owned)
    };
    assert_eq!((cookies("/sent").as_deref(), cookies("/alone")), (Some("a=1; b=2"), None));
    assert_eq!(proxy.access_line_of("/")["sticky"], "new");
    assert_eq!(proxy.access_line_of("/sent")["sticky"], "hit");

    let sticky = "cookie: site, ttl: 2d, path: /shop, domain: example.com, secure: true, http_only: false, same_site: none";
    let proxy = Proxy::start(&written(&quoted(&[origin.address()]), sticky, ""));
    let field = proxy.client().get("/").field("set-cookie").unwrap().to_owned();
    let (pair, attributes) = field.split_once("; ").unwrap();
    assert!(pair.starts_with("site="), "{pair}");
    assert_eq!(attributes, "Path=/shop; Domain=example.com; Max-Age=172800; SameSite=None; Secure");
}

#[test]
fn cookies_that_are_not_valid_are_ignored_and_counted() {
    let origins = origins();
    let text = written(&quoted(&addresses(&origins)), KEY, "");
    let proxy = Proxy::start(&text);
    let foreign = Proxy::start(&text.replace("0123456789abcdef", "fedcba9876543210"));
    let (_, cookie) = arrive(&proxy);
    let (_, of_other_key) = arrive(&foreign);
    let forged = cookie.replace("PORTOLAN_ROUTE=A", "PORTOLAN_ROUTE=B");
    let long = format!("PORTOLAN_ROUTE={}", "A".repeat(4000));
    let mut expected = std::collections::BTreeMap::new();
    for (cause, cookie) in [
        ("signature", of_other_key.as_str()),
        ("signature", &forged),
        ("malformed", "PORTOLAN_ROUTE="),
        ("malformed", "PORTOLAN_ROUTE=\"x\""),
        ("malformed", "PORTOLAN_ROUTE=127.0.0.1:80"),
        ("malformed", &cookie[..cookie.len() - 1]),
        ("malformed", &long),
    ] {
        let response = ask(&mut proxy.client(), "/", cookie);
        assert_eq!(response.status, 200, "{cookie}");
        let new = given(&response).expect("a new cookie");
        assert_eq!(ask(&mut proxy.client(), "/", &new).text(), response.text());
        *expected.entry(cause).or_insert(0.0) += 1.0;
    }
    for (cause, count) in expected {
        assert_eq!(rejected(&proxy, cause), count, "{cause}");
    }
    // Of several cookies of one name the first valid one counts.
    let at = ask(&mut proxy.client(), "/", &cookie).text();
    let both = format!("PORTOLAN_ROUTE=garbage; {cookie}");
    assert_eq!(ask(&mut proxy.client(), "/", &both).text(), at);
    assert!(origins.iter().flat_map(Origin::requests).all(|request| request.field("cookie").is_none()));
}

#[test]
fn a_cookie_expires_and_is_renewed_past_half_of_its_time() {
    let origins = origins();
    let proxy = Proxy::start(&written(&quoted(&addresses(&origins)), "ttl: 4s", ""));
    let (at, cookie) = arrive(&proxy);
    let mut client = proxy.client();
    let renewed = eventually("the cookie is renewed", || {
        let response = ask(&mut client, "/", &cookie);
        assert_eq!(response.text(), at, "it stays at its endpoint");
        given(&response)
    });
    assert_ne!(renewed, cookie);
    until("the old cookie has expired", || {
        ask(&mut client, "/", &cookie);
        rejected(&proxy, "expired") > 0.0
    });
}

#[test]
fn clients_stay_over_reloads_and_changes_of_the_endpoints() {
    let [a, b, c] = origins();
    let text = |endpoints: &[SocketAddr]| written(&quoted(endpoints), "", "");
    let mut proxy = Proxy::start(&text(&[a.address(), b.address()]));
    let at_a = arrive_at(&proxy, "a");
    proxy.change(&text(&[c.address(), b.address(), a.address()]));
    let mut client = proxy.client();
    assert!((0..6).all(|_| ask(&mut client, "/", &at_a).text() == "a"), "an endpoint was added");
    proxy.change(&text(&[c.address(), b.address()]));
    let moved = ask(&mut proxy.client(), "/moved", &at_a);
    assert_ne!(moved.text(), "a");
    let cookie = given(&moved).expect("a new cookie");
    assert_eq!(ask(&mut proxy.client(), "/", &cookie).text(), moved.text());
    assert_eq!(proxy.access_line_of("/moved")["sticky"], "moved");
}

#[test]
fn instances_with_one_key_share_their_clients() {
    let origins = origins();
    let endpoints = quoted(&addresses(&origins));
    let text = written(&endpoints, KEY, "");
    let (one, two) = (Proxy::start(&text), Proxy::start(&text));
    let (at, cookie) = arrive(&one);
    assert!((0..6).all(|_| ask(&mut two.client(), "/", &cookie).text() == at));
    let url = "http://a/";
    let field = format!("Cookie: {cookie}");
    let directory = one.tree().path("");
    let explained = |file: &str| {
        portolan(&directory, &["explain", "GET", url, "--listener", "web", "-H", &field, "--config", file])
            .stdout
    };
    let said = explained("portolan.yaml");
    let address = addresses(&origins)[["a", "b", "c"].iter().position(|word| *word == at).unwrap()];
    assert!(said.contains(&format!("cookie PORTOLAN_ROUTE for 3600s, names {address}\n")), "{said}");

    let alone = Proxy::start(&written(&endpoints, "", ""));
    ask(&mut alone.client(), "/", &cookie);
    assert_eq!(rejected(&alone, "signature"), 1.0, "it has a key of its own");
    one.tree().write("generated.yaml", written(&endpoints, "", ""));
    let said = explained("generated.yaml");
    assert!(said.contains("the key is generated at start"), "{said}");
    let sticky = |proxy: &Proxy| proxy.status()["upstreams"][0]["sticky"].clone();
    assert_eq!(
        sticky(&alone),
        json!({ "cookie": "PORTOLAN_ROUTE", "ttl_seconds": 3600, "key": "generated" })
    );
    assert_eq!(sticky(&one)["key"], "configured");
}

#[test]
fn a_client_of_an_endpoint_that_is_gone_is_moved() {
    let [a, b, _] = origins();
    let proxy = Proxy::start(&written(&quoted(&[a.address(), b.address()]), "", ""));
    let at_a = arrive_at(&proxy, "a");
    drop(a);
    let response = ask(&mut proxy.client(), "/moved", &at_a);
    assert_eq!((response.status, response.text().as_str()), (200, "b"));
    let cookie = given(&response).expect("a new cookie");
    let line = proxy.access_line_of("/moved");
    assert_eq!((&line["sticky"], &line["attempts"]), (&json!("moved"), &json!(2)), "it was tried there");
    assert_eq!(ask(&mut proxy.client(), "/", &cookie).text(), "b");
}

#[test]
fn a_client_of_an_unhealthy_or_ejected_endpoint_is_moved() {
    let [a, b, _] = origins();
    for keys in [
        ", outlier: false, health: { http: { path: /ready }, interval: 50ms, unhealthy_after: 1 }",
        ", outlier: { consecutive_failures: 1, eject_for: 1h }",
    ] {
        let fails = Arc::new(AtomicBool::new(false));
        let of_origin = fails.clone();
        let failing = Origin::serving(move |exchange| {
            let status = if of_origin.load(Ordering::Acquire) { 503 } else { 200 };
            exchange.send(format!("HTTP/1.1 {status} x\r\nContent-Length: 1\r\n\r\nf"));
            Reply::Keep
        });
        let endpoints = quoted(&[a.address(), b.address(), failing.address()]);
        let proxy = Proxy::start(&written(&endpoints, "", keys));
        let cookie = arrive_at(&proxy, "f");
        fails.store(true, Ordering::Release);
        let moved = eventually("the client is moved", || {
            let response = ask(&mut proxy.client(), "/", &cookie);
            (response.text() != "f").then_some(response)
        });
        let cookie = given(&moved).expect("a new cookie");
        assert_eq!(ask(&mut proxy.client(), "/", &cookie).text(), moved.text(), "{keys}");
    }
}

#[test]
fn the_cookie_names_the_endpoint_that_answered_with_any_status() {
    let bad = Origin::replying(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nbad");
    let good = Origin::saying("good");
    let retry = ", retry: { when: [503], budget: 100%, budget_floor: 1000 }";
    let proxy = Proxy::start(&written(&quoted(&[bad.address(), good.address()]), "", retry));
    for _ in 0..6 {
        let response = proxy.client().get("/");
        assert_eq!((response.status, response.text().as_str()), (200, "good"));
        let cookie = given(&response).expect("a cookie");
        let asked = bad.requests().len();
        assert_eq!(ask(&mut proxy.client(), "/", &cookie).text(), "good");
        assert_eq!(bad.requests().len(), asked, "its endpoint is asked first");
    }
    let proxy = Proxy::start(&written(&quoted(&[bad.address()]), "", ", outlier: false"));
    let response = proxy.client().get("/");
    assert_eq!((response.status, response.text().as_str()), (503, "bad"));
    assert!(given(&response).is_some());
    let proxy = Proxy::start(&written(&[format!("\"127.0.0.1:{}\"", free_port())], "", ""));
    let response = proxy.client().get("/none");
    assert_eq!((response.status, given(&response)), (502, None), "no endpoint answered");
    assert!(proxy.access_line_of("/none")["sticky"].is_null());
}

#[test]
fn a_drained_endpoint_keeps_its_clients_and_gets_no_new_ones() {
    let [a, b, _] = origins();
    let mut proxy = Proxy::start(&written(&quoted(&[a.address(), b.address()]), "", ""));
    let at_a = arrive_at(&proxy, "a");
    let address = a.address().to_string();
    assert_eq!(order(&proxy, &["drain", "app", &address]).code, 0);
    let stays = |proxy: &Proxy| (0..6).all(|_| ask(&mut proxy.client(), "/", &at_a).text() == "a");
    let gets_none = |proxy: &Proxy| (0..6).all(|_| arrive(proxy).0 == "b");
    assert!(stays(&proxy) && gets_none(&proxy));
    proxy.change(&written(&quoted(&[a.address(), b.address()]), "", ", slow_start: 1s"));
    assert!(stays(&proxy) && gets_none(&proxy), "a reload keeps it drained");
    let state =
        |proxy: &Proxy| proxy.status()["upstreams"][0]["endpoints"][0]["drained_of_sticky_clients"].clone();
    assert_eq!(state(&proxy), false);

    assert_eq!(order(&proxy, &["drain", "app", &address, "--all"]).code, 0);
    assert_eq!(ask(&mut proxy.client(), "/", &at_a).text(), "b");
    assert_eq!(state(&proxy), true);
    assert_eq!(order(&proxy, &["undrain", "app", &address]).code, 0);
    assert!(stays(&proxy));
}

#[test]
fn an_endpoint_with_weight_0_keeps_its_clients_and_gets_no_new_ones() {
    let [a, b, _] = origins();
    let name = format!("{{ dns: \"localhost:{}\", prefer: v4 }}", b.address().port());
    let text = |of_a: String| written(&[of_a, name.clone()], "", "");
    let mut proxy = Proxy::start(&text(format!("\"{}\"", a.address())));
    let (at_a, at_b) = (arrive_at(&proxy, "a"), arrive_at(&proxy, "b"));
    proxy.change(&text(format!("{{ address: \"{}\", weight: 0 }}", a.address())));
    let mut client = proxy.client();
    assert!((0..6).all(|_| ask(&mut client, "/", &at_a).text() == "a"));
    assert!(
        (0..6).all(|_| ask(&mut client, "/", &at_b).text() == "b"),
        "an address of a name keeps its clients"
    );
    assert!((0..6).all(|_| arrive(&proxy).0 == "b"));
    assert_eq!(proxy.status()["upstreams"][0]["endpoints"][0]["weight"], 0);
    let given = order(&proxy, &["weight", "app", &a.address().to_string(), "5"]);
    assert_eq!(given.code, 0, "{given:?}");
    arrive_at(&proxy, "a");
}
