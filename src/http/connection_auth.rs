//! Connection-based authentication: NTLM and Negotiate sign in a connection instead of a request (RFC 4559 section 6).
//!
//! Whatever is sent on such a connection afterwards counts as the user who signed in. An upstream connection that carried
//! such credentials therefore serves one client connection only, and is closed with it. The fields that decide are named
//! here, and each client connection knows which upstream connections are reserved for it.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::sync::OwnedMutexGuard;

use crate::value::Address;

/// The upstream connections that are reserved for one client connection. Empty, and one atomic load to ask, for almost all.
#[derive(Default)]
pub struct Reservations(OnceLock<Mutex<Vec<Arc<Reserved>>>>);

/// One upstream connection that is reserved for one client connection.
#[derive(Debug)]
pub struct Reserved {
    /// The upstream or the target that it leads to.
    destination: String,
    state: Mutex<State>,
    /// Held by the one request that uses the connection.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The use of a reserved connection by one request.
#[derive(Debug)]
pub struct Lease {
    reserved: Arc<Reserved>,
    has_ended: AtomicBool,
    is_intact: AtomicBool,
    turn: Option<OwnedMutexGuard<()>>,
}

#[derive(Default)]
struct State {
    /// Requests that use the connection or wait for their turn, without those whose response has ended.
    users: usize,
    login: Login,
    endpoint: Option<Address>,
    /// The pool that the connection alone is in. It is closed when the pool is dropped.
    pool: Option<Arc<dyn Any + Send + Sync>>,
}

/// How far the handshake is (RFC 4559 section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Login {
    #[default]
    None,
    /// The last credentials were answered with another challenge.
    Begun,
    Done,
}

/// Whether a request carries credentials that sign in the connection.
pub fn has_credentials(headers: &HeaderMap) -> bool {
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION]
        .iter()
        .any(|name| headers.get_all(name).iter().any(|value| is_scheme(first_word(value.as_bytes()))))
}

/// Whether a field of a request is made of credentials that sign in the connection.
pub fn is_credentials(name: &HeaderName, value: &HeaderValue) -> bool {
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION].contains(name)
        && is_scheme(first_word(value.as_bytes()))
}

/// Whether a response asks for credentials that sign in the connection.
pub fn has_challenge(headers: &HeaderMap) -> bool {
    let asks = |name: &HeaderName| [header::WWW_AUTHENTICATE, header::PROXY_AUTHENTICATE].contains(name);
    headers.keys().any(asks)
        && headers.iter().any(|(name, value)| asks(name) && is_challenge(value.as_bytes()))
}

/// Several challenges may stand in one line (RFC 9110 section 11.6.1), with commas inside quoted strings.
fn is_challenge(value: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    let mut elements = value.split(|byte| {
        match (quoted, escaped, *byte) {
            (true, true, _) => escaped = false,
            (true, false, b'\\') => escaped = true,
            (_, false, b'"') => quoted = !quoted,
            _ => {}
        }
        !quoted && *byte == b','
    });
    let found = elements.any(|element| is_scheme(first_word(element)));
    // A quoted string without an end hides nothing.
    found || (quoted && value.split(|byte| *byte == b',').any(|element| is_scheme(first_word(element))))
}

fn first_word(element: &[u8]) -> &[u8] {
    let element = element.trim_ascii();
    element.split(u8::is_ascii_whitespace).next().unwrap_or_default()
}

/// NTLM, Negotiate, and the later Nego2.
fn is_scheme(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"ntlm")
        || word.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"nego"))
}

// === impl Reservations ===

impl Reservations {
    /// Whether nothing is reserved at all.
    pub fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    /// Whether requests to this destination have a connection of their own.
    pub fn has(&self, destination: &str) -> bool {
        self.0.get().is_some_and(|all| lock(all).iter().any(|one| one.destination == destination))
    }

    /// Reserves a connection for what follows a challenge, to the endpoint that sent it.
    pub fn reserve(&self, destination: &str, endpoint: Option<Address>) {
        if !self.has(destination) {
            let reserved = Reserved::new(destination);
            reserved.state().endpoint = endpoint;
            lock(self.0.get_or_init(Mutex::default)).push(Arc::new(reserved));
        }
    }

