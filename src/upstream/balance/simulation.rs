//! Pools under load in simulated time: what share each endpoint gets, and how long requests take.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use http::StatusCode;

use super::{testing::keys, *};
use crate::{
    upstream::{Outlier, Pick, Registry, Resilience, Settings, Upstream, tests::settings},
    value::Clock,
};

const MS: Duration = Duration::from_millis(1);
const AWARE: [Balance; 3] = [Balance::RandomTwo, Balance::LeastRequests, Balance::Ewma];

struct Simulation {
    upstream: Arc<Upstream>,
    registry: Registry,
    clock: Clock,
    now: Duration,
    dice: Dice,
}

/// What an endpoint does with a request: by its number and the time.
type Serve<'a> = &'a dyn Fn(usize, Duration) -> (Duration, StatusCode);

#[derive(Default)]
struct Outcome {
    /// Requests by endpoint.
    counts: Vec<usize>,
    latencies: Vec<Duration>,
}

impl Simulation {
    fn new(settings: Settings) -> Self {
        let clock = Clock::manual();
        let registry = Registry::new(clock.clone(), None, Arc::default());
        let upstream = Upstream::build(settings, &registry);
        Self { upstream, registry, clock, now: Duration::ZERO, dice: Dice::new(1) }
    }

    fn balancing(weights: &[u16], balance: Balance) -> Self {
        let resilience = Resilience { outlier: None, ..settings(&[1]).resilience };
        Self::new(Settings { balance, resilience, ..settings(weights) })
    }

    fn pick(&self) -> (usize, Pick) {
        let pick =
            self.upstream.pick(PickKey(Some(self.dice.roll())), &Tried::default()).expect("one is usable");
        let address = &pick.endpoint.address;
        (self.upstream.endpoints().iter().position(|own| own.address == *address).unwrap(), pick)
    }

    /// So many clients send one request after the other for a time.
    fn run(&mut self, clients: usize, time: Duration, serve: Serve<'_>) -> Outcome {
        let mut outcome = Outcome { counts: vec![0; self.upstream.endpoints().len()], ..Outcome::default() };
        let mut running: Vec<Option<(Pick, Duration, StatusCode)>> = (0..clients).map(|_| None).collect();
        let mut events: BinaryHeap<_> = (0..clients).map(|client| Reverse((self.now, client))).collect();
        let end = self.now + time;
        while let Some(Reverse((at, client))) = events.pop() {
            self.clock.advance(at - self.now);
            self.now = at;
            if let Some((pick, latency, status)) = running[client].take() {
                self.upstream.answered(&pick, status, self.clock.now(), latency);
                outcome.latencies.push(latency);
            }
            if at < end {
                let (index, pick) = self.pick();
                let (latency, status) = serve(index, at);
                outcome.counts[index] += 1;
                running[client] = Some((pick, latency, status));
                events.push(Reverse((at + latency, client)));
            }
        }
        outcome
    }
}

impl Outcome {
    fn share(&self, index: usize) -> f64 {
        self.counts[index] as f64 / self.counts.iter().sum::<usize>() as f64
    }

    fn p99(&self) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted[sorted.len() * 99 / 100]
    }
}

/// 15 to 25 ms, by chance.
fn usual(dice: &Dice) -> Duration {
    Duration::from_micros(15_000 + dice.roll() % 10_000)
}

#[test]
fn an_endpoint_that_fails_at_once_draws_no_traffic() {
    let dice = Dice::new(2);
    for balance in AWARE {
        for status in [429, 500, 502, 503, 504] {
            let failed = StatusCode::from_u16(status).unwrap();
            for clients in [1, 10, 50] {
                let mut simulation = Simulation::balancing(&[1, 1], balance.clone());
                let outcome = simulation.run(clients, Duration::from_secs(30), &|index, _| match index {
                    0 => (usual(&dice), StatusCode::OK),
                    _ => (MS / 2, failed),
                });
                let share = outcome.share(1);
                assert!(share < 0.03, "{balance:?}, {status}, {clients} clients: {share}");
            }
        }
    }
}

