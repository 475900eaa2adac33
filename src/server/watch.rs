//! Watching the files that a configuration came from: their directories, for editors replace files, and
//! every link on the way to them, for Kubernetes replaces links. A burst of changes is one reload, and a file that is
//! written in place is waited for until its writer has closed it. Where the system cannot watch, files are polled.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use notify::{
    ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};

use super::poll::Stamp;

/// Watches what the last load asked for.
pub struct Watcher {
    notify: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    shared: Arc<Shared>,
}

/// The end of a [`Watcher`] that is waited at.
pub struct Changes(Arc<Shared>);

/// How files are watched, for whoever asks.
#[derive(Clone)]
pub struct Watching(Arc<Shared>);

/// What both ends of a [`Watcher`] know.
#[derive(Default)]
struct Shared {
    watched: Mutex<Watched>,
    changed: Notify,
    /// Polling has begun or ended.
    mode: Notify,
}

#[derive(Default)]
struct Watched {
    interest: Interest,
    writing: Writing,
    /// Why files are polled, and what they looked like last; none where the system watches them.
    polling: Option<(String, Stamp)>,
}

/// Files that are being written in place.
#[derive(Debug, Default)]
struct Writing {
    /// Changed, and not closed since.
    open: BTreeSet<PathBuf>,
    /// Created where a glob looks: their first bytes may be still to come.
    created: BTreeSet<PathBuf>,
}

/// What a change of concerns the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Interest {
    /// Files, links and directories on the way to them, whether they are there or not.
    paths: BTreeSet<PathBuf>,
    /// Directories in which a name that comes or goes may be one that a glob matches.
    directories: BTreeSet<PathBuf>,
}

/// A burst of changes, over when nothing has happened for a while, or when it has lasted long enough.
#[derive(Clone, Copy, Debug)]
struct Burst {
    first: Instant,
    last: Instant,
}

const QUIET: Duration = Duration::from_millis(100);
const LONGEST_BURST: Duration = Duration::from_secs(1);
/// A file that stays open for writing is read as it is then.
const LONGEST_WRITE: Duration = Duration::from_secs(30);
/// Between two looks at files that the system does not watch.
pub const POLL: Duration = Duration::from_secs(2);
/// Links on the way to one file; more are a loop (ELOOP).
const MOST_LINKS: usize = 40;
/// The clock that stamps files runs behind the one we read.
const COARSE: Duration = Duration::from_millis(20);

// === impl Watcher ===

impl Watcher {
    pub fn new() -> (Self, Changes) {
        let shared = Arc::<Shared>::default();
        let changes = Changes(shared.clone());
        (Self { notify: None, directories: BTreeSet::new(), shared }, changes)
    }

    /// Whether it was told to watch anything.
    pub fn watches(&self) -> bool {
        self.notify.is_some()
    }

    /// How files are watched.
    pub fn watching(&self) -> Watching {
        Watching(self.shared.clone())
    }

    /// Watches these from now on. What changed since `asked`, when the load began, counts as a change: it
    /// may have been read before and is watched only now.
    pub fn renew(&mut self, paths: &[PathBuf], asked: SystemTime) {
        let interest = Interest::of(paths);
        let failed = self.watch(interest.watched()).err();
        let missed = interest.changed_since(asked);
        let polling = failed.map(|reason| (reason, interest.stamp()));
        let mut watched = self.shared.watched();
        watched.interest = interest;
        watched.writing.created.clear();
        let before = std::mem::replace(&mut watched.polling, polling);
        let now = watched.polling.as_ref().map(|(reason, _)| reason.clone());
        drop(watched);
        tell(before.is_some(), now.as_deref());
        self.shared.mode.notify_one();
        if missed {
            self.shared.changed.notify_one();
        }
    }

    /// Has the system watch these directories and no others; why it cannot, where it cannot.
    fn watch(&mut self, directories: BTreeSet<PathBuf>) -> Result<(), String> {
        let before = std::mem::take(&mut self.directories);
        let notify = match &mut self.notify {
            Some(notify) => notify,
            none => none.insert(notify::recommended_watcher(heard(self.shared.clone())).map_err(reason)?),
        };
        for gone in before.difference(&directories) {
            // A directory that is gone is not watched any more either.
            let _ = notify.unwatch(gone);
        }
        let mut result = Ok(());
        // Those that are watched already too: another directory may have come to lie there.
        for directory in &directories {
            match notify.watch(directory, RecursiveMode::NonRecursive) {
                // It went meanwhile: the directory above tells when it comes back.
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                Err(error) => result = Err(reason(error)),
                Ok(()) => {}
            }
        }
        self.directories = directories;
        result
    }
}

