//! Exchanges with HTTP/1 origins, for clients of each protocol: framing, interim responses, reused and idle connections,
//! early responses.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    exchange_h2::upload,
    support::{HyperH2, Origin, Proxy, Reply, Secure, Tree, config, curl, to, until, waited, within},
};

const CONFIGURATION: &str = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners:
  web: { bind: "127.0.0.1:0" }
  secure: { bind: "127.0.0.1:0", protocols: [h1, h2, h3], tls: { certificates: [web] } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      buffered: { path: "/buffered", middleware: [{ buffer: { size: 1KiB } }], proxy: { upstream: origin } }
"#;

/// A proxy for clients of all protocols.
pub fn secure(origin: &Origin) -> Secure {
    Secure::start(&config(CONFIGURATION, &[("ORIGIN", &origin.address())]))
}

#[test]
fn methods_that_give_bodies_a_meaning_say_that_there_is_none() {
    let origin = Origin::saying("ok");
    let secure = secure(&origin);
    let methods = [
        ("POST", Some("0")),
        ("PUT", Some("0")),
        ("PATCH", Some("0")),
        ("GET", None),
        ("DELETE", None),
        ("OPTIONS", None),
    ];
    for (method, length) in methods {
        for (path, fields) in [("/plain", None), ("/said", Some("0")), ("/buffered", None)] {
            let before = origin.requests().len();
            let url = secure.proxy.url("web", path);
            let said = fields.map(|length| format!("content-length: {length}"));
            let mut arguments = vec!["--http2-prior-knowledge", "-X", method, &url];
            arguments.extend(said.iter().flat_map(|field| ["-H", field]));
            assert_eq!(curl(&arguments).stdout, "ok", "{method} {path}");
            let fields: Vec<_> = fields.iter().map(|length| ["content-length", length]).collect();
            assert_eq!(
                secure.ask_one(json!({ "method": method, "path": path, "fields": fields }))["status"],
                200
            );
            let fields: String = said.iter().map(|field| format!("{field}\r\n")).collect();
            let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(secure.proxy.client().send(request).response().status, 200);
            let requests = origin.requests().split_off(before);
            assert_eq!(requests.len(), 3);
            for request in requests {
                let expected = if said.is_some() { Some("0") } else { length };
                assert_eq!(
                    request.field("content-length"),
                    expected,
                    "{method} {path}: {:?}",
                    request.fields
                );
                assert_eq!(request.values("transfer-encoding"), [""; 0], "{method} {path}");
            }
        }
    }
}

#[test]
fn interim_responses_lose_their_framing() {
    let origin = Origin::replying(
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nLink: </a.css>\r\n\r\n\
          HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\nKeep-Alive: x\r\nLink: </b.css>\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let secure = secure(&origin);
    for (protocol, status) in [("--http1.1", "http/1.1 103"), ("--http2-prior-knowledge", "http/2 103")] {
        let run = curl(&[protocol, "-i", &secure.proxy.url("web", "/")]);
        let seen = run.stdout.to_ascii_lowercase();
        let heads: Vec<&str> = seen.split("\r\n\r\n").collect();
        let [first, second, head, "ok"] = heads[..] else { panic!("{protocol}: {run:?}") };
        assert!(first.starts_with(status) && first.ends_with("link: </a.css>"), "{first}");
        assert!(second.starts_with(status) && second.ends_with("link: </b.css>"), "{second}");
        for absent in ["content-length", "transfer-encoding", "keep-alive"] {
            assert!(!first.contains(absent) && !second.contains(absent), "{seen}");
        }
        assert!(head.contains(" 200") && head.contains("content-length: 2"), "{head}");
    }
    let answer = secure.ask_one(json!({ "path": "/" }));
    let interim = json!([[103, [["link", "</a.css>"]]], [103, [["link", "</b.css>"]]]]);
    assert_eq!(
        (&answer["interim"], &answer["status"], &answer["body"]),
        (&interim, &json!(200), &json!("ok"))
    );
}

#[test]
fn a_reused_connection_that_ends_costs_no_request_that_may_be_repeated() {
    // The first connection ends with its second request, unanswered.
    let origin = || {
        Origin::serving(|exchange| {
            if exchange.connection() == 0 && exchange.request.start.contains("/second") {
                return Reply::Close;
            }
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            Reply::Keep
        })
    };
    for (method, status, times) in [
        ("GET", 200, 2),
        ("HEAD", 200, 2),
        ("PUT", 200, 2),
        ("DELETE", 200, 2),
        ("POST", 502, 1),
        ("PATCH", 502, 1),
    ] {
        for keys in ["endpoints:", "retry: { retries: 0 }, endpoints:"] {
            let origin = origin();
            let proxy = Proxy::start(&to(&[&origin.address()]).replace("endpoints:", keys));
            assert_eq!(proxy.client().get("/first").status, 200);
            let mut client = proxy.client();
            let request = format!("{method} /second HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
            assert_eq!(client.send(request).response_to(method).status, status, "{method} {keys}");
            let mut requests = origin.requests();
            requests.retain(|request| request.start.contains("/second"));
            assert_eq!(requests.len(), times, "{method} {keys}");
            assert!(requests.iter().all(|request| request.body == b"hi"));
        }
    }
}

#[test]
fn a_request_whose_response_has_begun_is_not_repeated() {
    for begun in ["H", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"] {
        let origin = Origin::serving(move |exchange| {
            if exchange.request.start.contains("/second") {
                exchange.send(begun);
                return Reply::Close;
            }
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            Reply::Keep
        });
        let proxy = Proxy::before(&origin);
        assert_eq!(proxy.client().get("/first").status, 200);
        let mut client = proxy.client();
        client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut response = client.response();
        while response.status < 200 {
            response = client.response();
        }
        assert_eq!(response.status, 502, "{begun:?}");
        assert_eq!(origin.requests().len(), 2, "{begun:?}");
    }
}

#[test]
fn a_post_is_not_sent_on_a_connection_that_was_closed_while_it_was_idle() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for n in 1..=100 {
        let request = format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.send(request).response().status, 200, "request {n}");
        until("the origin has closed", || origin.ended() == n);
    }
    assert_eq!(origin.requests().len(), 100);
}

#[test]
fn idle_connections_are_closed_in_time() {
    let keys = "pool: { idle: 1s }, endpoints:";
    let origin = Origin::saying("ok");
    let proxy = Proxy::start(&to(&[&origin.address()]).replace("endpoints:", keys));
    let asked = Instant::now();
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    until("the idle connection is closed", || origin.closed() == 1);
    let idle = asked.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(15)).contains(&idle), "{idle:?}");
    // The next one is made and closed in turn.
    assert_eq!(client.get("/").status, 200);
    assert_eq!(origin.connections(), 2);
    until("that is closed too", || origin.closed() == 2);

    let mut origin = HyperH2::run(&json!({}));
    let keys = "protocol: h2c, pool: { idle: 1s }, endpoints:";
    let proxy = Proxy::start(&to(&[&origin.address()]).replace("endpoints:", keys));
    for connection in 0..2 {
        let asked = Instant::now();
        assert_eq!(proxy.client().get("/").status, 200);
        assert_eq!(origin.next()["connection"], connection);
        assert_eq!(origin.next()["closed"], connection);
        let idle = asked.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_secs(15)).contains(&idle), "{idle:?}");
    }
}

