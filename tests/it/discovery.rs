//! Endpoints that DNS gives: found at the start, followed as they change, kept when answers fail.

use serde_json::Value;

use super::support::{
    Certificates, Dnsmasq, Load, Nginx, Proxy, Tree, config, free_port, portolan, until, wrk,
};

/// An nginx at several addresses of this machine and one port, that says at which it was asked.
fn origins(addresses: &[&str]) -> (Nginx, u16) {
    let port = free_port();
    let listens: Vec<String> = addresses.iter().map(|address| format!("listen {address}:{port};")).collect();
    let server = format!(
        "{} keepalive_timeout 600s; location / {{ return 200 \"$server_addr $http_host\"; }}",
        listens.join(" ")
    );
    (Nginx::start(Tree::new(), port, "", &server), port)
}

const YAML: &str = r#"
resolvers: ["DNS"]
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { endpoints: [ENDPOINTS] KEYS } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: app } } } } }
"#;

fn yaml(dns: &str, endpoints: &str, keys: &str) -> String {
    config(YAML, &[("DNS", &dns), ("ENDPOINTS", &endpoints), ("KEYS", &keys)])
}

/// The endpoints of the upstream `app`.
fn endpoints(proxy: &Proxy) -> Vec<String> {
    let status = proxy.status();
    let list = status["upstreams"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    let mut addresses: Vec<_> = list.iter().map(|own| own["address"].as_str().unwrap().to_owned()).collect();
    addresses.sort();
    addresses
}

fn discovery(proxy: &Proxy) -> Value {
    proxy.status()["upstreams"][0]["discovery"][0].clone()
}

#[track_caller]
fn has(proxy: &Proxy, addresses: &[&str], port: u16) {
    let mut wanted: Vec<String> = addresses.iter().map(|address| format!("{address}:{port}")).collect();
    wanted.sort();
    until(&format!("endpoints {wanted:?}"), || endpoints(proxy) == wanted);
}

/// Where so many requests were answered.
fn places(proxy: &Proxy, requests: usize) -> Vec<String> {
    let mut client = proxy.client();
    let places = (0..requests).map(|_| {
        let response = client.get("/");
        assert_eq!(response.status, 200);
        response.text().split(' ').next().unwrap().to_owned()
    });
    places.collect()
}

#[test]
fn a_name_is_resolved_at_the_start_and_followed() {
    let (_origins, port) = origins(&["127.0.0.2", "127.0.0.3", "[::1]"]);
    let dns = Dnsmasq::knowing(&["127.0.0.1 app.test", "127.0.0.2 app.test"]);
    let proxy = Proxy::start(&yaml(&dns.address(), &format!("app.test:{port}"), ""));
    // The first request finds what it needs.
    let first = places(&proxy, 4);
    for place in ["127.0.0.1", "127.0.0.2"] {
        assert_eq!(first.iter().filter(|found| *found == place).count(), 2, "{first:?}");
    }
    dns.know(&["127.0.0.2 app.test", "127.0.0.3 app.test", "::1 app.test"]);
    has(&proxy, &["127.0.0.2", "127.0.0.3", "[::1]"], port);
    let now = places(&proxy, 9);
    for place in ["127.0.0.2", "127.0.0.3", "::1"] {
        assert_eq!(now.iter().filter(|found| *found == place).count(), 3, "{now:?}");
    }
    let log = proxy.log();
    let line =
        log.lines().find(|line| line.contains("upstream endpoints changed") && line.contains("127.0.0.3"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for part in ["upstream=\"app\"", "added=", "removed=", &format!("127.0.0.1:{port}")] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let series =
        format!("portolan_upstream_discovery_endpoints{{source=\"dns app.test:{port}\",upstream=\"app\"}}");
    assert_eq!(proxy.metric(&series), Some(3.0));
}

#[test]
fn addresses_come_and_go_under_load_without_a_failed_request() {
    let (_origins, port) = origins(&["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
    let dns = Dnsmasq::knowing(&["127.0.0.1 app.test", "127.0.0.2 app.test"]);
    let proxy = Proxy::start(&yaml(&dns.address(), &format!("app.test:{port}"), ""));
    let url = proxy.url("web", "/");
    let load = Load::repeat(move || wrk(&["-t1", "-c16", "-d1s", &url]));
    for hosts in [
        &["127.0.0.3 app.test", "127.0.0.4 app.test"][..],
        &["127.0.0.1 app.test"],
        &["127.0.0.1 app.test", "127.0.0.2 app.test", "127.0.0.3 app.test", "127.0.0.4 app.test"],
        &["127.0.0.4 app.test"],
    ] {
        dns.know(hosts);
        let addresses: Vec<&str> = hosts.iter().map(|host| host.split(' ').next().unwrap()).collect();
        has(&proxy, &addresses, port);
    }
    let load = load.stop();
    assert_eq!(load.failed, 0, "{}", load.report);
    assert!(load.succeeded > 100, "{load:?}");
}

#[test]
fn the_last_addresses_stay_when_the_server_dies_or_denies_them() {
    let (_origins, port) = origins(&["127.0.0.2"]);
    let mut dns = Dnsmasq::knowing(&["127.0.0.1 app.test", "127.0.0.2 app.test"]);
    let proxy = Proxy::start(&yaml(&dns.address(), &format!("app.test:{port}"), ""));
    has(&proxy, &["127.0.0.1", "127.0.0.2"], port);

    // The name is gone: that is told, and changes nothing.
    dns.know(&[]);
    until("the failure is told", || {
        discovery(&proxy)["error"].as_str().is_some_and(|error| error.contains("NXDOMAIN"))
    });
    has(&proxy, &["127.0.0.1", "127.0.0.2"], port);
    assert!(proxy.log().contains("endpoint discovery failed: the last endpoints stay"), "{}", proxy.log());
    let failures = format!(
        "portolan_upstream_discovery_failures_total{{source=\"dns app.test:{port}\",upstream=\"app\"}}"
    );
    assert!(proxy.metric(&failures) >= Some(1.0));
    let people = portolan(&proxy.tree().path(""), &["status", "--socket", "admin.sock"]).stdout;
    assert!(people.contains("NXDOMAIN") && people.contains("2 found, last at "), "{people}");

    dns.kill();
    let before = discovery(&proxy)["failures"].as_u64();
    until("another failure", || discovery(&proxy)["failures"].as_u64() > before);
    has(&proxy, &["127.0.0.1", "127.0.0.2"], port);
    assert_eq!(places(&proxy, 4).len(), 4);

    dns.restart_knowing(&["127.0.0.2 app.test"]);
    has(&proxy, &["127.0.0.2"], port);
    until("it works again", || discovery(&proxy)["error"].is_null());
    assert!(proxy.log().contains("endpoint discovery works again"));
}

#[test]
fn a_reload_keeps_what_was_found_and_the_task_that_finds_it() {
    let (_origins, port) = origins(&["127.0.0.2"]);
    let mut dns = Dnsmasq::knowing(&["127.0.0.1 app.test", "127.0.0.2 app.test"]);
    let text = yaml(&dns.address(), &format!("app.test:{port}"), "");
    let mut proxy = Proxy::start(&text);
    has(&proxy, &["127.0.0.1", "127.0.0.2"], port);
    dns.kill();
    for nth in 0..3 {
        proxy.change(&format!("drain_timeout: {}s\n{text}", 20 + nth));
        assert_eq!(endpoints(&proxy).len(), 2, "they are there at once");
        assert_eq!(proxy.status()["tasks"]["discovery"], 1);
    }
    // Asked in another way, it begins with what was known.
    let other = yaml(&dns.address(), &format!("{{ dns: \"app.test:{port}\", refresh: 2s }}"), "");
    proxy.change(&other);
    assert_eq!(endpoints(&proxy).len(), 2);
    proxy.change(&yaml(&dns.address(), &format!("127.0.0.1:{port}"), ""));
    until("the task has ended", || proxy.status()["tasks"]["discovery"] == 0);
}

#[test]
fn a_name_without_addresses_costs_its_own_routes_alone() {
    let (_origins, port) = origins(&[]);
    let dns = Dnsmasq::knowing(&[]);
    let text = config(
        r#"
resolvers: ["DNS"]
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams:
  good: { endpoints: ["127.0.0.1:PORT"] }
  none: { endpoints: ["none.test:PORT"] }
hosts:
  all:
    names: ["*"]
    routes: { good: { path: /good, proxy: { upstream: good } }, none: { path: "/**", proxy: { upstream: none } } }
"#,
        &[("DNS", &dns.address()), ("PORT", &port)],
    );
    let tree = Tree::new();
    tree.write("p.yaml", &text);
    let check = portolan(&tree.path(""), &["check", "p.yaml"]);
    assert_eq!(check.code, 0, "{check:?}");
    let explained = portolan(&tree.path(""), &["explain", "--config", "p.yaml", "GET", "http://a.test/"]);
    assert!(explained.stdout.contains(&format!("discovery   dns none.test:{port}")), "{explained:?}");

    let proxy = Proxy::start(&text);
    assert_eq!(proxy.client().get("/good").status, 200);
    let response = proxy.client().get("/none");
    assert_eq!(response.status, 503);
    let why = response.field("proxy-status").unwrap();
    assert!(why.contains("error=dns_error"), "{why}");
    assert_eq!(proxy.access_line_of("/none")["reason"], "upstream_unresolved");

    dns.know(&["127.0.0.1 none.test"]);
    until("it is found", || proxy.client().get("/none").status == 200);
}

#[test]
fn srv_records_give_ports_weights_and_priorities() {
    let (_origins, port) = origins(&["127.0.0.2", "127.0.0.3"]);
    let hosts = ["127.0.0.1 a.test", "127.0.0.2 b.test", "127.0.0.3 c.test"];
    let record = |target: &str, priority: u16, weight: u16| {
        format!("srv-host=_http._tcp.app.test,{target}.test,{port},{priority},{weight}")
    };
    let records = [record("a", 0, 3), record("b", 0, 1), record("c", 9, 1)];
    let mut dns = Dnsmasq::with(&hosts, &records.each_ref().map(String::as_str));
    let proxy = Proxy::start(&yaml(&dns.address(), "{ srv: _http._tcp.app.test, refresh: 1s }", ""));
    let found = places(&proxy, 8);
    let count = |place: &str| found.iter().filter(|found| *found == place).count();
    assert_eq!((count("127.0.0.1"), count("127.0.0.2"), count("127.0.0.3")), (6, 2, 0), "{found:?}");

    // Another weight is no other endpoint; without the first priority the second serves.
    let records = [record("c", 9, 1)];
    dns.restart_with(&records.each_ref().map(String::as_str));
    has(&proxy, &["127.0.0.3"], port);
    assert_eq!(places(&proxy, 2), ["127.0.0.3"; 2]);
}

#[test]
fn the_preferred_family_serves_while_it_can() {
    let (_origins, port) = origins(&["[::1]"]);
    let dns = Dnsmasq::knowing(&["127.0.0.1 app.test", "::1 app.test"]);
    let endpoint = |prefer: &str| format!("{{ dns: \"app.test:{port}\", prefer: {prefer} }}");
    let mut proxy = Proxy::start(&yaml(&dns.address(), &endpoint("v6"), ""));
    assert_eq!(places(&proxy, 4), ["::1"; 4]);
    proxy.change(&yaml(&dns.address(), &endpoint("v4"), ""));
    assert_eq!(places(&proxy, 4), ["127.0.0.1"; 4]);
}

#[test]
fn a_family_that_is_dead_costs_no_request() {
    // Nothing listens at ::1.
    let (_origins, port) = origins(&[]);
    let dns = Dnsmasq::knowing(&["127.0.0.1 app.test", "::1 app.test"]);
    let endpoint = format!("{{ dns: \"app.test:{port}\", prefer: v6 }}");
    let proxy = Proxy::start(&yaml(&dns.address(), &endpoint, ", retry: { retries: 0 }"));
    has(&proxy, &["127.0.0.1", "[::1]"], port);
    assert_eq!(places(&proxy, 6), ["127.0.0.1"; 6]);
}

#[test]
fn names_are_what_tls_and_host_ask_for() {
    let (tree, files) = (Tree::new(), Tree::new());
    let authority = Certificates::new(&files);
    authority.sign("server", &["app.test"]);
    for file in ["server.pem", "server.key"] {
        tree.write(file, std::fs::read(authority.file(file)).unwrap());
    }
    let port = free_port();
    let server = format!(
        "ssl_certificate {0}/server.pem; ssl_certificate_key {0}/server.key; location / {{ return 200 \"$ssl_server_name $http_host\"; }}",
        tree.path("").display()
    );
    let _origin = Nginx::start(tree, port, "ssl", &server);
    let record = format!("srv-host=_https._tcp.test,app.test,{port}");
    let dns = Dnsmasq::with(&["127.0.0.1 app.test"], &[&record]);
    let tls = format!(", tls: {{ ca: {} }}", authority.ca());
    let text = |endpoint: &str| {
        yaml(&dns.address(), endpoint, &tls)
            .replace("upstream: app }", "upstream: app, host_header: upstream }")
    };
    let mut proxy = Proxy::start(&text(&format!("app.test:{port}")));
    assert_eq!(proxy.client().get("/").text(), format!("app.test app.test:{port}"));
    proxy.change(&text("{ srv: _https._tcp.test }"));
    assert_eq!(proxy.client().get("/").text(), format!("app.test app.test:{port}"));
}

#[test]
fn health_is_watched_of_what_is_found() {
    let (_origins, port) = origins(&["127.0.0.2"]);
    let dns = Dnsmasq::knowing(&["127.0.0.1 app.test"]);
    let health = ", health: { tcp: {}, interval: 100ms, unhealthy_after: 1, healthy_after: 1 }";
    let proxy = Proxy::start(&yaml(&dns.address(), &format!("app.test:{port}"), health));
    has(&proxy, &["127.0.0.1"], port);
    // Nothing listens at 127.0.0.9.
    dns.know(&["127.0.0.1 app.test", "127.0.0.2 app.test", "127.0.0.9 app.test"]);
    until("the new one is known to be down", || {
        let status = proxy.status();
        let list = status["upstreams"][0]["endpoints"].as_array().cloned().unwrap_or_default();
        list.len() == 3
            && list.iter().all(|own| {
                (own["healthy"] == false) == own["address"].as_str().unwrap().starts_with("127.0.0.9")
            })
    });
    assert_eq!(proxy.status()["tasks"]["health"], 3);
    assert!(!places(&proxy, 6).contains(&"127.0.0.9".to_owned()));
    dns.know(&["127.0.0.1 app.test"]);
    has(&proxy, &["127.0.0.1"], port);
    until("their checks have ended", || proxy.status()["tasks"]["health"] == 1);
}

/// The address is denied when it is found, and would be again at each connect.
#[test]
fn a_tenants_name_leads_to_no_denied_address() {
    let (_origins, port) = origins(&["127.0.0.2"]);
    let dns = Dnsmasq::knowing(&["127.0.0.1 app.test", "127.0.0.2 app.test", "169.254.169.254 app.test"]);
    let tree = Tree::new();
    tree.write(
        "site.yaml",
        config(
            "upstreams: { up: { endpoints: [\"app.test:PORT\"] } }\n\
             hosts: { www: { names: [\"*\"], routes: { all: { path: \"/**\", proxy: { upstream: up } } } } }\n",
            &[("PORT", &port)],
        ),
    );
    let main = config(
        r#"
include: { files: site.yaml, tenant: acme, hosts: ["*"], allow_upstreams: [127.0.0.2] }
resolvers: ["DNS"]
listeners: { web: { bind: "127.0.0.1:0" } }
tenants: { acme: {} }
"#,
        &[("DNS", &dns.address())],
    );
    let proxy = Proxy::start_in(tree, &main);
    has(&proxy, &["127.0.0.2"], port);
    assert_eq!(places(&proxy, 4), ["127.0.0.2"; 4]);
    let denied = proxy.status()["upstreams"][0]["denied"].clone();
    assert_eq!(denied.as_array().map(Vec::len), Some(2), "{denied}");
    assert!(denied.to_string().contains("are always denied to delegated files"), "{denied}");
    assert!(proxy.log().contains("endpoint discovery found an address that is denied"), "{}", proxy.log());

    // All that is found is denied: then there is no endpoint.
    dns.know(&["127.0.0.1 app.test"]);
    has(&proxy, &[], port);
    assert_eq!(proxy.client().get("/none").status, 503);
}

#[test]
fn forward_targets_are_found_by_the_same_servers() {
    let (_origins, port) = origins(&[]);
    let dns = Dnsmasq::knowing(&["127.0.0.1 app.test"]);
    let text = config(
        r#"
resolvers: ["DNS"]
listeners: { web: { bind: "127.0.0.1:0" } }
hosts: { any: { names: ["*"], routes: { out: { path: "/**", forward: { targets: ["app.test:PORT"], deny: [] } } } } }
"#,
        &[("DNS", &dns.address()), ("PORT", &port)],
    );
    let proxy = Proxy::start(&text);
    let mut client = proxy.client();
    client.send(format!("GET http://app.test:{port}/ HTTP/1.1\r\nHost: app.test:{port}\r\n\r\n"));
    assert_eq!(client.response().text(), format!("127.0.0.1 app.test:{port}"));
}
