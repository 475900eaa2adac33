//! The table against what the language promises, sentence by sentence, and against the plain reference.

use std::{collections::BTreeSet, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::{reference, reference::Answer, *};
use crate::matcher::{Head, conditions};

/// A route in short: name, patterns (with "~" a regular expression), conditions, priority.
fn route(name: &str, patterns: &[&str], words: &[&str], priority: i32) -> Route<String> {
    let pattern =
        |text: &&str| text.strip_prefix('~').map_or_else(|| Pattern::path(text), Pattern::regex).unwrap();
    Route {
        name: name.parse().unwrap(),
        patterns: patterns.iter().map(pattern).collect(),
        conditions: Arc::new(conditions(words)),
        priority,
        payload: Arc::new(name.to_owned()),
    }
}

fn simple(pattern: &str) -> Route<String> {
    let name = pattern.replace(|c: char| !c.is_ascii_alphanumeric(), "");
    route(&format!("r{}", name.to_lowercase()), &[pattern], &[], 0)
}

fn build(routes: Vec<Route<String>>) -> (Table<String>, Vec<Problem>) {
    let mut builder = Builder::new();
    builder.host("h".parse().unwrap(), &[HostPattern::Any], routes);
    builder.build()
}

fn table(routes: Vec<Route<String>>) -> Table<String> {
    let (table, problems) = build(routes);
    assert_eq!(problems, []);
    table
}

fn problems(routes: Vec<Route<String>>) -> Vec<Problem> {
    build(routes).1
}

/// What is found, in short: "route a=1 b=2", "405 GET, OPTIONS", "no route", "no host".
fn ask<R: std::fmt::Display>(table: &Table<R>, host: &str, request: &str, fields: &[(&str, &str)]) -> String {
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let field = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
    };
    let headers: HeaderMap = fields.iter().map(field).collect();
    let client_ip = [10, 0, 0, 1].into();
    let head =
        Head { method: &method.parse().unwrap(), headers: &headers, query, client_ip, to_proxy: false };
    match table.find(host, path, &head) {
        Found::Route { host, route, params } => {
            let found =
                table.host(host).routes().iter().find(|known| Arc::ptr_eq(&known.payload, route)).unwrap();
            let names = captures(&found.patterns);
            assert_eq!(names.len(), params.len());
            let params =
                names.iter().enumerate().map(|(place, name)| format!(" {name}={}", params.get(place, path)));
            format!("{route}{}", params.collect::<String>())
        }
        Found::Method { allow, .. } => format!("405 {allow}"),
        Found::NoRoute { host } => format!("no route in {}", table.host(host).name()),
        Found::NoHost => "no host".into(),
    }
}

fn get(table: &Table<String>, path: &str) -> String {
    ask(table, "x", &format!("GET {path}"), &[])
}

// === hosts ===

fn hosts(names: &[(&str, &[&str])]) -> (Table<String>, Vec<Problem>) {
    let mut builder = Builder::new();
    for (name, patterns) in names {
        let patterns: Vec<HostPattern> = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        builder.host(name.parse().unwrap(), &patterns, vec![route(name, &["/a"], &[], 0)]);
    }
    builder.build()
}

#[test]
fn hosts_go_exact_then_the_longest_suffix_then_any() {
    let (table, problems) = hosts(&[
        ("any", &["*"]),
        ("wide", &["*.example.com"]),
        ("deep", &["*.b.example.com"]),
        ("exact", &["a.b.example.com", "example.com"]),
        ("top", &["*.com"]),
    ]);
    assert_eq!(problems, []);
    for (host, wanted) in [
        ("a.b.example.com", "exact"),
        ("example.com", "exact"),
        ("x.b.example.com", "deep"),
        ("y.x.b.example.com", "deep"),
        ("b.example.com", "wide"),
        ("x.y.z.example.com", "wide"),
        ("other.com", "top"),
        ("com", "any"),
        ("localhost", "any"),
        ("[::1]", "any"),
    ] {
        assert_eq!(ask(&table, host, "GET /a", &[]), wanted, "{host}");
    }
}

#[test]
fn a_host_without_a_route_does_not_fall_through() {
    let (table, _) = hosts(&[("any", &["*"]), ("exact", &["a.com"])]);
    assert_eq!(ask(&table, "a.com", "GET /b", &[]), "no route in exact");
    let (table, _) = hosts(&[("exact", &["a.com"])]);
    assert_eq!(ask(&table, "b.com", "GET /a", &[]), "no host");
    assert_eq!(ask(&table, "x.a.com", "GET /a", &[]), "no host");
}

