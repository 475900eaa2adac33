//! Endpoints that fail: they draw no traffic, are ejected and come back, and a circuit breaker spares them all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::support::{Origin, Proxy, Reply, config, free_port, until};

/// The configuration of a proxy to these endpoints with further keys of the upstream.
fn written(endpoints: &[&dyn std::fmt::Display], keys: &str) -> String {
    let list: Vec<String> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: [ENDPOINTS] KEYS } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    config(yaml, &[("ENDPOINTS", &list.join(", ")), ("KEYS", &keys)])
}

fn with(endpoints: &[&dyn std::fmt::Display], keys: &str) -> Proxy {
    Proxy::start(&written(endpoints, keys))
}

/// An origin with a status that changes.
fn answering(status: &Arc<AtomicU16>) -> Origin {
    let status = status.clone();
    Origin::serving(move |exchange| {
        let status = status.load(Ordering::Acquire);
        exchange.send(format!("HTTP/1.1 {status} x\r\nContent-Length: 2\r\n\r\nok"));
        Reply::Keep
    })
}

fn upstream(proxy: &Proxy) -> Value {
    proxy.status()["upstreams"][0].clone()
}

fn ejected(proxy: &Proxy) -> Vec<Option<u64>> {
    let endpoints = upstream(proxy)["endpoints"].as_array().unwrap().clone();
    endpoints.iter().map(|endpoint| endpoint["ejected_seconds"].as_u64()).collect()
}

#[track_caller]
fn metric(proxy: &Proxy, series: &str) -> f64 {
    proxy.metric(series).unwrap_or_else(|| panic!("no {series} in\n{}", proxy.metrics()))
}

#[test]
fn an_endpoint_that_fails_at_once_draws_no_traffic() {
    for balance in ["ewma", "least_requests", "random_two"] {
        let good = Origin::serving(|exchange| {
            // What it takes to answer.
            thread::sleep(Duration::from_millis(20));
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            Reply::Keep
        });
        let bad = answering(&Arc::new(AtomicU16::new(503)));
        let proxy =
            with(&[&good.address(), &bad.address()], &format!(", balance: {balance}, outlier: false"));
        let failed = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = proxy.client();
                    let failures = (0..50).filter(|_| client.get("/").status == 503).count();
                    failed.fetch_add(failures, Ordering::Relaxed);
                });
            }
        });
        let failed = failed.into_inner();
        assert!(failed <= 20, "{balance}: {failed} of 200 went to the endpoint that fails at once");
    }
}

#[test]
fn a_dead_endpoint_is_not_tried_first_again_and_again() {
    let origin = Origin::saying("alive");
    let dead = format!("127.0.0.1:{}", free_port());
    let proxy = with(&[&dead, &origin.address()], "");
    let mut client = proxy.client();
    assert!((0..40).all(|_| client.get("/").text() == "alive"));
    let of = |name: &str| metric(&proxy, &format!("{name}{{endpoint=\"{dead}\",upstream=\"origin\"}}"));
    // It had every other turn, until five failures in a row ejected it.
    assert_eq!(of("portolan_upstream_attempts_total"), 5.0);
    assert_eq!(of("portolan_endpoint_ejected"), 1.0);
    let cause = format!("{{cause=\"consecutive_failures\",endpoint=\"{dead}\",upstream=\"origin\"}}");
    assert_eq!(metric(&proxy, &format!("portolan_endpoint_ejections_total{cause}")), 1.0);
    assert!(proxy.log().contains("endpoint is ejected"), "{}", proxy.log());
    assert!(ejected(&proxy)[0].is_some_and(|left| left <= 5));
    assert_eq!(ejected(&proxy)[1], None);
}

#[test]
fn without_outlier_detection_a_dead_endpoint_has_its_turns() {
    let origin = Origin::saying("alive");
    let dead = format!("127.0.0.1:{}", free_port());
    let proxy = with(&[&dead, &origin.address()], ", outlier: false");
    let mut client = proxy.client();
    assert!((0..40).all(|_| client.get("/").text() == "alive"));
    let tries = format!("portolan_upstream_attempts_total{{endpoint=\"{dead}\",upstream=\"origin\"}}");
    assert_eq!(metric(&proxy, &tries), 20.0);
}

