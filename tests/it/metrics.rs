//! Metrics: what they say of traffic, that their series are bounded by the configuration, and that another's
//! parser reads them.

use std::{collections::BTreeSet, fs, path::Path};

use portolan::telemetry::metrics::{Metric, TABLE};

use super::support::{
    Certificates, Client, DEADLINE, Origin, Proxy, Python, Reply, Tree, config, free_port, until, within,
};

const YAML: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { endpoints: ["ORIGIN", "127.0.0.1:GONE"] } }
tenants: { acme: {} }
hosts:
  www:
    names: [www.example]
    tenant: acme
    routes:
      api: { path: "/api/**", proxy: { upstream: app }, middleware: [{ body_limit: { size: 4B } }] }
      page: { path: "/page/{name}", respond: { body: hello }, middleware: [{ concurrency: { max: 1000 } }] }
"#;

/// Labels as they are shown, of requests to a route of the host.
fn labels(route: &str) -> String {
    format!("host=\"www\",listener=\"web\",route=\"{route}\",tenant=\"acme\"")
}

fn requests(class: &str, reason: &str, route: &str) -> String {
    format!(
        "portolan_requests_total{{class=\"{class}\",host=\"www\",listener=\"web\",reason=\"{reason}\",route=\"{route}\",tenant=\"acme\"}}"
    )
}

fn get(client: &mut Client, host: &str, path: &str) -> u16 {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    client.response().status
}

#[test]
fn what_is_counted_is_what_was_done_and_a_reload_goes_on_counting() {
    let origin = Origin::saying("hello");
    let yaml = config(YAML, &[("ORIGIN", &origin.address()), ("GONE", &free_port())]);
    let mut proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    for _ in 0..4 {
        assert_eq!(get(&mut client, "www.example", "/api/1"), 200);
    }
    assert_eq!(get(&mut client, "www.example", "/nothing"), 404);
    client.send("POST /api/1 HTTP/1.1\r\nHost: www.example\r\nContent-Length: 5\r\n\r\n12345");
    assert_eq!(client.response().status, 413);

    until("all are counted", || proxy.metric(&requests("4xx", "body_too_large", "api")) == Some(1.0));
    let of =
        |series: &str| proxy.metric(series).unwrap_or_else(|| panic!("{series} in\n{}", proxy.metrics()));
    assert_eq!(of(&requests("2xx", "", "api")), 4.0);
    assert_eq!(of(&requests("4xx", "no_route", "unmatched")), 1.0);
    assert_eq!(of(&format!("portolan_request_duration_seconds_count{{{}}}", labels("api"))), 5.0);
    assert!(of(&format!("portolan_sent_bytes_total{{{}}}", labels("api"))) >= 20.0);
    assert_eq!(of(&format!("portolan_requests_in_flight{{{}}}", labels("api"))), 0.0);
    assert_eq!(of("portolan_middleware_decisions_total{decision=\"refused\",kind=\"body_limit\"}"), 1.0);
    assert_eq!(of("portolan_connections_total{listener=\"web\",protocol=\"h1\"}"), 1.0);
    assert_eq!(of("portolan_upstream_requests_total{upstream=\"app\"}"), 4.0);
    let endpoint = format!("endpoint=\"{}\",upstream=\"app\"", origin.address());
    assert_eq!(of(&format!("portolan_upstream_first_byte_seconds_count{{{endpoint}}}")), 4.0);
    assert_eq!(of(&format!("portolan_upstream_responses_total{{class=\"2xx\",{endpoint}}}")), 4.0);
    assert_eq!(of(&format!("portolan_upstream_received_bytes_total{{{endpoint}}}")), 4.0 * 5.0);
    assert_eq!(of(&format!("portolan_upstream_sent_bytes_total{{{endpoint}}}")), 0.0);
    let text = proxy.metrics();
    let failed: f64 = text
        .lines()
        .filter(|line| line.starts_with("portolan_upstream_connect_failures_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(failed >= 1.0, "{text}");
    assert_eq!(of("portolan_configuration_generation"), 1.0);

    // The same, without the page: what stays goes on, what left is gone once it was shown.
    assert_eq!(get(&mut proxy.client(), "www.example", "/page/a"), 200);
    until("the page is counted", || proxy.metric(&requests("2xx", "", "page")) == Some(1.0));
    let page = yaml.lines().filter(|line| !line.trim_start().starts_with("page:")).collect::<Vec<_>>();
    proxy.change(&(page.join("\n") + "\n"));
    assert_eq!(get(&mut proxy.client(), "www.example", "/api/1"), 200);
    until("it goes on", || proxy.metric(&requests("2xx", "", "api")) == Some(5.0));
    until("the page is gone", || proxy.metric(&requests("2xx", "", "page")).is_none());
    assert_eq!(proxy.metric("portolan_reloads_total{result=\"applied\"}"), Some(2.0));
}

#[test]
fn bodies_are_counted_by_endpoint() {
    let origin = Origin::serving(|exchange| {
        let body = exchange.request.body.clone();
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            2 * body.len()
        ));
        exchange.send([body.clone(), body].concat());
        Reply::Keep
    });
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    middleware: [{ compress: {} }]
    routes:
      held: { path: /held, proxy: { upstream: app }, middleware: [{ buffer: {} }] }
      all: { path: "/**", proxy: { upstream: app } }
"#;
    let proxy = Proxy::start(&config(yaml, &[("ORIGIN", &origin.address())]));
    let mut client = proxy.client();
    let body = "x".repeat(4000);
    // Streamed, with trailers allowed, held before an endpoint is taken, and coded on its way to the client.
    for (path, field) in [
        ("/", "X: y"),
        ("/", "TE: trailers\r\nConnection: TE"),
        ("/held", "X: y"),
        ("/", "Accept-Encoding: gzip"),
    ] {
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\n{field}\r\nContent-Length: 4000\r\n\r\n{body}"
        ));
        assert_eq!(client.response().status, 200);
    }
    let of = |what: &str| {
        let labels = format!("endpoint=\"{}\",upstream=\"app\"", origin.address());
        proxy.metric(&format!("portolan_upstream_{what}_bytes_total{{{labels}}}"))
    };
    until("all bytes are counted", || of("sent") == Some(16_000.0) && of("received") == Some(32_000.0));
}

