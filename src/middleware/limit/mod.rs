//! What limits count by: keys of requests, and counts that outlive a reload. A count is known by where it is
//! written (or by its name) and by what it tells requests apart by, never by how much it allows.

mod bucket;
mod buckets;
mod in_flight;
mod key;
mod meter;
mod registry;
mod shared;

pub use bucket::{Problem, Quota, Refused, Taken, seconds};
pub use buckets::Buckets;
pub use in_flight::{InFlight, Permit};
pub use key::{By, Key, KeyMap, KeyText, Written};
pub use meter::{Meter, Speed, Way};
pub use registry::{Identity, Place, Quotas, Registry, Scope, Within};
pub use shared::Shared;
