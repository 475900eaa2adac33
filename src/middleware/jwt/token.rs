//! Signed tokens in their compact form (RFC 7515, RFC 7519): read only once the signature is found right.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::key::{Algorithm, Key};

/// What a token says of its holder.
#[derive(Debug)]
pub struct Claims(pub Map<String, Value>);

/// Longer ones are not looked at: checking would cost more than a request should.
pub const LONGEST: usize = 16 << 10;

/// The token names a key that is not there.
pub const UNKNOWN_KEY: &str = "unknown_key";

/// The header's parameters that matter. One that stands twice is refused by serde.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

/// What tokens have to say.
#[derive(Debug, Default)]
pub struct Rules {
    /// One of these; empty: any.
    pub issuers: Vec<String>,
    /// One of these at least; empty: any.
    pub audiences: Vec<String>,
    /// How far clocks may differ, in seconds.
    pub leeway: f64,
}

impl Claims {
    /// The claims of a token that one of the keys has signed by an algorithm that is pinned, where any is, or why
    /// there are none.
    pub fn of(token: &[u8], keys: &[Key], pinned: &[Algorithm]) -> Result<Self, &'static str> {
        if token.len() > LONGEST {
            return Err("token_too_long");
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("malformed_token");
        };
        let signed = &token[..header.len() + 1 + claims.len()];
        let header: Header = json(header)?;
        // RFC 7515 section 4.1.11: extensions that are not understood must be refused, and we know of none.
        if header.crit.is_some() {
            return Err("unknown_extension");
        }
        let algorithm: Algorithm = header.alg.parse().map_err(|_| "algorithm_not_allowed")?;
        if !pinned.is_empty() && !pinned.contains(&algorithm) {
            return Err("algorithm_not_allowed");
        }
        let id = header.kid.as_deref();
        if !keys.iter().any(|key| key.is_meant(id)) {
            return Err(UNKNOWN_KEY);
        }
        if !keys.iter().any(|key| key.algorithms.contains(&algorithm)) {
            return Err("algorithm_not_allowed");
        }
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| "malformed_token")?;
        let mut candidates = keys.iter().filter(|key| key.fits(algorithm, id)).peekable();
        if candidates.peek().is_none() {
            return Err(UNKNOWN_KEY);
        }
        match candidates.any(|key| key.has_signed(algorithm, signed, &signature)) {
            true => json(claims).map(Self),
            false => Err("wrong_signature"),
        }
    }

    /// Until when the token holds, in seconds since the epoch, if it does now (RFC 7519 section 4.1).
    pub fn check(&self, rules: &Rules, now: f64) -> Result<f64, &'static str> {
        let until = self.time("exp")?.ok_or("no_expiry")? + rules.leeway;
        if now >= until {
            return Err("token_expired");
        }
        if self.time("nbf")?.is_some_and(|begin| now + rules.leeway < begin) {
            return Err("token_not_valid_yet");
        }
        let is_one_of = |list: &[String], value: &Value| list.iter().any(|one| value.as_str() == Some(one));
        let claim = |name| self.0.get(name).unwrap_or(&Value::Null);
        if !rules.issuers.is_empty() && !is_one_of(&rules.issuers, claim("iss")) {
            return Err("wrong_issuer");
        }
        let is_meant = match claim("aud") {
            Value::Array(several) => several.iter().any(|one| is_one_of(&rules.audiences, one)),
            one => is_one_of(&rules.audiences, one),
        };
        if !rules.audiences.is_empty() && !is_meant {
            return Err("wrong_audience");
        }
        Ok(until)
    }

    /// A claim by its name, or by a way through maps, as realm_access.roles.
    pub fn get(&self, name: &str) -> Option<&Value> {
        find(&self.0, name)
    }

    /// Whether a claim has one of these values, or holds one in its list. A scope's words are a list (RFC 8693
    /// section 4.2).
    pub fn has(&self, name: &str, wanted: &[String]) -> bool {
        match self.get(name) {
            Some(Value::Array(list)) => list.iter().any(|item| is(item, wanted)),
            Some(Value::String(words)) if matches!(name, "scope" | "scp") => {
                words.split(' ').any(|word| wanted.iter().any(|one| one == word))
            }
            Some(value) => is(value, wanted),
            None => false,
        }
    }

    /// One that is no number is refused: taken for absent, it would let the token live for ever.
    fn time(&self, name: &str) -> Result<Option<f64>, &'static str> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or("malformed_token"),
        }
    }
}

