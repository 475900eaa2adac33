//! Portolan, a declarative reverse proxy: the map of its source.
//!
//! Imports point down and never sideways; `tests/it/architecture.rs` has every arrow that is allowed.
//!
//! | layer | parts | |
//! |---|---|---|
//! | 6 | [`cli`], [`server`] | commands; the process, its reloads, tasks and signals |
//! | 5 | [`listen`], [`admin`] | where clients come in; where operators ask |
//! | 4 | [`proxy`] | one request through a route |
//! | 3 | [`compile`], [`snapshot`] | from what was written to what is served; what is swapped |
//! | 2 | [`config`] | what a person wrote, parsed, united and checked |
//! | 1 | [`routing`], [`action`], [`middleware`], [`matcher`], [`upstream`], [`store`], [`trace`], [`telemetry`], [`tls`] | what it is made of, each with its part of the configuration |
//! | 0 | [`value`], [`http`], [`diagnostic`], [`error`], [`wire`] | words and rules, codecs, no I/O |
//!
//! A configuration's life is `server::reload`: load, compile, test, acquire sockets, commit, retire. A request's life is
//! `listen` (limits, PROXY protocol, TLS or QUIC, a session), then [`proxy`]: the route, the chain, the action, the chain
//! back, the access record. It holds the snapshot until its route is chosen, and that route from then on.
//!
//! One seam lies between protocols and the rest: [`proxy::session::Session`], which HTTP/1, HTTP/2 and HTTP/3 each are.

pub mod action;
pub mod admin;
pub mod cli;
pub mod compile;
pub mod config;
pub mod diagnostic;
pub mod error;
pub mod http;
pub mod listen;
pub mod matcher;
pub mod middleware;
pub mod proxy;
pub mod routing;
pub mod server;
pub mod snapshot;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod trace;
pub mod upstream;
pub mod value;
pub mod wire;