/// Says once that files are polled, and once that they are no more.
fn tell(before: bool, reason: Option<&str>) {
    match reason {
        Some(reason) if !before => tracing::warn!(
            reason,
            interval_seconds = POLL.as_secs(),
            "the system cannot watch the configuration's files: they are polled"
        ),
        None if before => tracing::info!("the system watches the configuration's files again"),
        _ => {}
    }
}

/// Why the system does not watch, with the limit that is to be raised.
fn reason(error: notify::Error) -> String {
    match &error.kind {
        ErrorKind::MaxFilesWatch => "the limit fs.inotify.max_user_watches is used up".into(),
        ErrorKind::Io(io) if io.raw_os_error() == Some(libc::EMFILE) => {
            "the limit fs.inotify.max_user_instances, or that of open files, is used up".into()
        }
        _ => error.to_string(),
    }
}

/// What is done with each event. The system tells of whoever opens a file, too, and notify (before its version 9) cannot
/// ask it not to: such events end before anything else is done.
fn heard(shared: Arc<Shared>) -> impl Fn(notify::Result<Event>) {
    move |event| {
        if event.as_ref().is_ok_and(is_no_change) {
            return;
        }
        let mut watched = shared.watched();
        let Watched { interest, writing, .. } = &mut *watched;
        let met = event.map_or(true, |event| writing.note(&event, interest) || interest.is_met_by(&event));
        if met {
            shared.changed.notify_one();
        }
    }
}

// === impl Watching ===

impl Watching {
    /// Why files are polled; none where the system watches them.
    pub fn polled_because(&self) -> Option<String> {
        self.0.watched().polling.as_ref().map(|(reason, _)| reason.clone())
    }
}

// === impl Shared ===

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_polling(&self) -> bool {
        self.watched().polling.is_some()
    }

    fn is_being_written(&self) -> bool {
        !self.watched().writing.open.is_empty()
    }

    /// Whether polled files differ from what they were at the last look.
    fn have_changed(&self) -> bool {
        let interest = match &*self.watched() {
            Watched { polling: Some(_), interest, .. } => interest.clone(),
            _ => return false,
        };
        let now = interest.stamp();
        let mut watched = self.watched();
        // Another load may have renewed them meanwhile.
        let is_same = watched.interest == interest;
        match &mut watched.polling {
            Some((_, before)) if is_same => std::mem::replace(before, now) != now,
            _ => false,
        }
    }
}

// === impl Changes ===

impl Changes {
    /// Waits for a burst of changes to begin and to end.
    pub async fn next(&mut self) {
        self.begun().await;
        let mut burst = Burst::begin(Instant::now());
        loop {
            let was_being_written = self.0.is_being_written();
            tokio::select! {
                () = sleep_until(burst.ends(was_being_written)) => match self.0.is_being_written() {
                    // A new file is first seen and then written to, and only the first is a change.
                    true if !was_being_written => continue,
                    true => {
                        self.0.watched().writing.open.clear();
                        tracing::warn!("a file of the configuration stays open for writing: it is read as it is");
                        return;
                    }
                    false if self.polled().await => burst.goes_on(Instant::now()),
                    false => return,
                },
                () = self.0.changed.notified() => match was_being_written && !self.0.is_being_written() {
                    // Others may follow, however long this one took.
                    true => burst = Burst::begin(Instant::now()),
                    false => burst.goes_on(Instant::now()),
                },
            }
        }
    }

    /// Waits for a change.
    async fn begun(&self) {
        loop {
            let is_polling = self.0.is_polling();
            tokio::select! {
                () = self.0.changed.notified() => return,
                () = self.0.mode.notified() => {}
                () = sleep(POLL), if is_polling => if self.polled().await { return },
            }
        }
    }

    async fn polled(&self) -> bool {
        if !self.0.is_polling() {
            return false;
        }
        let shared = self.0.clone();
        // The files may lie where a look takes its time.
        spawn_blocking(move || shared.have_changed()).await.unwrap_or(false)
    }
}

// === impl Writing ===

