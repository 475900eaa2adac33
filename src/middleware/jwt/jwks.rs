//! JWK sets that are fetched: kept while they cannot be, fetched again at an interval and when a token names a key
//! that is not among them.

use std::{
    cmp,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use tokio::sync::watch;

use super::key::{Key, KeySet, MOST_SHOWN};
use crate::{
    upstream::{Authorities, Bounds, Caller, Destination, Site},
    value::{Clock, Url, Weaks},
};

/// Sets by what they are known by over reloads. One per process.
pub struct Registry {
    clock: Clock,
    sets: Mutex<Weaks<(Source, Duration), Jwks>>,
}

/// Where a set is, and who is trusted to give it: the system's authorities, if nothing is said.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Source {
    pub url: Url,
    pub authorities: Option<Authorities>,
}

/// A set at a URL. Chains share it; its task ends with it.
pub struct Jwks {
    source: Source,
    site: Destination,
    refresh: Duration,
    caller: Arc<Caller>,
    clock: Clock,
    set: ArcSwapOption<Set>,
    /// Somebody wants it now. Dropped with the set, by which its task learns at once that it is gone.
    wanted: watch::Sender<()>,
    /// How many fetches have ended.
    rounds: watch::Sender<u64>,
    asked: Mutex<Option<Asked>>,
    /// Whether a task was handed out that has not ended.
    runs: AtomicBool,
}

/// What was fetched.
pub struct Set {
    pub keys: Vec<Key>,
    /// Another for every change.
    pub version: u64,
    text: Bytes,
}

/// When a token last had the set fetched, and how many fetches had ended then.
#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    round: u64,
}

/// Fetches a set until it is gone. It keeps nothing alive.
pub struct Task {
    jwks: Weak<Jwks>,
    wanted: watch::Receiver<()>,
}

const BOUNDS: Bounds = Bounds { deadline: Duration::from_secs(5), body: 1 << 20 };
/// Tokens with keys that nobody knows have the set fetched once in this time: anybody can make such tokens.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a token waits for the set.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// The pauses after failures double from the one to the other.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

// === impl Registry ===

impl Registry {
    pub fn new(clock: Clock) -> Self {
        Self { clock, sets: Mutex::default() }
    }

    /// The set that is there. One that is fetched at another interval than before begins with what was known.
    pub(super) fn find(&self, source: Source, refresh: Duration, caller: &Arc<Caller>) -> Arc<Jwks> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            sets.living().find(|(_, jwks)| jwks.source == source).and_then(|(_, jwks)| jwks.set.load_full());
        let site = Site::new(source.url.clone(), source.authorities.clone());
        sets.find_or((source.clone(), refresh), || Jwks {
            source,
            site: Destination::Site(Arc::new(site)),
            refresh,
            caller: caller.clone(),
            clock: self.clock.clone(),
            set: ArcSwapOption::new(known),
            wanted: watch::Sender::new(()),
            rounds: watch::Sender::new(0),
            asked: Mutex::default(),
            runs: AtomicBool::new(false),
        })
    }

    /// The tasks to start now that these sets serve: those that do not run already.
    pub fn tasks(&self) -> Vec<Task> {
        let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.living().filter_map(|(_, jwks)| Task::claim(&jwks)).collect()
    }
}

// === impl Jwks ===

impl Jwks {
    /// What was fetched last; nothing before the first fetch has ended well.
    pub fn set(&self) -> arc_swap::Guard<Option<Arc<Set>>> {
        self.set.load()
    }

    /// Has the set fetched for a key that it lacks, and waits for the end of that, unless it was done a moment ago.
    pub async fn refreshed(&self) {
        let mut rounds = self.rounds.subscribe();
        if self.ask() {
            // Nobody waits for longer than he must, and what has come by then is looked at.
            let _ = tokio::time::timeout(LONGEST_WAIT, rounds.changed()).await;
        }
    }

    /// Says whether there is a fetch to wait for.
    fn ask(&self) -> bool {
        let (now, round) = (self.clock.now(), *self.rounds.borrow());
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = asked.filter(|last| now.duration_since(last.at) < PATIENCE) {
            return last.round == round;
        }
        *asked = Some(Asked { at: now, round });
        self.wanted.send_replace(());
        true
    }

    /// Takes in what came of a fetch.
    fn take(&self, fetched: Result<(Bytes, KeySet), String>) -> Result<(), ()> {
        let known = self.set.load();
        let known = known.as_ref();
        let result = match fetched {
            Ok((text, KeySet { keys, ignored })) if known.is_none_or(|known| known.text != text) => {
                tracing::info!(url = %self.source.url, keys = keys.len(), ignored = ignored.len(), "JWK set fetched");
                for key in ignored.iter().take(MOST_SHOWN) {
                    tracing::warn!(url = %self.source.url, %key, "a key of a JWK set cannot be used and is ignored");
                }
                let version = known.map_or(0, |known| known.version) + 1;
                self.set.store(Some(Arc::new(Set { keys, version, text })));
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(cause) => {
                let keys = known.map_or(0, |known| known.keys.len());
                tracing::warn!(url = %self.source.url, cause, keys, "a JWK set cannot be fetched: the keys known stay");
                Err(())
            }
        };
        self.rounds.send_modify(|round| *round += 1);
        result
    }

    fn pause(&self, failures: u32) -> Duration {
        match failures {
            0 => self.refresh,
            _ => {
                let doubled = FIRST_PAUSE * 2_u32.pow(cmp::min(failures - 1, 16));
                self.refresh.min(doubled.min(LONGEST_PAUSE))
            }
        }
    }
}

// === impl Task ===

impl Task {
    fn claim(jwks: &Arc<Jwks>) -> Option<Self> {
        let claimed = !jwks.runs.swap(true, Ordering::Relaxed);
        claimed.then(|| Self { jwks: Arc::downgrade(jwks), wanted: jwks.wanted.subscribe() })
    }

