//! Reads a file and all that it includes. Paths are relative to the file that they stand in; a glob may
//! match nothing, a literal file must exist, loops are errors.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    inputs::{Content, Inputs, is_glob, normal},
    parse::{Budget, Syntax, parse},
    substitute,
    tree::{Kind, Node},
};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics, Severity, Sources},
    value::{FilePath, Span, encoding},
};

/// What the passes over a configuration's files share.
pub struct Reading<'a> {
    pub inputs: &'a Inputs,
    pub sources: Sources,
    pub diagnostics: Diagnostics,
    /// Where references stand that could not be replaced.
    pub unresolved: HashSet<Span>,
    /// Where files lie that the configuration may name; none: anywhere, and the environment may be asked.
    pub roots: Option<&'a [PathBuf]>,
    /// What stands under `include` as a map, for whoever knows what it means.
    pub delegated: Vec<Node>,
    budget: Budget,
}

/// Files that have been included, with the place that asked for them.
#[derive(Default)]
struct Included {
    /// From the root to the file at hand.
    chain: Vec<PathBuf>,
    asked: HashMap<PathBuf, Option<Span>>,
}

impl<'a> Reading<'a> {
    pub fn new(inputs: &'a Inputs) -> Self {
        Self {
            inputs,
            sources: Sources::default(),
            diagnostics: Diagnostics::default(),
            unresolved: HashSet::new(),
            roots: None,
            delegated: Vec::new(),
            budget: Budget::default(),
        }
    }

    /// The trees of the root and of all files included, each file before those that it includes.
    pub fn files(&mut self, root: &Path) -> Vec<Node> {
        let mut parts = Vec::new();
        self.file(root, None, &mut Included::default(), &mut parts);
        parts
    }

    /// The text of a file that the configuration names.
    pub fn named(&mut self, path: &Path, at: Span) -> Option<String> {
        let content = match self.roots {
            Some(roots) => self.inputs.read_within(path, roots),
            None => self.inputs.read(path),
        };
        self.text(path, content, Some(at))
    }

    fn text(&mut self, path: &Path, content: Content, at: Option<Span>) -> Option<String> {
        let content = match content {
            Ok(content) => content,
            Err(reason) => {
                let code = match reason.as_str() {
                    Inputs::TOO_LARGE => Code::TooLarge,
                    Inputs::OUTSIDE => Code::OutsideRoots,
                    _ => Code::UnreadableFile,
                };
                self.report(code, at, format!("{} cannot be read: {reason}", path.display()));
                return None;
            }
        };
        match encoding::text(&content) {
            Ok(text) => Some(text.into_owned()),
            Err(reason) => {
                self.report(Code::NotUtf8, at, format!("{} cannot be read: {reason}", path.display()));
                None
            }
        }
    }

    fn file(&mut self, path: &Path, at: Option<Span>, included: &mut Included, parts: &mut Vec<Node>) {
        let identity = normal(path);
        if !self.is_new(&identity, at, included) {
            return;
        }
        let Some(tree) = self.tree(path, at) else { return };
        let Kind::Map(mut entries) = tree.kind else { return };
        let include =
            entries.iter().position(|(key, _)| &*key.text == "include").map(|at| entries.remove(at).1);
        parts.push(Node::map(tree.span, entries));
        if let Some(include) = include {
            included.chain.push(identity);
            self.include(include, included, parts);
            included.chain.pop();
        }
    }

    /// A file's tree, which is a map; what keeps it from being one is reported.
    pub fn tree(&mut self, path: &Path, at: Option<Span>) -> Option<Node> {
        let text: Arc<str> = self.text(path, self.inputs.read(path), at)?.into();
        let file = self.sources.add(path.to_owned(), text.clone());
        let errors = self.diagnostics.errors();
        let tree = parse(Syntax::of(path), file, &text, &mut self.budget, &mut self.diagnostics);
        let Some(tree) = tree else {
            if self.diagnostics.errors() == errors {
                self.report_empty(Span { file, start: 0, end: 0 }, at.is_none());
            }
            return None;
        };
        if tree.as_map().is_none() {
            let message = format!("a configuration is a map of sections, this file holds {}", tree.what());
            self.diagnostics.push(Diagnostic::error(Code::WrongType, tree.span, message));
            return None;
        }
        Some(tree)
    }

    fn include(&mut self, mut node: Node, included: &mut Included, parts: &mut Vec<Node>) {
        substitute::apply(&mut node, self);
        let items = match node.kind {
            Kind::Null => Vec::new(),
            Kind::List(items) => items,
            _ => vec![node],
        };
        for item in items {
            match &item.kind {
                Kind::Scalar(_) if self.unresolved.contains(&item.span) => {}
                Kind::Scalar(path) => self.include_path(&path.text, item.span, included, parts),
                Kind::Map(_) => self.delegated.push(item),
                _ => {
                    let message = format!("an include is a path, a glob or a map, this is {}", item.what());
                    self.diagnostics.push(Diagnostic::error(Code::WrongType, item.span, message));
                }
            }
        }
    }

    fn include_path(&mut self, path: &str, at: Span, included: &mut Included, parts: &mut Vec<Node>) {
        let resolved = self.sources.resolve(at.file, &FilePath(path.into()));
        if is_glob(path) {
            match self.inputs.glob(&resolved.to_string_lossy()) {
                Ok(paths) => paths.iter().for_each(|path| self.file(path, Some(at), included, parts)),
                Err(reason) => {
                    let message = format!("`{path}` is no glob: {reason}");
                    self.diagnostics.push(Diagnostic::error(Code::BadGlob, at, message));
                }
            }
        } else if self.inputs.is_missing(&resolved) {
            let message = format!("there is no file {}", resolved.display());
            let help = "paths are relative to the file that they stand in; a glob may match nothing";
            self.diagnostics.push(Diagnostic::error(Code::IncludeMissing, at, message).help(help));
        } else {
            self.file(&resolved, Some(at), included, parts);
        }
    }

    /// Whether a file is met for the first time; else that is reported.
    fn is_new(&mut self, identity: &Path, at: Option<Span>, included: &mut Included) -> bool {
        let Some(before) = included.asked.get(identity) else {
            included.asked.insert(identity.to_owned(), at);
            return true;
        };
        let Some(at) = at else { return false };
        let shown = identity.display();
        let diagnostic = match included.chain.iter().position(|path| path == identity) {
            Some(start) => {
                let names: Vec<_> =
                    included.chain[start..].iter().map(|path| path.display().to_string()).collect();
                Diagnostic::error(Code::IncludeLoop, at, format!("{shown} includes itself"))
                    .help(format!("the loop: {} -> {shown}", names.join(" -> ")))
            }
            None => {
                let diagnostic =
                    Diagnostic::error(Code::DuplicateName, at, format!("{shown} is included twice"))
                        .reason("again here");
                before.iter().fold(diagnostic, |diagnostic, first| diagnostic.label(*first, "first here"))
            }
        };
        self.diagnostics.push(diagnostic);
        false
    }

    /// An empty root configures nothing, which no one means; an empty part does no harm.
    fn report_empty(&mut self, span: Span, root: bool) {
        let mut diagnostic = Diagnostic::error(Code::EmptyFile, span, "the file is empty");
        if !root {
            diagnostic.severity = Severity::Warning;
        }
        self.diagnostics.push(diagnostic);
    }

    fn report(&mut self, code: Code, at: Option<Span>, message: String) {
        self.diagnostics.push(match at {
            Some(at) => Diagnostic::error(code, at, message),
            None => Diagnostic::nowhere(code, message),
        });
    }
}
