//! The configuration that a command is about.

use std::path::{Path, PathBuf};

use super::output::{Exit, complain, problems};
use crate::{
    compile::Registries,
    server::{Attempt, intact},
    snapshot::Snapshot,
};

/// Where a configuration is looked for when none is named, in this order.
const PLACES: [&str; 3] = ["conf.d/portolan.yaml", "portolan.yaml", "/etc/portolan/portolan.yaml"];

/// The file named, or the first that there is of the usual ones.
pub fn find(named: Option<PathBuf>) -> Result<PathBuf, Exit> {
    let found = named.or_else(usual);
    found.ok_or_else(|| {
        complain(format!(
            "there is no configuration: none of {} exists. Name a file, or let `portolan init` write one",
            PLACES.join(", ")
        ));
        Exit::Configuration
    })
}

/// The first that there is of the usual ones.
pub fn usual() -> Option<PathBuf> {
    first(Path::exists)
}

fn first(exists: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    PLACES.into_iter().map(PathBuf::from).find(|path| exists(path))
}

/// Reads and compiles it. What is wrong is shown, and then there is none, unless it is wrong with tenants that
/// the rest goes without.
pub fn snapshot(named: Option<PathBuf>) -> Result<(Snapshot, Attempt), Exit> {
    let root = find(named)?;
    let mut attempt = intact(&root, &Registries::default());
    match attempt.snapshot.take() {
        Some(snapshot) => {
            problems(&attempt.broken, &attempt.sources);
            for (tenant, _) in attempt.tenants.broken() {
                complain(format!("the files of tenant {tenant} are wrong: its hosts are left out here"));
            }
            Ok((snapshot, attempt))
        }
        None => {
            problems(&attempt.diagnostics, &attempt.sources);
            Err(Exit::Configuration)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_configuration_is_taken() {
        assert_eq!(first(|_| true), Some("conf.d/portolan.yaml".into()));
        assert_eq!(first(|path| path.starts_with("/etc")), Some("/etc/portolan/portolan.yaml".into()));
        assert_eq!(first(|_| false), None);
        assert_eq!(find(Some("a.yaml".into())), Ok("a.yaml".into()));
    }
}
