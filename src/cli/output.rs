//! What commands print and how they end.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use crate::diagnostic::{self, Diagnostics, Sources, Style};

/// How a command ends; scripts read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Success = 0,
    /// Something is wrong with the configuration, or a test failed.
    Configuration = 1,
    /// The command was not understood.
    Usage = 2,
    /// The machine is in the way.
    Runtime = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Prints to stdout. A reader that has gone, as `head` does, ends it quietly.
pub fn print(text: impl AsRef<str>) {
    let mut text = text.as_ref().to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// Says on stderr what went wrong.
pub fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a value as JSON.
pub fn json(value: &serde_json::Value) {
    print(format!("{value:#}"));
}

/// Shows problems on stderr.
pub fn problems(diagnostics: &Diagnostics, sources: &Sources) {
    if !diagnostics.is_empty() {
        complain(diagnostic::text(diagnostics, sources, style(&io::stderr())).trim_end());
    }
}

/// Colour is for terminals, and for people who have not said no to it (no-color.org).
fn style(stream: &impl IsTerminal) -> Style {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match stream.is_terminal() && !refused {
        true => Style::Colour,
        false => Style::Plain,
    }
}

/// `1 error`, `2 errors`.
pub fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}
