//! Lets in who knows a user's password (RFC 7617).

mod password;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::digest;
use schemars::JsonSchema;
use serde::Deserialize;

use self::password::Hash;
use super::{
    Builder, Context, Exchange, HeavyWork, Mode, Next, OnRequest, Refusal, Verdict,
    auth::{Line, Public, Seal, Seen, Tag, authorization, challenge, identity_field, lines, unauthorized},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    http::field_name::Field,
    value::{FieldName, FilePath, Map, OneOrMany, Spanned, Weaks},
};

pub const ADDS_UP: bool = false;

/// Lets in who knows a user's password (RFC 7617), and answers all others 401. Passwords are hashed by bcrypt
/// ($2y$, $2b$, $2a$) or argon2id; weaker hashes are refused.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BasicAuth")]
pub struct Config {
    /// A file of NAME:HASH lines, as `htpasswd -B` writes it, read again when it changes.
    #[serde(default)]
    pub file: Option<Spanned<FilePath>>,
    /// Users with the hashes of their passwords, beside those of the file.
    #[serde(default)]
    pub users: Map<String, Spanned<String>>,
    /// What the client is asked for. Default portolan.
    #[serde(default)]
    pub realm: Option<Spanned<String>>,
    /// Path patterns that everybody may ask for, as "/health" or "/static/**".
    #[serde(default)]
    pub public: OneOrMany<Spanned<String>>,
    /// The field that tells the upstream the user's name. What the client sent in it is taken away. Default: none.
    #[serde(default)]
    pub forward_user: Option<Spanned<FieldName>>,
    /// Whether the password stays here, instead of going on to the upstream in Authorization. Default true.
    #[serde(default)]
    pub strip: Option<bool>,
    /// enforce, or observe: requests go on, and the access log says what would have been refused.
    #[serde(default)]
    pub mode: Mode,
}

/// The passwords that were found right, by the digest of the users that they were held against: where no user
/// changed, a reload forgets none. One per process.
#[derive(Default)]
pub struct Registry(Mutex<Weaks<Vec<u8>, Seen<Arc<User>>>>);

struct BasicAuth {
    users: Users,
    public: Public,
    forward_user: Option<Field>,
    strip: bool,
    challenge: HeaderValue,
    seen: Arc<Seen<Arc<User>>>,
    heavy_work: HeavyWork,
}

struct User {
    /// As upstreams are told it.
    name: HeaderValue,
    hash: Hash,
}

struct Users {
    by_name: HashMap<Box<[u8]>, Arc<User>>,
    all: Vec<Arc<User>>,
    seal: Seal,
}

/// A name and a password as they came: "name:password".
struct Credentials {
    text: Vec<u8>,
    colon: usize,
}

pub fn install(config: &Config, cx: &mut Context<'_>, chain: &mut Builder) {
    if let Some(part) = cx.once(config, |cx| BasicAuth::compile(config, cx)) {
        chain.guard(config.mode, part);
    }
}

impl Registry {
    fn find(&self, users: &[Line]) -> Arc<Seen<Arc<User>>> {
        let mut digest = digest::Context::new(&digest::SHA256);
        for part in users.iter().flat_map(|line| [&line.name, &line.hash]) {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.find_or(digest.finish().as_ref().to_vec(), Seen::new)
    }
}

impl BasicAuth {
    fn compile(config: &Config, cx: &mut Context<'_>) -> Option<Self> {
        if config.file.is_none() && config.users.is_empty() {
            let problem = Diagnostic::error(Code::MissingKey, cx.span, "basic_auth knows no users");
            let help = "{ file: users.htpasswd } reads them, { users: { ann: \"$2y$…\" } } lists them";
            cx.diagnostics.push(problem.help(help));
        }
        let lines = lines(config.file.as_ref(), &config.users, cx);
        let seen = cx.world.passwords.find(&lines);
        Some(Self {
            users: Users::compile(lines, cx),
            public: Public::compile(&config.public, cx),
            forward_user: config.forward_user.as_ref().map(|field| identity_field(field, cx)),
            strip: config.strip.unwrap_or(true),
            challenge: challenge("Basic", config.realm.as_ref(), ", charset=\"UTF-8\"", cx),
            seen,
            heavy_work: cx.world.heavy_work.clone(),
        })
    }

    /// Holds the password against the user's hash, beside the threads that serve. Who is not known is held
    /// against somebody else's, so that the time it takes does not tell the two apart.
    async fn check(&self, exchange: &mut Exchange, given: Credentials, tag: Tag) -> Verdict {
        let known = self.users.by_name.get(given.name());
        let Some(user) = known.or_else(|| self.users.somebody(given.name())).cloned() else {
            return Verdict::Refuse(Box::new(self.refusal(exchange, "unknown_user")));
        };
        let is_known = known.is_some();
        let (seen, held_against) = (self.seen.clone(), user.clone());
        let check = move || {
            // A client's other connections may have brought the same meanwhile.
            seen.get(&tag).is_some() || held_against.hash.is_of(given.password())
        };
        let is_right = match self.heavy_work.offer(check).await {
            Ok(is_right) => is_right,
            Err(refusal) => return Verdict::Refuse(refusal),
        };
        match (is_known, is_right) {
            (true, true) => {
                self.seen.put(tag, user.clone());
                self.admit(exchange, &user);
                Verdict::Continue
            }
            (true, false) => Verdict::Refuse(Box::new(self.refusal(exchange, "wrong_password"))),
            (false, _) => Verdict::Refuse(Box::new(self.refusal(exchange, "unknown_user"))),
        }
    }

