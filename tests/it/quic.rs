//! QUIC connections: how they begin, move, live through reloads and end.

use serde_json::json;

use super::{
    http3::{self, start},
    support::{Certificates, Http3, Nginx, Origin, Proxy, Reply, Tree, config, curl, free_port, until},
};

const ANSWERING: &str = r#"
certificates: { web: { cert: CERT.pem, key: CERT.key } }
listeners: { secure: { bind: "BIND", protocols: PROTOCOLS, tls: { certificates: [web] TLS } LISTENER } }
drain_timeout: 20s
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: "BODY" } } } } }
"#;

struct Answering {
    certificates: Certificates,
    proxy: Proxy,
}

fn yaml(words: &[(&str, &str)]) -> String {
    let default = [
        ("CERT", "web"),
        ("BIND", "127.0.0.1:0"),
        ("PROTOCOLS", "[h1, h2, h3]"),
        ("TLS", ""),
        ("LISTENER", ""),
        ("BODY", "one"),
    ];
    let pick = |(name, default): (&'static str, &'static str)| {
        let given = words.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned());
        (name, given.unwrap_or_else(|| default.to_owned()))
    };
    let words = default.map(pick);
    let words: Vec<(&str, &dyn std::fmt::Display)> =
        words.iter().map(|(name, value)| (*name, value as &dyn std::fmt::Display)).collect();
    config(ANSWERING, &words)
}

fn answering(words: &[(&str, &str)]) -> Answering {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["localhost"]);
    certificates.sign("other", &["localhost", "other.test"]);
    let proxy = Proxy::start_in(tree, &yaml(words));
    Answering { certificates, proxy }
}

impl Answering {
    fn run(&self, what: &str, specification: serde_json::Value) -> Http3 {
        Http3::run(what, self.proxy.port("secure"), &self.certificates.ca(), specification)
    }

    /// Alt-Svc as a client of another protocol sees it.
    fn announced(&self, arguments: &[&str]) -> Option<String> {
        let url = format!("https://localhost:{}/", self.proxy.port("secure"));
        let ca = self.certificates.ca();
        let run = curl(&[&["-i", "--cacert", &ca, &url][..], arguments].concat());
        let head = run.stdout.to_ascii_lowercase();
        head.lines().find_map(|line| line.strip_prefix("alt-svc: ")).map(str::to_owned)
    }

    fn metric(&self, series: &str) -> f64 {
        self.proxy.metric(series).unwrap_or_default()
    }
}

#[test]
fn a_reload_changes_what_is_answered_and_closes_no_connection() {
    let mut answering = answering(&[]);
    let mut client = answering.run("follow", json!({ "request": {} }));
    assert_eq!(client.next()["body"], "one");
    answering.proxy.change(&yaml(&[("BODY", "two"), ("CERT", "other")]));
    let last = client.next();
    assert_eq!((&last["body"], &last["closed"], &last["goaway"]), (&json!("two"), &json!(null), &json!([])));
    let series = "portolan_connections_total{listener=\"secure\",protocol=\"h3\"}";
    assert_eq!(answering.metric(series), 1.0);
    // The new certificate is shown to new connections.
    let answer = answering.run("requests", json!({ "name": "other.test", "requests": [{}] })).all();
    assert_eq!(answer[0]["body"], "two");
}

#[test]
fn other_protocols_are_told_of_it_and_told_when_it_is_gone() {
    let mut answering = answering(&[]);
    let port = answering.proxy.port("secure");
    let here = format!("h3=\":{port}\"; ma=86400");
    assert_eq!(answering.announced(&["--http1.1"]).as_ref(), Some(&here));
    assert_eq!(answering.announced(&["--http2"]).as_ref(), Some(&here));
    let answer = answering.run("requests", json!({ "requests": [{}] })).all().remove(0);
    assert_eq!(http3::field(&answer, "alt-svc"), Some(&*here));
    answering.proxy.change(&yaml(&[("LISTENER", ", expose: { port: 443 }")]));
    assert_eq!(answering.announced(&[]).as_deref(), Some("h3=\":443\"; ma=86400"));
    answering.proxy.change(&yaml(&[("PROTOCOLS", "[h1, h2]")]));
    assert_eq!(answering.announced(&[]).as_deref(), Some("clear"));
    assert_eq!(answering.run("refused", json!({})).next()["connected"], false);
    answering.proxy.change(&yaml(&[]));
    assert_eq!(answering.announced(&[]).as_ref(), Some(&here));
    let answer = answering.run("requests", json!({ "requests": [{}] })).all();
    assert_eq!(answer[0]["body"], "one");
}

