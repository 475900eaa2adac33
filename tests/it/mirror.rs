//! Copies of requests for another upstream: what is in them, how many there are, and that the request never notices.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use serde_json::json;

use super::support::{Client, DEADLINE, Origin, Proxy, Reply, Tree, config, free_port, portolan, until};

const CONFIGURATION: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams:
  app: { endpoints: ["APP"], retry: { methods: any, when: [reset, 503], backoff: 1ms, budget: 100% } }
  shadow: { endpoints: ["SHADOW"] }
hosts:
  all:
    names: ["*"]
    routes: { all: { path: "/**", proxy: { upstream: app, MORE mirror: { upstream: shadow, MIRROR } } } }
"#;

fn written(app: &Origin, shadow: impl std::fmt::Display, mirror: &str) -> String {
    config(CONFIGURATION, &[("APP", &app.address()), ("SHADOW", &shadow), ("MORE", &""), ("MIRROR", &mirror)])
}

fn start(app: &Origin, shadow: impl std::fmt::Display, mirror: &str) -> Proxy {
    Proxy::start(&written(app, shadow, mirror))
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn sent(proxy: &Proxy) -> usize {
    proxy.metric("portolan_mirror_sent_total{upstream=\"shadow\"}").expect("a series") as usize
}

fn failed(proxy: &Proxy) -> usize {
    proxy.metric("portolan_mirror_failed_total{upstream=\"shadow\"}").expect("a series") as usize
}

fn dropped(proxy: &Proxy, cause: &str) -> usize {
    let series = format!("portolan_mirror_dropped_total{{cause=\"{cause}\",upstream=\"shadow\"}}");
    proxy.metric(&series).expect("a series") as usize
}

fn in_flight(proxy: &Proxy, upstream: &str, address: &dyn std::fmt::Display) -> Option<f64> {
    let labels = format!("{{endpoint=\"{address}\",upstream=\"{upstream}\"}}");
    proxy.metric(&format!("portolan_endpoint_in_flight{labels}"))
}

/// An origin that answers no request and keeps its connections.
fn silent() -> Origin {
    Origin::serving(|exchange| {
        exchange.read_to_end();
        Reply::Close
    })
}

#[test]
fn the_copy_is_the_request_as_it_goes_upstream() {
    let (app, shadow) = (Origin::saying("ok"), Origin::saying("ignored"));
    let yaml = config(
        CONFIGURATION,
        &[
            ("APP", &app.address()),
            ("SHADOW", &shadow.address()),
            ("MORE", &"rewrite: { strip_prefix: /api },"),
            ("MIRROR", &"timeout: 20s"),
        ],
    );
    let proxy = Proxy::start(&yaml);
    let head = "Host: shop.example\r\nAuthorization: Bearer x\r\nCookie: a=b\r\nX-Own: 1\r\n";
    let mut client = proxy.client();
    let get = format!("GET /api/items?a=1 HTTP/1.1\r\n{head}\r\n");
    assert_eq!(client.send(get).response().text(), "ok");
    until("the first copy came", || shadow.requests().len() == 1);
    let put = format!(
        "PUT /api/x HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    );
    assert_eq!(client.send(put).response().text(), "ok");
    until("both copies came", || shadow.requests().len() == 2);
    let starts = |origin: &Origin| origin.requests().into_iter().map(|r| r.start).collect::<Vec<_>>();
    assert_eq!(starts(&shadow), starts(&app));
    assert_eq!(starts(&shadow), ["GET /items?a=1 HTTP/1.1", "PUT /x HTTP/1.1"]);
    let fields = |origin: &Origin, nth: usize| {
        let mut fields = origin.requests()[nth].fields.clone();
        fields.retain(|(name, _)| {
            !["content-length", "transfer-encoding"].contains(&&*name.to_ascii_lowercase())
        });
        fields.sort();
        fields
    };
    assert_eq!((fields(&shadow, 0), fields(&shadow, 1)), (fields(&app, 0), fields(&app, 1)));
    assert_eq!(shadow.requests()[0].field("authorization"), Some("Bearer x"));
    assert_eq!(shadow.requests()[0].field("host"), Some("shop.example"));
    assert_eq!(shadow.requests()[1].body, b"abc");
    until("the copies have ended", || in_flight(&proxy, "shadow", &shadow.address()) == Some(0.0));
    assert_eq!((sent(&proxy), failed(&proxy)), (2, 0));
}

#[test]
fn host_header_holds_for_the_copy_too() {
    let (app, shadow) = (Origin::saying("ok"), Origin::saying("ignored"));
    for (host_header, expected) in
        [("upstream", shadow.address().to_string()), ("fixed.example", "fixed.example".to_owned())]
    {
        let more = format!("host_header: {host_header},");
        let words: [(&str, &dyn std::fmt::Display); 4] = [
            ("APP", &app.address()),
            ("SHADOW", &shadow.address()),
            ("MORE", &more),
            ("MIRROR", &"sample: 100%"),
        ];
        let proxy = Proxy::start(&config(CONFIGURATION, &words));
        let before = shadow.requests().len();
        proxy.client().get("/");
        until("the copy came", || shadow.requests().len() > before);
        assert_eq!(shadow.requests()[before].field("host"), Some(&*expected));
    }
}

#[test]
fn a_sample_of_the_requests_is_copied() {
    let (app, all, few) = (Origin::saying("ok"), Origin::saying(""), Origin::saying(""));
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { endpoints: ["APP"] }, all: { endpoints: ["ALL"] }, few: { endpoints: ["FEW"] } }
hosts:
  all:
    names: ["*"]
    routes:
      all:
        path: "/**"
        proxy: { upstream: app, mirror: [{ upstream: all, in_flight: 10000 }, { upstream: few, sample: 1% }] }
"#;
    let words: [(&str, &dyn std::fmt::Display); 3] =
        [("APP", &app.address()), ("ALL", &all.address()), ("FEW", &few.address())];
    let proxy = Proxy::start(&config(yaml, &words));
    let mut client = proxy.client();
    for _ in 0..3000 {
        assert_eq!(client.get("/").status, 200);
    }
    until("every copy came", || all.requests().len() == 3000);
    let few = few.requests().len();
    // 30 of 3000 are expected, with a standard deviation of 5.4.
    assert!((5..=60).contains(&few), "{few} of 3000 requests at 1%");
}

#[test]
fn a_mirror_that_fails_is_never_noticed() {
    let app = Origin::saying("ok");
    let garbage = Origin::replying(b"no HTTP at all\r\n\r\n");
    let cut = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
        Reply::Close
    });
    let (silent, dead) = (silent(), free_port());
    let dead = format!("127.0.0.1:{dead}");
    for (kind, address) in [
        ("dead", dead),
        ("silent", silent.address().to_string()),
        ("garbage", garbage.address().to_string()),
        ("cut", cut.address().to_string()),
    ] {
        let proxy = start(&app, &address, "timeout: 200ms");
        let mut client = proxy.client();
        for n in 0..20 {
            let path = format!("/{n}");
            let response = client.send(post(&path, "body")).response();
            assert_eq!((response.status, response.text().as_str()), (200, "ok"), "{kind}");
            let line = proxy.access_line_of(&path);
            assert_eq!((&line["upstream"], &line["attempts"]), (&json!("app"), &json!(1)), "{kind}");
            assert_eq!((&line["reason"], &line["status"]), (&json!(null), &json!(200)), "{kind}");
        }
        assert_eq!(sent(&proxy), 20, "{kind}");
        until("failures are counted", || failed(&proxy) == 20);
        until("the copies have ended", || in_flight(&proxy, "shadow", &address) == Some(0.0));
        let ejected = format!("portolan_endpoint_ejected{{endpoint=\"{}\",upstream=\"app\"}}", app.address());
        assert_eq!(proxy.metric(&ejected), Some(0.0), "{kind}");
    }
}

