//! HTTP/3 by aioquic: what passes over HTTP/2 passes over it.

use serde_json::{Value, json};

use super::support::{H2Origin, Nginx, Origin, Reply, Secure, config, until};

const SECURE: &str = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners:
  secure:
    bind: "127.0.0.1:0"
    protocols: PROTOCOLS
    tls: { certificates: [web] }
    LISTENER
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      only-get: { path: /get, methods: [GET], proxy: { upstream: origin } }
      moved: { path: /moved, redirect: { to: "https://else.test/" } }
      hints:
        path: /hints
        middleware: [{ early_hints: { links: ["</a.css>; rel=preload; as=style"] } }]
        proxy: { upstream: origin }
      zipped:
        path: /zipped
        middleware: [{ compress: { min_size: 1B } }]
        respond: { body: BODY, headers: { Content-Type: text/plain } }
      small:
        path: /small
        middleware: [{ body_limit: { size: 1KiB } }]
        proxy: { upstream: origin }
      few:
        path: /few
        middleware: [{ rate_limit: { rate: 1/h, burst: 1 } }]
        respond: { body: once }
"#;

pub fn start(origin: &dyn std::fmt::Display, protocols: &str, listener: &str) -> Secure {
    let yaml = config(
        SECURE,
        &[
            ("ORIGIN", origin),
            ("PROTOCOLS", &protocols),
            ("LISTENER", &listener),
            ("BODY", &format!("\"{}\"", "text ".repeat(1000))),
        ],
    );
    Secure::start(&yaml)
}

fn before(origin: &dyn std::fmt::Display) -> Secure {
    start(origin, "[h1, h2, h3]", "timeouts: { body_idle: 500ms }")
}

pub fn field<'a>(answer: &'a Value, name: &str) -> Option<&'a str> {
    let fields = answer["fields"].as_array().expect("fields");
    fields.iter().find(|field| field[0] == name).and_then(|field| field[1].as_str())
}

#[test]
fn host_and_authority_are_compared_as_entities() {
    let origin = Origin::saying("");
    let secure = before(&origin.address());
    let status = |authority: &str, host: &str| {
        secure.ask_one(json!({ "path": "/", "host": authority, "fields": [["host", host]] }))["status"]
            .clone()
    };
    for (authority, host) in
        [("a.test", "a.test:443"), ("A.test:443", "a.test."), ("a.test:", "a.test"), ("[::1]", "[0::1]:443")]
    {
        assert_eq!(status(authority, host), 200, "{authority} {host}");
    }
    for (authority, host) in [("a.test", "b.test"), ("a.test", "a.test:80"), ("a.test:8443", "a.test")] {
        assert_eq!(status(authority, host), 400, "{authority} {host}");
    }
}

#[test]
fn requests_of_every_kind_pass() {
    let origin = Origin::echoing();
    let secure = before(&origin.address());
    let answers = secure.ask(json!([
        { "path": "/a?b=c" },
        { "path": "/p", "method": "POST", "body": "hello", "fields": [["content-length", "5"]] },
        { "path": "/h", "method": "HEAD" },
        { "path": "/get", "method": "DELETE" },
        { "path": "/moved" },
        { "path": "/o", "method": "OPTIONS" },
    ]));
    let told: Vec<_> = answers.iter().map(|answer| answer["status"].as_u64().unwrap_or(0)).collect();
    assert_eq!(told, [200, 200, 200, 405, 308, 200], "{answers:?}");
    assert!(answers[0]["body"].as_str().unwrap().starts_with("GET /a?b=c HTTP/1.1\r\n"));
    assert!(answers[1]["body"].as_str().unwrap().ends_with("\r\n\r\nhello"));
    assert_eq!((&answers[2]["size"], field(&answers[2], "content-length").is_some()), (&json!(0), true));
    assert_eq!(field(&answers[4], "location"), Some("https://else.test/"));
    let request =
        origin.requests().into_iter().find(|request| request.start.starts_with("GET /a?b=c")).unwrap();
    assert_eq!(request.field("host"), Some(format!("localhost:{}", secure.proxy.port("secure")).as_str()));
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    assert!(request.field("via").unwrap().starts_with('3'), "the client's protocol in Via");
    assert!(
        request.field("transfer-encoding").is_none(),
        "a GET has no body: {:?}",
        request.field("transfer-encoding")
    );
}

