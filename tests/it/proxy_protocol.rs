//! The PROXY protocol towards clients: who is believed, what is made of it, what is refused.

use std::{io::Write, net::TcpStream};

use rustls::ClientConnection;

use super::support::{
    Certificates, DEADLINE, H2Client, Haproxy, Nginx, Origin, Proxy, Reaction, Tree, config, curl,
    eventually, free_port, until,
};

const CONFIGURATION: &str = r#"
listeners: { web: { bind: "127.0.0.1:0", proxy_protocol: { from: [FROM] MODE } LIMITS } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
log: { level: debug }
"#;

const HERE: &str = "127.0.0.0/8";
const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

fn start(origin: &Origin, from: &str, mode: &str, limits: &str) -> Proxy {
    let words: [(&str, &dyn std::fmt::Display); 4] =
        [("FROM", &from), ("MODE", &mode), ("LIMITS", &limits), ("ORIGIN", &origin.address())];
    Proxy::start(&config(CONFIGURATION, &words))
}

/// How many headers had this outcome.
fn headers(proxy: &Proxy, outcome: &str) -> f64 {
    let series = format!("portolan_proxy_protocol_headers_total{{listener=\"web\",outcome=\"{outcome}\"}}");
    proxy.metric(&series).expect("the series is there")
}

/// A header of version 2 that names 192.0.2.7:49153, with these values behind it.
fn v2(command: u8, values: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0xc0, 0x01, 0x01, 0xbb];
    let length = u16::try_from(addresses.len() + values.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, 0x11], &length, &addresses, values].concat()
}

