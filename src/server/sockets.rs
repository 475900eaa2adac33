//! The sockets that are listened on, from one configuration to the next: what is new is bound before
//! anything changes, what stays is not disturbed, what left is drained.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{
    drain,
    tasks::{Kind, Tasks},
};
use crate::{
    listen::{Accepting, BindError, Bound, Kept, Listening, Live, Place, Stopped, Transport},
    proxy::session::Handler,
    snapshot::settings::Listener,
    value::{Bind, Name},
};

/// A listener of a configuration.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub settings: Listener,
    pub binds: Vec<Bind>,
}

/// All sockets of the process.
pub struct Sockets<H> {
    runtime: Handle,
    tasks: Tasks,
    handler: Arc<H>,
    listeners: BTreeMap<Name, Arc<Live>>,
    open: Vec<Open>,
    /// Sockets that nobody wants any more and whose connections have not ended.
    left: Vec<(Place, Kept)>,
    /// The addresses of all sockets for streams that are not closed yet.
    held: Vec<Weak<Bind>>,
}

/// One socket, known by who asked for it and for what.
struct Open {
    listener: Name,
    wanted: Place,
    accepting: Accepting,
}

/// The addresses that a configuration wants and the process has not. Dropping it gives them back.
pub struct Acquired<S> {
    new: Vec<New<S>>,
}

struct New<S> {
    listener: Name,
    wanted: Place,
    socket: S,
}

/// An address that could not be had.
#[derive(Debug)]
pub struct Failed {
    pub listener: Name,
    pub wanted: Bind,
    pub error: BindError,
}

// === impl Sockets ===

impl<H: Handler> Sockets<H> {
    pub fn new(runtime: Handle, tasks: Tasks, handler: Arc<H>) -> Self {
        let (open, left, held) = (Vec::new(), Vec::new(), Vec::new());
        Self { runtime, tasks, handler, listeners: BTreeMap::new(), open, left, held }
    }

    /// Takes the addresses that are not open yet; all of them, or none.
    pub fn acquire(&self, wanted: &[Wanted]) -> Result<Acquired<Bound>, Vec<Failed>> {
        let (mut new, mut failed) = (Vec::new(), Vec::new());
        let (_, missing) = self.assign(wanted);
        for (listener, wanted) in missing {
            match self.bind(&listener, &wanted, &mut new) {
                Ok(socket) => new.push(New { listener, wanted, socket }),
                Err(error) => failed.push(Failed { listener, wanted: wanted.bind, error }),
            }
        }
        match failed.is_empty() {
            true => Ok(Acquired { new }),
            false => Err(failed),
        }
    }

    /// Lets clients connect to what was acquired: the last step that can fail.
    pub fn listen(&self, acquired: Acquired<Bound>) -> Result<Acquired<Listening>, Vec<Failed>> {
        let (mut new, mut failed) = (Vec::new(), Vec::new());
        for New { listener, wanted, socket } in acquired.new {
            match socket.listen(&self.runtime) {
                Ok(socket) => new.push(New { listener, wanted, socket }),
                Err(error) => failed.push(Failed { listener, wanted: wanted.bind, error }),
            }
        }
        match failed.is_empty() {
            true => Ok(Acquired { new }),
            false => Err(failed),
        }
    }

    /// Takes an address: that of a socket which was left, if it can be had; for a free port, the one that the listener
    /// has for the other transport.
    fn bind(&self, listener: &Name, wanted: &Place, new: &mut [New<Bound>]) -> Result<Bound, BindError> {
        let mut again = self.left.iter().filter(|(place, _)| place == wanted);
        if let Some(bound) = again.find_map(|(_, kept)| Bound::again(kept)) {
            return Ok(bound);
        }
        if !is_any_port(&wanted.bind) {
            return Bound::bind(wanted, self.may_hold(&wanted.bind));
        }
        let is_beside = |name: &Name, place: &Place| {
            name == listener && place.bind == wanted.bind && place.transport != wanted.transport
        };
        if let Some(open) = self.open.iter().find(|open| is_beside(&open.listener, &open.wanted)) {
            return Bound::bind(&Place { bind: open.accepting.local().clone(), ..wanted.clone() }, false);
        }
        match new.iter_mut().find(|new| is_beside(&new.listener, &new.wanted)) {
            Some(beside) => bind_beside(wanted, beside),
            None => Bound::bind(wanted, false),
        }
    }

    /// Whether a socket of this process may have the address, or a part of it.
    fn may_hold(&self, bind: &Bind) -> bool {
        self.held.iter().filter_map(Weak::upgrade).any(|held| meet(&held, bind))
    }