#[test]
fn large_bodies_pass_both_ways() {
    let origin = Origin::serving(|exchange| {
        let body = exchange.request.body.clone();
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
        exchange.send(body);
        Reply::Keep
    });
    let secure = before(&origin.address());
    let size = 5_000_000;
    let answers = secure.ask(json!([
        { "method": "POST", "size": size },
        { "method": "POST", "size": size, "fields": [["content-length", size.to_string()]] },
    ]));
    for answer in &answers {
        assert_eq!((&answer["status"], &answer["size"]), (&json!(200), &json!(size)), "{answer}");
    }
    assert_eq!(answers[0]["sha256"], answers[1]["sha256"]);
}

#[test]
fn a_large_file_is_not_read_faster_than_it_is_taken() {
    let nginx = Nginx::serving("location / { try_files $uri =404; }");
    nginx.tree().write("root/large", vec![b'x'; 20_000_000]);
    let secure = before(&nginx.address());
    let answer = secure.ask_one(json!({ "path": "/large" }));
    assert_eq!((&answer["status"], &answer["size"]), (&json!(200), &json!(20_000_000)));
}

#[test]
fn trailers_pass_from_the_origin() {
    let origin = H2Origin::with_trailers();
    let yaml = SECURE.replace("endpoints:", "protocol: h2c, endpoints:");
    let words: [(&str, &dyn std::fmt::Display); 4] =
        [("ORIGIN", &origin.address()), ("PROTOCOLS", &"[h3]"), ("LISTENER", &""), ("BODY", &"x")];
    let secure = Secure::start(&config(&yaml, &words));
    let answer = secure.ask_one(json!({ "path": "/file", "fields": [["te", "trailers"]] }));
    assert_eq!(answer["body"], "abc", "{answer}");
    assert_eq!(answer["trailers"], json!([["x-sum", "42"]]));
}

#[test]
fn trailers_and_bodies_in_pieces_are_taken_from_the_client() {
    let origin = Origin::echoing();
    let secure = before(&origin.address());
    let answer = secure.ask_one(json!({ "method": "POST", "body": "abc", "trailers": [["checksum", "1"]] }));
    assert_eq!(answer["status"], 200, "{answer}");
    let request = origin.request();
    assert_eq!(request.body, b"abc");
}

#[test]
fn events_come_as_they_are_sent() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
        exchange.read_to_end();
        Reply::Close
    });
    let secure = before(&origin.address());
    let mut client = secure.run("begun", json!({ "request": { "cancel": 0x10c, "after": "some" } }));
    assert_eq!(client.next()["body"], "data: 1\n\n");
    // The client's going reaches the origin.
    until("the origin's connection is closed", || origin.closed() > 0);
}

#[test]
fn a_client_that_stops_reading_ends_the_exchange_with_the_origin() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        exchange.read_to_end();
        Reply::Close
    });
    let secure = before(&origin.address());
    secure.ask(json!([{ "stop": 0x10c }]));
    until("the origin's connection is closed", || origin.closed() > 0);
}

#[test]
fn a_client_that_gives_up_its_body_ends_the_exchange_with_the_origin() {
    let origin = Origin::serving_early(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        exchange.read_to_end();
        Reply::Close
    });
    let secure = before(&origin.address());
    secure.ask(json!([{ "method": "POST", "body": "part", "hold": true, "cancel": 0x10c, "after": "some" }]));
    until("the origin's connection is closed", || origin.closed() > 0);
}

#[test]
fn an_early_response_refuses_the_rest_of_the_body() {
    let origin = Origin::serving_early(|exchange| {
        exchange.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\nConnection: close\r\n\r\nno\r\n");
        Reply::Close
    });
    let secure = before(&origin.address());
    let answers = secure.ask(json!([
        { "method": "POST", "size": 50_000_000, "refused": true },
        { "method": "POST", "path": "/small", "fields": [["content-length", "5000000"]], "size": 5_000_000, "refused": true },
        { "method": "POST", "path": "/small", "size": 5_000_000, "refused": true },
    ]));
    // Without a length the limit is met while the body comes: the origin may have answered before.
    for (answer, statuses) in answers.iter().zip([&[401][..], &[413], &[413, 401]]) {
        assert!(statuses.iter().any(|status| answer["status"] == *status), "{answer}");
        assert_eq!((&answer["stopped"], &answer["failed"]), (&json!(0x100), &Value::Null), "{answer}");
    }
}

