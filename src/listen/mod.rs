//! Where clients come in: sockets, limits, TLS and QUIC, the choice of protocol, HTTP/1, HTTP/2 and HTTP/3.
//!
//! A reload binds what is new ([`Bound`]), starts to listen, hands running sockets their new settings
//! ([`Live`]) and stops what left ([`Accepting::stop`]); no connection notices but those that shall.

mod accept;
mod admission;
mod connection;
mod deadline;
pub mod h1;
mod h2;
pub mod h3;
mod head;
mod live;
mod pace;
mod preface;
pub mod proxy_protocol;
mod quic;
mod socket;
mod stream;
#[cfg(test)]
mod testing;
mod tls_stream;
mod transport;

pub use live::{Draining, Live};
pub use quic::{Kept, Stopped};
pub use socket::BindError;
pub use stream::Stream;
pub use transport::{Accepting, Bound, Listening, Place, Transport};

/// Requests of a connection that are begun before other connections have their turn: whoever asks for a hundred at once is
/// not served a hundred times before anybody else.
const AT_ONCE: usize = 4;

#[cfg(test)]
mod tests;
