//! Traces, as a collector sees them that speaks OpenTelemetry's own protocol, and as upstreams are told of them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::support::{Held, Origin, Proxy, Python, config, curl, free_port, to, until, within};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

pub struct Collector {
    _python: Python,
    pub grpc: u16,
    pub http: u16,
}

impl Collector {
    pub fn start() -> Self {
        Self::at(0, 0)
    }

    fn at(grpc: u16, http: u16) -> Self {
        let ports = [grpc, http].map(|port| port.to_string());
        let mut python = Python::run(include_str!("support/collector.py"), &[&ports[0], &ports[1]]);
        let mut port = || python.line().parse().expect("a port");
        let (grpc, http) = (port(), port());
        Self { _python: python, grpc, http }
    }

    /// Tells it something.
    fn tell(&self, what: &str) -> Vec<Value> {
        let run = curl(&[&format!("http://127.0.0.1:{}/{what}", self.http)]);
        serde_json::from_str(&run.stdout).expect("a list of spans")
    }

    fn spans(&self) -> Vec<Value> {
        self.tell("spans")
    }

    /// The spans, once there are so many.
    #[track_caller]
    pub fn wait(&self, count: usize) -> Vec<Value> {
        until("the spans", || self.spans().len() >= count);
        let spans = self.spans();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }

    fn url(&self) -> String {
        format!("otlp: \"http://127.0.0.1:{}\"", self.grpc)
    }
}

/// A proxy that traces like this and sends everything to these endpoints.
fn tracing(settings: &str, endpoints: &[&dyn std::fmt::Display]) -> String {
    format!("tracing: {{ {settings} }}\n{}", to(endpoints))
}

fn get(proxy: &Proxy, path: &str, fields: &str) -> u16 {
    proxy.client().send(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")).response().status
}

fn traceparent(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-{flags}\r\n")
}

fn of_kind<'s>(spans: &'s [Value], kind: &str) -> Vec<&'s Value> {
    spans.iter().filter(|span| span["kind"] == kind).collect()
}

const ALL: &str = r#"
tracing: { TRACING }
listeners: { web: { bind: "127.0.0.1:0" } }
tenants: { acme: {} }
upstreams:
  app: { endpoints: ["127.0.0.1:GONE", "ORIGIN"], retry: { retries: 1 } }
  auth: { endpoints: ["AUTH"] }
hosts:
  www:
    names: ["*"]
    tenant: acme
    middleware: [request_id: {}]
    routes:
      api:
        path: "/api/{rest...}"
        middleware:
          - forward_auth: { upstream: auth }
          - api_key: { keys: { a: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b }, from: "query:key" }
        proxy: { upstream: app }
      gone: { path: /gone, respond: { status: 410 } }
      broken: { path: /broken, respond: { status: 503 } }
"#;

#[test]
fn an_attempt_at_a_target_is_one_at_an_address() {
    let (collector, origin) = (Collector::start(), Origin::saying("hello"));
    let target = origin.address();
    let yaml = r#"
tracing: { TRACING }
listeners: { web: { bind: "127.0.0.1:0" } }
hosts: { any: { names: ["*"], routes: { out: { path: "/**", forward: { targets: ["TARGET"] } } } } }
"#;
    let proxy = Proxy::start(&config(yaml, &[("TRACING", &collector.url()), ("TARGET", &target)]));
    let request = format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n");
    assert_eq!(proxy.client().send(request).response().status, 200);
    let spans = collector.wait(2);
    let (server, attempt) = (of_kind(&spans, "server")[0], of_kind(&spans, "client")[0]);
    assert_eq!((&server["name"], &attempt["name"]), (&"GET out".into(), &"GET".into()));
    let said = &attempt["attributes"];
    assert_eq!(said["portolan.endpoint"], target.to_string());
    assert_eq!((&said["server.port"], said.get("portolan.upstream")), (&target.port().into(), None));
    let parent = origin.request().field("traceparent").unwrap().to_owned();
    assert!(parent.contains(attempt["span"].as_str().unwrap()), "{parent}: {attempt}");
}