    /// Goes over to these listeners: `acquired` is what [`Sockets::acquire`] made of the same list. Sockets
    /// that left are closed and the connections of listeners that left get `drain_timeout` to end.
    pub fn commit(&mut self, wanted: &[Wanted], acquired: Acquired<Listening>, drain_timeout: Duration) {
        let (owners, _) = self.assign(wanted);
        let old = std::mem::take(&mut self.listeners);
        for Wanted { settings, .. } in wanted {
            let live = match old.get(&settings.name) {
                Some(live) => {
                    live.update(settings.clone());
                    live.clone()
                }
                None => Live::new(settings.clone()),
            };
            self.listeners.insert(settings.name.clone(), live);
        }
        self.left.retain(|(_, kept)| !kept.is_gone());
        let mut gone = Vec::new();
        for (mut open, owner) in std::mem::take(&mut self.open).into_iter().zip(owners) {
            match owner {
                Some(owner) => {
                    if owner != open.listener {
                        open.accepting.assign(self.listeners[&owner].clone());
                        open.listener = owner;
                    }
                    self.open.push(open);
                }
                None => {
                    self.left.extend(open.accepting.kept().map(|kept| (open.wanted, kept)));
                    gone.push(open.accepting);
                }
            }
        }
        self.held.retain(|held| held.strong_count() > 0);
        for New { listener, wanted, socket } in acquired.new {
            self.held.extend(socket.held());
            let live = self.listeners[&listener].clone();
            let accepting = Accepting::start(&self.runtime, socket, live, self.handler.clone());
            self.open.push(Open { listener, wanted, accepting });
        }
        let left = old.into_iter().filter(|(name, _)| !self.listeners.contains_key(name));
        self.retire(gone, left.map(|(_, live)| live).collect(), drain_timeout);
    }

    /// Closes all sockets and sees all connections off. Says whether all ended by themselves.
    pub async fn drain(&mut self, limit: Duration) -> bool {
        let gone = std::mem::take(&mut self.open).into_iter().map(|open| open.accepting).collect();
        let left = std::mem::take(&mut self.listeners).into_values().collect();
        let (clean, stopped) = see_off(gone, left, limit).await;
        // What is said last to clients has to be sent.
        let _ = tokio::time::timeout(LAST_PACKETS, ended(stopped)).await;
        clean
    }

    fn retire(&self, gone: Vec<Accepting>, left: Vec<Arc<Live>>, limit: Duration) {
        if !gone.is_empty() || !left.is_empty() {
            self.tasks.spawn(Kind::Drain, async move {
                let (_, stopped) = see_off(gone, left, limit).await;
                ended(stopped).await;
            });
        }
    }

    /// Which listener each open socket goes to, if any; and the addresses that none of them has. A socket
    /// stays with the listener that asked for it; else its address may go over to another.
    fn assign(&self, wanted: &[Wanted]) -> (Vec<Option<Name>>, Vec<(Name, Place)>) {
        let pairs = wanted
            .iter()
            .flat_map(|listener| places(listener).map(|place| (listener.settings.name.clone(), place)));
        let mut owners: Vec<Option<Name>> = vec![None; self.open.len()];
        let mut missing: Vec<_> = pairs.collect();
        type Fits = fn(&Open, &Name, &Place) -> bool;
        let by_name: Fits = |open, name, place| open.listener == *name && open.wanted == *place;
        // A free port is no address that another listener could have meant.
        let by_address: Fits = |open, _, place| open.wanted == *place && !is_any_port(&place.bind);
        for fits in [by_name, by_address] {
            missing.retain(|(name, place)| {
                let free = |at: &usize| owners[*at].is_none() && fits(&self.open[*at], name, place);
                let found = (0..self.open.len()).find(free);
                if let Some(at) = found {
                    owners[at] = Some(name.clone());
                }
                found.is_none()
            });
        }
        (owners, missing)
    }

    /// The listeners, each with its addresses and its count of connections.
    pub fn list(&self) -> Vec<(Name, Vec<Bind>, Arc<Live>)> {
        let addresses = |name: &Name| {
            let open = self.open.iter().filter(|open| open.listener == *name);
            let mut addresses: Vec<Bind> = Vec::new();
            for address in open.map(|open| open.accepting.local()) {
                // TCP and UDP are told apart by the protocols.
                if !addresses.contains(address) {
                    addresses.push(address.clone());
                }
            }
            addresses
        };
        self.listeners.iter().map(|(name, live)| (name.clone(), addresses(name), live.clone())).collect()
    }
}

