//! `limits.body_rate`: bodies that come more slowly than that are cut, by whatever protocol, and no others.

use serde_json::json;

use super::{
    http3::start,
    support::{
        Frames, Origin, Proxy, Reply, config,
        frames::{DATA, END_HEADERS, HEADERS, request},
        until,
    },
};

/// The time that is given to all bodies.
const GRACE: u64 = 10_000;

fn reader() -> Origin {
    Origin::serving_early(|exchange| {
        if exchange.request.start.contains("slow") {
            exchange.read_to_end();
            return Reply::Close;
        }
        exchange.read_some();
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Reply::Close
    })
}

fn before(origin: &Origin, rate: &str) -> Proxy {
    limited(origin, &format!("limits: {{ body_rate: {rate} }}"))
}

fn limited(origin: &Origin, settings: &str) -> Proxy {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0", protocols: [h1, h2c], SETTINGS } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    Proxy::start(&config(yaml, &[("SETTINGS", &settings), ("ORIGIN", &origin.address())]))
}

#[track_caller]
fn check_cut(proxy: &Proxy) {
    let line = proxy.access_line_of("/slow");
    assert_eq!((&line["status"], &line["reason"]), (&408.into(), &"body_timeout".into()), "{line}");
    let took = line["duration_ms"].as_f64().expect("a duration");
    assert!(took >= GRACE as f64, "{line}");
}

fn is_logged(proxy: &Proxy) -> bool {
    proxy.access_log().iter().any(|line| line["path"] == "/slow")
}

#[test]
fn a_slow_body_is_cut_over_http_1() {
    let origin = reader();
    let proxy = before(&origin, "10KiB/s");
    let mut client = proxy.client();
    client.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    until("it is cut", || {
        let _ = client.try_send("x");
        is_logged(&proxy)
    });
    check_cut(&proxy);
}

#[test]
fn a_slow_body_is_cut_over_http_2() {
    let origin = reader();
    let proxy = before(&origin, "10KiB/s");
    let mut frames = Frames::connect(proxy.port("web"), &[]);
    frames.send(HEADERS, END_HEADERS, 1, &request("POST", "/slow"));
    until("it is cut", || {
        frames.send(DATA, 0, 1, b"x");
        is_logged(&proxy)
    });
    check_cut(&proxy);
}

#[test]
fn a_slow_body_is_cut_over_http_3() {
    let origin = reader();
    let secure = start(&origin.address(), "[h3]", "limits: { body_rate: 1KiB/s }");
    let told = secure.run("slow_body", json!({ "path": "/slow" })).next();
    assert_eq!(told["status"], 408, "{told}");
    check_cut(&secure.proxy);
}

/// The default counts after the longest pause that is allowed.
#[test]
fn without_the_key_a_trickling_body_is_cut() {
    let origin = reader();
    let proxy = limited(&origin, "timeouts: { body_idle: 11s }");
    let mut client = proxy.client();
    client.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    let mut polls = 0..;
    until("it is cut", || {
        // Some five bytes per second.
        if polls.next().is_some_and(|poll: u32| poll.is_multiple_of(20)) {
            let _ = client.try_send("x");
        }
        is_logged(&proxy)
    });
    check_cut(&proxy);
}

/// What comes at the rate goes on past the time that is given to all.
#[test]
fn a_body_that_comes_at_the_rate_is_not_cut() {
    let origin = Origin::saying("ok");
    let proxy = before(&origin, "1B/s");
    let mut client = proxy.client();
    client.send("POST /steady HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let start = std::time::Instant::now();
    until("it has lasted", || {
        client.send("1\r\nx\r\n");
        start.elapsed().as_secs() >= 12
    });
    client.send("0\r\n\r\n");
    assert_eq!(client.response().status, 200);
}
