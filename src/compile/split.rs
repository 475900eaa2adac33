//! Splits: each entry's upstream and conditions, and what the entries are together.

use std::sync::Arc;

use super::context::Context;
use crate::{
    action::{
        proxy,
        split::{self, Part, config::Entry},
    },
    matcher::{Conditions, Source},
    snapshot::Action,
    value::{Name, Spanned},
};

/// Compiles the split of a route, which is written at `site`. `proxy` compiles what is done with one upstream.
pub(super) fn split(
    cx: &Context<'_>,
    (written, entries): (&proxy::Config, &Spanned<Vec<Spanned<Entry>>>),
    site: &str,
    proxy: impl Fn(&Spanned<Name>) -> Option<Arc<proxy::Proxy>>,
) -> Option<Action> {
    let part =
        |entry: &Spanned<Entry>| Part { proxy: proxy(&entry.upstream), conditions: conditions(cx, entry) };
    let parts = entries.iter().map(part).collect();
    let by = written.split_by.as_ref();
    let compile = |out: &mut _| {
        split::compile(entries, by.map(|by| &**by), (site.into(), parts), &cx.registries.splits, out)
    };
    cx.report.collect(compile).map(|split| Action::Split(Arc::new(split)))
}

fn conditions(cx: &Context<'_>, entry: &Entry) -> Option<Option<Conditions>> {
    let source = Source {
        methods: &[],
        headers: &entry.headers,
        query: &entry.query,
        cookies: &entry.cookies,
        client_ip: &[],
        to_proxy: false,
    };
    match Conditions::compile(source) {
        Ok(conditions) if conditions.count() == 0 => Some(None),
        Ok(conditions) => Some(Some(conditions)),
        Err(problems) => {
            problems.iter().for_each(|problem| cx.bad_regex(problem.span, &problem.value));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::{
        action::split::{Decision, Split},
        compile::cases::sound,
        matcher::Head,
        upstream::Facts,
    };

    const TREE: &str = r#"
listeners: { web: { bind: ":80" } }
upstreams:
  a: { endpoints: ["127.0.0.1:1"] }
  b: { endpoints: ["127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4"], balance: { hash: client_ip } }
  c: { endpoints: ["127.0.0.1:5"] }
hosts: { www: { names: ["*"], routes: { all: { path: "/**", proxy: { split: [SPLIT] BY } } } } }
"#;

    fn compiled(entries: &[(&str, u16)], by: &str) -> Arc<Split> {
        let entries =
            entries.iter().map(|(upstream, weight)| format!("{{ upstream: {upstream}, weight: {weight} }}"));
        let entries = entries.collect::<Vec<_>>().join(", ");
        let snapshot = sound(&TREE.replace("SPLIT", &entries).replace("BY", by));
        let listener = snapshot.listeners.values().next().unwrap();
        let route = listener.table.hosts()[0].routes().first().unwrap();
        let Action::Split(split) = &route.payload.action else { panic!("no split") };
        split.clone()
    }

    /// The side of a user, who is known by an address; `roll` is chance.
    fn side(split: &Split, user: u32, roll: u64) -> usize {
        let headers = HeaderMap::new();
        let client_ip = std::net::Ipv4Addr::from(0x0a00_0000 + user).into();
        let facts = Facts { client_ip, host: "a", path: "/", query: None, headers: &headers };
        let head = Head { method: &Method::GET, headers: &headers, query: None, client_ip, to_proxy: false };
        split.choose(&head, &facts, roll).side
    }

    const USERS: u32 = 100_000;

    fn sides(split: &Split) -> Vec<usize> {
        let mut chance = fastrand::Rng::with_seed(7);
        (0..USERS).map(|user| side(split, user, chance.u64(..))).collect()
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        for weights in
            [&[("a", 95), ("b", 5)][..], &[("a", 1), ("b", 1), ("c", 1)], &[("a", 7), ("b", 0), ("c", 2)]]
        {
            for by in ["", ", split_by: client_ip"] {
                let sides = sides(&compiled(weights, by));
                let total: u16 = weights.iter().map(|(_, weight)| weight).sum();
                for (place, (_, weight)) in weights.iter().enumerate() {
                    let share = sides.iter().filter(|side| **side == place).count() as f64 / f64::from(USERS);
                    let due = f64::from(*weight) / f64::from(total);
                    assert!(
                        (share - due).abs() <= due * 0.02 + 0.0005,
                        "{weights:?} {by}: {share} instead of {due}"
                    );
                }
            }
        }
    }

    #[test]
    fn other_weights_move_only_the_users_in_between() {
        let by = ", split_by: client_ip";
        let (before, after) =
            (sides(&compiled(&[("a", 95), ("b", 5)], by)), sides(&compiled(&[("a", 90), ("b", 10)], by)));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|moved| *moved == (&0, &1)), "only from a to b");
        let share = moved.len() as f64 / f64::from(USERS);
        assert!((share - 0.05).abs() < 0.002, "{share}");
    }

    #[test]
    fn a_side_is_apart_from_what_balancers_choose_by() {
        let split = compiled(&[("a", 90), ("b", 10)], ", split_by: client_ip");
        let upstream = &split.sides[1].proxy.upstream;
        let mut counts = std::collections::BTreeMap::new();
        for user in (0..USERS).filter(|user| side(&split, *user, 0) == 1) {
            let headers = HeaderMap::new();
            let client_ip = std::net::Ipv4Addr::from(0x0a00_0000 + user).into();
            let facts = Facts { client_ip, host: "a", path: "/", query: None, headers: &headers };
            let pick = upstream.pick(upstream.key(&facts), &Default::default()).unwrap();
            *counts.entry(pick.endpoint.shown.to_string()).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 3);
        assert!(counts.values().all(|count| (2_900..=3_800).contains(count)), "{counts:?}");
    }

    #[test]
    fn chance_decides_only_where_nothing_else_does() {
        let headers = HeaderMap::new();
        let client_ip = std::net::Ipv4Addr::LOCALHOST.into();
        let facts = Facts { client_ip, host: "a", path: "/", query: None, headers: &headers };
        let head = Head { method: &Method::GET, headers: &headers, query: None, client_ip, to_proxy: false };
        let decided = |by: &str| compiled(&[("a", 1), ("b", 1)], by).decide(&head, &facts);
        assert_eq!(decided(""), Decision::Chance);
        assert_eq!(decided(", split_by: \"header:X-User\""), Decision::Chance);
        assert_eq!(decided(", split_by: { cookie: side }"), Decision::Chance);
        assert!(matches!(decided(", split_by: client_ip"), Decision::Side(_)));
    }
}