#[test]
fn a_name_belongs_to_one_host() {
    let (_, problems) =
        hosts(&[("a", &["*", "a.com", "A.com"]), ("b", &["*.a.com", "a.com"]), ("c", &["*"])]);
    let duplicate = |pattern: &str, first, second| Problem::DuplicateHost {
        pattern: pattern.parse().unwrap(),
        first,
        second,
    };
    assert_eq!(problems, [duplicate("a.com", 0, 0), duplicate("a.com", 0, 1), duplicate("*", 0, 2)]);
}

// === the order, sentence by sentence ===

#[test]
fn patterns_are_most_specific_first_whatever_the_order() {
    let texts = ["/a/b", "/a/{x}", "/{y}/b", "/a/**", "/{y}/{z}", "/**", "/a/b/**"];
    for turn in 0..texts.len() {
        let mut turned = texts.to_vec();
        turned.rotate_left(turn);
        let table = table(turned.into_iter().map(simple).collect());
        assert_eq!(get(&table, "/a/b"), "rab");
        assert_eq!(get(&table, "/a/b/"), "rab");
        assert_eq!(get(&table, "/a/c"), "rax x=c");
        assert_eq!(get(&table, "/c/b"), "ryb y=c");
        assert_eq!(get(&table, "/c/d"), "ryz y=c z=d");
        assert_eq!(get(&table, "/a/c/d"), "ra");
        assert_eq!(get(&table, "/a"), "ra");
        assert_eq!(get(&table, "/c/d/e"), "r");
        assert_eq!(get(&table, "/"), "r");
    }
}

#[test]
fn a_literal_on_the_left_counts_more_than_one_on_the_right() {
    let table = table(vec![simple("/a/{x}/{y}"), simple("/{z}/b/c")]);
    assert_eq!(get(&table, "/a/b/c"), "raxy x=b y=c");
}

#[test]
fn a_dead_end_is_left_again() {
    let table = table(vec![simple("/a/b/c"), simple("/a/{x}/d"), simple("/{y}/b/e"), simple("/{all...}")]);
    assert_eq!(get(&table, "/a/b/c"), "rabc");
    assert_eq!(get(&table, "/a/b/d"), "raxd x=b");
    assert_eq!(get(&table, "/a/b/e"), "rybe y=a");
    assert_eq!(get(&table, "/a/b/f"), "rall all=a/b/f");
}

#[test]
fn a_prefix_matches_itself_and_all_below() {
    let table = table(vec![simple("/p/**"), simple("/q/{rest...}")]);
    for path in ["/p", "/p/", "/p/a", "/p/a/b/"] {
        assert_eq!(get(&table, path), "rp");
    }
    assert_eq!(get(&table, "/px"), "no route in h");
    assert_eq!(get(&table, "/q"), "rqrest rest=");
    assert_eq!(get(&table, "/q/"), "rqrest rest=");
    assert_eq!(get(&table, "/q/a%2Fb/c/"), "rqrest rest=a%2Fb/c/");
}

#[test]
fn among_routes_of_one_pattern_more_conditions_go_first_then_priority() {
    let table = table(vec![
        route("plain", &["/a/{x}"], &[], 9),
        route("one", &["/a/{y}"], &["header x=1"], 0),
        route("first", &["/a/{z}"], &["header y=1"], 1),
        route("two", &["/a/{z}"], &["header x=1", "query q"], -3),
    ]);
    assert_eq!(ask(&table, "x", "GET /a/1", &[]), "plain x=1");
    assert_eq!(ask(&table, "x", "GET /a/1", &[("x", "1")]), "one y=1");
    assert_eq!(ask(&table, "x", "GET /a/1", &[("x", "1"), ("y", "1")]), "first z=1");
    assert_eq!(ask(&table, "x", "GET /a/1?q", &[("x", "1"), ("y", "1")]), "two z=1");
}

#[test]
fn where_conditions_fail_the_next_pattern_is_tried() {
    let table = table(vec![route("beta", &["/a/b"], &["header x=1"], 0), simple("/a/{id}"), simple("/**")]);
    assert_eq!(ask(&table, "x", "GET /a/b", &[("x", "1")]), "beta");
    assert_eq!(ask(&table, "x", "GET /a/b", &[]), "raid id=b");
}

