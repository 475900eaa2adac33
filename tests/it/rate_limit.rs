//! How often requests may come: who is refused, what everybody is told, and what a reload leaves as it was. The
//! rates are so slow that no test sees a token come back.

use super::support::{Client, Proxy, Python, Response, config, until};

const YAML: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts:
  all:
    names: ["*"]
    middleware: [MIDDLEWARE]
    routes:
      all: { path: "/**", respond: { body: ok } }
      other: { path: /other, respond: { body: other }, middleware: [MORE] }
"#;

fn with(middleware: &str) -> String {
    config(YAML, &[("MIDDLEWARE", &middleware), ("MORE", &"")])
}

/// A request with this X-Key.
fn ask(client: &mut Client, path: &str, key: &str) -> Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n")).response()
}

#[test]
fn a_burst_passes_and_what_is_more_is_told_when_to_come_again() {
    let proxy = Proxy::start(&with("{ rate_limit: { rate: 1/m, burst: 3 } }"));
    let mut client = proxy.client();
    for left in ["2", "1", "0"] {
        let response = client.get("/");
        assert_eq!(response.status, 200);
        assert_eq!(response.values("ratelimit-policy"), ["\"1/m\";q=1;w=60"]);
        let said = response.field("ratelimit").expect("a RateLimit").to_owned();
        assert!(said.starts_with(&format!("\"1/m\";r={left};t=")), "{said}");
    }
    let refused = client.get("/refused");
    assert_eq!(refused.status, 429);
    assert!(refused.field("ratelimit").is_some_and(|said| said.starts_with("\"1/m\";r=0;t=")), "{refused:?}");
    let wait: u64 = refused.field("retry-after").expect("Retry-After").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(proxy.access_line_of("/refused")["reason"], "rate_limited");
}

fn number(response: &Response, name: &str) -> u64 {
    response.field(name).unwrap_or_else(|| panic!("no {name}: {response:?}")).parse().expect("a number")
}

#[test]
fn retry_after_is_the_longest_of_all_that_are_used_up() {
    let (minute, hour) = (
        "{ rate_limit: { rate: 10/m, burst: 1, bucket: minute } }",
        "{ rate_limit: { rate: 1/h, burst: 1, bucket: hour } }",
    );
    let others = "{ rate_limit: { rate: 1/h, burst: 100, bucket: free } }, \
                  { rate_limit: { rate: 1/h, burst: 1, by: \"header:X-Key\", bucket: observed, mode: observe } }";
    for limits in [[minute, hour, others], [hour, minute, others], [others, minute, hour]] {
        let limits = limits.join(", ");
        let proxy = Proxy::start(&with(&limits));
        let mut client = proxy.client();
        assert_eq!(ask(&mut client, "/", "a").status, 200, "{limits}");
        for _ in 0..3 {
            let refused = ask(&mut client, "/", "a");
            assert_eq!(refused.status, 429);
            assert!((3500..=3600).contains(&number(&refused, "retry-after")), "{refused:?}");
            let said = refused.values("ratelimit").join(", ");
            assert!(said.contains("\"hour\";r=0;t=3") && said.contains("\"minute\";r=0;t="), "{said}");
            assert!(!said.contains("observed"), "{said}");
        }
    }
}

#[test]
fn other_reasons_to_retry_later_know_of_limits() {
    let concurrency =
        "{ rate_limit: { rate: 1/h, burst: 1 } }, { maintenance: { active: true, retry_after: 10m } }";
    let proxy = Proxy::start(&with(concurrency));
    let unavailable = proxy.client().get("/");
    assert_eq!(unavailable.status, 503);
    assert!(number(&unavailable, "retry-after") > 3500, "it took the last token: {unavailable:?}");
    let both = proxy.client().get("/");
    assert!(both.status == 429 && number(&both, "retry-after") > 3500, "{both:?}");

    let proxy = Proxy::start(&with(
        "{ rate_limit: { rate: 10/m, burst: 1 } }, { maintenance: { active: true, retry_after: 10m } }",
    ));
    let statuses = [proxy.client().get("/"), proxy.client().get("/")];
    assert_eq!(statuses.each_ref().map(|response| response.status), [503, 429]);
    assert!(statuses.iter().all(|response| number(response, "retry-after") == 600), "{statuses:?}");

    let yaml =
        with("{ maintenance: { active: true, retry_after: 1m } }, { rate_limit: { rate: 1/h, burst: 1 } }");
    let proxy = Proxy::start(&yaml);
    assert_eq!(number(&proxy.client().get("/"), "retry-after"), 60, "nothing is used up");
}

