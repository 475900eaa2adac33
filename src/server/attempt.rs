//! Reading and compiling a configuration: what every command and every reload begins with.

use std::path::{Path, PathBuf};

use crate::{
    compile::{self, Registries},
    config::{self, Document, Inputs, tree::Node},
    diagnostic::{Code, Diagnostic, Diagnostics, Sources},
    snapshot::Snapshot,
    value::{Bind, Name, Span},
};

/// What came of a configuration's files.
#[derive(Debug)]
pub struct Attempt {
    /// What it means, where nothing is wrong with it.
    pub snapshot: Option<Snapshot>,
    pub document: Option<Document>,
    /// The files as one tree.
    pub tree: Option<Node>,
    pub sources: Sources,
    pub diagnostics: Diagnostics,
    /// Files and directories a change of which may change the outcome.
    pub watch: Vec<PathBuf>,
    /// Over all that was read.
    pub hash: String,
}

/// Reads and compiles the tree that starts at `root`.
pub fn attempt(root: &Path, registries: &Registries) -> Attempt {
    let inputs = Inputs::disk();
    let loaded = config::load(root, &inputs);
    let mut diagnostics = loaded.diagnostics;
    let snapshot = loaded.document.as_ref().and_then(|document| {
        let (snapshot, found) = compile::compile(document, &loaded.sources, &inputs, registries);
        diagnostics.extend(found);
        snapshot
    });
    Attempt {
        snapshot,
        document: loaded.document,
        tree: loaded.tree,
        sources: loaded.sources,
        diagnostics,
        watch: inputs.watched(),
        hash: inputs.hash(),
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
        }
    }

    /// Runs the configuration's tests: each that fails is a problem.
    pub fn test(&mut self) {
        if let Some(snapshot) = &self.snapshot {
            self.diagnostics.extend(compile::failed(snapshot));
        }
    }

    /// Adds a problem of an address, where that is written.
    pub fn bind_failed(&mut self, listener: &Name, bind: &Bind, message: String) {
        let code = Code::BindFailed;
        self.diagnostics.push(match self.place(listener, bind) {
            Some(span) => Diagnostic::error(code, span, message),
            None => Diagnostic::nowhere(code, message),
        });
    }

    fn place(&self, listener: &Name, bind: &Bind) -> Option<Span> {
        let listener = self.document.as_ref()?.listeners.find(listener.as_str())?;
        let written = listener.value.bind.iter().find(|written| written.value == *bind);
        written.or(listener.value.bind.0.first()).map(|written| written.span)
    }
}
