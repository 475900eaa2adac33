//! How many requests an upstream gets at once: who waits, who is rejected, and when a place is free again.

use serde_json::json;

use super::support::{Client, Held, Origin, Proxy, Reply, config, free_port, until};

fn written(endpoints: &[&dyn std::fmt::Display], limits: &str) -> String {
    let list: Vec<String> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: [ENDPOINTS], limits: LIMITS } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    config(yaml, &[("ENDPOINTS", &list.join(", ")), ("LIMITS", &limits)])
}

fn before(origin: &Origin, limits: &str) -> Proxy {
    Proxy::start(&written(&[&origin.address()], limits))
}

fn ask(proxy: &Proxy, path: &str) -> Client {
    let mut client = proxy.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

/// A request that has come to the origin, which is held.
fn asked(held: &Held, proxy: &Proxy, path: &str) -> Client {
    let before = held.origin.requests().len();
    let client = ask(proxy, path);
    until("it is at the origin", || held.origin.requests().len() > before);
    client
}

/// A request that waits in the queue, behind so many.
fn queued(proxy: &Proxy, path: &str, others: usize) -> Client {
    let client = ask(proxy, path);
    wait_for(proxy, others + 1);
    client
}

fn wait_for(proxy: &Proxy, queued: usize) {
    let series = "portolan_upstream_queued_requests{upstream=\"origin\"}";
    until("so many wait", || proxy.metric(series) == Some(queued as f64));
}

fn rejected(proxy: &Proxy, cause: &str) -> Option<f64> {
    proxy.metric(&format!("portolan_upstream_overloaded_total{{cause=\"{cause}\",upstream=\"origin\"}}"))
}

fn paths(origin: &Origin) -> Vec<String> {
    let paths = origin.requests().into_iter();
    paths.map(|request| request.start.split(' ').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn what_is_too_much_waits_in_turn_and_the_newest_is_rejected_where_the_queue_is_full() {
    let held = Held::new();
    let proxy = before(&held.origin, "{ in_flight: 1, queue: 2, queue_timeout: 5m }");
    let gate = held.hold();
    let mut all = vec![asked(&held, &proxy, "/a")];
    all.push(queued(&proxy, "/b", 0));
    all.push(queued(&proxy, "/c", 1));
    let full = ask(&proxy, "/d").response();
    assert_eq!((full.status, full.field("retry-after")), (503, Some("1")));
    let line = proxy.access_line_of("/d");
    assert_eq!((&line["reason"], &line["cause"]), (&json!("upstream_overloaded"), &json!("queue_full")));
    assert_eq!(line["attempts"], json!(null));
    drop(gate);
    assert!(all.iter_mut().all(|client| client.response().status == 200));
    assert_eq!(paths(&held.origin), ["/a", "/b", "/c"]);
    assert_eq!(proxy.access_line_of("/a")["queued_ms"], json!(null));
    assert!(proxy.access_line_of("/c")["queued_ms"].as_f64().is_some_and(|waited| waited > 0.0));
    assert_eq!((rejected(&proxy, "queue_full"), rejected(&proxy, "queue_timeout")), (Some(1.0), Some(0.0)));
    assert_eq!(proxy.metric("portolan_upstream_queue_seconds_count{upstream=\"origin\"}"), Some(2.0));
    wait_for(&proxy, 0);
}

#[test]
fn the_newest_is_served_first_and_the_oldest_is_rejected_where_that_is_the_order() {
    let held = Held::new();
    let proxy =
        before(&held.origin, "{ in_flight: 1, queue: 2, queue_timeout: 5m, queue_order: newest_first }");
    let gate = held.hold();
    let mut served = asked(&held, &proxy, "/a");
    let mut oldest = queued(&proxy, "/b", 0);
    let mut second = queued(&proxy, "/c", 1);
    let mut newest = ask(&proxy, "/d");
    let full = oldest.response();
    assert_eq!((full.status, full.field("retry-after")), (503, Some("1")));
    let line = proxy.access_line_of("/b");
    assert_eq!((&line["reason"], &line["cause"]), (&json!("upstream_overloaded"), &json!("queue_full")));
    assert!(line["queued_ms"].as_f64().is_some_and(|waited| waited > 0.0), "{line}");
    drop(gate);
    for client in [&mut served, &mut newest, &mut second] {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(paths(&held.origin), ["/a", "/d", "/c"]);
    assert_eq!(rejected(&proxy, "queue_full"), Some(1.0));
    wait_for(&proxy, 0);
}

#[test]
fn requests_of_a_higher_priority_are_served_first_and_rejected_last() {
    let held = Held::new();
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams:
  origin:
    endpoints: ["ORIGIN"]
    limits: { in_flight: 1, queue: 3, queue_timeout: 5m, queue_order: priority }
hosts:
  all:
    names: ["*"]
    routes:
      high: { path: "/high/**", proxy: { upstream: origin, priority: high } }
      low: { path: "/low/**", proxy: { upstream: origin, priority: low } }
      normal: { path: "/**", proxy: { upstream: origin } }
"#;
    let proxy = Proxy::start(&config(yaml, &[("ORIGIN", &held.origin.address())]));
    let gate = held.hold();
    let mut served = asked(&held, &proxy, "/first");
    let mut low = [queued(&proxy, "/low/1", 0), queued(&proxy, "/low/2", 1)];
    let mut normal = queued(&proxy, "/1", 2);
    assert_eq!(ask(&proxy, "/low/3").response().status, 503, "it would be the last");
    let mut high = ask(&proxy, "/high/1");
    assert_eq!(low[1].response().status, 503);
    let mut other = ask(&proxy, "/high/2");
    assert_eq!(low[0].response().status, 503);
    assert_eq!(ask(&proxy, "/2").response().status, 503, "among equals the newest is rejected");
    drop(gate);
    for client in [&mut served, &mut high, &mut other, &mut normal] {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(paths(&held.origin), ["/first", "/high/1", "/high/2", "/1"]);
    assert_eq!(rejected(&proxy, "queue_full"), Some(4.0));
    wait_for(&proxy, 0);
}

#[test]
fn without_a_queue_nobody_waits() {
    let held = Held::new();
    let proxy = before(&held.origin, "{ in_flight: 1 }");
    let gate = held.hold();
    let mut served = asked(&held, &proxy, "/a");
    assert_eq!(ask(&proxy, "/b").response().status, 503);
    drop(gate);
    assert_eq!(served.response().status, 200);
    until("there is room", || ask(&proxy, "/c").response().status == 200);
}

#[test]
fn who_waits_for_too_long_is_rejected() {
    let held = Held::new();
    let proxy = before(&held.origin, "{ in_flight: 1, queue: 5, queue_timeout: 50ms }");
    let _gate = held.hold();
    let _served = asked(&held, &proxy, "/a");
    let late = ask(&proxy, "/b").response();
    assert_eq!((late.status, late.field("retry-after")), (503, Some("1")));
    let line = proxy.access_line_of("/b");
    assert_eq!((&line["reason"], &line["cause"]), (&json!("upstream_overloaded"), &json!("queue_timeout")));
    assert!(line["queued_ms"].as_f64().is_some_and(|waited| waited >= 50.0), "{line}");
    assert_eq!(rejected(&proxy, "queue_timeout"), Some(1.0));
}

#[test]
fn a_client_that_disconnects_leaves_the_queue() {
    let held = Held::new();
    let proxy = before(&held.origin, "{ in_flight: 1, queue: 1, queue_timeout: 5m }");
    let gate = held.hold();
    let mut first = asked(&held, &proxy, "/a");
    let gone = queued(&proxy, "/b", 0);
    drop(gone);
    wait_for(&proxy, 0);
    let mut next = queued(&proxy, "/c", 0);
    drop(gate);
    assert_eq!((first.response().status, next.response().status), (200, 200));
    assert_eq!(paths(&held.origin), ["/a", "/c"]);
    assert_eq!(proxy.access_line_of("/b")["reason"], "client_gone");
}

#[test]
fn a_request_keeps_its_place_over_retries() {
    let held = Held::new();
    let dead = format!("127.0.0.1:{}", free_port());
    let limits = "{ in_flight: 1, queue: 1, queue_timeout: 5m }";
    let proxy = Proxy::start(&written(&[&dead, &held.origin.address()], limits));
    let gate = held.hold();
    let mut all = [asked(&held, &proxy, "/a"), queued(&proxy, "/b", 0)];
    drop(gate);
    assert!(all.iter_mut().all(|client| client.response().status == 200));
    for nth in 0..10 {
        assert_eq!(proxy.client().get(&format!("/{nth}")).status, 200, "every place came back");
    }
}

#[test]
fn a_tunnel_keeps_its_place_until_it_ends() {
    let origin = Origin::serving_early(|exchange| {
        if exchange.request.field("upgrade").is_none() {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            return Reply::Keep;
        }
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
        exchange.read_to_end();
        Reply::Close
    });
    let proxy = before(&origin, "{ in_flight: 1 }");
    let mut tunnel = proxy.client();
    tunnel.send("GET /t HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
    assert_eq!(tunnel.response_head().status, 101);
    assert_eq!(ask(&proxy, "/a").response().status, 503);
    drop(tunnel);
    until("there is room", || ask(&proxy, "/b").response().status == 200);
}

#[test]
fn changed_numbers_apply_at_once() {
    let held = Held::new();
    let mut proxy = before(&held.origin, "{ in_flight: 1, queue: 5, queue_timeout: 5m }");
    let gate = held.hold();
    let mut all = vec![asked(&held, &proxy, "/a")];
    all.push(queued(&proxy, "/b", 0));
    all.push(queued(&proxy, "/c", 1));
    let change = |limits| written(&[&held.origin.address()], limits);
    proxy.change(&change("{ in_flight: 2, queue: 5, queue_timeout: 5m }"));
    until("one that waited is at the origin", || paths(&held.origin).len() == 2);
    wait_for(&proxy, 1);
    // Two are in flight: more than may be now.
    proxy.change(&change("{ in_flight: 1, queue: 1, queue_timeout: 5m }"));
    assert_eq!(ask(&proxy, "/d").response().status, 503, "one waits, as may");
    proxy.change(&change("{}"));
    until("the queue is empty", || paths(&held.origin).len() == 3);
    drop(gate);
    assert!(all.iter_mut().all(|client| client.response().status == 200));
}