/// Whether two sockets could be in each other's way.
fn meet(a: &Bind, b: &Bind) -> bool {
    let (Some(a), Some(b)) = (a.socket_addr(), b.socket_addr()) else { return false };
    let same = a.ip().to_canonical() == b.ip().to_canonical();
    a.port() == b.port() && (same || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn is_any_port(bind: &Bind) -> bool {
    bind.socket_addr().is_some_and(|address| address.port() == 0)
}

/// The sockets that a listener needs, for streams and for QUIC.
fn places(listener: &Wanted) -> impl Iterator<Item = Place> {
    let spoken = listener.settings.protocols;
    let transports = [(spoken.over_streams(), Transport::Stream), (spoken.h3, Transport::Quic)];
    listener.binds.iter().flat_map(move |bind| {
        let transports = transports.into_iter().filter(|(spoken, _)| *spoken);
        transports.map(|(_, transport)| Place { bind: bind.clone(), transport })
    })
}

/// Takes the port that a new socket was given, for the other transport; where that is taken, both get another.
fn bind_beside(wanted: &Place, beside: &mut New<Bound>) -> Result<Bound, BindError> {
    for _ in 1..TRIES {
        let there = Bound::bind(&Place { bind: beside.socket.local().clone(), ..wanted.clone() }, false);
        if there.is_ok() {
            return there;
        }
        beside.socket = Bound::bind(&beside.wanted, false)?;
    }
    Bound::bind(&Place { bind: beside.socket.local().clone(), ..wanted.clone() }, false)
}

/// How often a port is looked for that is free for both transports.
const TRIES: usize = 16;
/// What clients are told last gets to be sent.
const LAST_PACKETS: Duration = Duration::from_secs(1);

/// Closes sockets and sees connections off. Says whether all ended by themselves, and gives the sockets that connections
/// of listeners which stay still need.
async fn see_off(gone: Vec<Accepting>, left: Vec<Arc<Live>>, limit: Duration) -> (bool, Vec<Stopped>) {
    let mut stopped = Vec::new();
    for accepting in gone {
        stopped.extend(accepting.stop().await);
    }
    // All of them at once: the limit is for the whole.
    let draining: Vec<_> = left.iter().map(|live| tokio::spawn(drain::finish(live.drain(), limit))).collect();
    let mut clean = true;
    for ending in draining {
        clean &= ending.await.unwrap_or(false);
    }
    (clean, stopped)
}

async fn ended(stopped: Vec<Stopped>) {
    for stopped in stopped {
        stopped.ended().await;
    }
}

#[cfg(test)]
mod tests {
    use http::request;
    use tokio::net::TcpStream;

    use super::*;
    use crate::{
        error::Reason,
        http::{connection::Connection, seen::Seen},
        proxy::session::Session,
    };

    /// Leaves every request unanswered.
    struct Silent;

    impl Handler for Silent {
        async fn handle<S: Session>(&self, _: &Arc<Connection>, _: request::Parts, session: S) -> S {
            session
        }

        async fn refuse<S: Session>(&self, _: &Arc<Connection>, _: Reason, _: Box<Seen>, session: S) -> S {
            session
        }
    }

    fn wanted(name: &str, binds: &[&str]) -> Wanted {
        Wanted {
            settings: Listener::for_tests(name),
            binds: binds.iter().map(|bind| bind.parse().unwrap()).collect(),
        }
    }

    fn sockets() -> Sockets<Silent> {
        let runtime = Handle::current();
        Sockets::new(runtime.clone(), Tasks::new(runtime), Arc::new(Silent))
    }

    fn go(sockets: &mut Sockets<Silent>, wanted: &[Wanted]) {
        let acquired = sockets.acquire(wanted).unwrap_or_else(|failed| panic!("{failed:?}"));
        let acquired = sockets.listen(acquired).unwrap_or_else(|failed| panic!("{failed:?}"));
        sockets.commit(wanted, acquired, Duration::ZERO);
    }

    fn addresses(sockets: &Sockets<Silent>) -> Vec<(String, Vec<String>)> {
        let text = |binds: Vec<Bind>| binds.iter().map(ToString::to_string).collect();
        sockets.list().into_iter().map(|(name, binds, _)| (name.to_string(), text(binds))).collect()
    }

    #[tokio::test]
    async fn what_stays_keeps_its_socket_and_what_left_is_closed() {
        let mut sockets = sockets();
        go(&mut sockets, &[wanted("a", &["127.0.0.1:0"]), wanted("b", &["127.0.0.1:0"])]);
        let before = addresses(&sockets);
        assert_ne!(before[0].1, before[1].1);
        go(&mut sockets, &[wanted("a", &["127.0.0.1:0"])]);
        assert_eq!(addresses(&sockets), before[..1]);
        while TcpStream::connect(&before[1].1[0]).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(TcpStream::connect(&before[0].1[0]).await.is_ok());
        assert!(sockets.drain(Duration::from_secs(30)).await);
        assert!(TcpStream::connect(&before[0].1[0]).await.is_err());
    }

    #[tokio::test]
    async fn an_address_goes_over_to_another_listener_without_a_gap() {
        let mut sockets = sockets();
        go(&mut sockets, &[wanted("a", &["127.0.0.1:0"])]);
        let address = addresses(&sockets)[0].1[0].clone();
        // Known by its port from here on.
        sockets.open[0].wanted.bind = address.parse().unwrap();
        go(&mut sockets, &[wanted("b", &[&address])]);
        assert_eq!(addresses(&sockets), [("b".to_owned(), vec![address])]);
    }

    #[tokio::test]
    async fn one_address_that_is_taken_leaves_all_as_it_was() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let sockets = sockets();
        let failed = sockets.acquire(&[wanted("a", &["127.0.0.1:0"]), wanted("b", &[&address])]);
        let failed = failed.err().unwrap();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].listener.as_str(), "b");
        assert!(failed[0].error.to_string().contains(&address));
        assert!(addresses(&sockets).is_empty());
    }
}
