//! A limit of requests in flight that follows the response times: Gradient2 of Netflix's concurrency-limits.
//!
//! Where responses take longer than they do in the long run, requests queue in front of the endpoints, and the limit falls; else it
//! grows slowly. Unlike there, a queue that the limit itself allows does not become what is usual. It is compared with a long average and not with the shortest time ever seen: that would be wrong for ever once
//! the endpoints do more work for each request. The least limit is a floor alone; no requests are held back to measure.

use std::time::{Duration, Instant};

/// The `adaptive` limit of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adaptive {
    pub min: u32,
    pub max: u32,
    /// What is begun with.
    pub initial: u32,
    /// How long responses may take, in percent of the long average, before the limit falls.
    pub tolerance: u32,
}

/// The limit of an upstream and what it was found by. It outlives reloads.
#[derive(Debug, Default)]
pub struct Gradient {
    /// None before the first configuration that wants one.
    limit: Option<f64>,
    /// The long average of response times in seconds.
    long: f64,
    /// Windows that it was made of, as far as they matter.
    windows: u32,
    /// The average of responses per second.
    throughput: f64,
    window: Window,
}

/// The samples since the last time that the limit was computed.
#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    sum: f64,
    count: u32,
    in_flight: u32,
}

/// The least time and number of samples of a window.
const WINDOW: Duration = Duration::from_millis(250);
const SAMPLES: u32 = 10;
/// Windows of the long average.
const LONG: u32 = 600;
/// The average of so many windows is a plain one.
const WARM_UP: u32 = 10;
/// How much of a new limit is taken over at once.
const SMOOTHING: f64 = 0.2;
/// Requests that may queue: the limit grows by so much, before smoothing.
const QUEUE: f64 = 4.0;
const STEEPEST: f64 = 0.5;
/// Times above the tolerance enter the long average at this share of the usual speed, as long as that many requests are answered
/// as before: else the queue of a lasting overload would become what is usual, and the limit would grow with it. Where fewer
/// are answered, the endpoints themselves take longer, and a lower limit does not help.
const QUEUED: f64 = 0.03;
/// The share of the usual throughput that counts as the usual throughput.
const AS_BEFORE: f64 = 0.95;
/// Windows of the average throughput.
const THROUGHPUT: f64 = 200.0;

impl Default for Adaptive {
    fn default() -> Self {
        Self { min: 20, max: 1000, initial: 100, tolerance: 150 }
    }
}

// === impl Gradient ===

impl Gradient {
    /// The limit now, within the bounds that hold now.
    pub fn limit(&mut self, settings: &Adaptive) -> u32 {
        let limit = self.limit.unwrap_or(settings.initial.into());
        let limit = limit.clamp(settings.min.into(), settings.max.into());
        self.limit = Some(limit);
        limit as u32
    }

    /// A response took so long, while so many requests were in flight. Gives the limit where that may be another one.
    pub fn sample(
        &mut self,
        settings: &Adaptive,
        at: Instant,
        took: Duration,
        in_flight: u32,
    ) -> Option<u32> {
        let window = &mut self.window;
        let began = *window.began.get_or_insert(at);
        window.sum += took.as_secs_f64();
        window.count += 1;
        window.in_flight = window.in_flight.max(in_flight);
        if window.count < SAMPLES || at.saturating_duration_since(began) < WINDOW {
            return None;
        }
        let Window { sum, count, in_flight, .. } = std::mem::take(window);
        self.adjust(settings, sum / f64::from(count), in_flight);
        Some(self.limit(settings))
    }

    fn adjust(&mut self, settings: &Adaptive, short: f64, in_flight: u32) {
        let limit = f64::from(self.limit(settings));
        let exact = self.limit.unwrap_or(limit);
        // A clock may be coarser than a response is fast.
        let short = short.max(1e-6);
        let tolerance = f64::from(settings.tolerance) / 100.0;
        self.learn(short, tolerance, f64::from(in_flight) / short);
        // Without demand for more there is nothing to find out.
        if f64::from(in_flight) < exact / 2.0 {
            return;
        }
        let gradient = (tolerance * self.long / short).clamp(STEEPEST, 1.0);
        let next = exact * gradient + QUEUE;
        self.limit = Some(exact * (1.0 - SMOOTHING) + next * SMOOTHING);
    }

