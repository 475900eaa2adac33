//! TLS beyond the certificate: sessions that are taken up again, what single hosts ask of clients, what is stapled, and
//! files that change one after the other.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::support::{Certificates, Client, Proxy, Tree, config, curl, openssl};

const HOSTS: &str = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners:
  secure: { bind: "127.0.0.1:0", tls: { certificates: [web] TLS } }
  strict: { bind: "127.0.0.1:0", tls: { certificates: [web], client_auth: { ca: ca.pem } } }
hosts:
  inside:
    names: [inside.example]
    listeners: [secure]
    tls: { client_auth: { ca: ca.pem } }
    routes: { all: { path: "/**", respond: { body: inside } } }
  all:
    names: ["*"]
    middleware: [{ response_headers: { set: { X-Say: SAY } } }]
    routes: { all: { path: "/**", respond: { body: ok } } }
"#;

fn yaml(tls: &str, say: &str) -> String {
    config(HOSTS, &[("TLS", &tls), ("SAY", &say)])
}

fn secure(tls: &str) -> (Certificates, Proxy) {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["open.example", "inside.example", "localhost"]);
    certificates.sign("client", &["client.example"]);
    (certificates, Proxy::start_in(tree, &yaml(tls, "one")))
}

/// What openssl says of a connection by which it asks for something.
fn s_client(proxy: &Proxy, listener: &str, arguments: &[&str]) -> String {
    let address = format!("127.0.0.1:{}", proxy.port(listener));
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", "open.example", "-ign_eof"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed: tests/install");
    let request = b"GET / HTTP/1.1\r\nHost: open.example\r\nConnection: close\r\n\r\n";
    // A handshake that fails may have closed it by now.
    let _ = child.stdin.take().expect("a pipe").write_all(request);
    String::from_utf8_lossy(&child.wait_with_output().expect("it ends").stdout).into_owned()
}

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

#[test]
fn sessions_are_taken_up_again_across_a_reload() {
    let (_certificates, mut proxy) = secure("");
    for version in VERSIONS {
        let file = proxy.tree().path(format!("session{version}")).to_string_lossy().into_owned();
        let first = s_client(&proxy, "secure", &[version, "-sess_out", &file]);
        assert!(first.contains("New, TLSv1") && first.contains("X-Say: one"), "{version}: {first}");
        let again = s_client(&proxy, "secure", &[version, "-sess_in", &file]);
        assert!(again.contains("Reused, TLSv1") && again.contains("\nok"), "{version}: {again}");
    }
    proxy.change(&yaml("", "two"));
    for version in VERSIONS {
        let file = proxy.tree().path(format!("session{version}")).to_string_lossy().into_owned();
        let again = s_client(&proxy, "secure", &[version, "-sess_in", &file]);
        assert!(again.contains("Reused, TLSv1") && again.contains("X-Say: two"), "{version}: {again}");
    }
}

#[test]
fn no_session_is_taken_up_where_there_are_no_tickets() {
    let (_certificates, proxy) = secure(", session_tickets: false");
    for version in VERSIONS {
        let file = proxy.tree().path("session").to_string_lossy().into_owned();
        let first = s_client(&proxy, "secure", &[version, "-sess_out", &file]);
        assert!(first.contains("\nok") && !first.contains("TLS session ticket:"), "{version}: {first}");
        assert!(!proxy.tree().path("session").exists(), "{version}: there is none to take up");
    }
}

#[test]
fn a_ticket_is_no_way_past_a_certificate() {
    let (certificates, proxy) = secure("");
    for version in VERSIONS {
        let file = proxy.tree().path("session").to_string_lossy().into_owned();
        s_client(&proxy, "secure", &[version, "-sess_out", &file]);
        let stranger = s_client(&proxy, "strict", &[version, "-sess_in", &file]);
        assert!(!stranger.contains("Reused") && !stranger.contains("\nok"), "{version}: {stranger}");
        let (cert, key) = (certificates.file("client.pem"), certificates.file("client.key"));
        let own = proxy.tree().path("own").to_string_lossy().into_owned();
        s_client(&proxy, "strict", &[version, "-cert", &cert, "-key", &key, "-sess_out", &own]);
        let known = s_client(&proxy, "strict", &[version, "-sess_in", &own]);
        assert!(known.contains("Reused") && known.contains("\nok"), "{version}: {known}");
    }
}