#[test]
fn a_response_without_end_ends_with_the_time_of_the_copy() {
    let app = Origin::saying("ok");
    let endless = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while exchange.try_send("3\r\nabc\r\n").is_ok() {}
        Reply::Close
    });
    let proxy = start(&app, endless.address(), "timeout: 3s");
    assert_eq!(proxy.client().get("/").text(), "ok");
    until("the copy is there", || endless.requests().len() == 1);
    until("its connection is closed", || endless.ended() == 1);
    until("the copy has ended", || in_flight(&proxy, "shadow", &endless.address()) == Some(0.0));
    assert_eq!((sent(&proxy), failed(&proxy)), (1, 0));
}

#[test]
fn the_request_is_not_slower_because_the_mirror_is() {
    let (app, shadow) = (Origin::saying("ok"), silent());
    let proxy = start(&app, shadow.address(), "timeout: 1m");
    let mut client = proxy.client();
    let began = Instant::now();
    (0..20).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    until("the copies are there", || shadow.connections() == 20);
    assert_eq!((sent(&proxy), failed(&proxy)), (20, 0));
}

#[test]
fn larger_bodies_are_not_copied() {
    let (app, shadow) = (Origin::saying("ok"), Origin::saying(""));
    let proxy = start(&app, shadow.address(), "max_body: 10B");
    let mut client = proxy.client();
    assert_eq!(client.send(post("/fits", "0123456789")).response().status, 200);
    until("the first copy came", || shadow.requests().len() == 1);
    assert_eq!(client.send(post("/large", "0123456789a")).response().status, 200);
    let chunks = "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n";
    assert_eq!(client.send(chunks).response().status, 200);
    assert_eq!(client.get("/last").status, 200);
    until("the copies came", || shadow.requests().len() == 2);
    let bodies: Vec<_> = shadow.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, [&b"0123456789"[..], b""]);
    assert_eq!((sent(&proxy), dropped(&proxy, "body_too_large")), (2, 2));
    assert_eq!(app.requests()[2].body, b"0123456701234567");
}

