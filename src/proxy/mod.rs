//! One request through a route: routing, the chain, local answers, and the pump between a client's session and the exchange
//! with an origin.

mod absolute;
mod answers;
mod arrival;
mod asked;
mod call;
mod connect;
mod destination;
mod downstream;
mod engine;
mod farewell;
mod hedge;
mod meanwhile;
mod mirroring;
mod outgoing;
mod patience;
mod prepare;
mod pump;
mod record;
mod recover;
mod relay;
mod replay;
mod reserved;
pub mod session;
pub mod signal;
mod spans;
mod split;
mod sticky;
mod tunnel;
mod upload;

pub use engine::Engine;
