//! Trailers both ways through upstreams of HTTP/1.1, where the client takes them or sends some.

use std::collections::HashMap;

use super::support::{
    Certificates, Client, Nginx, Origin, Proxy, Reply, Response, Tree, curl, free_port, to, until,
};

const TAKES: &str = "GET /file HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n";
const WITH_TRAILERS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n";

fn trailers(response: &Response) -> HashMap<String, String> {
    response.trailers.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect()
}

fn sum(value: &str) -> HashMap<String, String> {
    HashMap::from([("x-sum".into(), value.into())])
}

fn nginx() -> Nginx {
    let nginx = Nginx::serving("location / { add_trailer X-Sum 42; }");
    nginx.tree().write("root/file", "abc".repeat(100_000));
    nginx
}

#[test]
fn of_an_nginx_they_reach_a_client_of_http_1_1() {
    let nginx = nginx();
    let proxy = Proxy::start(&to(&[&nginx.address()]));
    let mut client = proxy.client();
    for _ in 0..3 {
        let response = client.send(TAKES).response();
        assert_eq!((response.status, response.body.len()), (200, 300_000));
        assert_eq!(trailers(&response), sum("42"));
    }
}

#[test]
fn of_an_nginx_they_reach_a_client_of_http_2() {
    let nginx = nginx();
    let yaml = to(&[&nginx.address()]).replace("bind:", "protocols: [h1, h2c], bind:");
    let proxy = Proxy::start(&yaml);
    let headers = proxy.tree().path("headers");
    let url = proxy.url("web", "/file");
    let arguments =
        ["--http2-prior-knowledge", "-sH", "TE: trailers", "-D", &headers.to_string_lossy(), &url];
    assert_eq!(curl(&arguments).stdout.len(), 300_000);
    assert!(proxy.tree().read("headers").to_lowercase().contains("x-sum: 42"));
}

#[test]
fn to_who_does_not_take_them_none_are_announced() {
    let origin = Origin::replying(WITH_TRAILERS.as_bytes());
    let response = Proxy::before(&origin).client().get("/");
    assert_eq!((response.text().as_str(), response.field("trailer")), ("abc", None));
    assert_eq!(trailers(&response), HashMap::new());
}

#[test]
fn of_a_request_they_reach_the_origin() {
    let origin = Origin::saying("thanks");
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(client.send("5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n").response().text(), "thanks");
    }
    for request in origin.requests() {
        assert_eq!((request.text().as_str(), request.field("trailer")), ("hello", Some("X-Sum")));
        assert_eq!(request.trailers, [("X-Sum".to_owned(), "7".to_owned())]);
        assert_eq!(request.field("te"), None, "it does not take any");
    }
    assert_eq!(origin.connections(), 1, "the connection was kept");
}

#[test]
fn what_the_upstream_is_told_is_what_the_client_said() {
    let origin = Origin::replying(WITH_TRAILERS.as_bytes());
    let proxy = Proxy::before(&origin);
    let response = proxy.client().send(TAKES).response();
    assert_eq!((response.text().as_str(), trailers(&response)), ("abc", sum("42")));
    let request = origin.request();
    assert_eq!((request.field("te"), request.field("connection")), (Some("trailers"), Some("TE")));
    assert_eq!(request.field("host"), Some("a"));
}

#[test]
fn that_frame_or_secure_the_message_are_left_out() {
    let origin = Origin::replying(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\
          Set-Cookie: a=b\r\nContent-Length: 5\r\n\r\n",
    );
    let response = Proxy::before(&origin).client().send(TAKES).response();
    assert_eq!((response.text().as_str(), trailers(&response)), ("abc", sum("1")));
}

