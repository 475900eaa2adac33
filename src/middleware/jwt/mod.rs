//! Lets in who holds a token that a trusted issuer signed (RFC 7519, RFC 6750).
//!
//! By hand over ring: jsonwebtoken offers other providers only, and one is enough.

mod jwks;
mod key;
mod source;
mod token;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use http::{HeaderName, HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{
    jwks::Jwks,
    key::Key,
    token::{Claims, Rules},
};
pub use self::{
    jwks::{Registry, Task},
    key::Algorithm,
};
use super::{
    Builder, Context, Exchange, Mode, Next, OnRequest, Refusal, Verdict,
    auth::{Found, Public, Seen, Source, challenge, challenged, identity_field, unauthorized},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    error::Reason,
    http::field_name::{Field, alike},
    value::{Clock, Duration, FieldName, FilePath, Map, OneOrMany, Secret, Spanned, Url},
};

pub const ADDS_UP: bool = false;

/// Lets in who holds a token (a signed JWT, RFC 7519) that a key given here has signed and that has not expired.
/// All others are answered 401, those whose claims do not suffice 403. Exactly one of secret, jwks and public_key
/// stands in it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Jwt")]
pub struct Config {
    /// The secret shared with the issuer, 32 bytes at least, as "${file:jwt.key}".
    #[serde(default)]
    pub secret: Option<Spanned<Secret>>,
    /// The issuer's public keys as a JWK set (RFC 7517): a file, read again when it changes, or an http or https URL,
    /// fetched beside requests. Keys known stay while it cannot be fetched; before there are any the answer is 503.
    #[serde(default)]
    pub jwks: Option<Spanned<KeySet>>,
    /// After what time a JWK set is fetched again from its URL. Default 10m. A token that names a key that is not in
    /// it has it fetched at once, at most every 10s.
    #[serde(default)]
    pub refresh: Option<Spanned<Duration>>,
    /// A PEM file with the authorities that the certificate of an https URL is held against, read again when it
    /// changes. Default: the system's.
    #[serde(default)]
    pub ca: Option<Spanned<FilePath>>,
    /// A PEM file with the issuer's public key, read again when it changes.
    #[serde(default)]
    pub public_key: Option<Spanned<FilePath>>,
    /// The signature algorithms that are taken. Default: those that the keys are made for.
    #[serde(default)]
    pub algorithms: OneOrMany<Spanned<Algorithm>>,
    /// What `iss` must be, or a list that it must be of. Default: not looked at.
    #[serde(default)]
    pub issuer: OneOrMany<String>,
    /// What `aud` must be or hold, or a list of which it must hold one. Default: not looked at.
    #[serde(default)]
    pub audience: OneOrMany<String>,
    /// How far the issuer's clock may differ. Default 60s.
    #[serde(default)]
    pub leeway: Option<Duration>,
    /// Claims with the value that they must have or hold, or a list of which one suffices. Else 403. What lies
    /// deeper is named by its way, as realm_access.roles.
    #[serde(default)]
    pub require: Map<String, OneOrMany<String>>,
    /// Claims with the field that tells the upstream of them. What the client sent in it is taken away.
    #[serde(default)]
    pub claims_to_headers: Map<String, Spanned<FieldName>>,
    /// Where the token stands: header:NAME, query:NAME or cookie:NAME. Default: after Bearer in Authorization.
    #[serde(default)]
    pub from: Option<Source>,
    /// Whether the token stays here instead of going on to the upstream. Default false.
    #[serde(default)]
    pub strip: bool,
    /// Path patterns that everybody may ask for, as "/health" or "/static/**".
    #[serde(default)]
    pub public: OneOrMany<Spanned<String>>,
    /// What the client is asked for. Default portolan.
    #[serde(default)]
    pub realm: Option<Spanned<String>>,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    #[serde(default)]
    pub mode: Mode,
}

/// Where a JWK set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySet {
    File(FilePath),
    Url(Url),
}

crate::value::text_value!(
    KeySet,
    "jwk-set",
    "A file with a JWK set, relative to the file that it is written in, or its http or https URL.",
    "issuer.jwks.json",
    "https://id.example.com/jwks.json"
);

struct Jwt {
    keys: Keys,
    /// The algorithms that are taken; empty: those that the keys are for.
    pinned: Vec<Algorithm>,
    rules: Rules,
    require: Vec<(String, Vec<String>)>,
    fields: Vec<(String, Field)>,
    from: Source,
    strip: bool,
    public: Public,
    challenges: Challenges,
    /// The claims that parts further in go by.
    asked: Arc<Asked>,
    seen: Seen<Arc<Verified>>,
    clock: Clock,
}

