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
                "effective": self.print.then(|| effective(&attempt)).flatten(),
            })),
            Format::Text => show(&attempt, self.print, &root.display().to_string()),
        }
        match attempt.diagnostics.has_errors() {
            true => Exit::Configuration,
            false => Exit::Success,
        }
    }
}

/// What all files come to; each tenant's own by itself, its names as they are written.
fn effective(attempt: &Attempt) -> Option<String> {
    let mut text = config::print(attempt.tree.as_ref()?);
    for delegated in &attempt.delegated {
        if let Some(tree) = &delegated.tree {
            text +=
                &format!("# what tenant {} defines\n---\n{}", delegated.grant.tenant, config::print(tree));
        }
    }
    Some(text)
}

fn show(attempt: &Attempt, print_it: bool, name: &str) {
    problems(&attempt.diagnostics, &attempt.sources);
    if let Some(text) = print_it.then(|| effective(attempt)).flatten() {
        print(text);
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
