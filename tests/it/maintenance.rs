//! What is being worked on, and who may see it all the same.

use super::support::{Origin, Proxy, Response, Tree, config, until};

const CONFIG: &str = r#"
defaults: { middleware: [{ response_headers: { set: { X-Chain: passed } } }] }
listeners: { web: { bind: "127.0.0.1:0", trusted_proxies: { from: [127.0.0.1] } } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
tenants: { acme: { maintenance: { active: true, retry_after: 1h, allow: [10.1.0.0/16] } } }
hosts:
  acme: { names: [acme.example], tenant: acme, routes: { all: { path: "/**", proxy: { upstream: origin } } } }
  shop:
    names: [shop.example]
    maintenance: { active: true, page: down.html, allow: [10.0.0.0/8] }
    middleware: [{ ip: { deny: [203.0.113.0/24] } }]
    routes:
      all: { path: /shop, proxy: { upstream: origin } }
      probe: { path: /probe, respond: { body: ok }, without: [maintenance] }
  rest:
    names: ["*"]
    maintenance: { active: false }
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      old: { path: /old, proxy: { upstream: origin }, maintenance: { active: true, status: 500 } }
"#;

fn start() -> (Origin, Proxy) {
    let origin = Origin::saying("ok");
    let tree = Tree::new();
    tree.write("down.html", "<p>down</p>");
    let proxy = Proxy::start_in(tree, &config(CONFIG, &[("ORIGIN", &origin.address())]));
    (origin, proxy)
}

fn ask(proxy: &Proxy, host: &str, path: &str, ip: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {ip}\r\n\r\n");
    proxy.client().send(request).response()
}

#[test]
fn only_those_who_work_on_it_get_through() {
    let (origin, proxy) = start();
    let stranger = "203.0.113.7";
    for (host, path, ip, status, retry_after) in [
        ("acme.example", "/", stranger, 503, Some("3600")),
        ("acme.example", "/nowhere", stranger, 503, Some("3600")),
        ("acme.example", "/", "10.1.2.3", 200, None),
        ("acme.example", "/", "10.2.2.3", 503, Some("3600")),
        ("shop.example", "/shop", stranger, 503, Some("300")),
        ("shop.example", "/nowhere", stranger, 503, Some("300")),
        ("shop.example", "/shop", "10.1.2.3", 200, None),
        ("shop.example", "/nowhere", "10.1.2.3", 404, None),
        ("shop.example", "/probe", "192.0.2.1", 200, None),
        ("a.example", "/", stranger, 200, None),
        ("a.example", "/old", stranger, 500, Some("300")),
    ] {
        let case = format!("{host}{path} from {ip}");
        let response = ask(&proxy, host, path, ip);
        assert_eq!(response.status, status, "{case}");
        assert_eq!(response.field("retry-after"), retry_after, "{case}");
        assert_eq!(response.field("x-chain"), Some("passed"), "{case}");
    }
    assert_eq!(origin.requests().len(), 3);
    assert_eq!(proxy.access_line_of("/old")["reason"], "maintenance");
}

#[test]
fn a_page_is_shown_or_an_error_in_the_routes_form() {
    let (_origin, proxy) = start();
    let page = ask(&proxy, "shop.example", "/shop", "192.0.2.1");
    assert_eq!(
        (page.text().as_str(), page.field("content-type")),
        ("<p>down</p>", Some("text/html; charset=utf-8"))
    );
    let error = ask(&proxy, "a.example", "/old", "192.0.2.1").text();
    assert!(error.contains(r#""error":"maintenance""#) && error.contains(r#""status":500"#), "{error}");
}

#[test]
fn a_reload_ends_it() {
    let (origin, mut proxy) = start();
    assert_eq!(ask(&proxy, "shop.example", "/shop", "192.0.2.1").status, 503);
    proxy.write("down.html", "<p>soon</p>");
    until("the page is read again", || {
        ask(&proxy, "shop.example", "/shop", "192.0.2.1").text() == "<p>soon</p>"
    });
    let yaml = config(CONFIG, &[("ORIGIN", &origin.address())]);
    proxy.change(&yaml.replace("active: true, page", "active: false, page"));
    assert_eq!(ask(&proxy, "shop.example", "/shop", "192.0.2.1").status, 200);
}