/// The claims of a token that are kept for those who go by them: named while chains are compiled.
#[derive(Debug)]
pub struct Asked(Mutex<BTreeSet<Box<str>>>);

enum Keys {
    Given(Vec<Key>),
    Fetched(Arc<Jwks>),
}

/// Why a token gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    Invalid(&'static str),
    /// No keys could be fetched yet.
    NoKeys,
}

/// RFC 6750 section 3.
struct Challenges {
    missing: HeaderValue,
    invalid: HeaderValue,
    insufficient: HeaderValue,
}

/// A token whose signature and issuer are right.
pub struct Verified {
    /// Of the keys by which it was found right.
    version: u64,
    /// Seconds since the epoch.
    until: f64,
    suffices: bool,
    /// The values of the fields, in their order.
    values: Vec<Option<HeaderValue>>,
    /// What it says of what is asked for.
    claims: Box<[(Box<str>, Box<str>)]>,
}

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder) {
    if let Some(from) = &config.from {
        chain.conceal(from);
    }
    if let Some(part) = cx.once(config, |cx| Some(Jwt::compile(config, cx))) {
        chain.offer_claims(&part.asked);
        chain.guard(config.mode, part);
    }
}

impl Jwt {
    fn compile(config: &Config, cx: &mut Context<'_>) -> Self {
        let realm = config.realm.as_ref();
        Self {
            keys: source::keys(config, cx),
            pinned: config.algorithms.iter().map(|algorithm| algorithm.value).collect(),
            rules: Rules {
                issuers: config.issuer.0.clone(),
                audiences: config.audience.0.clone(),
                leeway: config.leeway.unwrap_or(Duration::from_secs(60)).get().as_secs_f64(),
            },
            require: config
                .require
                .iter()
                .map(|entry| (entry.name.value.clone(), entry.value.0.clone()))
                .collect(),
            fields: fields(config, cx),
            from: config.from.clone().unwrap_or(Source::Header(header::AUTHORIZATION)),
            strip: config.strip,
            public: Public::compile(&config.public, cx),
            challenges: Challenges {
                missing: challenge("Bearer", realm, "", cx),
                invalid: challenge("Bearer", realm, ", error=\"invalid_token\"", cx),
                insufficient: challenge("Bearer", realm, ", error=\"insufficient_scope\"", cx),
            },
            asked: Arc::default(),
            seen: Seen::new(),
            clock: Clock::machine(),
        }
    }

    fn token<'a>(&self, exchange: &'a Exchange) -> Result<Cow<'a, [u8]>, Box<Refusal>> {
        let is_bearer = self.from == Source::Header(header::AUTHORIZATION);
        match self.from.find(exchange) {
            Found::Nothing => Err(self.missing(exchange)),
            Found::Several => Err(self.invalid(exchange, "several_tokens")),
            Found::One(token) if !is_bearer => Ok(token),
            Found::One(field) => match field.split_at_checked("bearer ".len()) {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
                    Ok(Cow::Owned(token.trim_ascii().to_vec()))
                }
                _ => Err(self.missing(exchange)),
            },
        }
    }

    /// What the token gives: found out once, then known until it ends or the keys change.
    fn verify(&self, token: &[u8]) -> Result<Arc<Verified>, Failed> {
        let verified = self.keys.with(|keys, version| self.verify_by(keys, version, token));
        verified.ok_or(Failed::NoKeys)?.map_err(Failed::Invalid)
    }

    fn verify_by(&self, keys: &[Key], version: u64, token: &[u8]) -> Result<Arc<Verified>, &'static str> {
        let now = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        if token.len() > token::LONGEST {
            return Err("token_too_long");
        }
        let tag = self.seen.tag(token);
        match self.seen.get(&tag).filter(|verified| verified.version == version) {
            Some(verified) if now < verified.until => return Ok(verified),
            Some(_) => {
                self.seen.forget(&tag);
                return Err("token_expired");
            }
            None => {}
        }
        let claims = Claims::of(token, keys, &self.pinned)?;
        let until = claims.check(&self.rules, now)?;
        let value = |name: &String| HeaderValue::try_from(token::text(claims.get(name)?)?.into_bytes()).ok();
        let verified = Arc::new(Verified {
            version,
            until,
            suffices: self.require.iter().all(|(name, wanted)| claims.has(name, wanted)),
            values: self.fields.iter().map(|(name, _)| value(name)).collect(),
            claims: self.asked.of(&claims),
        });
        self.seen.put(tag, verified.clone());
        Ok(verified)
    }

    /// The issuer may have changed its keys since they were fetched: looked at once more when they are there.
    async fn verify_anew(&self, jwks: &Jwks, exchange: &mut Exchange) -> Verdict {
        jwks.refreshed().await;
        match self.judge(exchange) {
            Ok(()) => Verdict::Continue,
            Err((refusal, _)) => Verdict::Refuse(refusal),
        }
    }

    /// Lets the request pass, or says why not.
    fn judge(&self, exchange: &mut Exchange) -> Result<(), (Box<Refusal>, Option<Failed>)> {
        let token = self.token(exchange).map_err(|refusal| (refusal, None))?;
        let verified = self.verify(&token).map_err(|failed| (self.failed(exchange, failed), Some(failed)))?;
        if !verified.suffices {
            let refusal = challenged(exchange, &self.challenges.insufficient, Reason::Forbidden);
            return Err((Box::new(refusal.because("insufficient_claims")), None));
        }
        self.admit(exchange, &verified);
        Ok(())
    }

    fn failed(&self, exchange: &Exchange, failed: Failed) -> Box<Refusal> {
        match failed {
            Failed::Invalid(cause) => self.invalid(exchange, cause),
            Failed::NoKeys => Box::new(Refusal::new(Reason::KeysUnavailable).because("no_keys")),
        }
    }

    fn admit(&self, exchange: &mut Exchange, verified: &Arc<Verified>) {
        exchange.token = Some(verified.clone());
        if self.strip {
            self.from.take_out(exchange);
        }
        for ((_, field), value) in self.fields.iter().zip(&verified.values) {
            if let Some(value) = value {
                field.set(&mut exchange.head.headers, value.clone(), exchange.lookalikes);
            }
        }
    }

    fn missing(&self, exchange: &Exchange) -> Box<Refusal> {
        Box::new(unauthorized(exchange, &self.challenges.missing).because("no_token"))
    }

    fn invalid(&self, exchange: &Exchange, cause: &'static str) -> Box<Refusal> {
        Box::new(unauthorized(exchange, &self.challenges.invalid).because(cause))
    }
}

