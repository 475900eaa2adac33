//! Connecting to a name with addresses of both families (RFC 8305, "Happy Eyeballs"): where the chosen address is slow to
//! answer, one of the other family is tried beside it, and the first connection is used.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    connectors::L4Connect,
    protocols::l4::{socket::SocketAddr as PeerAddr, stream::Stream},
};
use tokio::time::timeout;

use super::{announce::failure, guarded::Guarded};

/// The addresses of the other family that the same name has, and how the last race ended.
#[derive(Debug)]
pub(super) struct Rivals {
    addresses: Box<[SocketAddr]>,
    /// Whether one of them was faster: then the next race begins for all at once (RFC 8305 section 4).
    won: AtomicBool,
}

/// Connects to an endpoint or to one of its rivals.
#[derive(Clone, Debug)]
pub(super) struct Racing {
    pub direct: Guarded,
    pub rivals: Arc<Rivals>,
}

/// RFC 8305 section 5 recommends 250 ms.
const HEAD_START: Duration = Duration::from_millis(250);

// === impl Rivals ===

impl Rivals {
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Option<Arc<Self>> {
        let addresses: Box<[_]> = addresses.into_iter().collect();
        (!addresses.is_empty()).then(|| Arc::new(Self { addresses, won: AtomicBool::new(false) }))
    }

    /// The first of two attempts that comes to something. The second begins when the first has had its start, or has failed.
    async fn race<T>(
        &self,
        first: impl Future<Output = io::Result<T>>,
        second: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
        let head_start = if self.won.load(Ordering::Relaxed) { Duration::ZERO } else { HEAD_START };
        let (result, won) = match timeout(head_start, &mut first).await {
            Ok(Ok(made)) => (Ok(made), false),
            // What is said of the endpoint itself says more.
            Ok(Err(error)) => (second.await.map_err(|_| error), true),
            Err(_) => tokio::select! {
                biased;
                made = &mut first => match made {
                    Ok(made) => (Ok(made), false),
                    Err(error) => (second.await.map_err(|_| error), true),
                },
                made = &mut second => match made {
                    Ok(made) => (Ok(made), true),
                    Err(_) => (first.await, false),
                },
            },
        };
        if result.is_ok() {
            self.won.store(won, Ordering::Relaxed);
        }
        result
    }
}

// === impl Racing ===

impl Racing {
    async fn rivals(&self) -> io::Result<Stream> {
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in &self.rivals.addresses {
            match self.direct.open(&PeerAddr::Inet(*address)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

#[async_trait]
impl L4Connect for Racing {
    async fn connect(&self, address: &PeerAddr) -> pingora::Result<Stream> {
        let connected = self.rivals.race(self.direct.open(address), self.rivals()).await;
        connected.map_err(|error| failure("an endpoint with addresses of both families", error))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    fn rivals() -> Arc<Rivals> {
        Rivals::new(["[::1]:80".parse().unwrap()]).unwrap()
    }

    async fn after(pause: u64, result: io::Result<&'static str>) -> io::Result<&'static str> {
        sleep(Duration::from_millis(pause)).await;
        result
    }

    fn refused() -> io::Result<&'static str> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn unreachable() -> io::Result<&'static str> {
        Err(io::ErrorKind::HostUnreachable.into())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_connection_is_used() {
        for (first, second, outcome, taken) in [
            ((10, Ok("own")), (0, Ok("other")), Ok("own"), 10),
            ((300, Ok("own")), (10, Ok("other")), Ok("other"), 260),
            ((255, Ok("own")), (100, Ok("other")), Ok("own"), 255),
            // A failure ends the head start, and what failed is told of the endpoint itself.
            ((5, refused()), (10, Ok("other")), Ok("other"), 15),
            ((300, refused()), (100, Ok("other")), Ok("other"), 350),
            ((400, Ok("own")), (10, unreachable()), Ok("own"), 400),
            ((5, refused()), (10, unreachable()), Err(io::ErrorKind::ConnectionRefused), 15),
            ((300, refused()), (10, unreachable()), Err(io::ErrorKind::ConnectionRefused), 300),
        ] {
            let began = Instant::now();
            let raced = rivals().race(after(first.0, first.1), after(second.0, second.1)).await;
            assert_eq!(raced.map_err(|error| error.kind()), outcome);
            assert_eq!(began.elapsed().as_millis(), taken);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_family_costs_one_head_start() {
        let rivals = rivals();
        let dead = || after(60_000, Ok("own"));
        let mut waits = Vec::new();
        for _ in 0..3 {
            let began = Instant::now();
            assert_eq!(rivals.race(dead(), after(1, Ok("other"))).await.unwrap(), "other");
            waits.push(began.elapsed().as_millis());
        }
        assert_eq!(waits[0], 251);
        assert!(waits[1] < 5 && waits[2] < 5, "{waits:?}");
        // It is there again.
        assert_eq!(rivals.race(after(1, Ok("own")), after(30, Ok("other"))).await.unwrap(), "own");
        assert!(!rivals.won.load(Ordering::Relaxed));
    }

    #[test]
    fn without_rivals_there_is_no_race() {
        assert!(Rivals::new([]).is_none());
    }
}