#[test]
fn statuses_eject_where_that_is_asked_for_and_longer_each_time() {
    let status = Arc::new(AtomicU16::new(500));
    let (sick, well) = (answering(&status), Origin::saying("well"));
    let keys = ", outlier: { consecutive_failures: 3, eject_for: 1s }";
    let proxy = with(&[&sick.address(), &well.address()], keys);
    let mut client = proxy.client();
    let mut failures = |requests: usize| (0..requests).filter(|_| client.get("/").status == 500).count();
    assert_eq!(failures(20), 3);
    until("its time is over", || ejected(&proxy)[0].is_none());
    assert_eq!(failures(20), 1, "one request tells that it still fails");
    assert_eq!(ejected(&proxy)[0], Some(2), "the second time it lasts twice as long");
    status.store(200, Ordering::Release);
    until("it serves again", || failures(2) == 0 && ejected(&proxy)[0].is_none());
    let before = sick.requests().len();
    assert_eq!(failures(20), 0);
    assert_eq!(sick.requests().len() - before, 10);
}

#[test]
fn by_default_no_status_ejects() {
    let (sick, well) = (answering(&Arc::new(AtomicU16::new(500))), Origin::saying("well"));
    let proxy = with(&[&sick.address(), &well.address()], "");
    let mut client = proxy.client();
    assert_eq!((0..40).filter(|_| client.get("/").status == 500).count(), 20);
}

#[test]
fn a_sole_endpoint_is_not_ejected_and_of_three_one_is() {
    let dead: Vec<String> = (0..3).map(|_| format!("127.0.0.1:{}", free_port())).collect();
    let sole = with(&[&dead[0]], "");
    let mut client = sole.client();
    assert!((0..20).all(|_| client.get("/").status == 502));
    assert_eq!(ejected(&sole), [None]);
    let proxy = with(&[&dead[0], &dead[1], &dead[2]], "");
    let mut client = proxy.client();
    assert!((0..40).all(|_| client.get("/").status == 502));
    assert_eq!(ejected(&proxy).iter().flatten().count(), 1, "half of three is one");
}

#[test]
fn good_health_checks_end_an_ejection() {
    let status = Arc::new(AtomicU16::new(503));
    let (sick, well) = (answering(&status), Origin::saying("well"));
    let keys = ", outlier: { consecutive_failures: 3, eject_for: 30s }, \
        health: { http: { path: /ready }, interval: 50ms, unhealthy_after: 60000 }";
    let proxy = with(&[&sick.address(), &well.address()], keys);
    let mut client = proxy.client();
    until("it is ejected", || {
        client.get("/");
        ejected(&proxy)[0].is_some()
    });
    status.store(200, Ordering::Release);
    until("it is back before its 30 seconds are over", || ejected(&proxy)[0].is_none());
    assert!(proxy.log().contains("endpoint is no longer ejected"));
}

#[test]
fn an_endpoint_that_accepts_connections_again_is_used_before_its_ejection_is_over() {
    let well = Origin::saying("well");
    let restarted = format!("127.0.0.1:{}", free_port());
    let keys = ", outlier: { consecutive_failures: 3, eject_for: 1m }";
    let proxy = with(&[&restarted, &well.address()], keys);
    let mut client = proxy.client();
    until("it is ejected", || client.get("/").text() == "well" && ejected(&proxy)[0].is_some());
    let _restarted = Origin::saying_at(&restarted, "restarted");
    until("it is used again", || client.get("/").text() == "restarted");
    assert_eq!(ejected(&proxy)[0], None);
    assert!(proxy.log().contains("endpoint accepts connections again"), "{}", proxy.log());
}

#[test]
fn an_endpoint_that_hangs_gets_one_request_after_each_ejection() {
    let hangs = Origin::serving(|exchange| {
        exchange.read_to_end();
        Reply::Close
    });
    let well = Origin::saying("well");
    let keys = ", outlier: { consecutive_failures: 3, eject_for: 1s }, retry: { per_try_timeout: 100ms, budget: 100% }";
    let proxy = with(&[&hangs.address(), &well.address()], keys);
    let ejections = || {
        let of = |cause: &str| {
            format!(
                "portolan_endpoint_ejections_total{{cause=\"{cause}\",endpoint=\"{}\",upstream=\"origin\"}}",
                hangs.address()
            )
        };
        proxy.metric(&of("consecutive_failures")).unwrap_or_default() as usize
    };
    let mut client = proxy.client();
    until("it is ejected", || client.get("/").text() == "well" && ejections() == 1);
    let before = hangs.requests().len();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = proxy.client();
                until("it was tried twice more", || client.get("/").text() == "well" && ejections() >= 3);
            });
        }
    });
    assert_eq!(hangs.requests().len() - before, 2, "one request for each trial");
}

