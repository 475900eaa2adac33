//! What lines are written to: a stream, a file that is renamed when it has grown, the system's log. The sink's thread
//! alone does so: all of it may wait.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    num::NonZeroU16,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use memchr::{memchr, memchr_iter, memrchr};

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    Stdout,
    Stderr,
    File(PathBuf),
    /// A datagram socket that the system's log is read from.
    Syslog(PathBuf),
}

/// When a file is renamed and another begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The bytes that it does not grow beyond, unless one line is longer.
    pub size: u64,
    /// How many files are kept beside it.
    pub keep: NonZeroU16,
}

/// An open destination.
pub(super) enum Output {
    Stdout,
    Stderr,
    File(LogFile),
    Syslog(Syslog),
}

/// Lines that could not be written.
#[derive(Debug)]
pub(super) struct Lost {
    pub lines: u64,
    pub error: io::Error,
}

pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    /// Pipes and devices are not renamed.
    is_regular: bool,
    /// The last line lacks its end.
    is_torn: bool,
    /// The file could not be renamed: not before then again.
    rotate_again: Option<Instant>,
}

pub(super) struct Syslog {
    path: PathBuf,
    socket: UnixDatagram,
    message: Vec<u8>,
}

const ROTATE_AGAIN: Duration = Duration::from_secs(1);

/// Where the system's log listens.
const DEV_LOG: &str = "/dev/log";

/// Facility daemon, severity informational (RFC 5424 section 6.2.1).
const PRIORITY: u8 = 3 * 8 + 6;

// === impl Destination ===

impl Destination {
    pub fn syslog() -> Self {
        Self::Syslog(DEV_LOG.into())
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
            Self::Syslog(path) if path == Path::new(DEV_LOG) => f.write_str("syslog"),
            Self::Syslog(path) => write!(f, "syslog:{}", path.display()),
        }
    }
}

// === impl Output ===

impl Output {
    pub fn open(destination: &Destination) -> io::Result<Self> {
        match destination {
            Destination::Stdout => Ok(Self::Stdout),
            Destination::Stderr => Ok(Self::Stderr),
            Destination::File(path) => LogFile::open(path).map(Self::File),
            Destination::Syslog(path) => Syslog::open(path).map(Self::Syslog),
        }
    }

    /// Writes lines, each with its line break. Where that fails what could be written is written.
    pub fn write(&mut self, lines: &[u8], rotation: Option<Rotation>) -> Result<(), Lost> {
        let all_lost = |error| Lost { lines: count(lines), error };
        match self {
            Self::Stdout => {
                let written = io::stdout().lock().write_all(lines).and_then(|()| io::stdout().flush());
                written.map_err(all_lost)
            }
            Self::Stderr => io::stderr().lock().write_all(lines).map_err(all_lost),
            Self::File(file) => file.write(lines, rotation),
            Self::Syslog(syslog) => syslog.write(lines),
        }
    }

    /// Whether the file that lies at its path is not the one that is open.
    pub fn was_moved(&self) -> bool {
        let Self::File(LogFile { file, path, .. }) = self else { return false };
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let open = file.metadata().map(identity);
        match (open, fs::metadata(path).map(identity)) {
            (Ok(open), Ok(there)) => open != there,
            (_, Err(error)) => error.kind() == io::ErrorKind::NotFound,
            (Err(_), _) => false,
        }
    }
}

fn count(lines: &[u8]) -> u64 {
    memchr_iter(b'\n', lines).count() as u64
}