#[test]
fn idle_connections_to_an_endpoint_that_a_reload_removes_are_closed_at_once() {
    const AT_ONCE: Duration = Duration::from_secs(10);
    let (removed, kept) = (Origin::saying("removed"), Origin::saying("kept"));
    let mut proxy = Proxy::start(&to(&[&removed.address(), &kept.address()]));
    let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    // Clients stay connected over the reload.
    until("both are connected", || {
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
        removed.connections() > 0 && kept.connections() > 0
    });
    let connections = kept.connections();
    proxy.change(&to(&[&kept.address()]));
    within(AT_ONCE, "connections to the removed one are closed", || {
        (removed.closed() == removed.connections()).then_some(())
    });
    assert_eq!(kept.closed(), 0);
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "kept"));
    assert_eq!(kept.connections(), connections, "those to the other are used again");

    let mut origin = HyperH2::run(&json!({}));
    let mut proxy =
        Proxy::start(&to(&[&origin.address()]).replace("endpoints:", "protocol: h2c, endpoints:"));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(origin.next()["connection"], 0);
    let changed = Instant::now();
    proxy.change(&to(&[&kept.address()]));
    assert_eq!(origin.next()["closed"], 0);
    assert!(changed.elapsed() < AT_ONCE);
}

#[test]
fn an_exchange_goes_on_when_the_response_ends_before_the_body() {
    let origin = Origin::serving_early(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
        let length = exchange.request.field("content-length").map_or(0, |length| length.parse().unwrap());
        // No more than that: the next request may follow at once.
        match exchange.stream.read_exact(&mut vec![0; length]) {
            Ok(()) => Reply::Keep,
            Err(_) => Reply::Close,
        }
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, "early"));
        if response.values("connection") == ["close"] {
            client = proxy.client();
        } else {
            client.send("56789");
        }
    }
    assert_eq!(client.get("/after").text(), "early");
    // What was sent of each body is a body's part, and never the next request's.
    assert!(origin.requests().iter().all(|request| request.start.ends_with(" HTTP/1.1")));
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn a_final_response_of_an_origin_that_closes_is_not_lost() {
    let origin = Origin::serving_early(|exchange| {
        exchange.send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig");
        Reply::Close
    });
    let secure = secure(&origin);
    let tree = Tree::new();
    let body = tree.write("body", vec![0; 10 << 20]).display().to_string();
    for _ in 0..10 {
        let url = secure.proxy.url("web", "/");
        let run = curl(&["--http1.1", "-H", "Expect:", "-w", "%{http_code}", "-T", &body, &url]);
        assert_eq!(run.stdout, "big413", "{}", run.stderr);
        assert_eq!(upload(secure.proxy.port("web"), "/", 10 << 20), (413, "big".into()));
    }
    for _ in 0..3 {
        let answer = secure.ask_one(json!({ "method": "POST", "path": "/", "size": 2 << 20 }));
        assert_eq!((&answer["status"], &answer["body"]), (&json!(413), &json!("big")), "{answer}");
    }
}

