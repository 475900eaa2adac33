//! The request engine where two messages could be taken for one another, or an answer could get lost.

use super::support::{Origin, Proxy, Reply, config, curl};

const LOCAL_AND_PROXIED: &str = r#"
listeners: { web: { bind: "127.0.0.1:0", timeouts: { body_idle: 1s, idle: 1s } } }
upstreams: { origin: { endpoints: ["ORIGIN"], timeouts: { first_byte: 500ms, body_idle: 500ms } } }
hosts:
  all:
    names: ["*"]
    routes:
      local: { path: /local, respond: { status: 200, body: ok } }
      all: { path: "/**", proxy: { upstream: origin } }
"#;

fn before(origin: &Origin) -> Proxy {
    Proxy::start(&config(LOCAL_AND_PROXIED, &[("ORIGIN", &origin.address())]))
}

#[test]
fn an_answer_in_place_of_100_continue_ends_the_connection() {
    let origin = Origin::saying("");
    let proxy = before(&origin);
    let mut client = proxy.client();
    client.send("POST /local HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.field("connection")), (200, Some("close")));
    assert!(client.is_closed());
}

#[test]
fn a_body_that_came_unasked_is_passed_over() {
    let origin = Origin::saying("");
    let proxy = before(&origin);
    let mut client = proxy.client();
    for framed in [
        "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        client.send(format!("POST /local HTTP/1.1\r\nHost: a\r\n{framed}"));
        let response = client.response();
        assert_eq!((response.status, response.field("connection")), (200, None));
    }
    assert_eq!(client.get("/local").status, 200);
}

#[test]
fn a_body_whose_end_is_out_of_sight_ends_the_connection() {
    let origin = Origin::saying("");
    let proxy = before(&origin);
    for framed in ["Transfer-Encoding: chunked\r\n\r\n5\r\nhel", "Content-Length: 500000\r\n\r\nhello"] {
        let mut client = proxy.client();
        client.send(format!("POST /local HTTP/1.1\r\nHost: a\r\n{framed}"));
        assert_eq!(client.response().field("connection"), Some("close"));
        client.finish_sending();
        assert!(client.is_closed());
    }
}

#[test]
fn a_body_that_stalls_is_408_and_the_connection_ends() {
    let origin = Origin::saying("");
    let proxy = before(&origin);
    let mut client = proxy.client();
    client.send("POST /stalls HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    let response = client.response();
    assert_eq!((response.status, response.field("connection")), (408, Some("close")));
    assert!(client.is_closed());
    assert_eq!(proxy.access_line_of("/stalls")["reason"], "body_timeout");
}

#[test]
fn a_request_without_a_host_goes_on_with_one() {
    let origin = Origin::saying("");
    let proxy = before(&origin);
    proxy.client().send("GET / HTTP/1.0\r\n\r\n").response();
    proxy.client().send("GET http://a.test:81/ HTTP/1.0\r\n\r\n").response();
    let hosts: Vec<_> = origin.requests().iter().map(|request| request.values("host").join("|")).collect();
    assert_eq!(hosts, [origin.address().to_string(), "a.test:81".to_owned()]);
    assert_eq!(origin.requests()[0].field("via"), Some("1.0 portolan"));
}

#[test]
fn every_response_has_a_date() {
    let origin = Origin::replying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let proxy = before(&origin);
    for path in ["/local", "/proxied"] {
        assert_eq!(proxy.client().get(path).values("date").len(), 1, "{path}");
    }
    let dated = Origin::replying(b"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(before(&dated).client().get("/").values("date"), ["then"]);
}

#[test]
fn no_tunnel_of_another_http_or_tls_is_asked_for() {
    let origin = Origin::saying("");
    let proxy = before(&origin);
    for protocol in ["h2c", "HTTP/2.0, H2C", "HTTP/2.0", "TLS/1.2"] {
        let response = proxy
            .client()
            .send(format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
            ))
            .response();
        assert_eq!(response.status, 200);
    }
    for request in origin.requests() {
        for field in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(request.field(field), None);
        }
    }
}

#[test]
fn an_upgrade_with_a_request_body_becomes_a_tunnel() {
    let origin = Origin::serving_early(|exchange| {
        let body = exchange.read_some();
        exchange.send("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
        exchange.send(body);
        let said = exchange.read_some();
        exchange.send(said);
        Reply::Close
    });
    let proxy = before(&origin);
    let mut client = proxy.client();
    let body = r#"{"Detach":false,"Tty":true}"#;
    client.send(format!(
        "POST /exec/1/start HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.response_head().status, 101);
    assert_eq!(client.read_exactly(body.len()), body.as_bytes());
    client.send("stdin");
    assert_eq!(client.read_exactly(5), b"stdin");
    let request = &origin.requests()[0];
    assert_eq!((request.field("upgrade"), request.field("connection")), (Some("tcp"), Some("Upgrade")));
}

#[test]
fn a_switch_that_nobody_asked_for_is_502() {
    let origin =
        Origin::replying(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    let proxy = before(&origin);
    assert_eq!(proxy.client().get("/plain").status, 502);
    assert_eq!(proxy.access_line_of("/plain")["reason"], "upstream_protocol");
}

#[test]
fn a_silent_tunnel_stays() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        let bytes = exchange.read_some();
        exchange.send(bytes);
        Reply::Close
    });
    let proxy = before(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.response_head().status, 101);
    // For longer than anything else may be.
    let mut body = proxy.client();
    body.send("POST /local HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    assert!(body.is_closed() && proxy.client().is_closed());
    client.send("still here");
    assert_eq!(client.read_exactly(10), b"still here");
}

#[test]
fn errors_have_the_form_that_the_client_wants() {
    let proxy = Proxy::start(
        r#"
defaults: { errors: { format: negotiate } }
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { gone: { endpoints: ["127.0.0.1:1"] } }
hosts: { all: { names: ["*"], routes: { gone: { path: "/gone", proxy: { upstream: gone } } } } }
"#,
    );
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (accept, kind) in [(browser, "text/html"), ("text/plain", "text/plain"), ("*/*", "application/json")]
    {
        for path in ["/gone", "/nowhere"] {
            let accept = format!("Accept: {accept}");
            let answer = curl(&["-i", "-H", &accept, &proxy.url("web", path)]).stdout.to_ascii_lowercase();
            assert!(answer.contains(&format!("content-type: {kind}")), "{accept}: {answer}");
            assert!(answer.contains("vary: accept\r\n"), "{answer}");
        }
    }
}
