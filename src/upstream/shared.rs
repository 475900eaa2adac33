//! What the snapshots of one upstream share beside its endpoints' states.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64},
    },
    time::Instant,
};

use ring::hmac;

use super::{
    adaptive::Gradient,
    balance::Turns,
    queue::Queue,
    retry::{Budget, ResponseTimes},
};

/// Known by the upstream's name.
#[derive(Debug)]
pub struct Shared {
    /// How many turns its endpoints have had.
    pub turns: Arc<Turns>,
    /// Held while an endpoint is ejected, so that not too many are at once.
    pub ejecting: Mutex<()>,
    /// Requests in flight, where the balancer needs their sum.
    pub in_flight: Arc<AtomicU64>,
    /// How often an endpoint became usable, or ceased to be.
    pub changes: Arc<AtomicU64>,
    /// Whether all endpoints are used because too few are usable.
    pub panics: AtomicBool,
    /// The requests in flight where they are limited, and those that wait.
    pub admission: Arc<Queue>,
    /// What signs the cookies of sticky sessions where no key is configured.
    pub sticky_key: OnceLock<Arc<hmac::Key>>,
    /// Where a hedge starts after a percentile of them.
    pub response_times: OnceLock<Box<ResponseTimes>>,
    /// What an adaptive limit of these is found by.
    pub gradient: Mutex<Gradient>,
    /// Copies of requests on their way here.
    pub copies: AtomicU32,
    /// How many retries it bears.
    pub budget: Budget,
}

impl Shared {
    pub fn new(now: Instant) -> Self {
        Self {
            turns: Arc::default(),
            ejecting: Mutex::default(),
            in_flight: Arc::default(),
            changes: Arc::default(),
            panics: AtomicBool::default(),
            admission: Arc::default(),
            sticky_key: OnceLock::new(),
            response_times: OnceLock::new(),
            gradient: Mutex::default(),
            copies: AtomicU32::default(),
            budget: Budget::new(now),
        }
    }
}