// === impl LogFile ===

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        // Opened for writing alone, a pipe would keep us waiting for its reader.
        if fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
            options = OpenOptions::new();
            options.read(true).write(true);
        }
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            path: path.to_owned(),
            file,
            size: metadata.len(),
            is_regular: metadata.is_file(),
            is_torn: false,
            rotate_again: None,
        })
    }

    fn write(&mut self, mut lines: &[u8], rotation: Option<Rotation>) -> Result<(), Lost> {
        while !lines.is_empty() {
            let (piece, rest) = lines.split_at(self.room(lines, rotation));
            self.append(piece)
                .map_err(|(unwritten, error)| Lost { lines: count(unwritten) + count(rest), error })?;
            lines = rest;
        }
        Ok(())
    }

    /// How many bytes of the lines go to the file that is open, which is another one where none had room in it.
    fn room(&mut self, lines: &[u8], rotation: Option<Rotation>) -> usize {
        let Some(rotation) = rotation.filter(|_| self.is_regular) else { return lines.len() };
        loop {
            let room = usize::try_from(rotation.size.saturating_sub(self.size)).unwrap_or(usize::MAX);
            if lines.len() <= room {
                return lines.len();
            }
            if let Some(end) = memrchr(b'\n', &lines[..room]) {
                return end + 1;
            }
            // It may have been truncated from outside, as `logrotate` does with copytruncate.
            if self.has_shrunk() {
                continue;
            }
            if self.size == 0 {
                return memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
            }
            if !self.rotate(rotation.keep) {
                return lines.len();
            }
        }
    }

    /// Whether the file is smaller than what was written to it; then its size is looked up anew.
    fn has_shrunk(&mut self) -> bool {
        let Ok(found) = self.file.metadata() else { return false };
        let has_shrunk = found.len() < self.size;
        self.size = self.size.min(found.len());
        has_shrunk
    }

    /// Renames the file and opens another one. Where that fails it goes on as it was.
    fn rotate(&mut self, keep: NonZeroU16) -> bool {
        if self.rotate_again.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        match rename(&self.path, keep).and_then(|()| Self::open(&self.path)) {
            Ok(next) => *self = next,
            Err(error) => {
                tracing::error!(file = %self.path.display(), %error, "the access log cannot be rotated");
                self.rotate_again = Some(Instant::now() + ROTATE_AGAIN);
                return false;
            }
        }
        true
    }

    /// Appends to the file; what of it was not written, where that fails.
    fn append<'l>(&mut self, lines: &'l [u8]) -> Result<(), (&'l [u8], io::Error)> {
        if self.is_torn {
            self.file.write_all(b"\n").map_err(|error| (lines, error))?;
            self.is_torn = false;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err((rest, io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    self.size += written as u64;
                    self.is_torn = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((rest, error)),
            }
        }
        Ok(())
    }
}

/// Makes FILE to FILE.1, what was that to FILE.2, and so on. The last first: where one cannot be renamed, none is
/// written over but the one that is not to be kept.
fn rename(path: &Path, keep: NonZeroU16) -> io::Result<()> {
    // What a link leads to, so that the link stays.
    let path = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        path => path?,
    };
    let nth = |n: u16| {
        let mut name = path.clone().into_os_string();
        name.push(format!(".{n}"));
        name
    };
    for n in (1..keep.get()).rev() {
        rename_if_there(nth(n).as_ref(), nth(n + 1).as_ref())?;
    }
    rename_if_there(&path, nth(1).as_ref())
}

/// Somebody else may have renamed it.
fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

// === impl Syslog ===