impl OnRequest for Jwt {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        for (_, field) in &self.fields {
            field.remove(&mut exchange.head.headers, exchange.lookalikes);
        }
        self.from.remove_lookalikes(exchange);
        if self.public.covers(exchange) {
            return Next::Continue;
        }
        match self.judge(exchange) {
            Ok(()) => Next::Continue,
            Err((refusal, failed)) => match &self.keys {
                Keys::Fetched(jwks) if failed == Some(Failed::Invalid(token::UNKNOWN_KEY)) => {
                    Next::Wait(Box::pin(self.verify_anew(jwks, exchange)))
                }
                _ => Next::Refuse(refusal),
            },
        }
    }
}

impl Keys {
    /// Gives the keys with their version, where there are any yet.
    fn with<T>(&self, run: impl FnOnce(&[Key], u64) -> T) -> Option<T> {
        match self {
            Self::Given(keys) => Some(run(keys, 0)),
            Self::Fetched(jwks) => jwks.set().as_ref().map(|set| run(&set.keys, set.version)),
        }
    }
}

/// The claim that names a token's holder (RFC 7519 section 4.1.2).
pub const SUBJECT: &str = "sub";

/// The access log names the token's holder.
impl Default for Asked {
    fn default() -> Self {
        Self(Mutex::new(BTreeSet::from([SUBJECT.into()])))
    }
}

impl Asked {
    pub fn ask(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into());
    }

    fn of(&self, claims: &Claims) -> Box<[(Box<str>, Box<str>)]> {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said =
            asked.iter().filter_map(|name| Some((name.clone(), token::text(claims.get(name)?)?.into())));
        said.collect()
    }
}

impl Verified {
    /// What it says, as far as that was asked for.
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims.iter().find(|(asked, _)| **asked == *name).map(|(_, said)| &**said)
    }
}

/// Without what it says.
impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("until", &self.until).finish_non_exhaustive()
    }
}

impl FromStr for KeySet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.starts_with("http://") || text.starts_with("https://") {
            true => text.parse().map(Self::Url),
            false => text.parse().map(Self::File),
        }
    }
}

fn fields(config: &Config, cx: &mut Context<'_>) -> Vec<(String, Field)> {
    let mut taken: Vec<&HeaderName> = Vec::new();
    let mut fields = Vec::new();
    for entry in &config.claims_to_headers {
        let field = &entry.value;
        if taken.iter().any(|taken| alike(taken.as_str(), field.value.0.as_str())) {
            let message = format!("{} tells of another claim already", field.value.0);
            cx.diagnostics.push(Diagnostic::error(Code::NoEffect, field.span, message));
        }
        taken.push(&field.value.0);
        fields.push((entry.name.value.clone(), identity_field(field, cx)));
    }
    fields
}
