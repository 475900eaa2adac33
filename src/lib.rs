//! Portolan, a declarative reverse proxy.

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