#[test]
fn a_listener_of_http_3_alone_opens_no_tcp_port() {
    let answering = answering(&[("PROTOCOLS", "[h3]")]);
    let answer = answering.run("requests", json!({ "requests": [{}] })).all();
    assert_eq!(answer[0]["body"], "one");
    let port = answering.proxy.port("secure");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_port_that_is_taken_is_an_error_and_changes_nothing() {
    let mut answering = answering(&[("PROTOCOLS", "[h1, h2]")]);
    let port = free_port();
    let _taken = std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let bind = format!("127.0.0.1:{port}");
    answering.proxy.write("portolan.yaml", &yaml(&[("BIND", &bind)]));
    until("the reload is refused", || answering.proxy.log().contains("bind-failed"));
    assert_eq!(answering.announced(&[]), None);
    drop(_taken);
    answering.proxy.reload();
    answering.proxy.refresh();
    assert_eq!(answering.announced(&[]), Some(format!("h3=\":{port}\"; ma=86400")));
}

#[test]
fn a_socket_that_is_left_serves_its_connections_and_is_taken_up_again() {
    let port = free_port();
    let bind = format!("127.0.0.1:{port}");
    let mut answering = answering(&[("BIND", &bind)]);
    let mut client = answering.run("follow", json!({ "request": {} }));
    assert_eq!(client.next()["body"], "one");
    answering.proxy.change(&yaml(&[("BIND", &bind), ("PROTOCOLS", "[h1, h2]")]));
    assert_eq!(answering.run("refused", json!({})).next()["connected"], false);
    answering.proxy.change(&yaml(&[("BIND", &bind), ("BODY", "two")]));
    let last = client.next();
    assert_eq!((&last["body"], &last["closed"]), (&json!("two"), &json!(null)));
    let answer = answering.run("requests", json!({ "requests": [{}] })).all();
    assert_eq!(answer[0]["body"], "two");
}

#[test]
fn draining_serves_what_was_asked_and_nothing_more() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::serving(move |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun");
        let _ = wait.lock().unwrap().recv();
        exchange.send("-done");
        Reply::Keep
    });
    let mut secure = start(&origin.address(), "[h1, h2, h3]", "");
    let mut client = secure.run("drain", json!({ "request": {} }));
    assert_eq!(client.next()["body"], "begun");
    secure.proxy.signal("TERM");
    let told = client.next();
    // First that nothing more shall be asked, then what is served: the first request alone.
    assert_eq!(told["goaway"], json!([4_611_686_018_427_387_900_u64, 4]), "{told}");
    assert_eq!(told["late"]["reset"], 0x10b, "{told}");
    go.send(()).unwrap();
    assert_eq!(client.next()["body"], "begun-done");
    assert_eq!(client.next()["close"]["code"], 0x100);
    assert!(secure.proxy.ended().success());
}

#[test]
fn a_client_that_changes_its_port_goes_on() {
    let nginx = Nginx::serving("location / { try_files $uri =404; }");
    nginx.tree().write("root/large", vec![b'x'; 8_000_000]);
    let secure = start(&nginx.address(), "[h3]", "");
    for migrate in [false, true] {
        let told = secure.run("rebind", json!({ "request": { "path": "/large" }, "migrate": migrate })).all();
        assert_eq!((&told[0]["moved"], &told[0]["size"]), (&json!(true), &json!(8_000_000)), "{:?}", told[0]);
    }
    until("migrations are counted", || {
        secure.proxy.metric("portolan_quic_migrations_total{listener=\"secure\"}") == Some(2.0)
    });
}

#[test]
fn connections_of_an_address_are_limited() {
    let answering = answering(&[("LISTENER", ", limits: { connections_per_ip: 1 }")]);
    let mut client = answering.run("follow", json!({ "request": {} }));
    client.next();
    assert_eq!(answering.run("refused", json!({})).next()["connected"], false);
    let series = "portolan_connections_refused_total{limit=\"connections_per_ip\",listener=\"secure\"}";
    assert!(answering.metric(series) >= 1.0);
}

#[test]
fn who_has_not_proved_an_address_takes_nobodys_place() {
    let answering = answering(&[("LISTENER", ", limits: { connections_per_ip: 1 }")]);
    // Anybody can send first packets in the name of others.
    let told = answering.run("flood", json!({ "count": 8 })).all();
    assert_eq!(told[0]["body"], "one", "{told:?}");
}

#[test]
fn a_connection_ends_after_its_requests() {
    let answering = answering(&[("LISTENER", ", limits: { requests_per_connection: 3 }")]);
    let mut client = answering.run("follow", json!({ "request": {} }));
    client.next();
    let last = client.next();
    assert_eq!(last["closed"]["code"], 0x100, "{last}");
    assert_eq!(last["goaway"][0], 4_611_686_018_427_387_900_u64, "{last}");
}