#[test]
fn informational_heads_pass_and_a_waiting_client_is_asked() {
    let origin = Origin::echoing();
    let secure = before(&origin.address());
    let answers = secure.ask(json!([
        { "path": "/hints" },
        { "method": "POST", "body": "asked", "expect": true, "fields": [["expect", "100-continue"]] },
    ]));
    assert_eq!(answers[0]["interim"], json!([[103, [["link", "</a.css>; rel=preload; as=style"]]]]));
    assert_eq!(answers[1]["interim"], json!([[100, []]]), "{answers:?}");
    assert!(answers[1]["body"].as_str().unwrap().contains("asked"), "{answers:?}");
}

#[test]
fn answers_are_compressed_and_limits_hold() {
    let origin = Origin::echoing();
    let secure = start(&origin.address(), "[h1, h2, h3]", "limits: { uri: 100B, headers: 20 }");
    let many: Vec<_> = (0..21).map(|n| json!([format!("x-{n}"), "y"])).collect();
    let answers = secure
        .run(
            "requests",
            json!({ "serial": true, "requests": [
                { "path": "/zipped", "fields": [["accept-encoding", "gzip"]] },
                { "path": "/few" },
                { "path": "/few" },
                { "path": format!("/{}", "x".repeat(100)) },
                { "fields": many },
                { "fields": vec![json!(["x-large", 40_000]); 2] },
                { "fields": vec![json!(["x-larger", 60_000]); 5] },
                { "host": "a.test", "fields": [["host", "b.test"]] },
                { "path": "/still" },
                { "path": "/zipped", "method": "HEAD", "fields": [["accept-encoding", "gzip"]] },
            ] }),
        )
        .all();
    let told: Vec<_> = answers.iter().map(|answer| answer["status"].as_u64().unwrap_or(0)).collect();
    assert_eq!(told, [200, 200, 429, 414, 431, 431, 431, 400, 200, 200]);
    for answer in [&answers[0], &answers[9]] {
        assert_eq!(field(answer, "content-encoding"), Some("gzip"));
        assert_eq!(field(answer, "content-length"), None);
    }
    assert!(answers[0]["size"].as_u64().unwrap() < 500);
}

#[test]
fn many_requests_share_a_connection() {
    let nginx = Nginx::saying("hello");
    let secure = start(&nginx.address(), "[h3]", "quic: { max_streams: 10 }");
    let answers = secure.ask(json!(vec![json!({}); 300]));
    assert!(answers.iter().all(|answer| answer["body"] == "hello"), "{:?}", answers[0]);
    let count = |name: &str| secure.proxy.metric(&format!("{name}{{listener=\"secure\"}}"));
    assert_eq!(count("portolan_quic_streams_total"), Some(300.0));
    let series = "portolan_connections_total{listener=\"secure\",protocol=\"h3\"}";
    assert_eq!(secure.proxy.metric(series), Some(1.0));
}

#[test]
fn a_body_that_stalls_is_answered() {
    let origin = Origin::echoing();
    let secure = before(&origin.address());
    let answer = secure.ask_one(json!({ "method": "POST", "body": "part", "hold": true }));
    assert_eq!(answer["status"], 408, "{answer}");
}

#[test]
fn a_response_that_breaks_off_is_reset() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        Reply::Close
    });
    let secure = before(&origin.address());
    let answer = secure.ask_one(json!({}));
    assert_eq!(answer["reset"], 0x102, "{answer}");
}

#[test]
fn a_request_is_logged_with_its_protocol() {
    let origin = Origin::saying("hello");
    let secure = before(&origin.address());
    secure.ask_one(json!({ "path": "/logged" }));
    let line = super::support::eventually("a line of the access log", || {
        let log = secure.proxy.tree().read("stdout");
        log.lines().find(|line| line.contains("/logged")).map(str::to_owned)
    });
    assert!(line.contains("HTTP/3") && line.contains("TLSv1.3"), "{line}");
}
