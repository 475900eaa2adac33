//! Lets in who shows a key that is known here by its hash.

use std::collections::HashMap;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    Builder, Context, Exchange, Mode, Next, OnRequest, Refusal,
    auth::{Found, Line, Public, Seal, Source, Tag, challenge, identity_field, lines, unauthorized},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    http::field_name::Field,
    value::{FieldName, FilePath, Map, OneOrMany, Spanned},
};

pub const ADDS_UP: bool = false;

/// Lets in who shows a known key, and answers all others 401. Keys stand here as the SHA-256 of what clients
/// send, in hexadecimal (`printf %s KEY | sha256sum`), so they must be long and made by chance.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ApiKey")]
pub struct Config {
    /// A file of NAME:SHA256 lines, read again when it changes. A name may have several keys.
    #[serde(default)]
    pub file: Option<Spanned<FilePath>>,
    /// Names with the SHA-256 of their keys, beside those of the file.
    #[serde(default)]
    pub keys: Map<String, Spanned<String>>,
    /// Where the key stands: header:NAME, query:NAME or cookie:NAME. It does not go on to the upstream, and the
    /// access log does not show it. Default header:X-API-Key.
    #[serde(default)]
    pub from: Option<Source>,
    /// Path patterns that everybody may ask for, as "/health" or "/static/**".
    #[serde(default)]
    pub public: OneOrMany<Spanned<String>>,
    /// The field that tells the upstream the key's name. What the client sent in it is taken away. Default: none.
    #[serde(default)]
    pub forward_name: Option<Spanned<FieldName>>,
    /// What the client is asked for. Default portolan.
    #[serde(default)]
    pub realm: Option<Spanned<String>>,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    #[serde(default)]
    pub mode: Mode,
}

struct ApiKey {
    keys: Keys,
    from: Source,
    public: Public,
    forward_name: Option<Field>,
    challenge: HeaderValue,
}

/// Names by the tags of their keys' hashes. How long a look-up takes depends on a tag, and of tags nobody outside
/// knows anything: it tells nothing of the keys.
struct Keys {
    seal: Seal,
    names: HashMap<Tag, HeaderValue>,
}

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder) {
    chain.conceal(&config.from());
    if let Some(part) = cx.once(config, |cx| Some(ApiKey::compile(config, cx))) {
        chain.guard(config.mode, part);
    }
}

impl Config {
    fn from(&self) -> Source {
        self.from.clone().unwrap_or(Source::Header(HeaderName::from_static("x-api-key")))
    }
}

impl ApiKey {
    fn compile(config: &Config, cx: &mut Context<'_>) -> Self {
        if config.file.is_none() && config.keys.is_empty() {
            let problem = Diagnostic::error(Code::MissingKey, cx.span, "api_key knows no keys");
            let help = "{ file: clients.keys } reads them, { keys: { app: SHA256 } } lists them";
            cx.diagnostics.push(problem.help(help));
        }
        Self {
            keys: Keys::compile(lines(config.file.as_ref(), &config.keys, cx), cx),
            from: config.from(),
            public: Public::compile(&config.public, cx),
            forward_name: config.forward_name.as_ref().map(|field| identity_field(field, cx)),
            challenge: challenge("ApiKey", config.realm.as_ref(), "", cx),
        }
    }

    fn refusal(&self, exchange: &Exchange, cause: &'static str) -> Refusal {
        // RFC 9110 section 15.5.2 asks for a challenge; there is no registered scheme to name.
        unauthorized(exchange, &self.challenge).because(cause)
    }
}

impl OnRequest for ApiKey {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        if let Some(field) = &self.forward_name {
            field.remove(&mut exchange.head.headers, exchange.lookalikes);
        }
        if self.public.covers(exchange) {
            return Next::Continue;
        }
        let name = match self.from.find(exchange) {
            Found::Nothing => return self.refusal(exchange, "no_key").into(),
            Found::Several => return self.refusal(exchange, "several_keys").into(),
            Found::One(key) => self.keys.name(&key),
        };
        let Some(name) = name.cloned() else { return self.refusal(exchange, "unknown_key").into() };
        self.from.take_out(exchange);
        if let Some(field) = &self.forward_name {
            field.set(&mut exchange.head.headers, name.clone(), exchange.lookalikes);
        }
        exchange.user = Some(Box::new(name));
        Next::Continue
    }
}

impl Keys {
    fn compile(lines: Vec<Line>, cx: &mut Context<'_>) -> Self {
        let mut keys = Self { seal: Seal::new(), names: HashMap::new() };
        for line in lines {
            let Ok(name) = HeaderValue::from_bytes(line.name.as_bytes()) else {
                line.report("a key's name holds no control characters", "it may be sent on in a field", cx);
                continue;
            };
            let Some(hash) = sha256(&line.hash) else {
                let message = format!("the key of {} is no SHA-256 in 64 hexadecimal digits", line.name);
                line.report(&message, "printf %s KEY | sha256sum", cx);
                continue;
            };
            if keys.names.insert(keys.seal.tag(&hash), name).is_some() {
                let message = format!("the key of {} is there already", line.name);
                line.report(&message, "give each name a key of its own", cx);
            }
        }
        keys
    }

    fn name(&self, key: &[u8]) -> Option<&HeaderValue> {
        self.names.get(&self.seal.tag(&Sha256::digest(key)))
    }
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_their_hash() {
        // printf %s secret | sha256sum
        let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let seal = Seal::new();
        let names = HashMap::from([(seal.tag(&sha256(hash).unwrap()), HeaderValue::from_static("app"))]);
        let keys = Keys { seal, names };
        assert_eq!(keys.name(b"secret").unwrap(), "app");
        for wrong in [&b"Secret"[..], b"", hash.as_bytes()] {
            assert!(keys.name(wrong).is_none());
        }
        assert_eq!(sha256(&hash.to_uppercase()), sha256(hash));
        for wrong in ["", &hash[1..], &format!("+{}", &hash[1..]), &format!("{hash}0")] {
            assert!(sha256(wrong).is_none(), "{wrong}");
        }
    }
}
