//! Endpoints and their sources: each entry says one thing, and each thing stands once.

use std::{
    collections::{HashMap, hash_map},
    hash::Hash,
    time,
};

use super::{Context, duration, refuse};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    upstream::{
        config::{Endpoint, EndpointMap, EndpointText, Prefer},
        discovery::{Definition, HEAVIEST},
        reach::{Denied, Reachable},
        settings::{EndpointSettings, SourceSettings},
    },
    value::{Address, FilePath, Name, Span, Spanned, TextOr},
};

/// What an upstream's list of endpoints comes to.
#[derive(Debug, Default)]
pub struct Endpoints {
    pub listed: Vec<EndpointSettings>,
    pub sources: Vec<SourceSettings>,
}

/// What one entry says.
enum Entry {
    Listed(EndpointSettings),
    Source(SourceSettings),
}

const LAST_PRIORITY: u32 = 100;
/// The priority of a backup, after all others.
const BACKUP: u32 = u32::MAX;
const SHORTEST_REFRESH: time::Duration = time::Duration::from_secs(1);
const FORMS: &str =
    "address: \"10.0.0.1:80\", dns: \"app:80\", srv: \"_http._tcp.app\" or file: endpoints.yaml";

/// `None` where an error was reported.
pub fn endpoints(written: &Spanned<Vec<Spanned<Endpoint>>>, cx: &mut Context<'_>) -> Option<Endpoints> {
    if written.is_empty() {
        let message = "an upstream has at least one endpoint";
        return refuse(
            cx.out,
            Diagnostic::error(Code::NoEndpoints, written.span, message).reason("there is none"),
        );
    }
    let (mut addresses, mut sources) = (HashMap::new(), HashMap::new());
    let mut endpoints = Some(Endpoints::default());
    for endpoint in &written.value {
        let entry = match &endpoint.value {
            TextOr::Text(EndpointText::Address(address)) => {
                listed(address, endpoint.span, &EndpointMap::default(), cx)
            }
            TextOr::Text(EndpointText::Name(name)) => {
                Some(Entry::Source(source(Definition::Dns(name.clone()))))
            }
            TextOr::Map(map) => self::entry(map, endpoint.span, cx),
        };
        let is_first = match &entry {
            Some(Entry::Listed(own)) => {
                is_first(&mut addresses, own.address.address(), endpoint.span, cx.out)
            }
            Some(Entry::Source(own)) => is_first(&mut sources, &own.definition, endpoint.span, cx.out),
            None => false,
        };
        match (entry, &mut endpoints) {
            (Some(Entry::Listed(own)), Some(all)) if is_first => all.listed.push(own),
            (Some(Entry::Source(own)), Some(all)) if is_first => all.sources.push(own),
            _ => endpoints = None,
        }
    }
    endpoints
}

fn is_first<K: Clone + Eq + Hash + std::fmt::Display>(
    places: &mut HashMap<K, Span>,
    key: &K,
    span: Span,
    out: &mut Diagnostics,
) -> bool {
    match places.entry(key.clone()) {
        hash_map::Entry::Vacant(place) => {
            place.insert(span);
            true
        }
        hash_map::Entry::Occupied(first) => {
            out.push(
                Diagnostic::error(Code::DuplicateName, span, format!("{key} stands twice"))
                    .reason("the second time")
                    .label(*first.get(), "the first time")
                    .help("an endpoint that is to get more requests has a greater weight"),
            );
            false
        }
    }
}

fn entry(map: &EndpointMap, span: Span, cx: &mut Context<'_>) -> Option<Entry> {
    let EndpointMap { address, dns, srv, file, weight, refresh, prefer, .. } = map;
    let given = usize::from(address.is_some())
        + usize::from(dns.is_some())
        + usize::from(srv.is_some())
        + usize::from(file.is_some());
    if given != 1 {
        let (code, message) = match given {
            0 => (Code::MissingKey, "the endpoint does not say where it is"),
            _ => (Code::BadValue, "an endpoint is one of address, dns, srv and file"),
        };
        return refuse(cx.out, Diagnostic::error(code, span, message).help(format!("write {FORMS}")));
    }
    let idle = |what: &str, span: Option<Span>, why: &str, out: &mut Diagnostics| {
        if let Some(span) = span {
            out.push(Diagnostic::error(Code::NoEffect, span, format!("{what} has no effect: {why}")));
        }
        span.is_none()
    };
    if let Some(address) = address {
        let is_right = idle("refresh", refresh.map(|own| own.span), "an address is not looked up", cx.out)
            & idle("prefer", prefer.map(|own| own.span), "an address has one family", cx.out);
        return listed(&address.value, span, map, cx).filter(|_| is_right);
    }
    let rank = rank(map, cx);
    if let Some(file) = file {
        let is_right =
            idle("refresh", refresh.map(|own| own.span), "the file is read when it changes", cx.out)
                & idle("prefer", prefer.map(|own| own.span), "the file lists addresses", cx.out)
                & idle("weight", weight.map(|own| own.span), "the file's endpoints have theirs", cx.out);
        let (priority, zone) = rank?;
        let source = SourceSettings { priority, zone, ..of_file(file, cx) };
        return is_right.then_some(Entry::Source(source));
    }
    let refresh = self::refresh(*refresh, cx.out);
    let prefer = prefer.map_or(Prefer::Both, |prefer| prefer.value);
    let (priority, zone) = rank?;
    if let Some(srv) = srv {
        let is_right = idle("weight", weight.map(|own| own.span), "SRV records have theirs", cx.out);
        let source = SourceSettings {
            refresh: refresh?,
            prefer,
            priority,
            zone,
            ..source(Definition::Srv(srv.value.clone()))
        };
        return is_right.then_some(Entry::Source(source));
    }
    let weight = self::weight(*weight, cx.out);
    let definition = Definition::Dns(dns.as_ref()?.value.clone());
    let source =
        SourceSettings { prefer, priority, zone, weight: weight?, refresh: refresh?, ..source(definition) };
    Some(Entry::Source(source))
}

