//! TLS sessions with endpoints: a second connection resumes the first one's, and none that was verified otherwise.

use super::support::{Certificates, Nginx, Proxy, Tree, config, free_port};

/// Says whether a session was resumed: `r`, else `.`.
fn origin(certificates: &Certificates, more: &str) -> Nginx {
    let server = format!(
        "ssl_certificate {}; ssl_certificate_key {}; {more} location / {{ return 200 $ssl_session_reused; }}",
        certificates.file("origin.pem"),
        certificates.file("origin.key"),
    );
    Nginx::start(Tree::new(), free_port(), "ssl http2", &server)
}

/// A connection for each request; the upstream u0 is at /0, and so on.
fn before(nginx: &Nginx, certificates: &Certificates, upstreams: &[&str]) -> Proxy {
    let yaml = r#"
certificates: { client: { cert: CLIENT.pem, key: CLIENT.key } }
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { UPSTREAMS }
hosts: { all: { names: ["*"], routes: { ROUTES } } }
"#;
    let of = |at: usize, keys: &str| {
        format!("u{at}: {{ endpoints: [\"{}\"], pool: {{ max_requests: 1 }}, {keys} }}", nginx.address())
    };
    let all: Vec<_> = upstreams.iter().enumerate().map(|(at, keys)| of(at, keys)).collect();
    let to = |at: usize| format!("r{at}: {{ path: /{at}, proxy: {{ upstream: u{at} }} }}");
    let routes: Vec<_> = (0..upstreams.len()).map(to).collect();
    let words: [(&str, &dyn std::fmt::Display); 3] = [
        ("CLIENT", &certificates.file("client")),
        ("UPSTREAMS", &all.join(", ")),
        ("ROUTES", &routes.join(", ")),
    ];
    Proxy::start(&config(yaml, &words))
}

fn certificates(tree: &Tree) -> Certificates {
    let certificates = Certificates::new(tree);
    certificates.sign("origin", &["origin.internal"]);
    certificates.sign("client", &["client.internal"]);
    certificates
}

#[test]
fn a_second_connection_resumes_the_first_ones_session() {
    let tree = Tree::new();
    let certificates = certificates(&tree);
    let ca = certificates.ca();
    let verify = format!("ssl_client_certificate {ca}; ssl_verify_client on;");
    let with_certificate =
        format!("{{ ca: {ca}, server_name: origin.internal, client_certificate: client }}");
    for version in ["TLSv1.2", "TLSv1.3"] {
        for (more, tls) in [
            ("", format!("{{ ca: {ca}, server_name: origin.internal }}")),
            ("", "{ verify: none, server_name: origin.internal }".to_owned()),
            (verify.as_str(), with_certificate.clone()),
        ] {
            let nginx = origin(&certificates, &format!("ssl_protocols {version}; {more}"));
            for protocol in ["h1", "h2", "auto"] {
                let keys = format!("protocol: {protocol}, tls: {tls}");
                let proxy = before(&nginx, &certificates, &[&keys]);
                let mut client = proxy.client();
                let resumed: String = (0..4).map(|_| client.get("/0").text()).collect();
                assert_eq!(resumed, ".rrr", "{version} {keys}");
            }
        }
    }
}

#[test]
fn what_was_verified_otherwise_is_verified_again() {
    let tree = Tree::new();
    let certificates = certificates(&tree);
    let (other_tree, ca) = (Tree::new(), certificates.ca());
    let other = Certificates::new(&other_tree).ca();
    let nginx = origin(&certificates, "");
    let upstreams = [
        "tls: { verify: none, server_name: origin.internal }".to_owned(),
        format!("tls: {{ ca: {ca}, server_name: origin.internal }}"),
        format!("tls: {{ ca: {other}, server_name: origin.internal }}"),
        format!("tls: {{ ca: {ca}, server_name: other.internal }}"),
    ];
    let proxy = before(&nginx, &certificates, &upstreams.each_ref().map(String::as_str));
    let mut client = proxy.client();
    for _ in 0..2 {
        assert_eq!((client.get("/0").status, client.get("/1").status), (200, 200));
        assert_eq!((client.get("/2").status, client.get("/3").status), (502, 502));
    }
    assert_eq!((client.get("/0").text(), client.get("/1").text()), ("r".to_owned(), "r".to_owned()));
}
