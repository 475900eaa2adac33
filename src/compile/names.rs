//! Names and what they stand for: found, missed with a suggestion, counted as used.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
};

use super::context::{Context, Report};
use crate::{
    config::{
        Document, LeftOut,
        document::{Chain, Tenant},
        host::{Host, Route},
        listener::Listener,
    },
    diagnostic::{Code, Diagnostic, Sources, closest},
    tls, upstream,
    value::{Entry, Name, Named, Spanned},
};

/// One index for each section of the document.
pub(super) struct Names<'a> {
    pub certificates: Index<'a, tls::Config>,
    pub listeners: Index<'a, Listener>,
    pub tenants: Index<'a, Tenant>,
    pub chains: Index<'a, Chain>,
    pub upstreams: Index<'a, upstream::Config>,
    pub route_sets: Index<'a, Named<Route>>,
    pub hosts: Index<'a, Host>,
}

/// A section's definitions by name.
pub(super) struct Index<'a, T> {
    /// What one of them is called, and the section's key.
    what: (&'static str, &'static str),
    sources: &'a Sources,
    section: &'a Named<T>,
    left_out: &'a LeftOut,
    places: HashMap<&'a str, usize>,
    used: RefCell<HashSet<usize>>,
}

impl<'a> Names<'a> {
    pub fn of(document: &'a Document, sources: &'a Sources) -> Self {
        Self {
            certificates: Index::new(
                ("certificate", "certificates"),
                &document.certificates,
                document,
                sources,
            ),
            listeners: Index::new(("listener", "listeners"), &document.listeners, document, sources),
            tenants: Index::new(("tenant", "tenants"), &document.tenants, document, sources),
            chains: Index::new(("chain", "middleware"), &document.middleware, document, sources),
            upstreams: Index::new(("upstream", "upstreams"), &document.upstreams, document, sources),
            route_sets: Index::new(("route set", "route_sets"), &document.route_sets, document, sources),
            hosts: Index::new(("host", "hosts"), &document.hosts, document, sources),
        }
    }

    /// Says what nothing refers to, unless a reference went amiss or was left out: it may have been meant.
    pub fn warn_of_unused(&self, cx: &Context<'_>) {
        let report = &cx.report;
        if report.has(Code::UnknownName) || !cx.document.left_out.is_empty() {
            return;
        }
        self.certificates.warn_of_unused(report);
        self.tenants.warn_of_unused(report);
        self.chains.warn_of_unused(report);
        self.upstreams.warn_of_unused(report);
        self.route_sets.warn_of_unused(report);
    }
}

impl<'a, T> Index<'a, T> {
    fn new(
        what: (&'static str, &'static str),
        section: &'a Named<T>,
        document: &'a Document,
        sources: &'a Sources,
    ) -> Self {
        let places = section.iter().enumerate().map(|(place, entry)| (entry.name.as_str(), place)).collect();
        Self { what, sources, section, left_out: &document.left_out, places, used: RefCell::default() }
    }

    /// The place and definition of a name, which counts as used now. A name that nothing has is reported.
    pub fn find(&self, name: &Spanned<Name>, report: &Report) -> Option<(usize, &'a Entry<Name, T>)> {
        match self.places.get(name.as_str()) {
            Some(place) => {
                self.used.borrow_mut().insert(*place);
                Some((*place, &self.section.0[*place]))
            }
            None => {
                self.report_unknown(name, report);
                None
            }
        }
    }

    /// Reports a name that nothing has, without counting it as used.
    pub fn check(&self, name: &Spanned<Name>, report: &Report) {
        if !self.places.contains_key(name.as_str()) {
            self.report_unknown(name, report);
        }
    }

    fn report_unknown(&self, name: &Spanned<Name>, report: &Report) {
        let (_, section) = self.what;
        if !self.left_out.may_have(section, name) {
            report.push(self.unknown(name));
        }
    }

    fn unknown(&self, name: &Spanned<Name>) -> Diagnostic {
        let (what, key) = self.what;
        let diagnostic =
            Diagnostic::error(Code::UnknownName, name.span, format!("there is no {what} {name}"));
        let near = closest(name.as_str(), self.definitions_beside(name).map(|entry| entry.name.as_str()));
        match near.and_then(|near| self.section.0.get(self.places[near])) {
            Some(near) => {
                let place = self.sources.place(near.name.span);
                diagnostic.help(format!("did you mean {}, defined at {place}?", near.name))
            }
            None => match self.some_names(name) {
                None => diagnostic.help(format!("none is defined under {key}")),
                Some(names) => diagnostic.help(format!("{key} defines {names}")),
            },
        }
    }

    /// The definitions of whoever the name belongs to: nobody sees others'.
    fn definitions_beside(&self, name: &Name) -> impl Iterator<Item = &'a Entry<Name, T>> + Clone {
        let owner = name.owned().map(|(tenant, _)| tenant.to_owned());
        let section = self.section;
        section.iter().filter(move |entry| entry.name.owned().map(|(tenant, _)| tenant) == owner.as_deref())
    }

    fn some_names(&self, near: &Name) -> Option<String> {
        let mut all = self.definitions_beside(near).map(|entry| entry.name.as_str());
        let names: Vec<&str> = all.by_ref().take(8).collect();
        let more = if all.next().is_some() { " and others" } else { "" };
        (!names.is_empty()).then(|| format!("{}{more}", names.join(", ")))
    }

    fn warn_of_unused(&self, report: &Report) {
        let used = self.used.borrow();
        let (what, _) = self.what;
        for (_, entry) in self.section.iter().enumerate().filter(|(place, _)| !used.contains(place)) {
            let message = format!("{what} {} is used nowhere", entry.name);
            report.push(Diagnostic::warning(Code::Unused, entry.name.span, message));
        }
    }
}
