//! Limits how fast bodies pass.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    Builder, Context, Exchange, Next, OnRequest,
    limit::{By, Identity, Meter, Speed, Way},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    value::{Bandwidth, Clock, Size, Spanned},
};

pub const ADDS_UP: bool = true;

/// Lets bodies and tunnels pass no faster than `rate`, save for a `burst`: by waiting, never by refusing. The time that a
/// client waits for it counts for no timeout but `total`. Of several in a chain each holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BandwidthLimit")]
pub struct Config {
    /// How many bytes pass in a second, in each direction: 64KiB/s, 50MiB/s.
    pub rate: Bandwidth,
    /// How many pass at once after a pause. Default: a sixteenth of a second's, at least 16KiB.
    #[serde(default)]
    pub burst: Option<Spanned<Size>>,
    /// What has a rate of its own: request (default), connection, or all: what is limited here has one together.
    #[serde(default)]
    pub per: Per,
    /// request, response or both (default). Of a tunnel: what comes from the client, what goes to it.
    #[serde(default)]
    pub direction: Direction,
}

/// What has a rate of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "BandwidthPer")]
pub enum Per {
    /// Each request
    #[default]
    Request,
    /// Each connection, with all its requests
    Connection,
    /// All requests together
    All,
}

/// Which bytes are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "BandwidthDirection")]
pub enum Direction {
    /// What clients send
    Request,
    /// What they get
    Response,
    /// Each of the two
    #[default]
    Both,
}

struct Limit {
    share: Share,
    speed: Speed,
    direction: Direction,
}

/// Which meter a request is measured by.
enum Share {
    Request(Clock),
    Connection(Clock, Identity),
    All(Arc<Meter>),
}

/// A meter of a connection, and which limit it belongs to.
struct OfConnection {
    identity: Identity,
    meter: Arc<Meter>,
}

/// What a request's bytes are held to: there only where they are.
#[derive(Debug, Default)]
pub struct Throttle {
    held: SmallVec<[Held; 2]>,
    /// When the next of the request may be read, since somebody asked.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    meter: Arc<Meter>,
    speed: Speed,
    direction: Direction,
}

/// A larger one would let everything pass for a day.
const MOST_BURST_SECONDS: u64 = 86_400;

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder<'_>) {
    if let Some(burst) = config.burst.filter(|burst| burst.0 / config.rate.0 > MOST_BURST_SECONDS) {
        let problem = Diagnostic::error(
            Code::BadValue,
            burst.span,
            format!("a burst of {burst} takes more than a day to come again"),
        );
        cx.diagnostics.push(problem);
    }
    let identity = Identity { place: cx.place.clone(), by: By::all_together() };
    let limits = cx.world.limits;
    let share = match config.per {
        Per::Request => Share::Request(limits.clock()),
        Per::Connection => Share::Connection(limits.clock(), identity),
        Per::All => Share::All(limits.meter(identity)),
    };
    let speed = Speed::new(config.rate, config.burst.map(|burst| burst.value));
    chain.on_request(Arc::new(Limit { share, speed, direction: config.direction }));
}

impl OnRequest for Limit {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        let meter = match &self.share {
            Share::Request(clock) => Arc::new(Meter::new(clock.clone())),
            Share::All(meter) => meter.clone(),
            Share::Connection(clock, identity) => of_connection(exchange, clock, identity),
        };
        exchange.throttle.get_or_insert_default().hold(Held {
            meter,
            speed: self.speed,
            direction: self.direction,
        });
        Next::Continue
    }
}

fn of_connection(exchange: &Exchange, clock: &Clock, identity: &Identity) -> Arc<Meter> {
    let is_it = |kept: &OfConnection| kept.identity == *identity;
    let make = || OfConnection { identity: identity.clone(), meter: Arc::new(Meter::new(clock.clone())) };
    exchange.connection.kept.find_or(is_it, make).meter.clone()
}

impl Throttle {
    fn hold(&mut self, held: Held) {
        // One named chain may come twice on the way: the request is one.
        if !self.held.iter().any(|other| Arc::ptr_eq(&other.meter, &held.meter)) {
            self.held.push(held);
        }
    }

