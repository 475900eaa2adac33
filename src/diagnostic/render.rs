//! Diagnostics for people and for machines, in the order of the files and places that they are about.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use super::{Diagnostic, Diagnostics, Label, Severity, Source, Sources};
use crate::value::{FileId, Span};

/// Whether the output may carry colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Colour,
}

/// Labels of one file that stand this many lines apart are shown in pieces of their own.
const APART: usize = 6;
/// Longer lines are cut around what is underlined.
const LONGEST_LINE: usize = 1000;
const SHOWN: usize = 120;

/// The diagnostics with the words that they are about underlined.
pub fn text(diagnostics: &Diagnostics, sources: &Sources, style: Style) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Colour => Renderer::styled(),
    };
    let mut text = String::new();
    for diagnostic in sorted(diagnostics) {
        text.push_str(&renderer.render(&[group(diagnostic, sources)]));
        text.push_str("\n\n");
    }
    text.pop();
    text
}

/// The diagnostics as a list of objects whose keys stay what they are.
pub fn json(diagnostics: &Diagnostics, sources: &Sources) -> Value {
    sorted(diagnostics).into_iter().map(|diagnostic| object(diagnostic, sources)).collect()
}

fn sorted(diagnostics: &Diagnostics) -> Vec<&Diagnostic> {
    let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
    sorted.sort_by_key(|diagnostic| diagnostic.labels.first().map(|label| label.span));
    sorted
}

// === as text ===

fn group<'a>(diagnostic: &'a Diagnostic, sources: &'a Sources) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(sources.redact(&diagnostic.message)).id(diagnostic.code.as_str());
    let mut group = Group::with_title(title);
    for piece in pieces(&diagnostic.labels, sources) {
        group = match piece.is_cut() {
            // A snippet counts columns itself, from the start of what is shown.
            true => group.element(piece.origin()).element(piece.snippet(sources)),
            false => group.element(piece.snippet(sources).path(piece.source.path.to_string_lossy())),
        };
    }
    match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(sources.redact(help))),
        None => group,
    }
}

/// Labels of one file that stand near each other.
struct Piece<'a> {
    source: &'a Source,
    file: FileId,
    lines: Range<usize>,
    /// The first is the one that the piece's place is given by.
    labels: Vec<(&'a Label, AnnotationKind)>,
}

fn pieces<'a>(labels: &'a [Label], sources: &'a Sources) -> Vec<Piece<'a>> {
    let mut pieces: Vec<Piece<'a>> = Vec::new();
    for (at, label) in labels.iter().enumerate() {
        let Some(source) = sources.get(label.span.file) else { continue };
        let kind = if at == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let line = source.position(label.span.start).line;
        let near = |piece: &&mut Piece<'_>| {
            piece.file == label.span.file
                && line + APART >= piece.lines.start
                && line < piece.lines.end + APART
        };
        match pieces.iter_mut().find(near) {
            Some(piece) => {
                piece.lines = piece.lines.start.min(line)..piece.lines.end.max(line + 1);
                piece.labels.push((label, kind));
            }
            None => pieces.push(Piece {
                source,
                file: label.span.file,
                lines: line..line + 1,
                labels: vec![(label, kind)],
            }),
        }
    }
    pieces
}

impl<'a> Piece<'a> {
    fn origin(&self) -> Origin<'a> {
        let position = self.source.position(self.labels[0].0.span.start);
        Origin::path(self.source.path.to_string_lossy()).line(position.line).char_column(position.column)
    }

    fn is_cut(&self) -> bool {
        self.lines.clone().any(|number| self.source.line(number).len() > LONGEST_LINE)
    }

    fn snippet(&self, sources: &'a Sources) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let mut window = String::new();
        let mut annotations = Vec::new();
        for number in self.lines.clone() {
            let line = self.source.line(number);
            let labels =
                self.labels.iter().filter(|(label, _)| is_on(label.span, &line, self.source.text.len()));
            let labels: Vec<_> = labels.collect();
            let shown = cut(&self.source.text, line.clone(), labels.first().map(|(label, _)| label.span));
            let before = if shown.start > line.start { "… " } else { "" };
            let base = window.len() + before.len();
            for (label, kind) in labels {
                let start = (label.span.start as usize).clamp(shown.start, shown.end);
                let end = (label.span.end as usize).clamp(start, shown.end);
                let range = base + start - shown.start..base + end - shown.start;
                annotations.push(kind.span(range).label(sources.redact(&label.text)));
            }
            window.push_str(before);
            window.push_str(&self.source.text[shown.clone()]);
            window.push_str(if shown.end < line.end { " …" } else { "" });
            window.push('\n');
        }
        Snippet::source(window).line_start(self.lines.start).annotations(annotations)
    }
}

