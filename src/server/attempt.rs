//! Reading and compiling a configuration: what every command and every reload begins with.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::tenants::Tenants;
use crate::{
    admin,
    compile::{self, Registries},
    config::{self, Chosen, Delegated, Document, Inputs, Trees, tree::Node},
    diagnostic::{Code, Diagnostic, Diagnostics, Sources},
    listen::BindError,
    snapshot::Snapshot,
    value::{Bind, Name, Span},
};

/// What came of a configuration's files.
#[derive(Debug)]
pub struct Attempt {
    /// What it means, where nothing is wrong with it.
    pub snapshot: Option<Snapshot>,
    pub document: Option<Document>,
    /// The files as one tree, where it is kept.
    pub tree: Option<Node>,
    pub sources: Sources,
    pub diagnostics: Diagnostics,
    /// Files and directories a change of which may change the outcome.
    pub watch: Vec<PathBuf>,
    /// Over all that was read.
    pub hash: String,
    /// The tenants whose parts others write.
    pub delegated: Vec<Arc<Delegated>>,
    /// How they do, if this is taken over.
    pub tenants: Tenants,
    /// What is wrong with those that it goes without.
    pub broken: Diagnostics,
}

/// Reads and compiles the tree that starts at `root`, with the files of all tenants as they are, and keeps the tree.
pub fn attempt(root: &Path, registries: &Registries) -> Attempt {
    read(root, &Inputs::disk(), registries, (Sources::default(), &Chosen::default()), Trees::Keep)
}

/// The same with the sources chosen for tenants, beside files that were read before.
pub fn read(
    root: &Path,
    inputs: &Inputs,
    registries: &Registries,
    chosen: (Sources, &Chosen),
    trees: Trees,
) -> Attempt {
    registries.admin.usual(admin::candidates);
    let loaded = config::load_chosen(root, inputs, chosen, trees);
    let mut diagnostics = loaded.diagnostics;
    let mut snapshot = loaded.document.as_ref().and_then(|document| {
        let (snapshot, found) = compile::compile(document, &loaded.sources, inputs, registries);
        diagnostics.extend(found);
        snapshot
    });
    let all = AllInputs { operators: inputs, tenants: &loaded.delegated };
    let hash = all.hash();
    if let Some(snapshot) = &mut snapshot {
        snapshot.hash.clone_from(&hash);
    }
    Attempt {
        snapshot,
        watch: all.watched(),
        hash,
        document: loaded.document,
        tree: loaded.tree,
        sources: loaded.sources,
        diagnostics,
        delegated: loaded.delegated,
        tenants: Tenants::default(),
        broken: Diagnostics::default(),
    }
}

/// What was asked of the world, by the operator's files and by each tenant's.
struct AllInputs<'a> {
    operators: &'a Inputs,
    tenants: &'a [Arc<Delegated>],
}

impl AllInputs<'_> {
    fn watched(&self) -> Vec<PathBuf> {
        let tenants = self.tenants.iter().filter_map(|tenant| tenant.source.as_ref());
        let mut paths = self.operators.watched();
        paths.extend(tenants.flat_map(|source| source.inputs.watched()));
        paths
    }

    /// SHA-256 in hexadecimal over all that was read.
    fn hash(&self) -> String {
        if self.tenants.is_empty() {
            return self.operators.hash();
        }
        let mut digest = Sha256::new();
        digest.update(self.operators.hash());
        for tenant in self.tenants {
            let read = tenant.source.as_ref().map(|source| source.inputs.hash());
            digest.update(format!("\n{} {}", tenant.grant.tenant, read.unwrap_or_default()));
        }
        format!("{:x}", digest.finalize())
    }
}

impl Attempt {
    /// One that came to nothing.
    pub fn failed(reason: &str) -> Self {
        let mut diagnostics = Diagnostics::default();
        diagnostics.push(Diagnostic::nowhere(Code::UnreadableFile, format!("reading failed: {reason}")));
        Self {
            snapshot: None,
            document: None,
            tree: None,
            sources: Sources::default(),
            diagnostics,
            watch: Vec::new(),
            hash: String::new(),
            delegated: Vec::new(),
            tenants: Tenants::default(),
            broken: Diagnostics::default(),
        }
    }

    /// Runs the configuration's tests: each that fails is a problem.
    pub fn test(&mut self) {
        if let Some(snapshot) = &self.snapshot {
            self.diagnostics.extend(compile::failed(snapshot));
        }
    }

    /// Adds a problem of an address, where that is written.
    pub fn bind_failed(&mut self, listener: &Name, bind: &Bind, error: &BindError) {
        let (code, message) = (Code::BindFailed, format!("the listener {listener} cannot have {error}"));
        let problem = match self.place(listener, bind) {
            Some(span) => Diagnostic::error(code, span, message),
            None => Diagnostic::nowhere(code, message),
        };
        self.diagnostics.push(problem.maybe_help(error.help()));
    }

    fn place(&self, listener: &Name, bind: &Bind) -> Option<Span> {
        let listener = self.document.as_ref()?.listeners.find(listener.as_str())?;
        let written = listener.value.bind.iter().find(|written| written.value == *bind);
        written.or(listener.value.bind.0.first()).map(|written| written.span)
    }
}
