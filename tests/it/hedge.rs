//! A second attempt beside one that is slow: which requests get one, how many, who wins, and what is booked.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use serde_json::json;

use super::support::{DEADLINE, H2Origin, Origin, Proxy, Reply, config, free_port, until};

const CONFIGURATION: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { endpoints: [ENDPOINTS], outlier: { consecutive_failures: 1 }, retry: { RETRY } } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: app }, timeouts: { first_byte: 5s } } } } }
"#;

fn start(endpoints: &[SocketAddr], retry: &str) -> Proxy {
    let endpoints: Vec<_> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    Proxy::start(&config(CONFIGURATION, &[("ENDPOINTS", &endpoints.join(", ")), ("RETRY", &retry)]))
}

fn of(proxy: &Proxy, series: &str) -> usize {
    proxy.metric(series).unwrap_or_default() as usize
}

fn hedges(proxy: &Proxy) -> usize {
    of(proxy, "portolan_upstream_retries_total{cause=\"hedge\",upstream=\"app\"}")
}

fn of_endpoint(proxy: &Proxy, metric: &str, address: SocketAddr) -> usize {
    of(proxy, &format!("{metric}{{endpoint=\"{address}\",upstream=\"app\"}}"))
}

/// Nothing is in flight any more.
fn is_idle(proxy: &Proxy, endpoints: &[SocketAddr]) -> bool {
    endpoints.iter().all(|address| of_endpoint(proxy, "portolan_endpoint_in_flight", *address) == 0)
}

/// An origin that answers nothing.
fn silent() -> Origin {
    Origin::serving(|exchange| {
        exchange.read_to_end();
        Reply::Close
    })
}

/// An origin that answers with the request after a time.
fn late(time: Duration) -> Origin {
    let (_keep, never) = mpsc::channel::<()>();
    let never = Mutex::new((never, _keep));
    Origin::serving(move |exchange| {
        let _ = never.lock().unwrap().0.recv_timeout(time);
        let path = exchange.request.start.clone();
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()));
        Reply::Keep
    })
}

fn response(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nbody")
}