#[test]
fn retries_and_copies_do_not_mix() {
    let count = AtomicUsize::new(0);
    let app = Origin::serving(move |exchange| match count.fetch_add(1, Ordering::Relaxed) % 3 {
        0 => {
            exchange.send("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
            Reply::Keep
        }
        1 => Reply::Close,
        _ => {
            let length = exchange.request.body.len();
            exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
            exchange.send(exchange.request.body.clone());
            Reply::Keep
        }
    });
    let shadow = Origin::saying("not for the client");
    let proxy = start(&app, shadow.address(), "sample: 100%");
    let mut client = proxy.client();
    for n in 0..20 {
        let body = format!("body {n} ").repeat(50);
        let response = client.send(post("/", &body)).response();
        assert_eq!((response.status, response.text()), (200, body));
    }
    until("each request has one copy", || shadow.requests().len() == 20);
    let copies = shadow.requests();
    for n in 0..20 {
        let body = format!("body {n} ").repeat(50);
        assert_eq!(copies.iter().filter(|copy| copy.text() == body).count(), 1, "{n}");
    }
    assert_eq!((app.requests().len(), sent(&proxy)), (60, 20));
}

#[test]
fn so_many_copies_are_in_flight_at_once() {
    let (app, shadow) = (Origin::saying("ok"), silent());
    let proxy = start(&app, shadow.address(), "in_flight: 2, timeout: 1s");
    let mut client = proxy.client();
    (0..5).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert_eq!((sent(&proxy), dropped(&proxy, "in_flight")), (2, 3));
    until("their time is over", || failed(&proxy) == 2);
    until("there is room again", || {
        assert_eq!(client.get("/").status, 200);
        sent(&proxy) > 2
    });
}

#[test]
fn a_request_that_does_not_come_to_its_end_has_no_copy() {
    let (app, shadow) = (Origin::saying("ok"), Origin::saying(""));
    let proxy = start(&app, shadow.address(), "sample: 100%");
    let mut client = proxy.client();
    client.send("POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    until("the request is on its way", || app.bytes() > 0);
    drop(client);
    until("it is noticed", || dropped(&proxy, "incomplete") == 1);
    assert_eq!(proxy.client().get("/whole").status, 200);
    until("the next one has a copy", || shadow.requests().len() == 1);
    assert!(shadow.request().start.contains("/whole"));
}

#[test]
fn the_client_need_not_wait_for_the_copy() {
    let (app, shadow) = (Origin::saying("ok"), Origin::saying(""));
    let proxy = start(&app, shadow.address(), "sample: 100%");
    for _ in 0..20 {
        // It disconnects as soon as it has its response.
        assert_eq!(proxy.client().send(post("/", "body")).response().status, 200);
    }
    until("every copy came whole", || {
        shadow.requests().iter().filter(|copy| copy.body == b"body").count() == 20
    });
}

#[test]
fn tunnels_are_not_copied() {
    let app = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        exchange.read_to_end();
        Reply::Close
    });
    let shadow = Origin::saying("");
    let proxy = start(&app, shadow.address(), "sample: 100%");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.response().status, 101);
    assert_eq!((sent(&proxy), dropped(&proxy, "incomplete"), shadow.connections()), (0, 0, 0));
}

