//! One connection to Redis for the whole process, which all requests share: kept open by a task, given up when an
//! answer is late or an error, and made anew after pauses that grow. While there is none nobody waits for one.

use std::{
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind,
    TlsCertificates, aio::MultiplexedConnection,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{Script, Settings};
use crate::telemetry::metrics;

/// A Redis that several parts use. Its task ends with it.
pub struct Redis {
    settings: Settings,
    state: watch::Sender<State>,
    /// What may be done later: dropped where there is too much of it.
    chores: mpsc::Sender<Cmd>,
    /// Until a task has them.
    to_do: Mutex<Option<mpsc::Receiver<Cmd>>>,
    metrics: metrics::Redis,
}

/// There is no answer, or none in time. Whether Redis did what it was asked to is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

#[derive(Clone)]
enum State {
    /// Nothing has been tried yet: who comes now waits for it, as for an answer.
    Starting,
    Up(Connection),
    Down,
}

#[derive(Clone)]
struct Connection {
    number: u64,
    link: MultiplexedConnection,
}

/// Keeps a connection open until nobody uses it any more. It keeps nothing alive.
pub struct Task {
    redis: Weak<Redis>,
    state: watch::Receiver<State>,
    chores: mpsc::Receiver<Cmd>,
}

/// Why an answer is of no use.
enum Failure {
    Late,
    Error(RedisError),
}

/// How long a new connection may take. Requests do not wait for it.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a connection that may be idle is tried.
const PULSE: Duration = Duration::from_secs(1);
/// A connection that has lasted for so long is made anew at once; else the pauses double from the one to the other.
const LASTING: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How many chores wait at most, and are done at once.
const CHORES: usize = 4096;
const BATCH: usize = 128;

/// Does what the scripts of parts do, so that what answers it will answer them: neither a replica nor one that is full
/// or forbids it.
static PROBE: LazyLock<Script> =
    LazyLock::new(|| Script::new("redis.call('SET', KEYS[1], '', 'PX', 1) return redis.call('TIME')"));

// === impl Redis ===

impl Redis {
    pub fn new(settings: Settings, metrics: metrics::Redis) -> Self {
        let (chores, to_do) = mpsc::channel(CHORES);
        let state = watch::Sender::new(State::Starting);
        Self { settings, state, chores, to_do: Mutex::new(Some(to_do)), metrics }
    }

    /// What the names of all keys begin with.
    pub fn prefix(&self) -> &str {
        &self.settings.prefix
    }

    pub fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    /// Whether there is no point in asking.
    pub fn is_down(&self) -> bool {
        matches!(*self.state.borrow(), State::Down)
    }

    /// What counts decisions that are made by its word.
    pub fn metrics(&self) -> &metrics::Redis {
        &self.metrics
    }

    /// Runs a script on a key. Within the time that an answer may take there is one or none.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        key: &str,
        arguments: &[u64],
    ) -> Result<T, Unavailable> {
        let start = Instant::now();
        let deadline = start + self.settings.timeout;
        let connection = timeout_at(deadline, self.connection()).await.ok().flatten().ok_or(Unavailable)?;
        let number = connection.number;
        match timeout_at(deadline, connection.run(script, key, arguments)).await {
            Ok(Ok(answer)) => {
                self.metrics.answered(start.elapsed());
                return Ok(answer);
            }
            Ok(Err(error)) => self.lose(number, &error.into()),
            Err(_) => self.lose(number, &Failure::Late),
        }
        Err(Unavailable)
    }

    /// Has a script run on a key soon, or never where Redis goes: nobody waits for it.
    pub fn run_later(&self, script: &Script, key: &str, arguments: &[u64]) {
        if self.is_up() {
            let _ = self.chores.try_send(script.whole(key, arguments));
        }
    }

    /// Where it serves, what keeps it open; nothing where that runs already.
    pub(super) fn task(self: &Arc<Self>) -> Option<Task> {
        let chores = self.to_do.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Task { redis: Arc::downgrade(self), state: self.state.subscribe(), chores })
    }

    /// The one that there is. Only before the first was tried it is waited for.
    async fn connection(&self) -> Option<Connection> {
        if let State::Up(connection) = &*self.state.borrow() {
            return Some(connection.clone());
        }
        let mut state = self.state.subscribe();
        match &*state.wait_for(|state| !matches!(state, State::Starting)).await.ok()? {
            State::Up(connection) => Some(connection.clone()),
            State::Starting | State::Down => None,
        }
    }

    fn gain(&self, connection: Connection) {
        tracing::info!(address = %self.settings.address, "redis answers");
        self.state.send_replace(State::Up(connection));
    }

    /// No other connection came of it.
    fn miss(&self, failure: &Failure) {
        self.metrics.failed(failure.cause());
        // Said once, and not for each that does not come of it either.
        if matches!(self.state.send_replace(State::Down), State::Starting) {
            self.warn(failure);
        }
    }

    /// Gives a connection up, for all who share it, unless somebody has already.
    fn lose(&self, number: u64, failure: &Failure) {
        self.metrics.failed(failure.cause());
        let is_lost = self.state.send_if_modified(|state| {
            let is_this = matches!(state, State::Up(connection) if connection.number == number);
            if is_this {
                *state = State::Down;
            }
            is_this
        });
        if is_lost {
            self.warn(failure);
        }
    }

    fn warn(&self, failure: &Failure) {
        let address = &self.settings.address;
        tracing::warn!(%address, cause = %failure, "redis is gone: what asks for it does without");
    }

    /// Sends commands whose answers concern nobody.
    async fn send(&self, commands: Vec<Cmd>) {
        let Some(mut connection) = self.connection().await else { return };
        let mut all = Pipeline::with_capacity(commands.len());
        for command in commands {
            all.add_command(command).ignore();
        }
        match timeout(self.settings.timeout, all.exec_async(&mut connection.link)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.lose(connection.number, &error.into()),
            Err(_) => self.lose(connection.number, &Failure::Late),
        }
    }
}

