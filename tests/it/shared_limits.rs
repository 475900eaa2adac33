//! Counts that several Portolans share in a real Redis, which goes, comes back and sleeps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::support::{Client, Proxy, Redis, Response, config, until};

const YAML: &str = r#"
REDIS
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    middleware: [MIDDLEWARE]
    routes: { all: { path: "/**", respond: { body: ok } } }
"#;

fn with(redis: &Redis, middleware: &str) -> String {
    config(YAML, &[("REDIS", &redis.section()), ("MIDDLEWARE", &middleware)])
}

/// One limit with these settings.
fn limited(redis: &Redis, settings: &str) -> String {
    with(redis, &format!("{{ rate_limit: {{ scope: shared, bucket: api, {settings} }} }}"))
}

/// A request with this X-Key.
fn ask(client: &mut Client, key: &str) -> Response {
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n")).response()
}

fn is_up(proxy: &Proxy) -> bool {
    proxy.metric("portolan_redis_up") == Some(1.0)
}

fn decisions(proxy: &Proxy, outcome: &str) -> f64 {
    let series = format!("portolan_shared_limit_decisions_total{{outcome=\"{outcome}\"}}");
    proxy.metric(&series).expect("it is counted")
}

fn said(proxy: &Proxy, words: &str) -> usize {
    proxy.log().matches(words).count()
}