/// Whether a span starts on a line; one at the very end of the text is on the last.
fn is_on(span: Span, line: &Range<usize>, length: usize) -> bool {
    let start = (span.start as usize).min(length);
    (line.start..=line.end).contains(&start)
}

/// The part of a line that is shown.
fn cut(text: &str, line: Range<usize>, around: Option<Span>) -> Range<usize> {
    let line = line.start..line.start + text[line].trim_end().len();
    if line.len() <= LONGEST_LINE {
        return line;
    }
    let middle = around.map_or(line.start, |span| (span.start as usize).clamp(line.start, line.end));
    let start = middle.saturating_sub(SHOWN / 3).max(line.start);
    let end = (start + SHOWN).min(line.end);
    let border =
        |at: usize| (line.start..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(line.start);
    border(start)..border(end)
}

// === as JSON ===

fn object(diagnostic: &Diagnostic, sources: &Sources) -> Value {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut object = json!({
        "severity": severity,
        "code": diagnostic.code.as_str(),
        "message": sources.redact(&diagnostic.message),
    });
    let none = json!({ "file": null, "line": null, "column": null, "end_line": null, "end_column": null });
    let first = diagnostic.labels.first().map_or(none, |label| place(label.span, sources));
    let labels = diagnostic.labels.iter().map(|label| {
        let mut object = place(label.span, sources);
        object["text"] = sources.redact(&label.text).into();
        object
    });
    extend(&mut object, first);
    object["labels"] = labels.collect();
    object["help"] = diagnostic.help.as_deref().map(|help| sources.redact(help)).into();
    object
}

fn place(span: Span, sources: &Sources) -> Value {
    let Some(source) = sources.get(span.file) else { return json!({}) };
    let (start, end) = (source.position(span.start), source.position(span.end));
    json!({
        "file": source.path.to_string_lossy(),
        "line": start.line,
        "column": start.column,
        "end_line": end.line,
        "end_column": end.column,
    })
}

fn extend(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Code;

    fn sources() -> Sources {
        let mut sources = Sources::default();
        sources.add("a.yaml".into(), "one: 1\ntwo: 2\n".into());
        sources.add("b.yaml".into(), "three: 3".into());
        sources
    }

    fn span(file: u32, start: u32, end: u32) -> Span {
        Span { file: FileId(file), start, end }
    }

    fn problems() -> Diagnostics {
        let mut diagnostics = Diagnostics::default();
        let error = Diagnostic::error(Code::DuplicateName, span(1, 0, 5), "`three` stands twice");
        diagnostics
            .push(error.reason("again here").label(span(0, 7, 10), "first here").help("take one away"));
        diagnostics.push(Diagnostic::warning(Code::Unused, span(0, 0, 3), "`one` is unused"));
        diagnostics.push(Diagnostic::nowhere(Code::UnreadableFile, "no root"));
        diagnostics
    }

    #[test]
    fn people_see_the_words_underlined() {
        insta::assert_snapshot!(text(&problems(), &sources(), Style::Plain), @r"
        error[unreadable-file]: no root

        warning[unused]: `one` is unused
         --> a.yaml:1:1
          |
        1 | one: 1
          | ^^^

        error[duplicate-name]: `three` stands twice
         --> b.yaml:1:1
          |
        1 | three: 3
          | ^^^^^ again here
          |
         ::: a.yaml:2:1
          |
        2 | two: 2
          | --- first here
          |
          = help: take one away
        ");
    }

    #[test]
    fn machines_get_stable_keys() {
        let json = json(&problems(), &sources());
        assert_eq!(json[0]["file"], Value::Null);
        assert_eq!(json[1]["severity"], "warning");
        let expected = serde_json::json!({
            "severity": "error", "code": "duplicate-name", "message": "`three` stands twice",
            "file": "b.yaml", "line": 1, "column": 1, "end_line": 1, "end_column": 6,
            "labels": [
                { "file": "b.yaml", "line": 1, "column": 1, "end_line": 1, "end_column": 6, "text": "again here" },
                { "file": "a.yaml", "line": 2, "column": 1, "end_line": 2, "end_column": 4, "text": "first here" },
            ],
            "help": "take one away",
        });
        assert_eq!(json[2], expected);
    }

    #[test]
    fn what_lies_at_or_past_the_end_is_shown_too() {
        let mut diagnostics = Diagnostics::default();
        diagnostics.push(Diagnostic::error(Code::Syntax, span(1, 8, 8), "unfinished"));
        diagnostics.push(Diagnostic::error(Code::Syntax, span(1, 90, 99), "beyond"));
        diagnostics.push(Diagnostic::error(Code::Syntax, span(9, 0, 1), "elsewhere"));
        let text = text(&diagnostics, &sources(), Style::Plain);
        assert_eq!(text.matches("error[syntax]").count(), 3, "{text}");
    }
}
