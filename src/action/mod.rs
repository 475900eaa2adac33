//! What a route does with a request: one file per action.

pub mod forward;
pub mod mirror;
pub mod proxy;
pub mod redirect;
pub mod respond;
mod rewrite;
pub mod split;
mod target;
