//! Keys that signatures are held against, and what each may be used for: an algorithm belongs to a kind of key,
//! so that a public key never becomes a secret (RFC 8725 section 3.1).

use std::{fmt, path::Path, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    hmac,
    signature::{self, RsaPublicKeyComponents, UnparsedPublicKey},
};
use serde::Deserialize;
use x509_parser::{prelude::FromDer, public_key::PublicKey, x509::SubjectPublicKeyInfo};

use crate::{tls::pem, value::encoding};

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037 section 3.1). "none" is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// A key with what it is for.
pub struct Key {
    /// Its name, where its set gives it one.
    id: Option<Box<str>>,
    material: Material,
    pub algorithms: Vec<Algorithm>,
}

enum Material {
    Secret(Box<[u8]>),
    Rsa {
        n: Box<[u8]>,
        e: Box<[u8]>,
    },
    /// A point on P-256 or P-384, or Ed25519's; the algorithms tell which.
    Point(Box<[u8]>),
}

const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::Hs256),
    ("HS384", Algorithm::Hs384),
    ("HS512", Algorithm::Hs512),
    ("RS256", Algorithm::Rs256),
    ("RS384", Algorithm::Rs384),
    ("RS512", Algorithm::Rs512),
    ("PS256", Algorithm::Ps256),
    ("PS384", Algorithm::Ps384),
    ("PS512", Algorithm::Ps512),
    ("ES256", Algorithm::Es256),
    ("ES384", Algorithm::Es384),
    ("EdDSA", Algorithm::EdDsa),
];

const RSA: [Algorithm; 6] = [
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
];

crate::value::text_value!(
    Algorithm,
    "jwt-algorithm",
    "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA.",
    "RS256",
    "EdDSA"
);

/// A key of a set as written (RFC 7517).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct JwkSet {
    /// Read one by one: whoever publishes the set may add keys that are not known here.
    keys: Vec<serde_json::Value>,
}

/// The keys of a set.
#[derive(Default)]
pub struct KeySet {
    pub keys: Vec<Key>,
    pub ignored: Vec<Ignored>,
}

/// A key of a set that is not used.
#[derive(Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Its name in the set, or its place.
    key: String,
    problem: Problem,
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// Of a kind, a size or a form that cannot be used here.
    Unusable(String),
    /// Private or secret material where everybody can read it.
    Secret(&'static str),
}

/// So many ignored keys are named, and so much of each name.
pub const MOST_SHOWN: usize = 8;
const LONGEST_SHOWN: usize = 64;

impl Key {
    /// A secret is as long as the hash at least (RFC 7518 section 3.2).
    pub fn secret(text: &str) -> Result<Self, String> {
        let all = [(32, Algorithm::Hs256), (48, Algorithm::Hs384), (64, Algorithm::Hs512)];
        let fits = all.iter().filter(|(least, _)| text.len() >= *least);
        let algorithms: Vec<_> = fits.map(|(_, algorithm)| *algorithm).collect();
        match algorithms.is_empty() {
            true => {
                Err("a secret has 32 bytes for HS256, 48 for HS384, 64 for HS512 at least (RFC 7518)".into())
            }
            false => Ok(Self { id: None, material: Material::Secret(text.as_bytes().into()), algorithms }),
        }
    }