#[test]
fn each_key_has_a_count_and_a_refused_request_takes_nothing() {
    let limits = "{ rate_limit: { rate: 1/h, burst: 5, by: [] } }, \
                  { rate_limit: { rate: 1/h, burst: 1, by: [client_ip, \"header:X-Key\"] } }";
    let proxy = Proxy::start(&with(limits));
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "/", "a").status, 200);
    for _ in 0..10 {
        assert_eq!(ask(&mut client, "/", "a").status, 429);
    }
    for key in ["b", "c", "d", "e"] {
        assert_eq!(ask(&mut client, "/", key).status, 200, "{key}: ten refused requests took nothing");
    }
    assert_eq!(ask(&mut client, "/", "f").status, 429, "six of five");
}

#[test]
fn a_reload_changes_the_limit_and_keeps_the_count() {
    let limited = |burst: u32| with(&format!("{{ rate_limit: {{ rate: 1/h, burst: {burst} }} }}"));
    let mut proxy = Proxy::start(&limited(2));
    let get = |proxy: &Proxy| proxy.client().get("/").status;
    assert_eq!([get(&proxy), get(&proxy), get(&proxy)], [200, 200, 429]);
    proxy.change(&limited(2).replace("body: other", "body: more"));
    assert_eq!(get(&proxy), 429, "nothing of it has changed");
    proxy.change(&limited(3));
    assert_eq!([get(&proxy), get(&proxy)], [200, 429], "one more than before");
}

#[test]
fn a_bucket_is_one_wherever_it_stands_and_a_place_is_another() {
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
middleware: { shared: [{ rate_limit: { rate: 1/h, burst: 2, bucket: api } }] }
hosts:
  all:
    names: ["*"]
    routes:
      a: { path: /a, respond: {}, middleware: [shared] }
      b: { path: /b, respond: {}, middleware: [{ rate_limit: { rate: 1/h, burst: 2, bucket: api } }] }
      c: { path: /c, respond: {}, middleware: [{ rate_limit: { rate: 1/h, burst: 2 } }] }
      d: { path: /d, respond: {}, middleware: [{ rate_limit: { rate: 1/h, burst: 2 } }] }
"#;
    let proxy = Proxy::start(yaml);
    let mut client = proxy.client();
    let mut statuses = |paths: [&str; 3]| paths.map(|path| client.get(path).status);
    assert_eq!(statuses(["/a", "/b", "/a"]), [200, 200, 429]);
    assert_eq!(statuses(["/c", "/c", "/c"]), [200, 200, 429]);
    assert_eq!(statuses(["/d", "/d", "/b"]), [200, 200, 429]);
}

#[test]
fn what_observes_lets_everything_pass_and_says_so_in_the_log_alone() {
    let proxy = Proxy::start(&with("{ rate_limit: { rate: 1/h, mode: observe } }"));
    let mut client = proxy.client();
    assert_eq!(client.get("/first").status, 200);
    let second = client.get("/second");
    assert_eq!((second.status, second.field("ratelimit")), (200, None));
    assert_eq!(proxy.access_line_of("/second")["observed"][0], "rate_limited");
    assert!(proxy.access_line_of("/first").get("observed").is_none());
}

