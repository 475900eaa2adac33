//! A service decides who may pass: one in Python, that we did not write the half of.

use serde_json::Value;

use super::{
    auth::behind,
    support::{Origin, Proxy, Python, config, curl, free_port, until},
};

/// The service, and a token that it takes.
struct Service {
    _python: Python,
    port: u16,
    token: String,
}

impl Service {
    fn start() -> Self {
        let secret = "a-secret-that-is-long-enough-for-every-hash";
        let mut python = Python::run(include_str!("support/auth.py"), &[secret]);
        let port = python.line().parse().expect("its port");
        let token = python.line();
        Self { _python: python, port, token }
    }

    /// What it was asked.
    fn seen(&self) -> Vec<Value> {
        let run = curl(&[&format!("http://127.0.0.1:{}/seen", self.port)]);
        serde_json::from_str(&run.stdout).expect("a list")
    }

    fn last(&self) -> Value {
        self.seen().pop().expect("it was asked")
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// A proxy that asks it.
    fn proxy(&self, settings: &str, origin: &Origin) -> Proxy {
        let yaml =
            behind(&format!("{{ forward_auth: {{ upstream: auth, path: /verify, {settings} }} }}"), origin);
        Proxy::start(&with_auth(&yaml, self.port))
    }
}

fn with_auth(yaml: &str, port: u16) -> String {
    let endpoint = format!("upstreams: {{ auth: {{ endpoints: [\"127.0.0.1:{port}\"] }}, ");
    config(yaml, &[("upstreams: { ", &endpoint)])
}

/// The values of a field that the service saw.
fn fields<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    let all = seen["fields"].as_array().expect("fields");
    all.iter().filter(|field| field[0] == name).map(|field| field[1].as_str().expect("text")).collect()
}

/// The status and the body that curl gets, with these arguments.
fn ask(proxy: &Proxy, path: &str, arguments: &[&str]) -> (String, String) {
    let url = proxy.url("web", path);
    let run = curl(&[&["-w", "\n%{http_code}", "--path-as-is", &url], arguments].concat());
    let (body, status) = run.stdout.rsplit_once('\n').expect("a status");
    (status.to_owned(), body.to_owned())
}

fn status(proxy: &Proxy, path: &str, arguments: &[&str]) -> String {
    ask(proxy, path, arguments).0
}