impl Writing {
    /// Notes what an event says of files that are written; whether a writer has closed one.
    fn note(&mut self, event: &Event, interest: &Interest) -> bool {
        let mut is_closed = false;
        for path in &event.paths {
            match event.kind {
                EventKind::Create(CreateKind::File) if interest.is_in_directory(path) => {
                    self.created.insert(path.clone());
                }
                EventKind::Modify(ModifyKind::Data(_))
                    if interest.paths.contains(path) || self.created.contains(path) =>
                {
                    self.open.insert(path.clone());
                }
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                    self.created.remove(path);
                    is_closed |= self.open.remove(path);
                }
                EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                    self.created.remove(path);
                    self.open.remove(path);
                }
                _ => {}
            }
        }
        is_closed
    }
}

// === impl Burst ===

impl Burst {
    fn begin(now: Instant) -> Self {
        Self { first: now, last: now }
    }

    fn goes_on(&mut self, now: Instant) {
        self.last = now;
    }

    fn ends(&self, is_being_written: bool) -> Instant {
        match is_being_written {
            true => self.first + LONGEST_WRITE,
            false => (self.last + QUIET).min(self.first + LONGEST_BURST),
        }
    }
}

// === impl Interest ===

impl Interest {
    fn of(paths: &[PathBuf]) -> Self {
        let mut interest = Self::default();
        for path in paths {
            let Ok(path) = std::path::absolute(path) else { continue };
            let end = interest.follow(&path);
            if fs::metadata(&end).is_ok_and(|found| found.is_dir()) {
                interest.directories.insert(end);
            }
        }
        interest
    }

    /// Notes everything on the way to a path and says where it really lies.
    fn follow(&mut self, path: &Path) -> PathBuf {
        let mut at = PathBuf::from("/");
        let mut rest: Vec<_> = components(path);
        let mut links = 0;
        while let Some(next) = rest.pop() {
            if next.as_os_str() == ".." {
                at.pop();
                continue;
            }
            at.push(next);
            self.paths.insert(at.clone());
            let target = fs::read_link(&at);
            if let Ok(target) = target
                && links < MOST_LINKS
            {
                links += 1;
                at.pop();
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                rest.extend(components(&target));
            }
        }
        at
    }

    /// The directories that all of it lies in and that are there.
    fn watched(&self) -> BTreeSet<PathBuf> {
        let parents = self.paths.iter().filter_map(|path| path.parent()).map(Path::to_owned);
        parents.chain(self.directories.iter().cloned()).filter(|path| path.is_dir()).collect()
    }

    fn is_met_by(&self, event: &Event) -> bool {
        if event.need_rescan() {
            return true;
        }
        let named = matches!(
            event.kind,
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
        );
        let met = |path: &PathBuf| self.paths.contains(path) || (named && self.is_in_directory(path));
        !is_no_change(event) && event.paths.iter().any(met)
    }

    /// Whether a glob looks in the directory of a path.
    fn is_in_directory(&self, path: &Path) -> bool {
        path.parent().is_some_and(|parent| self.directories.contains(parent))
    }

    fn changed_since(&self, time: SystemTime) -> bool {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(COARSE);
        let changed = |path: &PathBuf| {
            fs::symlink_metadata(path).and_then(changed).is_ok_and(|changed| changed >= since)
        };
        self.entries().any(changed)
    }

    /// What has to change when the configuration does. A directory on the way changes with every file in it, whichever it
    /// is.
    fn entries(&self) -> impl Iterator<Item = &PathBuf> {
        let files = self.paths.iter().filter(|path| !path.is_dir() || path.is_symlink());
        files.chain(&self.directories)
    }

    fn stamp(&self) -> Stamp {
        Stamp::of(self.entries())
    }
}

/// Whether somebody has only looked.
fn is_no_change(event: &Event) -> bool {
    let is_look = |kind: AccessKind| kind != AccessKind::Close(AccessMode::Write);
    matches!(event.kind, EventKind::Access(kind) if is_look(kind)) && !event.need_rescan()
}

/// When an entry was last written, renamed or linked.
fn changed(metadata: fs::Metadata) -> io::Result<Duration> {
    let seconds = u64::try_from(metadata.ctime()).map_err(io::Error::other)?;
    let nanos = u32::try_from(metadata.ctime_nsec()).map_err(io::Error::other)?;
    Ok(Duration::new(seconds, nanos))
}

