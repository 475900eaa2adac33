//! Endpoints: chosen, failing, coming back, and what is said when none is left.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    sync::{Arc, mpsc},
    time::Duration,
};

use super::support::{
    Certificates, DEADLINE, Load, Nginx, Origin, Proxy, Reply, Tree, config, free_port, until, waited, wrk,
};

/// A proxy to these endpoints with further keys of the upstream.
fn with(endpoints: &[&dyn std::fmt::Display], keys: &str) -> Proxy {
    let list: Vec<String> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
    written(&list.join(", "), keys)
}

fn written(endpoints: &str, keys: &str) -> Proxy {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: [ENDPOINTS] KEYS } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    Proxy::start(&config(yaml, &[("ENDPOINTS", &endpoints), ("KEYS", &keys)]))
}

#[test]
fn nobody_listening_is_502() {
    let proxy = with(&[&format!("127.0.0.1:{}", free_port())], "");
    let response = proxy.client().get("/down");
    assert_eq!(response.status, 502);
    let status = response.field("proxy-status").expect("Proxy-Status");
    assert!(status.contains("error=connection_refused"), "{status}");
    assert_eq!(proxy.access_line_of("/down")["reason"], "connect_refused");
}

#[test]
fn an_endpoint_that_takes_no_connection_is_504() {
    // 192.0.2.0/24 is for documentation (RFC 5737): it answers nothing, or the system says at once that no way
    // leads there, which is a failed connection.
    let proxy = with(&[&"192.0.2.1:80"], ", timeouts: { connect: 200ms }, retry: { retries: 0 }");
    let response = proxy.client().get("/far");
    let reason = proxy.access_line_of("/far")["reason"].clone();
    match response.status {
        504 => assert_eq!(reason, "connect_timeout"),
        502 => assert!(matches!(reason.as_str(), Some("connect_failed" | "connect_refused")), "{reason}"),
        status => panic!("{status}: {reason}"),
    }
}

#[test]
fn an_endpoint_that_does_not_answer_is_504() {
    let origin = Origin::serving(|exchange| {
        exchange.read_to_end();
        Reply::Close
    });
    let proxy = with(&[&origin.address()], ", timeouts: { first_byte: 300ms }");
    let response = proxy.client().get("/silent");
    assert_eq!(response.status, 504);
    assert!(response.field("proxy-status").unwrap().contains("error=http_response_timeout"));
    assert_eq!(proxy.access_line_of("/silent")["reason"], "first_byte_timeout");
    until("the origin's connection is closed", || origin.closed() > 0);
}

#[test]
fn an_endpoint_that_stops_in_the_middle_is_cut_off() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        exchange.read_to_end();
        Reply::Close
    });
    let proxy = with(&[&origin.address()], ", timeouts: { body_idle: 300ms }");
    let mut client = proxy.client();
    client.send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_head().status, 200);
    assert_eq!(client.read_to_end(), b"half");
    assert_eq!(proxy.access_line_of("/half")["reason"], "upstream_body_timeout");
}

#[test]
fn the_total_time_of_a_route_or_of_all_ends_it() {
    let origin = Origin::serving(|exchange| {
        exchange.read_to_end();
        Reply::Close
    });
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
defaults: { timeouts: { total: 300ms } }
hosts:
  all:
    names: ["*"]
    routes:
      default: { path: /default, proxy: { upstream: origin } }
      own: { path: /own, proxy: { upstream: origin }, timeouts: { total: 1ms } }
"#;
    let proxy = Proxy::start(&config(yaml, &[("ORIGIN", &origin.address())]));
    for path in ["/default", "/own"] {
        assert_eq!(proxy.client().get(path).status, 504);
        assert_eq!(proxy.access_line_of(path)["reason"], "total_timeout");
    }
    assert!(proxy.access_line_of("/default")["duration_ms"].as_f64() >= Some(300.0));
}

