//! The only way to the world: files, globs, environment. Everything asked for is remembered, so that one
//! load sees one state, and what was asked for is what is watched.

use std::{
    collections::BTreeMap,
    fmt,
    fs::OpenOptions,
    io::{ErrorKind, Read},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use sha2::{Digest, Sha256};

/// A file's content, or why there is none.
pub type Content = Result<Arc<[u8]>, String>;

/// Files and environment as one load or compilation sees them. What was seen is kept: asked again, it says the
/// same, whatever has become of the files.
pub struct Inputs {
    world: World,
    seen: Mutex<Seen>,
}

#[derive(Clone)]
enum World {
    Disk,
    Memory(Arc<Memory>),
}

struct Memory {
    files: BTreeMap<PathBuf, Arc<[u8]>>,
    environment: BTreeMap<String, String>,
}

#[derive(Default)]
struct Seen {
    files: BTreeMap<PathBuf, Content>,
    globs: BTreeMap<String, Vec<PathBuf>>,
    environment: BTreeMap<String, Option<String>>,
    /// Where files lie that were read, and directories that were asked for, symlinks followed.
    real: BTreeMap<PathBuf, Option<PathBuf>>,
}

impl Inputs {
    /// Larger files are not read.
    pub const LARGEST: u64 = 16 << 20;
    /// What [`Inputs::read`] says of them.
    pub const TOO_LARGE: &str = "it is larger than 16 MiB";
    /// What [`Inputs::read_within`] says of a file elsewhere.
    pub const OUTSIDE: &str = "it lies outside of the tenant's roots";

    /// The machine's files and the process's environment.
    pub fn disk() -> Self {
        Self { world: World::Disk, seen: Mutex::default() }
    }

    /// Only these files and variables.
    pub fn memory<P, C, K, V>(
        files: impl IntoIterator<Item = (P, C)>,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Self
    where
        P: Into<PathBuf>,
        C: Into<Vec<u8>>,
        K: Into<String>,
        V: Into<String>,
    {
        let files = files.into_iter().map(|(path, content)| (normal(&path.into()), content.into().into()));
        let environment = environment.into_iter().map(|(name, value)| (name.into(), value.into()));
        let memory = Memory { files: files.collect(), environment: environment.collect() };
        Self { world: World::Memory(Arc::new(memory)), seen: Mutex::default() }
    }

    /// The same world, of which nothing was seen yet.
    pub fn anew(&self) -> Self {
        Self { world: self.world.clone(), seen: Mutex::default() }
    }

    /// A file's content. Asked again, the answer is the same.
    pub fn read(&self, path: &Path) -> Content {
        let path = normal(path);
        if let Some(content) = self.seen().files.get(&path) {
            return content.clone();
        }
        let read = match &self.world {
            World::Disk => read_disk(&path),
            World::Memory(memory) => {
                let content = memory.files.get(&path).cloned().ok_or_else(|| "no such file".to_owned());
                content.and_then(bounded).map(|content| (content, Some(path.clone())))
            }
        };
        let mut seen = self.seen();
        let content = read.map(|(content, real)| {
            seen.real.insert(path.clone(), real);
            content
        });
        seen.files.entry(path).or_insert(content).clone()
    }

    /// The same for a file that lies under one of some directories: as it is named, and as it is found when every
    /// symlink on the way was followed. What is not so named is not looked for.
    pub fn read_within(&self, path: &Path, roots: &[PathBuf]) -> Content {
        let named = absolute(path);
        let real_roots: Vec<PathBuf> = roots.iter().filter_map(|root| self.real(root)).collect();
        let mut roots = roots.iter().map(|root| absolute(root)).chain(real_roots.iter().cloned());
        if !roots.any(|root| named.starts_with(root)) {
            return Err(Self::OUTSIDE.into());
        }
        let content = self.read(path)?;
        match self.real(path) {
            Some(real) if real_roots.iter().any(|root| real.starts_with(root)) => Ok(content),
            _ => Err(Self::OUTSIDE.into()),
        }
    }

    /// Whether a file that a glob found, and that was read, is what the glob means: a symlink may lead to a file
    /// of such a name below the same directory, as Kubernetes has them, and nowhere else. If it is not, the error says where
    /// the file lies.
    pub fn is_meant(&self, path: &Path, glob: &str) -> Result<(), PathBuf> {
        let Some(real) = self.real(path) else { return Err(path.to_owned()) };
        let is_meant = alternatives(glob).iter().any(|glob| {
            let glob = Path::new(glob);
            let (directory, name) = (glob.parent().unwrap_or(Path::new("")), glob.file_name());
            let directory = self.real(&fixed_part(&directory.to_string_lossy()));
            let name = name.and_then(|name| glob::Pattern::new(&name.to_string_lossy()).ok());
            let real_name = real.file_name().map(|name| name.to_string_lossy());
            directory.is_some_and(|directory| real.starts_with(directory))
                && name.zip(real_name).is_some_and(|(pattern, name)| pattern.matches(&name))
        });
        if is_meant { Ok(()) } else { Err(real) }
    }

    /// Where a file or directory lies; for a file that was read, where it lay then.
    fn real(&self, path: &Path) -> Option<PathBuf> {
        let path = normal(path);
        let find = || match &self.world {
            // What is left of "." is the working directory.
            World::Disk if path.as_os_str().is_empty() => std::fs::canonicalize(".").ok(),
            World::Disk => std::fs::canonicalize(&path).ok(),
            World::Memory(_) => Some(absolute(&path)),
        };
        let real = self.seen().real.entry(path.clone()).or_insert_with(find).clone()?;
        Some(absolute(&real))
    }

    /// Whether there is no such file.
    pub fn is_missing(&self, path: &Path) -> bool {
        self.read(path).is_err_and(|reason| reason == "no such file")
    }

    /// The files that match, sorted by name. A pattern that is no glob is an error.
    pub fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        if let Some(paths) = self.seen().globs.get(pattern) {
            return Ok(paths.clone());
        }
        let mut paths = Vec::new();
        for pattern in alternatives(pattern) {
            paths.extend(self.matching(&pattern)?);
        }
        paths.sort();
        paths.dedup();
        self.seen().globs.insert(pattern.to_owned(), paths.clone());
        Ok(paths)
    }

    /// A variable of the environment.
    pub fn env(&self, name: &str) -> Option<String> {
        let ask = || match &self.world {
            World::Disk => std::env::var(name).ok(),
            World::Memory(memory) => memory.environment.get(name).cloned(),
        };
        self.seen().environment.entry(name.to_owned()).or_insert_with(ask).clone()
    }

    /// What a change of can change the outcome: every file asked for, be it there or not, and the
    /// directories that globs looked in.
    pub fn watched(&self) -> Vec<PathBuf> {
        let seen = self.seen();
        let directories = seen.globs.keys().flat_map(|pattern| alternatives(pattern)).map(|p| fixed_part(&p));
        let found = seen.globs.values().flatten().filter_map(|path| path.parent().map(Path::to_owned));
        let mut paths: Vec<_> = seen.files.keys().cloned().chain(directories).chain(found).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// SHA-256 in hexadecimal over all that was read.
    pub fn hash(&self) -> String {
        let mut digest = Sha256::new();
        for (path, content) in &self.seen().files {
            let content: &[u8] = content.as_ref().map_or(&[], |content| content);
            for part in [path.as_os_str().as_encoded_bytes(), content] {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
        }
        for (name, value) in &self.seen().environment {
            digest.update(format!("{name}={value:?}\n"));
        }
        format!("{:x}", digest.finalize())
    }

    fn matching(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let options = glob::MatchOptions {
            require_literal_separator: true,
            require_literal_leading_dot: true,
            case_sensitive: true,
        };
        let wrong = |error: glob::PatternError| error.msg.to_owned();
        match &self.world {
            World::Disk => Ok(glob::glob_with(pattern, options)
                .map_err(wrong)?
                .flatten()
                .filter(|path| path.is_file())
                .map(|path| normal(&path))
                .collect()),
            World::Memory(memory) => {
                let pattern = normal(Path::new(pattern));
                let pattern = glob::Pattern::new(&pattern.to_string_lossy()).map_err(wrong)?;
                let matches = |path: &&PathBuf| pattern.matches_path_with(path, options);
                Ok(memory.files.keys().filter(matches).cloned().collect())
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inputs")
    }
}

/// The path without `.` and, where that is a matter of text alone, without `..`.
pub fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(normal.components().next_back(), Some(Component::Normal(_))) => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// Whether the text is a pattern rather than a path.
pub fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// The path from the file system's root on.
fn absolute(path: &Path) -> PathBuf {
    normal(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}

/// A file's content, and where it lies.
fn read_disk(path: &Path) -> Result<(Arc<[u8]>, Option<PathBuf>), String> {
    let say = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    // A pipe or a device could keep the reader for ever.
    let metadata = std::fs::metadata(path).map_err(say)?;
    match metadata.is_file() {
        true => {
            let mut content = Vec::new();
            // What became a pipe since must not keep the reader either.
            let file =
                OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(say)?;
            // Asked of what was opened: between a look at the path and its opening a symlink can be swapped.
            let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok();
            file.take(Inputs::LARGEST + 1).read_to_end(&mut content).map_err(say)?;
            bounded(content.into()).map(|content| (content, real))
        }
        false if metadata.is_dir() => Err("it is a directory".into()),
        false => Err("it is no regular file".into()),
    }
}

fn bounded(content: Arc<[u8]>) -> Content {
    match content.len() as u64 > Inputs::LARGEST {
        true => Err(Inputs::TOO_LARGE.into()),
        false => Ok(content),
    }
}

/// `a.{yaml,toml}` is `a.yaml` and `a.toml`; at most 64 patterns come of one.
fn alternatives(pattern: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut open = vec![pattern.to_owned()];
    while let Some(pattern) = open.pop() {
        let braces = pattern.find('{').and_then(|start| Some((start, start + pattern[start..].find('}')?)));
        match braces {
            Some((start, end)) if open.len() + done.len() < 64 => {
                let parts = pattern[start + 1..end].split(',');
                open.extend(parts.map(|part| format!("{}{part}{}", &pattern[..start], &pattern[end + 1..])));
            }
            _ => done.push(pattern),
        }
    }
    done
}

/// The directory that a pattern's matches can only lie under.
fn fixed_part(pattern: &str) -> PathBuf {
    let path = Path::new(pattern);
    let fixed = path.components().take_while(|part| !is_glob(&part.as_os_str().to_string_lossy()));
    let directory = normal(&fixed.collect::<PathBuf>());
    match directory.as_os_str().is_empty() {
        true => ".".into(),
        false => directory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: [(&str, &str); 0] = [];

    #[test]
    fn files_are_read_once_and_watched_even_where_missing() {
        let inputs = Inputs::memory([("conf/a.yaml", "a")], NOTHING);
        assert_eq!(&*inputs.read(Path::new("conf/../conf/./a.yaml")).unwrap(), b"a");
        assert_eq!(inputs.read(Path::new("b")).unwrap_err(), "no such file");
        assert_eq!(inputs.watched(), [PathBuf::from("b"), "conf/a.yaml".into()]);
    }

    #[test]
    fn globs_are_sorted_and_watch_their_directory() {
        let files =
            [("c/b.toml", ""), ("c/a.yaml", ""), ("c/x/n.yaml", ""), ("c/.h.yaml", ""), ("c/r.md", "")];
        let inputs = Inputs::memory(files, NOTHING);
        let found = inputs.glob("c/*.{yaml,toml}").unwrap();
        assert_eq!(found, [PathBuf::from("c/a.yaml"), "c/b.toml".into()]);
        assert_eq!(inputs.watched(), [PathBuf::from("c")]);
        assert!(inputs.glob("c/[").is_err());
    }

    #[test]
    fn a_disk_is_read_alike() {
        let inputs = Inputs::disk();
        assert!(inputs.read(Path::new("Cargo.toml")).is_ok());
        assert_eq!(inputs.read(Path::new("src")).unwrap_err(), "it is a directory");
        assert_eq!(inputs.read(Path::new("no/such")).unwrap_err(), "no such file");
        assert!(inputs.glob("src/config/*.rs").unwrap().contains(&"src/config/inputs.rs".into()));
    }

    #[test]
    fn a_file_past_the_bound_is_refused() {
        let size = usize::try_from(Inputs::LARGEST).unwrap() + 1;
        let inputs = Inputs::memory([("a", vec![b'#'; size])], NOTHING);
        assert_eq!(inputs.read(Path::new("a")).unwrap_err(), Inputs::TOO_LARGE);
    }

    #[test]
    fn variables_come_from_the_given_environment() {
        let inputs = Inputs::memory([("a", "")], [("PORT", "80")]);
        assert_eq!(inputs.env("PORT").as_deref(), Some("80"));
        assert_eq!(inputs.env("HOME"), None);
    }
}
