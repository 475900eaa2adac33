//! What a document lacks of what was written, so that what could follow from that alone is not said.

use std::collections::{HashMap, HashSet};

use crate::{
    diagnostic::{Code, Diagnostic},
    value::{Name, Span},
};

/// What a document lacks of what was written.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// Whether it may lack anything at all.
    something: bool,
    /// Whether nobody knows what: a file could not be read, or a section has no name that is known.
    pub(super) anything: bool,
    pub(super) sections: HashSet<Box<str>>,
    pub(super) names: HashSet<(Box<str>, Box<str>)>,
    /// Sections of which something is there, but not whole.
    pub(super) torn: HashSet<Box<str>>,
    /// Whether a chain that is not a route's own may lack parts.
    pub(super) middleware: bool,
    pub(super) doubts: Doubts,
    /// What of the tenants' own is left out.
    of_tenants: HashMap<Box<str>, LeftOut>,
}

/// The places of what has lost something that it was written with: what is found there may be for want of that.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubts {
    /// All in a map that has lost a setting, and the map itself.
    pub within: HashSet<Span>,
    /// What each of these maps is itself pointed at by.
    pub themselves: HashSet<Span>,
    /// All in a route whose path is not known, and with it what the path captures.
    pub pathless: HashSet<Span>,
    /// All in a route's chain that has lost a part.
    pub chains: HashSet<Span>,
}

impl LeftOut {
    /// Everything, whatever that is.
    pub fn all() -> Self {
        Self::something(true)
    }

    /// What is yet to be told, or may be anything.
    pub(super) fn something(anything: bool) -> Self {
        Self { something: true, anything, ..Self::default() }
    }

    /// Adds what of a tenant's own is left out.
    pub fn of_tenant(&mut self, tenant: &Name, mut own: Self) {
        self.something |= own.something;
        self.middleware |= own.middleware || own.may_define("middleware", "");
        self.doubts.append(std::mem::take(&mut own.doubts));
        self.of_tenants.insert(tenant.as_str().into(), own);
    }

    pub fn is_empty(&self) -> bool {
        !self.something
    }

    /// Whether a definition of this name may have been left out.
    pub fn may_have(&self, section: &str, name: &Name) -> bool {
        match name.owned() {
            None => self.may_define(section, name.as_str()),
            Some((tenant, own)) => {
                self.of_tenants.get(tenant).is_some_and(|left_out| left_out.may_define(section, own))
            }
        }
    }

    fn may_define(&self, section: &str, name: &str) -> bool {
        self.anything
            || self.sections.contains(section)
            || self.names.contains(&(section.into(), name.into()))
    }

    /// Whether anything of a section may have been left out.
    pub fn may_have_some(&self, section: &str) -> bool {
        self.anything
            || self.sections.contains(section)
            || self.torn.contains(section)
            || self.names.iter().any(|(of, _)| **of == *section)
    }

    /// Whether more may stand before a place of a chain than is known.
    pub fn may_stand_before(&self, place: Span) -> bool {
        self.middleware || self.may_define("middleware", "") || self.doubts.chains.contains(&place)
    }

    /// Whether the problem may be there for want of what was left out. What stands wrong by itself stays wrong.
    pub fn may_have_caused(&self, problem: &Diagnostic) -> bool {
        let Doubts { within, themselves, pathless, .. } = &self.doubts;
        let doubted = match problem.code {
            Code::MissingKey
            | Code::ListenerConflict
            | Code::ListenerUnreachable
            | Code::HostNowhere
            | Code::HostConflict
            | Code::AmbiguousRoutes
            | Code::ShadowedRoute
            | Code::NoAction
            | Code::NoEffect
            | Code::NoEndpoints
            | Code::Unused => within,
            Code::BadValue if problem.compared => within,
            Code::BadValue => themselves,
            Code::BadTemplate => pathless,
            _ => return false,
        };
        problem.labels.iter().any(|label| doubted.contains(&label.span))
    }
}

impl Doubts {
    fn append(&mut self, other: Self) {
        self.within.extend(other.within);
        self.themselves.extend(other.themselves);
        self.pathless.extend(other.pathless);
        self.chains.extend(other.chains);
    }
}
