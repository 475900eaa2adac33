//! Finding the process that a command is for.

use std::{env, fs, net::SocketAddr, path::PathBuf};

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
    value::{Bind, Secret},
};

/// Where the process listens, and what it asks to be shown.
#[derive(Debug, Args)]
pub struct Process {
    /// Its admin socket, a path or IP:PORT [default: the configuration's admin.bind, else where it is put by default]
    #[arg(long, value_name = "ADDRESS", value_parser = place)]
    socket: Option<Bind>,
    /// The configuration that says where its admin socket is
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// A file that holds its admin token [default: PORTOLAN_ADMIN_TOKEN, else the configuration's admin.token]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A place with the token that is meant for it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    bind: Bind,
    token: Option<Secret>,
}

/// Where the token stands that is shown wherever a process is asked.
const VARIABLE: &str = "PORTOLAN_ADMIN_TOKEN";

impl Process {
    /// Asks it. What goes wrong is shown.
    pub fn ask(self, question: Question) -> Result<Value, Exit> {
        let mut failed = Vec::new();
        let named = self.token().map_err(|problem| {
            complain(problem);
            Exit::Runtime
        })?;
        for place in self.places() {
            let token = named.as_ref().or(place.token.as_ref());
            match ask(&place.bind, token, question) {
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

    /// The token that was named for this command.
    fn token(&self) -> Result<Option<Secret>, String> {
        let text = match &self.token_file {
            None => env::var(VARIABLE).ok(),
            Some(file) => {
                let text = fs::read_to_string(file);
                Some(text.map_err(|error| format!("{} cannot be read: {error}", file.display()))?)
            }
        };
        Ok(text.map(|text| Secret(text.trim().to_owned())).filter(|token| !token.0.is_empty()))
    }

    /// The likeliest first. The configuration's token is for its own place alone.
    fn places(self) -> Vec<Place> {
        let untold = |bind| Place { bind, token: None };
        let usual = || candidates().into_iter().map(Bind::Unix).map(untold);
        match (self.socket, self.config) {
            (Some(socket), _) => {
                let configured = configured(None).filter(|place| place.bind == socket);
                vec![configured.unwrap_or(untold(socket))]
            }
            (None, Some(file)) => {
                configured(Some(file)).map_or_else(|| usual().collect(), |place| vec![place])
            }
            (None, None) => configured(None).into_iter().chain(usual()).collect(),
        }
    }
}

/// What the configuration says of it, be the rest of it right or wrong.
fn configured(named: Option<PathBuf>) -> Option<Place> {
    let root = named.or_else(file::usual)?;
    let tree = config::load(&root, &Inputs::disk()).tree?;
    let admin = tree.get("admin")?;
    let bind = admin.get("bind")?.as_scalar()?.text.parse().ok()?;
    let token = admin.get("token").and_then(|token| token.as_scalar());
    // What could not be read still stands there as a reference.
    let token = token.filter(|token| !token.text.contains("${")).map(|token| Secret(token.text.to_string()));
    Some(Place { bind, token })
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
        std::fs::write(
            &file,
            "admin: { bind: \"unix:/run/a.sock\", token: a-token }\nlisteners: { web: { bnid: 1 } }\n",
        )
        .unwrap();
        let process = Process { socket: None, config: Some(file.clone()), token_file: None };
        let token = Some(Secret("a-token".into()));
        assert_eq!(process.places(), [Place { bind: Bind::Unix("/run/a.sock".into()), token }]);
        std::fs::remove_file(file).unwrap();
    }
}
