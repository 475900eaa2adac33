//! QUIC: a UDP socket and its connections, which all go over it. So it is never closed while it has connections: when a
//! configuration does not want it any more it refuses new ones, and is closed after the last; one that wants it back
//! before that takes it up again.

mod accept;
mod client_hello;
mod connection;
mod id;
mod socket;

pub use accept::{Accepting, Kept, Stopped};
pub use socket::{Bound, Listening};
