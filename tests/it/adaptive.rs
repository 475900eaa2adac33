//! A limit of requests in flight that follows the response times of a real origin.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use serde_json::json;

use super::support::{Origin, Proxy, Reply, config, until};

const CONFIGURATION: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams:
  app:
    endpoints: ["ORIGIN"]
    outlier: false
    limits: { in_flight: { adaptive: { min: 2, max: MAX, initial: 20 } }, queue: 1000, queue_timeout: 1m }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: app } } } } }
"#;

fn limit(proxy: &Proxy) -> u32 {
    proxy.metric("portolan_upstream_in_flight_limit{upstream=\"app\"}").expect("a series") as u32
}

/// An origin that works on so many requests at once, each for a time. While it is `failing`, it answers 503 at once.
fn origin(capacity: usize, work: Duration, is_failing: Arc<AtomicBool>) -> Origin {
    let (free, freed) = (Arc::new(Mutex::new(capacity)), Arc::new(Condvar::new()));
    Origin::serving(move |exchange| {
        if is_failing.load(Ordering::SeqCst) {
            exchange.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
            return Reply::Keep;
        }
        let mut places = freed.wait_while(free.lock().unwrap(), |free| *free == 0).unwrap();
        *places -= 1;
        drop(places);
        // The work: nothing is ever sent here.
        let (_keep, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(work);
        *free.lock().unwrap() += 1;
        freed.notify_one();
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Reply::Keep
    })
}

/// Keeps so many requests on their way while `check` runs.
fn under_load(proxy: &Proxy, clients: usize, check: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = proxy.client();
                while !is_over.load(Ordering::SeqCst) {
                    client.get("/");
                }
            });
        }
        check();
        is_over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn the_limit_follows_the_demand_up_and_an_overload_down() {
    let is_failing = Arc::new(AtomicBool::new(false));
    // As much as there is demand for.
    let wide = origin(1000, Duration::from_millis(20), is_failing.clone());
    let written =
        |origin: &Origin, max: u32| config(CONFIGURATION, &[("ORIGIN", &origin.address()), ("MAX", &max)]);
    let mut proxy = Proxy::start(&written(&wide, 30));
    assert_eq!(limit(&proxy), 20);
    under_load(&proxy, 40, || {
        until("it grows to its bound", || limit(&proxy) == 30);
        let status = proxy.status();
        assert_eq!(status["upstreams"][0]["in_flight_limit"], json!(30));
        assert!(status["upstreams"][0]["in_flight"].as_u64().is_some_and(|taken| taken <= 30), "{status}");
    });
    // Failures that are fast change nothing.
    is_failing.store(true, Ordering::SeqCst);
    proxy.change(&written(&wide, 40));
    assert_eq!(limit(&proxy), 30, "a reload keeps it");
    under_load(&proxy, 40, || {
        let before = wide.requests().len();
        until("many have failed", || wide.requests().len() > before + 1000);
    });
    assert_eq!(limit(&proxy), 30);
    // Another endpoint that can do a fifth: requests queue there.
    let narrow = origin(4, Duration::from_millis(20), Arc::default());
    proxy.change(&written(&narrow, 40));
    under_load(&proxy, 40, || until("it falls", || limit(&proxy) <= 20));
}
