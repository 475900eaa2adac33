//! Values that are parsed once, where they are read: units, names, addresses, patterns, and the
//! positions that diagnostics point at. Nothing here does I/O.

mod address;
mod clock;
mod cookie;
mod dns;
pub mod encoding;
mod field;
mod name;
mod named;
mod number;
mod params;
mod secret;
mod span;
mod subject;
mod template;
mod text;
mod timestamp;
mod unit;
mod url;
mod weaks;

pub use address::{Address, Bind, Cidr, fits_a_socket};
pub use clock::Clock;
pub use cookie::{CookieName, CookiePath};
pub use dns::{DnsName, HostPort, NameServer};
pub use field::{FieldName, FilePath, Method, Status};
pub use name::Name;
pub use named::{Entry, Map, Named, ONE_OR_MANY, OneOrMany, TextOr};
pub use number::{Percent, PercentAbove, StatusRange};
pub use params::Params;
pub use secret::Secret;
pub use span::{FileId, SPANNED, SPANNED_END, SPANNED_FILE, SPANNED_START, SPANNED_VALUE, Span, Spanned};
pub use subject::{Attribute, Subject};
pub use template::{Piece, Template, TemplateError, Variable, Variables, meant, pieces};
pub(crate) use text::text_value;
pub use timestamp::Timestamp;
pub use unit::{Bandwidth, Duration, LeastRate, Rate, RatePeriod, Size};
pub use url::Url;
pub use weaks::Weaks;
