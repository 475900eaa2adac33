//! From a file's bytes to a tree: what YAML and TOML have in common.

use super::{
    tree::{Kind, Node},
    {toml, yaml},
};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    value::{FileId, Span},
};

/// Levels of lists and maps in each other.
pub const DEEPEST: usize = 64;

/// What all files of a tree may come to, aliases written out: an alias bomb ends here.
pub struct Budget {
    left: usize,
}

/// The syntax of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    Yaml,
    Toml,
}

// === impl Budget ===

impl Budget {
    pub const NODES: usize = 4_000_000;

    /// Takes the node and all in it off the budget; false when there is too little left.
    pub fn take(&mut self, node: &Node) -> bool {
        self.spend(cost(node))
    }

    /// Takes one node with a text of this length.
    pub fn take_one(&mut self, length: usize) -> bool {
        self.spend(1 + length / 64)
    }

    fn spend(&mut self, cost: usize) -> bool {
        let left = self.left.checked_sub(cost);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: Self::NODES }
    }
}

// === impl Syntax ===

impl Syntax {
    /// TOML where the name says so, YAML else.
    pub fn of(path: &std::path::Path) -> Self {
        match path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml")) {
            true => Self::Toml,
            false => Self::Yaml,
        }
    }
}

/// The tree of a text; none where it is empty or its errors, which are reported, leave none.
pub fn parse(
    syntax: Syntax,
    file: FileId,
    text: &str,
    budget: &mut Budget,
    diagnostics: &mut Diagnostics,
) -> Option<Node> {
    match syntax {
        Syntax::Yaml => yaml::parse(file, text, budget, diagnostics),
        Syntax::Toml => toml::parse(file, text, budget, diagnostics),
    }
}

/// The byte at which the text proper starts: after a byte order mark.
pub fn start(text: &str) -> usize {
    if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
}

/// How many levels of lists and maps the node has.
pub fn depth(node: &Node) -> usize {
    match &node.kind {
        Kind::Null | Kind::Scalar(_) => 0,
        Kind::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Kind::Map(entries) => 1 + entries.iter().map(|(_, value)| depth(value)).max().unwrap_or(0),
    }
}

pub fn too_deep(span: Span) -> Diagnostic {
    let message = format!("more than {DEEPEST} lists and maps in each other");
    Diagnostic::error(Code::TooDeep, span, message)
}

pub fn too_many(span: Span) -> Diagnostic {
    let message = format!("the configuration has more than {} values, aliases written out", Budget::NODES);
    Diagnostic::error(Code::TooManyNodes, span, message)
}

fn cost(node: &Node) -> usize {
    match &node.kind {
        Kind::Null => 1,
        Kind::Scalar(scalar) => 1 + scalar.text.len() / 64,
        Kind::List(items) => 1 + items.iter().map(cost).sum::<usize>(),
        Kind::Map(entries) => {
            1 + entries.iter().map(|(key, value)| key.text.len() / 64 + cost(value)).sum::<usize>()
        }
    }
}
