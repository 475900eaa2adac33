//! Paths rewritten by a regular expression with named groups.

use regex::{Captures, Regex, RegexBuilder};

use super::proxy::path_template;
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    value::{Span, Spanned, Template, Variable, Variables},
};

/// Matching takes time in proportion to the path, whatever the expression; compiled, it may hold this much.
const MOST_COMPILED: usize = 1 << 20;

/// What a path becomes that matches.
#[derive(Debug)]
pub struct RegexRewrite {
    regex: Regex,
    /// The places of the named groups, in the order that `to` knows them by, before the route's captures.
    groups: Box<[usize]>,
    to: Template,
}

/// A match, and behind it the request.
struct Matched<'a, V> {
    groups: &'a [usize],
    found: Captures<'a>,
    request: &'a V,
}

impl RegexRewrite {
    /// `None` where an error was reported.
    pub(super) fn compile(
        regex: &Spanned<String>,
        to: &Spanned<String>,
        captures: &[&str],
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let compiled = match RegexBuilder::new(regex).size_limit(MOST_COMPILED).build() {
            Ok(compiled) => compiled,
            Err(error) => {
                diagnostics.push(problem(regex.span, &error));
                return None;
            }
        };
        let named = || compiled.capture_names().enumerate().filter_map(|(at, name)| Some((at, name?)));
        let names: Vec<&str> = named().map(|(_, name)| name).chain(captures.iter().copied()).collect();
        let to = path_template(to, to.span, &names, diagnostics)?;
        let groups = named().map(|(at, _)| at).collect();
        Some(Self { groups, to, regex: compiled })
    }

    /// Appends what a path becomes; says whether it matches.
    pub(super) fn render(&self, path: &str, request: &impl Variables, out: &mut String) -> bool {
        let Some(found) = self.regex.captures(path) else { return false };
        self.to.render(&Matched { groups: &self.groups, found, request }, out);
        true
    }

    pub(super) fn has_query(&self) -> bool {
        self.to.has_query()
    }
}

fn problem(span: Span, error: &regex::Error) -> Diagnostic {
    let reason = match error {
        regex::Error::CompiledTooBig(_) => {
            "it takes too much memory: its repetitions are too many".to_owned()
        }
        error => {
            let said = error.to_string();
            let last = said.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    };
    Diagnostic::error(Code::BadRegex, span, "this is no regular expression").reason(reason)
}

impl<V: Variables> Variables for Matched<'_, V> {
    fn capture(&self, index: usize) -> &str {
        match self.groups.get(index) {
            // A group that took no part is empty.
            Some(group) => self.found.get(*group).map_or("", |group| group.as_str()),
            None => self.request.capture(index - self.groups.len()),
        }
    }

    fn variable(&self, variable: Variable, out: &mut String) {
        self.request.variable(variable, out);
    }
}
