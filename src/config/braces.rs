//! Words that mean something else inside `{ }` and `[ ]` unless they are quoted: `{id}`, `[::1]:443`, `:443`.

use std::ops::Range;

use regex::Regex;

use super::tree::Node;
use crate::{
    diagnostic::{Code, Diagnostic, Sources},
    value::Span,
};

/// The word near the byte at which reading failed that should have been quoted, if there is one.
pub fn near(text: &str, at: usize) -> Option<Range<usize>> {
    let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    let line = words(text, start..end);
    // What stays open is often noticed at the start of the next line only.
    line.or_else(|| match text[start..at].trim().is_empty() && start > 0 {
        true => {
            let before = text[..start].trim_end();
            words(text, before.rfind('\n').map_or(0, |newline| newline + 1)..before.len())
        }
        false => None,
    })
}

/// Whether the node is what YAML makes of an unquoted `{id}`.
pub fn is_placeholder(node: &Node, sources: &Sources) -> bool {
    let lone = node.as_map().is_some_and(|entries| matches!(entries, [(_, value)] if value.is_null()));
    let written = sources.written(node.span);
    lone && !written.contains(char::is_whitespace) && written.starts_with('{') && !written.contains(':')
}

pub fn diagnostic(span: Span, word: &str) -> Diagnostic {
    Diagnostic::error(Code::UnquotedBraces, span, format!("`{word}` must be quoted here"))
        .reason("read as a list or a map, not as a text")
        .help(format!("write \"{word}\""))
}

/// The first such word of one line, outside quotes and comments.
fn words(text: &str, line: Range<usize>) -> Option<Range<usize>> {
    // Quoted texts come first, so that what stands in them is passed over.
    let pattern = Regex::new(concat!(
        r#""(?:[^"\\]|\\.)*"|'[^']*'|(?:^|\s)#.*|"#,
        r"(?P<word>",
        r"[^\s,\[\]{}'\x22]*\{[a-z0-9_][a-z0-9_.]*\}[^\s,\]}]*(?:\{[a-z0-9_.]+\}[^\s,\]}]*)*",
        r"|\[[0-9a-fA-F]*:[0-9a-fA-F:.]*\](?::[0-9]+)?",
        r")|(?:^|[\s\[{,]):(?P<port>[0-9]+)",
    ))
    .expect("the constant pattern is valid");
    // Longer lines are no one's handwriting.
    let line = line.start..floor(text, line.end.min(line.start + 4096));
    pattern.captures_iter(&text[line.clone()]).find_map(|found| {
        let word = found.name("word").map(|word| word.range());
        let port = found.name("port").map(|port| port.start() - 1..port.end());
        word.or(port).map(|range| line.start + range.start..line.start + range.end)
    })
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_want_quotes_are_found() {
        for (line, word) in [
            ("r: { path: /api/{id} }", "/api/{id}"),
            ("r: { rewrite: {id} }", "{id}"),
            ("bind: [::1]:443", "[::1]:443"),
            ("w: { bind: :443 }", ":443"),
            ("r: { path: \"/{a}\", to: /x/{rest...}/y }", "/x/{rest...}/y"),
        ] {
            assert_eq!(near(line, line.len()).map(|range| &line[range]), Some(word), "{line}");
        }
        for line in ["a: [b", "a: { b: \"{id}\" ", "a: [ # {id}", "a: { b: c }"] {
            assert_eq!(near(line, line.len()), None, "{line}");
        }
    }
}
