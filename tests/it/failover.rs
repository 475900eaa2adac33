//! Which endpoints are used: by priority and zone, and by an operator's order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
};

use serde_json::json;

use super::support::{DEADLINE, Origin, Proxy, Reply, config, free_port, portolan, until};

fn written(endpoints: &str, keys: &str) -> String {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { endpoints: [ENDPOINTS] KEYS } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: app } } } } }
"#;
    config(yaml, &[("ENDPOINTS", &endpoints), ("KEYS", &keys)])
}

/// How often each origin answered, by what it says.
fn tally(proxy: &Proxy, requests: usize) -> BTreeMap<String, usize> {
    let mut client = proxy.client();
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(client.get("/").text()).or_default() += 1;
    }
    counts
}

fn only(proxy: &Proxy, word: &str) -> bool {
    tally(proxy, 10).keys().collect::<Vec<_>>() == [word]
}

/// An origin whose health check answers a status that changes.
fn checked(word: &'static str, status: &Arc<AtomicU16>) -> Origin {
    let status = status.clone();
    Origin::serving(move |exchange| {
        let checks = exchange.request.start.contains("/ready");
        let status = if checks { status.load(Ordering::Acquire) } else { 200 };
        exchange.send(format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{word}", word.len()));
        Reply::Keep
    })
}

const HEALTH: &str =
    ", health: { http: { path: /ready }, interval: 50ms, unhealthy_after: 1, healthy_after: 1 }";

#[test]
fn a_backup_serves_while_no_other_can() {
    let status = Arc::new(AtomicU16::new(200));
    let (main, backup) = (checked("main", &status), Origin::saying("backup"));
    let endpoints = format!("{{ address: \"{}\", backup: true }}, \"{}\"", backup.address(), main.address());
    let proxy = Proxy::start(&written(&endpoints, HEALTH));
    assert!(only(&proxy, "main"));
    status.store(503, Ordering::Release);
    until("the backup serves", || only(&proxy, "backup"));
    status.store(200, Ordering::Release);
    until("the main endpoint serves again", || only(&proxy, "main"));
}

#[test]
fn addresses_of_a_name_have_its_priority() {
    let status = Arc::new(AtomicU16::new(200));
    let (main, backup) = (checked("main", &status), Origin::saying("backup"));
    for rank in ["backup: true", "priority: 1", "zone: b"] {
        let endpoints = format!(
            "{{ dns: \"localhost:{}\", prefer: v4, {rank} }}, {{ address: \"{}\", zone: a }}",
            backup.address().port(),
            main.address()
        );
        let proxy = Proxy::start(&format!("zone: a\n{}", written(&endpoints, HEALTH)));
        assert!(only(&proxy, "main"), "{rank}");
        status.store(503, Ordering::Release);
        until("the addresses of the name serve", || only(&proxy, "backup"));
        status.store(200, Ordering::Release);
        until("the main endpoint serves again", || only(&proxy, "main"));
    }
}

#[test]
fn the_next_priority_serves_below_the_failover_threshold() {
    let dead = free_port();
    let (first, second) = (Origin::saying("first"), Origin::saying("second"));
    let endpoints = format!(
        "\"{}\", \"127.0.0.1:{dead}\", {{ address: \"{}\", priority: 1 }}",
        first.address(),
        second.address()
    );
    let health = ", health: { tcp: {}, interval: 50ms, unhealthy_after: 1 }";
    let half = Proxy::start(&written(&endpoints, &format!("{health}, failover_threshold: 50%")));
    until("one is unhealthy", || half.status()["upstreams"][0]["endpoints"][1]["healthy"] == json!(false));
    assert!(only(&half, "first"), "half are usable");
    let more = Proxy::start(&written(&endpoints, &format!("{health}, failover_threshold: 60%")));
    until("the second priority serves", || only(&more, "second"));
    let reloaded = written(&endpoints, health);
    let mut more = more;
    more.change(&reloaded);
    assert!(only(&more, "first"));
}

#[test]
fn the_own_zone_is_used_first() {
    let status = Arc::new(AtomicU16::new(200));
    let (near, far) = (checked("near", &status), Origin::saying("far"));
    let endpoints = format!(
        "{{ address: \"{}\", zone: b }}, {{ address: \"{}\", zone: a }}",
        far.address(),
        near.address()
    );
    let proxy = Proxy::start(&format!("zone: a\n{}", written(&endpoints, HEALTH)));
    assert!(only(&proxy, "near"));
    status.store(503, Ordering::Release);
    until("the other zone serves", || only(&proxy, "far"));
}

#[test]
fn a_drained_endpoint_gets_no_new_requests_and_ends_those_in_flight() {
    let (release, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let slow = Origin::serving(move |exchange| {
        if exchange.request.start.contains("/slow") {
            let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
        }
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
        Reply::Keep
    });
    let other = Origin::saying("other");
    let text =
        written(&format!("\"{}\", \"{}\"", slow.address(), other.address()), ", balance: least_requests");
    let mut proxy = Proxy::start(&text);
    let mut client = proxy.client();
    let asked =
        |origin: &Origin| origin.requests().iter().filter(|request| request.start.contains("/slow")).count();
    // The balancer may choose either: requests are sent until the slow one has one.
    let mut waiting = loop {
        let before = asked(&other);
        let mut waiting = proxy.client();
        waiting.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        until("it arrives", || asked(&slow) > 0 || asked(&other) > before);
        if asked(&slow) > 0 {
            break waiting;
        }
        waiting.response();
    };
    let order = |arguments: &[&str]| {
        let address = slow.address().to_string();
        let socket = proxy.tree().path("admin.sock").to_string_lossy().into_owned();
        let mut line = vec!["upstream", arguments[0], "app", &address];
        line.extend(&arguments[1..]);
        line.extend(["--socket", &socket]);
        portolan(proxy.tree().path("").as_path(), &line)
    };
    let outcome = order(&["drain"]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("is drained"), "{}", outcome.stdout);
    assert!((0..20).all(|_| client.get("/").text() == "other"));
    let endpoint = || proxy.status()["upstreams"][0]["endpoints"][0].clone();
    assert_eq!((&endpoint()["drained"], &endpoint()["in_flight"]), (&json!(true), &json!(1)));
    drop(release);
    assert_eq!(waiting.response().text(), "slow", "what is in flight ends");
    assert_eq!(order(&["undrain"]).code, 0);
    until("it is used again", || tally(&proxy, 10).contains_key("slow"));

    assert_eq!(order(&["drain"]).code, 0);
    let reloaded = text.replace("balance: least_requests", "balance: round_robin");
    proxy.change(&reloaded);
    assert!(only(&proxy, "other"), "a reload keeps it drained");
}

#[test]
fn an_operator_gives_an_endpoint_another_weight() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let text = written(&format!("\"{}\", \"{}\"", a.address(), b.address()), "");
    let mut proxy = Proxy::start(&text);
    let address = a.address().to_string();
    let socket = proxy.tree().path("admin.sock").to_string_lossy().into_owned();
    let directory = proxy.tree().path("");
    let weigh = |weight: &str| {
        portolan(&directory, &["upstream", "weight", "app", &address, weight, "--socket", &socket])
    };
    assert_eq!(weigh("3").code, 0);
    assert_eq!(tally(&proxy, 40)["a"], 30);
    proxy.change(&text.replace("bind:", "limits: { connections: 100 }, bind:"));
    assert_eq!(tally(&proxy, 40)["a"], 30, "a reload keeps it");
    assert_eq!(proxy.status()["upstreams"][0]["endpoints"][0]["weight"], 3);
    assert_eq!(weigh("configured").code, 0);
    assert_eq!(tally(&proxy, 40)["a"], 20);
    let unknown = portolan(&directory, &["upstream", "drain", "app", "127.0.0.1:1", "--socket", &socket]);
    assert_ne!(unknown.code, 0);
    assert!(unknown.stderr.contains("upstream app has no endpoint 127.0.0.1:1"), "{}", unknown.stderr);
}
