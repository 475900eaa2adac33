//! Tunnels by CONNECT: to listed targets, and to nothing else. Requests are another matter: `absolute_form`.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    time::Duration,
};

use super::support::{
    Certificates, Client, H2Client, Nginx, Origin, Proxy, Python, Reaction, Tree, config, curl, free_port,
    until,
};

const CONFIGURATION: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts: { all: { names: ["*"], routes: { tunnels: { path: "/", forward: { targets: [TARGETS] MORE } } } } }
"#;

fn start(targets: &str, more: &str) -> Proxy {
    Proxy::start(&config(CONFIGURATION, &[("TARGETS", &targets), ("MORE", &more)]))
}

/// Opens a tunnel, or is refused one.
fn connect(client: &mut Client, target: &str) -> u16 {
    client.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
    client.response_head().status
}

#[test]
fn curl_reaches_listed_targets() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("here", &["localhost"]);
    let (certificate, key) = (certificates.file("here.pem"), certificates.file("here.key"));
    let server = format!(
        "ssl_certificate {certificate}; ssl_certificate_key {key}; location / {{ return 200 secret; }}"
    );
    let nginx = Nginx::start(tree, free_port(), "ssl http2", &server);
    let port = nginx.address().rsplit_once(':').unwrap().1.to_owned();
    let origin = Origin::saying("reached");
    let proxy = start(
        &format!("\"localhost:{port}\", \"127.0.0.0/8:{}\"", origin.address().port()),
        ", deny: [\"::1\"]",
    );
    let by = proxy.url("web", "");
    let url = format!("https://localhost:{port}/");
    // The last --noproxy holds: without it, curl goes by no proxy at all here.
    for version in ["--http1.1", "--http2"] {
        let run = curl(&["--noproxy", "", "--proxy", &by, "--cacert", &certificates.ca(), version, &url]);
        assert_eq!(run.stdout, "secret", "{run:?}");
    }
    let run = curl(&[
        "--noproxy",
        "",
        "--proxy",
        &by,
        "--proxytunnel",
        &format!("http://{}/plain", origin.address()),
    ]);
    assert_eq!(run.stdout, "reached", "{run:?}");
    let line = proxy.access_line(|line| line["authority"] == origin.address().to_string());
    assert_eq!(
        (&line["method"], &line["status"], &line["route"]),
        (&"CONNECT".into(), &200.into(), &"tunnels".into())
    );
    assert!(line["received"].as_u64() > Some(20) && line["sent"].as_u64() > Some(20), "{line}");
}

