use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{
    Format, file,
    output::{self, Exit, complain, count, print, problems},
};
use crate::{
    compile::Registries,
    config, diagnostic,
    server::{Attempt, attempt},
};

/// Says everything that is wrong with a configuration
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration [default: ./conf.d/portolan.yaml, ./portolan.yaml or /etc/portolan/portolan.yaml]
    file: Option<PathBuf>,
    /// How problems are shown
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Prints what all files together come to; secrets are shown as references
    #[arg(long)]
    print: bool,
}

impl Check {
    pub fn run(self) -> Exit {
        let root = match file::find(self.file) {
            Ok(root) => root,
            Err(exit) => return exit,
        };
        let attempt = attempt(&root, &Registries::default());
        match self.format {
            Format::Json => output::json(&json!({
                "valid": !attempt.diagnostics.has_errors(),
                "errors": attempt.diagnostics.errors(),
                "warnings": attempt.diagnostics.warnings(),
                "hash": attempt.hash,
                "diagnostics": diagnostic::json(&attempt.diagnostics, &attempt.sources),
                "effective": attempt.tree.as_ref().filter(|_| self.print).map(config::print),
            })),
            Format::Text => show(&attempt, self.print, &root.display().to_string()),
        }
        match attempt.diagnostics.has_errors() {
            true => Exit::Configuration,
            false => Exit::Success,
        }
    }
}

fn show(attempt: &Attempt, effective: bool, name: &str) {
    problems(&attempt.diagnostics, &attempt.sources);
    if let Some(tree) = attempt.tree.as_ref().filter(|_| effective) {
        print(config::print(tree));
    }
    let (errors, warnings) = (attempt.diagnostics.errors(), attempt.diagnostics.warnings());
    complain(match (errors, warnings) {
        (0, 0) => format!("{name} is valid"),
        (0, warnings) => format!("{name} is valid, with {}", count(warnings, "warning")),
        (errors, 0) => format!("{name} has {}", count(errors, "error")),
        (errors, warnings) => {
            format!("{name} has {} and {}", count(errors, "error"), count(warnings, "warning"))
        }
    });
}