    /// The public key of a PEM file.
    pub fn pem(file: &[u8], path: &Path) -> Result<Self, String> {
        let der = pem::public_key(file).map_err(|fault| {
            fault.help(path).map_or_else(|| fault.to_string(), |help| format!("{fault}: {help}"))
        })?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| "it is no public key".to_owned())?;
        match info.parsed() {
            Ok(PublicKey::RSA(key)) => Self::rsa(key.modulus, key.exponent),
            Ok(PublicKey::EC(point)) if point.data().len() == 65 => {
                Ok(Self::point(point.data(), Algorithm::Es256))
            }
            Ok(PublicKey::EC(point)) if point.data().len() == 97 => {
                Ok(Self::point(point.data(), Algorithm::Es384))
            }
            // RFC 8410 section 3.
            _ if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => {
                Ok(Self::point(&info.subject_public_key.data, Algorithm::EdDsa))
            }
            _ => Err("it is neither RSA nor P-256, P-384 or Ed25519".into()),
        }
    }

    /// The keys of a set that signatures can be verified with. Keys for encryption are passed over, and a key that cannot be
    /// used does not keep the others from being used (RFC 7517 section 5).
    pub fn set(json: &[u8]) -> Result<KeySet, String> {
        // A set that is fetched may begin with a byte order mark (RFC 8259 section 8.1).
        let json = encoding::unmarked(json).unwrap_or(json);
        let set: JwkSet = serde_json::from_slice(json).map_err(|error| {
            // Its own words quote what it read, which is not known to be for everybody's eyes.
            format!("it is no JWK set: line {}, column {}", error.line(), error.column())
        })?;
        let mut read = KeySet::default();
        for (nth, value) in set.keys.iter().enumerate() {
            match Self::jwk(value) {
                Ok(key) => read.keys.extend(key),
                Err(problem) => read.ignored.push(Ignored { key: shown(value, nth), problem }),
            }
        }
        match read.keys.is_empty() {
            true => {
                let reasons: String =
                    read.ignored.iter().take(MOST_SHOWN).map(|one| format!("; {one}")).collect();
                Err(format!("it has no usable key for signatures of RSA, P-256, P-384 or Ed25519{reasons}"))
            }
            false => Ok(read),
        }
    }

    /// A key of a set; nothing where it is for something else than signatures.
    fn jwk(value: &serde_json::Value) -> Result<Option<Self>, Problem> {
        let jwk = Jwk::deserialize(value).map_err(|_| Problem::Unusable("it is not a JWK".into()))?;
        if jwk.kty == "oct" {
            return Err(Problem::Secret("a set holds public keys; a secret stands under `secret`"));
        }
        if jwk.d.is_some() {
            return Err(Problem::Secret("this is a private key: a set holds public keys"));
        }
        if jwk.usage.as_ref().is_some_and(|usage| usage != "sig") {
            return Ok(None);
        }
        let mut key = Self::material(&jwk).map_err(Problem::Unusable)?;
        if let Some(named) = &jwk.alg {
            key.algorithms.retain(|algorithm| algorithm.to_string() == *named);
        }
        key.id = jwk.kid.map(Into::into);
        Ok(Some(key).filter(|key| !key.algorithms.is_empty()))
    }

    fn material(jwk: &Jwk) -> Result<Self, String> {
        let x = || bytes(jwk.x.as_deref(), "x");
        let y = || bytes(jwk.y.as_deref(), "y");
        match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Self::rsa(&bytes(jwk.n.as_deref(), "n")?, &bytes(jwk.e.as_deref(), "e")?),
            ("EC", Some("P-256")) => Self::coordinates(&x()?, &y()?, 32, Algorithm::Es256),
            ("EC", Some("P-384")) => Self::coordinates(&x()?, &y()?, 48, Algorithm::Es384),
            ("OKP", Some("Ed25519")) => match x()? {
                x if x.len() == 32 => Ok(Self::point(&x, Algorithm::EdDsa)),
                x => Err(format!("x must have 32 bytes (got {})", x.len())),
            },
            ("EC" | "OKP", None) => Err("it lacks crv".into()),
            ("EC" | "OKP", Some(curve)) => {
                Err(format!("the curve {} is not supported: P-256, P-384 and Ed25519 are", short(curve)))
            }
            (kind, _) => Err(format!("the key type {} is not supported: RSA, EC and OKP are", short(kind))),
        }
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, String> {
        let plain = |number: &[u8]| -> Box<[u8]> {
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            number[zeros..].into()
        };
        let (n, e) = (plain(n), plain(e));
        let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
        match bits {
            2048..=8192 => Ok(Self { id: None, material: Material::Rsa { n, e }, algorithms: RSA.to_vec() }),
            _ => Err(format!("an RSA key must have 2048 to 8192 bits (got {bits})")),
        }
    }

    /// SEC 1 section 2.3.3: a point that is not compressed.
    fn coordinates(x: &[u8], y: &[u8], length: usize, algorithm: Algorithm) -> Result<Self, String> {
        match x.len() == length && y.len() == length {
            true => Ok(Self::point(&[&[4], x, y].concat(), algorithm)),
            false => Err(format!("x and y must have {length} bytes (got {} and {})", x.len(), y.len())),
        }
    }

    fn point(point: &[u8], algorithm: Algorithm) -> Self {
        Self { id: None, material: Material::Point(point.into()), algorithms: vec![algorithm] }
    }

    /// Whether a token that names this key, or none, may mean it.
    pub fn is_meant(&self, id: Option<&str>) -> bool {
        match (&self.id, id) {
            (Some(own), Some(named)) => **own == *named,
            _ => true,
        }
    }

    /// Whether such a token may be signed by it.
    pub fn fits(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        self.is_meant(id) && self.algorithms.contains(&algorithm)
    }

    pub fn has_signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let of_point = |verifier, point: &[u8]| {
            UnparsedPublicKey::new(verifier, point).verify(message, signature).is_ok()
        };
        match (&self.material, algorithm) {
            (Material::Secret(secret), algorithm) => algorithm.digest().is_some_and(|digest| {
                hmac::verify(&hmac::Key::new(digest, secret), message, signature).is_ok()
            }),
            (Material::Rsa { n, e }, algorithm) => algorithm.of_rsa().is_some_and(|verifier| {
                RsaPublicKeyComponents { n, e }.verify(verifier, message, signature).is_ok()
            }),
            (Material::Point(point), Algorithm::Es256) => {
                of_point(&signature::ECDSA_P256_SHA256_FIXED, point)
            }
            (Material::Point(point), Algorithm::Es384) => {
                of_point(&signature::ECDSA_P384_SHA384_FIXED, point)
            }
            (Material::Point(point), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&signature::ED25519, point).verify(message, signature).is_ok()
            }
            (Material::Point(_), _) => false,
        }
    }
}

