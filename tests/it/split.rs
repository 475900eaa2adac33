//! Splits: shares by weight, users that stay on a side, and canaries that step back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::support::{
    Client, Origin, Outcome, Proxy, Reply, Response, config, eventually, free_port, portolan, until,
};

const CONFIGURATION: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams:
  app: { endpoints: ["APP"], retry: { retries: 0 }, outlier: false }
  next: { endpoints: ["NEXT"], retry: { retries: 1 }, outlier: false }
hosts:
  www:
    names: ["*"]
    routes: { all: { path: "/**", proxy: { split: [{ upstream: app, weight: OLD }, { upstream: next, NEW }] BY } } }
"#;

/// Origins that say app and next.
struct Origins {
    app: Origin,
    next: Origin,
}

impl Origins {
    fn new() -> Self {
        Self { app: Origin::saying("app"), next: Origin::saying("next") }
    }

    fn start(&self, old: u16, new: &str, by: &str) -> Proxy {
        Proxy::start(&self.written(old, new, by))
    }

    fn written(&self, old: u16, new: &str, by: &str) -> String {
        written(&self.app.address().to_string(), &self.next.address().to_string(), old, new, by)
    }
}

fn written(app: &str, next: &str, old: u16, new: &str, by: &str) -> String {
    let by = if by.is_empty() { String::new() } else { format!(", split_by: {by}") };
    config(CONFIGURATION, &[("APP", &app), ("NEXT", &next), ("OLD", &old), ("NEW", &new), ("BY", &by)])
}

fn ask(client: &mut Client, path: &str, fields: &str) -> Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).response()
}

/// The sides of so many users, by the field X-User.
fn sides(proxy: &Proxy, users: usize) -> Vec<String> {
    let mut client = proxy.client();
    (0..users).map(|user| ask(&mut client, "/", &format!("X-User: user-{user}\r\n")).text()).collect()
}

fn counted(proxy: &Proxy, side: &str) -> f64 {
    let series = format!("portolan_split_requests_total{{side=\"{side}\",split=\"hosts.www.all\"}}");
    proxy.metric(&series).unwrap_or_default()
}

fn given(response: &Response) -> Option<String> {
    Some(response.field("set-cookie")?.split(';').next()?.to_owned())
}

/// The state of the canary `next`.
fn canary(proxy: &Proxy) -> Value {
    proxy.status()["splits"][0]["sides"][1]["canary"].clone()
}

#[test]
fn requests_are_shared_by_weight() {
    let origins = Origins::new();
    let proxy = origins.start(80, "weight: 20", "");
    let mut client = proxy.client();
    let next = (0..1000).filter(|_| client.get("/").text() == "next").count();
    // Six standard deviations.
    assert!((125..=275).contains(&next), "{next} of 1000");
    assert_eq!(counted(&proxy, "next") as usize, next);
    assert_eq!(counted(&proxy, "app") as usize, 1000 - next);
    let line = proxy.access_line(|line| line["upstream"] == "next");
    assert_eq!(line["split"], "next");
}

#[test]
fn a_user_stays_on_a_side_and_other_weights_move_only_their_share() {
    let origins = Origins::new();
    let mut proxy = origins.start(95, "weight: 5", "\"header:X-User\"");
    let before = sides(&proxy, 400);
    assert_eq!(sides(&proxy, 400), before);
    proxy.change(&origins.written(80, "weight: 20", "\"header:X-User\""));
    let after = sides(&proxy, 400);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert!((20..=110).contains(&moved), "{moved} of 400");
    assert!(before.iter().zip(&after).all(|(before, after)| before == "app" || after == "next"), "one way");
    // Without the key each request is drawn.
    let mut client = proxy.client();
    let drawn: Vec<_> = (0..200).map(|_| client.get("/").text()).collect();
    assert!(drawn.contains(&"app".to_owned()) && drawn.contains(&"next".to_owned()));
}

#[test]
fn requests_that_meet_conditions_come_before_the_weights() {
    let origins = Origins::new();
    let new = "headers: { X-Beta: 1 }, cookies: { beta: yes }, query: { try: { present: true } }";
    let proxy = origins.start(1, new, "client_ip");
    let mut client = proxy.client();
    let both = "X-Beta: 1\r\nCookie: a=b; beta=yes\r\n";
    assert!((0..5).all(|_| ask(&mut client, "/?try", both).text() == "next"));
    for (path, fields) in
        [("/", both), ("/?try", "X-Beta: 2\r\nCookie: beta=yes\r\n"), ("/?try", "X-Beta: 1\r\n")]
    {
        assert_eq!(ask(&mut client, path, fields).text(), "app", "{path} {fields}");
    }
}

