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

/// The tree of a TOML text; none where it is empty or its errors leave none. A key that stands twice costs nothing else.
pub fn parse(file: FileId, text: &str, budget: &mut Budget, diagnostics: &mut Diagnostics) -> Option<Node> {
    let base = start(text);
    let (table, errors) = DeTable::parse_recoverable(&text[base..]);
    let reader = Reader { file, base, text };
    let mut is_whole = errors.len() <= MOST_ERRORS;
    for error in errors.iter().take(MOST_ERRORS) {
        let problem = reader.syntax(error);
        let problem = if problem.code == Code::DuplicateKey { reader.twice(problem) } else { problem };
        is_whole &= reader.costs_nothing_else(&problem);
        diagnostics.push(problem);
    }
    if !is_whole || table.get_ref().is_empty() {
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

    /// Says which key stands twice, and where it stands first: the parser knows of the second place alone.
    fn twice(&self, problem: Diagnostic) -> Diagnostic {
        let Some(second) = problem.labels.first().map(|label| label.span) else { return problem };
        let (start, end) = (second.start as usize, second.end as usize);
        let Some(name) = key(&self.text[start..end]) else { return problem };
        // With another name it has a place, and the first is the one beside it.
        let other = "_".repeat(1 + self.text.split(|c| c != '_').map(str::len).max().unwrap_or(0));
        let renamed = [&self.text[self.base..start], &other, &self.text[end..]].concat();
        let (table, _) = DeTable::parse_recoverable(&renamed);
        let message = format!("`{name}` stands twice in one map");
        let problem = Diagnostic::error(Code::DuplicateKey, second, message).reason("again here");
        match beside(table.get_ref(), &other, &name).map(|first| self.span(first)) {
            Some(first) if first.start < second.start => problem.label(first, "first here"),
            _ => problem,
        }
    }

    /// Whether all that is written is in the tree but for the key that stands twice: what extends a table in two
    /// ways is left out of it.
    fn costs_nothing_else(&self, problem: &Diagnostic) -> bool {
        let [second, _] = &*problem.labels else { return false };
        !self.text[second.span.end as usize..].trim_start().starts_with('.')
    }

    fn span(&self, range: std::ops::Range<usize>) -> Span {
        let at = |at: usize| {
            u32::try_from((self.base + at).min(self.text.len())).expect("a file has 16 MiB at most")
        };
        Span { file: self.file, start: at(range.start), end: at(range.end) }
    }
}

/// What a key says, without its quotes.
fn key(written: &str) -> Option<String> {
    let line = format!("{written} = 0");
    let table = DeTable::parse(&line).ok()?.into_inner();
    table.into_iter().next().map(|(key, _)| key.into_inner().into())
}

/// Where a key stands in the map that has another.
fn beside(table: &DeTable<'_>, other: &str, name: &str) -> Option<std::ops::Range<usize>> {
    if table.keys().any(|key| key.get_ref() == other) {
        return table.keys().find(|key| key.get_ref() == name).map(|key| key.span());
    }
    table.values().find_map(|value| within(value.get_ref(), other, name))
}

fn within(value: &DeValue<'_>, other: &str, name: &str) -> Option<std::ops::Range<usize>> {
    match value {
        DeValue::Table(table) => beside(table, other, name),
        DeValue::Array(items) => items.iter().find_map(|item| within(item.get_ref(), other, name)),
        _ => None,
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
        assert_eq!(read(&format!("{} = 1\na = 2\na = 3\n", "_".repeat(100_000))).1, [Code::DuplicateKey]);
        assert!(!read(&format!("a = {}", "[".repeat(100_000))).1.is_empty());
    }
}
