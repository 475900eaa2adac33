//! Portolan from outside: the real binary before real origins, driven by real clients.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the one sleep is the poll of `support::eventually`")]

mod access_log;
mod admin;
mod architecture;
mod auth;
mod bandwidth;
mod bodies;
mod cli;
mod compression;
mod concurrency;
mod configuration;
mod cors;
mod delegated;
mod drain;
mod early_hints;
mod engine;
mod forward_auth;
mod forwarding;
mod http1;
mod http2;
mod ip;
mod jwks;
mod jwt;
mod limits;
mod load;
mod maintenance;
mod metrics;
mod middleware;
mod mtls;
mod rate_limit;
mod reload;
mod requests;
mod routing;
mod security_headers;
mod shared_limits;
mod spans;
mod streaming;
mod strictness;
mod support;
mod tenants;
mod tls;
mod upstream;
mod validate;
mod waits;
mod websocket;
