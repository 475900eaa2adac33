//! Whom Portolan asks over TLS by itself, with certificates of an authority that only the configuration knows.

use super::{
    auth::behind,
    jwks::Issuer,
    jwt::with,
    spans::Collector,
    support::{Certificates, Nginx, Origin, Proxy, Redis, Tree, config, free_port, to, until},
};

/// nginx over TLS, with its authority in `ca.pem`.
struct Secured {
    nginx: Nginx,
    port: u16,
}

impl Secured {
    fn serving(listen: &str, server: &str) -> Self {
        let (tree, port) = (Tree::new(), free_port());
        let certificates = Certificates::new(&tree);
        certificates.sign("server", &["127.0.0.1"]);
        let file = |name: &str| certificates.file(name);
        let (certificate, key) = (file("server.pem"), file("server.key"));
        let server = format!("ssl_certificate {certificate}; ssl_certificate_key {key}; {server}");
        Self { nginx: Nginx::start(tree, port, &format!("ssl {listen}"), &server), port }
    }

    fn ca(&self) -> String {
        self.nginx.tree().path("ca.pem").display().to_string()
    }
}

#[test]
fn a_jwk_set_comes_from_a_private_site() {
    let (issuer, origin) = (Issuer::start(), Origin::saying(""));
    let site =
        Secured::serving("", &format!("location / {{ proxy_pass http://127.0.0.1:{}; }}", issuer.port));
    let jwt = |ca: &str| format!("{{ jwt: {{ jwks: \"https://127.0.0.1:{}/jwks\" {ca} }} }}", site.port);
    let proxy = Proxy::start(&behind(&jwt(&format!(", ca: {}", site.ca())), &origin));
    until("the keys are there", || with(&proxy, "/", issuer.token("one")) == 200);
    let proxy = Proxy::start(&behind(&jwt(""), &origin));
    until("the site is not believed", || proxy.log().contains("a JWK set cannot be fetched"));
    assert_eq!(with(&proxy, "/", issuer.token("one")), 503);
}

#[test]
fn a_private_service_lets_in_and_gives_the_client_its_cookie() {
    let granted = "add_header Set-Cookie session=fresh; add_header Set-Cookie seen=1; add_header X-Level 3;";
    let site = Secured::serving("", &format!("location / {{ {granted} return 204; }}"));
    let auth = |settings: &str| {
        format!("{{ forward_auth: {{ url: \"https://127.0.0.1:{}/\" {settings} }} }}", site.port)
    };
    let origin = Origin::replying(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: own=1\r\nX-Level: 1\r\nX-Other: 1\r\nContent-Length: 0\r\n\r\n",
    );
    let settings = format!(", ca: {}, response_headers: [Set-Cookie, X-Level, X-Other]", site.ca());
    let proxy = Proxy::start(&behind(&auth(&settings), &origin));
    let response = proxy.client().get("/");
    assert_eq!(response.status, 200);
    assert_eq!(response.values("set-cookie"), ["own=1", "session=fresh", "seen=1"]);
    assert_eq!((response.values("x-level"), response.values("x-other")), (vec!["3"], vec!["1"]));
    let proxy = Proxy::start(&behind(&auth(""), &origin));
    assert_eq!(proxy.client().get("/").status, 502);
    assert_eq!(proxy.access_line_of("/")["reason"], "auth_failed");
}

#[test]
fn spans_go_to_a_private_collector_by_both_protocols() {
    let (collector, origin) = (Collector::start(), Origin::saying(""));
    let grpc = format!("location / {{ grpc_pass grpc://127.0.0.1:{}; }}", collector.grpc);
    let http = format!("location / {{ proxy_pass http://127.0.0.1:{}; }}", collector.http);
    for (nth, (site, protocol)) in
        [(Secured::serving("http2", &grpc), "grpc"), (Secured::serving("", &http), "http")].iter().enumerate()
    {
        let url = format!("otlp: \"https://127.0.0.1:{}\", protocol: {protocol}", site.port);
        let tracing = |ca: &str| format!("tracing: {{ {url} {ca} }}\n{}", to(&[&origin.address()]));
        let proxy = Proxy::start(&tracing(&format!(", ca: {}", site.ca())));
        assert_eq!(proxy.client().get("/").status, 200);
        let spans = collector.wait(2 * (nth + 1));
        assert_eq!(spans.last().unwrap()["protocol"], *protocol);
        let proxy = Proxy::start(&tracing(""));
        assert_eq!(proxy.client().get("/").status, 200);
        until("the collector is not believed", || proxy.log().contains("spans cannot be sent"));
        assert_eq!(collector.wait(2 * (nth + 1)).len(), 2 * (nth + 1));
    }
}

#[test]
fn a_redis_over_tls_counts_for_who_is_trusted_by_name_and_password() {
    let redis = Redis::secured();
    let yaml = r#"
REDIS
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    middleware: [{ rate_limit: { rate: 1/h, burst: 1, by: host, bucket: api, scope: shared, unavailable: refuse } }]
    routes: { all: { path: "/**", respond: { body: ok } } }
"#;
    let proxy = |section: &str| Proxy::start(&config(yaml, &[("REDIS", &section)]));
    let section = redis.section();
    let one = proxy(&section);
    until("redis answers", || one.client().get("/").status != 503);
    assert_eq!(proxy(&section).client().get("/").status, 429, "{}", one.log());
    for (right, wrong) in [("p%40ss", "other"), ("ca: ", "timeout: 1s } # ")] {
        let stranger = proxy(&section.replace(right, wrong));
        assert_eq!(stranger.client().get("/").status, 503);
        assert!(!stranger.log().contains("other"), "{}", stranger.log());
    }
}