    /// The throughput is that of Little's law: requests in flight by their time.
    fn learn(&mut self, short: f64, tolerance: f64, throughput: f64) {
        if self.windows < WARM_UP {
            let before = f64::from(self.windows);
            let mean = |mean: f64, value: f64| (mean * before + value) / (before + 1.0);
            (self.long, self.throughput) = (mean(self.long, short), mean(self.throughput, throughput));
            self.windows += 1;
            return;
        }
        let is_queued = short > self.long * tolerance && throughput > self.throughput * AS_BEFORE;
        let speed = if is_queued { QUEUED } else { 1.0 };
        self.long += (short - self.long) * speed * 2.0 / f64::from(LONG + 1);
        self.throughput += (throughput - self.throughput) * 2.0 / (THROUGHPUT + 1.0);
        // The endpoints have recovered: what is long past says nothing any more.
        if self.long / short > 2.0 {
            self.long *= 0.95;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that works on so many requests at once, each for so long; others queue in front of it.
    struct Server {
        capacity: f64,
        service: Duration,
    }

    struct Simulation {
        gradient: Gradient,
        settings: Adaptive,
        now: Instant,
    }

    impl Simulation {
        fn new() -> Self {
            let settings = Adaptive { min: 10, max: 1000, initial: 20, tolerance: 150 };
            Self { gradient: Gradient::default(), settings, now: Instant::now() }
        }

        fn limit(&mut self) -> u32 {
            self.gradient.limit(&self.settings)
        }

        /// Lets clients that want `demand` requests in flight ask the server for some time.
        fn run(&mut self, server: &Server, demand: u32, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                let in_flight = self.limit().min(demand);
                let queued = (f64::from(in_flight) / server.capacity).max(1.0);
                let took = server.service.mul_f64(queued);
                // So many responses come in the time of one, a tenth of them noted.
                self.now += took.div_f64(10.0);
                for _ in 0..in_flight.div_ceil(10) {
                    self.gradient.sample(&self.settings, self.now, took, in_flight);
                }
            }
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    fn server(capacity: f64, millis: u64) -> Server {
        Server { capacity, service: Duration::from_millis(millis) }
    }

    #[test]
    fn it_comes_near_the_capacity_and_stays() {
        let mut simulation = Simulation::new();
        let server = server(100.0, 20);
        simulation.run(&server, u32::MAX, MINUTE);
        for minute in 0..20 {
            let limit = simulation.limit();
            assert!((100..=240).contains(&limit), "{limit} after {minute} minutes");
            simulation.run(&server, u32::MAX, MINUTE);
        }
    }

    #[test]
    fn a_slow_rise_of_response_times_is_no_overload() {
        let mut simulation = Simulation::new();
        simulation.run(&server(100.0, 20), u32::MAX, MINUTE * 2);
        for millis in 20..100 {
            simulation.run(&server(100.0, millis), u32::MAX, MINUTE / 2);
            let limit = simulation.limit();
            assert!(limit >= 80, "{limit} at {millis} ms");
        }
    }

    #[test]
    fn a_sudden_rise_lets_it_fall_and_it_recovers() {
        let mut simulation = Simulation::new();
        simulation.run(&server(100.0, 20), u32::MAX, MINUTE * 2);
        simulation.run(&server(30.0, 60), u32::MAX, MINUTE);
        let fallen = simulation.limit();
        assert!(fallen <= 60, "{fallen}");
        simulation.run(&server(100.0, 20), u32::MAX, MINUTE * 2);
        let recovered = simulation.limit();
        assert!(recovered >= 100, "{recovered}");
        // If it stays slow, that becomes what is usual.
        simulation.run(&server(100.0, 60), u32::MAX, MINUTE * 20);
        let accustomed = simulation.limit();
        assert!(accustomed >= 80, "{accustomed}");
    }

    #[test]
    fn without_demand_it_does_not_grow() {
        let mut simulation = Simulation::new();
        simulation.run(&server(100.0, 20), 5, MINUTE * 5);
        assert_eq!(simulation.limit(), 20);
    }

    #[test]
    fn its_bounds_hold_and_change_at_once() {
        let mut simulation = Simulation::new();
        simulation.run(&server(1e9, 20), u32::MAX, MINUTE * 10);
        assert_eq!(simulation.limit(), 1000);
        simulation.settings.max = 200;
        assert_eq!(simulation.limit(), 200);
        // Each time is longer than the last one.
        for millis in (10..).step_by(100).take(100) {
            let (at, took) = (simulation.now + MINUTE, Duration::from_millis(millis));
            simulation.now = at;
            for _ in 0..10 {
                simulation.gradient.sample(&simulation.settings, at, took, 1000);
            }
            assert!(simulation.limit() >= 10);
        }
        simulation.settings.max = 20;
        assert!(simulation.limit() <= 20);
        (simulation.settings.min, simulation.settings.max) = (50, 60);
        assert_eq!(simulation.limit(), 50);
    }

    #[test]
    fn few_samples_say_nothing() {
        let mut gradient = Gradient::default();
        let (settings, now) = (Adaptive::default(), Instant::now());
        for nth in 0..9 {
            let at = now + MINUTE * nth;
            assert_eq!(gradient.sample(&settings, at, Duration::from_secs(9), 100), None);
        }
        assert!(gradient.sample(&settings, now + MINUTE * 9, Duration::from_secs(9), 100).is_some());
    }
}
