//! What a rate limit's decision costs, where one key is asked for and where a million are kept.

use divan::Bencher;
use portolan::{
    middleware::limit::{Buckets, By, Quota},
    value::Clock,
};

const KEYS: [u32; 2] = [1, 1_000_000];

fn main() {
    divan::main();
}

/// Each key once and again, in an order that no cache foresees.
#[divan::bench(args = KEYS)]
fn take(bencher: Bencher, keys: u32) {
    let quota = Quota::new("1/h".parse().expect("a rate"), 1000.try_into().expect("not zero"));
    let quota = quota.expect("it has bounds");
    let buckets = Buckets::new(Clock::machine(), By::client_ip());
    let key = |number: u32| buckets.key_of(&number.to_le_bytes());
    for number in 0..keys {
        assert!(buckets.take(key(number), &quota).is_ok());
    }
    let mut number = 0;
    bencher.bench_local(|| {
        number = (number + 514_229) % keys;
        buckets.take(key(number), &quota)
    });
}
