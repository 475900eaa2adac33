//! Requests that are tried again: what for, where, how often, and which ones are not.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::support::{Origin, Proxy, Reply, config, until, waited};

const CONFIGURATION: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { endpoints: [ENDPOINTS], retry: { RETRY } } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: app } } } } }
"#;

fn start(endpoints: &[SocketAddr], retry: &str) -> Proxy {
    let endpoints: Vec<_> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    Proxy::start(&config(CONFIGURATION, &[("ENDPOINTS", &endpoints.join(", ")), ("RETRY", &retry)]))
}

/// An origin that answers so many requests with `response`, and the rest with 200.
fn failing(times: usize, response: &'static str) -> Origin {
    let left = AtomicUsize::new(times);
    Origin::serving(move |exchange| {
        let fails =
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        exchange.send(if fails { response } else { OK });
        if fails && response.is_empty() { Reply::Close } else { Reply::Keep }
    })
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

fn request(method: &str, path: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn listed_statuses_are_tried_again_on_another_endpoint_and_the_connection_is_kept() {
    let (bad, good) = (failing(usize::MAX, UNAVAILABLE), Origin::saying("ok"));
    let proxy = start(&[bad.address(), good.address()], "when: [503], budget: 100%");
    for n in 0..20 {
        let path = format!("/{n}");
        let response = proxy.client().send(request("PUT", &path, "body")).response();
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        assert_eq!(proxy.access_line_of(&path)["status"], 200);
    }
    let asked = bad.requests();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.body == b"body"));
    assert_eq!(bad.connections(), 1, "its responses are read to their end");
    assert_eq!(good.requests().len(), 20);
}

#[test]
fn statuses_that_are_not_listed_and_methods_that_may_not_be_repeated_are_passed_on() {
    let bad = failing(usize::MAX, UNAVAILABLE);
    let proxy = start(&[bad.address()], "when: [502, 504]");
    assert_eq!(proxy.client().send(request("GET", "/", "")).response().status, 503);
    assert_eq!(bad.requests().len(), 1);

    let bad = failing(usize::MAX, UNAVAILABLE);
    let proxy = start(&[bad.address()], "when: [500-599]");
    let response = proxy.client().send(request("POST", "/", "once")).response();
    assert_eq!((response.status, response.text().as_str()), (503, "busy"));
    assert_eq!(bad.requests().len(), 1);
}

#[test]
fn methods_that_are_listed_are_repeated() {
    for methods in ["any", "[POST]"] {
        let bad = failing(2, UNAVAILABLE);
        let proxy = start(&[bad.address()], &format!("when: [503], methods: {methods}"));
        let response = proxy.client().send(request("POST", "/", "three times")).response();
        assert_eq!((response.status, bad.requests().len()), (200, 3), "{methods}");
        assert!(bad.requests().iter().all(|request| request.body == b"three times"));
        assert_eq!(proxy.access_line_of("/")["attempts"], 3);
    }
}

#[test]
fn the_last_response_is_passed_on_where_all_tries_fail() {
    let bad = failing(usize::MAX, UNAVAILABLE);
    let proxy = start(&[bad.address()], "retries: 3, when: [503]");
    let response = proxy.client().send(request("GET", "/", "")).response();
    assert_eq!((response.status, response.text().as_str()), (503, "busy"));
    assert_eq!(bad.requests().len(), 4);
}

#[test]
fn retries_are_off_where_there_are_none() {
    let bad = failing(usize::MAX, "");
    let proxy = start(&[bad.address()], "retries: 0");
    assert_eq!(proxy.client().send(request("GET", "/", "")).response().status, 502);
    assert_eq!(bad.requests().len(), 1);
}

#[test]
fn a_connection_that_breaks_before_the_response_is_tried_again() {
    let bad = failing(2, "");
    let proxy = start(&[bad.address()], "retries: 2");
    assert_eq!(proxy.client().send(request("GET", "/get", "")).response().status, 200);
    assert_eq!(bad.requests().len(), 3);
    let bad = failing(1, "");
    let proxy = start(&[bad.address()], "retries: 2");
    assert_eq!(proxy.client().send(request("POST", "/post", "x")).response().status, 502);
    assert_eq!(bad.requests().len(), 1, "it may have been acted on");
    let bad = failing(1, "");
    let proxy = start(&[bad.address()], "retries: 2, when: [connect_failure]");
    assert_eq!(proxy.client().send(request("GET", "/", "")).response().status, 502);
}