#[test]
fn where_only_the_method_fails_the_methods_are_told() {
    let table = table(vec![
        route("read", &["/a"], &["GET"], 0),
        route("write", &["/a"], &["PUT|DELETE"], 0),
        route("beta", &["/a"], &["PATCH", "header x=1"], 0),
        simple("/**"),
    ]);
    assert_eq!(ask(&table, "x", "PUT /a", &[]), "write");
    assert_eq!(ask(&table, "x", "POST /a", &[]), "405 DELETE, GET, HEAD, OPTIONS, PUT");
    assert_eq!(ask(&table, "x", "POST /a", &[("x", "1")]), "405 DELETE, GET, HEAD, OPTIONS, PATCH, PUT");
    assert_eq!(ask(&table, "x", "POST /b", &[]), "r");
}

#[test]
fn where_the_method_and_more_fails_the_next_pattern_is_tried() {
    let table = table(vec![route("beta", &["/a"], &["GET", "header x=1"], 0), simple("/**")]);
    assert_eq!(ask(&table, "x", "POST /a", &[]), "r");
    assert_eq!(ask(&table, "x", "POST /a", &[("x", "1")]), "405 GET, HEAD, OPTIONS");
}

#[test]
fn a_route_that_lists_get_answers_head() {
    let table = table(vec![route("a", &["/a"], &["GET"], 0), route("b", &["/b"], &["POST"], 0)]);
    assert_eq!(ask(&table, "x", "HEAD /a", &[]), "a");
    assert_eq!(ask(&table, "x", "HEAD /b", &[]), "405 OPTIONS, POST");
}

#[test]
fn options_goes_to_routes_that_take_it_and_is_else_answered_with_the_methods() {
    let table = table(vec![
        route("get", &["/a"], &["GET"], 0),
        route("options", &["/b"], &["OPTIONS"], 0),
        route("get-b", &["/b"], &["GET"], 0),
        simple("/any"),
    ]);
    assert_eq!(ask(&table, "x", "OPTIONS /a", &[]), "405 GET, HEAD, OPTIONS");
    assert_eq!(ask(&table, "x", "OPTIONS /b", &[]), "options");
    assert_eq!(ask(&table, "x", "OPTIONS /any", &[]), "rany");
    assert_eq!(ask(&table, "x", "OPTIONS /none", &[]), "no route in h");
}

#[test]
fn regexes_stand_before_or_after_all_patterns() {
    let table = table(vec![
        route("versioned", &["~^/v(?<major>[0-9]+)/"], &[], 10),
        route("higher", &["~^/v2/"], &[], 11),
        route("late", &["~^/late/(?<x>.)?"], &[], -1),
        route("zero", &["~^/late/z"], &[], 0),
        simple("/v1/{x}"),
        simple("/late/a"),
    ]);
    assert_eq!(get(&table, "/v1/a"), "versioned major=1");
    assert_eq!(get(&table, "/v2/a"), "higher");
    assert_eq!(get(&table, "/late/a"), "rlatea");
    assert_eq!(get(&table, "/late/b"), "late x=b");
    assert_eq!(get(&table, "/late/"), "late x=");
    assert_eq!(get(&table, "/late/z"), "zero");
}

#[test]
fn a_list_of_paths_means_any_of_them_and_captures_go_by_name() {
    let table =
        table(vec![route("two", &["/a/{x}/{y}", "/b/{y}/{only}/{x}", "~^/c/(?<y>.)(?<x>.)"], &[], 0)]);
    assert_eq!(get(&table, "/a/1/2"), "two x=1 y=2");
    assert_eq!(get(&table, "/b/2/0/1"), "two x=1 y=2");
    assert_eq!(get(&table, "/c/21"), "two x=1 y=2");
}

#[test]
fn many_siblings_are_found_as_few_are() {
    let table = table((0..100).map(|n| simple(&format!("/s{n}/{{x}}"))).collect());
    for n in 0..100 {
        assert_eq!(get(&table, &format!("/s{n}/y")), format!("rs{n}x x=y"));
    }
    assert_eq!(get(&table, "/s100/y"), "no route in h");
}

#[test]
fn the_listing_is_the_order() {
    let table = table(vec![simple("/**"), simple("/{x}"), simple("/a"), route("re", &["~^/a"], &[], 1)]);
    let listed: Vec<String> = table.host(0).listed().map(|listed| listed.pattern.to_string()).collect();
    assert_eq!(listed, ["regex ^/a", "/a", "/{x}", "/**"]);
}

// === problems ===

fn at(route: usize) -> At {
    At { route, pattern: 0 }
}

