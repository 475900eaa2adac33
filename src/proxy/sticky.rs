//! A request where clients stay at an endpoint: the cookie that it came with, and the one that goes back.

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue};

use crate::{
    http::cookie,
    upstream::{
        Endpoint, Pick, Tried, Upstream,
        sticky::{Rejected, Sticky, Ticket},
    },
};

/// One request of a client that stays at an endpoint.
pub(super) struct StickySession {
    /// What its cookie says, where it has a valid one.
    ticket: Option<Ticket>,
    is_https: bool,
    outcome: Option<Outcome>,
}

/// Which endpoint answered.
#[derive(Clone, Copy)]
enum Outcome {
    /// The cookie's.
    Hit,
    /// Another one.
    Moved,
    /// There was no valid cookie.
    New,
}

/// Of cookies of one name so many are looked at. Browsers send several where they were set for several paths.
const MOST_COOKIES: usize = 4;

// === impl StickySession ===

impl StickySession {
    /// Takes the cookie out of a request. `is_https`: how it came.
    pub fn begin(upstream: &Upstream, headers: &mut HeaderMap, is_https: bool) -> Box<Self> {
        let ticket = upstream.sticky.as_ref().and_then(|sticky| take(sticky, upstream, headers));
        Box::new(Self { ticket, is_https, outcome: None })
    }

    /// Whether the client stays at an endpoint.
    pub fn is_bound(&self) -> bool {
        self.ticket.is_some()
    }

    /// The client's endpoint, if it may be used and was not tried yet.
    pub fn pick(&self, upstream: &Upstream, tried: &Tried) -> Option<Pick> {
        upstream.pick_for(self.ticket?.endpoint, tried)
    }

    /// This endpoint's response goes to the client. Gives the cookie that it is to get with it, where it needs one.
    pub fn answered(&mut self, upstream: &Upstream, endpoint: &Endpoint) -> Option<HeaderValue> {
        let (sticky, code) = (upstream.sticky.as_ref()?, endpoint.code?);
        let now = SystemTime::now();
        let (outcome, sets) = match &self.ticket {
            // What gets no new clients gives none of its clients a new time.
            Some(ticket) if ticket.endpoint == code => {
                (Outcome::Hit, sticky.is_stale(ticket, now) && endpoint.is_usable())
            }
            Some(_) => (Outcome::Moved, true),
            None => (Outcome::New, true),
        };
        self.outcome = Some(outcome);
        upstream.metrics().sticky(outcome.word());
        if sets { sticky.set_cookie(code, now, self.is_https) } else { None }
    }

    pub fn outcome(&self) -> Option<&'static str> {
        self.outcome.map(Outcome::word)
    }
}

/// The first valid cookie. Cookies that are not valid are counted and have no other effect.
fn take(sticky: &Sticky, upstream: &Upstream, headers: &mut HeaderMap) -> Option<Ticket> {
    let now = SystemTime::now();
    let mut found = false;
    let read = cookie::values(headers, sticky.cookie()).take(MOST_COOKIES).find_map(|value| {
        found = true;
        sticky
            .read(value, now)
            .map_err(|rejected: Rejected| upstream.metrics().sticky_rejected(rejected.cause()))
            .ok()
    });
    if found {
        cookie::remove(headers, sticky.cookie());
    }
    read
}

// === impl Outcome ===

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Moved => "moved",
            Self::New => "new",
        }
    }
}