    /// The reserved connection for a request: with credentials the one whose handshake they continue, without them the one
    /// that is signed in. A new one where all such are busy. Waits until the request before it has left the connection.
    pub async fn lease(&self, destination: &str, with_credentials: bool) -> Lease {
        let reserved = self.choose(destination, with_credentials);
        let turn = reserved.turn.clone();
        // A wait that is given up leaves the connection as it is.
        let mut lease = Lease {
            reserved,
            has_ended: AtomicBool::new(false),
            is_intact: AtomicBool::new(true),
            turn: None,
        };
        lease.turn = Some(turn.lock_owned().await);
        lease.is_intact = AtomicBool::new(false);
        lease
    }

    fn choose(&self, destination: &str, with_credentials: bool) -> Arc<Reserved> {
        let mut all = lock(self.0.get_or_init(Mutex::default));
        let rank = |reserved: &Reserved| {
            let state = reserved.state();
            let rank = match (state.login, with_credentials) {
                // Another request there would end the handshake.
                (Login::Begun, false) => return None,
                (Login::Begun, true) | (Login::Done, false) => 2,
                (Login::None, _) => 1,
                (Login::Done, true) => 0,
            };
            (state.users == 0).then_some(rank)
        };
        let to_destination = all.iter().filter(|reserved| reserved.destination == destination);
        let best = to_destination
            .filter_map(|reserved| Some((rank(reserved)?, reserved)))
            .max_by_key(|(rank, _)| *rank);
        let chosen = best.map(|(_, reserved)| reserved.clone());
        let chosen = chosen.unwrap_or_else(|| {
            // Those that lead nowhere any more are forgotten.
            all.retain(|reserved| {
                let state = reserved.state();
                state.users > 0 || state.pool.is_some() || state.login != Login::None
            });
            let reserved = Arc::new(Reserved::new(destination));
            all.push(reserved.clone());
            reserved
        });
        chosen.state().users += 1;
        chosen
    }
}

impl fmt::Debug for Reservations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservations").finish_non_exhaustive()
    }
}

// === impl Reserved ===

impl Reserved {
    fn new(destination: &str) -> Self {
        Self { destination: destination.to_owned(), state: Mutex::default(), turn: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("users", &self.users)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Lease ===

impl Lease {
    /// The pool that the reserved connection alone is in.
    pub fn pool<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut state = self.reserved.state();
        let pool = state.pool.get_or_insert_with(|| Arc::new(T::default())).clone();
        pool.downcast().unwrap_or_default()
    }

    /// The endpoint that the whole handshake goes to.
    pub fn endpoint(&self) -> Option<Address> {
        self.reserved.state().endpoint.clone()
    }

    pub fn set_endpoint(&self, endpoint: Address) {
        self.reserved.state().endpoint = Some(endpoint);
    }

    /// Records the response's head: whether it answered credentials, and whether it asks for more.
    pub fn answered(&self, with_credentials: bool, challenged: bool) {
        let mut state = self.reserved.state();
        state.login = match (with_credentials, challenged) {
            (true, true) => Login::Begun,
            (true, false) => Login::Done,
            (false, true) => Login::None,
            (false, false) => state.login,
        };
    }

    /// The response has ended: the client's next request may take the connection, once this one has left it.
    pub fn end(&self) {
        if !self.has_ended.swap(true, Ordering::AcqRel) {
            self.reserved.state().users -= 1;
        }
    }

    /// The exchange ended well: the connection is kept for the client's next request.
    pub fn set_intact(&self) {
        self.is_intact.store(true, Ordering::Release);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_intact.load(Ordering::Acquire) {
            let mut state = self.reserved.state();
            state.login = Login::None;
            let pool = state.pool.take();
            drop(state);
            drop(pool);
        }
        self.turn = None;
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;

    #[test]
    fn credentials_are_known_by_their_scheme() {
        for (name, value, expected) in [
            ("authorization", "NTLM TlRMTVNTUAAB", true),
            ("authorization", "ntlm", true),
            ("authorization", "negotiate YII=", true),
            ("proxy-authorization", " Negotiate\tYII=", true),
            ("authorization", "Nego2 YII=", true),
            ("authorization", "Basic NTLM", false),
            ("authorization", "Bearer negotiate", false),
            ("authorization", "NTLMv9 x", false),
            ("authorization", "", false),
            ("x-authorization", "NTLM x", false),
        ] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]);
            assert_eq!(has_credentials(&headers), expected, "{name}: {value}");
            let (name, value) = headers.iter().next().unwrap();
            assert_eq!(is_credentials(name, value), expected, "{name}: {value:?}");
        }
        let mut several = HeaderMap::new();
        several.append(header::AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        several.append(header::AUTHORIZATION, HeaderValue::from_static("NTLM x"));
        assert!(has_credentials(&several));
    }

    #[test]
    fn challenges_are_found_among_others() {
        for (value, expected) in [
            (&b"NTLM"[..], true),
            (b"Negotiate", true),
            (b"NTLM TlRMTVNTUAAC, Basic realm=\"a\"", true),
            (b"Basic realm=\"a\", NTLM", true),
            (b"Basic realm=\"a\",negotiate oYG2,Bearer", true),
            (b", ,NTLM", true),
            (b"Basic realm=\"a, NTLM\"", false),
            (b"Basic realm=\"a \\\", NTLM\", charset=\"UTF-8\"", false),
            (b"Basic realm=\"a, NTLM", true),
            (b"Basic realm=\"\xe9\", NTLM", true),
            (b"Digest nonce=\"x\", NTLM=\"y\"", false),
            (b"Bearer", false),
            (b"", false),
        ] {
            let shown = String::from_utf8_lossy(value);
            for (name, counts) in [
                (header::WWW_AUTHENTICATE, true),
                (header::PROXY_AUTHENTICATE, true),
                (header::SERVER, false),
            ] {
                let headers = HeaderMap::from_iter([(name, HeaderValue::from_bytes(value).unwrap())]);
                assert_eq!(has_challenge(&headers), expected && counts, "{shown}");
            }
        }
        let mut several = HeaderMap::new();
        several.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=a"));
        several.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("NTLM"));
        assert!(has_challenge(&several));
    }