#[test]
fn a_tie_is_an_error() {
    let tie = Problem::Ambiguous { host: 0, a: at(0), b: at(1) };
    for (a, b) in [
        (simple("/a/{x}"), simple("/a/{y}")),
        (simple("/p/**"), simple("/p/{rest...}")),
        (route("a", &["/a"], &["header x=1"], 0), route("b", &["/a"], &["header y=1"], 0)),
        (route("a", &["/a"], &["GET"], 0), route("b", &["/a"], &["HEAD"], 0)),
        (route("a", &["~^/a"], &[], 1), route("b", &["~^/a"], &[], 1)),
        (route("a", &["~^/a"], &[], 0), route("b", &["~b"], &["GET"], 0)),
    ] {
        assert_eq!(problems(vec![a, b]), std::slice::from_ref(&tie));
    }
}

#[test]
fn what_excludes_each_other_or_has_a_priority_is_no_tie() {
    for (a, b) in [
        (route("a", &["/a"], &["GET"], 0), route("b", &["/a"], &["POST"], 0)),
        (route("a", &["/a"], &["header x=1"], 0), route("b", &["/a"], &["header x=2"], 0)),
        (route("a", &["/a"], &["header x"], 0), route("b", &["/a"], &["header !x"], 0)),
        (route("a", &["/a"], &["ip 10.0.0.0/8"], 0), route("b", &["/a"], &["ip 11.0.0.0/8"], 0)),
        (route("a", &["/a"], &["header x=1"], 0), route("b", &["/a"], &["header y=1"], 1)),
        (route("a", &["~^/a"], &[], 1), route("b", &["~a"], &[], 2)),
        (route("a", &["~^/a"], &[], 1), route("b", &["~^/b"], &[], 1)),
        (route("a", &["~^/a"], &["GET"], 1), route("b", &["~a"], &["POST"], 1)),
        (route("a", &["~^/a"], &[], 1), route("b", &["/a"], &[], 1)),
    ] {
        assert_eq!(problems(vec![a, b]), []);
    }
}

#[test]
fn a_pattern_written_twice_in_a_route_is_told() {
    let repeated = Problem::Repeated { host: 0, first: at(0), second: At { route: 0, pattern: 1 } };
    assert_eq!(problems(vec![route("a", &["/p/**", "/p/{rest...}"], &[], 0)]), [repeated]);
}

#[test]
fn routes_that_nothing_reaches_are_told() {
    let shadowed = |route, by| Problem::Shadowed { host: 0, route, by };
    let plain = |priority| route("a", &["/a"], &[], priority);
    assert_eq!(problems(vec![plain(0), plain(1)]), [shadowed(0, 1)]);
    let same = |priority| route("a", &["/a"], &["GET"], priority);
    assert_eq!(problems(vec![same(1), same(0)]), [shadowed(1, 0)]);
    let all = route("all", &["~^/"], &[], 1);
    assert_eq!(problems(vec![all, plain(5)]), [shadowed(1, 0)]);
    let late = route("late", &["~^/x"], &["GET"], 0);
    assert_eq!(problems(vec![simple("/**"), late]), [shadowed(1, 0)]);
    let partly = route("partly", &["/a", "/b"], &[], 0);
    assert_eq!(problems(vec![plain(1), partly]), []);
    let wider = route("wider", &["/a"], &["GET|POST"], 0);
    assert_eq!(problems(vec![same(1), wider]), []);
}

// === near misses ===

#[test]
fn near_misses_say_what_failed() {
    let table = table(vec![
        route("stream", &["/api/v1/streams/{id}"], &["GET|DELETE", "header x-beta=1"], 0),
        route("other", &["/api/v1/orders/{id}"], &[], 0),
        route("far", &["/static/**"], &[], 0),
        route("re", &["~^/api/v[0-9]+/"], &["query debug"], 0),
    ]);
    let headers = HeaderMap::new();
    let head = Head {
        method: &Method::POST,
        headers: &headers,
        query: None,
        client_ip: [10, 0, 0, 1].into(),
        to_proxy: false,
    };
    let told: Vec<String> = table
        .nearest("x", "/api/v1/streams/7", &head)
        .iter()
        .map(|miss| {
            let failed: Vec<_> = miss.path.iter().chain(&miss.failed).cloned().collect();
            format!("{} {}: {}", miss.route, miss.pattern, failed.join("; "))
        })
        .collect();
    assert_eq!(
        told,
        [
            "re regex ^/api/v[0-9]+/: query debug is present",
            "stream /api/v1/streams/{id}: method is GET or HEAD or DELETE; header x-beta is \"1\"",
            "other /api/v1/orders/{id}: path has \"streams\" where \"orders\" is wanted",
        ]
    );
    let told = table.nearest("x", "/api/v1/streams/7/x", &head);
    assert!(told.iter().any(|miss| miss.path.as_deref() == Some("path goes on with \"/x\"")), "{told:?}");
}

// === against the reference ===