// === impl Connection ===

impl Connection {
    /// One round trip, but for the first time that this Redis sees the script.
    async fn run<T: FromRedisValue>(
        mut self,
        script: &Script,
        key: &str,
        arguments: &[u64],
    ) -> Result<T, RedisError> {
        match script.by_hash(key, arguments).query_async(&mut self.link).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                script.whole(key, arguments).query_async(&mut self.link).await
            }
            answer => answer,
        }
    }
}

// === impl Task ===

impl Task {
    /// Connects, attends to that until it is lost, pauses, and so on.
    pub async fn run(mut self) {
        let (mut number, mut failures) = (0, 0);
        loop {
            let Some(settings) = self.redis.upgrade().map(|redis| redis.settings.clone()) else { return };
            let opened = open(&settings).await;
            let Some(redis) = self.redis.upgrade() else { return };
            let start = Instant::now();
            match opened {
                Ok(link) => {
                    number += 1;
                    redis.gain(Connection { number, link });
                    drop(redis);
                    if self.attend().await.is_none() {
                        return;
                    }
                }
                Err(failure) => redis.miss(&failure),
            }
            failures = if start.elapsed() >= LASTING { 0 } else { failures + 1 };
            tokio::select! {
                () = sleep(pause(failures)) => {}
                () = gone(&mut self.state) => return,
            }
        }
    }

    /// Does the chores of a connection and sees that it answers, until it is lost; nothing where nobody uses it any
    /// more.
    async fn attend(&mut self) -> Option<()> {
        loop {
            let mut commands = Vec::new();
            tokio::select! {
                changed = self.state.changed() => changed.ok()?,
                count = self.chores.recv_many(&mut commands, BATCH) => if count == 0 { return None },
                () = sleep(PULSE) => commands.push(redis::cmd("PING")),
            }
            if !matches!(*self.state.borrow_and_update(), State::Up(_)) {
                return Some(());
            }
            if !commands.is_empty() {
                self.redis.upgrade()?.send(commands).await;
            }
        }
    }
}

/// A new connection to what does as it is told.
async fn open(settings: &Settings) -> Result<MultiplexedConnection, Failure> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let client = client(settings)?;
    let link = client.get_multiplexed_async_connection_with_config(&config);
    let mut link = timeout(CONNECT, link).await.map_err(|_| Failure::Late)??;
    let probe = PROBE.whole(&format!("{}probe", settings.prefix), &[]);
    timeout(settings.timeout, probe.exec_async(&mut link)).await.map_err(|_| Failure::Late)??;
    Ok(link)
}

fn client(settings: &Settings) -> Result<Client, RedisError> {
    let info = settings.address.info();
    match &settings.authorities {
        None => Client::open(info),
        Some(pem) => {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) };
            Client::build_with_tls(info, certificates)
        }
    }
}

/// Until nobody uses it any more.
async fn gone(state: &mut watch::Receiver<State>) {
    while state.changed().await.is_ok() {}
}

/// Not in step with those of other processes.
fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => {
            let doubled = FIRST_PAUSE * 2_u32.pow((failures - 1).min(16));
            doubled.min(LONGEST_PAUSE).mul_f64(0.75 + fastrand::f64() / 4.0)
        }
    }
}

// === impl Failure ===

impl Failure {
    /// The word in metrics.
    fn cause(&self) -> &'static str {
        match self {
            Self::Late => "timeout",
            Self::Error(error) if error.is_io_error() => "connection",
            Self::Error(_) => "reply",
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Error(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("no answer in time"),
            Self::Error(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_bounds() {
        assert_eq!(pause(0), Duration::ZERO);
        for (failures, longest) in [(1, 100), (2, 200), (3, 400), (7, 5000), (1000, 5000)] {
            let longest = Duration::from_millis(longest);
            assert!((longest / 4 * 3..=longest).contains(&pause(failures)), "{failures}");
        }
    }

    #[tokio::test]
    async fn where_there_is_no_redis_nobody_waits_for_longer_than_said() {
        let settings = Settings {
            address: "redis://127.0.0.1:1".parse().unwrap(),
            authorities: None,
            timeout: Duration::from_millis(50),
            prefix: "test:".into(),
        };
        let metrics = metrics::Metrics::default();
        let redis = Arc::new(Redis::new(settings, metrics.redis()));
        let script = Script::new("return 1");
        let start = Instant::now();
        assert_eq!(redis.run::<i64>(&script, "a", &[]).await, Err(Unavailable));
        assert!(!redis.is_down() && start.elapsed() >= Duration::from_millis(50), "nothing was tried yet");
        let task = tokio::spawn(redis.task().unwrap().run());
        assert!(redis.task().is_none());
        let mut state = redis.state.subscribe();
        state.wait_for(|state| matches!(state, State::Down)).await.unwrap();
        assert_eq!(redis.run::<i64>(&script, "a", &[]).await, Err(Unavailable));
        drop((redis, state));
        task.await.unwrap();
    }
}