#[test]
fn a_failing_endpoint_gets_its_share_when_it_serves_again() {
    let dice = Dice::new(2);
    for balance in AWARE {
        let mut simulation = Simulation::balancing(&[1, 1], balance.clone());
        let recovers = Duration::from_secs(10);
        let serve = |index, at| match index {
            1 if at < recovers => (MS / 2, StatusCode::SERVICE_UNAVAILABLE),
            _ => (usual(&dice), StatusCode::OK),
        };
        simulation.run(10, Duration::from_secs(70), &serve);
        let share = simulation.run(10, Duration::from_secs(20), &serve).share(1);
        assert!((0.4..0.6).contains(&share), "{balance:?}: {share}");
    }
}

#[test]
fn one_slow_endpoint_of_ten_is_not_seen_in_the_99th_percentile() {
    let dice = Dice::new(3);
    // What counts requests sees a slow endpoint by its queue alone, what measures time sees it sooner.
    for (balance, slow) in [
        (Balance::RandomTwo, 1000),
        (Balance::LeastRequests, 1000),
        (Balance::Ewma, 1000),
        (Balance::Ewma, 200),
    ] {
        for clients in [50, 200] {
            let mut simulation = Simulation::balancing(&[1; 10], balance.clone());
            let outcome = simulation.run(clients, Duration::from_secs(20), &|index, _| match index {
                9 => (slow * MS, StatusCode::OK),
                _ => (usual(&dice), StatusCode::OK),
            });
            // The best possible sends nothing to the slow one: 25 ms.
            let p99 = outcome.p99();
            assert!(p99 <= 25 * MS * 3 / 2, "{balance:?}, {slow} ms, {clients} clients: {p99:?}");
        }
    }
}

#[test]
fn no_herd_runs_to_an_endpoint_that_recovers() {
    let dice = Dice::new(4);
    for balance in [Balance::RoundRobin, Balance::RandomTwo, Balance::LeastRequests, Balance::Ewma] {
        for slow_start in [None, Some(Duration::from_secs(10))] {
            let resilience = Resilience { outlier: None, slow_start, ..settings(&[1]).resilience };
            let settings = Settings { balance: balance.clone(), resilience, ..settings(&[1; 10]) };
            let mut simulation = Simulation::new(settings);
            let serve = |_, _| (usual(&dice), StatusCode::OK);
            simulation.upstream.endpoints()[9].state.set_healthy(false);
            assert_eq!(simulation.run(50, Duration::from_secs(5), &serve).counts[9], 0);
            simulation.upstream.endpoints()[9].state.set_healthy(true);
            let mut shares = Vec::new();
            for _ in 0..20 {
                shares.push(simulation.run(50, Duration::from_secs(1), &serve).share(9));
            }
            assert!(shares.iter().all(|share| *share < 0.15), "{balance:?}, {slow_start:?}: {shares:?}");
            assert!(shares[19] > 0.07, "{balance:?}, {slow_start:?}: {shares:?}");
            if slow_start.is_some() && balance != Balance::Ewma {
                assert!(shares[0] < 0.025 && shares[0] > 0.005, "{balance:?}: {shares:?}");
                assert!(shares[4] < 0.07 && shares[4] > 0.025, "{balance:?}: {shares:?}");
            }
        }
    }
}

#[test]
fn slow_start_is_for_what_is_new_while_others_serve() {
    let resilience = Resilience { slow_start: Some(Duration::from_secs(30)), ..settings(&[1]).resilience };
    let settings = |weights: &[u16]| Settings { resilience, ..settings(weights) };
    let mut simulation = Simulation::new(settings(&[1, 1]));
    let shares = |upstream: &Upstream| upstream.endpoints().iter().map(|own| own.share()).collect::<Vec<_>>();
    assert_eq!(shares(&simulation.upstream), [FULL, FULL], "the first ones get their whole share at once");
    let grown = Upstream::build(settings(&[1, 1, 1]), &simulation.registry);
    assert_eq!(shares(&grown), [FULL, FULL, 26]);
    simulation.upstream = grown;
    simulation.clock.advance(Duration::from_secs(15));
    assert_eq!(shares(&simulation.upstream), [FULL, FULL, FULL / 2]);
    // Where it alone serves, it gets everything.
    simulation.upstream.endpoints()[..2].iter().for_each(|endpoint| endpoint.state.set_healthy(false));
    assert!((0..100).all(|_| simulation.pick().0 == 2));
    simulation.clock.advance(Duration::from_secs(15));
    assert_eq!(shares(&simulation.upstream)[2], FULL);
}