#[test]
fn a_slow_endpoint_does_not_make_requests_slow() {
    let (slow, fast) = (silent(), Origin::saying("fast"));
    let endpoints = [slow.address(), fast.address()];
    let proxy = start(&endpoints, "hedge: 30ms, budget: 100%");
    let mut client = proxy.client();
    let mut slowest = Duration::ZERO;
    for n in 0..40 {
        let began = Instant::now();
        let response = client.get(&format!("/{n}"));
        assert_eq!((response.status, response.text().as_str()), (200, "fast"));
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    assert!(slowest >= Duration::from_millis(30), "{slowest:?}: nothing was slow");
    let asked = slow.requests().len();
    assert!(asked >= 10, "{asked} requests at the slow endpoint");
    assert_eq!(
        (hedges(&proxy), of(&proxy, "portolan_upstream_hedges_won_total{upstream=\"app\"}")),
        (asked, asked)
    );
    until("the attempts that lost are ended", || slow.closed() == slow.connections());
    until("nothing is in flight", || is_idle(&proxy, &endpoints));
    assert_eq!(of_endpoint(&proxy, "portolan_endpoint_ejected", slow.address()), 0, "it has not failed");
    let line = proxy.access_line(|line| line["hedges"] == 1);
    assert_eq!((&line["attempts"], &line["endpoint"]), (&json!(2), &json!(fast.address().to_string())));
    assert_eq!(line["reason"], json!(null));
    let line = proxy.access_line(|line| line["attempts"] == 1);
    assert_eq!(line["hedges"], json!(null));
}

#[test]
fn requests_that_may_not_be_processed_twice_are_sent_once() {
    let (slow, other) = (late(Duration::from_millis(150)), late(Duration::from_millis(150)));
    let endpoints = [slow.address(), other.address()];
    let proxy = start(&endpoints, "hedge: 10ms, budget: 100%, methods: any");
    let mut client = proxy.client();
    for _ in 0..4 {
        let post = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(client.send(post).response().status, 200);
        assert_eq!(
            client.send("POST /y HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").response().status,
            200
        );
    }
    assert_eq!((slow.requests().len() + other.requests().len(), hedges(&proxy)), (8, 0));
    assert_eq!(client.get("/z").status, 200);
    assert_eq!(hedges(&proxy), 1);
}

#[test]
fn the_budget_bounds_the_hedges() {
    let (slow, other) = (late(Duration::from_millis(40)), late(Duration::from_millis(40)));
    let endpoints = [slow.address(), other.address()];
    let proxy = start(&endpoints, "hedge: 5ms, budget: 20%, budget_floor: 0");
    let mut client = proxy.client();
    for n in 0..60 {
        let path = format!("/{n}");
        assert_eq!(client.get(&path).text(), format!("GET {path} HTTP/1.1"));
    }
    let hedges = hedges(&proxy);
    assert!((8..=12).contains(&hedges), "{hedges} hedges of 60 requests");
    assert!(of(&proxy, "portolan_upstream_retries_denied_total{upstream=\"app\"}") >= 40);
    until("nothing is in flight", || is_idle(&proxy, &endpoints));
}

/// Two origins of which the one that is asked first answers when the first gate opens, the other one by the second gate.
struct Pair {
    origins: [Origin; 2],
    gates: [mpsc::Sender<()>; 2],
    asked: Arc<AtomicUsize>,
}

impl Pair {
    fn answering(answers: [&'static str; 2]) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let (first, first_gate) = mpsc::channel();
        let (second, second_gate) = mpsc::channel();
        let waits = Arc::new([Mutex::new(first_gate), Mutex::new(second_gate)]);
        let origin = || {
            let (asked, waits) = (asked.clone(), waits.clone());
            Origin::serving(move |exchange| {
                let nth = asked.fetch_add(1, Ordering::SeqCst) % 2;
                let _ = waits[nth].lock().unwrap().recv_timeout(DEADLINE);
                match answers[nth] {
                    "" => return Reply::Close,
                    status => exchange.send(response(status)),
                }
                Reply::Keep
            })
        };
        Self { origins: [origin(), origin()], gates: [first, second], asked }
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        [self.origins[0].address(), self.origins[1].address()]
    }

    /// The status that a client gets where both are asked, and the gates open in this order.
    fn status(answers: [&'static str; 2], order: [usize; 2]) -> (u16, usize) {
        let pair = Self::answering(answers);
        let endpoints = pair.addresses();
        let proxy = start(&endpoints, "hedge: 10ms, retries: 0, when: [reset, 503], budget: 100%");
        let mut client = proxy.client();
        client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        until("both are asked", || pair.asked.load(Ordering::SeqCst) == 2);
        let answered = || -> usize {
            endpoints
                .iter()
                .map(|address| of_endpoint(&proxy, "portolan_upstream_attempts_total", *address))
                .sum()
        };
        assert_eq!(answered(), 2);
        pair.gates[order[0]].send(()).unwrap();
        pair.gates[order[1]].send(()).unwrap();
        let status = client.response().status;
        until("nothing is in flight", || is_idle(&proxy, &endpoints));
        let line = proxy.access_line_of("/x");
        assert_eq!(
            (&line["attempts"], &line["hedges"], &line["status"]),
            (&json!(2), &json!(1), &json!(status))
        );
        (status, pair.asked.load(Ordering::SeqCst))
    }
}

#[test]
fn what_would_be_tried_again_does_not_win_while_another_attempt_runs() {
    for order in [[0, 1], [1, 0]] {
        assert_eq!(Pair::status(["503 Busy", "200 OK"], order), (200, 2), "{order:?}");
        assert_eq!(Pair::status(["200 OK", "503 Busy"], order), (200, 2), "{order:?}");
        assert_eq!(Pair::status(["503 Busy", "503 Busy"], order), (503, 2), "{order:?}");
        assert_eq!(Pair::status(["404 Not Found", "404 Not Found"], order), (404, 2), "{order:?}");
    }
}

#[test]
fn an_attempt_that_breaks_leaves_the_request_to_the_other() {
    for order in [[0, 1], [1, 0]] {
        assert_eq!(Pair::status(["", "200 OK"], order), (200, 2), "{order:?}");
        assert_eq!(Pair::status(["200 OK", ""], order), (200, 2), "{order:?}");
        assert_eq!(Pair::status(["", "503 Busy"], order), (503, 2), "{order:?}");
        assert_eq!(Pair::status(["", ""], order), (502, 2), "{order:?}");
    }
}

#[test]
fn a_hedge_that_finds_no_connection_changes_nothing() {
    let slow = late(Duration::from_millis(100));
    let dead: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let proxy = start(&[slow.address(), dead], "hedge: 5ms, budget: 100%");
    let mut client = proxy.client();
    for n in 0..6 {
        let path = format!("/{n}");
        assert_eq!(client.get(&path).text(), format!("GET {path} HTTP/1.1"));
    }
    until("nothing is in flight", || is_idle(&proxy, &[slow.address(), dead]));
}

#[test]
fn a_percentile_is_learned() {
    let is_silent = Arc::new(AtomicBool::new(false));
    let origin = || {
        let is_silent = is_silent.clone();
        Origin::serving(move |exchange| {
            if is_silent.swap(false, Ordering::SeqCst) {
                exchange.read_to_end();
                return Reply::Close;
            }
            exchange.send(response("200 OK"));
            Reply::Keep
        })
    };
    let (a, b) = (origin(), origin());
    let proxy = start(&[a.address(), b.address()], "hedge: { after: p99 }, budget: 100%");
    let mut client = proxy.client();
    assert_eq!(proxy.status()["upstreams"][0]["hedge_after_ms"], json!(null));
    for _ in 0..99 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(hedges(&proxy), 0, "too few response times are known");
    (0..101).for_each(|_| assert_eq!(client.get("/").status, 200));
    let after = proxy.status()["upstreams"][0]["hedge_after_ms"].as_f64().expect("a percentile");
    assert!(after > 0.0 && after < 5000.0, "{after}");
    let before = hedges(&proxy);
    is_silent.store(true, Ordering::SeqCst);
    assert_eq!(client.get("/").status, 200);
    assert!(hedges(&proxy) > before);
}

#[test]
fn a_client_that_disconnects_ends_all_attempts() {
    let (a, b) = (silent(), silent());
    let endpoints = [a.address(), b.address()];
    let proxy = start(&endpoints, "hedge: 10ms, budget: 100%");
    let mut client = proxy.client();
    client.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    until("both are asked", || a.requests().len() + b.requests().len() == 2);
    drop(client);
    assert_eq!(proxy.access_line_of("/gone")["reason"], "client_gone");
    until("both attempts are ended", || a.closed() == 1 && b.closed() == 1);
    until("nothing is in flight", || is_idle(&proxy, &endpoints));
    assert_eq!(of_endpoint(&proxy, "portolan_endpoint_ejected", a.address()), 0);
}

#[test]
fn where_no_attempt_is_answered_in_time_the_client_is_told() {
    let (a, b) = (silent(), silent());
    let endpoints = [a.address(), b.address()];
    let yaml = CONFIGURATION.replace("first_byte: 5s", "first_byte: 300ms");
    let list = format!("\"{}\", \"{}\"", endpoints[0], endpoints[1]);
    let proxy =
        Proxy::start(&config(&yaml, &[("ENDPOINTS", &list), ("RETRY", &"hedge: 10ms, budget: 100%")]));
    assert_eq!(proxy.client().get("/x").status, 504);
    let line = proxy.access_line_of("/x");
    assert_eq!((&line["reason"], &line["attempts"]), (&json!("first_byte_timeout"), &json!(2)));
    until("nothing is in flight", || is_idle(&proxy, &endpoints));
    let ejections = |address| {
        let labels = format!("{{cause=\"consecutive_failures\",endpoint=\"{address}\",upstream=\"app\"}}");
        of(&proxy, &format!("portolan_endpoint_ejections_total{labels}"))
    };
    assert!(ejections(endpoints[0]) + ejections(endpoints[1]) > 0, "they have failed");
}

#[test]
fn many_clients_get_their_own_responses() {
    let (slow, fast) = (late(Duration::from_millis(15)), Origin::echoing());
    let endpoints = [slow.address(), fast.address()];
    let proxy = start(&endpoints, "hedge: { after: 5ms, max: 3 }, budget: 100%");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = proxy.client();
                for n in 0..30 {
                    let path = format!("/{thread}/{n}");
                    let text = client.get(&path).text();
                    assert!(text.starts_with(&format!("GET {path} ")), "{text}");
                }
            });
        }
    });
    until("nothing is in flight", || is_idle(&proxy, &endpoints));
}

#[test]
fn streams_that_lose_are_reset_and_their_connection_goes_on() {
    let (slow, fast) = (H2Origin::silent(), H2Origin::with_trailers());
    let yaml = CONFIGURATION.replace("endpoints: [ENDPOINTS]", "protocol: h2c, endpoints: [ENDPOINTS]");
    let list = format!("\"{}\", \"{}\"", slow.address(), fast.address());
    let proxy =
        Proxy::start(&config(&yaml, &[("ENDPOINTS", &list), ("RETRY", &"hedge: 20ms, budget: 100%")]));
    let mut client = proxy.client();
    for n in 0..10 {
        let path = format!("/{n}");
        let response = client.get(&path);
        assert_eq!((response.status, response.field("x-path")), (200, Some(&*path)));
    }
    assert!(hedges(&proxy) >= 3);
    until("each stream that lost is reset", || slow.resets().len() == hedges(&proxy));
    assert!(slow.resets().iter().all(|reason| *reason == h2::Reason::CANCEL), "{:?}", slow.resets());
}
