//! What becomes of tenants whose files others write. Where something is wrong with those of one, and its include
//! says `on_error: keep`, the rest is taken over without them: the tenant stays with the source that was right
//! last, read again beside the new rest, or where there is none it defines nothing.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::SystemTime};

use serde_json::{Value, json};

use super::attempt::{Attempt, read};
use crate::{
    compile::Registries,
    config::{Chosen, Delegated, Inputs, OnError, Source, Trees},
    diagnostic::{self, Diagnostic, Diagnostics, Sources, Style},
    value::{Name, Timestamp},
};

/// How each delegated tenant does, and what it can go back to.
#[derive(Clone, Debug, Default)]
pub struct Tenants(BTreeMap<Name, Tenant>);

#[derive(Clone, Debug)]
struct Tenant {
    state: State,
    since: String,
    /// What is wrong with its files, for programs and for people.
    problems: (Value, String),
    /// The source that it serves by, or served by last.
    good: Option<Arc<Source>>,
}

/// What a tenant serves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its files as they are.
    Current,
    /// Its files as they were right last.
    Kept,
    /// Nothing: neither its files nor those that were right last go with the rest.
    Absent,
}

/// Reads, compiles and tests the configuration. `before` is what serves.
pub fn tested(root: &Path, registries: &Registries, before: &Tenants) -> Attempt {
    settled(root, registries, before, Attempt::test)
}

/// Reads and compiles it for who asks what is in it, without the tenants that it can go without.
pub fn intact(root: &Path, registries: &Registries) -> Attempt {
    settled(root, registries, &Tenants::default(), |_| {})
}

fn settled(root: &Path, registries: &Registries, before: &Tenants, test: impl Fn(&mut Attempt)) -> Attempt {
    let inputs = Inputs::disk();
    let mut attempt = read(root, &inputs, registries, (Sources::default(), &Chosen::default()), Trees::Drop);
    test(&mut attempt);
    let mut trial = Trial::new(before, &attempt);
    // Files that are not taken are watched as well, and change the hash: mending them shall be noticed.
    let (hash, mut watch) = (attempt.hash.clone(), attempt.watch.clone());
    while trial.goes_back(&attempt) {
        attempt = read(root, &inputs, registries, (attempt.sources, &trial.chosen), Trees::Drop);
        test(&mut attempt);
        watch.append(&mut attempt.watch);
    }
    watch.sort();
    watch.dedup();
    attempt.watch = watch;
    if let Some(snapshot) = &mut attempt.snapshot {
        snapshot.hash.clone_from(&hash);
    }
    attempt.hash = hash;
    trial.finish(&mut attempt);
    attempt
}

/// A configuration that is read several times, where tenants' files have to be gone without.
struct Trial<'a> {
    before: &'a Tenants,
    chosen: Chosen,
    broken: BTreeMap<Name, Diagnostics>,
}

// === impl Trial ===

impl<'a> Trial<'a> {
    fn new(before: &'a Tenants, first: &Attempt) -> Self {
        // Read again, the files shall say the same.
        let chosen = first
            .delegated
            .iter()
            .map(|delegated| (delegated.grant.tenant.value.clone(), delegated.source.clone()));
        Self { before, chosen: chosen.collect(), broken: BTreeMap::new() }
    }

    /// Takes another source for every tenant that is at fault. False where there is nothing to go back from, or
    /// where that would not help.
    fn goes_back(&mut self, attempt: &Attempt) -> bool {
        let mut faults: BTreeMap<Name, Diagnostics> = BTreeMap::new();
        let (own, shared): (Vec<_>, Vec<_>) = attempt
            .diagnostics
            .iter()
            .filter(|problem| problem.is_error())
            .partition(|problem| concerned(problem, attempt).count() <= 1);
        // What is between tenants may be over when those have gone back who are at fault by themselves.
        for problem in if own.is_empty() { shared } else { own } {
            match self.at_fault(problem, attempt) {
                Some(delegated) if delegated.grant.on_error == OnError::Keep => {
                    faults.entry(delegated.grant.tenant.value.clone()).or_default().push(problem.clone());
                }
                // It is the operator's, or shall be treated as such.
                _ => return false,
            }
        }
        let some = !faults.is_empty();
        for (tenant, problems) in faults {
            let is_new = self.chosen.get(&tenant).is_some_and(|chosen| self.is_new(&tenant, chosen.as_ref()));
            let back = is_new.then(|| self.good(&tenant).cloned()).flatten();
            self.chosen.insert(tenant.clone(), back);
            self.broken.entry(tenant).or_default().extend(problems);
        }
        some
    }

