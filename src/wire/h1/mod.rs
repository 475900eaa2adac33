//! HTTP/1 as both sides read and write it (RFC 9112).

pub mod body;
pub mod name;
pub mod response;
pub mod scan;
pub mod write;