#[test]
fn a_host_asks_for_certificates_by_itself() {
    let (certificates, proxy) = secure("");
    let port = proxy.port("secure");
    let (ca, cert, key) =
        (certificates.ca(), certificates.file("client.pem"), certificates.file("client.key"));
    let get = |name: &str, host: &str, more: &[&str]| {
        let resolve = format!("{name}:{port}:127.0.0.1");
        let (url, host) = (format!("https://{name}:{port}/"), format!("Host: {host}"));
        let ours = ["--cacert", &ca, "--resolve", &resolve, "-H", &host, &url, "-w", " %{http_code}"];
        curl(&[&ours[..], more].concat())
    };
    let known = ["--cert", cert.as_str(), "--key", key.as_str()];
    for protocol in ["--http1.1", "--http2"] {
        let with = |more: &[&'static str]| [&[protocol][..], more].concat();
        assert_eq!(get("open.example", "open.example", &with(&[])).stdout, "ok 200", "{protocol}");
        assert_ne!(get("inside.example", "inside.example", &with(&[])).code, 0, "{protocol}: none shown");
        let shown = get("inside.example", "INSIDE.example:443", &[&[protocol], &known[..]].concat());
        assert_eq!(shown.stdout, "inside 200", "{protocol}");
        // By a connection of another's.
        for (name, host) in [("open.example", "inside.example"), ("inside.example", "open.example")] {
            let astray = get(name, host, &[&[protocol], &known[..]].concat());
            assert!(astray.stdout.ends_with(" 421"), "{protocol} {name} {host}: {astray:?}");
        }
        assert_eq!(get("open.example", "localhost", &with(&[])).stdout, "ok 200", "{protocol}: none differ");
    }
    let line = proxy.access_line(|line| line["status"] == 421);
    assert_eq!(line["reason"], "misdirected", "{line}");
}

#[test]
fn a_connection_from_before_other_rules_is_sent_away() {
    let (certificates, mut proxy) = secure("");
    let port = proxy.port("secure");
    let mut client = Client::tls(port, "open.example", certificates.client(&["http/1.1"])).unwrap();
    assert_eq!(client.get("/").status, 200);
    proxy.change(&yaml(", client_auth: { ca: ca.pem, mode: optional }", "two"));
    assert_eq!(client.get("/").status, 421);
    let mut client = Client::tls(port, "open.example", certificates.client(&["http/1.1"])).unwrap();
    assert_eq!(client.get("/").status, 200);
}

/// Runs openssl in a tree, to its good end.
#[track_caller]
fn made(tree: &Tree, arguments: &str) {
    let output =
        Command::new("openssl").args(arguments.split(' ')).current_dir(tree.path("")).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {output:?}");
}

#[test]
fn what_the_authority_says_is_stapled() {
    let tree = Tree::new();
    tree.write("names", "subjectAltName=DNS:localhost\n");
    made(
        &tree,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=Authority -days 9 -keyout ca.key -out ca.pem",
    );
    made(
        &tree,
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout web.key -out web.csr",
    );
    made(
        &tree,
        "x509 -req -in web.csr -CA ca.pem -CAkey ca.key -set_serial 0x1001 -extfile names -days 9 -out web.pem",
    );
    tree.write("index.txt", "V\t360101000000Z\t\t1001\tunknown\t/CN=localhost\n");
    made(&tree, "ocsp -issuer ca.pem -cert web.pem -reqout web.req");
    made(
        &tree,
        "ocsp -index index.txt -rsigner ca.pem -rkey ca.key -CA ca.pem -reqin web.req -respout web.ocsp -ndays 1",
    );
    let yaml = |ocsp: &str| {
        format!(
            "certificates: {{ web: {{ cert: web.pem, key: web.key{ocsp} }} }}\n\
             listeners: {{ secure: {{ bind: \"127.0.0.1:0\", tls: {{ certificates: [web] }} }} }}\n\
             hosts: {{ all: {{ names: [\"*\"], routes: {{ all: {{ path: \"/**\", respond: {{ body: ok }} }} }} }} }}\n"
        )
    };
    let mut proxy = Proxy::start_in(tree, &yaml(", ocsp: web.ocsp"));
    for version in VERSIONS {
        let said = s_client(&proxy, "secure", &[version, "-status"]);
        assert!(
            said.contains("OCSP Response Status: successful") && said.contains("Cert Status: good"),
            "{said}"
        );
    }
    proxy.tree().write("index.txt", "R\t360101000000Z\t260101000000Z\t1001\tunknown\t/CN=localhost\n");
    made(
        proxy.tree(),
        "ocsp -index index.txt -rsigner ca.pem -rkey ca.key -CA ca.pem -reqin web.req -respout web.ocsp",
    );
    super::support::until("the new response is shown", || {
        s_client(&proxy, "secure", &["-status"]).contains("Cert Status: revoked")
    });
    proxy.write("web.ocsp", "nonsense");
    let refused = proxy.reload();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("this is no OCSP response of success in DER"), "{refused:?}");
    proxy.change(&yaml(""));
    assert!(s_client(&proxy, "secure", &["-status"]).contains("OCSP response: no response sent"));
}

