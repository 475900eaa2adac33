//! Codecs without policy that both sides share: no I/O, no configuration.

pub mod h1;
