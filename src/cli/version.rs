use clap::Args;

use super::output::{Exit, print};

/// Prints the version
#[derive(Debug, Args)]
pub struct Version {}

impl Version {
    pub fn run(self) -> Exit {
        print(format!("portolan {}", env!("CARGO_PKG_VERSION")));
        Exit::Success
    }
}