    /// Fetches, pauses, and so on, until the set is gone.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            self.wanted.borrow_and_update();
            let Some((caller, site, path)) = self.what_to_ask() else { return };
            let fetched = fetch(&caller, &site, path).await;
            let Some(jwks) = self.jwks.upgrade() else { return };
            failures = if jwks.take(fetched).is_ok() { 0 } else { failures + 1 };
            let pause = jwks.pause(failures);
            drop(jwks);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                wanted = self.wanted.changed() => if wanted.is_err() { return },
            }
        }
    }

    fn what_to_ask(&self) -> Option<(Arc<Caller>, Destination, http::Uri)> {
        let jwks = self.jwks.upgrade()?;
        Some((jwks.caller.clone(), jwks.site.clone(), jwks.source.url.path().clone().into()))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(jwks) = self.jwks.upgrade() {
            jwks.runs.store(false, Ordering::Relaxed);
        }
    }
}

async fn fetch(caller: &Caller, site: &Destination, path: http::Uri) -> Result<(Bytes, KeySet), String> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = path;
    let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
    request.headers_mut().insert(header::ACCEPT, accept);
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("portolan"));
    let response = caller.call(site, &request, BOUNDS).await.map_err(|error| error.to_string())?;
    match response.status() {
        StatusCode::OK => {
            let text = response.into_body();
            let keys = Key::set(&text)?;
            Ok((text, keys))
        }
        status => Err(format!("status {}", status.as_u16())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#;

    fn registry(clock: Clock) -> (Registry, Arc<Caller>, Source) {
        let url = "http://127.0.0.1:1/jwks".parse().unwrap();
        let source = Source { url, authorities: None };
        (Registry::new(clock), Arc::new(Caller::for_tests()), source)
    }

    fn fetched(text: &'static str) -> Result<(Bytes, KeySet), String> {
        Ok((Bytes::from_static(text.as_bytes()), Key::set(text.as_bytes()).unwrap()))
    }

    #[test]
    fn a_flood_of_unknown_keys_is_one_fetch() {
        let clock = Clock::manual();
        let (registry, caller, source) = registry(clock.clone());
        let jwks = registry.find(source.clone(), Duration::from_secs(60), &caller);
        assert!(jwks.ask() && jwks.ask(), "whoever comes before its end waits for it");
        jwks.take(fetched(ONE)).unwrap();
        assert!(!jwks.ask(), "it was done a moment ago");
        clock.advance(PATIENCE);
        assert!(jwks.ask());
    }

    #[test]
    fn keys_stay_while_none_can_be_fetched_and_pauses_grow() {
        let (registry, caller, source) = registry(Clock::machine());
        let jwks = registry.find(source.clone(), Duration::from_secs(60), &caller);
        assert!(jwks.take(Err("gone".into())).is_err() && jwks.set().is_none());
        jwks.take(fetched(ONE)).unwrap();
        jwks.take(fetched(ONE)).unwrap();
        assert!(jwks.take(Err("gone".into())).is_err());
        let known = jwks.set().clone().unwrap();
        assert_eq!((known.keys.len(), known.version), (1, 1), "the same text is no change");
        let pauses = [0, 1, 2, 3, 7, 40].map(|failures| jwks.pause(failures).as_secs());
        assert_eq!(pauses, [60, 1, 2, 4, 60, 60]);
    }

    #[test]
    fn another_interval_begins_with_what_is_known_and_tasks_run_once() {
        let (registry, caller, source) = registry(Clock::machine());
        let old = registry.find(source.clone(), Duration::from_secs(60), &caller);
        old.take(fetched(ONE)).unwrap();
        let tasks = registry.tasks();
        assert_eq!((tasks.len(), registry.tasks().len()), (1, 0));
        assert!(Arc::ptr_eq(&old, &registry.find(source.clone(), Duration::from_secs(60), &caller)));
        let new = registry.find(source.clone(), Duration::from_secs(30), &caller);
        assert!(!Arc::ptr_eq(&old, &new) && new.set().is_some());
        drop(old);
        assert_eq!(registry.tasks().len(), 1, "that of the new one");
        drop(tasks);
    }

    #[tokio::test]
    async fn a_task_ends_with_its_set() {
        let (registry, caller, source) = registry(Clock::machine());
        let jwks = registry.find(source.clone(), Duration::from_secs(60), &caller);
        let task = tokio::spawn(registry.tasks().remove(0).run());
        let mut rounds = jwks.rounds.subscribe();
        rounds.changed().await.unwrap();
        drop((jwks, rounds));
        task.await.unwrap();
    }
}
