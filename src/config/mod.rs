//! What a person wrote: files parsed to one spanned tree, united, substituted, validated against the
//! schema and decoded into a [`Document`].

pub mod decode;
pub mod delegated;
pub mod document;
mod endpoints;
pub mod host;
pub mod include;
pub mod inputs;
pub mod listener;
pub mod schema;
pub mod shape;
pub mod substitute;
pub mod test;
pub mod tree;
pub mod unite;
pub mod validate;

mod braces;
#[cfg(test)]
pub(crate) mod cases;
mod foreign;
mod form;
mod format;
mod later;
mod left_out;
mod load;
mod overrides;
mod parse;
mod print;
mod qualify;
mod shorthand;
mod sieve;
mod toml;
mod yaml;

pub use delegated::{Chosen, Delegated, OnError, Source};
pub use document::Document;
pub use endpoints::endpoints_file;
pub use inputs::Inputs;
pub use later::is_later;
pub use left_out::LeftOut;
pub use load::{Loaded, Trees, load, load_chosen};
pub use print::print;
