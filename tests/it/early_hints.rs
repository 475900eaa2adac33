//! 103 before the answer.

use super::support::{Origin, Proxy, config, curl};

fn start(origin: &Origin) -> Proxy {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      plain: { path: /plain, proxy: { upstream: origin } }
      page:
        path: /page
        middleware: [{ early_hints: { links: ["</app.css>; rel=preload; as=style", "<https://cdn.example>; rel=preconnect"] } }]
        proxy: { upstream: origin }
"#;
    Proxy::start(&config(yaml, &[("ORIGIN", &origin.address())]))
}

/// All heads that curl sees.
fn heads(proxy: &Proxy, path: &str, arguments: &[&str]) -> String {
    let url = proxy.url("web", path);
    let arguments = [&["-i", &url], arguments].concat();
    curl(&arguments).stdout.to_ascii_lowercase()
}

#[test]
fn hints_come_before_the_answer_by_http2_alone() {
    let origin = Origin::saying("page");
    let proxy = start(&origin);
    let seen = heads(&proxy, "/page", &["--http2-prior-knowledge"]);
    let (hints, answer) = seen.split_once("http/2 200").expect("an answer");
    assert!(hints.starts_with("http/2 103"), "{seen}");
    assert!(hints.contains("link: </app.css>; rel=preload; as=style"), "{seen}");
    assert!(hints.contains("link: <https://cdn.example>; rel=preconnect"), "{seen}");
    assert!(answer.ends_with("page") && !answer.contains("link:"), "{seen}");
    assert!(!heads(&proxy, "/page", &["--http1.1"]).contains(" 103"), "not to HTTP/1.1");
    assert!(!heads(&proxy, "/page", &["--http2-prior-knowledge", "-d", "x"]).contains(" 103"), "not to POST");
}

#[test]
fn hints_of_an_upstream_are_passed_on() {
    let origin = Origin::replying(
        b"HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = start(&origin);
    for (protocol, status) in [("--http2-prior-knowledge", "http/2 103"), ("--http1.1", "http/1.1 103")] {
        let seen = heads(&proxy, "/plain", &[protocol]);
        assert!(seen.starts_with(status) && seen.contains("link: </b.css>; rel=preload"), "{seen}");
        assert!(seen.ends_with("ok"), "{seen}");
    }
}
