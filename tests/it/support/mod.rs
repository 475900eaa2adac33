//! A real Portolan between real origins and real clients: free ports, temporary trees, deadlines instead of sleeps.

mod browser;
mod cases;
mod certificates;
mod client;
mod dns;
pub mod frames;
mod h2_client;
mod h2_origin;
mod h3;
mod haproxy;
mod held;
mod load;
mod message;
mod nginx;
mod origin;
mod proxy;
mod redis;
mod secure;
mod tools;
mod tree;

use std::time::{Duration, Instant};

pub use browser::browse;
pub use cases::{AskTrailers, cases, http1_with_te, unescape, with_and_without_te};
pub use certificates::Certificates;
pub use client::Client;
pub use dns::{Answer, Dnsmasq, ToldDns};
pub use frames::Frames;
pub use h2_client::{H2Client, Reaction};
pub use h2_origin::{H2Origin, HyperH2, Told};
pub use h3::Http3;
pub use haproxy::Haproxy;
pub use held::Held;
pub use load::{Load, h2load, wrk};
pub use message::{Message, Response};
pub use nginx::Nginx;
pub use origin::{Origin, Reply};
pub use proxy::{Outcome, Proxy, portolan, to};
pub use redis::Redis;
pub use secure::Secure;
pub use tools::{Python, Run, curl, openssl, runs, testssl};
pub use tree::{Tree, free_port};

/// What anything may take on a busy machine before a test gives up on it.
pub const DEADLINE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(10);

/// Waits until `probe` yields something, and fails the test after [`DEADLINE`].
#[track_caller]
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, probe)
}

/// Waits until `condition` holds, and fails the test after [`DEADLINE`].
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(DEADLINE, what, || condition().then_some(()));
}

#[track_caller]
pub fn within<T>(limit: Duration, what: &str, probe: impl FnMut() -> Option<T>) -> T {
    waited(limit, probe).unwrap_or_else(|| panic!("not within {limit:?}: {what}"))
}

/// What `probe` yields, if it does in time.
pub fn waited<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        match probe() {
            None if Instant::now() < end => std::thread::sleep(POLL),
            found => return found,
        }
    }
}

/// Fills a configuration's words in capitals: `config("… [ORIGIN] …", &[("ORIGIN", &origin.address())])`.
pub fn config(text: &str, words: &[(&str, &dyn std::fmt::Display)]) -> String {
    words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, &value.to_string()))
}