#[test]
fn a_client_that_says_that_it_goes_is_not_waited_for() {
    let answering = answering(&[("LISTENER", ", timeouts: { idle: 30s }, quic: { idle_timeout: 60s }")]);
    let told = answering.run("idle", json!({ "goaway": true, "limit": 10 })).all();
    assert_eq!(told[0]["close"]["code"], 0x100, "{told:?}");
}

#[test]
fn an_idle_connection_is_closed() {
    let answering = answering(&[("LISTENER", ", timeouts: { idle: 300ms }")]);
    let told = answering.run("idle", json!({})).all();
    assert_eq!(told[0]["close"]["code"], 0x100, "{told:?}");
}

#[test]
fn many_unfinished_handshakes_make_clients_prove_their_address() {
    let answering = answering(&[]);
    let told = answering.run("flood", json!({ "count": 80 })).all();
    assert_eq!((&told[0]["retried"], &told[0]["body"]), (&json!(true), &json!("one")));
    assert!(answering.metric("portolan_quic_retries_total{listener=\"secure\"}") >= 1.0);
}

const EARLY: &str = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners:
  secure: { bind: "127.0.0.1:0", protocols: [h2, h3], tls: { certificates: [web], early_data: true }, timeouts: { handshake: HANDSHAKE } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;

/// A proxy that takes early data, and a client that sends some.
fn early(origin: &Origin, handshake: &str, what: serde_json::Value) -> (Proxy, Http3) {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["localhost"]);
    let yaml = config(EARLY, &[("ORIGIN", &origin.address()), ("HANDSHAKE", &handshake)]);
    let proxy = Proxy::start_in(tree, &yaml);
    let client = Http3::run("early", proxy.port("secure"), &certificates.ca(), what);
    (proxy, client)
}

#[test]
fn a_handshake_that_does_not_end_after_early_data_meets_its_deadline() {
    let origin = Origin::echoing();
    let what = json!({ "never": true, "requests": [{ "path": "/safe" }] });
    let (proxy, mut client) = early(&origin, "1s", what);
    assert_eq!(client.next()["first"]["status"], 200);
    // The client cannot be told: it has not proved its address, and nothing more may go there.
    let failed = "portolan_quic_handshakes_total{listener=\"secure\",outcome=\"failed\"}";
    until("it is counted", || proxy.metric(failed) == Some(1.0));
    let open = "portolan_connections_open{listener=\"secure\",protocol=\"h3\"}";
    until("nothing is kept of it", || proxy.metric(open) == Some(0.0));
}

#[test]
fn what_comes_with_the_first_packets_is_told_and_nothing_unsafe_is_done() {
    let origin = Origin::echoing();
    let requests = json!({ "requests": [
        { "method": "GET", "path": "/safe" },
        { "method": "POST", "path": "/unsafe", "fields": [["content-length", "0"]] },
    ] });
    let (proxy, client) = early(&origin, "30s", requests);
    let told = client.all();
    let status = |told: &serde_json::Value| {
        (told["early"].clone(), told["first"]["status"].clone(), told["again"]["status"].clone())
    };
    assert_eq!(status(&told[0]), (json!(true), json!(200), json!(200)), "{told:?}");
    assert_eq!(status(&told[1]), (json!(true), json!(425), json!(200)), "{told:?}");
    let seen = origin.requests();
    let seen: Vec<_> =
        seen.iter().map(|request| (request.start.as_str(), request.field("early-data"))).collect();
    assert_eq!(
        seen,
        [
            ("GET /first HTTP/1.1", None),
            ("GET /safe HTTP/1.1", Some("1")),
            ("GET /safe HTTP/1.1", None),
            ("POST /unsafe HTTP/1.1", None),
        ]
    );
    assert_eq!(proxy.metric("portolan_quic_early_streams_total{listener=\"secure\"}"), Some(2.0));
    assert_eq!(proxy.metric("portolan_quic_handshakes_total{listener=\"secure\",outcome=\"ok\"}"), Some(3.0));
    let line = proxy.access_line(|line| line["status"] == 425);
    assert_eq!((&line["reason"], &line["protocol"]), (&json!("too_early"), &json!("HTTP/3")), "{line}");
}

#[test]
fn a_client_shows_its_certificate() {
    let answering = answering(&[("TLS", ", client_auth: { ca: ca.pem }")]);
    let tree = answering.proxy.tree();
    answering.certificates.sign("client", &["client.example"]);
    let path = |name: &str| tree.path(name).to_string_lossy().into_owned();
    let shown = json!({ "certificate": path("client.pem"), "key": path("client.key"), "requests": [{}] });
    let answer = answering.run("requests", shown).all();
    assert_eq!(answer[0]["status"], 200, "{answer:?}");
    assert_eq!(answering.run("refused", json!({})).next()["connected"], false);
}
