//! Finding the process that a command is for.

use std::{
    env,
    fmt::Display,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::Value;

use super::{
    file,
    output::{Exit, complain, problems},
};
use crate::{
    admin::{
        candidates,
        client::{AskError, Question, ask},
    },
    config::{self, Inputs, Loaded, tree::Node},
    value::{Bind, Secret, encoding},
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

/// Where to ask, in this order.
#[derive(Debug)]
struct Places {
    places: Vec<Place>,
    /// The configuration that the process must run: one that was named or found, and does not say where it listens.
    configuration: Option<PathBuf>,
}

/// Where the token stands that is shown wherever a process is asked.
const VARIABLE: &str = "PORTOLAN_ADMIN_TOKEN";

impl Process {
    /// Asks it. What goes wrong is shown.
    pub fn ask(self, question: Question) -> Result<Value, Exit> {
        let named = self.token().map_err(|problem| {
            complain(problem);
            Exit::Runtime
        })?;
        let Places { places, configuration } = self.places()?;
        let mut failed = Vec::new();
        for place in places {
            let token = named.as_ref().or(place.token.as_ref());
            match own(&place.bind, token, configuration.as_deref())
                .and_then(|()| ask(&place.bind, token, &question))
            {
                Err(error @ (AskError::NotRunning { .. } | AskError::Other { .. })) => {
                    failed.push(error.to_string());
                }
                other => {
                    return other.map_err(|error| {
                        complain(error);
                        Exit::Runtime
                    });
                }
            }
        }
        failed.dedup();
        complain(format!("no running Portolan was found:\n  {}", failed.join("\n  ")));
        if let Some(configuration) = configuration {
            complain(format!(
                "{} has no admin.bind, so the default places were tried; name another: --socket ADDRESS",
                configuration.display()
            ));
        }
        Err(Exit::Runtime)
    }

    /// The token that was named for this command.
    fn token(&self) -> Result<Option<Secret>, String> {
        let text = match &self.token_file {
            None => env::var(VARIABLE).ok(),
            Some(file) => {
                let failed = |reason: &dyn Display| format!("{} cannot be read: {reason}", file.display());
                let bytes = fs::read(file).map_err(|error| failed(&error))?;
                Some(encoding::text(&bytes).map_err(|reason| failed(&reason))?.into_owned())
            }
        };
        Ok(text.map(|text| Secret(text.trim().to_owned())).filter(|token| !token.0.is_empty()))
    }

    /// The likeliest first. The configuration's token is for its own place alone.
    fn places(self) -> Result<Places, Exit> {
        let without_token = |bind| Place { bind, token: None };
        let only = |place| Places { places: vec![place], configuration: None };
        if let Some(socket) = self.socket {
            let configured = file::usual().and_then(|root| configured(&root).ok().flatten());
            let configured = configured.filter(|place| place.bind == socket);
            return Ok(only(configured.unwrap_or(without_token(socket))));
        }
        let configuration = self.config.or_else(file::usual);
        if let Some(root) = &configuration
            && let Some(place) = configured(root).map_err(|loaded| unknown(root, &loaded))?
        {
            return Ok(only(place));
        }
        let places = candidates().into_iter().map(Bind::Unix).map(without_token).collect();
        Ok(Places { places, configuration })
    }
}

/// Whether the process at a default place runs this configuration, where one was named or found: the place may be that of
/// another process.
fn own(place: &Bind, token: Option<&Secret>, configuration: Option<&Path>) -> Result<(), AskError> {
    let Some(wanted) = configuration else { return Ok(()) };
    let status = ask(place, token, &Question::Status)?;
    // A process of an earlier version does not say.
    let Some(runs) = status["configuration"].as_str() else { return Ok(()) };
    let real = |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path)).ok();
    match real(wanted) == real(Path::new(runs)) {
        true => Ok(()),
        false => Err(AskError::Other {
            place: place.clone(),
            pid: status["pid"].as_u64().unwrap_or_default(),
            runs: runs.to_owned(),
            wanted: wanted.to_owned(),
        }),
    }
}

/// What the configuration says of it, be the rest of it right or wrong; none where it does not say. An error where that cannot
/// be known.
fn configured(root: &Path) -> Result<Option<Place>, Box<Loaded>> {
    let loaded = config::load(root, &Inputs::disk());
    let Some(tree) = &loaded.tree else { return Err(loaded.into()) };
    let Some(admin) = tree.get("admin") else {
        return if loaded.is_whole { Ok(None) } else { Err(loaded.into()) };
    };
    // What could not be read still stands there as a reference.
    let text = |key: &str| {
        let scalar = admin.get(key).and_then(Node::as_scalar);
        scalar.map(|scalar| scalar.text.to_string()).filter(|text| !text.contains("${"))
    };
    let Some(bind) = text("bind").and_then(|bind| bind.parse().ok()) else { return Err(loaded.into()) };
    let token = text("token").map(Secret);
    Ok(Some(Place { bind, token }))
}

/// Says why it is not known where the process listens.
fn unknown(root: &Path, loaded: &Loaded) -> Exit {
    problems(&loaded.diagnostics, &loaded.sources);
    complain(format!(
        "{} does not say where the process listens: correct it, or name its admin socket: --socket ADDRESS",
        root.display()
    ));
    Exit::Configuration
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
        let places = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Process { socket: None, config: Some(file.clone()), token_file: None }.places()
        };
        let token = Some(Secret("a-token".into()));
        let of = |text| places(text).map(|places| places.places);
        let bind = Bind::Unix("/run/a.sock".into());
        assert_eq!(
            of("admin: { bind: \"unix:/run/a.sock\", token: a-token }\nlisteners: { web: { bnid: 1 } }\n"),
            Ok(vec![Place { bind, token }])
        );
        for unknown in [
            "listeners: [\n",
            "include: none.yaml\n",
            "admin: { bnid: \"unix:/run/a.sock\" }\n",
            "admin: { bind: \"127.0.0.1\" }\n",
            "admin: { bind: \"unix:${file:none}\" }\n",
        ] {
            assert_eq!(of(unknown), Err(Exit::Configuration), "{unknown}");
        }
        let silent = places("log: {}\n").unwrap();
        assert_eq!(silent.configuration.as_ref(), Some(&file), "the process has to run it");
        std::fs::remove_file(file).unwrap();
    }
}