impl Ignored {
    /// Whether it has no business in a set at all.
    pub fn is_secret(&self) -> bool {
        matches!(self.problem, Problem::Secret(_))
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match &self.problem {
            Problem::Unusable(problem) => problem,
            Problem::Secret(problem) => *problem,
        };
        write!(f, "key {}: {problem}", self.key)
    }
}

fn shown(value: &serde_json::Value, nth: usize) -> String {
    value["kid"].as_str().map_or_else(|| format!("number {}", nth + 1), short)
}

/// Text of others as a line of a log shows it.
fn short(text: &str) -> String {
    let mut start: String = text.chars().take(LONGEST_SHOWN).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    format!("{start:?}")
}

impl Algorithm {
    /// Whether its key is a secret.
    pub fn is_of_secret(self) -> bool {
        self.digest().is_some()
    }

    fn digest(self) -> Option<hmac::Algorithm> {
        match self {
            Self::Hs256 => Some(hmac::HMAC_SHA256),
            Self::Hs384 => Some(hmac::HMAC_SHA384),
            Self::Hs512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    fn of_rsa(self) -> Option<&'static signature::RsaParameters> {
        match self {
            Self::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
            _ => None,
        }
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = ALGORITHMS.iter().find(|(name, _)| *name == text).map(|(_, algorithm)| *algorithm);
        found.ok_or_else(|| {
            format!("{text:?} is no algorithm that is supported, as RS256, ES256 or EdDSA are")
        })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ALGORITHMS.iter().find(|(_, algorithm)| algorithm == self).map(|(name, _)| *name);
        f.write_str(name.unwrap_or_default())
    }
}

fn bytes(text: Option<&str>, name: &str) -> Result<Vec<u8>, String> {
    let text = text.ok_or_else(|| format!("it lacks {name}"))?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{name} is not base64url"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"kty":"OKP","crv":"Ed25519","kid":"good","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;

    #[test]
    fn a_key_that_cannot_be_used_spoils_no_other() {
        let small = format!(r#"{{"kty":"RSA","kid":"small","n":"{}","e":"AQAB"}}"#, "_".repeat(170) + "w");
        let long = format!(r#"{{"kty":"{}"}}"#, "k".repeat(1000));
        for (bad, said) in [
            (small.as_str(), "key \"small\": an RSA key must have 2048 to 8192 bits (got 1024)"),
            (r#"{"kty":"RSA","n":"_w"}"#, "key number 1: it lacks e"),
            (r#"{"kty":"RSA","n":"+/","e":"AQAB"}"#, "key number 1: n is not base64url"),
            (r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#, "x and y must have 32 bytes (got 1 and 1)"),
            (r#"{"kty":"EC","crv":"P-521"}"#, "the curve \"P-521\" is not supported"),
            (r#"{"kty":"EC"}"#, "it lacks crv"),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#, "x must have 32 bytes (got 1)"),
            (r#"{"kty":"OKP","crv":"X25519"}"#, "the curve \"X25519\" is not supported"),
            (r#"{"kty":"AKP"}"#, "the key type \"AKP\" is not supported"),
            (&long, "kkkk…\" is not supported"),
            (r#"{"kty":"oct","k":"AA"}"#, "a secret stands under"),
            (r#"{"kty":"OKP","crv":"Ed25519","d":"AA"}"#, "private key"),
            (r#"{"kty":"RSA","alg":7}"#, "key number 1: it is not a JWK"),
            (r#"{"kid":"x"}"#, "key \"x\": it is not a JWK"),
            ("7", "key number 1: it is not a JWK"),
            ("null", "it is not a JWK"),
            ("[]", "it is not a JWK"),
        ] {
            let read = Key::set(format!(r#"{{"keys":[{bad},{GOOD}]}}"#).as_bytes()).expect(bad);
            assert_eq!((read.keys.len(), read.ignored.len()), (1, 1), "{bad}");
            assert!(read.keys[0].is_meant(Some("good")) && !read.keys[0].is_meant(Some("small")), "{bad}");
            let shown = read.ignored[0].to_string();
            assert!(shown.contains(said) && shown.len() < 200, "{bad}: {shown}");
            let alone = Key::set(format!(r#"{{"keys":[{bad}]}}"#).as_bytes());
            assert!(alone.is_err_and(|error| error.contains(said)), "{bad}");
        }
        for other in [
            r#"{"kty":"RSA","use":"enc"}"#,
            r#"{"kty":"OKP","crv":"Ed25519","alg":"ES256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
        ] {
            let read = Key::set(format!(r#"{{"keys":[{GOOD},{other}]}}"#).as_bytes()).unwrap();
            assert_eq!((read.keys.len(), read.ignored.len()), (1, 0), "it is for something else: {other}");
        }
        for no_set in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#] {
            assert!(Key::set(no_set.as_bytes()).is_err(), "{no_set}");
        }
    }
}
