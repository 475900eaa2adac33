//! Exchanges with the targets of http URIs: connections, bodies, waits. They are those of proxied requests.

use std::net::SocketAddr;

use serde_json::json;

use super::{
    absolute_form::{CONFIGURATION, ask, before, curl_by, get, start},
    support::{Origin, Proxy, Reply, Tree, free_port, until},
    waits::Unreachable,
    websocket::echo,
};

#[test]
fn bodies_pass_both_ways() {
    let origin = Origin::echoing();
    let proxy = before(&origin);
    let target = origin.address();
    let tree = Tree::new();
    let body = "0123456789abcdef".repeat(200_000);
    let file = format!("@{}", tree.write("body", &body).display());
    let uri = format!("http://{target}/echo");
    for more in [&["-H", "Expect: 100-continue"][..], &["-H", "Transfer-Encoding: chunked"]] {
        let said = curl_by(&proxy, &[more, &["--data-binary", &file, &uri]].concat());
        assert!(said.starts_with("POST /echo HTTP/1.1\r\n"), "{}", &said[..200]);
        let kept = origin.requests().last().unwrap().text();
        assert_eq!((kept.len(), kept == body), (body.len(), true));
    }
    let mut client = proxy.client();
    let head =
        format!("POST {uri} HTTP/1.1\r\nHost: {target}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.send(head).response_head().status, 100);
    assert!(client.send("hello").response().text().ends_with("hello"));
}

#[test]
fn answers_are_streamed_and_may_come_early() {
    let origin = Origin::serving_early(|exchange| {
        exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
        let rest = exchange.read_some();
        exchange.send(format!("{:x}\r\n", rest.len()));
        exchange.send(rest);
        exchange.send("\r\n0\r\n\r\n");
        Reply::Close
    });
    let proxy = before(&origin);
    let mut client = proxy.client();
    let target = origin.address();
    client.send(format!("POST http://{target}/ HTTP/1.1\r\nHost: {target}\r\nContent-Length: 3\r\n\r\n"));
    assert_eq!(client.response_head().status, 103);
    assert_eq!(client.response_head().status, 200);
    assert_eq!(client.read_exactly(8), b"3\r\none\r\n", "before the request has ended");
    client.send("two");
    assert_eq!(client.read_exactly(13), b"3\r\ntwo\r\n0\r\n\r\n");
}

#[test]
fn trailers_pass_both_ways() {
    let origin = Origin::replying(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n",
    );
    let proxy = before(&origin);
    let target = origin.address();
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send(format!(
            "POST http://{target}/ HTTP/1.1\r\nHost: {target}\r\nTE: trailers\r\nConnection: TE\r\n"
        ));
        client
            .send("Trailer: X-Own\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Own: 7\r\n\r\n");
        let response = client.response();
        assert_eq!((response.text().as_str(), response.field("via")), ("abc", Some("1.1 portolan")));
        assert_eq!(response.trailers.len(), 1, "{:?}", response.trailers);
    }
    for request in origin.requests() {
        assert_eq!(request.trailers, [("X-Own".to_owned(), "7".to_owned())]);
        assert_eq!(request.values("host"), [target.to_string()]);
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn websocket_passes_by_an_upgrade() {
    let (_server, address) = echo();
    let proxy = start(&[address.parse().unwrap()], ", idle: 10s", "");
    let mut client = proxy.client();
    client.send(format!("GET http://{address}/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n"));
    client.send("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    let head = client.response_head();
    assert_eq!(
        (head.status, head.field("sec-websocket-accept")),
        (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    );
    client.send(b"\x81\x82\0\0\0\0hi");
    assert_eq!(client.read_exactly(4), b"\x81\x02hi");
}

#[test]
fn a_target_that_cannot_be_reached_or_is_silent_is_told_as_any_upstream() {
    let gone = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let silent = Origin::serving(|exchange| {
        exchange.read_to_end();
        Reply::Close
    });
    let targets = [gone, silent.address()];
    let first_byte = start(&targets, "", ", timeouts: { first_byte: 200ms }");
    let total = start(&targets, "", ", timeouts: { total: 200ms }");
    for (proxy, target, status, reason) in [
        (&first_byte, gone, 502, "connect_refused"),
        (&first_byte, silent.address(), 504, "first_byte_timeout"),
        (&total, silent.address(), 504, "total_timeout"),
    ] {
        let response = ask(&mut proxy.client(), "GET", &format!("http://{target}/{reason}"));
        assert_eq!(response.status, status, "{reason}");
        let line = proxy.access_line_of(&format!("/{reason}"));
        assert_eq!(
            (&line["reason"], &line["endpoint"]),
            (&json!(reason), &json!(target.to_string())),
            "{line}"
        );
    }
}

#[test]
fn a_target_that_takes_no_connection_is_waited_for_as_long_as_is_said() {
    let unreachable = Unreachable::new();
    let target = unreachable.address;
    let proxy = start(&[target], ", connect: 300ms", "");
    assert_eq!(ask(&mut proxy.client(), "GET", &format!("http://{target}/full")).status, 504);
    assert_eq!(proxy.access_line_of("/full")["reason"], "connect_timeout");
}

#[test]
fn a_client_that_goes_is_noticed() {
    let origin = Origin::serving(|exchange| {
        exchange.read_to_end();
        Reply::Close
    });
    let proxy = before(&origin);
    let mut client = proxy.client();
    client.send(format!("GET http://{0}/gone HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.address()));
    until("it is asked", || origin.requests().len() == 1);
    drop(client);
    until("the target is left, too", || origin.closed() == 1);
    assert_eq!(proxy.access_line_of("/gone")["reason"], "client_gone");
}

#[test]
fn one_connection_is_for_several_targets_each_of_which_keeps_its_own() {
    let [one, two] = ["one", "two"].map(Origin::saying);
    let proxy = start(&[one.address(), two.address()], "", "");
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(get(&mut client, &one, "/").text(), "one");
        assert_eq!(get(&mut client, &two, "/").text(), "two");
    }
    assert_eq!((one.connections(), two.connections()), (1, 1));
}

#[test]
fn a_connection_serves_one_authority_alone() {
    let origin = Origin::saying("reached");
    let port = origin.address().port();
    let mut tree = CONFIGURATION.replace("PATH", "\"/**\"").replace("ROUTE", "");
    tree = tree.replace("TARGETS", &format!("\"localhost:{port}\", \"127.0.0.1:{port}\""));
    let proxy = Proxy::start(&tree.replace("MORE", ", deny: [\"::1\"]"));
    let mut client = proxy.client();
    for host in ["localhost", "127.0.0.1", "LOCALHOST", "127.0.0.1"] {
        assert_eq!(ask(&mut client, "GET", &format!("http://{host}:{port}/")).text(), "reached");
    }
    assert_eq!(origin.connections(), 2);
    let hosts: Vec<_> =
        origin.requests().iter().map(|request| request.field("host").unwrap().to_owned()).collect();
    assert_eq!(hosts[2], format!("LOCALHOST:{port}"), "as it came");
}

#[test]
fn a_kept_connection_that_the_target_closed_is_replaced() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Reply::Close
    });
    let proxy = before(&origin);
    let mut client = proxy.client();
    for count in 1..5 {
        assert_eq!(get(&mut client, &origin, "/").text(), "ok");
        assert_eq!(origin.connections(), count);
    }
}

#[test]
fn a_target_with_several_addresses_is_tried_at_each() {
    let origin = Origin::saying("reached");
    let port = origin.address().port();
    let yaml = CONFIGURATION.replace("PATH", "\"/**\"").replace("ROUTE", "").replace("MORE", ", deny: []");
    let proxy = Proxy::start(&yaml.replace("TARGETS", &format!("\"localhost:{port}\"")));
    // Where it is ::1 as well, nobody is there.
    assert_eq!(ask(&mut proxy.client(), "POST", &format!("http://localhost:{port}/any")).text(), "reached");
    assert_eq!(proxy.access_line_of("/any")["endpoint"], origin.address().to_string());
}

#[test]
fn metrics_count_it_by_its_route() {
    let origin = Origin::saying("reached");
    let yaml = CONFIGURATION
        .replace("PATH", "\"/**\"")
        .replace("TARGETS", &format!("\"{}\"", origin.address()))
        .replace("MORE", "")
        .replace("ROUTE", "");
    let proxy = Proxy::start(&yaml);
    for _ in 0..2 {
        assert_eq!(get(&mut proxy.client(), &origin, "/").text(), "reached");
    }
    until("they are counted", || {
        let metrics = proxy.metrics();
        let counted = metrics.lines().any(|line| {
            line.starts_with("portolan_requests_total{")
                && line.contains("route=\"out\"")
                && line.ends_with(" 2")
        });
        counted && !metrics.contains(&origin.address().to_string())
    });
}

#[test]
fn a_chain_may_wait_for_the_body() {
    let origin = Origin::saying("reached");
    let proxy = start(&[origin.address()], "", ", middleware: [buffer: { size: 1KiB }]");
    let mut client = proxy.client();
    client.send(format!("POST http://{0}/ HTTP/1.1\r\nHost: {0}\r\n", origin.address()));
    client.send("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(client.response().text(), "reached");
    let request = origin.request();
    assert_eq!((request.text().as_str(), request.field("content-length")), ("abc", Some("3")));
}
