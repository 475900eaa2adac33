//! QPACK without a dynamic table (RFC 9204): strings and references to the static table, so that no request waits for
//! another and a client can make us keep nothing.

mod decode;
mod encode;
pub mod huffman;
pub mod integer;
mod table;

pub use decode::{Broken, Field, Fields};
pub use encode::{field, status, trailers};
