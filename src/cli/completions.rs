use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{
    Cli,
    output::{Exit, print},
};

/// Prints completions for a shell
#[derive(Debug, Args)]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Exit {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "portolan", &mut text);
        print(String::from_utf8_lossy(&text));
        Exit::Success
    }
}