#[test]
fn a_request_its_waits_and_its_attempts_are_one_trace() {
    let (collector, origin, auth) = (Collector::start(), Origin::saying("hello"), Origin::saying(""));
    let words: [(&str, &dyn std::fmt::Display); 4] = [
        ("TRACING", &collector.url()),
        ("ORIGIN", &origin.address()),
        ("AUTH", &auth.address()),
        ("GONE", &free_port()),
    ];
    let proxy = Proxy::start(&config(ALL, &words));
    // Of two endpoints one is gone: at least one of two requests is tried twice.
    let fields = format!("{}tracestate: a=b\r\ntracestate: c=d\r\nUser-Agent: test/1\r\n", traceparent("01"));
    for _ in 0..2 {
        assert_eq!(get(&proxy, "/api/x?key=secret&y=z", &fields), 200);
    }
    until("both requests", || of_kind(&collector.spans(), "server").len() == 2);
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span["trace"] == TRACE && span["state"] == "a=b,c=d"));
    assert!(
        spans.iter().all(|span| span["protocol"] == "grpc" && span["resource"]["service.name"] == "portolan")
    );
    assert!(!serde_json::to_string(&spans).unwrap().contains("secret"));
    let ids: BTreeSet<_> = spans.iter().map(|span| span["span"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), spans.len());

    let servers = of_kind(&spans, "server");
    assert_eq!(servers.len(), 2);
    for server in &servers {
        // Bits 8 and 9 say that it is known, and so, that the parent is on another machine.
        assert_eq!(
            (&server["name"], &server["parent"], &server["flags"]),
            (&"GET api".into(), &PARENT.into(), &0x301.into())
        );
        let said = &server["attributes"];
        for (key, value) in [
            ("http.request.method", Value::from("GET")),
            ("http.route", "api".into()),
            ("http.response.status_code", 200.into()),
            ("url.path", "/api/x".into()),
            ("url.query", "key=***&y=z".into()),
            ("url.scheme", "http".into()),
            ("server.address", "a.example".into()),
            ("client.address", "127.0.0.1".into()),
            ("network.protocol.version", "1.1".into()),
            ("user_agent.original", "test/1".into()),
            ("portolan.listener", "web".into()),
            ("portolan.host", "www".into()),
            ("portolan.tenant", "acme".into()),
            ("portolan.upstream", "app".into()),
            ("error.type", Value::Null),
            ("portolan.reason", Value::Null),
        ] {
            assert_eq!(said.get(key).unwrap_or(&Value::Null), &value, "{key}");
        }
        assert_eq!(server["failed"], false);
        let inside = |span: &&&Value| {
            span["parent"] == server["span"]
                && span["start"].as_u64() >= server["start"].as_u64()
                && span["end"].as_u64() <= server["end"].as_u64()
        };
        let waits = of_kind(&spans, "internal");
        assert_eq!(waits.iter().filter(inside).count(), 1);
        assert!(waits.iter().all(|wait| wait["name"] == "forward_auth" && wait["failed"] == false));
        let attempts = of_kind(&spans, "client");
        assert!(attempts.iter().filter(inside).count() >= 1);
        let found = auth.requests().iter().any(|request| {
            request.field("traceparent").unwrap()
                == format!("00-{TRACE}-{}-01", server["span"].as_str().unwrap())
        });
        assert!(found, "the service is told that the request asks it");
    }
    let (failed, answered): (Vec<&Value>, Vec<&Value>) =
        of_kind(&spans, "client").into_iter().partition(|span| span["failed"] == true);
    assert!(!failed.is_empty() && answered.len() == 2 && spans.len() == 6 + failed.len());
    for attempt in &failed {
        assert_eq!(attempt["attributes"]["error.type"], "connect_refused");
        assert_eq!(attempt["attributes"].get("http.response.status_code"), None);
        let retry =
            answered.iter().find(|span| span["parent"] == attempt["parent"]).expect("it is tried again");
        assert_eq!(retry["attributes"]["http.request.resend_count"], 1);
        assert!(retry["start"].as_u64() >= attempt["end"].as_u64());
    }
    for (span, request) in answered.iter().zip(origin.requests()) {
        assert_eq!(span["name"], "GET app");
        assert_eq!(span["attributes"]["http.response.status_code"], 200);
        assert_eq!(span["attributes"]["portolan.endpoint"], origin.address().to_string());
        assert_eq!(span["attributes"]["server.port"], origin.address().port());
        let told = format!("00-{TRACE}-{}-01", span["span"].as_str().unwrap());
        assert_eq!(request.field("traceparent"), Some(told.as_str()));
        assert_eq!(request.values("tracestate"), ["a=b", "c=d"]);
    }
    assert_eq!(proxy.access_line_of("/api/x")["trace_id"], TRACE);
    assert_eq!(proxy.metric("portolan_spans_exported_total"), Some(spans.len() as f64));
}

