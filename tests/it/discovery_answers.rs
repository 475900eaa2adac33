//! Answers of DNS that are wrong, hostile or missing.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::support::{Answer, Origin, Proxy, ToldDns, config, until};

const ALIVE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn start(dns: &ToldDns, endpoint: &str) -> Proxy {
    let yaml = r#"
resolvers: ["DNS"]
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { app: { endpoints: ["ENDPOINT"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: app } } } } }
"#;
    Proxy::start(&config(yaml, &[("DNS", &dns.address()), ("ENDPOINT", &endpoint)]))
}

fn upstream(proxy: &Proxy) -> Value {
    proxy.status()["upstreams"][0].clone()
}

fn count(proxy: &Proxy) -> usize {
    upstream(proxy)["endpoints"].as_array().map_or(0, Vec::len)
}

/// Waits until discovery complains of this.
#[track_caller]
fn complains(proxy: &Proxy, part: &str) {
    until(part, || {
        let source = upstream(proxy)["discovery"][0].clone();
        source["error"].as_str().is_some_and(|error| error.contains(part))
    });
}

#[test]
fn no_answer_that_says_nothing_takes_an_address_away() {
    let origin = Origin::saying("here");
    let good = Answer::Addresses(vec![ALIVE], 0);
    let dns = ToldDns::start(&[("app.test", good.clone())]);
    let proxy = start(&dns, &format!("app.test:{}", origin.address().port()));
    until("it is found", || count(&proxy) == 1);
    for (answer, told) in [
        (Answer::Code(2), "Server Failure"),
        (Answer::Code(5), "Query Refused"),
        (Answer::Code(3), "NXDOMAIN"),
        (Answer::Addresses(Vec::new(), 60), "no such records"),
        (Answer::Foreign(vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 66))]), ""),
        (Answer::Alias("app.test"), ""),
        (Answer::Rubbish, ""),
    ] {
        dns.tell("app.test", answer.clone());
        until(&format!("{answer:?} is no answer"), || {
            let source = upstream(&proxy)["discovery"][0].clone();
            source["error"].as_str().is_some_and(|error| error.contains(told))
        });
        let endpoints = upstream(&proxy)["endpoints"].to_string();
        assert!(
            endpoints.contains("127.0.0.1:") && !endpoints.contains("192.0.2.66"),
            "{answer:?}: {endpoints}"
        );
        assert_eq!(proxy.client().get("/").text(), "here", "{answer:?}");
        dns.tell("app.test", good.clone());
        until("it works again", || upstream(&proxy)["discovery"][0]["error"].is_null());
    }
}

#[test]
fn a_server_that_says_nothing_delays_nobody_for_long() {
    let dns = ToldDns::start(&[("app.test", Answer::Silence)]);
    let began = Instant::now();
    let proxy = start(&dns, "app.test:80");
    // The first answer is waited for a second, and the process serves.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(proxy.client().get("/").status, 503);
    complains(&proxy, "");
    dns.tell("app.test", Answer::Addresses(vec![ALIVE], 0));
    until("it is found", || count(&proxy) == 1);
}

#[test]
fn an_answer_of_thousands_is_cut_and_that_is_told() {
    let many: Vec<IpAddr> = (0..2000u32).map(|n| IpAddr::V4(Ipv4Addr::from(0x7f00_0001 + n))).collect();
    let dns = ToldDns::start(&[("app.test", Answer::Addresses(many, 60))]);
    let proxy = start(&dns, "app.test:80");
    until("the first thousand are there", || count(&proxy) == 1024);
    let log = proxy.log();
    assert!(log.contains("endpoint discovery found more endpoints than are used"), "{log}");
    assert!(log.contains("dropped=976"), "{log}");
}

#[test]
fn aliases_are_followed_and_loops_end() {
    let origin = Origin::saying("here");
    let port = origin.address().port();
    let dns = ToldDns::start(&[
        ("app.test", Answer::Alias("b.test")),
        ("b.test", Answer::Alias("c.test")),
        ("c.test", Answer::Addresses(vec![ALIVE], 0)),
    ]);
    let proxy = start(&dns, &format!("app.test:{port}"));
    until("the alias is followed", || count(&proxy) == 1);
    dns.tell("c.test", Answer::Alias("app.test"));
    complains(&proxy, "");
    assert_eq!(proxy.client().get("/").text(), "here");
    // A loop ends after a few questions, and a failure is not asked about in a hurry.
    let before = dns.questions();
    let began = Instant::now();
    until("two more failures", || upstream(&proxy)["discovery"][0]["failures"].as_u64() >= Some(3));
    let rate = (dns.questions() - before) as f64 / began.elapsed().as_secs_f64().max(1.0);
    assert!(rate < 100.0, "{rate} questions a second");
}

#[test]
fn a_ttl_of_zero_is_asked_about_once_a_second() {
    let dns = ToldDns::start(&[("app.test", Answer::Addresses(vec![ALIVE], 0))]);
    let proxy = start(&dns, "app.test:80");
    until("it is found", || count(&proxy) == 1);
    let (before, began) = (dns.questions(), Instant::now());
    until("it is asked again", || dns.questions() >= before + 4);
    // Two questions, A and AAAA, each time.
    assert!(began.elapsed() > Duration::from_millis(800), "{:?}", began.elapsed());
}
