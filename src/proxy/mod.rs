//! One request through a route. Routing, the chain and local answers are done here; Pingora carries what
//! goes upstream. The only place that instantiates `HttpProxy`.

mod absolute;
mod adapter;
mod answers;
mod arrival;
mod asked;
mod call;
mod connect;
mod destination;
mod downstream;
mod engine;
mod errors;
mod farewell;
mod forward;
mod gateway;
mod patience;
mod prepare;
mod record;
mod recover;
mod replay;
mod request_line;
pub mod session;
pub mod signal;
mod slot;
mod spans;
mod trailing;
mod tunnel;

pub use engine::Engine;
