//! How many requests may be in flight: who is refused, and when a place is free again.

use super::support::{Client, Held, Origin, Proxy, config, until};

/// A request that has come to the origin, which is held.
fn asked(held: &Held, proxy: &Proxy, key: &str) -> Client {
    let before = held.origin.requests().len();
    let mut client = proxy.client();
    client.send(request(key));
    until("it is at the origin", || held.origin.requests().len() > before);
    client
}

fn request(key: &str) -> String {
    format!("GET /{key} HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n")
}

fn tree(limit: &str, origin: &Origin) -> String {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    middleware: [{ concurrency: LIMIT }]
    routes: { all: { path: "/**", proxy: { upstream: origin } } }
"#;
    config(yaml, &[("LIMIT", &limit), ("ORIGIN", &origin.address())])
}

/// Whether somebody else is refused at once.
fn refuses(proxy: &Proxy, key: &str) -> bool {
    proxy.client().send(request(key)).response().status == 503
}

#[test]
fn what_is_too_much_is_refused_and_what_ends_makes_room() {
    let held = Held::new();
    let proxy = Proxy::start(&tree("{ max: 2 }", &held.origin));
    let gate = held.hold();
    let mut served = [asked(&held, &proxy, "a"), asked(&held, &proxy, "b")];
    let refused = proxy.client().send(request("c")).response();
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")));
    assert_eq!(proxy.access_line_of("/c")["reason"], "too_many_in_flight");
    drop(gate);
    assert!(served.iter_mut().all(|client| client.response().status == 200));
    until("there is room", || !refuses(&proxy, "d"));
}

#[test]
fn a_client_that_goes_leaves_its_place() {
    let held = Held::new();
    let proxy = Proxy::start(&tree("{ max: 1, by: \"header:X-Key\" }", &held.origin));
    let gate = held.hold();
    let gone = asked(&held, &proxy, "a");
    let other = asked(&held, &proxy, "b");
    assert!(refuses(&proxy, "a") && refuses(&proxy, "b"));
    drop(gone);
    proxy.access_line(|line| line["path"] == "/a" && line["reason"] == "client_gone");
    let again = asked(&held, &proxy, "a");
    assert!(refuses(&proxy, "b"), "the other is still there");
    drop((gate, other, again));
}

#[test]
fn a_reload_keeps_count_of_what_is_in_flight() {
    let held = Held::new();
    let mut proxy = Proxy::start(&tree("{ max: 1 }", &held.origin));
    let gate = held.hold();
    let mut first = asked(&held, &proxy, "a");
    proxy.change(&tree("{ max: 2 }", &held.origin));
    let mut second = asked(&held, &proxy, "b");
    assert!(refuses(&proxy, "c"));
    drop(gate);
    assert_eq!([first.response().status, second.response().status], [200, 200]);
}

#[test]
fn what_observes_lets_everything_pass() {
    let held = Held::new();
    let proxy = Proxy::start(&tree("{ max: 1, mode: observe }", &held.origin));
    let gate = held.hold();
    let mut clients = [asked(&held, &proxy, "a"), asked(&held, &proxy, "b")];
    drop(gate);
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
    assert_eq!(proxy.access_line_of("/b")["observed"][0], "too_many_in_flight");
}
