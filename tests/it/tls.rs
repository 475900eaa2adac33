//! TLS towards clients: which certificate, which version, who may come.

use std::net::TcpStream;

use rustls::{
    ClientConnection, NamedGroup,
    crypto::{
        CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{self, kx_group as groups},
    },
};

use super::support::{Certificates, Client, Nginx, Origin, Proxy, Tree, config, curl, openssl};

const SECURE: &str = r#"
certificates:
  first: { cert: FILES/first.pem, key: FILES/first.key }
  wild: { cert: FILES/wild.pem, key: FILES/wild.key }
  exact: { cert: FILES/exact.pem, key: FILES/exact.key }
  own: { cert: FILES/own.pem, key: FILES/own.key }
listeners: { secure: { bind: "127.0.0.1:0", tls: { certificates: [first, wild, exact] TLS } PROTOCOLS } }
hosts:
  own: { names: [own.other.example], tls: { certificate: own }, routes: { all: { path: "/**", respond: { body: own } } } }
  all:
    names: ["*"]
    middleware: [{ response_headers: { set: HEADERS } }]
    routes: { all: { path: "/**", respond: { body: ok } } }
"#;

/// Certificates of all the names above, and a proxy that shows them.
fn secure(tls: &str, rest: &str, headers: &str) -> (Certificates, Proxy) {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("first", &["first.example", "localhost"]);
    certificates.sign("wild", &["*.example.com"]);
    certificates.sign("exact", &["www.example.com"]);
    certificates.sign("own", &["own.other.example"]);
    certificates.sign("client", &["client.example"]);
    let headers = if headers.is_empty() { "{ X-Nothing: none }" } else { headers };
    let directory = tree.path("");
    let words: [(&str, &dyn std::fmt::Display); 4] =
        [("FILES", &directory.display()), ("TLS", &tls), ("PROTOCOLS", &rest), ("HEADERS", &headers)];
    let yaml = config(SECURE, &words);
    (certificates, Proxy::start_in(tree, &yaml))
}

/// The subject that openssl sees when it asks for this name.
fn subject(proxy: &Proxy, name: Option<&str>) -> String {
    let address = format!("127.0.0.1:{}", proxy.port("secure"));
    let name = name.map_or(vec!["-noservername"], |name| vec!["-servername", name]);
    let run = openssl(&[&["s_client", "-connect", &address][..], &name].concat());
    let line = run.stdout.lines().find_map(|line| line.strip_prefix("subject="));
    let subject = line.unwrap_or_else(|| panic!("no subject: {run:?}"));
    subject.replace("CN = ", "").replace("CN=", "").trim().to_owned()
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let (_certificates, proxy) = secure("", "", "");
    for (name, expected) in [
        (Some("www.example.com"), "exact"),
        (Some("WWW.example.com"), "exact"),
        (Some("a.example.com"), "wild"),
        (Some("first.example"), "first"),
        (Some("nobody.example"), "first"),
        (Some("own.other.example"), "own"),
        (None, "first"),
    ] {
        assert_eq!(subject(&proxy, name), expected, "{name:?}");
    }
}

#[test]
fn a_client_of_ours_is_satisfied() {
    let (certificates, proxy) = secure("", "", "");
    let run = curl(&[
        "--cacert",
        &certificates.ca(),
        "--resolve",
        &format!("www.example.com:{}:127.0.0.1", proxy.port("secure")),
        &format!("https://www.example.com:{}/", proxy.port("secure")),
        "-w",
        " %{http_version} %{ssl_verify_result}",
    ]);
    assert_eq!(run.stdout, "ok 2 0", "{run:?}");
}

#[test]
fn versions_below_the_least_are_refused() {
    let (_certificates, proxy) = secure(", min_version: 1.3", "", "");
    let address = format!("127.0.0.1:{}", proxy.port("secure"));
    assert_ne!(openssl(&["s_client", "-connect", &address, "-tls1_2"]).code, 0);
    let run = openssl(&["s_client", "-connect", &address, "-tls1_3"]);
    assert!(run.stdout.contains("TLSv1.3"), "{run:?}");
    let (_certificates, proxy) = secure("", "", "");
    let address = format!("127.0.0.1:{}", proxy.port("secure"));
    assert!(openssl(&["s_client", "-connect", &address, "-tls1_2"]).stdout.contains("TLSv1.2"));
    assert_ne!(openssl(&["s_client", "-connect", &address, "-tls1_1"]).code, 0);
}

#[test]
fn keys_are_exchanged_by_the_hybrid_where_the_client_has_it() {
    let (certificates, proxy) = secure("", "", "");
    let offers = |groups: &[&'static dyn SupportedKxGroup]| {
        let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
        let config = certificates.client_by(provider, &["http/1.1"]);
        let mut connection = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        let mut socket = TcpStream::connect(("127.0.0.1", proxy.port("secure"))).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).unwrap();
        }
        connection.negotiated_key_exchange_group().unwrap().name()
    };
    assert_eq!(offers(&[groups::X25519MLKEM768, groups::X25519]), NamedGroup::X25519MLKEM768);
    assert_eq!(offers(&[groups::X25519, groups::X25519MLKEM768]), NamedGroup::X25519);
    assert_eq!(offers(&[groups::SECP384R1]), NamedGroup::secp384r1);
}