#[test]
fn a_length_beside_chunks_is_502() {
    let origin = Origin::replying(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    let proxy = Proxy::before(&origin);
    assert_eq!(proxy.client().send(TAKES).response().status, 502);
    assert_eq!(proxy.access_line(|_| true)["reason"], "upstream_protocol");
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_costs_nothing() {
    let origin = Origin::serving(|exchange| {
        exchange.send(WITH_TRAILERS);
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for _ in 0..20 {
        assert_eq!(trailers(&client.send(TAKES).response()), sum("42"));
    }
}

#[test]
fn another_endpoint_is_tried_where_one_cannot_be_connected_to() {
    let origin = Origin::replying(WITH_TRAILERS.as_bytes());
    let gone = Origin::saying("").address();
    let yaml = to(&[&gone, &origin.address()]).replace("endpoints:", "retry: { retries: 1 }, endpoints:");
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    for _ in 0..4 {
        assert_eq!(trailers(&client.send(TAKES).response()), sum("42"));
    }
}

#[test]
fn without_an_endpoint_or_an_answer_it_is_as_without_trailers() {
    let gone = Origin::saying("").address();
    let proxy = Proxy::start(&to(&[&gone]));
    assert_eq!(proxy.client().send(TAKES).response().status, 502);
    assert_eq!(proxy.access_line_of("/file")["reason"], "connect_refused");

    let mute = Origin::serving(|exchange| {
        exchange.read_to_end();
        Reply::Close
    });
    let yaml = to(&[&mute.address()]).replace("proxy:", "timeouts: { first_byte: 100ms }, proxy:");
    let proxy = Proxy::start(&yaml);
    assert_eq!(proxy.client().send(TAKES).response().status, 504);
    assert_eq!(proxy.access_line_of("/file")["reason"], "first_byte_timeout");

    let nonsense = Origin::replying(b"nonsense\r\n\r\n");
    let proxy = Proxy::before(&nonsense);
    assert_eq!(proxy.client().send(TAKES).response().status, 502);
    assert_eq!(proxy.access_line_of("/file")["reason"], "upstream_protocol");
}

#[test]
fn a_response_cut_short_is_shown_as_such() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let sent = client.send(TAKES).read_to_end();
    let text = String::from_utf8_lossy(&sent);
    assert!(text.contains("abc") && !text.contains("\r\n0\r\n"), "{text}");
    assert_eq!(proxy.access_line_of("/file")["reason"], "upstream_closed");
}

#[test]
fn a_client_that_goes_is_noticed() {
    let origin = Origin::serving_early(|exchange| {
        exchange.read_to_end();
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(TAKES);
    until("the request is there", || origin.requests().len() == 1);
    drop(client);
    until("the connection upstream is closed", || origin.closed() == 1);
    assert_eq!(proxy.access_line_of("/file")["reason"], "client_gone");
}

#[test]
fn interim_responses_pass() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
        exchange.send(WITH_TRAILERS);
        Reply::Keep
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let hints = client.send(TAKES).response_head();
    assert_eq!((hints.status, hints.field("link")), (103, Some("</a.css>; rel=preload")));
    assert_eq!(trailers(&client.response()), sum("42"));
}

#[test]
fn an_answer_before_the_end_of_the_body_reaches_the_client_at_once() {
    let origin = Origin::serving_early(|exchange| {
        exchange.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    );
    assert_eq!(client.response().status, 413);
}

#[test]
fn of_a_request_they_say_nothing_again_that_its_head_says() {
    let origin = Origin::saying("thanks");
    let yaml = to(&[&origin.address()])
        .replace("proxy:", "middleware: [{ request_headers: { set: { X-User: ann } } }], proxy:");
    let proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    let mut post = |announced: &str, trailers: &str| {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTrailer: {announced}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        client.send(format!("5\r\nhello\r\n0\r\n{trailers}\r\n")).response().status
    };
    assert_eq!(post("X-User, X-Sum", "X-User: root\r\nX-Sum: 7\r\n"), 200);
    assert_eq!(post("X-User", "X-User: root\r\n"), 200);
    let trailers: Vec<_> = origin.requests().into_iter().map(|request| request.trailers).collect();
    assert_eq!(trailers, [vec![("X-Sum".to_owned(), "7".to_owned())], Vec::new()]);
    assert_eq!(post("Forwarded", "Forwarded: for=192.0.2.1\r\n"), 400);
}

#[test]
fn a_get_with_a_body_loses_none_of_it() {
    let origin = Origin::saying("thanks");
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!(client.send("5\r\nhello\r\n0\r\n\r\n").response().text(), "thanks");
    assert_eq!(origin.request().text(), "hello");
}

#[test]
fn large_bodies_pass_both_ways_in_little_memory() {
    const PIECE: usize = 1 << 20;
    let origin = Origin::serving_early(|exchange| {
        let mut left = 64 * PIECE;
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n"));
        while left > 0 {
            let _ = exchange.try_send(vec![b'x'; PIECE]);
            left -= PIECE;
        }
        if exchange.request.start.starts_with("GET") {
            return Reply::Keep;
        }
        exchange.read_to_end();
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let before = proxy.resident();
    let mut client = proxy.client();
    assert_eq!(client.send(TAKES).response().body.len(), 64 * PIECE);
    let mut upload = Client::tcp(proxy.port("web"));
    upload.send("POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nContent-Length: 67108864\r\n\r\n");
    assert_eq!(upload.response().body.len(), 64 * PIECE, "the answer does not wait for the body");
    for _ in 0..64 {
        upload.send(vec![b'y'; PIECE]);
    }
    until("all of it is there", || origin.bytes() > 64 * PIECE);
    assert!(proxy.resident() < before + (32 << 20), "{before} to {}", proxy.resident());
}

#[test]
fn over_tls_they_pass_as_well() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("origin", &["origin.test"]);
    let port = free_port();
    let server = format!(
        "ssl_certificate {}; ssl_certificate_key {}; location / {{ add_trailer X-Sum 42; }}",
        certificates.file("origin.pem"),
        certificates.file("origin.key"),
    );
    tree.write("root/file", "abc");
    let nginx = Nginx::start(tree, port, "ssl", &server);
    let tls = format!("tls: {{ server_name: origin.test, ca: {} }}, endpoints:", certificates.ca());
    let proxy = Proxy::start(&to(&[&nginx.address()]).replace("endpoints:", &tls));
    let mut client = proxy.client();
    for _ in 0..2 {
        let response = client.send(TAKES).response();
        assert_eq!((response.text().as_str(), trailers(&response)), ("abc", sum("42")));
    }
}