#[test]
fn who_a_header_names_is_the_client() {
    let origin = Origin::saying("reached");
    let proxy = start(&origin, HERE, "", "");
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 49153 443\r\n".to_vec();
    let six = b"PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\n".to_vec();
    for (header, client) in [
        (line, "192.0.2.7"),
        (six, "2001:db8::7"),
        (v2(0x21, b""), "192.0.2.7"),
        (v2(0x21, b"\x01\0\x08http/1.1\x02\0\x09a.example\x04\0\x02\0\0"), "192.0.2.7"),
        (v2(0x20, b""), "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let (asked, logged) = (origin.requests().len(), proxy.access_log().len());
        // In one piece, then byte by byte.
        for length in [4096, 1] {
            let mut one = proxy.client();
            for piece in [&header[..], GET.as_bytes()].concat().chunks(length) {
                one.send(piece);
            }
            assert_eq!(one.response().status, 200, "{client}");
            // The next request on the connection is theirs, too.
            assert_eq!(one.get("/y").status, 200);
        }
        for request in &origin.requests()[asked..] {
            assert_eq!(request.field("x-forwarded-for"), Some(client));
        }
        until("they are logged", || proxy.access_log().len() == logged + 4);
        assert!(proxy.access_log()[logged..].iter().all(|line| line["client_ip"] == client));
    }
    assert_eq!(headers(&proxy, "taken"), 12.0);
    assert!(proxy.log().contains("a.example"), "what TLS said is in the log at debug");
}

#[test]
fn what_is_no_header_is_refused_and_counted() {
    let origin = Origin::saying("reached");
    let proxy = start(&origin, HERE, "", ", timeouts: { handshake: 300ms }");
    let mut long = v2(0x21, b"");
    long[14] = 0xff;
    for (bytes, outcome) in [
        (GET.as_bytes().to_vec(), "missing"),
        (b"\x16\x03\x01\x02\0".to_vec(), "missing"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n".to_vec(), "malformed"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n".repeat(5), "malformed"),
        (v2(0x31, b""), "malformed"),
        (long, "malformed"),
        // A checksum of zeros.
        (v2(0x21, &[3, 0, 4, 0, 0, 0, 0]), "malformed"),
        (b"PROXY TCP4 1.2.3.4".to_vec(), "late"),
        (Vec::new(), "late"),
    ] {
        let before = headers(&proxy, outcome);
        let mut client = proxy.client();
        client.send(&bytes);
        assert_eq!(client.read_to_end(), b"", "nothing is answered to {bytes:?}");
        until(outcome, || headers(&proxy, outcome) == before + 1.0);
    }
    assert_eq!(origin.bytes(), 0);
    assert_eq!(headers(&proxy, "taken"), 0.0);
}

#[test]
fn a_peer_that_is_not_listed_is_refused_or_taken_as_it_is() {
    let origin = Origin::saying("reached");
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 49153 443\r\n";
    let strict = start(&origin, "10.0.0.0/8", ", mode: require", "");
    let mut client = strict.client();
    let _ = client.try_send(format!("{header}{GET}"));
    assert!(client.is_closed());
    until("it is counted", || headers(&strict, "not_listed") == 1.0);
    until("it is logged", || strict.log().contains("the peer is not listed"));
    assert_eq!(origin.bytes(), 0);

    let lenient = start(&origin, "10.0.0.0/8", ", mode: optional", "");
    assert_eq!(lenient.client().get("/plain").status, 200);
    assert_eq!(lenient.access_line_of("/plain")["client_ip"], "127.0.0.1");
    // A header of theirs is no header but a bad request.
    assert_eq!(lenient.client().send(format!("{header}{GET}")).response().status, 400);

    let listed = start(&origin, HERE, ", mode: optional", "");
    assert_eq!(listed.client().get("/plain").status, 200);
    assert_eq!(listed.client().send(format!("{header}{GET}")).response().status, 200);
    assert_eq!(listed.access_line_of("/x")["client_ip"], "192.0.2.7");
    assert_eq!(listed.access_line_of("/plain")["client_ip"], "127.0.0.1");
}

#[test]
fn limits_per_address_are_of_the_address_named() {
    let origin = Origin::saying("reached");
    let proxy = start(&origin, HERE, "", ", limits: { connections_per_ip: 1 }");
    let of = |address: &str| {
        let mut client = proxy.client();
        client.send(format!("PROXY TCP4 {address} 198.51.100.1 1 443\r\n{GET}"));
        client
    };
    let mut first = of("192.0.2.1");
    assert_eq!(first.response().status, 200);
    assert_eq!(of("192.0.2.2").response().status, 200);
    assert!(of("192.0.2.1").is_closed(), "a second connection of one address");
    let refused = "portolan_connections_refused_total{limit=\"connections_per_ip\",listener=\"web\"}";
    assert_eq!(proxy.metric(refused), Some(1.0));
    drop(first);
    eventually("its place is free", || of("192.0.2.1").try_response_to("GET").ok());
}

#[test]
fn alpn_of_the_header_settles_the_protocol() {
    let origin = Origin::saying("reached");
    let proxy = start(&origin, HERE, "", "");
    let mut client = H2Client::tcp_after(proxy.port("web"), &v2(0x21, b"\x01\0\x02h2"));
    let fields = [(":method", "GET"), (":scheme", "https"), (":path", "/h2"), (":authority", "a")];
    let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    client.headers(1, &fields, true);
    assert_eq!(client.reaction(1).unwrap(), Reaction::Answered);
    assert_eq!(proxy.access_line_of("/h2")["client_ip"], "192.0.2.7");
}

#[test]
fn haproxy_hands_connections_on() {
    let origin = Origin::saying("reached");
    let proxy = start(&origin, HERE, "", "");
    for (n, server) in
        ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority"]
            .iter()
            .enumerate()
    {
        let haproxy = Haproxy::before(proxy.port("web"), "", server);
        let path = format!("/{n}");
        let run = curl(&["--interface", "127.0.0.5", &format!("http://127.0.0.1:{}{path}", haproxy.port)]);
        assert_eq!(run.stdout, "reached", "{server}: {run:?}");
        assert_eq!(proxy.access_line_of(&path)["client_ip"], "127.0.0.5", "{server}");
    }
    // Its health checks speak for themselves.
    let checked = Haproxy::before(proxy.port("web"), "", "send-proxy-v2 check inter 100ms check-send-proxy");
    let taken = headers(&proxy, "taken");
    until("it has checked", || headers(&proxy, "taken") >= taken + 2.0);
    drop(checked);
    assert_eq!((headers(&proxy, "malformed"), headers(&proxy, "not_listed")), (0.0, 0.0));
}

#[test]
fn the_header_stands_before_tls() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("here", &["localhost"]);
    let yaml = r#"
certificates: { here: { cert: here.pem, key: here.key } }
listeners: { web: { bind: "127.0.0.1:0", tls: { certificates: [here] }, proxy_protocol: { from: [127.0.0.1] } } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: ok } } } } }
"#;
    let proxy = Proxy::start_in(tree, yaml);
    let haproxy = Haproxy::before(proxy.port("web"), "", "send-proxy-v2 proxy-v2-options crc32c");
    let url = |path: &str, port: u16| format!("https://localhost:{port}{path}");
    for (path, version) in [("/1", "--http1.1"), ("/2", "--http2")] {
        let arguments = [
            "--cacert",
            &certificates.ca(),
            version,
            "--interface",
            "127.0.0.5",
            "-4",
            &url(path, haproxy.port),
        ];
        assert_eq!(curl(&arguments).stdout, "ok");
        assert_eq!(proxy.access_line_of(path)["client_ip"], "127.0.0.5");
    }
    // curl writes the header itself.
    let arguments =
        ["--cacert", &certificates.ca(), "--haproxy-protocol", "-4", &url("/3", proxy.port("web"))];
    assert_eq!(curl(&arguments).stdout, "ok");
    // Both in one piece, as a balancer may write them.
    let name = "localhost".try_into().unwrap();
    let mut tls = ClientConnection::new(certificates.client(&["http/1.1"]), name).unwrap();
    let mut first = v2(0x21, b"");
    tls.write_tls(&mut first).unwrap();
    let mut socket = TcpStream::connect(("127.0.0.1", proxy.port("web"))).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(&first).unwrap();
    tls.complete_io(&mut socket).expect("a handshake");
    let plain = curl(&["--cacert", &certificates.ca(), "-4", &url("/4", proxy.port("web"))]);
    assert_ne!(plain.code, 0);
}