#[test]
fn what_limits_hold_is_shown_by_the_names_of_the_configuration_alone() {
    let bucket = "{ rate_limit: { rate: 1/h, burst: 1, by: \"header:X-Key\", bucket: logins } }";
    let more = "{ rate_limit: { rate: 1/h, burst: 500 } }, { concurrency: { max: 5 } }";
    let mut proxy = Proxy::start(&config(YAML, &[("MIDDLEWARE", &bucket), ("MORE", &more)]));
    let mut client = proxy.client();
    for n in 0..100 {
        assert_eq!(ask(&mut client, "/other", &format!("key-{n}")).status, 200);
    }
    (0..7).for_each(|_| assert_eq!(ask(&mut client, "/other", "key-1").status, 429));
    let of = |proxy: &Proxy, name: &str, kind: &str, bucket: &str| {
        proxy.metric(&format!("portolan_limit_{name}{{bucket=\"{bucket}\",kind=\"{kind}\"}}"))
    };
    assert_eq!(of(&proxy, "keys", "rate_limit", "logins"), Some(100.0));
    assert_eq!(of(&proxy, "refused_total", "rate_limit", "logins"), Some(7.0));
    assert_eq!(of(&proxy, "keys", "rate_limit", "route all/other"), Some(1.0));
    assert_eq!(of(&proxy, "in_flight", "concurrency", "route all/other"), Some(0.0));
    assert_eq!(of(&proxy, "in_flight", "rate_limit", "logins"), None);
    let series = proxy.metrics().lines().filter(|line| line.starts_with("portolan_limit_")).count();
    assert_eq!(series, 7);
    proxy.change(&config(YAML, &[("MIDDLEWARE", &bucket), ("MORE", &"")]));
    assert_eq!(of(&proxy, "refused_total", "rate_limit", "logins"), Some(7.0), "it goes on");
    until("what is gone is not shown", || of(&proxy, "keys", "concurrency", "route all/other").is_none());
}

#[test]
fn users_of_keys_are_told_apart_by_name_however_they_come() {
    let keys = "app: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b, \
                other: d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";
    let limits = "{ rate_limit: { rate: 1/h, burst: 2, by: user } }, { concurrency: { max: 9, by: user } }";
    let public = "public: [\"/open/**\"]";
    let proxy = Proxy::start(&with(&format!("{{ api_key: {{ keys: {{ {keys} }}, {public} }} }}, {limits}")));
    let ask = |path: &str, key: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n");
        proxy.client().send(head).response().status
    };
    assert_eq!(["secret", "secret", "secret"].map(|key| ask("/", key)), [200, 200, 429]);
    assert_eq!(["other", "other", "other"].map(|key| ask("/", key)), [200, 200, 429]);
    assert_eq!(["a", "b"].map(|key| ask("/", key)), [401, 401], "who is not let in is nobody's count");
    assert_eq!(["a", "b", "c"].map(|key| ask("/open/", key)), [200, 200, 429], "nobody is one");
}

/// Tokens of ann's in two organisations, of bob's and of none's.
const TOKENS: &str = r#"
import jwt, time
for claims in [{'sub': 'ann', 'org': {'id': 7}}, {'sub': 'ann', 'org': {'id': 8}}, {'sub': 'bob', 'org': {'id': 8}}, {}]:
    print(jwt.encode({'exp': time.time() + 600, **claims}, 'a-secret-of-thirty-two-bytes-or-more', 'HS256'), flush=True)
"#;

#[test]
fn claims_of_tokens_tell_requests_apart() {
    let mut python = Python::run(TOKENS, &[]);
    let tokens: [String; 4] = std::array::from_fn(|_| python.line());
    let jwt = "{ jwt: { secret: a-secret-of-thirty-two-bytes-or-more } }";
    for (by, expected) in [
        ("\"claim:sub\"", [200, 429, 200, 200]),
        ("user", [200, 429, 200, 200]),
        ("\"claim:org.id\"", [200, 200, 429, 200]),
        ("[user, \"claim:org.id\"]", [200, 200, 200, 200]),
    ] {
        let proxy = Proxy::start(&with(&format!("{jwt}, {{ rate_limit: {{ rate: 1/h, by: {by} }} }}")));
        let ask = |token: &String| {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
            proxy.client().send(head).response().status
        };
        assert_eq!(tokens.each_ref().map(ask), expected, "{by}");
        assert_eq!(tokens.each_ref().map(ask), [429; 4], "{by}");
    }
}