#[test]
fn what_went_wrong_is_said_and_by_whose_fault() {
    let (collector, auth) =
        (Collector::start(), Origin::replying(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"));
    let settings = format!(
        "otlp: \"http://127.0.0.1:{}/custom/path\", service_name: edge, headers: {{ Authorization: \"Bearer s3cret\" }}",
        collector.http
    );
    let words: [(&str, &dyn std::fmt::Display); 4] = [
        ("TRACING", &settings),
        ("ORIGIN", &auth.address()),
        ("AUTH", &auth.address()),
        ("GONE", &free_port()),
    ];
    let proxy = Proxy::start(&config(ALL, &words));
    for (path, status) in [("/api/a", 403), ("/gone", 410), ("/broken", 503), ("/nowhere", 404)] {
        assert_eq!(get(&proxy, path, ""), status);
    }
    let odd = "BREW /gone HTTP/1.1\r\nHost: a\r\nUser-Agent: \u{e9}\r\n\r\n";
    assert_eq!(proxy.client().send(odd).response().status, 410);
    assert_eq!(proxy.client().send("GET / HTTP/1.1\r\n\r\n").response().status, 400);
    curl(&["--http2-prior-knowledge", &proxy.url("web", "/h2")]);
    let spans = collector.wait(8);
    for span in &spans {
        assert_eq!((&span["protocol"], &span["fields"]["path"]), (&"http".into(), &"/custom/path".into()));
        assert_eq!(span["fields"]["authorization"], "Bearer s3cret");
        assert_eq!(span["resource"]["service.name"], "edge");
    }
    let said = |path: &str, method: &str| {
        let of = |span: &&Value| {
            let said = &span["attributes"];
            span["kind"] == "server" && said["url.path"] == path && said["http.request.method"] == method
        };
        spans.iter().find(of).cloned().unwrap_or_else(|| panic!("{method} {path} in {spans:#?}"))
    };
    let refused = said("/api/a", "GET");
    assert_eq!(
        (&refused["failed"], &refused["attributes"]["portolan.reason"]),
        (&false.into(), &"forbidden".into())
    );
    let wait = of_kind(&spans, "internal")[0];
    assert_eq!(
        (&wait["parent"], &wait["attributes"]["portolan.reason"]),
        (&refused["span"], &"forbidden".into())
    );
    assert_eq!(said("/gone", "GET")["failed"], false);
    let broken = said("/broken", "GET");
    assert_eq!((&broken["failed"], &broken["attributes"]["error.type"]), (&true.into(), &"503".into()));
    let nowhere = said("/nowhere", "GET");
    assert_eq!(nowhere["attributes"]["portolan.reason"], "no_route");
    let odd = said("/gone", "_OTHER");
    assert_eq!(
        (&odd["name"], &odd["attributes"]["http.request.method_original"]),
        (&"HTTP gone".into(), &"BREW".into())
    );
    assert_eq!(said("/h2", "GET")["attributes"]["network.protocol.version"], "2");
    assert!(spans.iter().all(|span| span["parent"] == "" || span["kind"] == "internal"));
    assert!(!proxy.log().contains("s3cret"));
}

#[test]
fn an_attempt_that_is_cut_short_says_why() {
    let (collector, held) = (Collector::start(), Held::new());
    let yaml = tracing(&collector.url(), &[&held.origin.address()]);
    let proxy =
        Proxy::start(&yaml.replace("listeners:", "defaults: { timeouts: { total: 400ms } }\nlisteners:"));
    let hold = held.hold();
    let mut gone = proxy.client();
    gone.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    until("it is on its way", || held.origin.connections() == 1);
    drop(gone);
    assert_eq!(get(&proxy, "/late", ""), 504);
    drop(hold);
    let spans = collector.wait(4);
    let attempts: BTreeSet<_> = of_kind(&spans, "client")
        .iter()
        .map(|span| (span["attributes"]["error.type"].as_str(), span["failed"] == true))
        .collect();
    assert_eq!(attempts, [(Some("client_gone"), true), (Some("total_timeout"), true)].into());
}

#[test]
fn who_began_a_trace_decides_whether_it_is_recorded() {
    let (collector, origin) = (Collector::start(), Origin::saying(""));
    let proxy = Proxy::start(&tracing(&format!("{}, sample: 0%", collector.url()), &[&origin.address()]));
    assert_eq!(get(&proxy, "/recorded", &traceparent("01")), 200);
    assert_eq!(get(&proxy, "/not", &traceparent("00")), 200);
    assert_eq!(get(&proxy, "/root", ""), 200);
    let wrong = format!("{}{}tracestate: a=b\r\n", traceparent("01"), traceparent("01"));
    assert_eq!(get(&proxy, "/wrong", &wrong), 200);
    let told: Vec<_> = origin.requests().iter().map(|r| r.field("traceparent").unwrap().to_owned()).collect();
    let of_given = |told: &str| told.starts_with(&format!("00-{TRACE}-")) && !told.contains(PARENT);
    assert!(of_given(&told[0]) && told[0].ends_with("-01"));
    assert!(of_given(&told[1]) && told[1].ends_with("-00"));
    for told in &told[2..] {
        assert!(!told.contains(TRACE) && told.ends_with("-00"), "{told}");
    }
    assert_eq!(origin.requests()[3].field("tracestate"), None, "it belongs to what was not taken");
    assert_eq!(proxy.access_line_of("/not")["trace_id"], TRACE);
    assert_eq!(proxy.access_line_of("/root")["trace_id"], told[2][3..35]);
    let spans = collector.wait(2);
    assert!(
        spans.iter().all(|span| span["attributes"].get("url.path").is_none_or(|path| path == "/recorded"))
    );
}

#[test]
fn a_share_of_what_begins_here_is_recorded_and_nothing_of_others_is_believed() {
    let (collector, origin) = (Collector::start(), Origin::saying(""));
    let settings = format!("{}, sample: 30%, trust: false", collector.url());
    let yaml = format!(
        "access_log: {{ format: \"{{trace_id}}\", to: log }}\n{}",
        tracing(&settings, &[&origin.address()])
    );
    let mut proxy = Proxy::start(&yaml);
    let mut client = proxy.client();
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{}tracestate: a=b\r\n\r\n", traceparent("01"));
    (0..400).for_each(|_| drop(client.send(&request).response()));
    drop(client);
    proxy.signal("TERM");
    assert!(proxy.ended().success());
    let spans = collector.spans();
    let recorded: BTreeSet<_> = spans.iter().map(|span| span["trace"].as_str().unwrap().to_owned()).collect();
    assert!((60..180).contains(&recorded.len()), "{}", recorded.len());
    assert_eq!(spans.len(), recorded.len() * 2);
    assert!(!recorded.contains(TRACE) && spans.iter().all(|span| span["state"] == ""));
    let log = proxy.tree().read("log");
    let all: BTreeSet<_> = log.lines().map(str::to_owned).collect();
    assert!(all.len() == 400 && recorded.is_subset(&all));
    for request in origin.requests() {
        let told = request.field("traceparent").unwrap();
        assert_eq!(told.ends_with("-01"), recorded.contains(&told[3..35]), "{told}");
        assert_eq!(request.field("tracestate"), None);
    }
}

#[test]
fn without_tracing_fields_pass_as_they_came() {
    let origin = Origin::saying("");
    let proxy = Proxy::before(&origin);
    assert_eq!(get(&proxy, "/a", "traceparent: nonsense\r\n"), 200);
    assert_eq!(origin.request().field("traceparent"), Some("nonsense"));
    assert_eq!(proxy.access_line_of("/a").get("trace_id"), None);
}

#[test]
fn a_collector_that_is_gone_costs_spans_and_no_request() {
    let (grpc, http) = (free_port(), free_port());
    let local = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: ok } } } } }
