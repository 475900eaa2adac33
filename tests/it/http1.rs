//! HTTP/1.1 on the client's side: connections that live on, bodies however they are framed, answers of our own.

use std::sync::{Arc, Barrier};

use super::support::{Certificates, Client, H2Origin, Nginx, Origin, Proxy, Reply, Tree, config, curl, to};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_connection_serves_many_requests_and_so_does_the_one_upstream() {
    let origin = Origin::saying("hello");
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for _ in 0..20 {
        let response = client.get("/");
        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    }
    assert_eq!(origin.connections(), 1, "connections to the origin");
}

#[test]
fn curl_keeps_its_connection() {
    let nginx = Nginx::saying("hello");
    let proxy = Proxy::start(&to(&[&nginx.address()]));
    let url = proxy.url("web", "/");
    let run = curl(&[&url, &url, &url, "-w", "%{num_connects},"]);
    assert_eq!(run.stdout, "hello1,hello0,hello0,", "{}", run.stderr);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let origin = Origin::echoing();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let requests: String = (0..10).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests);
    for n in 0..10 {
        let response = client.response();
        assert!(response.text().starts_with(&format!("GET /{n} ")), "{}", response.text());
    }
}

#[test]
fn a_pipelined_request_behind_a_body_is_found() {
    let origin = Origin::echoing();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbodyHEAD /b HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert!(client.response().text().ends_with("body"));
    assert_eq!(client.response_to("HEAD").status, 200);
}

#[test]
fn connection_close_is_honoured_and_answered() {
    let origin = Origin::saying("hello");
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().field("connection"), Some("close"));
    assert!(client.is_closed());
}

#[test]
fn http_1_0_is_served_and_closed() {
    let origin =
        Origin::replying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let response = client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").response();
    assert_eq!(response.values("transfer-encoding"), [""; 0], "HTTP/1.0 knows no chunks");
    assert_eq!(response.text(), "abc");
    assert!(client.is_closed());
}

#[test]
fn chunked_bodies_pass_both_ways() {
    let origin = Origin::serving(|exchange| {
        assert_eq!(exchange.request.text(), "hello world");
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        exchange.send("5\r\nbye, \r\n4\r\nbye!\r\n0\r\n\r\n");
        Reply::Keep
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send("5\r\nhello\r\n").send("6;ext=1\r\n world\r\n0\r\n\r\n");
        let response = client.response();
        assert_eq!(response.text(), "bye, bye!");
    }
    assert_eq!(origin.requests()[0].values("transfer-encoding"), ["chunked"]);
}

/// Of an HTTP/2 origin; those of HTTP/1.1 have a file of their own.
#[test]
fn trailers_of_the_response_reach_the_client() {
    let origin = H2Origin::with_trailers();
    let h2c = to(&[&origin.address()]).replace("endpoints:", "protocol: h2c, endpoints:");
    let proxy = Proxy::start(&h2c);
    let mut client = proxy.client();
    client.send("GET /file HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    let response = client.response();
    assert_eq!(response.text(), "abc");
    let trailers: Vec<_> =
        response.trailers.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
    assert_eq!(trailers, [("x-sum".to_owned(), "42")]);
    assert_eq!(client.get("/file").status, 200, "the connection lives on");
}

#[test]
fn the_length_of_a_response_is_kept() {
    let origin = Origin::saying("12345");
    let proxy = Proxy::before(&origin);
    let response = proxy.client().get("/");
    assert_eq!(response.field("content-length"), Some("5"));
    assert_eq!(response.values("transfer-encoding"), [""; 0]);
}

#[test]
fn a_response_that_ends_with_its_connection_is_passed_on_whole() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "until the end");
    assert_eq!(client.get("/").text(), "until the end", "the client's connection lives on");
}

#[test]
fn a_response_cut_short_is_not_passed_off_as_whole() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort");
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let run = curl(&[&proxy.url("web", "/")]);
    assert_eq!(run.code, 18, "curl says that the transfer was partial: {run:?}");
    let chunked = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n");
        Reply::Close
    });
    let proxy = Proxy::before(&chunked);
    let mut client = proxy.client();
    client.send(GET);
    let text = String::from_utf8(client.read_to_end()).unwrap();
    assert!(!text.ends_with("0\r\n\r\n"), "{text}");
}

