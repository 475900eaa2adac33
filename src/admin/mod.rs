//! How a running process is asked and told: HTTP on a socket of its own.

pub mod client;
mod origin;
mod place;
pub mod serve;
mod socket;
mod token;
pub mod upstream;

pub use place::{candidates, default_path};
pub use serve::Desk;
pub use socket::AdminSocket;