"#;
    let proxy = Proxy::start(&format!("tracing: {{ otlp: \"http://127.0.0.1:{grpc}\" }}\n{local}"));
    let mut client = proxy.client();
    let began = Instant::now();
    (0..3000).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    until("it is said", || proxy.log().contains("spans cannot be sent"));
    let dropped = || proxy.metric("portolan_spans_dropped_total{cause=\"queue_full\"}").unwrap();
    assert!((1.0..1000.0).contains(&dropped()), "{}", dropped());

    // It comes, and what waited is not lost.
    let collector = Collector::at(grpc, http);
    let kept = 3000 - dropped() as usize;
    within(Duration::from_secs(60), "what has waited", || (collector.spans().len() >= kept).then_some(()));
    until("it is said", || proxy.log().contains("spans are sent again"));
    assert_eq!(proxy.log().matches("spans cannot be sent").count(), 1, "{}", proxy.log());
    assert_eq!(collector.spans().len(), kept);
}

#[test]
fn what_a_collector_refuses_is_not_sent_again_and_one_that_is_silent_does_not_keep_the_process() {
    let (collector, origin) = (Collector::start(), Origin::saying(""));
    collector.tell("answer?grpc=UNAUTHENTICATED");
    let mut proxy =
        Proxy::start(&tracing(&format!("{}, timeout: 200ms", collector.url()), &[&origin.address()]));
    get(&proxy, "/", "");
    let refused = "portolan_spans_dropped_total{cause=\"not_taken\"}";
    until("it is counted", || proxy.metric(refused) == Some(2.0));
    assert!(proxy.log().contains("its gRPC status is UNAUTHENTICATED (16)"), "{}", proxy.log());
    collector.tell("answer?");
    get(&proxy, "/", "");
    collector.wait(2);

    collector.tell("wait?1");
    get(&proxy, "/", "");
    proxy.signal("TERM");
    let began = Instant::now();
    assert!(proxy.ended().success());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    collector.tell("wait?0");
}

