//! What is wrong with a configuration, said so that it can be mended: a stable code, the words meant,
//! the reason, a suggestion. Problems are collected, never thrown, so that one run shows all of them.

mod code;
mod render;
mod sources;
mod suggest;

pub use code::Code;
pub use render::{Style, json, text};
pub use sources::{Position, Source, Sources};
pub use suggest::closest;

use crate::value::{Span, TemplateError};

/// How bad it is: an error refuses the configuration, a warning does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// One problem. The first label is the place that the problem is reported at; a problem with no place
/// (a missing root file) has none.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: Code,
    pub message: String,
    pub labels: Vec<Label>,
    pub help: Option<String>,
    /// Whether it comes of what settings are beside each other, or beside what holds without them.
    pub compared: bool,
}

/// Words of a source with what they have to do with the problem.
#[derive(Clone, Debug)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

/// The problems found so far.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

// === impl Diagnostic ===

impl Diagnostic {
    pub fn error(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message).label(span, "")
    }

    pub fn warning(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message).label(span, "")
    }

    /// An error that has no place in any file.
    pub fn nowhere(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    fn new(severity: Severity, code: Code, message: impl Into<String>) -> Self {
        Self { severity, code, message: message.into(), labels: Vec::new(), help: None, compared: false }
    }

    /// A template that cannot be parsed; `span` is the whole template's.
    pub fn bad_template(span: Span, error: &TemplateError) -> Self {
        let diagnostic = Self::error(Code::BadTemplate, span, error.reason.clone());
        match &error.suggestion {
            Some(suggestion) => diagnostic.help(format!("did you mean {suggestion:?}?")),
            None => diagnostic,
        }
    }

    /// Points at another place, or says more about the first where `span` is the one it has.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// What stands beside the underlined words.
    #[must_use]
    pub fn reason(mut self, text: impl Into<String>) -> Self {
        if let Some(first) = self.labels.first_mut() {
            first.text = text.into();
        }
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Says that each by itself would be right.
    #[must_use]
    pub fn compared(self) -> Self {
        Self { compared: true, ..self }
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    fn says_the_same(&self, other: &Self) -> bool {
        let place = |diagnostic: &Self| diagnostic.labels.first().map(|label| label.span);
        (self.code, place(self), &self.message) == (other.code, place(other), &other.message)
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn maybe_help(mut self, text: Option<impl Into<String>>) -> Self {
        self.help = text.map(Into::into).or(self.help);
        self
    }
}

// === impl Diagnostics ===

impl Diagnostics {
    /// More errors than these are not kept, and no more warnings: a wrong tree must not cost memory without bound. Warnings
    /// take no error's place, or enough of them would make a wrong tree pass.
    pub const MOST: usize = 1000;

    /// What stands once but counts in several places, as an anchor does, is said once.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        let alike = self.list.iter().filter(|other| other.severity == diagnostic.severity).count();
        if alike < Self::MOST && !self.list.iter().any(|other| other.says_the_same(&diagnostic)) {
            self.list.push(diagnostic);
        }
    }

    pub fn extend(&mut self, other: Self) {
        other.list.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Keeps those of which this is true.
    pub fn retain(&mut self, keep: impl FnMut(&Diagnostic) -> bool) {
        self.list.retain(keep);
    }

    /// Whether further errors would not be kept, so that looking for them is no use.
    pub fn is_full(&self) -> bool {
        self.errors() >= Self::MOST
    }

    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    pub fn errors(&self) -> usize {
        self.list.iter().filter(|d| d.is_error()).count()
    }

    pub fn warnings(&self) -> usize {
        self.list.len() - self.errors()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::FileId;

    fn place(start: u32) -> Span {
        Span { file: FileId(0), start, end: start }
    }

    #[test]
    fn no_number_of_warnings_hides_an_error() {
        let mut diagnostics = Diagnostics::default();
        for start in 0..5000 {
            diagnostics.push(Diagnostic::warning(Code::Unused, place(start), "unused"));
        }
        assert_eq!(diagnostics.warnings(), Diagnostics::MOST);
        assert!(!diagnostics.is_full());
        diagnostics.push(Diagnostic::error(Code::ForbiddenHost, place(0), "not allowed"));
        assert!(diagnostics.has_errors());
    }
}
