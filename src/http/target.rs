//! What a request's target says beyond the URI that is read of it (RFC 9112 section 3.2).

/// Stands among the extensions of an OPTIONS whose target is a URI without a path: it asks of the whole server, which a
/// URI that was read does not say any more (RFC 9112 section 3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeServer;
