//! One source of endpoints, and the task that asks it again and again. Upstreams that say the same share a source, over
//! reloads too; its task ends with it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use pingora::lb::Backend;
use tokio::{sync::watch, task::spawn_blocking, time::timeout};

use super::{
    Definition, Discovery, FoundEndpoint, ReadEndpoints, Remark, cause, dns::Dns, file::File,
    resolver::Resolver, srv::Srv,
};

/// Where endpoints come from.
pub struct Source {
    definition: Definition,
    /// From one question to the next, where that is written.
    refresh: Option<Duration>,
    discovery: Arc<dyn Discovery>,
    found: ArcSwap<Vec<FoundEndpoint>>,
    history: Mutex<History>,
    followers: Mutex<Vec<Weak<dyn Follower>>>,
    /// It is to be asked now. Dropped with the source, by which its task learns at once that it is gone.
    wanted: watch::Sender<()>,
    /// How many questions have been answered or given up.
    rounds: watch::Sender<u64>,
    /// Whether a task was handed out that has not ended.
    runs: AtomicBool,
}

/// Uses what a source finds.
pub trait Follower: Send + Sync {
    /// The source has found other endpoints than before.
    fn follow(&self);
}

/// How a source has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub last_success: Option<SystemTime>,
    /// Questions without an answer that could be used, all of them.
    pub failures: u64,
    /// Those since the last success.
    pub failures_in_a_row: u32,
    /// What is wrong at the moment.
    pub problem: Option<String>,
    cut: usize,
}

/// Asks a source until it is gone. It keeps nothing alive.
pub struct Task {
    source: Weak<Source>,
    wanted: watch::Receiver<()>,
}

/// A TTL is respected within these bounds.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// The pauses after failures double from the one to the other.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A file is read when it changes; and now and then, should that have been missed.
const FILE: Duration = Duration::from_secs(60);
/// Pauses are shortened by up to this part, so that names are not asked for in bursts.
const JITTER: f64 = 0.1;

// === impl Source ===

impl Source {
    /// A source that nobody has asked yet. `read`: how its file is read, if it is one.
    pub fn new(
        definition: Definition,
        refresh: Option<Duration>,
        resolver: &Arc<Resolver>,
        read: Option<ReadEndpoints>,
    ) -> Self {
        let discovery: Arc<dyn Discovery> = match (&definition, read) {
            (Definition::Dns(name), _) => Arc::new(Dns::new(name.clone(), resolver.clone())),
            (Definition::Srv(name), _) => Arc::new(Srv::new(name.clone(), resolver.clone())),
            (Definition::File { .. }, Some(read)) => Arc::new(File::new(read)),
            (Definition::File { path, .. }, None) => {
                let why = format!("{} cannot be read here", path.display());
                Arc::new(File::new(ReadEndpoints(Arc::new(move || Err(why.clone())))))
            }
        };
        Self::asking(definition, refresh, discovery)
    }

    fn asking(definition: Definition, refresh: Option<Duration>, discovery: Arc<dyn Discovery>) -> Self {
        Self {
            definition,
            refresh,
            discovery,
            found: ArcSwap::default(),
            history: Mutex::default(),
            followers: Mutex::default(),
            wanted: watch::Sender::new(()),
            rounds: watch::Sender::new(0),
            runs: AtomicBool::new(false),
        }
    }

    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// What was found last.
    pub fn found(&self) -> Arc<Vec<FoundEndpoint>> {
        self.found.load_full()
    }

    pub fn history(&self) -> History {
        self.lock().clone()
    }

    /// Begins with what another source knows that asks for the same.
    pub fn begin_with(&self, other: &Self) {
        self.found.store(other.found());
    }

    /// Tells a follower of every change from now on.
    pub fn tell(&self, follower: Weak<dyn Follower>) {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|known| known.strong_count() > 0);
        followers.push(follower);
    }

    /// Has it asked now.
    pub fn refresh(&self) {
        self.wanted.send_replace(());
    }

    /// The task that asks it, unless there is one already.
    pub fn task(self: &Arc<Self>) -> Option<Task> {
        let claimed = !self.runs.swap(true, Ordering::Relaxed);
        claimed.then(|| Task { source: Arc::downgrade(self), wanted: self.wanted.subscribe() })
    }

    /// Waits until it was asked once.
    pub async fn asked(&self) {
        // Its sender is part of it.
        let _ = self.rounds.subscribe().wait_for(|rounds| *rounds > 0).await;
    }

    /// Takes in an answer. Says whether other endpoints came of it.
    fn take(&self, answer: pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)>) -> bool {
        match answer {
            Ok((backends, _)) => {
                let found: Vec<_> = backends.iter().filter_map(FoundEndpoint::of).collect();
                self.succeeded(self.discovery.remark(), found.len());
                let is_other = **self.found.load() != found;
                if is_other {
                    self.found.store(Arc::new(found));
                }
                is_other
            }
            Err(error) => {
                self.failed(cause(&error));
                false
            }
        }
    }

    fn succeeded(&self, Remark { problem, cut, .. }: Remark, taken: usize) {
        let mut history = self.lock();
        let source = &self.definition;
        if history.failures_in_a_row > 0 {
            tracing::info!(%source, endpoints = taken, "endpoint discovery works again");
        }
        if let Some(problem) = problem.as_ref().filter(|_| history.problem != problem) {
            tracing::warn!(%source, error = problem, "endpoint discovery got a part of an answer: the rest stays as it was");
        }
        if cut > 0 && history.cut == 0 {
            tracing::warn!(%source, used = taken, dropped = cut, "endpoint discovery found more endpoints than are used");
        }
        history.last_success = Some(SystemTime::now());
        history.failures_in_a_row = 0;
        history.problem = problem;
        history.cut = cut;
    }

    fn failed(&self, error: String) {
        let mut history = self.lock();
        let endpoints = self.found.load().len();
        // Said once, and again when it is another.
        if history.failures_in_a_row == 0 || history.problem.as_ref() != Some(&error) {
            let source = &self.definition;
            tracing::warn!(%source, error, endpoints, "endpoint discovery failed: the last endpoints stay");
        }
        history.failures += 1;
        history.failures_in_a_row = history.failures_in_a_row.saturating_add(1);
        history.problem = Some(error);
    }

    /// How long to wait before it is asked again.
    fn pause(&self) -> Duration {
        let failures = self.lock().failures_in_a_row;
        let usual = match (self.refresh, &self.definition) {
            (_, Definition::File { .. }) => return FILE,
            (Some(refresh), _) => refresh,
            (None, _) => self.discovery.remark().ttl.unwrap_or(SHORTEST).clamp(SHORTEST, LONGEST),
        };
        let pause = match failures {
            0 => usual,
            _ => FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_PAUSE),
        };
        pause.mul_f64(1.0 - JITTER * fastrand::f64())
    }

    fn followers(&self) -> Vec<Arc<dyn Follower>> {
        let followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({})", self.definition)
    }
}

