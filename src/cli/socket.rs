//! Finding the process that a command is for.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{
    file,
    output::{Exit, complain},
};
use crate::{
    admin::{
        candidates,
        control::{AskError, Request, ask},
    },
    config::{self, Inputs},
    value::Bind,
};

/// Where the process listens.
#[derive(Debug, Args)]
pub struct Process {
    /// Its control socket [default: the configuration's admin.bind, else where it is put by default]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The configuration that says where its control socket is
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
}

impl Process {
    /// Asks it. What goes wrong is shown.
    pub fn ask(self, request: Request) -> Result<Value, Exit> {
        let mut failed = Vec::new();
        for path in self.sockets() {
            match ask(&path, request) {
                Err(error @ AskError::NotRunning { .. }) => failed.push(error.to_string()),
                other => {
                    return other.map_err(|error| {
                        complain(error);
                        Exit::Runtime
                    });
                }
            }
        }
        failed.dedup();
        complain(format!("Portolan does not run here:\n  {}", failed.join("\n  ")));
        Err(Exit::Runtime)
    }

    /// The likeliest first.
    fn sockets(self) -> Vec<PathBuf> {
        match (self.socket, self.config) {
            (Some(socket), _) => vec![socket],
            (None, Some(file)) => configured(Some(file)).map_or_else(candidates, |socket| vec![socket]),
            (None, None) => configured(None).into_iter().chain(candidates()).collect(),
        }
    }
}

/// What the configuration says of it, be the rest of it right or wrong.
fn configured(named: Option<PathBuf>) -> Option<PathBuf> {
    let root = named.or_else(file::usual)?;
    let tree = config::load(&root, &Inputs::disk()).tree?;
    match tree.get("admin")?.get("bind")?.as_scalar()?.text.parse().ok()? {
        Bind::Unix(path) => Some(path),
        Bind::Any(_) | Bind::Tcp(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_configuration_says_where_the_process_is_all_the_same() {
        let file = std::env::temp_dir().join(format!("portolan-socket-{}.yaml", std::process::id()));
        std::fs::write(&file, "admin: { bind: \"unix:/run/a.sock\" }\nlisteners: { web: { bnid: 1 } }\n")
            .unwrap();
        let process = Process { socket: None, config: Some(file.clone()) };
        assert_eq!(process.sockets(), [PathBuf::from("/run/a.sock")]);
        std::fs::remove_file(file).unwrap();
    }
}
