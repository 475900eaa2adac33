//! Watching the files that a configuration came from: their directories, for editors replace files, and
//! every link on the way to them, for Kubernetes replaces links. A burst of changes is one reload.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _, event::ModifyKind};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Watches what the last load asked for.
pub struct Watcher {
    notify: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    interest: Arc<Mutex<Interest>>,
    changed: Arc<Notify>,
}

/// The end of a [`Watcher`] that is waited at.
pub struct Changes(Arc<Notify>);

/// What a change of concerns the configuration.
#[derive(Debug, Default, PartialEq, Eq)]
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
/// Links on the way to one file; more are a loop (ELOOP).
const MOST_LINKS: usize = 40;
/// The clock that stamps files runs behind the one we read.
const COARSE: Duration = Duration::from_millis(20);

// === impl Watcher ===

impl Watcher {
    /// Where the system cannot watch, SIGHUP and `portolan reload` remain.
    pub fn new() -> (Self, Changes) {
        let interest = Arc::<Mutex<Interest>>::default();
        let changed = Arc::new(Notify::new());
        let notify = notify::recommended_watcher(heard(interest.clone(), changed.clone()));
        let notify = notify
            .inspect_err(|error| tracing::warn!(%error, "files cannot be watched: SIGHUP reloads"))
            .ok();
        let changes = Changes(changed.clone());
        (Self { notify, directories: BTreeSet::new(), interest, changed }, changes)
    }

    /// Watches these from now on. What changed since `asked`, when the load began, counts as a change: it
    /// may have been read before and is watched only now.
    pub fn renew(&mut self, paths: &[PathBuf], asked: SystemTime) {
        let interest = Interest::of(paths);
        let directories = interest.watched();
        let Some(notify) = &mut self.notify else { return };
        for gone in self.directories.difference(&directories) {
            // A directory that is gone is not watched any more either.
            let _ = notify.unwatch(gone);
        }
        // Those that are watched already too: another directory may have come to lie there.
        for directory in &directories {
            if let Err(error) = notify.watch(directory, RecursiveMode::NonRecursive) {
                tracing::debug!(directory = %directory.display(), %error, "cannot be watched");
            }
        }
        let missed = interest.changed_since(asked);
        self.directories = directories;
        *self.interest.lock().unwrap_or_else(PoisonError::into_inner) = interest;
        if missed {
            self.changed.notify_one();
        }
    }
}

/// What is done with each event. The system tells of whoever opens a file, too, and notify (before its version 9) cannot
/// ask it not to: such events end before anything else is done.
fn heard(interest: Arc<Mutex<Interest>>, changed: Arc<Notify>) -> impl Fn(notify::Result<Event>) {
    move |event| {
        if event.as_ref().is_ok_and(is_no_change) {
            return;
        }
        let interest = interest.lock().unwrap_or_else(PoisonError::into_inner);
        if event.map_or(true, |event| interest.is_met_by(&event)) {
            changed.notify_one();
        }
    }
}

impl Changes {
    /// Waits for a burst of changes to begin and to end.
    pub async fn next(&mut self) {
        self.0.notified().await;
        let mut burst = Burst::begin(Instant::now());
        loop {
            tokio::select! {
                () = sleep_until(burst.ends()) => return,
                () = self.0.notified() => burst.goes_on(Instant::now()),
            }
        }
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

    fn ends(&self) -> Instant {
        (self.last + QUIET).min(self.first + LONGEST_BURST)
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
        let met = |path: &PathBuf| {
            let in_directory = || path.parent().is_some_and(|parent| self.directories.contains(parent));
            self.paths.contains(path) || (named && in_directory())
        };
        !is_no_change(event) && event.paths.iter().any(met)
    }

    fn changed_since(&self, time: SystemTime) -> bool {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(COARSE);
        let changed = |path: &PathBuf| {
            fs::symlink_metadata(path).and_then(changed).is_ok_and(|changed| changed >= since)
        };
        // A directory on the way changes with every file in it, whichever it is.
        let files = self.paths.iter().filter(|path| !path.is_dir() || path.is_symlink());
        files.chain(&self.directories).any(changed)
    }
}

/// Whether somebody has only looked.
fn is_no_change(event: &Event) -> bool {
    matches!(event.kind, EventKind::Access(_)) && !event.need_rescan()
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

    use notify::event::{AccessKind, CreateKind, DataChange, RemoveKind};

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
        assert_eq!(burst.ends(), start + QUIET);
        burst.goes_on(start + Duration::from_millis(90));
        assert_eq!(burst.ends(), start + Duration::from_millis(190));
        (1..20).for_each(|n| burst.goes_on(start + Duration::from_millis(90 * n)));
        assert_eq!(burst.ends(), start + LONGEST_BURST);
    }

    #[tokio::test(start_paused = true)]
    async fn several_changes_are_one_burst() {
        let changed = Arc::new(Notify::new());
        let mut changes = Changes(changed.clone());
        let start = Instant::now();
        let writer = async {
            for _ in 0..5 {
                changed.notify_one();
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

    #[test]
    fn who_only_looks_keeps_nobody_waiting() {
        let interest =
            Arc::new(Mutex::new(Interest { paths: [PathBuf::from("/a")].into(), ..Interest::default() }));
        let changed = Arc::new(Notify::new());
        let heard = heard(interest.clone(), changed.clone());
        let held = interest.lock().unwrap();
        heard(Ok(event(EventKind::Access(AccessKind::Any), "/a")));
        drop(held);
        let is_told = || pin!(changed.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!is_told());
        heard(Ok(event(WRITTEN, "/a")));
        assert!(is_told());
    }
}