/// CONNECT has no scheme, so that a Host without a port contradicts no target.
#[test]
fn host_may_name_the_target_in_another_spelling() {
    let origin = Origin::saying("reached");
    let port = origin.address().port();
    let proxy = start(&format!("\"127.0.0.0/8:{port}\", \"localhost:{port}\""), ", deny: [\"::1\"]");
    let connect = |target: &str, host: &str| {
        let mut client = proxy.client();
        client.send(format!("CONNECT {target}:{port} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.response_head().status
    };
    for (target, host) in [
        ("127.0.0.1", format!("127.0.0.1:{port}")),
        ("127.0.0.1", "127.0.0.1".into()),
        ("127.0.0.1", "127.0.0.1:".into()),
        ("localhost", format!("LocalHost.:{port}")),
        ("LOCALHOST.", "localhost".into()),
    ] {
        assert_eq!(connect(target, &host), 200, "{target} {host}");
    }
    for host in ["127.0.0.2", "127.0.0.1:1", "localhost", "u@127.0.0.1", ""] {
        assert_eq!(connect("127.0.0.1", host), 400, "{host}");
    }
}

#[test]
fn what_is_not_listed_or_is_denied_is_refused() {
    let origin = Origin::saying("reached");
    let port = origin.address().port();
    let by_name = format!("\"localhost:{port}\", \"*.localhost:{port}\"");
    // This machine's own addresses are denied to names unless the configuration says otherwise.
    let by_default = start(&by_name, "");
    let denied = start(&format!("\"127.0.0.0/8:{port}\""), ", deny: [127.0.0.1]");
    for (proxy, target) in [
        (&by_default, format!("localhost:{port}")),
        (&by_default, format!("127.0.0.1:{port}")),
        (&by_default, format!("[::1]:{port}")),
        (&by_default, format!("[::ffff:127.0.0.1]:{port}")),
        (&by_default, format!("other.example:{port}")),
        (&by_default, "localhost:1".to_owned()),
        (&denied, format!("127.0.0.1:{port}")),
        (&denied, format!("localhost:{port}")),
    ] {
        let logged = proxy.access_log().len();
        let mut client = proxy.client();
        assert_eq!(connect(&mut client, &target), 403, "{target}");
        let _ = client.try_send("GET /through HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.is_closed(), "{target}: what follows was meant for the tunnel");
        until("it is logged", || proxy.access_log().len() == logged + 1);
        assert_eq!(proxy.access_log()[logged]["reason"], "target_refused", "{target}");
    }
    assert_eq!(origin.bytes(), 0);
}

#[test]
fn a_target_that_is_not_there_is_told_as_any_upstream() {
    let gone = free_port();
    let nowhere = start(&format!("\"127.0.0.1:{gone}\""), "");
    assert_eq!(connect(&mut nowhere.client(), &format!("127.0.0.1:{gone}")), 502);
    assert_eq!(nowhere.access_line(|line| line["method"] == "CONNECT")["reason"], "connect_refused");
}

#[test]
fn instances_can_be_chained() {
    let origin = Origin::saying("reached");
    let target = origin.address();
    let second = start(&format!("\"127.0.0.1:{}\"", target.port()), "");
    let inner = format!("127.0.0.1:{}", second.port("web"));
    let first = start(&format!("\"{inner}\""), "");
    let mut client = first.client();
    assert_eq!(connect(&mut client, &inner), 200);
    assert_eq!(connect(&mut client, &target.to_string()), 200);
    assert_eq!(client.get("/through").text(), "reached");
    assert_eq!(client.get("/again").text(), "reached");
    // An end on one side is told to the other, and what still comes arrives.
    client.send("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").finish_sending();
    assert_eq!(client.response().text(), "reached");
    assert!(client.is_closed());
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn a_tunnel_over_http2_is_one_stream() {
    let origin = Origin::saying("reached");
    let proxy = start(&format!("\"127.0.0.1:{}\"", origin.address().port()), "");
    let mut client = H2Client::tcp(proxy.port("web"));
    let target = origin.address().to_string();
    for stream in [1, 3] {
        let fields = [(":method", "CONNECT"), (":authority", target.as_str())];
        let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        client.headers(stream, &fields, false);
        assert_eq!(client.reaction(stream).unwrap(), Reaction::Answered);
        client.data(stream, b"GET /h2 HTTP/1.1\r\nHost: a\r\n\r\n", false);
        let data = client.read_data(stream);
        assert!(data.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&data));
    }
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_silent_tunnel_ends() {
    let origin = Origin::saying("reached");
    let proxy = start(&format!("\"127.0.0.1:{}\"", origin.address().port()), ", idle: 200ms");
    let mut client = proxy.client();
    assert_eq!(connect(&mut client, &origin.address().to_string()), 200);
    assert_eq!(client.get("/one").text(), "reached");
    assert!(client.is_closed());
    until("the target is left, too", || origin.closed() == 1);
}

#[test]
fn much_passes_both_ways_at_once() {
    let echo = Origin::serving_early(|exchange| {
        loop {
            let piece = exchange.read_some();
            if piece.is_empty() || exchange.try_send(&piece).is_err() {
                return super::support::Reply::Close;
            }
        }
    });
    let proxy = start(&format!("\"127.0.0.1:{}\"", echo.address().port()), "");
    let mut client = proxy.client();
    assert_eq!(connect(&mut client, &echo.address().to_string()), 200);
    // More than all the buffers on the way hold, in pieces that are awaited.
    client.send("GET / HTTP/1.1\r\n\r\n");
    let piece = vec![7; 256 * 1024];
    for _ in 0..64 {
        client.send(&piece);
        assert_eq!(client.read_exactly(piece.len()), piece);
    }
}

/// A target that takes connections and reads nothing of them, with a proxy that leads there.
fn before_a_deaf_target() -> (TcpListener, Proxy, String) {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap();
    let proxy = start(&format!("\"127.0.0.1:{}\"", address.port()), "");
    (target, proxy, address.to_string())
}

/// Opens a tunnel and sends through it until nobody takes any more.
fn fill(proxy: &Proxy, target: &str) -> TcpStream {
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port("web"))).unwrap();
    client.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let piece = vec![7; 64 * 1024];
    while client.write_all(&piece).is_ok() {}
    client
}

#[track_caller]
pub fn is_gone_at_once(proxy: &Proxy) {
    // Idle for five minutes, it would be closed anyway.
    let line = proxy.access_line(|line| line["method"] == "CONNECT");
    assert_eq!((&line["reason"], &line["status"]), (&"client_gone".into(), &200.into()), "{line}");
}

#[test]
fn a_client_that_breaks_off_an_upload_nobody_takes_is_noticed() {
    let (target, proxy, address) = before_a_deaf_target();
    let client = fill(&proxy, &address);
    let (mut left, _) = target.accept().unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    is_gone_at_once(&proxy);
    // What had come is there, and then the end.
    let mut piece = vec![0; 1 << 20];
    until("the target is left, too", || matches!(left.read(&mut piece), Ok(0) | Err(_)));
}

/// Opens a tunnel, sends through it until nobody takes any more, and goes.
const H2_UPLOAD: &str = r#"
import socket, sys
import h2.config, h2.connection, h2.events
port, target, how = sys.argv[1:]
tcp = socket.create_connection(("127.0.0.1", int(port)), timeout=30)
config = h2.config.H2Configuration(validate_outbound_headers=False)  # it would have CONNECT name a path
c, answered = h2.connection.H2Connection(config), False
c.initiate_connection()
c.send_headers(1, [(":method", "CONNECT"), (":authority", target)])
tcp.sendall(c.data_to_send())
try:
    while True:
        while answered and (room := min(c.local_flow_control_window(1), c.max_outbound_frame_size)) > 0:
            c.send_data(1, bytes(room))
        tcp.sendall(c.data_to_send())
        tcp.settimeout(0.5 if answered else 30)
        for event in c.receive_data(tcp.recv(65536)):
            answered |= isinstance(event, h2.events.ResponseReceived)
except TimeoutError:
    assert answered
if how == "reset":
    c.reset_stream(1, 8)
    tcp.sendall(c.data_to_send())
else:
    tcp.close()
print("gone")
tcp.settimeout(None)
while how == "reset" and tcp.recv(65536):
    pass
"#;

#[test]
fn a_client_of_http2_that_gives_up_an_upload_nobody_takes_is_noticed() {
    for how in ["reset", "close"] {
        let (_target, proxy, address) = before_a_deaf_target();
        let mut client = Python::run(H2_UPLOAD, &[&proxy.port("web").to_string(), &address, how]);
        assert_eq!(client.line(), "gone");
        is_gone_at_once(&proxy);
    }
}

#[test]
fn an_end_behind_what_the_target_takes_slowly_is_no_going() {
    let (target, proxy, address) = before_a_deaf_target();
    let client = fill(&proxy, &address);
    client.shutdown(Shutdown::Write).unwrap();
    let (mut slow, _) = target.accept().unwrap();
    let mut piece = [0; 1024];
    while slow.read(&mut piece).expect("all of it, and its end") > 0 {}
    slow.write_all(b"heard").unwrap();
    drop(slow);
    let mut client = client;
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert!(all.ends_with(b"heard"));
    let line = proxy.access_line(|line| line["method"] == "CONNECT");
    assert!(line["reason"].is_null(), "{line}");
}
