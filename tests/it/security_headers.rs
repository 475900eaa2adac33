//! What browsers are told, by whoever the response is made.

use super::support::{Certificates, Client, Origin, Proxy, Tree, config};

#[test]
fn every_response_carries_them_and_hsts_goes_by_https_alone() {
    let origin =
        Origin::replying(b"HTTP/1.1 200 OK\r\nX-Frame-Options: DENY\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n");
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("local", &["localhost"]);
    let yaml = r#"
defaults:
  middleware:
    - security_headers: { hsts: { max_age: 365d, subdomains: true }, csp: "default-src 'self'" }
certificates: { local: { cert: local.pem, key: local.key } }
listeners:
  web: { bind: "127.0.0.1:0" }
  websecure: { bind: "127.0.0.1:0", tls: { certificates: [local] } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: [localhost]
    routes:
      proxied: { path: /proxied, proxy: { upstream: origin } }
      local: { path: /local, respond: { body: here } }
      own: { path: /own, respond: { body: here, headers: { Content-Security-Policy: "default-src 'none'" } } }
"#;
    let yaml = config(yaml, &[("ORIGIN", &origin.address())]);
    let proxy = Proxy::start_in(tree, &yaml);
    let mut clear = proxy.client();
    let mut secure =
        Client::tls(proxy.port("websecure"), "localhost", certificates.client(&[])).expect("a handshake");
    let long = Some("max-age=31536000; includeSubDomains");
    // Path, its status, its frame options and policy, and HSTS by https.
    for (path, status, frame, csp, hsts) in [
        ("/local", 200, "SAMEORIGIN", "default-src 'self'", long),
        ("/own", 200, "SAMEORIGIN", "default-src 'none'", long),
        ("/nowhere", 404, "SAMEORIGIN", "default-src 'self'", long),
        ("/bad/%zz", 400, "SAMEORIGIN", "default-src 'self'", long),
        ("/proxied", 200, "DENY", "default-src 'self'", Some("max-age=1")),
    ] {
        for (client, hsts) in [(&mut clear, None), (&mut secure, hsts)] {
            let response = client.get(path);
            assert_eq!(response.status, status, "{path}");
            assert_eq!(response.values("x-frame-options"), [frame], "{path}");
            assert_eq!(response.values("content-security-policy"), [csp], "{path}");
            assert_eq!(response.values("x-content-type-options"), ["nosniff"], "{path}");
            assert_eq!(response.values("referrer-policy"), ["strict-origin-when-cross-origin"], "{path}");
            assert_eq!(response.field("strict-transport-security"), hsts, "{path}");
        }
    }
}
