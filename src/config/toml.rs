//! TOML as a tree: numbers and dates keep their written text, keys the order written.

use toml::de::{DeTable, DeValue, Error};

use super::{
    parse::{Budget, DEEPEST, start, too_deep, too_many},
    tree::{Key, Kind, Node, Style},
};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    value::{FileId, Span},
};

/// More syntax errors of one file help no one.
const MOST_ERRORS: usize = 20;

/// The tree of a TOML text; none where it is empty or its errors leave none.
pub fn parse(file: FileId, text: &str, budget: &mut Budget, diagnostics: &mut Diagnostics) -> Option<Node> {
    let base = start(text);
    let (table, errors) = DeTable::parse_recoverable(&text[base..]);
    let reader = Reader { file, base, text };
    for error in errors.iter().take(MOST_ERRORS) {
        diagnostics.push(reader.syntax(error));
    }
    if !errors.is_empty() || table.get_ref().is_empty() {
        return None;
    }
    let span = reader.span(0..text.len() - base);
    match reader.map(table.into_inner(), span, 1, budget) {
        Ok(node) => Some(node),
        Err(diagnostic) => {
            diagnostics.push(*diagnostic);
            None
        }
    }
}

struct Reader<'a> {
    file: FileId,
    base: usize,
    text: &'a str,
}

impl Reader<'_> {
    fn map(
        &self,
        table: DeTable<'_>,
        span: Span,
        depth: usize,
        budget: &mut Budget,
    ) -> Result<Node, Box<Diagnostic>> {
        if depth > DEEPEST {
            return Err(Box::new(too_deep(span)));
        }
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let key = Key { span: self.span(key.span()), text: key.into_inner().into() };
            let span = self.span(value.span());
            entries.push((key, self.node(value.into_inner(), span, depth, budget)?));
        }
        entries.sort_by_key(|(key, _)| key.span.start);
        Ok(Node::map(span, entries))
    }

    fn node(
        &self,
        value: DeValue<'_>,
        span: Span,
        depth: usize,
        budget: &mut Budget,
    ) -> Result<Node, Box<Diagnostic>> {
        let written = &self.text[span.start as usize..span.end as usize];
        if !budget.take_one(written.len().min(64)) {
            return Err(Box::new(too_many(span)));
        }
        match value {
            DeValue::Table(table) => self.map(table, span, depth + 1, budget),
            DeValue::Array(items) if depth < DEEPEST => {
                let items = items.into_iter().map(|item| {
                    let span = self.span(item.span());
                    self.node(item.into_inner(), span, depth + 1, budget)
                });
                Ok(Node { span, kind: Kind::List(items.collect::<Result<_, _>>()?) })
            }
            DeValue::Array(_) => Err(Box::new(too_deep(span))),
            DeValue::String(text) => Ok(Node::scalar(span, text, Style::Quoted)),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
                Ok(Node::scalar(span, written, Style::Plain))
            }
        }
    }

    fn syntax(&self, error: &Error) -> Diagnostic {
        let message = error.message().lines().next().unwrap_or("wrong syntax").to_owned();
        let code = match () {
            () if message.contains("duplicate key") => Code::DuplicateKey,
            () if message.contains("recursion limit") => Code::TooDeep,
            () => Code::Syntax,
        };
        let span = self.span(error.span().unwrap_or_default());
        let word = &self.text[span.start as usize..span.end as usize];
        let bare = message.starts_with("invalid") && word.starts_with(|c: char| c.is_ascii_alphabetic());
        Diagnostic::error(code, span, message)
            .maybe_help(bare.then(|| format!("texts are quoted: \"{word}\"")))
    }

    fn span(&self, range: std::ops::Range<usize>) -> Span {
        let at = |at: usize| u32::try_from((self.base + at).min(self.text.len())).expect("files are bounded");
        Span { file: self.file, start: at(range.start), end: at(range.end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<Code>) {
        let mut diagnostics = Diagnostics::default();
        let node = parse(FileId(0), text, &mut Budget::default(), &mut diagnostics);
        (node, diagnostics.iter().map(|diagnostic| diagnostic.code).collect())
    }

    #[test]
    fn values_keep_their_text_and_keys_their_order() {
        for before in ["", "\u{feff}"] {
            let text =
                format!("{before}z = 007.5e1\na = 1_000\nd = 2026-11-21\nt.u.v = \"ä\\n\"\nl = [true]\n");
            let (node, codes) = read(&text);
            // 007.5e1 is no float of TOML.
            assert_eq!((node.is_none(), codes), (true, vec![Code::Syntax]));
            let text = text.replace("007.5e1", "7.50");
            let node = read(&text).0.unwrap();
            let keys: Vec<_> = node.as_map().unwrap().iter().map(|(key, _)| &*key.text).collect();
            assert_eq!(keys, ["z", "a", "d", "t", "l"]);
            let scalar = |node: &Node| node.as_scalar().unwrap().text.to_string();
            assert_eq!(scalar(node.get("z").unwrap()), "7.50");
            assert_eq!(scalar(node.get("a").unwrap()), "1_000");
            assert_eq!(scalar(node.get("d").unwrap()), "2026-11-21");
            let v = node.get("t").and_then(|t| t.get("u")).and_then(|u| u.get("v")).unwrap();
            assert_eq!(scalar(v), "ä\n");
            assert_eq!(&text[v.span.start as usize..v.span.end as usize], "\"ä\\n\"");
        }
    }

    #[test]
    fn several_errors_are_reported_at_once() {
        assert_eq!(read("a = \nb = x\n").1.len(), 2);
        assert_eq!(read("a = 1\na = 2\n").1, [Code::DuplicateKey]);
        assert!(!read(&format!("a = {}", "[".repeat(100_000))).1.is_empty());
    }
}
