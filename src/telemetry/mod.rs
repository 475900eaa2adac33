//! What operators see: the log and the access log.

pub mod access_log;
pub mod log;