/// A claim as a field's value: a list or a map as JSON, so that what stands in it cannot be mistaken.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn is(value: &Value, wanted: &[String]) -> bool {
    !value.is_object() && text(value).is_some_and(|text| wanted.contains(&text))
}

fn find<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let ways = || name.match_indices('.').map(|(at, _)| (&name[..at], &name[at + 1..]));
    let deeper = || ways().find_map(|(first, rest)| find(map.get(first)?.as_object()?, rest));
    map.get(name).or_else(deeper)
}

fn json<T: serde::de::DeserializeOwned>(part: &[u8]) -> Result<T, &'static str> {
    let text = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| "malformed_token")?;
    serde_json::from_slice(&text).map_err(|_| "malformed_token")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        Claims(value.as_object().unwrap().clone())
    }

    #[test]
    fn a_token_holds_from_its_begin_to_its_end() {
        let rules = Rules { leeway: 10.0, ..Rules::default() };
        let check = |value, now| claims(value).check(&rules, now);
        assert_eq!(check(json!({ "exp": 100 }), 109.9), Ok(110.0));
        assert_eq!(check(json!({ "exp": 100 }), 110.0), Err("token_expired"));
        assert_eq!(check(json!({ "exp": 100, "nbf": 50.5 }), 40.5), Ok(110.0));
        assert_eq!(check(json!({ "exp": 100, "nbf": 50.5 }), 40.0), Err("token_not_valid_yet"));
        assert_eq!(check(json!({}), 0.0), Err("no_expiry"));
        for wrong in [json!({ "exp": "100" }), json!({ "exp": null }), json!({ "exp": 100, "nbf": "50" })] {
            assert_eq!(check(wrong, 60.0), Err("malformed_token"));
        }
    }

    #[test]
    fn issuer_and_audience_must_be_those_meant() {
        let rules = Rules { issuers: vec!["i".into()], audiences: vec!["a".into(), "b".into()], leeway: 0.0 };
        let check = |iss, aud| claims(json!({ "exp": 1, "iss": iss, "aud": aud })).check(&rules, 0.0);
        assert!(check(json!("i"), json!("b")).is_ok() && check(json!("i"), json!(["x", "a"])).is_ok());
        for aud in [json!("c"), json!([]), json!(null), json!({ "a": "a" })] {
            assert_eq!(check(json!("i"), aud), Err("wrong_audience"));
        }
        for iss in [json!("I"), json!(["i"]), json!(null)] {
            assert_eq!(check(iss, json!("a")), Err("wrong_issuer"));
        }
    }

    #[test]
    fn claims_are_found_by_name_and_by_way() {
        let claims = claims(json!({
            "a.b": "dotted", "realm": { "roles": ["x", "admin"], "n": { "m": 7 } }, "scope": "read write", "ok": true,
            "name": "read write",
        }));
        let has = |name: &str, value: &str| claims.has(name, &[value.into()]);
        assert!(
            has("a.b", "dotted") && has("realm.roles", "admin") && has("realm.n.m", "7") && has("ok", "true")
        );
        assert!(has("scope", "write") && !has("scope", "read write") && !has("scope", "rea"));
        assert!(!has("name", "read") && has("name", "read write"));
        assert!(
            !has("realm.roles", "root") && !has("realm", "{}") && !has("none", "") && !has("ok.a", "true")
        );
    }
}
