//! Delegated includes: files that define one tenant's part of the configuration and nothing else. They are a
//! document of their own, of which only what a tenant may have is taken; its names get the tenant's before them,
//! so that they are nobody else's. Files that it names lie under the roots given to it.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Document, Inputs,
    decode::decode,
    document::File,
    include::Reading,
    inputs::is_glob,
    later,
    load::{is_whole, sound},
    shape::Shapes,
    shorthand, substitute,
    tree::{Key, Kind, Node},
    unite::unite,
    validate,
};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics, Sources},
    upstream::{Denied, DeniedAddress},
    value::{FileId, FilePath, Name, OneOrMany, Span, Spanned, TextOr},
};

/// What `include` holds: files to go on in, and files of tenants.
pub type Include = OneOrMany<Spanned<TextOr<String, Grant>>>;

/// Files that a tenant's people write: they define hosts, route_sets, middleware, upstreams and tests of this
/// tenant, and nothing else.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DelegatedInclude")]
pub struct Grant {
    /// Paths or globs, relative to this file. A symlink may lead to a file below the same directory only.
    pub files: OneOrMany<Spanned<String>>,
    /// Whom everything in them belongs to: one of `tenants`.
    pub tenant: Spanned<Name>,
    /// The names that its hosts may have: "*.acme.example" allows all below acme.example, but not acme.example.
    pub hosts: Vec<Spanned<String>>,
    /// Directories that the files lie under which they name, those of `${file:}` included. Default: none.
    #[serde(default)]
    pub roots: Vec<File>,
    /// Addresses that its upstreams and forward targets may not have, beside those denied to every delegated file: networks,
    /// and "unix:*" for all unix sockets. Default: none.
    #[serde(default)]
    pub deny_upstreams: Vec<DeniedAddress>,
    /// What of this machine its upstreams and forward targets may have all the same: loopback networks and addresses, and
    /// "unix:*" for all unix sockets. The admin API stays denied. Default: none.
    #[serde(default)]
    pub allow_upstreams: Vec<Spanned<DeniedAddress>>,
    /// What becomes of a reload when something is wrong with them. Default: refuse.
    #[serde(default)]
    pub on_error: OnError,
}

/// What an error in a tenant's files costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The whole reload is refused
    #[default]
    Refuse,
    /// The tenant stays with its files as they were right last, and the rest is taken over
    Keep,
}

/// A tenant's files as they were read once: they say the same whenever they are asked.
#[derive(Debug)]
pub struct Source {
    files: Vec<Found>,
    pub inputs: Inputs,
}

/// A file of a tenant's.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    /// The path or glob that asked for it: the text, and its place in the list.
    asked: (String, usize),
}

/// Which source of a tenant is read; `None` is a tenant that defines nothing. Whoever is not named here is read
/// from the files that there are now.
pub type Chosen = HashMap<Name, Option<Arc<Source>>>;

/// A tenant's part, as far as others must know of it.
#[derive(Debug)]
pub struct Delegated {
    pub grant: Grant,
    pub source: Option<Arc<Source>>,
    pub roots: Vec<PathBuf>,
    pub denied: Denied,
    /// Its files among the sources.
    files: HashSet<FileId>,
    /// Its files as one tree, names as written.
    pub tree: Option<Node>,
}

/// What there may be in a delegated file.
const SECTIONS: [&str; 5] = ["hosts", "route_sets", "middleware", "upstreams", "tests"];

/// The grants of the maps that stand under `include`.
pub fn grants(maps: &mut [Node], shapes: &Shapes, reading: &mut Reading<'_>) -> Vec<Grant> {
    let mut grants: Vec<Grant> = Vec::new();
    for node in maps {
        shorthand::expand_section(node, "include", shapes);
        let errors = reading.diagnostics.errors();
        validate::section(node, "include", shapes, reading);
        if reading.diagnostics.errors() > errors {
            continue;
        }
        let decoded = decode::<Include>(node).map(|include| include.0.into_iter().next());
        let Ok(Some(Spanned { value: TextOr::Map(grant), .. })) = decoded else { continue };
        match grants.iter().find(|other| other.tenant.value == grant.tenant.value) {
            None => grants.push(grant),
            Some(other) => {
                let message = format!("{} has delegated files already", grant.tenant);
                let problem = Diagnostic::error(Code::DuplicateName, grant.tenant.span, message);
                let help = "one include may name several: files: [a.yaml, \"b/*.yaml\"]";
                reading.diagnostics.push(problem.label(other.tenant.span, "first here").help(help));
            }
        }
    }
    grants
}

