//! The pool of connections to an endpoint: how many there are, and how long each is used.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    thread,
};

use serde_json::json;

use super::support::{Client, Held, Nginx, Origin, Proxy, Tree, config, free_port, until};

fn written(address: &dyn Display, keys: &str) -> String {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"], KEYS } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    config(yaml, &[("ORIGIN", address), ("KEYS", &keys)])
}

fn before(address: &dyn Display, keys: &str) -> Proxy {
    Proxy::start(&written(address, keys))
}

/// An nginx that speaks HTTP/2 in cleartext and says which connection a request came by.
fn h2c() -> Nginx {
    Nginx::start(Tree::new(), free_port(), "http2", "location = /which { return 200 \"$connection\"; }")
}

#[test]
fn a_connection_carries_no_more_requests_than_it_may() {
    let origin = Origin::saying("ok");
    let mut proxy = before(&origin.address(), "pool: { max_requests: 3 }");
    let mut client = proxy.client();
    assert!((0..7).all(|_| client.get("/").status == 200));
    assert_eq!(origin.connections(), 3);
    until("the two that are over are closed", || origin.closed() == 2);
    // The third has carried one.
    proxy.change(&written(&origin.address(), "pool: { max_requests: 1 }"));
    assert!((0..2).all(|_| client.get("/").status == 200));
    assert_eq!(origin.connections(), 5, "the changed number holds for those that are idle");
}

#[test]
fn a_connection_that_is_too_old_is_closed() {
    let origin = Origin::saying("ok");
    let proxy = before(&origin.address(), "pool: { idle: 5m, max_age: 1s }");
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    let opened = origin.connections();
    until("it is closed", || origin.closed() == opened);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(origin.connections(), opened + 1);
}

#[test]
fn over_http2_a_connection_that_is_over_gets_no_new_streams() {
    let nginx = h2c();
    let proxy = before(&nginx.address(), "protocol: h2c, pool: { max_requests: 3 }");
    let mut client = proxy.client();
    let mut by_connection = BTreeMap::<String, usize>::new();
    for _ in 0..7 {
        *by_connection.entry(client.get("/which").text()).or_default() += 1;
    }
    let mut counts: Vec<_> = by_connection.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 3, 3]);
}

#[test]
fn over_http2_a_connection_that_is_over_ends_with_its_streams() {
    let nginx = h2c();
    let long = "0123456789abcdef".repeat(1 << 18);
    nginx.tree().write("root/long", &long);
    let proxy = before(&nginx.address(), "protocol: h2c, pool: { max_requests: 1 }");
    let mut all: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut all {
        client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    // The clients do not read yet: responses are in flight while later connections begin.
    assert_eq!(proxy.client().get("/which").status, 200);
    assert!(all.iter_mut().all(|client| client.response().text() == long));
}

/// A request that was sent to an endpoint, as the nth.
fn sent(proxy: &Proxy, endpoint: &dyn Display, path: &str, nth: u32) -> Client {
    let mut client = proxy.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let series = format!("portolan_upstream_attempts_total{{endpoint=\"{endpoint}\",upstream=\"origin\"}}");
    until("it is tried", || proxy.metric(&series) == Some(f64::from(nth)));
    client
}

fn waits(proxy: &Proxy, endpoint: &dyn Display) -> Option<f64> {
    let labels = format!("{{endpoint=\"{endpoint}\",upstream=\"origin\"}}");
    proxy.metric(&format!("portolan_upstream_connection_wait_seconds_count{labels}"))
}

#[test]
fn where_all_connections_are_in_use_requests_get_the_next_in_turn() {
    let held = Held::new();
    let address = held.origin.address();
    let proxy = before(&address, "pool: { max: 1 }, timeouts: { connect: 5m }");
    let gate = held.hold();
    let mut all: Vec<_> = (1..=4).map(|nth| sent(&proxy, &address, &format!("/{nth}"), nth)).collect();
    until("the first is at the origin", || held.origin.requests().len() == 1);
    drop(gate);
    assert!(all.iter_mut().all(|client| client.response().status == 200));
    assert_eq!(held.origin.connections(), 1);
    let paths = held.origin.requests().into_iter();
    let paths: Vec<_> = paths.map(|request| request.start.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(paths, ["/1", "/2", "/3", "/4"]);
    assert_eq!(waits(&proxy, &address), Some(3.0));
}

#[test]
fn there_are_never_more_connections_than_max() {
    let origin = Origin::saying("ok");
    let proxy = before(&origin.address(), "pool: { max: 3 }, timeouts: { connect: 5m }");
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = proxy.client();
                assert!((0..20).all(|_| client.get("/").status == 200));
            });
        }
    });
    assert!(origin.connections() <= 3, "{} connections", origin.connections());
}

