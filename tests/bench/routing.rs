//! Looking routes up and building the table, at 10, 1,000 and 100,000 routes, ten to a host.

use std::{hint::black_box, sync::Arc};

use divan::Bencher;
use http::{HeaderMap, Method};
use portolan::{
    http::{
        authority::Authority,
        path::{EncodedSlash, normalise},
    },
    matcher::{Conditions, Fields, Head, Source, Texts},
    routing::{Builder, Found, HostPattern, Pattern, Route, Table},
    value::{self, Name, Span, Spanned},
};

const SIZES: [usize; 3] = [10, 1_000, 100_000];

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES)]
fn find_literal(bencher: Bencher, routes: usize) {
    find(bencher, routes, "/api/v1/orders");
}

#[divan::bench(args = SIZES)]
fn find_capture(bencher: Bencher, routes: usize) {
    find(bencher, routes, "/api/v1/streams/7/parts/12");
}

#[divan::bench(args = SIZES)]
fn find_rest(bencher: Bencher, routes: usize) {
    find(bencher, routes, "/static/css/site/main.css");
}

#[divan::bench(args = SIZES)]
fn find_nothing(bencher: Bencher, routes: usize) {
    find(bencher, routes, "/api/v9/nothing/of/the/kind");
}

/// Another host each time, so that what is looked at is not in the processor's caches.
#[divan::bench(args = SIZES)]
fn find_across_hosts(bencher: Bencher, routes: usize) {
    let table = table(written(routes));
    let count = routes / PATTERNS.len();
    let hosts: Vec<String> = (0..count).map(|n| format!("host-{}.example.com", n * 7919 % count)).collect();
    let mut hosts = hosts.iter().cycle();
    bencher.bench_local(|| hosts.next().map(|host| lookup(&table, host, "/api/v1/streams/7/parts/12")));
}

/// All routes in one host, so that literals have many siblings.
#[divan::bench(args = SIZES)]
fn find_in_one_host(bencher: Bencher, routes: usize) {
    let texts = (0..routes).map(|n| format!("/tenant-{n}/{{id}}/**"));
    let mut builder = Builder::new();
    builder.host(name("all"), &[HostPattern::Any], texts.map(|text| route(&text, &[])).collect());
    let (table, _) = builder.build();
    let path = format!("/tenant-{}/7/a/b", routes / 2);
    bencher.bench_local(|| lookup(&table, "any.example", &path));
}

#[divan::bench]
fn normalise_path(bencher: Bencher) {
    let path = black_box("/api/v1/streams/7/parts/12");
    bencher.bench_local(|| normalise(black_box(path), EncodedSlash::Reject).is_ok());
}

#[divan::bench]
fn read_authority(bencher: Bencher) {
    bencher.bench_local(|| Authority::parse(black_box("host-5.example.com:8443")).is_ok());
}

#[divan::bench(args = SIZES, sample_count = 10)]
fn build(bencher: Bencher, routes: usize) {
    bencher.with_inputs(|| written(routes)).bench_local_values(table);
}

fn find(bencher: Bencher, routes: usize, path: &str) {
    let table = table(written(routes));
    let host = format!("host-{}.example.com", routes / 20);
    bencher.bench_local(|| lookup(&table, &host, path));
}

fn lookup(table: &Table<usize>, host: &str, path: &str) -> bool {
    let headers = HeaderMap::new();
    let head = Head {
        method: &Method::GET,
        headers: &headers,
        query: None,
        client_ip: [127, 0, 0, 1].into(),
        to_proxy: false,
    };
    matches!(table.find(black_box(host), black_box(path), &head), Found::Route { .. })
}

type Written = Vec<(Name, HostPattern, Vec<Route<usize>>)>;

fn written(routes: usize) -> Written {
    let host = |n: usize| {
        let routes = PATTERNS.iter().map(|(text, methods)| route(text, methods)).collect();
        (name(&format!("h{n}")), format!("host-{n}.example.com").parse().expect("a name"), routes)
    };
    (0..routes / PATTERNS.len()).map(host).collect()
}

fn table(written: Written) -> Table<usize> {
    let mut builder = Builder::new();
    for (name, pattern, routes) in written {
        builder.host(name, &[pattern], routes);
    }
    let (table, problems) = builder.build();
    assert!(problems.is_empty(), "{problems:?}");
    table
}

const PATTERNS: [(&str, &[&str]); 10] = [
    ("/", &[]),
    ("/health", &["GET"]),
    ("/api/v1/orders", &["GET", "POST"]),
    ("/api/v1/orders/{id}", &["GET", "DELETE"]),
    ("/api/v1/streams/{id}", &["GET"]),
    ("/api/v1/streams/{id}", &["POST"]),
    ("/api/v1/streams/{id}/parts/{part}", &[]),
    ("/api/v2/**", &[]),
    ("/static/**", &["GET"]),
    ("/old/{rest...}", &[]),
];

fn route(text: &str, methods: &[&str]) -> Route<usize> {
    let method =
        |method: &&str| Spanned::new(method.parse::<value::Method>().expect("a method"), Span::default());
    let methods: Vec<_> = methods.iter().map(method).collect();
    let (headers, query, cookies) = (&Fields::default(), &Texts::default(), &Texts::default());
    let source = Source { methods: &methods, headers, query, cookies, client_ip: &[], to_proxy: false };
    Route {
        name: name("route"),
        patterns: Arc::new([Pattern::path(text).expect("a pattern")]),
        conditions: Arc::new(Conditions::compile(source).expect("no regex stands in them")),
        priority: 0,
        payload: Arc::new(0),
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}