#[test]
fn garbage_is_502() {
    for garbage in [
        &b"garbage\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ] {
        let origin = Origin::serving(move |exchange| {
            exchange.send(garbage);
            Reply::Close
        });
        let proxy = Proxy::before(&origin);
        let response = proxy.client().get("/garbage");
        assert_eq!(response.status, 502, "{}", String::from_utf8_lossy(garbage));
        let reason = proxy.access_line_of("/garbage")["reason"].clone();
        assert!(matches!(reason.as_str(), Some("upstream_protocol" | "upstream_closed")), "{reason}");
    }
}

#[test]
fn an_endpoint_that_closes_without_an_answer_is_502() {
    let origin = Origin::serving(|_| Reply::Close);
    let proxy = Proxy::before(&origin);
    assert_eq!(proxy.client().get("/closed").status, 502);
    assert_eq!(proxy.access_line_of("/closed")["reason"], "upstream_closed");
}

#[test]
fn a_kept_connection_that_the_origin_closed_costs_no_request() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for n in 0..100 {
        let response = client.get(&format!("/{n}"));
        assert_eq!(response.status, 200, "request {n}: {:?}", response.values("proxy-status"));
    }
}

#[test]
fn where_the_connection_fails_another_endpoint_is_tried() {
    let origin = Origin::saying("alive");
    let dead = format!("127.0.0.1:{}", free_port());
    let proxy = with(&[&dead, &origin.address()], "");
    let mut client = proxy.client();
    for n in 0..20 {
        // Nothing was sent to the dead one, so that a POST is as safe as a GET.
        let request = format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        let response = client.send(request).response();
        assert_eq!((response.status, response.text().as_str()), (200, "alive"));
    }
    assert_eq!(origin.requests().len(), 20, "each arrived once");
}