// === impl Delegated ===

impl Delegated {
    pub fn new(grant: Grant, sources: &Sources) -> Self {
        let roots = grant.roots.iter().map(|root| sources.resolve(root.span.file, &root.value)).collect();
        let allowed = grant.allow_upstreams.iter().map(|allowed| allowed.value);
        let denied = Denied::delegated(grant.deny_upstreams.iter().copied(), allowed);
        Self { grant, source: None, roots, denied, files: HashSet::new(), tree: None }
    }

    /// What the files say, as far as it is sound. `None` where they say nothing.
    pub fn read(
        &mut self,
        (chosen, world): (&Chosen, &Inputs),
        shapes: &Shapes,
        sources: &mut Sources,
        out: &mut Diagnostics,
    ) -> Option<Document> {
        let mut found = Diagnostics::default();
        self.source = match chosen.get(&self.grant.tenant.value) {
            Some(chosen) => chosen.clone(),
            None => Some(Arc::new(Source::find(&self.grant, world.anew(), sources, &mut found))),
        };
        let source = self.source.clone()?;
        let mut reading = Reading::new(&source.inputs);
        reading.sources = std::mem::take(sources);
        reading.diagnostics = found;
        reading.roots = Some(&self.roots);
        let first = reading.sources.next();
        let parts = parts(&source, &self.grant, &mut reading);
        self.files.extend((first.0..reading.sources.next().0).map(FileId));
        let whole = is_whole(&reading.diagnostics);
        let tree = unite(parts, shapes, &mut reading.diagnostics);
        let document = tree.and_then(|mut tree| {
            shorthand::expand(&mut tree, shapes);
            substitute::apply(&mut tree, &mut reading);
            restrict(&mut tree, shapes, &mut reading.diagnostics);
            let document = sound(&tree, shapes, &mut reading, whole);
            self.tree = Some(tree);
            document
        });
        let lost = document.is_none() && reading.diagnostics.has_errors();
        *sources = reading.sources;
        out.extend(reading.diagnostics);
        document.or_else(|| lost.then(Document::lost))
    }

    /// Whether it is about this tenant's files.
    pub fn concerns(&self, problem: &Diagnostic) -> bool {
        let is_of_files = |span: Span| self.grant.files.iter().any(|files| files.span == span);
        let within = |span: Span| self.files.contains(&span.file) || is_of_files(span);
        problem.code != Code::BadGlob && problem.labels.iter().any(|label| within(label.span))
    }

    /// Its files among the sources.
    pub fn files(&self) -> impl Iterator<Item = FileId> {
        self.files.iter().copied()
    }
}

// === impl Source ===

impl Source {
    fn find(grant: &Grant, inputs: Inputs, sources: &Sources, out: &mut Diagnostics) -> Self {
        let mut files: Vec<Found> = Vec::new();
        for (nth, written) in grant.files.iter().enumerate() {
            let path = sources.resolve(written.span.file, &FilePath(written.value.as_str().into()));
            let asked = path.to_string_lossy().into_owned();
            let (code, message) = match inputs.glob(&asked) {
                _ if !is_glob(written) && inputs.is_missing(&path) => {
                    (Code::IncludeMissing, format!("there is no file {asked}"))
                }
                _ if !is_glob(written) => {
                    files.push(Found { path, asked: (asked, nth) });
                    continue;
                }
                Ok(paths) => {
                    files.extend(paths.into_iter().map(|path| Found { path, asked: (asked.clone(), nth) }));
                    continue;
                }
                Err(reason) => (Code::BadGlob, format!("`{}` is no glob: {reason}", written.value)),
            };
            out.push(Diagnostic::error(code, written.span, message));
        }
        Self { files, inputs }
    }

    /// Whether the other has read the same.
    pub fn says_what(&self, other: &Self) -> bool {
        self.inputs.hash() == other.inputs.hash()
    }
}

