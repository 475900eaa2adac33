//! What an HTTP/1 connection keeps for the request that it carries.

use super::answer::{Asked, Framing};
use crate::wire::h1::body::{Body, BodyLength};

/// What begins anew with each request.
#[derive(Debug)]
pub(super) struct Exchange {
    pub body: Body,
    pub body_is_empty: bool,
    pub asked: Asked,
    pub framing: Option<Framing>,
    pub owes_continue: bool,
    pub close: bool,
    pub received: u64,
    pub sent: u64,
    /// The response's end is the connection's.
    pub until_close: bool,
    /// The response was given up or a write failed: nothing more can be said.
    pub broken: bool,
}

impl Exchange {
    pub(super) fn idle() -> Self {
        Self {
            body: Body::new(BodyLength::Empty),
            body_is_empty: true,
            asked: Asked { head_only: false, http11: true, connect: false },
            framing: None,
            owes_continue: false,
            close: false,
            received: 0,
            sent: 0,
            until_close: false,
            broken: false,
        }
    }
}