#[test]
fn a_cookie_keeps_a_user_on_a_side() {
    let origins = Origins::new();
    let by = "{ cookie: side, ttl: 2d }";
    let mut proxy = origins.start(50, "weight: 50, name: beta", by);
    let mut client = proxy.client();
    let cookies: Vec<(String, String)> = (0..40)
        .map(|_| {
            let response = client.get("/");
            let field = response.field("set-cookie").expect("a cookie").to_owned();
            assert!(field.ends_with("; Path=/; Max-Age=172800; HttpOnly; SameSite=Lax"), "{field}");
            (response.text(), given(&response).unwrap())
        })
        .collect();
    for (text, cookie) in &cookies {
        assert_eq!(cookie, if text == "next" { "side=beta" } else { "side=app" });
        let again = ask(&mut client, "/", &format!("Cookie: x=1; {cookie}\r\n"));
        assert_eq!((again.text(), given(&again)), (text.clone(), None));
    }
    assert!(cookies.iter().any(|(text, _)| text == "app") && cookies.iter().any(|(text, _)| text == "next"));
    let sent =
        origins.app.requests().into_iter().filter_map(|request| request.field("cookie").map(str::to_owned));
    assert!(sent.into_iter().all(|cookie| cookie == "x=1"));

    for unknown in ["side=next", "side=", "side=%00", "side=beta/../app"] {
        let response = ask(&mut client, "/", &format!("Cookie: {unknown}\r\n"));
        assert!(response.status == 200 && given(&response).is_some(), "{unknown}");
    }
    // A user stays although the weights are others now, but not on a side that gets nothing any more.
    proxy.change(&origins.written(99, "weight: 1, name: beta", by));
    assert!((0..20).all(|_| ask(&mut proxy.client(), "/", "Cookie: side=beta\r\n").text() == "next"));
    proxy.change(&origins.written(100, "weight: 0, name: beta", by));
    let moved = ask(&mut proxy.client(), "/", "Cookie: side=beta\r\n");
    assert_eq!((moved.text().as_str(), given(&moved).as_deref()), ("app", Some("side=app")));
}

#[test]
fn retries_stay_on_the_side() {
    let app = Origin::saying("app");
    let nowhere = format!("127.0.0.1:{}", free_port());
    let proxy = Proxy::start(&written(&app.address().to_string(), &nowhere, 1, "headers: { X-Beta: 1 }", ""));
    let response = ask(&mut proxy.client(), "/beta", "X-Beta: 1\r\n");
    assert_eq!(response.status, 502);
    let line = proxy.access_line_of("/beta");
    assert_eq!(
        (&line["upstream"], &line["split"], &line["attempts"]),
        (&json!("next"), &json!("next"), &json!(2))
    );
    assert!(app.requests().is_empty());
}

