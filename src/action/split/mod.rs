//! Sends each request to one of several upstreams: by conditions, else by weights, so that a user stays on a side.
//!
//! A key's hash is a point in [0, 1), and the sides have ranges there in the order in which they are written: other weights move
//! only the users between the old and the new boundaries.

pub mod canary;
mod choose;
mod compile;
pub mod config;
mod registry;

use std::{fmt, sync::Arc};

pub use canary::{Canary, CanaryState, Ended, Phase};
pub use choose::{Chosen, Decision, Why};
pub use compile::{Part, compile};
pub use registry::Registry;

use crate::{
    action::proxy::Proxy,
    http::cookie::Attributes,
    matcher::Conditions,
    telemetry::metrics,
    upstream::config::BalanceKey,
    value::{CookieName, Name},
};

/// The action, ready to run.
#[derive(Debug)]
pub struct Split {
    /// Where it is written: "hosts.www.all".
    pub site: Arc<str>,
    /// At least two.
    pub sides: Box<[Side]>,
    pub by: By,
}

/// One of the upstreams.
#[derive(Debug)]
pub struct Side {
    pub name: Name,
    pub proxy: Arc<Proxy>,
    pub weight: u16,
    /// Requests that meet them come here, where there are any.
    pub conditions: Option<Conditions>,
    /// When it steps back, where it does.
    pub canary: Option<(Canary, Arc<CanaryState>)>,
    pub metrics: Arc<metrics::Side>,
}

/// What keeps a user on a side.
#[derive(Debug)]
pub enum By {
    /// Nothing: each request is drawn.
    Chance,
    /// A hash.
    Key(BalanceKey),
    /// A cookie that names the side.
    Cookie(CookieName, Attributes),
}

// === impl Split ===

impl Split {
    /// A side's proxy for what is the same on all sides: rewriting, the Host, and how long it may take in all.
    pub fn any_proxy(&self) -> &Arc<Proxy> {
        &self.sides[0].proxy
    }

    /// The sides that requests depend on: with a weight, and no canaries.
    pub fn lasting(&self) -> impl Iterator<Item = &Side> {
        self.sides.iter().filter(|side| side.is_lasting())
    }

    /// Whether a side may step back.
    pub fn has_canary(&self) -> bool {
        self.sides.iter().any(|side| side.canary.is_some())
    }

    /// A request that went to this side ended.
    pub fn ended(&self, side: usize, ended: Ended) {
        for (place, each) in self.sides.iter().enumerate() {
            match &each.canary {
                Some((canary, state)) if place == side => state.ended(canary, ended),
                Some((_, state)) => state.other_ended(ended.failed),
                None => {}
            }
        }
    }

    /// A response from this side that had begun well was cut.
    pub fn broke(&self, side: usize) {
        if let Some((canary, state)) = &self.sides[side].canary {
            state.broke(canary);
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("split")?;
        for (place, side) in self.sides.iter().enumerate() {
            write!(f, "{} {} {}", if place == 0 { "" } else { "," }, side.name, side.weight)?;
        }
        Ok(())
    }
}

// === impl Side ===

impl Side {
    pub(super) fn is_lasting(&self) -> bool {
        self.weight > 0 && self.canary.is_none()
    }

    /// Which of its requests it takes now.
    pub fn phase(&self) -> Phase {
        self.canary.as_ref().map_or(Phase::Steady, |(_, state)| state.phase())
    }
}