#[test]
fn the_process_ends_when_the_copies_have_ended() {
    let (release, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (app, answered) = (Origin::saying("ok"), AtomicUsize::new(0));
    let shadow = Origin::serving(move |exchange| {
        let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
        answered.fetch_add(1, Ordering::Relaxed);
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        Reply::Keep
    });
    let mut proxy = start(&app, shadow.address(), "timeout: 1m");
    assert_eq!(proxy.client().get("/").status, 200);
    until("the copy is there", || shadow.requests().len() == 1);
    proxy.signal("TERM");
    until("the connections have ended", || proxy.log().contains("draining"));
    assert!(proxy.is_running(), "it waits for the copy");
    assert_eq!(shadow.closed(), 0);
    release.send(()).unwrap();
    assert!(proxy.ended().success());

    let silent = silent();
    let mut proxy = start(&app, silent.address(), "timeout: 300ms");
    assert_eq!(proxy.client().get("/").status, 200);
    until("the copy is there", || silent.requests().len() == 1);
    let began = Instant::now();
    proxy.signal("TERM");
    assert!(proxy.ended().success());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_reload_keeps_count_of_the_copies() {
    let (app, shadow) = (Origin::saying("ok"), silent());
    let mut proxy = start(&app, shadow.address(), "in_flight: 1, timeout: 1m");
    assert_eq!(proxy.client().get("/").status, 200);
    until("the copy is there", || shadow.requests().len() == 1);
    proxy.change(&written(&app, shadow.address(), "in_flight: 1, timeout: 50s"));
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!((sent(&proxy), dropped(&proxy, "in_flight")), (1, 1));
    proxy.change(&written(&app, shadow.address(), "in_flight: 2, timeout: 50s"));
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(sent(&proxy), 2);
}

#[test]
fn explain_shows_the_mirror() {
    let tree = Tree::new();
    let (app, shadow) = (Origin::saying("ok"), Origin::saying(""));
    tree.write("portolan.yaml", written(&app, shadow.address(), "sample: 5%, max_body: 1MiB"));
    let arguments = ["explain", "GET", "http://a/", "--config", "portolan.yaml"];
    let said = portolan(&tree.path(""), &arguments).stdout;
    let line = "mirror      5% to shadow: bodies up to 1MiB, 100 copies at once, timeout 5s";
    assert!(said.contains(line), "{said}");
}

#[test]
fn a_client_over_one_connection_sees_its_own_responses_only() {
    let app = Origin::echoing();
    let shadow = Origin::saying("not for the client");
    let proxy = start(&app, shadow.address(), "sample: 50%");
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for n in 0..50 {
        for (nth, client) in clients.iter_mut().enumerate() {
            let response = client.get(&format!("/{nth}/{n}"));
            assert!(response.text().starts_with(&format!("GET /{nth}/{n} ")), "{}", response.text());
        }
    }
}
