//! How a running process is asked and told: the control socket.

pub mod control;
mod place;

pub use place::{candidates, default_path};
