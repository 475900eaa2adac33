//! What operators see: the log, the access log and the metrics.

pub mod access_log;
pub mod log;
pub mod metrics;
