use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;

use super::output::{Exit, complain, print};

/// Writes a small configuration to begin with; what is there already is not overwritten
#[derive(Debug, Args)]
pub struct Init {
    /// Where to
    #[arg(default_value = ".")]
    directory: PathBuf,
}

/// The files written.
const FILES: [(&str, &str); 3] = [
    ("portolan.yaml", include_str!("init/portolan.yaml")),
    ("hosts/www.yaml", include_str!("init/www.yaml")),
    ("pages/welcome.html", include_str!("init/welcome.html")),
];

impl Init {
    pub fn run(self) -> Exit {
        if let Some(there) =
            FILES.iter().map(|(name, _)| self.directory.join(name)).find(|path| path.exists())
        {
            complain(format!("{} is there already and is not overwritten", there.display()));
            return Exit::Usage;
        }
        for (name, text) in FILES {
            let path = self.directory.join(name);
            if let Err(error) = write(&path, text) {
                complain(format!("{} cannot be written: {error}", path.display()));
                return Exit::Runtime;
            }
            print(format!("wrote {}", path.display()));
        }
        print(format!("\nNow: portolan run {}", self.directory.join(FILES[0].0).display()));
        Exit::Success
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    // Not even what has come to lie there since it was looked for.
    fs::File::create_new(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compile::{self, Registries},
        diagnostic::{self, Style},
        server::attempt,
    };

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("portolan-init-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn what_is_written_has_no_problem_and_its_tests_pass() {
        let directory = directory("checks");
        assert_eq!(Init { directory: directory.clone() }.run(), Exit::Success);
        let attempt = attempt(&directory.join("portolan.yaml"), &Registries::default());
        let text = diagnostic::text(&attempt.diagnostics, &attempt.sources, Style::Plain);
        assert!(attempt.diagnostics.is_empty(), "{text}");
        let snapshot = attempt.snapshot.unwrap();
        let outcomes = compile::run(&snapshot);
        assert!(!outcomes.is_empty() && outcomes.iter().all(compile::Outcome::passed));
    }

    #[test]
    fn what_is_there_stays() {
        let directory = directory("stays");
        fs::create_dir_all(directory.join("hosts")).unwrap();
        fs::write(directory.join("hosts/www.yaml"), "mine").unwrap();
        assert_eq!(Init { directory: directory.clone() }.run(), Exit::Usage);
        assert_eq!(fs::read_to_string(directory.join("hosts/www.yaml")).unwrap(), "mine");
        assert!(!directory.join("portolan.yaml").exists());
    }
}