/// Numbers that look like chance and are the same each time.
fn words() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(0x9e37_79b9_7f4a_7c15_u64), |x| {
        let x = x ^ (x << 13);
        let x = x ^ (x >> 7);
        Some(x ^ (x << 17))
    })
}

#[test]
fn what_clients_send_makes_no_series() {
    let origin = Origin::saying("hello");
    let yaml = config(YAML, &[("ORIGIN", &origin.address()), ("GONE", &free_port())]);
    let proxy = Proxy::start(&yaml);
    let series = || -> BTreeSet<String> {
        let text = proxy.metrics();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    };
    let round = |client: &mut Client, word: u64| {
        // A known host with a known path, an unknown path, and an unknown host.
        assert_eq!(get(client, "www.example", &format!("/page/{word:x}?q={word}")), 200);
        assert_eq!(get(client, "www.example", &format!("/{word:x}")), 404);
        assert_eq!(get(client, &format!("h{word:x}.example"), &format!("/page/{word:x}")), 404);
    };
    let mut client = proxy.client();
    round(&mut client, 1);
    let counted = || proxy.metric(&requests("2xx", "", "page"));
    let all_kinds = || series().iter().any(|sample| sample.contains("no_host"));
    until("the first are counted", || counted() == Some(1.0) && all_kinds());
    let before = series();
    for (place, word) in words().take(3334).enumerate() {
        if place % 1000 == 0 {
            // A connection has its limit of requests.
            client = proxy.client();
        }
        round(&mut client, word);
    }
    until("all are counted", || counted() == Some(3335.0));
    let after = series();
    let other: Vec<_> = after.symmetric_difference(&before).collect();
    assert!(other.is_empty(), "10,000 requests later: {other:?}");
}

#[test]
fn handshakes_and_refusals_are_counted_by_listener() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("a", &["a.test"]);
    let proxy = Proxy::start_in(
        tree,
        r#"
certificates: { a: { cert: a.pem, key: a.key } }
listeners:
  web: { bind: "127.0.0.1:0", limits: { connections: 1 } }
  secure: { bind: "127.0.0.1:0", tls: { certificates: [a] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: {} } } } }
"#,
    );
    let _secure = Client::tls(proxy.port("secure"), "a.test", certificates.client(&["h2"])).unwrap();
    let mut clear = Client::tcp(proxy.port("secure"));
    clear.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(clear.is_closed());
    let mut first = proxy.client();
    assert_eq!(first.get("/").status, 200);
    assert!(proxy.client().is_closed());
    for series in [
        "portolan_tls_handshakes_total{listener=\"secure\",outcome=\"ok\",version=\"TLSv1.3\"}",
        "portolan_tls_handshakes_total{listener=\"secure\",outcome=\"failed\",version=\"\"}",
        "portolan_connections_open{listener=\"secure\",protocol=\"h2\"}",
        "portolan_connections_open{listener=\"web\",protocol=\"h1\"}",
        "portolan_connections_refused_total{limit=\"connections\",listener=\"web\"}",
    ] {
        until(series, || proxy.metric(series) == Some(1.0));
    }
}

const READ: &str = r#"
import sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(open(sys.argv[1]).read()):
    print(family.name, family.type, bool(family.documentation), len(family.samples))
"#;