// === impl Task ===

impl Task {
    /// Asks, pauses, and so on, until the source is gone.
    pub async fn run(mut self) {
        loop {
            self.wanted.borrow_and_update();
            let Some(discovery) = self.source.upgrade().map(|source| source.discovery.clone()) else {
                return;
            };
            let mut gone = self.wanted.clone();
            let answer = tokio::select! {
                answer = discovery.discover() => answer,
                _ = gone.wait_for(|()| false) => return,
            };
            let Some(source) = self.source.upgrade() else { return };
            if source.take(answer) {
                let followers = source.followers();
                // Large sets take their time to be built.
                let _ = spawn_blocking(move || followers.iter().for_each(|follower| follower.follow())).await;
            }
            source.rounds.send_modify(|rounds| *rounds += 1);
            let pause = source.pause();
            drop(source);
            if let Ok(Err(_)) = timeout(pause, self.wanted.changed()).await {
                return;
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(source) = self.source.upgrade() {
            source.runs.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use async_trait::async_trait;
    use pingora::lb::discovery::ServiceDiscovery;
    use tokio::time::sleep;

    use super::{
        super::{Facts, failed},
        *,
    };

    /// Answers what it is told to.
    struct Told {
        answer: Mutex<Result<Vec<&'static str>, &'static str>>,
        asked: AtomicU32,
    }

    #[async_trait]
    impl ServiceDiscovery for Told {
        async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let answer = self.answer.lock().unwrap().clone().map_err(failed)?;
            let found = answer.iter().map(|address| FoundEndpoint {
                address: address.parse().unwrap(),
                weight: 1,
                facts: Facts { host: None, priority: 0 },
            });
            Ok((found.filter_map(FoundEndpoint::backend).collect(), HashMap::new()))
        }
    }

    impl Discovery for Told {
        fn remark(&self) -> Remark {
            Remark { ttl: Some(Duration::from_secs(20)), ..Remark::default() }
        }
    }

    struct Counting(AtomicU32);

    impl Follower for Counting {
        fn follow(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn source(refresh: Option<Duration>) -> (Arc<Source>, Arc<Told>) {
        let told = Arc::new(Told { answer: Mutex::new(Ok(vec!["10.0.0.1:80"])), asked: AtomicU32::new(0) });
        let definition = Definition::Dns("app:80".parse().unwrap());
        (Arc::new(Source::asking(definition, refresh, told.clone())), told)
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_is_asked_until_it_is_gone() {
        let (source, told) = source(None);
        let follower = Arc::new(Counting(AtomicU32::new(0)));
        let dynamic: Arc<dyn Follower> = follower.clone();
        source.tell(Arc::downgrade(&dynamic));
        let task = tokio::spawn(source.task().unwrap().run());
        assert!(source.task().is_none(), "one task for one source");
        source.asked().await;
        assert_eq!(source.found()[0].address, "10.0.0.1:80".parse().unwrap());

        *told.answer.lock().unwrap() = Err("gone");
        source.refresh();
        while source.history().failures < 3 {
            sleep(Duration::from_millis(100)).await;
        }
        let history = source.history();
        assert_eq!((source.found().len(), history.problem.as_deref()), (1, Some("gone")));
        assert_eq!(follower.0.load(Ordering::Relaxed), 1);

        *told.answer.lock().unwrap() = Ok(vec!["10.0.0.2:80", "10.0.0.1:80"]);
        source.refresh();
        while source.found().len() != 2 {
            sleep(Duration::from_millis(100)).await;
        }
        let history = source.history();
        assert_eq!((history.failures_in_a_row, history.problem), (0, None));
        drop(source);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_follow_the_ttl_and_failures() {
        let within = |pause: Duration, seconds: u64| {
            let most = Duration::from_secs(seconds);
            assert!(pause <= most && pause >= most.mul_f64(0.9), "{pause:?} is not some {seconds}s");
        };
        let (by_ttl, _) = source(None);
        within(by_ttl.pause(), 20);
        let (by_refresh, _) = source(Some(Duration::from_secs(7)));
        within(by_refresh.pause(), 7);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            by_refresh.failed("no".into());
            within(by_refresh.pause(), seconds);
        }
    }
}
