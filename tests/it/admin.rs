//! The administration over HTTP: who is answered, what probes say, and that nothing of the traffic is in its way.

use super::support::{Client, Origin, Proxy, Tree, config, eventually, free_port, portolan, until};

const YAML: &str = r#"
admin: { bind: "127.0.0.1:ADMIN" }
listeners: { web: { bind: "127.0.0.1:0", limits: { connections: 1 } } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: ok } } } } }
"#;

fn ask(port: u16, request: &str) -> (u16, String) {
    let mut client = Client::tcp(port);
    client.send(request);
    let response = client.response();
    (response.status, response.text())
}

#[test]
fn it_is_spoken_over_tcp_by_programs_of_this_machine_alone() {
    let port = free_port();
    let yaml = config(YAML, &[("ADMIN", &port)]);
    let proxy = Proxy::administered(&yaml, format!("127.0.0.1:{port}"));
    let mut held = proxy.client();
    assert_eq!(held.get("/").status, 200, "the one connection that the listener has");

    let (status, text) = ask(port, "GET /live HTTP/1.1\r\nHost: localhost:1\r\n\r\n");
    assert_eq!((status, text.as_str()), (200, r#"{"status":"ok"}"#));
    for (request, expected) in [
        ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 200),
        ("GET /status HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 403),
        ("GET /status HTTP/1.1\r\n\r\n", 403),
        ("POST /reload HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n", 403),
        ("POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 413),
        ("GET /reload HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        ("POST /status HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        ("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("POST /reload HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    ] {
        assert_eq!(ask(port, request).0, expected, "{request}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut client = Client::tcp(port);
    // It may be closed before all of it is sent.
    let _ = client.try_send(long);
    assert!(client.is_closed());

    let socket = format!("127.0.0.1:{port}");
    let outcome = portolan(proxy.tree().path("").as_path(), &["reload", "--socket", &socket]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("generation 3 is live"), "{outcome:?}");
    // The configuration says where it is.
    let outcome = portolan(proxy.tree().path("").as_path(), &["status", "--config", "portolan.yaml"]);
    assert!(outcome.stdout.contains("serving"), "{outcome:?}");
}

#[test]
fn a_refused_reload_is_said_with_its_problems_and_by_the_probe() {
    let proxy = Proxy::start(
        "listeners: { web: { bind: \"127.0.0.1:0\" } }\n\
         hosts: { all: { names: [\"*\"], routes: { all: { path: /, respond: {} } } } }\n",
    );
    assert_eq!(proxy.admin().get("/health").text(), r#"{"status":"ok","causes":[]}"#);
    proxy.write("portolan.yaml", "listeners: { web: { bnid: 1 } }\n");
    let mut admin = proxy.admin();
    admin.send("POST /reload HTTP/1.1\r\nHost: portolan\r\n\r\n");
    let response = admin.response();
    assert_eq!(response.status, 422);
    assert!(response.text().contains("bnid"), "{}", response.text());
    let health = admin.get("/health");
    assert_eq!(health.status, 200);
    assert!(health.text().contains("configuration_refused"), "{}", health.text());
    assert_eq!(admin.get("/ready").status, 200, "what was live before serves");
    assert_eq!(proxy.reload().code, 1);
    assert!(proxy.metric("portolan_reloads_total{result=\"refused\"}") >= Some(2.0));
    assert_eq!(proxy.metric("portolan_configuration_last_reload_failed"), Some(1.0));
}

#[test]
fn ready_turns_false_when_an_upstream_has_no_endpoint_and_when_draining() {
    let origin = Origin::saying("ok");
    let yaml = config(
        r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams:
  here: { endpoints: ["ORIGIN"] }
  gone: { endpoints: ["127.0.0.1:PORT"], health: { tcp: {}, interval: 50ms, unhealthy_after: 1 } }
hosts:
  www: { names: [www], routes: { all: { path: "/**", proxy: { upstream: here } } } }
EXTRA
"#,
        &[("ORIGIN", &origin.address()), ("PORT", &free_port())],
    );
    let extra = "  lost: { names: [lost], routes: { all: { path: \"/**\", proxy: { upstream: gone } } } }";
    let mut proxy = Proxy::start(&yaml.replace("EXTRA", extra));
    let text = eventually("it is not ready", || {
        let response = proxy.admin().get("/ready");
        (response.status == 503).then(|| response.text())
    });
    assert!(text.contains(r#"{"cause":"no_healthy_endpoint","upstream":"gone","hosts":["lost"]}"#), "{text}");
    let healthy = |upstream: &str, address: &str| {
        format!("portolan_endpoint_healthy{{endpoint=\"{address}\",upstream=\"{upstream}\"}}")
    };
    assert_eq!(proxy.metric(&healthy("here", &origin.address().to_string())), Some(1.0));
    assert!(proxy.metrics().lines().any(|line| line.starts_with("portolan_endpoint_healthy")
        && line.contains("upstream=\"gone\"")
        && line.ends_with(" 0")));
    // What no host needs does not count.
    proxy.change(&yaml.replace("EXTRA", ""));
    assert_eq!(proxy.admin().get("/ready").status, 200);

    let mut busy = proxy.client();
    busy.send("GET / HTTP/1.1\r\nHost: www\r\nContent-Length: 5\r\n\r\n");
    until("it runs", || {
        proxy.metrics().lines().any(|line| {
            line.starts_with("portolan_requests_in_flight") && line.contains("www") && line.ends_with(" 1")
        })
    });
    proxy.signal("TERM");
    until("it is draining", || proxy.admin().get("/ready").status == 503);
    assert!(proxy.admin().get("/ready").text().contains("draining"));
    assert_eq!(proxy.admin().get("/live").status, 200);
    busy.send("12345");
    assert_eq!(busy.response().status, 200);
    assert!(proxy.ended().success());
}

#[test]
fn from_afar_it_is_asked_by_token_alone() {
    let (port, token) = (free_port(), "a-token-of-some-length");
    let tree = Tree::new();
    tree.write("admin.token", format!("{token}\n"));
    let yaml = r#"
admin: { bind: "0.0.0.0:ADMIN", token: "${file:admin.token}" }
listeners: { web: { bind: "127.0.0.1:0" } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: ok } } } } }
"#;
    let main = tree.write("portolan.yaml", config(yaml, &[("ADMIN", &port)]));
    let place = format!("0.0.0.0:{port}");
    // That it is up is found out by the token that the configuration names.
    let mut proxy = Proxy::run_by(tree, &main, place.clone());

    let field = |shown: &str| format!("Host: admin.example\r\nAuthorization: {shown}\r\n\r\n");
    let (right, none) = (field(&format!("Bearer {token}")), "Host: admin.example\r\n\r\n".to_owned());
    for (line, fields, expected) in [
        ("GET /live", &none, 200),
        ("GET /ready", &none, 200),
        ("GET /health", &none, 401),
        ("GET /metrics", &none, 401),
        ("GET /status", &none, 401),
        ("GET /nothing", &none, 401),
        ("POST /reload", &none, 401),
        ("POST /reload", &field("Bearer a-token-of-some-lengt"), 401),
        ("POST /reload", &field("Basic a-token-of-some-length"), 401),
        ("GET /status", &right, 200),
        ("GET /metrics", &right, 200),
        ("GET /nothing", &right, 404),
        ("POST /reload", &right, 200),
        ("GET /status", &format!("Origin: http://a.example\r\n{right}"), 403),
    ] {
        assert_eq!(ask(port, &format!("{line} HTTP/1.1\r\n{fields}")).0, expected, "{line} {fields}");
    }
    assert_eq!(ask(port, &format!("GET /ready HTTP/1.1\r\n{none}")).1, r#"{"status":"ok"}"#);
    let mut client = Client::tcp(port);
    client.send(format!("GET /status HTTP/1.1\r\n{none}"));
    let response = client.response();
    assert_eq!(response.field("www-authenticate"), Some("Bearer realm=\"portolan\""));
    assert!(client.is_closed(), "each try takes a connection");
    let log = proxy.log();
    assert_eq!(log.matches("turned a request away").count(), 1, "{log}");
    assert!(!log.contains("a-token"), "{log}");

    let directory = proxy.tree().path("");
    let elsewhere = Tree::new();
    elsewhere.write("token", token);
    for (directory, arguments, code) in [
        (directory.as_path(), &["status"][..], 0),
        (directory.as_path(), &["reload", "--config", "portolan.yaml"], 0),
        (elsewhere.path("").as_path(), &["status", "--socket", &place, "--token-file", "token"], 0),
        (elsewhere.path("").as_path(), &["status", "--socket", &place], 3),
    ] {
        let outcome = portolan(directory, arguments);
        assert_eq!(outcome.code, code, "{arguments:?} {outcome:?}");
    }
    // A new token holds at once; without one nobody is let in from afar.
    let before = proxy.generation();
    proxy.write("admin.token", "another-token-of-some-length");
    proxy.wait_past(before);
    assert_eq!(ask(port, &format!("GET /status HTTP/1.1\r\n{right}")).0, 401);
    let config = config(yaml, &[("ADMIN", &port)]);
    proxy.write(
        "portolan.yaml",
        &config.replace("0.0.0.0", "127.0.0.1").replace(", token: \"${file:admin.token}\"", ""),
    );
    until("the token is gone", || proxy.log().contains("admin.bind"));
    let local = "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(ask(port, local).0, 401, "the address is the one of the start");
    assert_eq!(ask(port, "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").0, 200);
}