fn source(definition: Definition) -> SourceSettings {
    SourceSettings {
        definition,
        refresh: None,
        weight: 1,
        prefer: Prefer::Both,
        priority: 0,
        zone: None,
        read: None,
    }
}

/// What is wrong with the file now may be right when it is read: it keeps nothing from serving.
fn of_file(file: &Spanned<FilePath>, cx: &mut Context<'_>) -> SourceSettings {
    let super::EndpointsFile { path, roots, read } = (cx.endpoints_file)(file);
    if let Err(reason) = (read.0)() {
        let message = format!("{} gives no endpoints", path.display());
        let problem = Diagnostic::warning(Code::BadEndpointsFile, file.span, message);
        cx.out.push(
            problem.reason(reason).help(
                "it is read again when it changes; until then it has no endpoints, or the last good ones",
            ),
        );
    }
    SourceSettings { read: Some(read), ..source(Definition::File { path, roots }) }
}

fn listed(address: &Address, span: Span, map: &EndpointMap, cx: &mut Context<'_>) -> Option<Entry> {
    let weight = self::weight(map.weight, cx.out);
    let rank = rank(map, cx);
    let address = admit(address, cx.denied, span, cx.out);
    let (priority, zone) = rank?;
    Some(Entry::Listed(EndpointSettings { priority, zone, ..EndpointSettings::new(address?, weight?) }))
}

/// When endpoints are used: their priority, and their zone.
fn rank(map: &EndpointMap, cx: &mut Context<'_>) -> Option<(u32, Option<Name>)> {
    let priority = priority(map, cx.out);
    if let (Some(written), None) = (&map.zone, cx.zone) {
        let message = "zone has no effect: the configuration does not say which zone this process is in";
        let problem = Diagnostic::error(Code::NoEffect, written.span, message);
        return refuse(cx.out, problem.help("add at the top: zone: NAME"));
    }
    Some((priority?, map.zone.as_ref().map(|zone| zone.value.clone())))
}

fn priority(written: &EndpointMap, out: &mut Diagnostics) -> Option<u32> {
    match (written.priority, written.backup) {
        (Some(priority), Some(backup)) if backup.value => {
            let message = "backup is the last priority of all: priority has no effect beside it";
            let problem = Diagnostic::error(Code::NoEffect, priority.span, message);
            refuse(out, problem.label(backup.span, "written here"))
        }
        (Some(Spanned { value, span }), _) if u32::from(value) > LAST_PRIORITY => {
            let message = format!("priority must be from 0 to {LAST_PRIORITY} (got {value})");
            refuse(out, Diagnostic::error(Code::BadValue, span, message))
        }
        (_, Some(Spanned { value: true, .. })) => Some(BACKUP),
        (priority, _) => Some(priority.map_or(0, |priority| priority.value.into())),
    }
}

fn admit(address: &Address, denied: &Denied, span: Span, out: &mut Diagnostics) -> Option<Reachable> {
    match denied.admit(address.clone()) {
        Ok(address) => Some(address),
        Err(denial) => {
            let message = format!("the tenant may not use {address}");
            let problem = Diagnostic::error(Code::DeniedAddress, span, message);
            refuse(out, problem.reason(denial.to_string()).maybe_help(denial.help(address)))
        }
    }
}

fn weight(written: Option<Spanned<u16>>, out: &mut Diagnostics) -> Option<u16> {
    match written.map(|weight| (weight.value, weight.span)) {
        None => Some(1),
        Some((weight, _)) if weight <= HEAVIEST => Some(weight),
        Some((weight, span)) => {
            let message = format!("weight must be from 1 to {HEAVIEST} (got {weight})");
            refuse(out, Diagnostic::error(Code::BadValue, span, message))
        }
    }
}

fn refresh(
    written: Option<Spanned<crate::value::Duration>>,
    out: &mut Diagnostics,
) -> Option<Option<time::Duration>> {
    let Some(written) = written else { return Some(None) };
    let refresh = duration(Some(written), SHORTEST_REFRESH, out)?;
    if refresh < SHORTEST_REFRESH {
        let message = "refresh must be at least 1s";
        return refuse(out, Diagnostic::error(Code::BadValue, written.span, message));
    }
    Some(Some(refresh))
}