#[test]
fn two_processes_have_one_count_of_which_redis_sees_no_secret() {
    let redis = Redis::start();
    let yaml = limited(&redis, "rate: 1/h, burst: 3, by: \"header:X-Key\"");
    let proxies = [Proxy::start(&yaml), Proxy::start(&yaml)];
    let [mut one, mut other] = proxies.each_ref().map(Proxy::client);
    let mut left = Vec::new();
    for turn in 0..3 {
        let response = ask(if turn == 1 { &mut other } else { &mut one }, "secret");
        assert_eq!(response.status, 200);
        left.push(response.field("ratelimit").expect("a RateLimit").to_owned());
    }
    let remaining: Vec<_> = left.iter().map(|said| said.split(';').nth(1).unwrap()).collect();
    assert_eq!(remaining, ["r=2", "r=1", "r=0"], "{left:?}");
    let refused = ask(&mut other, "secret");
    assert_eq!((refused.status, ask(&mut one, "secret").status), (429, 429));
    let wait: u64 = refused.field("retry-after").expect("Retry-After").parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(ask(&mut one, "another").status, 200, "another key is another count");

    let keys = redis.ask(&["KEYS", "portolan:rate_limit:*"]);
    assert_eq!(keys.lines().count(), 2, "{keys}");
    for key in keys.lines() {
        let hash = key.strip_prefix("portolan:rate_limit:api:").expect("the bucket");
        assert!(hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
        let expires: u64 = redis.ask(&["TTL", key]).parse().expect("it forgets itself");
        assert!(expires <= 3 * 3600 + 1, "{expires}");
    }
    assert_eq!((decisions(&proxies[0], "passed"), decisions(&proxies[1], "refused")), (3.0, 1.0));
    let series = "portolan_limit_refused_total{bucket=\"api\",kind=\"rate_limit\"}";
    assert_eq!(proxies[1].metric(series), Some(1.0));
}

#[test]
fn whoever_asks_at_once_gets_what_there_is_and_never_more() {
    let redis = Redis::start();
    // Where the machine is busy, Redis is waited for: counting alone would let more pass.
    let patient = |yaml: String| yaml.replacen("\" }", "\", timeout: 5s }", 1);
    let yaml = patient(limited(&redis, "rate: 1/h, burst: 150, by: []"));
    let proxies = [Proxy::start(&yaml), Proxy::start(&yaml)];
    assert_eq!(passed(&proxies, 100), 150);

    let yaml = patient(limited(&redis, "rate: 100/s, burst: 20, by: host"));
    let proxies = [Proxy::start(&yaml), Proxy::start(&yaml)];
    let start = Instant::now();
    let passed = passed(&proxies, 250) as f64;
    let most = 20.0 + 100.0 * start.elapsed().as_secs_f64();
    assert!((20.0..=most).contains(&passed), "{passed} of {most}");
}

/// How many of so many requests on each of eight connections pass.
fn passed(proxies: &[Proxy; 2], requests: usize) -> usize {
    let ports = proxies.each_ref().map(|proxy| proxy.port("web"));
    let connection = |at: usize| {
        thread::spawn(move || {
            let mut client = Client::tcp(ports[at % 2]);
            (0..requests).filter(|_| client.get("/").status == 200).count()
        })
    };
    let all: Vec<_> = (0..8).map(connection).collect();
    all.into_iter().map(|thread| thread.join().unwrap()).sum()
}

/// Requests one after the other until told to stop: all statuses.
fn load(proxy: &Proxy) -> impl FnOnce() -> Vec<u16> + use<> {
    let (port, stop) = (proxy.port("web"), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let thread = thread::spawn(move || {
        let mut client = Client::tcp(port);
        let mut statuses = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            statuses.push(client.get("/").status);
        }
        statuses
    });
    move || {
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap()
    }
}

#[test]
fn redis_goes_and_comes_back_under_load_and_no_request_fails() {
    let mut redis = Redis::start();
    let proxy = Proxy::start(&limited(&redis, "rate: 1000000/s, unavailable: allow"));
    until("redis answers", || is_up(&proxy));
    let stop = load(&proxy);
    until("requests are counted", || decisions(&proxy, "passed") > 10.0);
    redis.kill();
    until("the metric says that it is gone", || !is_up(&proxy));
    let without = decisions(&proxy, "unavailable");
    until("requests pass without", || decisions(&proxy, "unavailable") > without + 10.0);
    assert!(proxy.admin().get("/health").text().contains("redis_unavailable"));
    redis.restart();
    until("the metric says that it is back", || is_up(&proxy));
    let before = decisions(&proxy, "passed");
    until("requests are counted again", || decisions(&proxy, "passed") > before + 10.0);
    let statuses = stop();
    assert!(statuses.iter().all(|status| *status == 200), "{:?}", statuses.iter().find(|s| **s != 200));
    assert_eq!((said(&proxy, "redis is gone"), said(&proxy, "redis answers")), (1, 2), "{}", proxy.log());
    assert!(proxy.metric("portolan_redis_errors_total{cause=\"connection\"}") > Some(0.0));
    assert!(proxy.metric("portolan_redis_duration_seconds_count") > Some(20.0));
}

#[test]
fn without_redis_requests_are_refused_or_counted_here_as_it_is_said() {
    let mut redis = Redis::start();
    let refusing = Proxy::start(&limited(&redis, "rate: 1/h, burst: 100, unavailable: refuse"));
    let counting = Proxy::start(&limited(&redis, "rate: 1/h, burst: 100, by: host"));
    let observing = limited(&redis, "rate: 1/h, burst: 1, by: [], unavailable: refuse, mode: observe");
    let observing = Proxy::start(&observing);
    for proxy in [&refusing, &counting, &observing] {
        assert_eq!(proxy.client().get("/").status, 200);
    }
    redis.kill();
    for proxy in [&refusing, &counting, &observing] {
        until("it is known", || !is_up(proxy));
    }
    let refused = refusing.client().get("/refused");
    assert_eq!((refused.status, refused.field("ratelimit")), (503, None));
    let line = refusing.access_line_of("/refused");
    assert_eq!((&line["reason"], &line["cause"]), (&"limit_unavailable".into(), &"redis_unavailable".into()));
    assert_eq!(observing.client().get("/observed").status, 200);
    assert_eq!(observing.access_line_of("/observed")["observed"][0], "limit_unavailable");
    let statuses: Vec<u16> = (0..102).map(|_| counting.client().get("/").status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 100, "a burst of its own");
    assert_eq!(statuses[100..], [429, 429]);
    redis.restart();
    until("it is back", || is_up(&refusing) && is_up(&counting));
    assert_eq!([refusing.client().get("/").status, counting.client().get("/").status], [200, 200]);
}

#[test]
fn a_redis_that_sleeps_costs_a_request_the_timeout_and_the_next_ones_nothing() {
    let redis = Redis::start();
    let proxy = Proxy::start(&limited(&redis, "rate: 1000000/s, unavailable: allow"));
    let mut client = proxy.client();
    until("redis answers", || is_up(&proxy));
    assert_eq!(client.get("/").status, 200);
    redis.freeze();
    let start = Instant::now();
    while is_up(&proxy) {
        let asked = Instant::now();
        assert_eq!(client.get("/").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?} for one request", asked.elapsed());
        assert!(start.elapsed() < Duration::from_secs(20), "it has to be known by now");
    }
    assert!(proxy.metric("portolan_redis_errors_total{cause=\"timeout\"}") > Some(0.0));
    let asked = Instant::now();
    (0..100).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?} for a hundred", asked.elapsed());
    assert!(proxy.log().contains("no answer in time"), "{}", proxy.log());
    redis.thaw();
    until("it is awake", || is_up(&proxy));
    let before = decisions(&proxy, "passed");
    assert_eq!(client.get("/").status, 200);
    assert_eq!(decisions(&proxy, "passed"), before + 1.0);
}

