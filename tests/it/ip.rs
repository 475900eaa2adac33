//! Who is let in by address.

use super::support::{Origin, Proxy, Tree, config, until};

const CONFIG: &str = r#"
defaults: { middleware: [{ ip: { deny: [198.51.100.0/24, { file: blocked.txt }] } }] }
listeners: { web: { bind: "127.0.0.1:0", trusted_proxies: { from: [127.0.0.1] } } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      inner: { path: /inner, respond: { body: ok }, middleware: [{ ip: { allow: [10.0.0.0/8, 198.51.100.7, "2001:db8::/32"] } }] }
      tried: { path: /tried, respond: { body: ok }, middleware: [{ ip: { allow: [10.0.0.0/8], mode: observe } }] }
      probe: { path: /probe, respond: { body: ok }, without: [ip] }
"#;

fn status(proxy: &Proxy, path: &str, ip: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {ip}\r\n\r\n");
    proxy.client().send(request).response().status
}

fn start(blocked: &str) -> (Origin, Proxy) {
    let origin = Origin::saying("ok");
    let tree = Tree::new();
    tree.write("blocked.txt", blocked);
    let proxy = Proxy::start_in(tree, &config(CONFIG, &[("ORIGIN", &origin.address())]));
    (origin, proxy)
}

#[test]
fn clients_are_let_in_by_every_list_on_the_way() {
    let (origin, proxy) = start("# scanners\n203.0.113.7 # the loudest\n\n2001:db8:bad::/48\n");
    for (path, ip, wanted) in [
        ("/", "192.0.2.1", 200),
        ("/", "198.51.100.1", 403),
        ("/", "203.0.113.7", 403),
        ("/", "203.0.113.8", 200),
        ("/", "2001:db8:bad::1", 403),
        ("/nowhere", "203.0.113.7", 403),
        ("/inner", "10.1.2.3", 200),
        ("/inner", "192.0.2.1", 403),
        ("/inner", "198.51.100.7", 403),
        ("/inner", "2001:db8::1", 200),
        ("/inner", "2001:db8:bad::1", 403),
        ("/probe", "203.0.113.7", 200),
    ] {
        assert_eq!(status(&proxy, path, ip), wanted, "{path} {ip}");
    }
    assert_eq!(origin.requests().len(), 2, "what is refused does not go upstream");
    assert_eq!(proxy.access_line_of("/nowhere")["reason"], "ip_refused");
}

#[test]
fn what_only_observes_lets_in_and_says_so() {
    let (_origin, proxy) = start("");
    assert_eq!(status(&proxy, "/tried", "192.0.2.1"), 200);
    assert_eq!(proxy.access_line_of("/tried")["observed"][0], "ip_refused");
}

#[test]
fn a_list_in_a_file_is_read_again_when_it_changes() {
    let (_origin, proxy) = start("203.0.113.7\n");
    assert_eq!((status(&proxy, "/", "203.0.113.7"), status(&proxy, "/", "203.0.113.8")), (403, 200));
    proxy.write("blocked.txt", "203.0.113.8\n");
    until("the new list holds", || status(&proxy, "/", "203.0.113.8") == 403);
    assert_eq!(status(&proxy, "/", "203.0.113.7"), 200);
}