#[test]
fn who_is_let_in_is_told_on_and_cannot_be_forged() {
    let (service, origin) = (Service::start(), Origin::saying(""));
    let proxy = service.proxy("copy_headers: [X-User, X-Group]", &origin);
    let bearer = service.bearer();
    let forged = ["-H", "X-User: root", "-H", "X_User: root", "-H", "X-Group: root"];
    let sent = ["-H", &bearer, "-H", "Cookie: a=b", "-H", "X-Other: c", "-H", "X-Forwarded-Uri: /public"];
    for _ in 0..3 {
        let arguments = [&["-d", "a body"][..], &sent, &forged].concat();
        assert_eq!(status(&proxy, "/a/./../b?c=d", &arguments), "200");
    }
    for request in origin.requests() {
        assert_eq!((request.values("x-user"), request.values("x-group")), (vec!["ann"], vec!["a", "b"]));
        assert!(request.field("x_user").is_none() && request.field("x-internal").is_none());
        assert_eq!(request.body, b"a body");
    }
    let seen = service.seen();
    let last = seen.last().expect("it was asked");
    assert_eq!((&last["method"], &last["path"]), (&"GET".into(), &"/verify".into()));
    for (name, values) in [
        ("host", vec![format!("127.0.0.1:{}", service.port)]),
        ("authorization", vec![bearer.split_once(' ').expect("a value").1.to_owned()]),
        ("cookie", vec!["a=b".into()]),
        ("x-forwarded-method", vec!["POST".into()]),
        ("x-forwarded-proto", vec!["http".into()]),
        ("x-forwarded-host", vec![format!("127.0.0.1:{}", proxy.port("web"))]),
        ("x-forwarded-uri", vec!["/b?c=d".into()]),
        ("x-forwarded-for", vec!["127.0.0.1".into()]),
        ("x-other", vec![]),
        ("x-user", vec![]),
        ("content-length", vec![]),
        ("content-type", vec![]),
    ] {
        assert_eq!(fields(last, name), values, "{name}");
    }
    assert!(seen.iter().all(|request| request["port"] == last["port"]), "its connection is kept: {seen:?}");
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn an_answer_that_is_no_verdict_is_a_failure() {
    let service = Origin::replying(b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n");
    let origin = Origin::saying("in");
    for (settings, expected) in [("", 502), (", fail_open: true", 200)] {
        let part = format!("{{ forward_auth: {{ upstream: auth, path: / {settings} }} }}");
        let proxy = Proxy::start(&with_auth(&behind(&part, &origin), service.address().port()));
        for protocol in ["--http1.1", "--http2-prior-knowledge"] {
            assert_eq!(status(&proxy, "/in", &[protocol]), expected.to_string(), "{settings} {protocol}");
        }
        assert_eq!(proxy.access_line_of("/in")["cause"], "service_error");
    }
}

#[test]
fn a_refusal_is_the_services_own_and_the_rest_stays_here() {
    let (service, origin) = (Service::start(), Origin::saying(""));
    let proxy = service.proxy("copy_headers: X-User", &origin);
    let response = proxy.client().get("/in");
    assert_eq!((response.status, response.text().as_str()), (401, "{\"why\": \"DecodeError\"}"));
    assert_eq!(response.values("www-authenticate"), ["Bearer realm=\"service\""]);
    assert_eq!(response.values("content-type"), ["application/json"]);
    assert!(response.field("x-internal").is_none());
    let line = proxy.access_line_of("/in");
    assert_eq!((&line["reason"], &line["cause"]), (&"unauthorized".into(), &"refused_by_service".into()));

    let response = proxy.client().get("/page?a=b");
    assert_eq!(
        (response.status, response.field("location")),
        (302, Some("https://login.example/?next=/page?a=b"))
    );
    assert_eq!(response.values("set-cookie"), ["state=1; HttpOnly", "next=2"]);

    let response = proxy.client().get("/forbidden");
    let body: Value = serde_json::from_str(&response.text()).expect("an error in the route's form");
    assert_eq!((response.status, &body["error"]), (403, &"forbidden".into()));
    assert_eq!(response.values("content-type"), ["application/json"]);

    let response = proxy.client().get("/error");
    assert_eq!((response.status, response.text().as_str()), (503, "out of order"));
    assert_eq!(proxy.access_line_of("/error")["reason"], "auth_failed");
    assert!(origin.requests().is_empty());
    let log = format!("{:?}{}", proxy.access_log(), proxy.log());
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn nobody_passes_where_nobody_can_be_asked() {
    let (service, origin) = (Service::start(), Origin::saying(""));
    let proxy = service.proxy("timeout: 300ms", &origin);
    for (path, expected, reason, cause) in [
        ("/slow", "504", "auth_timeout", "total_timeout"),
        ("/broken", "502", "auth_failed", "upstream_protocol"),
        ("/large", "502", "auth_failed", "upstream_protocol"),
    ] {
        assert_eq!(status(&proxy, path, &[]), expected, "{path}");
        let line = proxy.access_line_of(path);
        assert_eq!((&line["reason"], &line["cause"]), (&reason.into(), &cause.into()), "{line}");
    }
    let part = "{ forward_auth: { upstream: auth } }";
    let gone = Proxy::start(&with_auth(&behind(part, &origin), free_port()));
    let (status_, body) = ask(&gone, "/gone", &[]);
    let body: Value = serde_json::from_str(&body).expect("an error in the route's form");
    assert_eq!((status_.as_str(), &body["error"]), ("502", &"auth_failed".into()));
    assert_eq!(gone.access_line_of("/gone")["cause"], "connect_refused");
    assert!(origin.requests().is_empty());
}

#[test]
fn an_unhealthy_service_is_not_waited_for() {
    let origin = Origin::saying("");
    let yaml = with_auth(&behind("{ forward_auth: { upstream: auth } }", &origin), free_port());
    let health = "], health: { tcp: {}, interval: 10ms, unhealthy_after: 1 } }, origin";
    let proxy = Proxy::start(&yaml.replace("] }, origin", health));
    until("the check fails", || status(&proxy, "/", &[]) == "503");
    let line = proxy.access_line(|line| line["status"] == 503);
    assert_eq!((&line["reason"], &line["cause"]), (&"auth_unavailable".into(), &"no_endpoint".into()));
    assert!(origin.requests().is_empty());
}

#[test]
fn it_fails_open_only_where_that_is_said_and_never_when_it_refuses() {
    let (service, origin) = (Service::start(), Origin::saying(""));
    let proxy = service.proxy("fail_open: true, timeout: 3s, copy_headers: [X-User]", &origin);
    for (path, reason) in [("/error", "auth_failed"), ("/slow", "auth_timeout"), ("/broken", "auth_failed")] {
        assert_eq!(status(&proxy, path, &["-H", "X-User: root"]), "200", "{path}");
        assert_eq!(proxy.access_line_of(path)["observed"][0], reason, "{path}");
    }
    assert!(
        origin.requests().iter().all(|request| request.field("x-user").is_none()),
        "nobody vouches for it"
    );
    assert_eq!(status(&proxy, "/in", &[]), "401");
    assert_eq!(status(&proxy, "/forbidden", &[]), "403");
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn it_is_asked_by_url_with_the_fields_chosen_and_not_for_public_paths() {
    let (service, origin) = (Service::start(), Origin::saying(""));
    let url = format!("http://localhost:{}/by-url?a", service.port);
    let settings = "method: HEAD, request_headers: \"*\", copy_headers: X-User, refusal_headers: [X-Internal], public: /open";
    let part = format!("{{ forward_auth: {{ url: \"{url}\", {settings} }} }}");
    let mut proxy = Proxy::start(&behind(&part, &origin));
    let bearer = service.bearer();
    let sent = ["-H", &bearer, "-H", "X-Other: c", "-H", "Accept-Encoding: gzip", "-H", "If-None-Match: x"];
    assert_eq!(status(&proxy, "/in", &sent), "200");
    let last = service.last();
    assert_eq!((&last["method"], &last["path"]), (&"HEAD".into(), &"/by-url?a".into()));
    assert_eq!(fields(&last, "x-other"), ["c"]);
    assert_eq!(fields(&last, "host"), [format!("localhost:{}", service.port)]);
    assert!(fields(&last, "accept-encoding").is_empty() && fields(&last, "if-none-match").is_empty());
    let response = proxy.client().get("/out");
    assert_eq!((response.status, response.field("x-internal")), (401, Some("secret")));
    assert!(response.field("www-authenticate").is_none());

    let before = service.seen().len();
    assert_eq!(status(&proxy, "/open", &["-H", "X-User: root"]), "200");
    assert_eq!(service.seen().len(), before, "it is not asked");
    assert!(origin.requests().last().expect("a request").field("x-user").is_none());

    let observing = format!("{{ forward_auth: {{ url: \"{url}\", copy_headers: X-User, mode: observe }} }}");
    proxy.change(&behind(&observing, &origin));
    assert_eq!(status(&proxy, "/seen", &["-H", "X-User: root"]), "200");
    let line = proxy.access_line_of("/seen");
    assert_eq!(
        (&line["observed"][0], &line["cause"]),
        (&"unauthorized".into(), &"refused_by_service".into()),
        "{line}"
    );
    assert!(origin.requests().last().expect("a request").field("x-user").is_none());
    let series = "portolan_middleware_decisions_total{decision=\"observed\",kind=\"forward_auth\"}";
    assert_eq!(proxy.metric(series), Some(1.0));
}

#[test]
fn it_decides_over_http2_as_well() {
    let (service, origin) = (Service::start(), Origin::saying("in"));
    let yaml = behind("{ forward_auth: { upstream: auth, copy_headers: X-User } }", &origin);
    let yaml = with_auth(&yaml, service.port).replace(":0\" }", ":0\", protocols: [h1, h2c] }");
    let proxy = Proxy::start(&yaml);
    let bearer = service.bearer();
    assert_eq!(
        ask(&proxy, "/in", &["--http2-prior-knowledge", "-H", &bearer]),
        ("200".to_owned(), "in".to_owned())
    );
    assert_eq!(fields(&service.last(), "x-forwarded-host"), [format!("127.0.0.1:{}", proxy.port("web"))]);
    assert_eq!(status(&proxy, "/in", &["--http2-prior-knowledge"]), "401");
    assert_eq!(origin.request().field("x-user"), Some("ann"));
}