    /// How many bytes may pass at once; `None`: as many as there are.
    pub fn piece(&self, way: Way) -> Option<usize> {
        self.limits(way).map(|held| held.speed.piece()).min()
    }

    /// Of the response these are next: when they may pass.
    pub fn book(&self, bytes: usize) -> Instant {
        self.booked(bytes, Way::Response)
    }

    /// When the next of the request may be read: asked again before it was, the same.
    pub fn due(&mut self) -> Instant {
        let due = self.due.unwrap_or_else(|| self.booked(0, Way::Request));
        *self.due.insert(due)
    }

    /// These of the request have been read.
    pub fn read(&mut self, bytes: usize) {
        self.booked(bytes, Way::Request);
        self.due = None;
    }

    fn booked(&self, bytes: usize, way: Way) -> Instant {
        let pauses = self.limits(way).map(|held| held.meter.book(bytes, way, &held.speed));
        Instant::now() + pauses.max().unwrap_or_default()
    }

    fn limits(&self, way: Way) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(move |held| held.direction.is(way))
    }
}

impl Direction {
    fn is(self, way: Way) -> bool {
        match self {
            Self::Both => true,
            Self::Request => way == Way::Request,
            Self::Response => way == Way::Response,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::middleware::limit::{Place, Registry, Within};

    fn limit(registry: &Registry, per: Per, direction: Direction) -> Limit {
        let place = Place::Written(Within::Scope("test".into()), 0);
        let identity = Identity { place, by: By::all_together() };
        let share = match per {
            Per::Request => Share::Request(registry.clock()),
            Per::Connection => Share::Connection(registry.clock(), identity),
            Per::All => Share::All(registry.meter(identity)),
        };
        Limit { share, speed: Speed::new("1KiB/s".parse().unwrap(), Some(Size(0))), direction }
    }

    /// Whether what one request passes keeps another one waiting.
    fn shared(per: Per, one_connection: bool) -> bool {
        let registry = Registry::new(Clock::manual());
        let [mut a, mut b] = [(); 2].map(|()| Exchange::for_tests("GET", "/"));
        if one_connection {
            b.connection = a.connection.clone();
        }
        for exchange in [&mut a, &mut b] {
            // As written, and once more after a reload.
            let (before, after) =
                (limit(&registry, per, Direction::Both), limit(&registry, per, Direction::Both));
            before.on_request(exchange);
            if per != Per::Request {
                after.on_request(exchange);
            }
        }
        let [a, b] = [a, b].map(|exchange| exchange.throttle.unwrap());
        assert_eq!((a.held.len(), b.held.len()), (1, 1));
        Arc::ptr_eq(&a.held[0].meter, &b.held[0].meter)
    }

    #[tokio::test]
    async fn each_has_what_it_is_said_to_have_of_its_own() {
        assert!(!shared(Per::Request, true));
        assert!(!shared(Per::Connection, false) && shared(Per::Connection, true));
        assert!(shared(Per::All, false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_passed_is_paid_for_before_more_does() {
        let registry = Registry::new(Clock::manual());
        let throttle = |direction| {
            let mut exchange = Exchange::for_tests("GET", "/");
            limit(&registry, Per::All, direction).on_request(&mut exchange);
            exchange.throttle.unwrap()
        };
        let (now, later) = (Instant::now(), |seconds| Instant::now() + Duration::from_secs(seconds));
        let response = throttle(Direction::Response);
        assert_eq!((response.book(2048), response.book(1024)), (now, later(2)));
        assert_eq!(throttle(Direction::Response).book(1), later(3), "another request waits for it too");
        assert_eq!((response.piece(Way::Request), response.piece(Way::Response)), (None, Some(1024)));

        let (mut one, mut other) = (throttle(Direction::Request), throttle(Direction::Request));
        assert_eq!((one.due(), other.due()), (now, now));
        one.read(2048);
        assert_eq!(other.due(), now, "what was said holds");
        other.read(1024);
        assert_eq!((one.due(), other.due()), (later(3), later(3)));
        assert_eq!(throttle(Direction::Response).due(), now);
    }
}