    /// Whose fault a problem is. Of several tenants it is one whose files are not those that serve already; of
    /// these the one that is included last.
    fn at_fault<'d>(&self, problem: &Diagnostic, attempt: &'d Attempt) -> Option<&'d Delegated> {
        let is_new =
            |delegated: &&Arc<Delegated>| self.is_new(&delegated.grant.tenant, delegated.source.as_ref());
        let all = || concerned(problem, attempt);
        all().rfind(is_new).or_else(|| all().next_back()).map(|delegated| &**delegated)
    }

    fn good(&self, tenant: &Name) -> Option<&Arc<Source>> {
        self.before.0.get(tenant)?.good.as_ref()
    }

    /// Whether a tenant would serve by something else than it last did.
    fn is_new(&self, tenant: &Name, source: Option<&Arc<Source>>) -> bool {
        let (Some(good), Some(source)) = (self.good(tenant), source) else { return true };
        !Arc::ptr_eq(good, source) && !good.says_what(source)
    }

    /// Says how the tenants do.
    fn finish(self, attempt: &mut Attempt) {
        let delegated = attempt.delegated.iter();
        let tenants = delegated.map(|delegated| {
            let name = &delegated.grant.tenant.value;
            (name.clone(), self.tenant(name, delegated.source.as_ref(), &attempt.sources))
        });
        attempt.tenants = Tenants(tenants.collect());
        let refused = attempt.diagnostics.has_errors();
        let told = if refused { &mut attempt.diagnostics } else { &mut attempt.broken };
        self.broken.into_values().for_each(|problems| told.extend(problems));
    }

    fn tenant(&self, name: &Name, source: Option<&Arc<Source>>, sources: &Sources) -> Tenant {
        let nothing = Diagnostics::default();
        let problems = self.broken.get(name);
        let state = match (problems, source) {
            (None, _) => State::Current,
            (Some(_), Some(_)) => State::Kept,
            (Some(_), None) => State::Absent,
        };
        let before = self.before.0.get(name).filter(|before| before.state == state);
        let problems = problems.unwrap_or(&nothing);
        Tenant {
            state,
            since: before
                .map_or_else(|| Timestamp(SystemTime::now()).to_string(), |before| before.since.clone()),
            problems: (
                diagnostic::json(problems, sources),
                diagnostic::text(problems, sources, Style::Plain).trim_end().to_owned(),
            ),
            good: source.or_else(|| self.good(name)).cloned(),
        }
    }
}

/// The tenants whose files a problem is about.
fn concerned<'d>(
    problem: &Diagnostic,
    attempt: &'d Attempt,
) -> impl DoubleEndedIterator<Item = &'d Arc<Delegated>> {
    attempt.delegated.iter().filter(|delegated| delegated.concerns(problem))
}

// === impl Tenants ===

impl Tenants {
    /// Each with what it serves by.
    pub fn states(&self) -> impl Iterator<Item = (&Name, State)> {
        self.0.iter().map(|(name, tenant)| (name, tenant.state))
    }

    /// Those that do not serve by their files as they are.
    pub fn broken(&self) -> impl Iterator<Item = (&Name, State)> {
        self.states().filter(|(_, state)| *state != State::Current)
    }

    pub fn json(&self) -> Value {
        let one = |(name, tenant): (&Name, &Tenant)| {
            json!({
                "name": name.as_str(),
                "state": tenant.state.word(),
                "since": tenant.since,
                "diagnostics": tenant.problems.0,
                "text": tenant.problems.1,
            })
        };
        self.0.iter().map(one).collect()
    }
}

// === impl State ===

impl State {
    /// The word in the status and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Kept => "kept",
            Self::Absent => "absent",
        }
    }
}
