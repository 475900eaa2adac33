//! Lets in by the client's address.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Builder, Context, Exchange, Mode, Next, OnRequest, Refusal};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    value::{Cidr, FilePath, Span, Spanned, TextOr},
};

pub const ADDS_UP: bool = true;

/// Lets in by the client's address, as trusted proxies tell it; others are refused with 403. Of several in a chain,
/// each holds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Ip")]
pub struct Config {
    /// Networks and addresses that are let in, and no others: 10.0.0.0/8, "2001:db8::/32", or { file: office.txt } with
    /// one on each line. Default: all are.
    pub allow: Option<Spanned<Vec<Spanned<Networks>>>>,
    /// Networks and addresses that are refused, whatever `allow` says. Default: none.
    pub deny: Option<Spanned<Vec<Spanned<Networks>>>>,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    pub mode: Mode,
}

/// A network, or a map that says where networks stand.
pub type Networks = TextOr<Cidr, NetworkMap>;

/// Networks told otherwise than one by one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "NetworkMap")]
pub enum NetworkMap {
    /// A file with one network or address on each line; what follows a # is left out. It is read again when it changes.
    File(Spanned<FilePath>),
}

struct Ip {
    allow: Option<NetworkSet>,
    deny: NetworkSet,
}

/// Networks none of which lies in another, in their order.
#[derive(Debug, Default)]
pub(super) struct NetworkSet(Box<[IpNet]>);

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder) {
    let allow = config.allow.as_ref().map(|written| {
        if written.is_empty() {
            let problem = Diagnostic::error(Code::BadValue, written.span, "nobody is let in");
            cx.diagnostics.push(problem.help("leave it out to let in all but those of deny"));
        }
        NetworkSet::compile(&written.value, cx)
    });
    let deny = config.deny.as_ref().map(|written| {
        if written.is_empty() {
            let problem = Diagnostic::error(Code::NoEffect, written.span, "nobody is refused");
            cx.diagnostics.push(problem.help("leave it out"));
        }
        NetworkSet::compile(&written.value, cx)
    });
    chain.guard(config.mode, Arc::new(Ip { allow, deny: deny.unwrap_or_default() }));
}

impl OnRequest for Ip {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        let ip = exchange.client_ip;
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.contains(ip));
        match allowed && !self.deny.contains(ip) {
            true => Next::Continue,
            false => Refusal::new(Reason::IpRefused).into(),
        }
    }
}

impl NetworkSet {
    pub(super) fn compile(written: &[Spanned<Networks>], cx: &mut Context<'_>) -> Self {
        let mut all = Vec::new();
        for networks in written {
            match &networks.value {
                TextOr::Text(network) => all.push(network.0),
                TextOr::Map(NetworkMap::File(file)) => {
                    let Some(content) = cx.world.files.text(file) else { continue };
                    all.extend(listed(&content, file.span, cx));
                }
            }
        }
        Self::new(&all)
    }

    fn new(all: &[IpNet]) -> Self {
        let mut networks = IpNet::aggregate(&all.to_vec());
        networks.sort_by_key(IpNet::network);
        Self(networks.into())
    }

    /// An IPv4-mapped IPv6 address counts as the IPv4 one.
    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let after = self.0.partition_point(|network| network.network() <= ip);
        after.checked_sub(1).is_some_and(|at| self.0[at].contains(&ip))
    }
}

/// The networks of a file. What is none is told with its line.
fn listed(text: &str, file: Span, cx: &mut Context<'_>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match line.parse::<Cidr>() {
            Ok(network) => networks.push(network.0),
            Err(reason) => {
                let message = format!("line {} of this file is no network", at + 1);
                cx.diagnostics.push(Diagnostic::error(Code::BadValue, file, message).reason(reason));
            }
        }
    }
    networks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(networks: &[&str]) -> NetworkSet {
        NetworkSet::new(&networks.iter().map(|text| text.parse::<Cidr>().unwrap().0).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_is_found_in_what_holds_it() {
        let set = set(&["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "2001:db8::/32", "192.0.2.128/25", "::1"]);
        for inside in
            ["10.0.0.0", "10.255.255.255", "10.1.2.3", "192.0.2.7", "192.0.2.200", "2001:db8::1", "::1"]
        {
            assert!(set.contains(inside.parse().unwrap()), "{inside}");
        }
        assert!(set.contains("::ffff:10.1.2.3".parse().unwrap()));
        for outside in
            ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "192.0.2.127", "2001:db9::", "::2"]
        {
            assert!(!set.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(!NetworkSet::default().contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn deny_goes_before_allow() {
        let mut exchange = Exchange::for_tests("GET", "/");
        for (allow, deny, ip, passes) in [
            (None, &[][..], "192.0.2.1", true),
            (Some(&["10.0.0.0/8"][..]), &[][..], "10.0.0.1", true),
            (Some(&["10.0.0.0/8"]), &[], "192.0.2.1", false),
            (Some(&["10.0.0.0/8"]), &["10.1.0.0/16"], "10.1.0.1", false),
            (None, &["10.1.0.0/16"], "10.1.0.1", false),
            (None, &["10.1.0.0/16"], "10.2.0.1", true),
        ] {
            let part = Ip { allow: allow.map(set), deny: set(deny) };
            exchange.client_ip = ip.parse().unwrap();
            let passed = matches!(part.on_request(&mut exchange), Next::Continue);
            assert_eq!(passed, passes, "{allow:?} {deny:?} {ip}");
        }
    }
}
