use std::path::PathBuf;

use clap::Args;

use super::{
    file,
    output::{Exit, complain, problems},
};
use crate::server::{self, Failure};

/// Serves, and takes changes of the configuration over while it runs
///
/// The configuration is read again when one of its files changes, at SIGHUP and by `portolan reload`; one with
/// errors changes nothing. SIGUSR1 opens log files anew. SIGTERM and SIGINT finish what is in flight and
/// end; the second time they end at once.
#[derive(Debug, Default, Args)]
pub struct Run {
    /// The configuration [default: ./conf.d/portolan.yaml, ./portolan.yaml or /etc/portolan/portolan.yaml]
    file: Option<PathBuf>,
}

impl Run {
    pub fn run(self) -> Exit {
        let root = match file::find(self.file) {
            Ok(root) => root,
            Err(exit) => return exit,
        };
        match server::run(&root) {
            Ok(()) => Exit::Success,
            Err(Failure::Configuration(attempt)) => {
                problems(&attempt.diagnostics, &attempt.sources);
                Exit::Configuration
            }
            Err(Failure::Refused) => Exit::Configuration,
            Err(failure @ Failure::Runtime(_)) => {
                complain(format!("portolan cannot run: {failure}"));
                Exit::Runtime
            }
        }
    }
}