#[test]
fn the_cheapest_cipher_goes_first() {
    let (_certificates, proxy) = secure("", "", "");
    let address = format!("127.0.0.1:{}", proxy.port("secure"));
    let (small, large) = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384");
    for (offered, taken) in [(format!("{large}:{small}"), small), (large.to_owned(), large)] {
        let run = openssl(&["s_client", "-connect", &address, "-tls1_3", "-ciphersuites", &offered]);
        assert!(run.stdout.contains(&format!("Cipher is {taken}")), "{run:?}");
    }
}

#[test]
fn the_protocol_is_chosen_by_alpn() {
    let (_certificates, proxy) = secure("", "", "");
    let address = format!("127.0.0.1:{}", proxy.port("secure"));
    for (offered, chosen) in [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1")] {
        let run = openssl(&["s_client", "-connect", &address, "-alpn", offered]);
        assert!(run.stdout.contains(&format!("ALPN protocol: {chosen}\n")), "{offered}: {run:?}");
    }
    let (certificates, proxy) = secure("", ", protocols: [h2]", "");
    let port = proxy.port("secure");
    assert!(
        Client::tls(port, "localhost", certificates.client(&["http/1.1"])).is_err(),
        "h2 alone is strict"
    );
}

#[test]
fn client_certificates_are_required_or_welcome() {
    for (mode, anonymous_served) in [("require", false), ("optional", true)] {
        let tls = format!(", client_auth: {{ ca: ca.pem, mode: {mode} }}");
        let (certificates, proxy) = secure(&tls, "", "{ X-Subject: \"{tls.client.subject}\" }");
        let url = format!("https://localhost:{}/", proxy.port("secure"));
        let ca = certificates.ca();
        let anonymous = curl(&["--cacert", &ca, &url]);
        assert_eq!(anonymous.code == 0, anonymous_served, "{mode}: {anonymous:?}");
        let (cert, key) = (certificates.file("client.pem"), certificates.file("client.key"));
        let known = curl(&["--cacert", &ca, "--cert", &cert, "--key", &key, "-i", &url]);
        assert_eq!(known.code, 0, "{mode}: {known:?}");
        assert!(known.stdout.to_lowercase().contains("x-subject: cn=client"), "{}", known.stdout);
        // Signed by nobody that is known here.
        let stranger = Tree::new();
        let strangers = Certificates::new(&stranger);
        strangers.sign("stranger", &["stranger.example"]);
        let (cert, key) = (strangers.file("stranger.pem"), strangers.file("stranger.key"));
        let unknown = curl(&["--cacert", &ca, "--cert", &cert, "--key", &key, &url]);
        assert_ne!(unknown.code, 0, "{mode}: a wrong certificate is refused");
    }
}

#[test]
fn a_self_made_certificate_serves_development() {
    let yaml = r#"
certificates: { local: { self_signed: [localhost, "*.localhost"] } }
listeners: { secure: { bind: "127.0.0.1:0", tls: { certificates: [local] } } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: ok } } } } }
"#;
    let proxy = Proxy::start(yaml);
    let run = curl(&["-k", &format!("https://localhost:{}/", proxy.port("secure"))]);
    assert_eq!(run.stdout, "ok", "{run:?}");
}

#[test]
fn the_origin_learns_that_it_was_https() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["localhost"]);
    let origin = Origin::saying("");
    let yaml = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners: { secure: { bind: "127.0.0.1:0", tls: { certificates: [web] } } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    let proxy = Proxy::start_in(tree, &config(yaml, &[("ORIGIN", &origin.address())]));
    let mut client =
        Client::tls(proxy.port("secure"), "localhost", certificates.client(&["http/1.1"])).unwrap();
    assert_eq!(client.get("/").status, 200);
    let request = origin.request();
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
}

#[test]
fn cleartext_on_a_tls_port_and_silence_cost_nobody_else() {
    let (certificates, proxy) = secure("", ", timeouts: { handshake: 500ms }", "");
    let port = proxy.port("secure");
    let mut silent = Client::tcp(port);
    let mut clear = Client::tcp(port);
    clear.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut served = Client::tls(port, "localhost", certificates.client(&["http/1.1"])).unwrap();
    assert_eq!(served.get("/").status, 200);
    assert!(clear.is_closed());
    assert!(silent.is_closed(), "a handshake has its deadline");
}

#[test]
fn large_bodies_pass_through_tls() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["localhost"]);
    let nginx = Nginx::serving("location / { try_files $uri =404; }");
    nginx.tree().write("root/large", vec![b'x'; 20_000_000]);
    let yaml = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners: { secure: { bind: "127.0.0.1:0", tls: { certificates: [web] } } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    let proxy = Proxy::start_in(tree, &config(yaml, &[("ORIGIN", &nginx.address())]));
    for version in ["--http1.1", "--http2"] {
        let url = format!("https://localhost:{}/large", proxy.port("secure"));
        let run = curl(&[
            "--cacert",
            &certificates.ca(),
            version,
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}",
            &url,
        ]);
        assert_eq!(run.stdout, "20000000", "{version}: {run:?}");
    }
}