#[test]
fn explain_and_tests_say_which_side_and_why() {
    let origins = Origins::new();
    let text = origins.written(95, "weight: 5, headers: { X-Beta: 1 }", "\"header:X-User\"");
    let tests = r#"
tests:
  - { request: { url: "http://a/", headers: { X-Beta: 1 } }, expect: { upstream: next } }
  - { request: { url: "http://a/", headers: { X-User: USER } }, expect: { upstream: SIDE } }
  - { request: { url: "http://a/" }, expect: { upstream: app } }
  - { request: { url: "http://a/" }, expect: { upstream: next } }
"#;
    let proxy = Proxy::start(&text);
    let text = text.replace("bind: \"127.0.0.1:0\"", "bind: \":80\"");
    let user = sides(&proxy, 200).iter().position(|side| side == "next").expect("a user of next");
    let user = format!("user-{user}");
    let directory = proxy.tree().path("");
    let run = |arguments: &[&str]| portolan(&directory, arguments);
    let tests_with = |side: &str| -> Outcome {
        let tests = config(tests, &[("USER", &user), ("SIDE", &side)]);
        proxy.tree().write("tests.yaml", format!("{text}{tests}"));
        run(&["test", "tests.yaml"])
    };
    assert_eq!(tests_with("next").code, 0);
    let failed = tests_with("app");
    let said = format!("{}{}", failed.stdout, failed.stderr);
    assert!(failed.code != 0 && said.contains("expected upstream app, got upstream next"), "{said}");

    let explained = |fields: &[&str]| {
        let mut arguments = vec!["explain", "GET", "http://a/", "--config", "tests.yaml"];
        fields.iter().for_each(|field| arguments.extend(["-H", field]));
        run(&arguments).stdout
    };
    let said = explained(&["X-Beta: 1"]);
    assert!(said.contains("split       next: its conditions hold\n"), "{said}");
    assert!(said.contains(&format!("endpoints   {}", origins.next.address())), "{said}");
    let said = explained(&[&format!("X-User: {user}")]);
    assert!(said.contains("split       next: the key is at 0.9"), "{said}");
    let said = explained(&[]);
    assert!(said.contains("drawn at random by weight: the request has no key"), "{said}");
    assert!(said.contains("action      split app 95, next 5"), "{said}");
}

/// An origin where so many of a hundred requests fail, one after the other; the number may change.
fn erring(percent: &Arc<AtomicUsize>) -> Origin {
    let (percent, count) = (percent.clone(), AtomicUsize::new(0));
    Origin::serving(move |exchange| {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        let fails =
            nth * percent.load(Ordering::Acquire) % 100 >= 100 - percent.load(Ordering::Acquire).min(100);
        let fails = fails && percent.load(Ordering::Acquire) > 0;
        let status = if fails { 500 } else { 200 };
        exchange.send(format!("HTTP/1.1 {status} x\r\nContent-Length: 4\r\n\r\nnext"));
        Reply::Keep
    })
}

const CANARY: &str =
    "weight: 50, canary: { max_failure_ratio: 5%, min_requests: 20, window: 10s, step_back_for: 1s }";

#[test]
fn a_canary_that_errs_steps_back_and_starts_anew() {
    let percent = Arc::new(AtomicUsize::new(0));
    let origins = Origins { app: Origin::saying("app"), next: erring(&percent) };
    let by = "\"header:X-User\"";
    let long = CANARY.replace("step_back_for: 1s", "step_back_for: 1h");
    let mut proxy = origins.start(50, &long, by);
    let before = sides(&proxy, 100);
    assert_eq!(canary(&proxy)["state"], "steady");
    percent.store(20, Ordering::Release);
    until("it steps back", || {
        sides(&proxy, 20);
        canary(&proxy)["state"] == "stepped_back"
    });
    let asked = origins.next.requests().len();
    assert!(sides(&proxy, 100).iter().all(|side| side == "app"), "its users go to the others");
    assert_eq!(origins.next.requests().len(), asked);
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("canary steps back")).expect("a line");
    for word in ["split=\"hosts.www.all\"", "side=\"next\"", "cause=\"failures\"", "requests=", "failures="] {
        assert!(line.contains(word), "{line}");
    }
    let labels = "{side=\"next\",split=\"hosts.www.all\"}";
    assert_eq!(proxy.metric(&format!("portolan_split_canary_state{labels}")), Some(2.0));
    let backs =
        "portolan_split_canary_step_backs_total{cause=\"failures\",side=\"next\",split=\"hosts.www.all\"}";
    assert_eq!(proxy.metric(backs), Some(1.0));
    assert!(canary(&proxy)["seconds_left"].as_u64().is_some_and(|left| left > 3000));
    let socket = proxy.tree().path("admin.sock").to_string_lossy().into_owned();
    let shown = portolan(&proxy.tree().path(""), &["status", "--socket", &socket]).stdout;
    assert!(shown.contains("canary stepped back for "), "{shown}");

    proxy.change(&origins.written(50, &long.replace("weight: 50", "weight: 40"), by));
    assert_eq!(canary(&proxy)["state"], "stepped_back", "a reload keeps the state");
    assert!(sides(&proxy, 20).iter().all(|side| side == "app"));

    // Another window begins with a new state.
    percent.store(100, Ordering::Release);
    let short = CANARY.replace("window: 10s", "window: 20s");
    proxy.change(&origins.written(50, &short, by));
    until("it steps back again", || {
        sides(&proxy, 20);
        canary(&proxy)["state"] == "stepped_back"
    });
    percent.store(0, Ordering::Release);
    until("it is on trial", || canary(&proxy)["state"] == "trial");
    let on_trial = sides(&proxy, 100).iter().filter(|side| *side == "next").count();
    assert!(on_trial < 20, "a tenth of the half, not {on_trial} of 100");
    until("it takes all of its requests again", || {
        sides(&proxy, 100);
        canary(&proxy)["state"] == "steady"
    });
    let after = sides(&proxy, 100);
    assert_eq!(after, before, "all users are where they were");
}