#[test]
fn a_client_that_sends_a_long_body_before_it_reads_receives_the_early_response() {
    let origin = Origin::serving_early(|exchange| {
        exchange.send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig");
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    for _ in 0..5 {
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
        client.send(vec![b'x'; 8 << 20]);
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (413, "big"));
    }
}

#[test]
fn each_attempt_has_its_own_wait_for_the_first_byte_within_the_total_time() {
    const SILENCE: Duration = Duration::from_millis(1300);
    let asked = Arc::new(AtomicUsize::new(0));
    let origins = [(); 2].map(|()| {
        let asked = asked.clone();
        Origin::serving(move |exchange| {
            // The first of two attempts is not answered.
            let is_first = asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
            waited(SILENCE, || None::<()>);
            if !is_first {
                exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
            Reply::Close
        })
    });
    let proxy = Proxy::start(&config(
        r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ONE", "TWO"], timeouts: { first_byte: 2s } } }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      total: { path: /total, timeouts: { total: 2s }, proxy: { upstream: origin } }
"#,
        &[("ONE", &origins[0].address()), ("TWO", &origins[1].address())],
    ));
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let run = curl(&[protocol, "-w", "%{http_code}", &proxy.url("web", "/")]);
        assert_eq!(run.stdout, "ok200", "{protocol}: {}", run.stderr);
        let line = proxy.access_line_of("/");
        assert_eq!((&line["attempts"], &line["reason"]), (&json!(2), &Value::Null), "{line}");
    }
    assert_eq!(proxy.client().get("/total").status, 504);
    let line = proxy.access_line_of("/total");
    assert_eq!((&line["attempts"], &line["reason"]), (&json!(2), &json!("total_timeout")), "{line}");
}
