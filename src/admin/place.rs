//! Where the control socket lies when nothing is said about it.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

const FILE: &str = "admin.sock";
const SYSTEM: &str = "/run/portolan";

/// The socket's path for a process that starts: what the service manager gave it, else what its user's
/// session has, else the system's, else a directory of the user's own under /tmp.
pub fn default_path() -> io::Result<PathBuf> {
    if let Some(directory) = variable("RUNTIME_DIRECTORY") {
        return Ok(directory.join(FILE));
    }
    let directories = variable("XDG_RUNTIME_DIR").map(|directory| directory.join("portolan"));
    for directory in directories.into_iter().chain([SYSTEM.into()]) {
        if private(&directory).is_ok() {
            return Ok(directory.join(FILE));
        }
    }
    let directory = temporary()?;
    private(&directory)?;
    Ok(directory.join(FILE))
}

/// Where a process may have its socket, likeliest first. Those of other users are left out.
pub fn candidates() -> Vec<PathBuf> {
    let session = variable("XDG_RUNTIME_DIR").map(|directory| directory.join("portolan"));
    let own = temporary().ok().filter(|directory| is_own(directory).unwrap_or(false));
    let directories = [variable("RUNTIME_DIRECTORY"), session, Some(SYSTEM.into()), own];
    directories.into_iter().flatten().map(|directory| directory.join(FILE)).collect()
}

/// A directory named by the environment; the service manager may name several.
fn variable(name: &str) -> Option<PathBuf> {
    let value = env::var(name).ok()?;
    let first = value.split(':').next().filter(|path| path.starts_with('/'))?;
    Some(first.into())
}

fn temporary() -> io::Result<PathBuf> {
    Ok(env::temp_dir().join(format!("portolan-{}", user()?)))
}

/// Makes the directory where it is missing. It must be ours: in one that is another's, the socket could be
/// replaced by theirs.
fn private(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match is_own(directory)? {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} belongs to another user", directory.display()),
            )),
        },
        Err(error) => Err(error),
    }
}

fn is_own(directory: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(directory)?;
    Ok(metadata.is_dir() && metadata.uid() == user()?)
}

fn user() -> io::Result<u32> {
    fs::metadata("/proc/self").map(|process| process.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_private_and_taken_again() {
        let directory = env::temp_dir().join(format!("portolan-place-{}", std::process::id()));
        private(&directory).unwrap();
        private(&directory).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        fs::remove_dir(&directory).unwrap();
        fs::write(&directory, "").unwrap();
        assert!(private(&directory).is_err());
        fs::remove_file(&directory).unwrap();
    }
}
