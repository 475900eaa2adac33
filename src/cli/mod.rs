//! The command line: one file per command.

mod check;
mod completions;
mod explain;
mod file;
mod init;
mod man;
mod output;
mod reload;
mod routes;
mod run;
mod schema;
mod socket;
mod status;
mod test;
mod upstream;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

pub use output::Exit;

/// A declarative reverse proxy: a YAML or TOML tree in, traffic through, changed while it runs.
#[derive(Debug, Parser)]
#[command(name = "portolan", version, max_term_width = 100, after_help = EXIT_CODES)]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    /// Without one: run
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Explain(explain::Explain),
    Test(test::Test),
    Routes(routes::Routes),
    Schema(schema::Schema),
    Reload(reload::Reload),
    Status(status::Status),
    Upstream(upstream::Upstream),
    Init(init::Init),
    Version(version::Version),
    Completions(completions::Completions),
    Man(man::Man),
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

const EXIT_CODES: &str = "\
Exit codes: 0 all is well, 1 something is wrong with the configuration or one of its tests failed, \
2 the command was not understood, 3 the machine is in the way (an address cannot be had, no process runs).";

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    Cli::parse().command.unwrap_or_else(|| Command::Run(run::Run::default())).run().into()
}

impl Command {
    fn run(self) -> Exit {
        match self {
            Self::Run(command) => command.run(),
            Self::Check(command) => command.run(),
            Self::Explain(command) => command.run(),
            Self::Test(command) => command.run(),
            Self::Routes(command) => command.run(),
            Self::Schema(command) => command.run(),
            Self::Reload(command) => command.run(),
            Self::Status(command) => command.run(),
            Self::Upstream(command) => command.run(),
            Self::Init(command) => command.run(),
            Self::Version(command) => command.run(),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
        }
    }

    #[test]
    fn commands_are_understood() {
        for line in [
            "portolan",
            "portolan run",
            "portolan run a.yaml",
            "portolan check a.yaml --format json --print",
            "portolan explain GET https://a/b -H X-A:1 -H X-B:2 --client-ip ::1 --config a.yaml",
            "portolan reload --socket /run/a.sock",
            "portolan completions bash",
            "portolan upstream drain app 10.0.0.1:80 --socket /run/a.sock",
            "portolan upstream undrain app unix:/run/a.sock",
            "portolan upstream weight app [::1]:80 5",
            "portolan upstream weight app 10.0.0.1:80 configured",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "portolan rnu",
            "portolan check a b",
            "portolan explain GET",
            "portolan upstream drain app 10.0.0.1",
            "portolan upstream weight app 10.0.0.1:80 0",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