#[test]
fn what_a_later_limit_refuses_is_given_back() {
    let redis = Redis::start();
    let limits = "{ rate_limit: { rate: 1/h, burst: 5, by: [], scope: shared } }, \
                  { rate_limit: { rate: 1/h, burst: 1, by: \"header:X-Key\", scope: shared } }";
    let proxy = Proxy::start(&with(&redis, limits));
    until("redis answers", || is_up(&proxy));
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "a").status, 200);
    for _ in 0..20 {
        assert_eq!(ask(&mut client, "a").status, 429);
    }
    let buckets = "portolan:rate_limit:host all:*";
    until("one token of the first bucket is lacking", || {
        let keys = redis.ask(&["KEYS", buckets]);
        keys.lines().all(|key| redis.ask(&["TTL", key]).parse::<i64>().is_ok_and(|ttl| ttl <= 3600))
    });
    for key in ["b", "c", "d", "e"] {
        assert_eq!(ask(&mut client, key).status, 200, "{key}: twenty refused requests took nothing");
    }
    assert_eq!(ask(&mut client, "f").status, 429, "six of five");
}

#[test]
fn what_a_later_limit_would_refuse_is_told() {
    let redis = Redis::start();
    let limits = "{ rate_limit: { rate: 10/m, burst: 1 } }, { rate_limit: { rate: 1/h, burst: 1, scope: shared, bucket: hour } }";
    let proxy = Proxy::start(&with(&redis, limits));
    until("redis answers", || is_up(&proxy));
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "a").status, 200);
    for _ in 0..3 {
        let refused = ask(&mut client, "a");
        let wait: u64 = refused.field("retry-after").expect("Retry-After").parse().unwrap();
        assert!(refused.status == 429 && (3500..=3600).contains(&wait), "{refused:?}");
        assert!(
            refused.values("ratelimit").iter().any(|said| said.starts_with("\"hour\";r=0")),
            "{refused:?}"
        );
    }
}

#[test]
fn a_process_has_one_connection_over_reloads_and_none_when_nothing_asks_for_it() {
    let redis = Redis::start();
    let limit = |burst: u32| limited(&redis, &format!("rate: 1/h, burst: {burst}, by: []"));
    let mut proxy = Proxy::start(&limit(2));
    until("redis answers", || is_up(&proxy));
    let links = || redis.ask(&["CLIENT", "LIST"]).lines().filter(|line| !line.contains("cmd=client")).count();
    let ask = |proxy: &Proxy| proxy.client().get("/").status;
    assert_eq!([ask(&proxy), ask(&proxy), ask(&proxy)], [200, 200, 429]);
    assert_eq!((links(), said(&proxy, "redis answers")), (1, 1));
    proxy.change(&limit(3));
    assert_eq!([ask(&proxy), ask(&proxy)], [200, 429], "one more than before");
    assert_eq!((links(), said(&proxy, "redis answers")), (1, 1), "the connection is the same");
    assert_eq!(proxy.metric("portolan_tasks{kind=\"redis\"}"), Some(1.0));
    proxy.change(&with(&redis, "{ rate_limit: { rate: 1/h } }"));
    until("no task", || proxy.metric("portolan_tasks{kind=\"redis\"}") == Some(0.0));
    until("no connection", || links() == 0);
    assert_eq!(proxy.metric("portolan_redis_up"), None);
}