#[test]
fn pinned_users_and_matching_requests_leave_a_canary_that_steps_back() {
    let percent = Arc::new(AtomicUsize::new(100));
    let origins = Origins { app: Origin::saying("app"), next: erring(&percent) };
    let new = format!("headers: {{ X-Beta: 1 }}, {}", CANARY.replace("1s", "1h"));
    let proxy = origins.start(50, &new, "{ cookie: side }");
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "/", "X-Beta: 1\r\n").text(), "next");
    until("it steps back", || {
        ask(&mut client, "/", "Cookie: side=next\r\n");
        canary(&proxy)["state"] == "stepped_back"
    });
    assert_eq!(ask(&mut client, "/", "X-Beta: 1\r\n").text(), "app");
    let moved = ask(&mut client, "/", "Cookie: side=next\r\n");
    assert_eq!((moved.text().as_str(), given(&moved).as_deref()), ("app", Some("side=app")));
}

#[test]
fn a_canary_stays_while_the_others_fail_as_often() {
    let all = Arc::new(AtomicUsize::new(100));
    let origins = Origins { app: erring(&all), next: erring(&all) };
    let proxy = origins.start(50, CANARY, "\"header:X-User\"");
    sides(&proxy, 200);
    assert_eq!(canary(&proxy)["state"], "steady");
    assert!(canary(&proxy)["failures"].as_u64().is_some_and(|failures| failures > 50));
}

#[test]
fn a_canary_that_is_gone_or_breaks_its_responses_steps_back() {
    let app = Origin::saying("app");
    let cut = Origin::replying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all");
    let cutting = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all");
        Reply::Close
    });
    drop(cut);
    for next in [format!("127.0.0.1:{}", free_port()), cutting.address().to_string()] {
        let new = CANARY.replace("1s", "1h");
        let proxy = Proxy::start(&written(&app.address().to_string(), &next, 50, &new, ""));
        until("it steps back", || {
            let mut client = proxy.client();
            client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let _ = client.try_response_to("GET");
            canary(&proxy)["state"] == "stepped_back"
        });
        let mut client = proxy.client();
        assert!((0..20).all(|_| client.get("/").text() == "app"));
    }
}

#[test]
fn a_slow_canary_steps_back() {
    let slow = Origin::serving(|exchange| {
        std::thread::sleep(Duration::from_millis(30));
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext");
        Reply::Keep
    });
    let origins = Origins { app: Origin::saying("app"), next: slow };
    let new = "weight: 50, canary: { max_latency: 5ms, min_requests: 10, step_back_for: 1h }";
    let proxy = origins.start(50, new, "");
    eventually("it steps back", || {
        sides(&proxy, 10);
        (canary(&proxy)["state"] == "stepped_back").then_some(())
    });
    let backs =
        "portolan_split_canary_step_backs_total{cause=\"latency\",side=\"next\",split=\"hosts.www.all\"}";
    assert_eq!(proxy.metric(backs), Some(1.0));
}

#[test]
fn the_process_is_ready_without_its_canary() {
    let app = Origin::saying("app");
    let next = format!("127.0.0.1:{}", free_port());
    let text =
        written(&app.address().to_string(), &next, 95, "weight: 5, canary: { max_failure_ratio: 5% }", "");
    let health = "next: { health: { tcp: {}, interval: 50ms, unhealthy_after: 1 }, ";
    let proxy = Proxy::start(&text.replace("next: { ", health));
    until("the canary's endpoint is unhealthy", || {
        proxy.status()["upstreams"][1]["endpoints"][0]["healthy"] == json!(false)
    });
    assert_eq!(proxy.admin().get("/ready").status, 200);
}
