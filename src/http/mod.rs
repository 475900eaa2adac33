//! What HTTP says, on `http` types and without I/O (but for the facts of a connection).

pub mod accept;
pub mod alt_svc;
pub mod authority;
pub mod coding;
pub mod connection;
pub mod connection_auth;
pub mod cookie;
pub mod cors;
pub mod date;
pub mod errors;
pub mod external;
pub mod field_name;
pub mod forwarded;
pub mod grpc;
pub mod hop_by_hop;
pub mod list;
pub mod media_type;
pub mod path;
pub mod seen;
pub mod target;
pub mod token;
pub mod vary;
pub mod websocket;
mod weight;