#[test]
fn an_upstream_is_told_whose_a_connection_is() {
    for version in ["v1", "v2"] {
        let said =
            r#"location / { return 200 "$proxy_protocol_addr $proxy_protocol_port $connection_requests"; }"#;
        let nginx = Nginx::start(Tree::new(), free_port(), "proxy_protocol", said);
        let yaml = r#"
listeners:
  web: { bind: "127.0.0.1:0", proxy_protocol: { from: [127.0.0.1], mode: optional } }
upstreams:
  nginx:
    endpoints: ["NGINX"]
    proxy_protocol: VERSION
    health: { http: { path: / }, interval: 100ms }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: nginx } } } } }
"#;
        let proxy = Proxy::start(&config(yaml, &[("NGINX", &nginx.address()), ("VERSION", &version)]));
        let mut seen = Vec::new();
        let mut clients = [proxy.client(), proxy.client()];
        for nth in ["1", "2"] {
            for client in &mut clients {
                let text = client.get("/").text();
                let (who, requests) = text.rsplit_once(' ').expect("three words");
                assert!(who.starts_with("127.0.0.1 "), "{version}: {text}");
                assert_eq!(requests, nth, "{version}: a client's connection is used again by that client");
                seen.push(who.to_owned());
            }
        }
        assert!(seen[0] != seen[1] && seen[..2] == seen[2..], "{version}: {seen:?}");
        let mut told = proxy.client();
        told.send(format!("PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n{GET}"));
        assert_eq!(told.response().text(), "2001:db8::7 4711 1", "{version}");
        // The checks of its health, which are nobody's, have not brought it down meanwhile.
        let checks = Nginx::tree(&nginx).read("error.log");
        assert!(!checks.contains("broken header"), "{version}: {checks}");
    }
}

#[test]
fn an_upstream_of_tls_or_of_http2_is_told_before_either() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("here", &["localhost"]);
    let server = format!(
        r#"ssl_certificate {}; ssl_certificate_key {}; location / {{ return 200 "$proxy_protocol_addr $server_protocol"; }}"#,
        certificates.file("here.pem"),
        certificates.file("here.key")
    );
    let ca = certificates.ca();
    let nginx = Nginx::start(tree, free_port(), "proxy_protocol ssl http2", &server);
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0", proxy_protocol: { from: [127.0.0.1] } } }
upstreams:
  nginx: { endpoints: ["NGINX"], proxy_protocol: v2, protocol: h2, tls: { server_name: localhost, ca: "CA" } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: nginx } } } } }
"#;
    let proxy = Proxy::start(&config(yaml, &[("NGINX", &nginx.address()), ("CA", &ca)]));
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.1"] {
        let mut client = proxy.client();
        client.send(format!("PROXY TCP4 {address} 198.51.100.1 5 443\r\n{GET}"));
        assert_eq!(client.response().text(), format!("{address} HTTP/2.0"));
    }
}

#[test]
fn an_upstream_that_refuses_is_seen_to() {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { gone: { endpoints: ["127.0.0.1:PORT"], proxy_protocol: v1 } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: gone } } } } }
"#;
    let proxy = Proxy::start(&config(yaml, &[("PORT", &free_port())]));
    assert_eq!(proxy.client().get("/gone").status, 502);
    assert_eq!(proxy.access_line_of("/gone")["reason"], "connect_refused");
}