#[test]
fn a_try_that_takes_too_long_is_given_up_for_another_endpoint() {
    let silent = Origin::serving(|exchange| {
        exchange.read_to_end();
        Reply::Close
    });
    let good = Origin::saying("ok");
    let proxy = start(&[silent.address(), good.address()], "per_try_timeout: 100ms, budget: 100%");
    for n in 0..4 {
        let path = format!("/{n}");
        assert_eq!(proxy.client().send(request("GET", &path, "")).response().status, 200);
    }
    until("the silent endpoint was given up", || silent.closed() == silent.connections());
    assert!(silent.connections() > 0);
    // What is not to be repeated has the same time.
    let statuses: Vec<_> =
        (0..2).map(|_| proxy.client().send(request("POST", "/", "x")).response().status).collect();
    assert!(statuses.contains(&504), "{statuses:?}");
}

#[test]
fn each_attempt_has_its_own_wait_for_the_first_byte() {
    let slow = |response: &'static str| {
        Origin::serving(move |exchange| {
            waited::<()>(Duration::from_secs(2), || None);
            exchange.send(response);
            Reply::Keep
        })
    };
    let (bad, good) = (slow(UNAVAILABLE), slow(OK));
    let proxy = start(&[bad.address(), good.address()], "when: [503] }, timeouts: { first_byte: 3s");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(proxy.client().send(request("GET", "/", "")).response().status, 200));
        }
    });
    assert_eq!((bad.requests().len(), good.requests().len()), (1, 2), "one of them was tried again");
}

#[test]
fn retry_after_is_waited_for_within_its_bound() {
    let soon = "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let bad = failing(1, soon);
    let proxy = start(&[bad.address()], "when: [503]");
    let began = Instant::now();
    assert_eq!(proxy.client().send(request("GET", "/", "")).response().status, 200);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());

    let later = "HTTP/1.1 503 Busy\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n";
    let bad = failing(1, later);
    let proxy = start(&[bad.address()], "when: [503]");
    let response = proxy.client().send(request("GET", "/", "")).response();
    assert_eq!((response.status, response.field("retry-after")), (503, Some("60")));
    assert_eq!(bad.requests().len(), 1);
}

#[test]
fn the_budget_bounds_the_load_of_retries() {
    let bad = failing(usize::MAX, UNAVAILABLE);
    let proxy = start(&[bad.address()], "when: [503], budget: 20%, budget_floor: 0, backoff: 1ms");
    let mut client = proxy.client();
    for _ in 0..200 {
        assert_eq!(client.send(request("GET", "/", "")).response().status, 503);
    }
    let retries = bad.requests().len() - 200;
    assert!((38..=40).contains(&retries), "{retries} retries of 200 requests");
    let of = |series: &str| proxy.metric(series).unwrap_or_default() as usize;
    assert_eq!(of("portolan_upstream_retries_total{cause=\"status\",upstream=\"app\"}"), retries);
    assert!(of("portolan_upstream_retries_denied_total{upstream=\"app\"}") >= 160);
}

#[test]
fn failed_connections_are_beyond_the_budget() {
    let good = Origin::saying("ok");
    let dead = Origin::saying("").address();
    let proxy = start(&[dead, good.address()], "budget: 0%, budget_floor: 0");
    for _ in 0..50 {
        assert_eq!(proxy.client().send(request("GET", "/", "")).response().status, 200);
    }
}

#[test]
fn a_body_longer_than_is_kept_passes_and_is_not_repeated() {
    let bad = failing(1, UNAVAILABLE);
    let proxy = start(&[bad.address()], "when: [503]");
    let body = "x".repeat(200_000);
    assert_eq!(proxy.client().send(request("PUT", "/", &body)).response().status, 503);
    assert_eq!(proxy.client().send(request("PUT", "/", &body)).response().status, 200);
    assert_eq!(bad.requests()[1].body.len(), body.len());
}

#[test]
fn a_client_that_goes_while_a_retry_waits_is_noticed() {
    let later = "HTTP/1.1 503 Busy\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n";
    let bad = failing(usize::MAX, later);
    let proxy = start(&[bad.address()], "when: [503], max_retry_after: 30s");
    let mut client = proxy.client();
    client.send(request("GET", "/gone", ""));
    until("the first try failed", || bad.requests().len() == 1);
    drop(client);
    assert_eq!(proxy.access_line_of("/gone")["reason"], "client_gone");
}

#[test]
fn requests_of_many_clients_are_tried_again_without_one_lost() {
    let count = Arc::new(AtomicUsize::new(0));
    let flaky = |count: Arc<AtomicUsize>| {
        Origin::serving(move |exchange| match count.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => {
                exchange.send(UNAVAILABLE);
                Reply::Keep
            }
            1 => Reply::Close,
            _ => {
                exchange.send(OK);
                Reply::Keep
            }
        })
    };
    let (a, b) = (flaky(count.clone()), flaky(count));
    let retry = "retries: 20, when: [reset, 503], budget: 100%, budget_floor: 1000, backoff: 1ms";
    let proxy = start(&[a.address(), b.address()], retry);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = proxy.client();
                for _ in 0..50 {
                    assert_eq!(client.send(request("GET", "/", "")).response().status, 200);
                }
            });
        }
    });
}
