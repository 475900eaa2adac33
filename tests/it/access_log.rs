//! One line for each request, and nothing lost of it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    http3,
    support::{Client, H2Client, Held, Origin, Proxy, Reaction, Tree, config, to, until},
};

#[test]
fn a_line_says_what_became_of_a_request() {
    let origin = Origin::saying("hello");
    let proxy = Proxy::before(&origin);
    proxy
        .client()
        .send("GET /a/b?c=d HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: tests\r\n\r\n")
        .response();
    let line = proxy.access_line_of("/a/b");
    assert_eq!(line["method"], "GET");
    assert_eq!(line["status"], 200);
    assert_eq!(line["route"], "all");
    assert_eq!(line["upstream"], "origin");
    assert_eq!(line["endpoint"], origin.address().to_string());
    assert_eq!(line["listener"], "web");
    assert!(line.get("reason").is_none_or(serde_json::Value::is_null), "{line}");
}

/// A head that is rejected: what is sent, and what the log says of method, path, authority and protocol.
type Rejected = (&'static str, &'static str, [Option<&'static str>; 4]);

const REJECTED: &[Rejected] = &[
    (
        "POST /both?x=y HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "ambiguous_framing",
        [Some("POST"), Some("/both"), Some("a:1"), Some("HTTP/1.1")],
    ),
    (
        "PUT /field HTTP/1.1\r\nHost: a\r\nA\u{0}: b\r\n\r\n",
        "malformed_request",
        [Some("PUT"), Some("/field"), Some("a"), Some("HTTP/1.1")],
    ),
    ("GET /hostless HTTP/1.1\r\n\r\n", "bad_host", [Some("GET"), Some("/hostless"), None, Some("HTTP/1.1")]),
    (
        "PUT /expect HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n",
        "expectation_failed",
        [Some("PUT"), Some("/expect"), Some("a"), Some("HTTP/1.1")],
    ),
    (
        "GET /two HTTP/2.0\r\nHost: a\r\n\r\n",
        "unsupported_version",
        [Some("GET"), Some("/two"), Some("a"), None],
    ),
    (
        "DELETE /half HTTP/1.1\r\nHost: a\r\nB\u{1}",
        "malformed_request",
        [Some("DELETE"), Some("/half"), Some("a"), Some("HTTP/1.1")],
    ),
    ("GET /\u{1}", "malformed_request", [Some("GET"), Some("/\u{1}"), None, None]),
    ("\u{16}\u{3}\u{1}", "malformed_request", [None, None, None, None]),
    (
        "POST /chunk HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "bad_chunk",
        [Some("POST"), Some("/chunk"), Some("a"), Some("HTTP/1.1")],
    ),
];

#[test]
fn a_line_of_a_rejected_request_says_what_was_read_and_no_more() {
    let origin = Origin::saying("hello");
    let proxy = Proxy::before(&origin);
    for (nth, (sent, reason, read)) in REJECTED.iter().enumerate() {
        let status = proxy.client().send(sent).response().status;
        assert!(status >= 400, "{sent:?} gets {status}");
        until("its line", || proxy.access_log().len() == nth + 1);
        let line = proxy.access_log().pop().unwrap();
        assert_eq!(line["reason"], *reason, "{sent:?}: {line}");
        let said = ["method", "path", "authority", "protocol"].map(|key| line[key].as_str());
        assert_eq!(said, *read, "{sent:?}: {line}");
    }
}

#[test]
fn other_forms_of_the_log_have_a_dash_for_what_was_not_read() {
    for (format, expected) in [
        (
            "{request.method} {request.target} {request.authority} {request.protocol} {reason}",
            "- - - - malformed_request\n",
        ),
        ("combined", "\"-\" 400"),
    ] {
        let proxy = logging(&format!("{{ format: \"{format}\", to: access.log }}"));
        assert_eq!(proxy.client().send("\u{1}").response().status, 400);
        until("a line", || proxy.tree().read("access.log").ends_with('\n'));
        let line = proxy.tree().read("access.log");
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn a_line_of_a_rejected_request_over_http_2_says_what_was_read() {
    let yaml = to(&[&"127.0.0.1:1"]).replace("\"127.0.0.1:0\"", "\"127.0.0.1:0\", protocols: [h2c]");
    let proxy = Proxy::start(&yaml);
    let mut client = H2Client::tcp(proxy.port("web"));
    let fields =
        [(":method", "PUT"), (":scheme", "http"), (":path", "/x?y"), (":authority", "a:1"), ("expect", "z")];
    client.headers(1, &fields.map(|(name, value)| (name.into(), value.into())), true);
    assert_eq!(client.reaction(1).unwrap(), Reaction::Answered);
    let line = proxy.access_line(|line| line["reason"] == "expectation_failed");
    let said = ["method", "path", "query", "authority", "protocol"].map(|key| line[key].as_str());
    assert_eq!(said, [Some("PUT"), Some("/x"), Some("y"), Some("a:1"), Some("HTTP/2")], "{line}");
}

#[test]
fn a_line_of_a_rejected_request_over_http_3_says_what_was_read() {
    let secure = http3::start(&Origin::saying("ok").address(), "[h3]", "");
    let answer = secure.ask_one(json!({ "method": "PUT", "path": "/x?y", "fields": [["expect", "z"]] }));
    assert_eq!(answer["status"], 417, "{answer}");
    let line = secure.proxy.access_line(|line| line["reason"] == "expectation_failed");
    let said = ["method", "path", "query", "protocol"].map(|key| line[key].as_str());
    assert_eq!(said, [Some("PUT"), Some("/x"), Some("y"), Some("HTTP/3")], "{line}");
    assert!(line["authority"].as_str().is_some_and(|host| host.starts_with("localhost")), "{line}");
}

#[test]
fn answers_of_our_own_carry_their_reason() {
    let proxy = Proxy::start(&to(&[&"127.0.0.1:1"]));
    assert_eq!(proxy.client().get("/x").status, 502);
    assert_eq!(proxy.access_line_of("/x")["reason"], "connect_refused");
}

#[test]
fn it_is_turned_off_where_that_is_said() {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    routes:
      quiet: { path: /quiet, respond: { body: ok }, access_log: false }
      loud: { path: /loud, respond: { body: ok } }
"#;
    let proxy = Proxy::start(yaml);
    let mut client = proxy.client();
    client.get("/quiet");
    client.get("/loud");
    proxy.access_line_of("/loud");
    assert!(proxy.access_log().iter().all(|line| line["path"] != "/quiet"));
}

#[test]
fn the_combined_form_goes_to_a_file() {
    let origin = Origin::saying("hello");
    let yaml = format!("{}access_log: {{ format: combined, to: access.log }}\n", to(&[&origin.address()]));
    let proxy = Proxy::start(&yaml);
    proxy
        .client()
        .send("GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: te\"sts\r\nReferer: http://b/\r\n\r\n")
        .response();
    until("a line", || proxy.tree().read("access.log").ends_with('\n'));
    let line = proxy.tree().read("access.log");
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.contains("\"GET /a HTTP/1.1\" 200 5 \"http://b/\""), "{line}");
    assert!(!line.contains("te\"sts"), "what a client sends is escaped: {line}");
}

#[test]
fn a_client_cannot_forge_lines() {
    let proxy = Proxy::start(&to(&[&"127.0.0.1:1"]));
    let mut client = proxy.client();
    client.send(b"GET /forged HTTP/1.1\r\nHost: a\r\nUser-Agent: \"}{\\n\xff\r\n\r\n").response();
    proxy.access_line_of("/forged");
}

#[test]
fn a_reader_that_does_not_read_blocks_no_request() {
    // A pipe that nobody empties, at the place of the log file.
    let tree = Tree::new();
    let made = std::process::Command::new("mkfifo").arg(tree.path("pipe")).status().unwrap();
    assert!(made.success());
    let _reader = std::fs::OpenOptions::new().read(true).write(true).open(tree.path("pipe")).unwrap();
    let origin = Origin::saying("hello");
    let yaml = config("BASEaccess_log: { to: pipe }\n", &[("BASE", &to(&[&origin.address()]))]);
    let proxy = Proxy::start_in(tree, &yaml);
    let mut client = proxy.client();
    for n in 0..3000 {
        assert_eq!(client.get(&format!("/{n}")).status, 200);
    }
}

const LOCAL: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
access_log: LOG
hosts:
  all:
    names: ["*"]
    routes:
      found: { path: "/**", respond: { body: ok } }
      missing: { path: "/missing/**", respond: { status: 404 } }
"#;

/// A proxy that answers by itself and logs like this.
fn logging(log: &str) -> Proxy {
    Proxy::start(&config(LOCAL, &[("LOG", &log)]))
}

fn lost(proxy: &Proxy, to: &str) -> f64 {
    proxy.metric(&format!("portolan_access_log_dropped_lines_total{{to=\"{to}\"}}")).unwrap_or_default()
}

#[test]
fn a_template_says_what_a_line_holds() {
    let format = "{client.ip} {request.method} {request.path} {request.target} {response.status} {route} {upstream} \
                  {request.id} [{request.header.X-Some}] \\\"{request.header.user-agent}\\\"";
    let proxy = logging(&format!("{{ format: \"{format}\", to: access.log }}"));
    let request =
        "GET //a/../b?c=d HTTP/1.1\r\nHost: a\r\nX-Some: one\r\nUser-Agent: x\" GET /forged\u{ff}\r\n\r\n";
    let request: Vec<u8> = request.chars().map(|c| c as u8).collect();
    assert_eq!(proxy.client().send(request).response().status, 200);
    until("a line", || proxy.tree().read("access.log").ends_with('\n'));
    let expected = "127.0.0.1 GET /b //a/../b?c=d 200 found - - [one] \"x\\\" GET /forged\\xff\"\n";
    assert_eq!(proxy.tree().read("access.log"), expected);
}

#[test]
fn keys_and_tokens_are_in_no_line() {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
access_log: { format: "{request.target} {request.query} {request.header.X-API-Key} {request.header.referer}" , to: access.log }
hosts:
  all:
    names: ["*"]
    routes:
      field: { path: /field, respond: { body: ok }, middleware: [api_key: { keys: KEYS }] }
      query: { path: /query, respond: { body: ok }, middleware: [api_key: { keys: KEYS, from: "query:key" }] }
"#;
    let keys = "{ a: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b }";
    let proxy = Proxy::start(&config(yaml, &[("KEYS", &keys)]));
    let mut client = proxy.client();
    client.send("GET /field HTTP/1.1\r\nHost: a\r\nX-API-Key: secret\r\n\r\n").response();
    let query = "GET /query?key=secret HTTP/1.1\r\nHost: a\r\nReferer: http://a/query?key=secret\r\n\r\n";
    client.send(query).response();
    until("two lines", || proxy.tree().read("access.log").lines().count() == 2);
    let expected = "/field - *** -\n/query?key=*** key=*** - http://a/query?key=***\n";
    assert_eq!(proxy.tree().read("access.log"), expected);
}

#[test]
fn errors_and_slow_requests_are_logged_and_of_the_others_a_share() {
    let proxy = logging("{ errors: true, slow: 1h }");
    let mut client = proxy.client();
    (0..20).for_each(|_| drop(client.get("/")));
    assert_eq!(client.get("/missing/1").status, 404);
    proxy.access_line_of("/missing/1");
    assert_eq!(proxy.access_log().len(), 1);

    let proxy = logging("{ sample: 50%, errors: true }");
    let mut client = proxy.client();
    (0..400).for_each(|_| drop(client.get("/")));
    (0..20).for_each(|_| drop(client.get("/missing/2")));
    until("all that is wrong", || {
        proxy.access_log().iter().filter(|line| line["path"] == "/missing/2").count() == 20
    });
    let others = proxy.access_log().iter().filter(|line| line["path"] == "/").count();
    assert!((100..300).contains(&others), "{others}");
}

#[test]
fn what_is_slow_is_logged_whatever_came_of_it() {
    let held = Held::new();
    let proxy = Proxy::start(&format!("{}access_log: {{ slow: 200ms }}\n", to(&[&held.origin.address()])));
    let (hold, mut client, start) = (held.hold(), proxy.client(), Instant::now());
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    until("it is slow", || held.origin.connections() == 1 && start.elapsed() > Duration::from_millis(250));
    drop(hold);
    assert_eq!(client.response().status, 200);
    assert_eq!(client.get("/fast").status, 200);
    let line = proxy.access_line_of("/slow");
    assert!(line["duration_ms"].as_f64().unwrap() >= 200.0, "{line}");
}

/// The numbers of requests in the lines of all files of the log, each with how often it stands there.
fn numbers(proxy: &Proxy, name: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(proxy.tree().path("")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with(name) {
            // It may have been renamed by now.
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().for_each(|line| *found.entry(line.to_owned()).or_default() += 1);
        }
    }
    found
}

#[test]
fn a_file_is_rotated_under_load_and_by_signal_and_each_line_is_there_once() {
    let log = r#"{ to: access.log, format: "{request.path} {time}", rotate: { size: 1KiB, keep: 1000 } }"#;
    let proxy = logging(log);
    let ask = |client: usize, port: u16| {
        let mut connection = Client::tcp(port);
        (0..500).for_each(|n| assert_eq!(connection.get(&format!("/{client}/{n}")).status, 200));
    };
    let port = proxy.port("web");
    let clients: Vec<_> = (0..4).map(|client| std::thread::spawn(move || ask(client, port))).collect();
    for n in 0..10 {
        // As logrotate does it, in the middle of all that.
        if fs::rename(proxy.tree().path("access.log"), proxy.tree().path(format!("access.log-{n}"))).is_ok() {
            let pid = proxy.pid().to_string();
            assert!(std::process::Command::new("kill").args(["-USR1", &pid]).status().unwrap().success());
            until("it is opened anew", || proxy.tree().path("access.log").exists());
        }
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    until("all lines", || numbers(&proxy, "access.log").len() == 2000);
    let found = numbers(&proxy, "access.log");
    assert!(found.values().all(|times| *times == 1));
    let paths: std::collections::BTreeSet<_> =
        found.keys().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(paths.len(), 2000);
    assert!(proxy.tree().path("access.log.5").exists());
    assert_eq!(lost(&proxy, &proxy.tree().path("access.log").to_string_lossy()), 0.0);
}

#[test]
fn each_line_is_a_message_to_the_systems_log() {
    let tree = Tree::new();
    let socket = UnixDatagram::bind(tree.path("log.sock")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let log = r#"{ to: "syslog:log.sock", format: "{request.method} {request.path}" }"#;
    let proxy = Proxy::start_in(tree, &config(LOCAL, &[("LOG", &log)]));
    proxy.client().get("/a");
    let mut message = [0; 1000];
    let length = socket.recv(&mut message).unwrap();
    let said = String::from_utf8_lossy(&message[..length]);
    assert_eq!(said, format!("<30>portolan[{}]: GET /a", proxy.pid()));
}

#[test]
fn a_full_disk_costs_lines_and_no_request() {
    let proxy = logging("{ to: /dev/full }");
    let mut client = proxy.client();
    (0..200).for_each(|n| assert_eq!(client.get(&format!("/{n}")).status, 200));
    until("all are counted", || lost(&proxy, "/dev/full") == 200.0);
}

#[test]
fn a_pipe_without_a_reader_and_a_log_that_takes_nothing_cost_lines_and_no_request() {
    let tree = Tree::new();
    let made = std::process::Command::new("mkfifo").arg(tree.path("place")).status().unwrap();
    assert!(made.success());
    // Nobody takes a message out of it.
    let _socket = UnixDatagram::bind(tree.path("log.sock")).unwrap();
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    routes:
      pipe: { path: "/pipe/**", respond: { body: ok }, access_log: { to: place } }
      log: { path: "/log/**", respond: { body: ok }, access_log: { to: "syslog:log.sock" } }
"#;
    let proxy = Proxy::start_in(tree, yaml);
    let mut client = proxy.client();
    let long = "x".repeat(7000);
    for (route, to) in [("pipe", "place"), ("log", "log.sock")] {
        let prefix = if route == "log" { "syslog:" } else { "" };
        let to = format!("{prefix}{}", proxy.tree().path(to).display());
        // More than the queue and the pipe hold.
        (0..800).for_each(|_| assert_eq!(client.get(&format!("/{route}/{long}")).status, 200));
        until("lines are lost", || lost(&proxy, &to) > 0.0);
    }
}