#[test]
fn who_waits_for_a_connection_for_too_long_is_rejected() {
    let held = Held::new();
    let address = held.origin.address();
    let proxy = before(&address, "pool: { max: 1 }, timeouts: { connect: 200ms }");
    let gate = held.hold();
    let mut first = sent(&proxy, &address, "/first", 1);
    until("the first is at the origin", || held.origin.requests().len() == 1);
    let late = sent(&proxy, &address, "/late", 2).response();
    assert_eq!((late.status, late.field("retry-after")), (503, Some("1")));
    let line = proxy.access_line_of("/late");
    assert_eq!((&line["reason"], &line["cause"]), (&json!("upstream_overloaded"), &json!("pool_timeout")));
    assert_eq!(waits(&proxy, &address), Some(1.0));
    drop(gate);
    assert_eq!(first.response().status, 200);
    assert_eq!(proxy.client().get("/").status, 200);
}

#[test]
fn a_changed_max_applies_to_those_that_wait() {
    let held = Held::new();
    let address = held.origin.address();
    let keys = "pool: { max: 1 }, timeouts: { connect: 5m }";
    let mut proxy = before(&address, keys);
    let gate = held.hold();
    let mut all = [sent(&proxy, &address, "/1", 1), sent(&proxy, &address, "/2", 2)];
    until("one is at the origin", || held.origin.requests().len() == 1);
    proxy.change(&written(&address, "pool: { max: 2 }, timeouts: { connect: 5m }"));
    until("both are at the origin", || held.origin.requests().len() == 2);
    drop(gate);
    assert!(all.iter_mut().all(|client| client.response().status == 200));
}

#[test]
fn over_http2_streams_share_the_connections_that_there_may_be() {
    let more = "http2_max_concurrent_streams 2; location = /which { return 200 \"$connection\"; }";
    let nginx = Nginx::start(Tree::new(), free_port(), "http2", more);
    let proxy = before(&nginx.address(), "protocol: h2c, pool: { max: 2 }, timeouts: { connect: 5m }");
    let connections: BTreeSet<String> = thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = proxy.client();
                    let answers = (0..20).map(|_| client.get("/which"));
                    answers.map(|answer| (answer.status, answer.text())).collect::<Vec<_>>()
                })
            })
            .collect();
        let answers = clients.into_iter().flat_map(|client| client.join().unwrap());
        answers
            .map(|(status, connection)| {
                assert_eq!(status, 200);
                connection
            })
            .collect()
    });
    assert!(connections.len() <= 2, "{connections:?}");
}

#[test]
fn connections_are_kept_ready_and_replaced_when_they_end() {
    let origin = Origin::saying("ok");
    let proxy = before(&origin.address(), "pool: { min: 3, max: 5, idle: 5m }");
    until("they are there before any request", || origin.connections() == 3);
    let mut client = proxy.client();
    assert!((0..5).all(|_| client.get("/").status == 200));
    assert_eq!(origin.connections(), 3);
    let origin = Origin::saying("ok");
    let proxy = before(&origin.address(), "pool: { min: 2, idle: 1s }");
    until("they are replaced", || origin.closed() >= 2 && origin.connections() >= 4);
    drop(proxy);
}

#[test]
fn http2_connections_are_kept_ready_too() {
    let nginx = h2c();
    let proxy = before(&nginx.address(), "protocol: h2c, pool: { min: 2 }");
    let mut client = proxy.client();
    until("requests take turns between two", || {
        let connections: BTreeSet<_> = (0..4).map(|_| client.get("/which").text()).collect();
        connections.len() == 2
    });
}