impl Syslog {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), socket: connect(path)?, message: Vec::new() })
    }

    /// Sends each line as a message. A log that was started anew is looked for, once in all.
    fn write(&mut self, lines: &[u8]) -> Result<(), Lost> {
        let (mut lost, mut may_connect) = (None, true);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let mut sent = self.send(line);
            if sent.is_err() && std::mem::take(&mut may_connect) {
                sent = self.reconnect().and_then(|()| self.send(line));
            }
            if let Err(error) = sent {
                lost.get_or_insert(Lost { lines: 0, error }).lines += 1;
            }
        }
        lost.map_or(Ok(()), Err)
    }

    fn reconnect(&mut self) -> io::Result<()> {
        self.socket = connect(&self.path)?;
        Ok(())
    }

    /// As RFC 3164 and systemd-journald have it, without the time: whoever takes it knows that (section 4.3.2).
    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        self.message.clear();
        write!(self.message, "<{PRIORITY}>portolan[{}]: ", std::process::id())?;
        self.message.extend_from_slice(line);
        self.socket.send(&self.message).map(drop)
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("portolan-output-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn rotation(size: u64, keep: u16) -> Option<Rotation> {
        Some(Rotation { size, keep: NonZeroU16::new(keep).unwrap() })
    }

    fn read(path: &Path, suffix: &str) -> Option<String> {
        fs::read_to_string(format!("{}{suffix}", path.display())).ok()
    }

    #[test]
    fn a_file_does_not_grow_beyond_its_size_and_so_many_are_kept() {
        let path = directory("rotate").join("log");
        fs::write(&path, "0\n").unwrap();
        let mut output = Output::open(&Destination::File(path.clone())).unwrap();
        output.write(b"1\n2\n3\n4\n", rotation(4, 2)).unwrap();
        assert_eq!(read(&path, "").as_deref(), Some("4\n"));
        assert_eq!(read(&path, ".1").as_deref(), Some("2\n3\n"));
        assert_eq!(read(&path, ".2").as_deref(), Some("0\n1\n"));
        output.write(b"a long one\nb\n", rotation(4, 2)).unwrap();
        assert_eq!(read(&path, "").as_deref(), Some("b\n"));
        assert_eq!(read(&path, ".1").as_deref(), Some("a long one\n"));
        assert_eq!(read(&path, ".2").as_deref(), Some("4\n"));
        assert_eq!(read(&path, ".3"), None);
        assert!(!output.was_moved());
        output.write(b"c\n", None).unwrap();
        assert_eq!(read(&path, "").as_deref(), Some("b\nc\n"));
    }

    #[test]
    fn a_file_that_was_truncated_from_outside_has_room_again() {
        let path = directory("truncated").join("log");
        let mut output = Output::open(&Destination::File(path.clone())).unwrap();
        output.write(b"1\n2\n", rotation(4, 2)).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        output.write(b"3\n4\n", rotation(4, 2)).unwrap();
        assert_eq!((read(&path, "").as_deref(), read(&path, ".1")), (Some("3\n4\n"), None));
        File::options().write(true).open(&path).unwrap().set_len(2).unwrap();
        output.write(b"5\n6\n", rotation(4, 2)).unwrap();
        assert_eq!((read(&path, "").as_deref(), read(&path, ".1").as_deref()), (Some("6\n"), Some("3\n5\n")));
    }

    #[test]
    fn a_link_stays_one() {
        let directory = directory("link");
        let (path, link) = (directory.join("data"), directory.join("log"));
        fs::write(&path, "0\n").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut output = Output::open(&Destination::File(link.clone())).unwrap();
        output.write(b"1\n", rotation(2, 1)).unwrap();
        assert_eq!((read(&link, "").as_deref(), read(&path, ".1").as_deref()), (Some("1\n"), Some("0\n")));
        assert!(link.is_symlink());
    }

    #[test]
    fn what_cannot_be_renamed_grows_on() {
        let path = directory("stuck").join("log");
        // A directory lies where the file is to go.
        fs::create_dir_all(format!("{}.1/x", path.display())).unwrap();
        let mut output = Output::open(&Destination::File(path.clone())).unwrap();
        output.write(b"1\n2\n3\n", rotation(2, 1)).unwrap();
        assert_eq!(read(&path, "").as_deref(), Some("1\n2\n3\n"));
    }

    #[test]
    fn what_finds_no_place_on_a_disk_is_counted() {
        let mut output = Output::open(&Destination::File("/dev/full".into())).unwrap();
        assert_eq!(output.write(b"1\n2\n", rotation(1, 1)).unwrap_err().lines, 2);
    }

    #[test]
    fn each_line_is_a_message_and_a_log_that_comes_again_is_found() {
        let path = directory("syslog").join("socket");
        let heard = |socket: &UnixDatagram| {
            let mut message = [0; 100];
            let length = socket.recv(&mut message).unwrap();
            String::from_utf8_lossy(&message[..length]).into_owned()
        };
        let said = |line: &str| format!("<30>portolan[{}]: {line}", std::process::id());
        let first = UnixDatagram::bind(&path).unwrap();
        let mut output = Output::open(&Destination::Syslog(path.clone())).unwrap();
        output.write(b"a\nb\n", None).unwrap();
        assert_eq!([heard(&first), heard(&first)], ["a", "b"].map(said));
        drop(first);
        fs::remove_file(&path).unwrap();
        assert_eq!(output.write(b"c\nd\n", None).unwrap_err().lines, 2);
        let second = UnixDatagram::bind(&path).unwrap();
        output.write(b"e\n", None).unwrap();
        assert_eq!(heard(&second), said("e"));
    }
}