    fn admit(&self, exchange: &mut Exchange, user: &User) {
        let (field, lookalikes) = (authorization(exchange), exchange.lookalikes);
        let headers = &mut exchange.head.headers;
        if self.strip {
            headers.remove(field);
        }
        if let Some(field) = &self.forward_user {
            field.set(headers, user.name.clone(), lookalikes);
        }
        exchange.user = Some(Box::new(user.name.clone()));
    }

    fn refusal(&self, exchange: &Exchange, cause: &'static str) -> Refusal {
        unauthorized(exchange, &self.challenge).because(cause)
    }
}

impl OnRequest for BasicAuth {
    fn on_request<'a>(&'a self, exchange: &'a mut Exchange) -> Next<'a> {
        if let Some(field) = &self.forward_user {
            field.remove(&mut exchange.head.headers, exchange.lookalikes);
        }
        if self.public.covers(exchange) {
            return Next::Continue;
        }
        let given = match Credentials::of(&exchange.head.headers, authorization(exchange)) {
            Ok(given) => given,
            Err(cause) => return self.refusal(exchange, cause).into(),
        };
        let tag = self.seen.tag(&given.text);
        if let Some(user) = self.seen.get(&tag) {
            self.admit(exchange, &user);
            return Next::Continue;
        }
        Next::Wait(Box::pin(self.check(exchange, given, tag)))
    }
}

impl Users {
    fn compile(lines: Vec<Line>, cx: &mut Context<'_>) -> Self {
        let (mut by_name, mut all) = (HashMap::new(), Vec::new());
        for line in lines {
            let name =
                HeaderValue::from_str(&line.name).or_else(|_| HeaderValue::from_bytes(line.name.as_bytes()));
            let Some(name) = name.ok().filter(|_| !line.name.contains(':')) else {
                line.report("a user's name holds no colon and no control characters (RFC 7617)", RENAME, cx);
                continue;
            };
            let hash = match Hash::parse(&line.hash) {
                Ok(hash) => hash,
                Err(reason) => {
                    line.report(&format!("the password of {} {reason}", line.name), HASH, cx);
                    continue;
                }
            };
            let user = Arc::new(User { name, hash });
            if by_name.insert(line.name.as_bytes().into(), user.clone()).is_some() {
                line.report(&format!("{} is there already", line.name), RENAME, cx);
            }
            all.push(user);
        }
        Self { by_name, all, seal: Seal::new() }
    }

    /// Always the same one for a name that nobody has.
    fn somebody(&self, name: &[u8]) -> Option<&Arc<User>> {
        let tag = self.seal.tag(name);
        let place = usize::from(u16::from_be_bytes([tag[0], tag[1]]));
        self.all.get(place % self.all.len().max(1))
    }
}

const HASH: &str = "htpasswd -B FILE NAME hashes by bcrypt";
const RENAME: &str = "give each user one line with a name of its own";

impl Credentials {
    /// What the one field of this name holds, or why it holds nothing.
    fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Self, &'static str> {
        let mut fields = headers.get_all(name).iter();
        let (field, None) = (fields.next().ok_or("no_credentials")?, fields.next()) else {
            return Err("several_credentials");
        };
        let field = field.as_bytes();
        let (scheme, encoded) = field.split_at_checked("basic ".len()).ok_or("no_credentials")?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return Err("no_credentials");
        }
        let text = BASE64_STANDARD.decode(encoded.trim_ascii()).map_err(|_| "malformed_credentials")?;
        let colon = text.iter().position(|byte| *byte == b':').ok_or("malformed_credentials")?;
        Ok(Self { text, colon })
    }

    fn name(&self) -> &[u8] {
        &self.text[..self.colon]
    }

    fn password(&self) -> &[u8] {
        &self.text[self.colon + 1..]
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    fn given(fields: &[&str]) -> Result<(String, String), &'static str> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::AUTHORIZATION, field.parse().unwrap());
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.into()).unwrap();
        Credentials::of(&headers, &header::AUTHORIZATION)
            .map(|given| (text(given.name()), text(given.password())))
    }

    #[test]
    fn credentials_are_read_as_rfc_7617_has_them() {
        let pair = |name: &str, password: &str| Ok((name.to_owned(), password.to_owned()));
        assert_eq!(given(&["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]), pair("Aladdin", "open sesame"));
        assert_eq!(given(&["basic dGVzdDoxMjPCow=="]), pair("test", "123£"));
        assert_eq!(given(&["Basic YTpiOmM="]), pair("a", "b:c"));
        assert_eq!(given(&["Basic Og=="]), pair("", ""));
        assert_eq!(given(&[]), Err("no_credentials"));
        for other in ["", "Basic", "Bearer QTpC", "Basicx QTpC"] {
            assert_eq!(given(&[other]), Err("no_credentials"), "{other}");
        }
        for wrong in ["Basic YQ==", "Basic YTpi=", "Basic YTpi YTpi", "Basic a:b", "Basic "] {
            assert_eq!(given(&[wrong]), Err("malformed_credentials"), "{wrong}");
        }
        assert_eq!(given(&["Basic YTpi", "Basic YTpi"]), Err("several_credentials"));
    }
}
