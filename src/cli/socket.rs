//! Finding the process that a command is for.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use serde_json::Value;

use super::{
    file,
    output::{Exit, complain},
};
use crate::{
    admin::{
        candidates,
        client::{AskError, Question, ask},
    },
    config::{self, Inputs},
    value::Bind,
};

/// Where the process listens.
#[derive(Debug, Args)]
pub struct Process {
    /// Its admin socket, a path or IP:PORT [default: the configuration's admin.bind, else where it is put by default]
    #[arg(long, value_name = "ADDRESS", value_parser = place)]
    socket: Option<Bind>,
    /// The configuration that says where its admin socket is
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
}

impl Process {
    /// Asks it. What goes wrong is shown.
    pub fn ask(self, question: Question) -> Result<Value, Exit> {
        let mut failed = Vec::new();
        for place in self.sockets() {
            match ask(&place, question) {
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
    fn sockets(self) -> Vec<Bind> {
        let usual = || candidates().into_iter().map(Bind::Unix);
        match (self.socket, self.config) {
            (Some(socket), _) => vec![socket],
            (None, Some(file)) => {
                configured(Some(file)).map_or_else(|| usual().collect(), |socket| vec![socket])
            }
            (None, None) => configured(None).into_iter().chain(usual()).collect(),
        }
    }
}

/// What the configuration says of it, be the rest of it right or wrong.
fn configured(named: Option<PathBuf>) -> Option<Bind> {
    let root = named.or_else(file::usual)?;
    let tree = config::load(&root, &Inputs::disk()).tree?;
    tree.get("admin")?.get("bind")?.as_scalar()?.text.parse().ok()
}

/// A socket as it is named on the command line: the path may stand by itself.
fn place(text: &str) -> Result<Bind, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) => Ok(Bind::Tcp(address)),
        Err(_) if text.starts_with("unix:") => text.parse(),
        Err(_) => Ok(Bind::Unix(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_an_address() {
        assert_eq!(place("127.0.0.1:9901"), Ok(Bind::Tcp("127.0.0.1:9901".parse().unwrap())));
        assert_eq!(place("admin.sock"), Ok(Bind::Unix("admin.sock".into())));
        assert_eq!(place("unix:/run/a.sock"), Ok(Bind::Unix("/run/a.sock".into())));
    }

    #[test]
    fn a_wrong_configuration_says_where_the_process_is_all_the_same() {
        let file = std::env::temp_dir().join(format!("portolan-socket-{}.yaml", std::process::id()));
        std::fs::write(&file, "admin: { bind: \"unix:/run/a.sock\" }\nlisteners: { web: { bnid: 1 } }\n")
            .unwrap();
        let process = Process { socket: None, config: Some(file.clone()) };
        assert_eq!(process.sockets(), [Bind::Unix("/run/a.sock".into())]);
        std::fs::remove_file(file).unwrap();
    }
}