#[test]
fn what_is_queued_outlives_reloads_and_the_end() {
    let (one, two, origin) = (Collector::start(), Collector::start(), Origin::saying(""));
    one.tell("answer?grpc=UNAVAILABLE");
    let mut proxy = Proxy::start(&tracing(&one.url(), &[&origin.address()]));

    (0..3).for_each(|n| assert_eq!(get(&proxy, &format!("/one/{n}"), ""), 200));
    until("it is said", || proxy.log().contains("spans cannot be sent"));
    proxy.change(&tracing(&two.url(), &[&origin.address()]));
    (0..3).for_each(|n| assert_eq!(get(&proxy, &format!("/two/{n}"), ""), 200));
    two.wait(6);
    // The first had its last chance: it did not take it, and its task is gone.
    until("one task", || proxy.metric("portolan_tasks{kind=\"spans\"}") == Some(1.0));
    until("its spans are counted", || {
        proxy.metric("portolan_spans_dropped_total{cause=\"not_taken\"}") == Some(6.0)
    });

    get(&proxy, "/last", "");
    proxy.change(&to(&[&origin.address()]));
    get(&proxy, "/off", "");
    let spans = two.wait(8);
    assert!(spans.iter().any(|span| span["attributes"]["url.path"] == "/last"));
    until("no task", || proxy.metric("portolan_tasks{kind=\"spans\"}") == Some(0.0));

    proxy.change(&tracing(&two.url(), &[&origin.address()]));
    get(&proxy, "/end", "");
    proxy.signal("TERM");
    assert!(proxy.ended().success());
    assert_eq!(two.spans().len(), 10);
}

#[test]
fn reloads_leave_no_tasks_and_no_threads_behind() {
    let (collector, origin) = (Collector::start(), Origin::saying(""));
    let mut proxy = Proxy::start(&tracing(&collector.url(), &[&origin.address()]));
    get(&proxy, "/", "");
    collector.wait(2);
    let before = proxy.threads();
    for n in 0..20 {
        let settings = format!("{}, sample: {}%, service_name: s{}", collector.url(), n + 1, n % 3);
        proxy.change(&tracing(&settings, &[&origin.address()]));
        get(&proxy, "/", &traceparent("01"));
    }
    collector.wait(42);
    until("one task", || proxy.metric("portolan_tasks{kind=\"spans\"}") == Some(1.0));
    // Threads for blocking work come and go.
    until("as many threads", || proxy.threads() <= before + 1);
}