#[test]
fn no_endpoint_left_is_503_with_retry_after() {
    let dead = format!("127.0.0.1:{}", free_port());
    let proxy = with(
        &[&dead],
        ", health: { tcp: {}, interval: 100ms, timeout: 100ms, unhealthy_after: 1, healthy_after: 1 }",
    );
    until("the endpoint is unhealthy", || proxy.client().get("/probe").status == 503);
    let response = proxy.client().get("/none");
    assert!(response.field("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    assert!(response.field("proxy-status").unwrap().contains("destination_unavailable"));
    assert_eq!(proxy.access_line_of("/none")["reason"], "no_endpoint");
}

#[test]
fn health_checks_take_endpoints_out_and_bring_them_back() {
    let healthy = Arc::new(AtomicBool::new(true));
    let said = Arc::clone(&healthy);
    let sick = Origin::serving(move |exchange| {
        let checked = exchange.request.start.contains("/ready");
        let status = if checked && !said.load(Ordering::Acquire) { "503 No" } else { "200 OK" };
        exchange.send(format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nsick"));
        Reply::Keep
    });
    let well = Origin::saying("well");
    let health = ", health: { http: { path: /ready }, interval: 50ms, timeout: 1s, unhealthy_after: 2, healthy_after: 2 }";
    let proxy = with(&[&sick.address(), &well.address()], health);
    let answers = || {
        let mut client = proxy.client();
        (0..10).map(|_| client.get("/").text()).collect::<Vec<_>>()
    };
    until("both answer", || answers().contains(&"sick".into()) && answers().contains(&"well".into()));
    healthy.store(false, Ordering::Release);
    until("the sick one is out", || !answers().contains(&"sick".into()));
    healthy.store(true, Ordering::Release);
    until("it is back", || answers().contains(&"sick".into()));
}

#[test]
fn weights_are_honoured_by_every_balancer() {
    for balance in [
        "round_robin",
        "random_two",
        "least_requests",
        "{ hash: \"query:n\" }",
        "{ consistent_hash: \"query:n\" }",
    ] {
        let origins: Vec<Origin> = ["a", "b"].into_iter().map(Origin::saying).collect();
        let endpoints =
            format!("\"{}\", {{ address: \"{}\", weight: 3 }}", origins[0].address(), origins[1].address());
        let proxy = written(&endpoints, &format!(", balance: {balance}"));
        let counts = tally(&proxy, 400);
        let heavy = counts["b"];
        // Chance may be off by much; an even split of 200 is what must not come out.
        assert!((230..=370).contains(&heavy), "{balance}: {counts:?}");
    }
}

/// A second apart: no pause of a busy machine changes which one is faster. Weights are tested by simulation.
#[test]
fn ewma_goes_by_response_times() {
    let quick = Origin::saying("quick");
    let slow = Origin::serving(|exchange| {
        waited(Duration::from_secs(1), || None::<()>);
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
        Reply::Keep
    });
    let endpoints = format!("\"{}\", \"{}\"", slow.address(), quick.address());
    let proxy = written(&endpoints, ", balance: ewma");
    let counts = tally(&proxy, 40);
    // The slow one is asked once to learn its time, and seldom after that.
    assert!(counts["quick"] >= 34 && counts["slow"] >= 1, "{counts:?}");
}

#[test]
fn round_robin_is_exact() {
    let origins: Vec<Origin> = ["a", "b", "c"].into_iter().map(Origin::saying).collect();
    let addresses: Vec<_> = origins.iter().map(Origin::address).collect();
    let proxy = with(&[&addresses[0], &addresses[1], &addresses[2]], ", balance: round_robin");
    let counts = tally(&proxy, 300);
    assert!(counts.values().all(|count| (99..=101).contains(count)), "{counts:?}");
}

#[test]
fn a_key_stays_with_its_endpoint() {
    for balance in ["{ hash: \"header:X-User\" }", "{ consistent_hash: \"header:X-User\" }"] {
        let origins: Vec<Origin> = ["a", "b", "c", "d"].into_iter().map(Origin::saying).collect();
        let list: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
        let proxy = written(&list.join(", "), &format!(", balance: {balance}"));
        let mut client = proxy.client();
        let mut used = BTreeMap::new();
        for user in 0..20 {
            let mut ask = || {
                client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: u{user}\r\n\r\n")).response().text()
            };
            let first = ask();
            assert!((0..5).all(|_| ask() == first), "{balance}");
            *used.entry(first).or_insert(0) += 1;
        }
        assert!(used.len() > 1, "{balance}: all keys at one endpoint");
    }
}

#[test]
fn least_requests_avoids_the_busy_one() {
    let (release, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Origin::serving(move |exchange| {
        let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
        Reply::Keep
    });
    let quick = Origin::saying("quick");
    let proxy = with(&[&slow.address(), &quick.address()], ", balance: least_requests");
    // One request after the other on one connection: when the slow one is busy, nothing else is in flight.
    let mut client = proxy.client();
    for sent in 1.. {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        until("an origin is asked", || slow.requests().len() + quick.requests().len() == sent);
        if !slow.requests().is_empty() {
            break;
        }
        client.response();
    }
    let counts = tally(&proxy, 50);
    assert_eq!(counts.get("quick"), Some(&50), "{counts:?}");
    drop(release);
}

#[test]
fn an_endpoint_is_a_unix_socket_too() {
    let tree = Tree::new();
    let socket = tree.path("origin.sock");
    let nginx = Nginx::start(
        Tree::new(),
        free_port(),
        "",
        &format!("listen unix:{}; location / {{ return 200 unix; }}", socket.display()),
    );
    let proxy = with(&[&format!("unix:{}", socket.display())], "");
    assert_eq!(proxy.client().get("/").text(), "unix");
    drop(nginx);
}

#[test]
fn endpoints_speak_tls_and_are_verified() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("origin", &["origin.internal"]);
    certificates.sign("client", &["client.internal"]);
    let ssl = format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client optional; \
         location / {{ return 200 \"$ssl_client_verify $http_host $ssl_server_name\"; }}",
        certificates.file("origin.pem"),
        certificates.file("origin.key"),
        certificates.ca(),
    );
    let nginx = Nginx::start(Tree::new(), free_port(), "ssl http2", &ssl);
    let yaml = |keys: &str| {
        let text = r#"
certificates: { client: { cert: CLIENT.pem, key: CLIENT.key } }
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"], KEYS } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
        config(
            text,
            &[("CLIENT", &certificates.file("client")), ("ORIGIN", &nginx.address()), ("KEYS", &keys)],
        )
    };
    let ca = certificates.ca();
    for protocol in ["h1", "h2", "auto"] {
        let keys = format!(
            "protocol: {protocol}, tls: {{ ca: {ca}, server_name: origin.internal, client_certificate: client }}"
        );
        let proxy = Proxy::start(&yaml(&keys));
        assert_eq!(proxy.client().get("/").text(), "SUCCESS localhost origin.internal", "{protocol}");
    }
    let anonymous = Proxy::start(&yaml(&format!("tls: {{ ca: {ca}, server_name: origin.internal }}")));
    assert!(anonymous.client().get("/").text().starts_with("NONE"));
    for (wrong, reason) in [
        (format!("tls: {{ ca: {ca}, server_name: other.internal }}"), "upstream_certificate_invalid"),
        ("tls: { server_name: origin.internal }".to_owned(), "upstream_certificate_invalid"),
    ] {
        let proxy = Proxy::start(&yaml(&wrong));
        assert_eq!(proxy.client().get("/wrong").status, 502, "{wrong}");
        assert_eq!(proxy.access_line_of("/wrong")["reason"], reason, "{wrong}");
    }
    let unverified = Proxy::start(&yaml("tls: { verify: none }"));
    assert_eq!(unverified.client().get("/").status, 200);
}

#[test]
fn endpoints_speak_http_2_in_the_clear() {
    let nginx =
        Nginx::start(Tree::new(), free_port(), "http2", "location / { return 200 $server_protocol; }");
    let proxy = with(&[&nginx.address()], ", protocol: h2c");
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "HTTP/2.0");
    }
    let body = "x".repeat(100_000);
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(client.send(request).response().status, 200);
}

#[test]
fn load_loses_nothing_while_an_endpoint_is_killed_and_comes_back() {
    let mut mortal = Nginx::saying("mortal");
    let steady = Nginx::saying("steady");
    let keys = ", health: { tcp: {}, interval: 100ms, unhealthy_after: 1, healthy_after: 1 }";
    let proxy = with(&[&mortal.address(), &steady.address()], keys);
    let url = proxy.url("web", "/");
    let load = Load::repeat(move || wrk(&["-t1", "-c8", "-d1s", &url]));
    for _ in 0..3 {
        mortal.kill();
        until("the steady one answers alone", || (0..5).all(|_| proxy.client().get("/").text() == "steady"));
        mortal.restart();
        until("the mortal one is back", || tally(&proxy, 10).contains_key("mortal"));
    }
    let load = load.stop();
    // A request that the killed endpoint had already taken is lost with it and answered 502: as many as it had
    // connections, at most. All others must be answered well.
    assert!(load.succeeded > 1000, "{load:?}");
    assert!(load.failed <= 3 * 8, "{load:?}");
}

#[test]
fn kept_connections_cost_no_thread_of_their_own() {
    let origin = Origin::saying("hello");
    let proxy = with(&[&origin.address()], "");
    until("a connection is used again", || {
        let before = origin.connections();
        proxy.client().get("/").status == 200 && origin.connections() == before
    });
    let threads = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
    let names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
    let names: Vec<String> = names.map(|name| name.trim_end().to_owned()).collect();
    // Pingora's, which wakes a hundred times a second.
    assert!(!names.iter().any(|name| name == "Timer thread"), "{names:?}");
}

/// How often each origin answered, by what it says.
fn tally(proxy: &Proxy, requests: usize) -> BTreeMap<String, usize> {
    let mut client = proxy.client();
    let mut counts = BTreeMap::new();
    for n in 0..requests {
        *counts.entry(client.get(&format!("/?n={n}")).text()).or_default() += 1;
    }
    counts
}

/// The manual says so. What has more is no response that can be read, and does not pass in part.
#[test]
fn a_response_of_an_upstream_has_at_most_256_fields() {
    for (count, status) in [(256, 200), (257, 502)] {
        let fields: String = (1..count).map(|nth| format!("X-{nth}: a\r\n")).collect();
        let response = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
        let origin = Origin::replying(Box::leak(response.into_bytes().into_boxed_slice()));
        let proxy = Proxy::before(&origin);
        let response = proxy.client().get("/");
        assert_eq!(response.status, status, "{count} fields");
    }
}