#[test]
fn the_parser_of_prometheus_client_reads_them_all() {
    let origin = Origin::saying("hello");
    let yaml = config(YAML, &[("ORIGIN", &origin.address()), ("GONE", &free_port())]);
    let proxy = Proxy::start(&(yaml + "metrics: { path: /m }\nredis: { url: \"redis://127.0.0.1:1\" }\n"));
    let mut client = proxy.client();
    assert_eq!(get(&mut client, "www.example", "/api/1"), 200);
    assert_eq!(proxy.admin().get("/metrics").status, 404);
    let mut admin = proxy.admin();
    // A request is counted when it is over, which its client may see first.
    let response = within(DEADLINE, "the request is counted", || {
        let response = admin.get("/m");
        response.text().contains("portolan_requests_total{").then_some(response)
    });
    assert!(
        response.field("content-type").is_some_and(|value| value.starts_with("text/plain; version=0.0.4"))
    );
    let file = proxy.tree().write("metrics.txt", response.text());
    let read = Python::run(READ, &[&file.to_string_lossy()]).finish();
    let found: BTreeSet<&str> = read.lines().collect();
    let mut seen = BTreeSet::new();
    for line in &found {
        let mut words = line.split(' ');
        let (name, kind) = (words.next().unwrap(), words.next().unwrap());
        let metric = metric_of(name).unwrap_or_else(|| panic!("{line} is not in the table"));
        assert_eq!((metric.kind, words.next()), (kind, Some("True")), "{line}");
        seen.insert(metric.name);
    }
    let missing: Vec<_> =
        TABLE.iter().map(|metric| metric.name).filter(|name| !seen.contains(name)).collect();
    assert!(missing.iter().all(|name| MAY_BE_WITHOUT_SERIES.contains(name)), "{missing:?}");
}

/// Of what the tree has none, and what needs something to happen first.
const MAY_BE_WITHOUT_SERIES: &[&str] = &[
    "portolan_certificate_expiry_timestamp_seconds",
    "portolan_delegated_state",
    "portolan_mirror_dropped_total",
    "portolan_mirror_failed_total",
    "portolan_mirror_sent_total",
    "portolan_redis_up",
    "portolan_split_canary_state",
    "portolan_split_canary_step_backs_total",
    "portolan_split_requests_total",
    "portolan_tasks",
    "portolan_upstream_discovery_endpoints",
    "portolan_upstream_discovery_failures_total",
    "portolan_upstream_discovery_last_success_timestamp_seconds",
];

/// The metric of a name, be it without its _total or with what a histogram adds.
fn metric_of(name: &str) -> Option<&'static Metric> {
    TABLE.iter().find(|metric| {
        let suffixes: &[&str] = match metric.kind {
            "histogram" => &["", "_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let of_histogram = suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(metric.name));
        of_histogram || metric.name.strip_suffix("_total") == Some(name)
    })
}

#[test]
fn the_readme_lists_every_metric() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    for Metric { name, kind, labels, help } in TABLE {
        let row = format!("| `{name}` | {kind} | {} | {help} |", labels.join(", "));
        assert!(readme.lines().any(|line| line == row), "README.md lacks\n{row}");
    }
    let rows =
        readme.lines().filter(|line| line.starts_with("| `portolan_") || line.starts_with("| `process_"));
    assert_eq!(rows.count(), TABLE.len(), "the README lists what there is not");
}

#[test]
fn the_dashboard_and_the_alerts_name_metrics_and_labels_that_exist() {
    // Prometheus adds the instance, histograms have their bounds.
    let theirs = ["instance", "le"];
    let known: BTreeSet<&str> =
        TABLE.iter().flat_map(|metric| metric.labels).copied().chain(theirs).collect();
    for file in ["packaging/grafana/portolan.json", "packaging/prometheus/alerts.yaml"] {
        let text = fs::read_to_string(repository().join(file)).unwrap();
        let mut named = 0;
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if word.starts_with("portolan_") || word.starts_with("process_") {
                assert!(
                    metric_of(word).is_some_and(|metric| metric.name.len() <= word.len()),
                    "{file}: {word}"
                );
                named += 1;
            }
        }
        assert!(named > 5, "{file} names {named} metrics");
        for by in text.split("by (").skip(1).filter_map(|rest| rest.split(')').next()) {
            for label in by.split(',').map(str::trim) {
                assert!(known.contains(label), "{file}: no metric has the label {label}");
            }
        }
    }
    let dashboard = fs::read_to_string(repository().join("packaging/grafana/portolan.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 5));
    let alerts = fs::read_to_string(repository().join("packaging/prometheus/alerts.yaml")).unwrap();
    let alerts: serde_yaml::Value = serde_yaml::from_str(&alerts).expect("YAML");
    let rules = alerts["groups"][0]["rules"].as_sequence().expect("rules");
    for rule in rules {
        for key in ["alert", "expr", "labels", "annotations"] {
            assert!(rule.get(key).is_some(), "{rule:?} lacks {key}");
        }
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