#[test]
fn a_pair_that_does_not_match_yet_changes_nothing() {
    let (certificates, mut proxy) = secure("");
    let shown = |proxy: &Proxy| {
        let address = format!("127.0.0.1:{}", proxy.port("secure"));
        let run = openssl(&["s_client", "-connect", &address, "-servername", "open.example"]);
        let (_, certificate) = run.stdout.split_once("-----BEGIN CERTIFICATE").expect("a certificate");
        certificate.split("-----END").next().map(str::to_owned)
    };
    let before = (shown(&proxy), proxy.generation());
    certificates.sign("next", &["open.example"]);
    let next = |name: &str| std::fs::read_to_string(certificates.file(name)).unwrap();
    proxy.write("web.key", &next("next.key"));
    super::support::until("it is said", || {
        let log = proxy.log();
        log.contains("certificate and key do not match") && log.contains("web.key")
    });
    assert_eq!((shown(&proxy), proxy.generation()), before, "what was there serves");
    assert_eq!(proxy.metric("portolan_configuration_last_reload_failed"), Some(1.0));
    proxy.write("web.pem", &next("next.pem"));
    proxy.wait_past(before.1);
    assert_ne!(shown(&proxy), before.0);
    assert_eq!(proxy.metric("portolan_configuration_last_reload_failed"), Some(0.0));
}

#[test]
fn when_a_certificate_ends_is_a_metric() {
    let yaml = r#"
certificates: { local: { self_signed: [localhost] } }
listeners: { secure: { bind: "127.0.0.1:0", tls: { certificates: [local] } } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: ok } } } } }
"#;
    let mut proxy = Proxy::start(yaml);
    let series =
        |name: &str| format!("portolan_certificate_expiry_timestamp_seconds{{certificate=\"{name}\"}}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let end = proxy.metric(&series("local")).unwrap();
    assert!((end - now - 365.0 * 86_400.0).abs() < 3600.0, "{end}");
    proxy.change(&yaml.replace("local:", "other:").replace("[local]", "[other]"));
    assert_eq!((proxy.metric(&series("local")), proxy.metric(&series("other")).is_some()), (None, true));
}

const EARLY: &str = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners: { secure: { bind: "127.0.0.1:0", tls: { certificates: [web], early_data: true } } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;

/// A client of TLS 1.3 that says its last word of the handshake when it is told to.
struct Hasty {
    io: std::net::TcpStream,
    session: rustls::ClientConnection,
}

impl Hasty {
    /// Sends this with the first bytes of a connection.
    fn asks(port: u16, config: &std::sync::Arc<rustls::ClientConfig>, request: &str) -> Self {
        let mut session =
            rustls::ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
        let mut early = session.early_data().expect("the session allows early data");
        assert_eq!(early.write(request.as_bytes()).unwrap(), request.len());
        let mut first = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut first).unwrap();
        }
        let mut io = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        io.set_read_timeout(Some(super::support::DEADLINE)).unwrap();
        io.write_all(&first).unwrap();
        Self { io, session }
    }

    /// What comes back before the handshake is over, up to what ends with this.
    fn answer(&mut self, end: &str) -> String {
        use std::io::Read;
        let mut answer = Vec::new();
        while !answer.ends_with(end.as_bytes()) {
            assert_ne!(
                self.session.read_tls(&mut self.io).unwrap(),
                0,
                "{}",
                String::from_utf8_lossy(&answer)
            );
            self.session.process_new_packets().unwrap();
            let _ = self.session.reader().read_to_end(&mut answer);
        }
        assert!(self.session.is_early_data_accepted());
        String::from_utf8(answer).unwrap()
    }

    /// The handshake's end, and what comes of it.
    fn then(mut self, request: &str, end: &str) -> String {
        self.session.writer().write_all(request.as_bytes()).unwrap();
        while self.session.wants_write() {
            self.session.write_tls(&mut self.io).unwrap();
        }
        self.answer(end)
    }
}