    /// Stands for a pool of connections.
    type Pool = ();

    async fn used(all: &Reservations, with_credentials: bool, challenged: bool) -> Arc<Reserved> {
        let lease = all.lease("a", with_credentials).await;
        lease.answered(with_credentials, challenged);
        lease.set_intact();
        lease.reserved.clone()
    }

    fn same(one: &Arc<Reserved>, other: &Arc<Reserved>) -> bool {
        Arc::ptr_eq(one, other)
    }

    #[tokio::test]
    async fn a_handshake_stays_on_its_connection() {
        let all = Reservations::default();
        assert!(!all.has("a"));
        all.reserve("a", Some("127.0.0.1:1".parse().unwrap()));
        all.reserve("a", None);
        assert!(all.has("a") && !all.has("b"));
        let first = used(&all, true, true).await;
        assert!(!same(&used(&all, false, true).await, &first), "a request in between keeps off");
        assert!(same(&used(&all, true, false).await, &first));
        assert!(same(&used(&all, false, false).await, &first), "signed in");
        let lease = all.lease("a", false).await;
        assert!(same(&lease.reserved, &first));
        assert_eq!(lease.endpoint().unwrap().to_string(), "127.0.0.1:1");
        assert!(!same(&all.lease("a", false).await.reserved, &first), "busy");
        assert!(!same(&all.lease("b", false).await.reserved, &first), "it leads elsewhere");
    }

    #[tokio::test]
    async fn a_request_waits_for_the_one_whose_response_has_ended() {
        let all = Reservations::default();
        let first = all.lease("a", true).await;
        first.answered(true, false);
        first.end();
        let (of_first, mut second) = (first.reserved.clone(), Box::pin(all.lease("a", false)));
        let waiting = tokio::time::timeout(std::time::Duration::ZERO, &mut second).await;
        assert!(waiting.is_err(), "the first has not left yet");
        first.set_intact();
        drop(first);
        assert!(same(&second.await.reserved, &of_first));
        // A wait that was given up holds nothing.
        let first = all.lease("a", false).await;
        first.end();
        assert!(tokio::time::timeout(std::time::Duration::ZERO, all.lease("a", false)).await.is_err());
        drop(first);
        assert!(same(&all.lease("a", false).await.reserved, &of_first));
    }

    #[tokio::test]
    async fn a_connection_is_closed_with_the_client_connection_and_where_an_exchange_broke() {
        let all = Reservations::default();
        let pool = |lease: &Lease| -> Weak<Pool> { Arc::downgrade(&lease.pool::<Pool>()) };
        let lease = all.lease("a", true).await;
        let first = pool(&lease);
        lease.set_intact();
        drop(lease);
        assert!(first.upgrade().is_some());
        drop(all.lease("a", true).await);
        assert!(first.upgrade().is_none(), "that exchange did not end");
        let lease = all.lease("a", true).await;
        let last = pool(&lease);
        lease.set_intact();
        drop(lease);
        drop(all);
        assert!(last.upgrade().is_none());
    }
}