#[test]
fn shares_are_true_to_the_weights() {
    let weights = [1, 2, 3, 4];
    let key: crate::upstream::config::BalanceKey = "path".parse().unwrap();
    for balance in [
        Balance::RoundRobin,
        Balance::RandomTwo,
        Balance::LeastRequests,
        Balance::Ewma,
        Balance::Hash(key.clone()),
        Balance::ConsistentHash(key),
    ] {
        // As few that are compared one by one, and as so many that some are drawn.
        for copies in [1, 10] {
            let weights = weights.repeat(copies);
            let simulation = Simulation::balancing(&weights, balance.clone());
            let mut counts = [0u32; 4];
            for key in keys(200_000) {
                let pick = simulation.upstream.pick(key, &Tried::default()).unwrap();
                counts[usize::from(pick.endpoint.weight) - 1] += 1;
                let now = simulation.clock.now();
                simulation.upstream.answered(&pick, StatusCode::OK, now, 20 * MS);
            }
            for (count, weight) in counts.into_iter().zip([0.1, 0.2, 0.3, 0.4]) {
                let share = f64::from(count) / 200_000.0;
                assert!((share - weight).abs() < 0.02, "{balance:?} x {copies}: {counts:?}");
            }
        }
    }
}

#[test]
fn a_bounded_ring_passes_a_hot_key_on() {
    let key: crate::upstream::config::BalanceKey = "path".parse().unwrap();
    for weights in [[1, 1, 1, 1], [1, 2, 2, 5]] {
        let simulation = Simulation::balancing(&weights, Balance::BoundedHash(key.clone(), 125));
        let hot = PickKey(Some(7));
        let pick = |key| simulation.upstream.pick(key, &Tried::default()).unwrap();
        let picks: Vec<_> = (0..1000).map(|_| pick(hot)).collect();
        for endpoint in simulation.upstream.endpoints().iter() {
            let share = f64::from(endpoint.weight) / f64::from(weights.iter().sum::<u16>());
            let most = (1000.0 * share * 1.25).ceil() as u32;
            assert!(endpoint.state.in_flight() <= most, "{} of {most}", endpoint.state.in_flight());
        }
        let own = picks[0].endpoint.address.clone();
        drop(picks);
        assert!((0..10).all(|_| pick(hot).endpoint.address == own), "where there is room it stays");
    }
}

#[test]
fn failures_in_a_row_eject_and_not_too_many_are() {
    let mut simulation = Simulation::new(settings(&[1, 1, 1]));
    let fail = |simulation: &Simulation, index: usize| {
        for _ in 0..5 {
            let pick = simulation
                .upstream
                .pick_at(&simulation.upstream.endpoints()[index].address, &Tried::default());
            if let Some(pick) = pick {
                simulation.upstream.failed(&pick);
            }
        }
    };
    let ejected = |simulation: &Simulation| {
        let set = simulation.upstream.endpoints();
        set.iter().map(|endpoint| endpoint.ejected_for().map(|left| left.as_secs())).collect::<Vec<_>>()
    };
    (0..3).for_each(|index| fail(&simulation, index));
    assert_eq!(ejected(&simulation), [Some(5), None, None], "half of three is one");
    simulation.clock.advance(Duration::from_secs(5));
    assert!(simulation.upstream.endpoints()[0].is_usable());
    fail(&simulation, 0);
    assert_eq!(ejected(&simulation), [Some(10), None, None], "again, and so for longer");
    // Another snapshot of the same upstream goes on with it.
    simulation.upstream = Upstream::build(settings(&[2, 1, 1]), &simulation.registry);
    assert_eq!(ejected(&simulation), [Some(10), None, None]);
    simulation.upstream.endpoints()[0].state.end_ejection(true);
    assert_eq!(ejected(&simulation), [None; 3]);

    // One that is unhealthy is out as well.
    simulation.upstream.endpoints()[0].state.set_healthy(false);
    fail(&simulation, 1);
    assert_eq!(ejected(&simulation), [None; 3]);

    let sole = Simulation::new(settings(&[1]));
    fail(&sole, 0);
    assert_eq!(ejected(&sole), [None], "a sole endpoint");
}

