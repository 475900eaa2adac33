use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{
    Format, file,
    output::{self, Exit, count, print, problems},
};
use crate::{
    compile,
    diagnostic::{self, Diagnostics, Sources},
};

/// Runs the tests of a configuration
#[derive(Debug, Args)]
pub struct Test {
    /// The configuration [default: ./conf.d/portolan.yaml, ./portolan.yaml or /etc/portolan/portolan.yaml]
    file: Option<PathBuf>,
    /// How the outcome is shown
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Test {
    pub fn run(self) -> Exit {
        let (snapshot, attempt) = match file::snapshot(self.file) {
            Ok(compiled) => compiled,
            Err(exit) => return exit,
        };
        let outcomes = compile::run(&snapshot);
        match self.format {
            Format::Text => show(&outcomes, &attempt.sources),
            Format::Json => output::json(&json(&outcomes, &attempt.sources)),
        }
        // Tests that could not be run have not passed.
        match !attempt.broken.has_errors() && outcomes.iter().all(compile::Outcome::passed) {
            true => Exit::Success,
            false => Exit::Configuration,
        }
    }
}

fn show(outcomes: &[compile::Outcome<'_>], sources: &Sources) {
    for outcome in outcomes {
        let word = if outcome.passed() { "ok    " } else { "FAILED" };
        print(format!("{word} {} ({})", outcome.test.title, sources.place(outcome.test.place)));
        problems(&failures(outcome), sources);
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
    print(format!("{}, {failed} failed", count(outcomes.len(), "test")));
}

fn json(outcomes: &[compile::Outcome<'_>], sources: &Sources) -> Value {
    let one = |outcome: &compile::Outcome<'_>| {
        json!({
            "test": outcome.test.title,
            "place": sources.place(outcome.test.place),
            "passed": outcome.passed(),
            "diagnostics": diagnostic::json(&failures(outcome), sources),
        })
    };
    outcomes.iter().map(one).collect()
}

fn failures(outcome: &compile::Outcome<'_>) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    outcome.failures.iter().for_each(|failure| diagnostics.push(failure.clone()));
    diagnostics
}
