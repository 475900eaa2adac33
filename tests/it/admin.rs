//! The administration over HTTP: who is answered, what probes say, and that nothing of the traffic is in its way.

use super::support::{Client, Origin, Proxy, config, eventually, free_port, portolan, until};

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