#[test]
fn what_comes_early_is_told_and_nothing_unsafe_is_done() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["localhost"]);
    let origin = super::support::Origin::echoing();
    let mut proxy = Proxy::start_in(tree, &config(EARLY, &[("ORIGIN", &origin.address())]));
    let port = proxy.port("secure");
    let mut tls = rustls::ClientConfig::clone(&certificates.client(&["http/1.1"]));
    tls.enable_early_data = true;
    let tls = std::sync::Arc::new(tls);
    // Two sessions, each for one use.
    for _ in 0..2 {
        let response = Client::tls(port, "localhost", tls.clone()).unwrap().get("/first");
        assert!(!response.text().to_lowercase().contains("early-data"), "{}", response.text());
    }
    let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let mut hasty = Hasty::asks(port, &tls, &request("POST /unsafe"));
    let refused = hasty.answer("}");
    assert!(refused.starts_with("HTTP/1.1 425 "), "{refused}");
    let done = hasty.then(&request("POST /unsafe"), "\r\n\r\n");
    assert!(done.contains("200 OK"), "{done}");
    let told = origin.requests().into_iter().find(|request| request.start.contains("/unsafe")).unwrap();
    assert_eq!(told.field("early-data"), None, "the handshake is over");
    proxy.change(&config(EARLY, &[("ORIGIN", &origin.address())]).replace("/**", "/{all...}"));
    let mut hasty = Hasty::asks(port, &tls, &request("GET /early"));
    let answer = hasty.answer("\r\n\r\n");
    assert!(answer.contains("200 OK"), "{answer}");
    let told = origin.requests().into_iter().find(|request| request.start.contains("/early")).unwrap();
    assert_eq!(told.field("early-data"), Some("1"));
    let line = proxy.access_line(|line| line["status"] == 425);
    assert_eq!((&line["reason"], &line["path"]), (&"too_early".into(), &"/unsafe".into()), "{line}");
}

#[test]
fn early_data_is_taken_once() {
    let tree = Tree::new();
    Certificates::new(&tree).sign("web", &["localhost"]);
    let origin = super::support::Origin::saying("ok");
    let proxy = Proxy::start_in(tree, &config(EARLY, &[("ORIGIN", &origin.address())]));
    let file = proxy.tree().path("session").to_string_lossy().into_owned();
    let first = s_client(&proxy, "secure", &["-tls1_3", "-sess_out", &file]);
    assert!(first.contains("Max Early Data: 16384"), "{first}");
    let request = "GET /early HTTP/1.1\r\nHost: open.example\r\n\r\n";
    let early = proxy.tree().write("early", request).to_string_lossy().into_owned();
    let resumed = ["-tls1_3", "-sess_in", &file, "-early_data", &early];
    let taken = s_client(&proxy, "secure", &resumed);
    assert!(taken.contains("Early data was accepted") && taken.matches("200 OK").count() == 2, "{taken}");
    let replayed = s_client(&proxy, "secure", &resumed);
    assert!(
        replayed.contains("Early data was rejected") && replayed.matches("200 OK").count() == 1,
        "{replayed}"
    );
    let asked = origin.requests().iter().filter(|request| request.start.contains("/early")).count();
    assert_eq!(asked, 1);
    let full = s_client(&proxy, "secure", &["-tls1_2"]);
    assert!(full.contains("\nok"), "TLS 1.2 goes on: {full}");
}

#[test]
fn much_passes_where_early_data_is_taken() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["localhost"]);
    let origin = super::support::Origin::echoing();
    let proxy = Proxy::start_in(tree, &config(EARLY, &[("ORIGIN", &origin.address())]));
    let body = proxy.tree().write("body", "x".repeat(3_000_000));
    let (url, data) =
        (format!("https://localhost:{}/", proxy.port("secure")), format!("@{}", body.display()));
    for protocol in ["--http1.1", "--http2"] {
        let run = curl(&[protocol, "--cacert", &certificates.ca(), "--data-binary", &data, &url]);
        assert!(
            run.code == 0 && run.stdout.len() > 3_000_000,
            "{protocol}: {} {}",
            run.code,
            run.stdout.len()
        );
    }
    let address = format!("127.0.0.1:{}", proxy.port("secure"));
    assert_ne!(openssl(&["s_client", "-connect", &address, "-tls1_1"]).code, 0);
    let mut junk = Client::tcp(proxy.port("secure"));
    junk.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(junk.is_closed(), "an alert, and the end");
}
