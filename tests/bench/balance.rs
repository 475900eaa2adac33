//! What choosing one of 1,000 endpoints costs, by algorithm: idle ones, busy ones, and ones of different weights.

use std::sync::Arc;

use divan::Bencher;
use http::HeaderMap;
use portolan::{
    upstream::{
        Balance, Denied, EndpointSettings, Facts, Pick, PickKey, Pool, Registry, Resilience, Settings,
        Timeouts, Tried, Upstream,
    },
    value::Clock,
};

const ALGORITHMS: [&str; 7] = [
    "round_robin",
    "random_two",
    "least_requests",
    "ewma",
    "hash",
    "consistent_hash",
    "consistent_hash_bounded",
];

fn main() {
    divan::main();
}

fn balance(name: &str) -> Balance {
    let key = "path".parse().expect("a key");
    match name {
        "round_robin" => Balance::RoundRobin,
        "random_two" => Balance::RandomTwo,
        "least_requests" => Balance::LeastRequests,
        "ewma" => Balance::Ewma,
        "hash" => Balance::Hash(key),
        "consistent_hash" => Balance::ConsistentHash(key),
        _ => Balance::BoundedHash(key, 125),
    }
}

fn upstream(name: &str, weight: impl Fn(u32) -> u16) -> Arc<Upstream> {
    let long = std::time::Duration::from_secs(60);
    let endpoint = |nth: u32| {
        let address = std::net::SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + nth), 80));
        let address = Denied::default().admit(portolan::value::Address::Tcp(address)).expect("it is allowed");
        EndpointSettings::new(address, weight(nth))
    };
    let settings = Settings {
        name: "pool".parse().expect("a name"),
        endpoints: (1..=1000).map(endpoint).collect(),
        sources: Vec::new(),
        resolvers: Arc::default(),
        denied: Denied::default(),
        balance: balance(name),
        protocol: Default::default(),
        tls: None,
        proxy_protocol: None,
        health: None,
        timeouts: Timeouts { connect: long, first_byte: long, body_idle: long },
        pool: Pool::of_idle(long),
        in_flight: None,
        response_limits: Default::default(),
        retry: Default::default(),
        sticky: None,
        zone: None,
        resilience: Resilience::default(),
    };
    Upstream::build(settings, &Registry::new(Clock::machine(), None, Arc::default()))
}

fn keys(upstream: &Upstream) -> Vec<PickKey> {
    let fields = HeaderMap::new();
    let key = |path: String| {
        let client_ip = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        upstream.key(&Facts { client_ip, host: "a", path: &path, query: None, headers: &fields })
    };
    (0..1024).map(|nth| key(format!("/{nth}"))).collect()
}

fn measure(bencher: Bencher, upstream: &Upstream) {
    let (keys, tried) = (keys(upstream), Tried::default());
    let mut nth = 0;
    bencher.bench_local(|| {
        nth = (nth + 1) % keys.len();
        upstream.pick(keys[nth], &tried)
    });
}

#[divan::bench(args = ALGORITHMS)]
fn idle(bencher: Bencher, name: &str) {
    measure(bencher, &upstream(name, |_| 1));
}

/// Each endpoint has some eight requests in flight, and its latency is known.
#[divan::bench(args = ALGORITHMS)]
fn busy(bencher: Bencher, name: &str) {
    let upstream = upstream(name, |_| 1);
    let (keys, tried) = (keys(&upstream), Tried::default());
    let held: Vec<Pick> = (0..8000).filter_map(|nth| upstream.pick(keys[nth % 1024], &tried)).collect();
    for pick in &held {
        let latency = std::time::Duration::from_millis(20);
        upstream.answered(pick, http::StatusCode::OK, std::time::Instant::now(), latency);
    }
    measure(bencher, &upstream);
    drop(held);
}

#[divan::bench(args = ALGORITHMS)]
fn weighted(bencher: Bencher, name: &str) {
    measure(bencher, &upstream(name, |nth| (nth % 100 + 1) as u16));
}