#[test]
fn failures_hasten_health_checks() {
    let dead = format!("127.0.0.1:{}", free_port());
    let origin = Origin::saying("alive");
    let keys = ", outlier: false, health: { tcp: {}, interval: 20s, unhealthy_after: 3 }";
    let proxy = with(&[&dead, &origin.address()], keys);
    let mut client = proxy.client();
    let started = std::time::Instant::now();
    until("it is unhealthy", || {
        assert_eq!(client.get("/").text(), "alive");
        upstream(&proxy)["endpoints"][0]["healthy"] == json!(false)
    });
    assert!(started.elapsed() < Duration::from_secs(18), "by itself the third check comes after 20 s");
}

#[test]
fn an_open_circuit_rejects_at_once_and_closes_again() {
    let status = Arc::new(AtomicU16::new(500));
    let origin = answering(&status);
    let keys = ", circuit_breaker: { min_requests: 10, open_for: 1s }";
    let mut proxy = with(&[&origin.address()], keys);
    let mut client = proxy.client();
    assert!((0..10).all(|_| client.get("/").status == 500));
    assert_eq!(upstream(&proxy)["circuit"], "open");
    let rejected = client.get("/rejected");
    assert_eq!((rejected.status, rejected.field("retry-after")), (503, Some("1")));
    assert!(rejected.field("proxy-status").unwrap().contains("circuit_open"));
    assert_eq!(origin.requests().len(), 10, "it has no contact");
    let line = proxy.access_line_of("/rejected");
    assert_eq!((&line["reason"], &line["circuit"]), (&json!("circuit_open"), &json!("open")));
    assert_eq!((line["attempts"].as_u64(), line["endpoint"].as_str()), (None, None));
    let of = |proxy: &Proxy, name: &str| metric(proxy, &format!("{name}{{upstream=\"origin\"}}"));
    assert_eq!(of(&proxy, "portolan_upstream_circuit_state"), 2.0);
    assert_eq!(of(&proxy, "portolan_upstream_circuit_opened_total"), 1.0);
    assert!(of(&proxy, "portolan_upstream_circuit_rejected_total") >= 1.0);

    // What is unchanged stays open over a reload.
    let longer = written(&[&origin.address()], &format!("{keys}, pool: {{ idle: 30s }}"));
    proxy.change(&longer);
    assert_ne!(upstream(&proxy)["circuit"], "closed");

    until("a probe fails, and it is open for longer", || {
        client.get("/");
        of(&proxy, "portolan_upstream_circuit_opened_total") == 2.0
    });
    assert_eq!(origin.requests().len(), 11, "one probe");
    status.store(200, Ordering::Release);
    until("a probe closes it", || client.get("/again").status == 200);
    proxy.access_line(|line| line["path"] == "/again" && line["circuit"] == "half_open");
    assert_eq!(upstream(&proxy)["circuit"], "closed");
    assert!((0..30).all(|_| client.get("/").status == 200));
    for said in ["circuit is open", "circuit is closed"] {
        assert!(proxy.log().contains(said), "{said} in\n{}", proxy.log());
    }
}

#[test]
fn a_dead_endpoint_beside_a_good_one_opens_no_circuit() {
    let origin = Origin::saying("alive");
    let dead = format!("127.0.0.1:{}", free_port());
    let keys = ", outlier: false, circuit_breaker: { failure_ratio: 10%, min_requests: 5 }";
    let proxy = with(&[&dead, &origin.address()], keys);
    let mut client = proxy.client();
    assert!((0..40).all(|_| client.get("/").text() == "alive"));
    assert_eq!(upstream(&proxy)["circuit"], "closed");
}

#[test]
fn below_the_panic_threshold_all_are_used() {
    let origins: Vec<Origin> = ["a", "b"].into_iter().map(Origin::saying).collect();
    let health = ", health: { http: { path: /ready, status: 204 }, interval: 50ms, unhealthy_after: 1 }";
    let addresses: Vec<_> = origins.iter().map(Origin::address).collect();
    let calm = with(&[&addresses[0], &addresses[1]], health);
    until("none is healthy", || calm.client().get("/").status == 503);
    let proxy = with(&[&addresses[0], &addresses[1]], &format!("{health}, panic_threshold: 50%"));
    until("it panics", || upstream(&proxy)["panic"] == json!(true));
    let mut client = proxy.client();
    let mut answers: Vec<String> = (0..10).map(|_| client.get("/").text()).collect();
    answers.sort();
    answers.dedup();
    assert_eq!(answers, ["a", "b"]);
    assert_eq!(metric(&proxy, "portolan_upstream_panic{upstream=\"origin\"}"), 1.0);
    assert!(proxy.log().contains("too few endpoints are usable"));
}