/// A path's components, the last one first.
fn components(path: &Path) -> Vec<PathBuf> {
    let wanted = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    let mut parts: Vec<_> =
        path.components().filter(wanted).map(|part| PathBuf::from(part.as_os_str())).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        os::unix::fs::symlink,
        pin::pin,
        task::{Context, Waker},
    };

    use notify::event::{DataChange, RemoveKind};

    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("portolan-watch-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        fs::canonicalize(path).unwrap()
    }

    fn event(kind: EventKind, path: impl Into<PathBuf>) -> Event {
        Event::new(kind).add_path(path.into())
    }

    const WRITTEN: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CREATED: EventKind = EventKind::Create(CreateKind::File);

    #[test]
    fn a_burst_ends_when_it_is_quiet_or_has_lasted_long_enough() {
        let start = Instant::now();
        let mut burst = Burst::begin(start);
        assert_eq!(burst.ends(false), start + QUIET);
        burst.goes_on(start + Duration::from_millis(90));
        assert_eq!(burst.ends(false), start + Duration::from_millis(190));
        (1..20).for_each(|n| burst.goes_on(start + Duration::from_millis(90 * n)));
        assert_eq!(burst.ends(false), start + LONGEST_BURST);
    }

    #[tokio::test(start_paused = true)]
    async fn several_changes_are_one_burst() {
        let shared = Arc::<Shared>::default();
        let mut changes = Changes(shared.clone());
        let start = Instant::now();
        let writer = async {
            for _ in 0..5 {
                shared.changed.notify_one();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::join!(writer, changes.next());
        assert_eq!(start.elapsed(), Duration::from_millis(300));
    }

    #[test]
    fn files_that_are_there_and_files_that_are_not_are_of_interest() {
        let root = directory("missing");
        let interest = Interest::of(&[root.join("a.yaml"), root.join("not/there.pem")]);
        assert!(interest.is_met_by(&event(CREATED, root.join("a.yaml"))));
        assert!(interest.is_met_by(&event(WRITTEN, root.join("a.yaml"))));
        assert!(interest.is_met_by(&event(EventKind::Create(CreateKind::Folder), root.join("not"))));
        assert!(!interest.is_met_by(&event(WRITTEN, root.join("access.log"))));
        assert!(!interest.is_met_by(&event(EventKind::Access(AccessKind::Any), root.join("a.yaml"))));
        assert!(interest.watched().contains(&root));
    }

    #[test]
    fn names_that_come_and_go_matter_where_a_glob_looks() {
        let root = directory("glob");
        let interest = Interest::of(std::slice::from_ref(&root));
        assert!(interest.is_met_by(&event(CREATED, root.join("new.yaml"))));
        assert!(interest.is_met_by(&event(EventKind::Remove(RemoveKind::File), root.join("old.yaml"))));
        assert!(!interest.is_met_by(&event(WRITTEN, root.join("access.log"))));
    }

    #[test]
    fn links_are_followed_as_kubernetes_lays_them() {
        let root = directory("configmap");
        fs::create_dir(root.join("..2026_01")).unwrap();
        fs::write(root.join("..2026_01/portolan.yaml"), "").unwrap();
        symlink("..2026_01", root.join("..data")).unwrap();
        symlink("..data/portolan.yaml", root.join("portolan.yaml")).unwrap();
        let interest = Interest::of(&[root.join("portolan.yaml")]);
        for part in ["portolan.yaml", "..data", "..2026_01", "..2026_01/portolan.yaml"] {
            assert!(interest.paths.contains(&root.join(part)), "{part}");
        }
        assert!(interest.is_met_by(&event(
            EventKind::Modify(ModifyKind::Name(notify::event::RenameMode::To)),
            root.join("..data")
        )));
        assert!(interest.watched().contains(&root.join("..2026_01")));
    }

    #[test]
    fn a_loop_of_links_ends() {
        let root = directory("loop");
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        Interest::of(&[root.join("a")]);
    }

    #[test]
    fn what_changed_while_it_was_read_is_noticed() {
        let root = directory("since");
        let before = SystemTime::now();
        fs::write(root.join("a.yaml"), "").unwrap();
        let interest = Interest::of(&[root.join("a.yaml")]);
        assert!(interest.changed_since(before));
        assert!(!interest.changed_since(SystemTime::now() + Duration::from_secs(60)));
    }

    #[tokio::test]
    async fn a_file_renamed_over_another_is_a_change() {
        let root = directory("rename");
        let file = root.join("a.yaml");
        fs::write(&file, "one").unwrap();
        let (mut watcher, mut changes) = Watcher::new();
        watcher.renew(std::slice::from_ref(&file), SystemTime::now() + Duration::from_secs(60));
        fs::write(root.join("a.yaml.new"), "two").unwrap();
        fs::rename(root.join("a.yaml.new"), &file).unwrap();
        tokio::time::timeout(Duration::from_secs(30), changes.next()).await.unwrap();
    }

    fn interested_in(path: &str) -> Arc<Shared> {
        let interest = Interest { paths: [PathBuf::from(path)].into(), ..Interest::default() };
        Arc::new(Shared {
            watched: Mutex::new(Watched { interest, ..Watched::default() }),
            ..Shared::default()
        })
    }

    #[test]
    fn who_only_looks_keeps_nobody_waiting() {
        let shared = interested_in("/a");
        let heard = heard(shared.clone());
        let held = shared.watched();
        for look in [AccessKind::Any, AccessKind::Open(AccessMode::Any), AccessKind::Close(AccessMode::Read)]
        {
            heard(Ok(event(EventKind::Access(look), "/a")));
        }
        drop(held);
        let is_told =
            || pin!(shared.changed.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!is_told());
        heard(Ok(event(WRITTEN, "/a")));
        assert!(is_told());
    }

    const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_written_in_place_is_waited_for() {
        let shared = interested_in("/a");
        let (heard, mut changes, start) = (heard(shared.clone()), Changes(shared), Instant::now());
        let writer = async {
            for _ in 0..3 {
                heard(Ok(event(WRITTEN, "/a")));
                sleep(Duration::from_secs(3)).await;
            }
            heard(Ok(event(CLOSED, "/a")));
        };
        tokio::join!(writer, changes.next());
        assert!(start.elapsed() >= Duration::from_secs(9), "{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_never_ends_is_not_waited_for_forever() {
        let shared = interested_in("/a");
        heard(shared.clone())(Ok(event(WRITTEN, "/a")));
        let (mut changes, start) = (Changes(shared), Instant::now());
        changes.next().await;
        assert_eq!(start.elapsed(), LONGEST_WRITE);
    }

    #[test]
    fn a_new_file_where_a_glob_looks_is_waited_for_and_a_log_beside_it_is_not() {
        let interest = Interest { directories: [PathBuf::from("/d")].into(), ..Interest::default() };
        let mut writing = Writing::default();
        let mut note = |kind, path: &str| writing.note(&event(kind, path), &interest);
        assert!(!note(WRITTEN, "/d/access.log") && !note(CLOSED, "/d/access.log"));
        assert!(!note(CREATED, "/d/new.yaml") && !note(WRITTEN, "/d/new.yaml"));
        assert!(note(CLOSED, "/d/new.yaml"));
        note(CREATED, "/d/other.yaml");
        note(WRITTEN, "/d/other.yaml");
        note(EventKind::Remove(RemoveKind::File), "/d/other.yaml");
        assert!(writing.open.is_empty() && writing.created.is_empty());
    }

    #[tokio::test]
    async fn files_that_the_system_does_not_watch_are_polled() {
        let root = directory("poll");
        let file = root.join("a.yaml");
        fs::write(&file, "one").unwrap();
        let interest = Interest::of(std::slice::from_ref(&file));
        let polling = Some(("it cannot".to_owned(), interest.stamp()));
        let watched = Watched { interest, polling, ..Watched::default() };
        let shared = Arc::new(Shared { watched: Mutex::new(watched), ..Shared::default() });
        assert_eq!(Watching(shared.clone()).polled_because().as_deref(), Some("it cannot"));
        assert!(!shared.have_changed());
        fs::write(root.join("b.yaml"), "beside").unwrap();
        assert!(!shared.have_changed(), "no glob looks there");
        fs::write(&file, "two").unwrap();
        assert!(shared.have_changed() && !shared.have_changed());
        let new = root.join("a.yaml.new");
        fs::write(&new, "two").unwrap();
        fs::rename(&new, &file).unwrap();
        let mut changes = Changes(shared);
        tokio::time::timeout(Duration::from_secs(30), changes.next()).await.unwrap();
    }
}
