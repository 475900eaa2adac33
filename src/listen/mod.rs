//! Where clients come in: sockets, limits, TLS, the choice of protocol, HTTP/1 and HTTP/2.
//!
//! A reload binds what is new ([`Bound`]), starts to listen, hands running sockets their new settings
//! ([`Live`]) and stops what left ([`Accepting::stop`]); no connection notices but those that shall.

mod accept;
mod admission;
mod connection;
mod deadline;
mod early;
pub mod h1;
mod h2;
mod live;
mod preface;
pub mod proxy_protocol;
mod socket;
mod stream;
#[cfg(test)]
mod testing;

pub use accept::Accepting;
pub use live::{Draining, Live};
pub use socket::{BindError, Bound, Listening};
pub use stream::Stream;

#[cfg(test)]
mod tests;