/// How the origin's response to HTTP/1.0 ends for the client: its body has no length.
fn ends_of_http10(path: &str) -> Vec<std::io::Result<Vec<u8>>> {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        if exchange.request.start.contains("/whole") {
            exchange.send("0\r\n\r\n");
        }
        Reply::Close
    });
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["localhost"]);
    let yaml = config(
        r#"
certificates: { web: { cert: FILES/web.pem, key: FILES/web.key } }
listeners:
  web: { bind: "127.0.0.1:0" }
  secure: { bind: "127.0.0.1:0", tls: { certificates: [web] } }
  early: { bind: "127.0.0.1:0", tls: { certificates: [web], early_data: true } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#,
        &[("FILES", &tree.path("").display()), ("ORIGIN", &origin.address())],
    );
    let proxy = Proxy::start_in(tree, &yaml);
    let secure = |listener| Client::tls(proxy.port(listener), "localhost", certificates.client(&[])).unwrap();
    [proxy.client(), secure("secure"), secure("early")]
        .into_iter()
        .map(|mut client| client.send(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n")).read_whole())
        .collect()
}

#[test]
fn a_response_without_a_length_that_was_cut_short_does_not_end_as_a_whole_one() {
    for whole in ends_of_http10("/whole") {
        let text = String::from_utf8(whole.unwrap()).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nhello"), "{text}");
    }
    for cut in ends_of_http10("/cut") {
        assert!(cut.is_err(), "{}", String::from_utf8_lossy(&cut.unwrap()));
    }
}

#[test]
fn one_whose_time_is_up_does_not_either() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\n\r\nand so on");
        // Until the proxy has gone.
        exchange.read_some();
        Reply::Close
    });
    let mut proxy = Proxy::start(&format!("drain_timeout: 1ms\n{}", to(&[&origin.address()])));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_head().status, 200);
    assert_eq!(client.read_exactly(9), b"and so on");
    proxy.signal("TERM");
    assert!(client.read_whole().is_err());
    proxy.ended();
}

#[test]
fn head_has_the_fields_and_no_body() {
    let nginx = Nginx::saying("hello");
    let proxy = Proxy::start(&to(&[&nginx.address()]));
    let mut client = proxy.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.response_to("HEAD");
    assert_eq!((head.status, head.field("content-length")), (200, Some("5")));
    assert_eq!(client.response().text(), "hello", "no body of HEAD before it");
    let run = curl(&["--head", &proxy.url("web", "/")]);
    assert!(run.code == 0 && run.stdout.starts_with("HTTP/1.1 200"), "{run:?}");
}

#[test]
fn statuses_without_a_body_have_none() {
    for reply in [
        &b"HTTP/1.1 204 No Content\r\n\r\n"[..],
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nETag: \"a\"\r\n\r\n",
    ] {
        let origin = Origin::replying(reply);
        let proxy = Proxy::before(&origin);
        let mut client = proxy.client();
        client.send([GET, GET].concat());
        let (first, second) = (client.response(), client.response());
        assert_eq!(first.status, second.status);
        assert!(matches!(first.status, 204 | 304));
    }
}

#[test]
fn the_body_is_asked_for_when_the_client_waits_to_be_asked() {
    let origin = Origin::echoing();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response_head().status, 100);
    let response = client.send("hello").response();
    assert_eq!(response.status, 200);
    assert!(response.text().ends_with("\r\n\r\nhello"), "{}", response.text());
}

#[test]
fn a_body_that_nobody_wants_is_not_asked_for() {
    let proxy = Proxy::start(
        r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts: { all: { names: ["*"], routes: { no: { path: "/**", respond: { status: 403 } } } } }
"#,
    );
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().status, 403);
}

#[test]
fn an_informational_response_does_not_end_the_exchange() {
    let origin = Origin::replying(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let mut response = client.get("/");
    while response.status < 200 {
        response = client.response();
    }
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
}

#[test]
fn options_reaches_the_origin() {
    let origin = Origin::replying(b"HTTP/1.1 204 No Content\r\nAllow: GET, OPTIONS\r\n\r\n");
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let response = client.send("OPTIONS /x HTTP/1.1\r\nHost: a\r\n\r\n").response();
    assert_eq!((response.status, response.field("allow")), (204, Some("GET, OPTIONS")));
    assert_eq!(origin.request().start, "OPTIONS /x HTTP/1.1");
}

#[test]
fn several_fields_of_one_name_stay_several() {
    let origin = Origin::replying(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-A: 2\r\n\r\n");
    assert_eq!(client.response().values("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(origin.request().values("x-a"), ["1", "2"]);
}

#[test]
fn many_clients_at_once_get_each_their_own() {
    let origin = Origin::echoing();
    let proxy = Proxy::before(&origin);
    let port = proxy.port("web");
    let start = Arc::new(Barrier::new(16));
    let clients: Vec<_> = (0..16)
        .map(|n| {
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                start.wait();
                let mut client = Client::tcp(port);
                for m in 0..50 {
                    let text = client.get(&format!("/{n}/{m}")).text();
                    assert!(text.starts_with(&format!("GET /{n}/{m} ")), "{text}");
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}
