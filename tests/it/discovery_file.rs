//! Endpoints that a file lists: followed when it changes, kept while it is broken.

use std::{fs, os::unix::fs::symlink};

use serde_json::Value;

use super::support::{Origin, Proxy, Tree, portolan, until};

const YAML: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { endpoints: [{ file: endpoints.yaml }] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: app } } } } }
"#;

fn listing(origins: &[(&Origin, u16)]) -> String {
    let line = |(origin, weight): &(&Origin, u16)| {
        format!("- {{ address: \"{}\", weight: {weight} }}\n", origin.address())
    };
    origins.iter().map(line).collect()
}

fn upstream(proxy: &Proxy) -> Value {
    proxy.status()["upstreams"][0].clone()
}

fn count(proxy: &Proxy) -> usize {
    upstream(proxy)["endpoints"].as_array().map_or(0, Vec::len)
}

fn words(proxy: &Proxy, requests: usize) -> Vec<String> {
    let mut client = proxy.client();
    (0..requests).map(|_| client.get("/").text()).collect()
}

#[test]
fn a_file_is_followed_without_a_reload() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let tree = Tree::new();
    tree.write("endpoints.yaml", listing(&[(&a, 1)]));
    let proxy = Proxy::start_in(tree, YAML);
    assert_eq!(words(&proxy, 2), ["a", "a"]);
    let generation = proxy.generation();

    proxy.write("endpoints.yaml", &listing(&[(&a, 3), (&b, 1)]));
    until("the second is there", || count(&proxy) == 2);
    let found = words(&proxy, 8);
    assert_eq!(found.iter().filter(|word| *word == "b").count(), 2, "{found:?}");

    // Written in place, and JSON is YAML too.
    fs::write(proxy.tree().path("endpoints.yaml"), format!("[\"{}\"]", b.address())).unwrap();
    until("the first is gone", || count(&proxy) == 1);
    assert_eq!(words(&proxy, 2), ["b", "b"]);
    assert_eq!(proxy.generation(), generation);
}

#[test]
fn a_broken_file_keeps_the_last_and_is_told() {
    let a = Origin::saying("a");
    let tree = Tree::new();
    tree.write("endpoints.yaml", listing(&[(&a, 1)]));
    let proxy = Proxy::start_in(tree, YAML);
    for (text, told) in [
        ("- 127.0.0.1:80\n- { adress: \"127.0.0.1:81\" }\n", "endpoints.yaml:2: "),
        ("- [\n", "endpoints.yaml:"),
        ("", "lists no endpoint"),
    ] {
        proxy.write("endpoints.yaml", text);
        until(&format!("{text:?} is told"), || {
            let error = upstream(&proxy)["discovery"][0]["error"].clone();
            error.as_str().is_some_and(|error| error.contains(told))
        });
        assert_eq!(words(&proxy, 1), ["a"]);
    }
    fs::remove_file(proxy.tree().path("endpoints.yaml")).unwrap();
    until("its absence is told", || {
        let error = upstream(&proxy)["discovery"][0]["error"].clone();
        error.as_str().is_some_and(|error| error.contains("no such file"))
    });
    assert_eq!(words(&proxy, 1), ["a"]);
    let log = proxy.log();
    assert!(log.contains("endpoint discovery failed: the last endpoints stay"), "{log}");
    let metrics = proxy.metrics();
    let failures =
        metrics.lines().find(|line| line.starts_with("portolan_upstream_discovery_failures_total{"));
    assert!(failures.is_some_and(|line| !line.ends_with(" 0")), "{failures:?}");
    let complaints = proxy.admin().get("/health").text();
    assert!(complaints.contains("discovery_failed"), "{complaints}");
}

#[test]
fn a_file_that_is_missing_at_the_start_is_a_warning() {
    let tree = Tree::new();
    tree.write("p.yaml", YAML);
    let check = portolan(&tree.path(""), &["check", "p.yaml"]);
    assert_eq!(check.code, 0, "{check:?}");
    assert!(check.stderr.contains("warning[bad-endpoints-file]"), "{check:?}");

    let a = Origin::saying("a");
    let proxy = Proxy::start(YAML);
    assert_eq!(proxy.client().get("/").status, 503);
    proxy.write("endpoints.yaml", &listing(&[(&a, 1)]));
    until("it is there", || count(&proxy) == 1);
    assert_eq!(words(&proxy, 1), ["a"]);
}

/// As Kubernetes replaces the files of a ConfigMap.
#[test]
fn a_link_on_the_way_is_followed() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let tree = Tree::new();
    for (directory, origin) in [("one", &a), ("two", &b)] {
        fs::create_dir(tree.path(directory)).unwrap();
        tree.write(format!("{directory}/endpoints.yaml"), listing(&[(origin, 1)]));
    }
    symlink("one", tree.path("data")).unwrap();
    symlink("data/endpoints.yaml", tree.path("endpoints.yaml")).unwrap();
    let proxy = Proxy::start_in(tree, YAML);
    assert_eq!(words(&proxy, 1), ["a"]);
    symlink("two", proxy.tree().path("data.new")).unwrap();
    fs::rename(proxy.tree().path("data.new"), proxy.tree().path("data")).unwrap();
    until("the other is read", || words(&proxy, 1) == ["b"]);
}

/// What lies elsewhere is not read, however it is named.
#[test]
fn a_tenants_file_lies_within_its_roots() {
    let a = Origin::saying("a");
    let (tree, outside) = (Tree::new(), Tree::new());
    outside.write("secret.yaml", listing(&[(&a, 1)]));
    fs::create_dir(tree.path("acme")).unwrap();
    tree.write(
        "acme/site.yaml",
        "upstreams: { up: { endpoints: [{ file: endpoints.yaml }] } }\n\
         hosts: { www: { names: [\"*\"], routes: { all: { path: \"/**\", proxy: { upstream: up } } } } }\n",
    );
    symlink(outside.path("secret.yaml"), tree.path("acme/endpoints.yaml")).unwrap();
    let main = r#"
include: { files: acme/site.yaml, tenant: acme, hosts: ["*"], roots: [acme], allow_upstreams: [127.0.0.0/8] }
listeners: { web: { bind: "127.0.0.1:0" } }
tenants: { acme: {} }
"#;
    let proxy = Proxy::start_in(tree, main);
    assert_eq!(proxy.client().get("/").status, 503);
    let error = upstream(&proxy)["discovery"][0]["error"].to_string();
    assert!(error.contains("outside of the tenant's roots"), "{error}");
    proxy.write("acme/endpoints.yaml", &listing(&[(&a, 1)]));
    until("its own is read", || proxy.client().get("/").status == 200);
}