fn any_pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![3 => Just("a"), 2 => Just("b"), 1 => Just("c"), 3 => Just("{}")];
    let tail = prop_oneof![3 => Just(""), 1 => Just("/"), 1 => Just("/**"), 1 => Just("/{rest...}")];
    let path = (prop::collection::vec(segment, 0..4), tail).prop_map(|(segments, tail)| {
        let names = ["x", "y", "z"];
        let segment = |(place, text): (usize, &str)| text.replace("{}", &format!("{{{}}}", names[place]));
        let path: String =
            segments.into_iter().enumerate().map(|part| format!("/{}", segment(part))).collect();
        if path.is_empty() && tail.is_empty() { "/".to_owned() } else { path + tail }
    });
    let regex = prop::sample::select(vec!["~^/a", "~b", "~^/(?<x>[ab])/", "~^/c$"]).prop_map(str::to_owned);
    prop_oneof![6 => path, 1 => regex]
}

fn any_route() -> impl Strategy<Value = Route<String>> {
    let condition = prop::sample::select(vec![
        "GET",
        "POST",
        "GET|PUT",
        "header x=1",
        "header x=2",
        "header !x",
        "header y",
        "query q=1",
        "cookie c~^a",
    ]);
    let (patterns, conditions) =
        (prop::collection::vec(any_pattern(), 1..3), prop::collection::vec(condition, 0..3));
    (patterns, conditions, -1..3).prop_map(|(patterns, conditions, priority)| {
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        route("r", &patterns, &conditions, priority)
    })
}

fn any_request() -> impl Strategy<Value = String> {
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "OPTIONS"]);
    let query = prop::sample::select(vec!["", "?q=1", "?q=2"]);
    (method, "(/[abcd]){0,4}/?", query).prop_map(|(method, path, query)| {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        format!("{method} {path}{query}")
    })
}

fn any_fields() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let fields = vec![("x", "1"), ("x", "2"), ("y", "1"), ("cookie", "c=ab")];
    prop::sample::subsequence(fields, 0..=3)
}

fn asked(table: &Table<String>, request: &str, fields: &[(&'static str, &'static str)]) -> (Answer, Answer) {
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let client_ip = [10, 0, 0, 1].into();
    let head =
        Head { method: &method.parse().unwrap(), headers: &headers, query, client_ip, to_proxy: false };
    let routes = table.host(0).routes();
    let answer = match table.find("x", path, &head) {
        Found::Route { route, params, .. } => {
            let index = routes.iter().position(|known| Arc::ptr_eq(&known.payload, route)).unwrap();
            Answer::Route(index, (0..params.len()).map(|place| params.get(place, path).to_owned()).collect())
        }
        Found::Method { allow, .. } => {
            Answer::Method(allow.methods().iter().map(ToString::to_string).collect::<BTreeSet<_>>())
        }
        Found::NoRoute { .. } | Found::NoHost => Answer::Nothing,
    };
    (answer, reference::find(routes, path, &head))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_answers_as_the_reference_does(
        routes in prop::collection::vec(any_route(), 0..24),
        requests in prop::collection::vec((any_request(), any_fields()), 1..12),
    ) {
        let (table, _) = build(routes);
        for (request, fields) in requests {
            let (answer, wanted) = asked(&table, &request, &fields);
            prop_assert_eq!(answer, wanted, "{} {:?}", request, fields);
        }
    }

    #[test]
    fn the_order_in_which_routes_are_written_changes_nothing(
        routes in prop::collection::vec(any_route(), 0..12),
        requests in prop::collection::vec((any_request(), any_fields()), 1..12),
    ) {
        let reversed: Vec<Route<String>> = routes.iter().rev().cloned().collect();
        let ((table, problems), (turned, _)) = (build(routes), build(reversed));
        prop_assume!(!problems.iter().any(|problem| matches!(problem, Problem::Ambiguous { .. })));
        let last = table.host(0).routes().len();
        for (request, fields) in requests {
            match (asked(&table, &request, &fields).0, asked(&turned, &request, &fields).0) {
                (Answer::Route(a, _), Answer::Route(b, _)) => prop_assert_eq!(a, last - 1 - b),
                (a, b) => prop_assert_eq!(a, b),
            }
        }
    }

    #[test]
    fn any_text_as_a_pattern_gets_an_answer(text in "/?([{}a./*%]|\\.\\.\\.|\\PC){0,12}", path in "(/[a%2F]{0,3}){1,5}") {
        if let Ok(pattern) = text.parse::<PathPattern>() {
            prop_assert_eq!(pattern.to_string(), text);
            let _ = pattern.matches(&path);
        }
    }
}