#[test]
fn after_its_ejection_an_endpoint_gets_one_request_at_a_time_until_one_succeeds() {
    let simulation = Simulation::new(settings(&[1, 1, 1]));
    let address = simulation.upstream.endpoints()[0].address.clone();
    let state = |index: usize| simulation.upstream.endpoints()[index].state.clone();
    let at_it = || simulation.upstream.pick_at(&address, &Tried::default());
    let any = || simulation.upstream.pick(PickKey::NONE, &Tried::default()).unwrap().endpoint.address.clone();
    (0..5).for_each(|_| simulation.upstream.failed(&at_it().unwrap()));
    assert_eq!(state(0).ejected_for(), Some(Duration::from_secs(5)));

    simulation.clock.advance(Duration::from_secs(5));
    let trial = at_it().unwrap();
    assert!(at_it().is_none(), "one at a time");
    assert!((0..20).all(|_| any() != address));
    // A second one is better than a request that fails.
    [1, 2].into_iter().for_each(|index| state(index).set_healthy(false));
    assert_eq!(any(), address);
    [1, 2].into_iter().for_each(|index| state(index).set_healthy(true));
    simulation.upstream.failed(&trial);
    drop(trial);
    assert_eq!(state(0).ejected_for(), Some(Duration::from_secs(10)), "one failure is enough");

    simulation.clock.advance(Duration::from_secs(10));
    drop(at_it().expect("a client that disconnects decides nothing"));
    let trial = at_it().unwrap();
    simulation.upstream.answered(&trial, StatusCode::OK, simulation.clock.now(), MS);
    let all: Vec<_> = (0..5).map(|_| at_it()).collect();
    assert!(all.iter().all(Option::is_some), "it has its share again");
    assert_eq!(state(0).ejected_for(), None);
}

#[test]
fn a_slow_endpoint_is_ejected() {
    let dice = Dice::new(5);
    let outlier = Outlier { latency: Some(300), ..Outlier::DEFAULT };
    let resilience = Resilience { outlier: Some(outlier), ..settings(&[1]).resilience };
    let mut simulation = Simulation::new(Settings { resilience, ..settings(&[1; 4]) });
    simulation.run(10, Duration::from_secs(10), &|index, _| match index {
        3 => (100 * MS, StatusCode::OK),
        _ => (usual(&dice), StatusCode::OK),
    });
    let ejected: Vec<_> =
        simulation.upstream.endpoints().iter().map(|own| own.ejected_for().is_some()).collect();
    assert_eq!(ejected, [false, false, false, true]);
}

#[test]
fn below_the_panic_threshold_all_are_used() {
    let resilience = Resilience { panic_threshold: Some(50), ..settings(&[1]).resilience };
    let simulation = Simulation::new(Settings { resilience, ..settings(&[1; 4]) });
    let used = || (0..100).map(|_| simulation.pick().0).collect::<std::collections::BTreeSet<_>>().len();
    let set = |index: usize, healthy| simulation.upstream.endpoints()[index].state.set_healthy(healthy);
    set(0, false);
    set(1, false);
    assert_eq!((used(), simulation.upstream.panics()), (2, false), "half are usable");
    set(2, false);
    assert_eq!((used(), simulation.upstream.panics()), (4, true));
    set(2, true);
    assert_eq!((used(), simulation.upstream.panics()), (2, false));
    // The end of an ejection is noticed though nobody says so.
    simulation.upstream.endpoints()[2].state.eject(simulation.upstream.endpoints()[2].state.now() + 1000);
    assert_eq!((used(), simulation.upstream.panics()), (4, true));
    simulation.clock.advance(Duration::from_secs(1));
    assert_eq!((used(), simulation.upstream.panics()), (2, false));
}