/// The trees of the files, each of which is one that the glob means.
fn parts(source: &Source, grant: &Grant, reading: &mut Reading<'_>) -> Vec<Node> {
    let mut parts = Vec::new();
    let mut before = HashSet::new();
    for Found { path, asked: (asked, nth) } in &source.files {
        let Some(at) = grant.files.0.get(*nth).or(grant.files.0.first()).map(|files| files.span) else {
            break;
        };
        if !before.insert(path) {
            let message = format!("{} is included twice", path.display());
            reading.diagnostics.push(Diagnostic::error(Code::DuplicateName, at, message));
        } else if source.inputs.read(path).is_ok()
            && let Err(real) = source.inputs.is_meant(path, asked)
        {
            let message = format!("{} leads to {} through a symlink", path.display(), real.display());
            let help = "a symlink may lead to a file below the directory that the include names, and this file's name \
                        must match what the include names";
            reading.diagnostics.push(Diagnostic::error(Code::OutsideRoots, at, message).help(help));
        } else {
            parts.extend(reading.tree(path, Some(at)));
        }
    }
    parts
}

/// Reports what a tenant may not define, and takes sections away that are not its own.
fn restrict(tree: &mut Node, shapes: &Shapes, out: &mut Diagnostics) {
    let Kind::Map(sections) = &mut tree.kind else { return };
    sections.retain(|(key, node)| {
        let is_known = shapes.section(&key.text).is_some() || later::is_later("", &key.text);
        match &*key.text {
            "hosts" => named(node).for_each(|host| restrict_host(host, out)),
            "middleware" => named(node).for_each(|chain| restrict_chain(chain, out)),
            "route_sets" => named(node).flat_map(named).for_each(|route| restrict_scope(route, out)),
            "upstreams" => named(node).for_each(|upstream| {
                let reason = "certificates are the operator's";
                refuse(upstream.get("tls"), "client_certificate", reason, out);
            }),
            other if !SECTIONS.contains(&other) && is_known => {
                let message = format!("a delegated file cannot have `{other}`");
                let help = format!("it may have {}", SECTIONS.join(", "));
                out.push(Diagnostic::error(Code::NotDelegated, key.span, message).help(help));
                return false;
            }
            // What is not known at all is told by the schema.
            _ => {}
        }
        true
    });
}

fn restrict_host(host: &Node, out: &mut Diagnostics) {
    refuse(Some(host), "tenant", "all that is delegated belongs to the tenant of the include", out);
    refuse(
        Some(host),
        "tls",
        "certificates are the operator's: the listener's are chosen by their names",
        out,
    );
    restrict_scope(host, out);
    host.get("routes").into_iter().flat_map(named).for_each(|route| restrict_scope(route, out));
}

fn restrict_scope(scope: &Node, out: &mut Diagnostics) {
    restrict_log(scope, out);
    scope.get("middleware").into_iter().for_each(|chain| restrict_chain(chain, out));
}

/// What a URL leads to is known when it is asked for; the endpoints of an upstream are held against what is denied.
fn restrict_chain(chain: &Node, out: &mut Diagnostics) {
    for part in chain.as_list().unwrap_or_default() {
        refuse(part.get("forward_auth"), "url", "it is asked through an `upstream` of the same files", out);
        let Some(keys) = part.get("jwt").and_then(|jwt| jwt.get("jwks")) else { continue };
        if keys.as_scalar().is_some_and(|keys| keys.text.contains("://")) {
            let message = "a delegated file cannot have URLs asked for";
            out.push(
                Diagnostic::error(Code::NotDelegated, keys.span, message)
                    .help("jwks: a file below the roots"),
            );
        }
    }
}

/// A log file is written by this process, for as long as it runs, whatever its directory has become.
fn restrict_log(scope: &Node, out: &mut Diagnostics) {
    let Some(to) = scope.get("access_log").and_then(|log| log.get("to")) else { return };
    if to.as_scalar().is_some_and(|to| !matches!(&*to.text, "stdout" | "stderr")) {
        let message = "a delegated file cannot have files written";
        out.push(Diagnostic::error(Code::NotDelegated, to.span, message).help("to: stdout or stderr"));
    }
}

fn refuse(scope: Option<&Node>, key: &str, reason: &str, out: &mut Diagnostics) {
    let entries = scope.and_then(Node::as_map).unwrap_or_default();
    if let Some((key, _)) = entries.iter().find(|(found, _)| *found.text == *key) {
        let message = format!("a delegated file cannot have `{}` here", key.text);
        out.push(Diagnostic::error(Code::NotDelegated, key.span, message).reason(reason));
    }
}

/// The definitions of a map of names.
fn named(node: &Node) -> impl Iterator<Item = &Node> {
    node.as_map().unwrap_or_default().iter().map(|(_, node): &(Key, Node)| node)
}
