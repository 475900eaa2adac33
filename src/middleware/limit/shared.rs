//! Buckets that several Portolans share: kept by Redis, which does by a script and its own clock, in one step and one
//! round trip, what [`Quota::take`] does here.
//!
//! Of a key Redis sees a hash. A bucket is kept until it is full again and forgets itself. What a request gives back it
//! gives back a moment later, without waiting; where Redis goes meanwhile it comes again by time, as all does.

use std::{
    fmt::Write,
    hash::Hasher,
    sync::{Arc, LazyLock},
};

use ring::digest;

use super::{
    By, Identity,
    bucket::{PER_SECOND, Quota, Refused, Taken},
};
use crate::{
    middleware::Exchange,
    store::{Redis, Script, Unavailable},
};

/// The buckets of one limit.
pub struct Shared {
    redis: Arc<Redis>,
    by: By,
    /// What the names of its keys begin with.
    name: Box<str>,
    /// Over what tells it from all other limits.
    digest: digest::Context,
}

/// Times in Redis are seconds since the epoch and sixteenths of a nanosecond, in two numbers: one would be more than
/// Lua's numbers hold exactly. Ours are counted from 2020 on.
const BEGINNING: u64 = 1_577_836_800;

/// Says what is used of the bucket, or with a minus the time until there is a token; and when the bucket is full. One
/// that is emptier than empty was left so by another quota, as in [`Quota::take`].
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local interval, depth = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local second, part = tonumber(time[1]), time[2] * 16000
local used, is_other = 0, false
local kept_second, kept_part = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
if kept_second then
  local kept = (kept_second - second) * 16e9 + (kept_part - part)
  used = math.min(math.max(kept, 0), depth)
  is_other = kept > depth
end
local answer = used + interval
if answer > depth then
  answer = depth - answer
else
  used, is_other = answer, true
end
part = part + used
second, part = second + math.floor(part / 16e9), part % 16e9
if is_other then
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', second, part), 'PX', math.ceil(used / 16e6))
end
return {answer, second, part}",
    )
});

/// Says what is used of the bucket, and changes nothing.
static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
local kept_second, kept_part = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
if not kept_second then
  return 0
end
return math.max((kept_second - time[1]) * 16e9 + (kept_part - time[2] * 16000), 0)",
    )
});

/// Puts a token back, unless the bucket has become full by itself since the request took it.
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
local second, part = tonumber(time[1]), time[2] * 16000
local kept_second, kept_part = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
if not kept_second or (ARGV[2] - second) * 16e9 + (ARGV[3] - part) <= 0 then
  return
end
local used = (kept_second - second) * 16e9 + (kept_part - part) - ARGV[1]
if used <= 0 then
  redis.call('DEL', KEYS[1])
  return
end
part = part + used
second, part = second + math.floor(part / 16e9), part % 16e9
redis.call('SET', KEYS[1], string.format('%.0f %.0f', second, part), 'PX', math.ceil(used / 16e6))",
    )
});

impl Shared {
    pub fn new(redis: Arc<Redis>, identity: &Identity) -> Self {
        let mut digest = digest::Context::new(&digest::SHA256);
        digest.update(format!("{:?}", identity.place).as_bytes());
        digest.update(format!("{:?}", identity.by).as_bytes());
        let name = format!("{}rate_limit:{}:", redis.prefix(), identity.place);
        Self { redis, by: identity.by.clone(), name: name.into(), digest }
    }

    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// The key of a request: 128 bits of a hash, the same in every process.
    pub fn key(&self, exchange: &Exchange) -> String {
        let mut hasher = Fingerprint(self.digest.clone());
        self.by.write(exchange, &mut hasher);
        let mut key = String::with_capacity(self.name.len() + 32);
        key.push_str(&self.name);
        for byte in &hasher.0.finish().as_ref()[..16] {
            write!(key, "{byte:02x}").expect("writing to a String cannot fail");
        }
        key
    }

    /// Takes a token from a bucket, if there is one.
    pub async fn take(&self, key: &str, quota: &Quota) -> Result<Result<Taken, Refused>, Unavailable> {
        let arguments = [quota.interval(), quota.depth()];
        let (answer, second, part): (i64, u64, u64) = self.redis.run(&TAKE, key, &arguments).await?;
        let full_at = second.saturating_sub(BEGINNING).saturating_mul(PER_SECOND).saturating_add(part);
        Ok(quota.told(answer, full_at))
    }

    /// Whether a request with this key would be refused. Nothing is counted.
    pub async fn look(&self, key: &str, quota: &Quota) -> Result<Option<Refused>, Unavailable> {
        let used: u64 = self.redis.run(&LOOK, key, &[]).await?;
        Ok(quota.lacking(used))
    }

    /// Has a token put back, unless its bucket is full by itself by then.
    pub fn give_back(&self, key: &str, quota: &Quota, taken: Taken) {
        let full_at = taken.full_at();
        let arguments = [quota.interval(), full_at / PER_SECOND + BEGINNING, full_at % PER_SECOND];
        self.redis.run_later(&GIVE_BACK, key, &arguments);
    }
}

/// Hashes the same on every machine.
struct Fingerprint(digest::Context);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_u128(&mut self, number: u128) {
        self.write(&number.to_le_bytes());
    }

    fn write_usize(&mut self, number: usize) {
        self.write(&(number as u64).to_le_bytes());
    }

    fn finish(&self) -> u64 {
        let hash = self.0.clone().finish();
        hash.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        middleware::limit::{Place, Within},
        store::Settings,
        telemetry::metrics::Metrics,
    };

    fn shared(place: Place, by: &[&str]) -> Shared {
        let settings = Settings {
            address: "redis://127.0.0.1:1".parse().unwrap(),
            authorities: None,
            timeout: Duration::from_millis(10),
            prefix: "test:".into(),
        };
        let redis = Arc::new(Redis::new(settings, Metrics::default().redis()));
        Shared::new(redis, &Identity { place, by: By::for_tests(by) })
    }

    #[test]
    fn keys_are_the_same_everywhere_and_hold_no_secret() {
        let mut exchange = Exchange::for_tests("GET", "/");
        exchange.head.headers.insert("x-api-key", "secret".parse().unwrap());
        let named = || Place::Named("api".parse().unwrap());
        let key = shared(named(), &["header:x-api-key"]).key(&exchange);
        assert_eq!(key, "test:rate_limit:api:18380dc88e63846c2123915e19509a5b");
        let place = Place::Written(Within::Scope("host www".into()), 1);
        assert!(shared(place, &["host"]).key(&exchange).starts_with("test:rate_limit:host www 2:"));
        assert_ne!(shared(named(), &["host"]).key(&exchange), shared(named(), &["tenant"]).key(&exchange));
    }
}
