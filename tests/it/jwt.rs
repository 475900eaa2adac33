//! Tokens as PyJWT signs them, and as those who attack them make them.

use super::{
    auth::{behind, status},
    support::{Origin, Proxy, Python, Tree, until},
};

/// Makes keys and tokens: each line of output is NAME and a token, or NAME and a file's content as JSON.
const ISSUER: &str = r#"
import base64, hashlib, hmac, json, sys, time, jwt
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import RSAAlgorithm, ECAlgorithm, OKPAlgorithm

SECRET = 'a-secret-of-sixty-four-bytes-that-is-long-enough-for-every-hash!'
now = int(time.time())
keys = {
    'rsa': rsa.generate_private_key(public_exponent=65537, key_size=2048),
    'p256': ec.generate_private_key(ec.SECP256R1()),
    'p384': ec.generate_private_key(ec.SECP384R1()),
    'ed': ed25519.Ed25519PrivateKey.generate(),
    'stranger': rsa.generate_private_key(public_exponent=65537, key_size=2048),
}
def pem(key):
    return key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo).decode()
def jwk(name, algorithm):
    text = algorithm.to_jwk(keys[name].public_key())
    return {**whole(text if isinstance(text, dict) else json.loads(text)), 'kid': name, 'use': 'sig'}
def whole(key):
    # RFC 7518 section 6.2.1.2 wants coordinates in full; PyJWT leaves out their leading zeros.
    size = {'P-256': 43, 'P-384': 64}.get(key.get('crv') if key['kty'] == 'EC' else None, 0)
    full = {n: base64.urlsafe_b64encode(base64.urlsafe_b64decode(key[n] + '==').rjust(size * 3 // 4, b'\0')).rstrip(b'=').decode() for n in 'xy' if size}
    return {**key, **full}
def put(name, value):
    print(json.dumps([name, value]), flush=True)
def part(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b'=').decode()
def claims(**more):
    return {k: v for k, v in {'sub': 'ann', 'iss': 'issuer', 'aud': 'api', 'exp': now + 600, 'role': ['user', 'admin'], **more}.items() if v is not None}
def sign(key, algorithm, headers=None, **more):
    return jwt.encode(claims(**more), keys.get(key, key), algorithm=algorithm, headers=headers)
def by_hand(header, payload, secret):
    text = part(header) + '.' + part(payload)
    return text + '.' + part(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())

put('jwks', json.dumps({'keys': [jwk('rsa', RSAAlgorithm), jwk('p256', ECAlgorithm), jwk('p384', ECAlgorithm), jwk('ed', OKPAlgorithm), {'kty': 'EC', 'crv': 'P-521', 'kid': 'other', 'x': 'AA', 'y': 'AA'}]}))
for name in keys: put(name + '.pem', pem(keys[name]))
put('secret', SECRET)

for a in ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']: put('good ' + a, sign('rsa', a, {'kid': 'rsa'}))
put('good ES256', sign('p256', 'ES256', {'kid': 'p256'}))
put('good ES384', sign('p384', 'ES384', {'kid': 'p384'}))
put('good EdDSA', sign('ed', 'EdDSA', {'kid': 'ed'}))
put('good without kid', sign('rsa', 'RS256'))
put('good audiences', sign('rsa', 'RS256', aud=['x', 'api']))
put('good leeway', sign('rsa', 'RS256', exp=now - 20, nbf=now + 20))
for a in ['HS256', 'HS384', 'HS512']: put('secret ' + a, sign(SECRET, a))

rs = sign('rsa', 'RS256', {'kid': 'rsa'})
head, body, signature = rs.split('.')
put('bad algorithm_not_allowed', part({'alg': 'none', 'typ': 'JWT'}) + '.' + part(claims()) + '.')
put('bad algorithm_not_allowed', part({'alg': 'None'}) + '.' + part(claims()) + '.' + signature)
put('bad algorithm_not_allowed', by_hand({'alg': 'HS256', 'kid': 'rsa'}, claims(), pem(keys['rsa'])))
put('bad algorithm_not_allowed', by_hand({'alg': 'HS256'}, claims(), pem(keys['rsa']).strip()))
put('bad algorithm_not_allowed', sign(SECRET, 'HS256'))
put('bad algorithm_not_allowed', by_hand({'alg': 'ES256K'}, claims(), 'x'))
put('bad unknown_key', sign('rsa', 'RS256', {'kid': 'nobody'}))
put('bad unknown_key', sign('rsa', 'RS256', {'kid': 'p256'}))
put('bad wrong_signature', sign('stranger', 'RS256', {'kid': 'rsa'}))
put('bad wrong_signature', sign('stranger', 'RS256', {'jwk': jwk('stranger', RSAAlgorithm)}))
put('bad wrong_signature', head + '.' + part(claims(sub='root')) + '.' + signature)
put('bad wrong_signature', head + '.' + body + '.')
put('bad wrong_signature', part({'alg': 'ES256', 'kid': 'p256'}) + '.' + body + '.' + part(bytes(64)))
put('bad token_expired', sign('rsa', 'RS256', exp=now - 61))
put('bad token_not_valid_yet', sign('rsa', 'RS256', nbf=now + 300))
put('bad no_expiry', sign('rsa', 'RS256', exp=None))
put('bad wrong_audience', sign('rsa', 'RS256', aud='other'))
put('bad wrong_audience', sign('rsa', 'RS256', aud=None))
put('bad wrong_issuer', sign('rsa', 'RS256', iss='other'))
put('bad wrong_issuer', sign('rsa', 'RS256', iss=None))
put('bad unknown_extension', sign('rsa', 'RS256', {'crit': ['b64'], 'b64': False}))
text = part(json.dumps({'alg': 'RS256'})[:-1].encode() + b', "alg": "none"}') + '.' + body
put('bad malformed_token', text + '.' + signature)
put('bad malformed_token', rs + '.' + signature)
put('bad malformed_token', rs + '.' + rs)
put('bad malformed_token', head + '.' + body)
put('bad malformed_token', 'garbage')
put('bad malformed_token', '..')
put('bad malformed_token', rs + '=')
put('bad malformed_token', head + '.' + body + '.' + signature[:-1] + '*')
put('bad malformed_token', part(b'[' * 5000) + '.' + body + '.' + signature)
put('bad token_too_long', head + '.' + body + '.' + 'A' * 20000)
put('insufficient', sign('rsa', 'RS256', role=['user']))
put('short', sign('rsa', 'RS256', exp=int(time.time()) + 3 - 60))
print(json.dumps(['end', '']), flush=True)
"#;

/// What the issuer has made, by name.
struct Issuer(Vec<(String, String)>);

impl Issuer {
    fn new() -> Self {
        let text = Python::run(ISSUER, &[]).finish();
        let issuer = Self(text.lines().map(|line| serde_json::from_str(line).expect("a pair")).collect());
        assert_eq!(issuer.0.last().expect("lines").0, "end");
        issuer
    }

    fn one(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(found, _)| found == name);
        &found.unwrap_or_else(|| panic!("no {name}")).1
    }

    fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(name, text)| Some((name.strip_prefix(kind)?, text.as_str())))
    }

    /// A proxy that asks for tokens of this issuer.
    fn proxy(&self, settings: &str, origin: &Origin) -> Proxy {
        let tree = Tree::new();
        for name in ["jwks", "rsa.pem", "p256.pem", "p384.pem", "ed.pem", "secret"] {
            tree.write(name, self.one(name));
        }
        Proxy::start_in(tree, &behind(&format!("{{ jwt: {{ {settings} }} }}"), origin))
    }
}

/// The status that a token gets.
pub fn with(proxy: &Proxy, path: &str, token: &str) -> u16 {
    let mut client = proxy.client();
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nX-User: root\r\n\r\n"
    ));
    client.response().status
}

const ALL: &str = "jwks: jwks, issuer: issuer, audience: [api, other-api], require: { role: admin }, claims_to_headers: { sub: X-User, role: X-Role }";

#[test]
fn tokens_of_every_algorithm_let_in_and_what_they_say_goes_on() {
    let (issuer, origin) = (Issuer::new(), Origin::saying(""));
    let proxy = issuer.proxy(ALL, &origin);
    let mut count = 0;
    for (name, token) in issuer.all("good ") {
        for _ in 0..2 {
            assert_eq!(with(&proxy, "/", token), 200, "{name}: {:?}", proxy.access_log().last());
        }
        count += 2;
    }
    assert_eq!((count, origin.requests().len()), (24, 24));
    for request in origin.requests() {
        assert_eq!(request.values("x-user"), ["ann"]);
        assert_eq!(request.field("x-role"), Some("[\"user\",\"admin\"]"));
    }
}

#[test]
fn no_attack_gets_in_and_the_cause_is_for_the_log() {
    let (issuer, origin) = (Issuer::new(), Origin::saying(""));
    let proxy = issuer.proxy(ALL, &origin);
    let mut count = 0;
    for (nth, (cause, token)) in issuer.all("bad ").enumerate() {
        let path = format!("/{nth}");
        let mut client = proxy.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, 401, "{cause}");
        let challenge = "Bearer realm=\"portolan\", error=\"invalid_token\"";
        assert_eq!(response.field("www-authenticate"), Some(challenge));
        assert!(!response.text().contains(cause), "{}", response.text());
        let line = proxy.access_line_of(&path);
        assert_eq!(
            (&line["reason"], &line["cause"]),
            (&"unauthorized".into(), &cause.into()),
            "{nth} {line}"
        );
        count += 1;
    }
    assert!(count >= 30, "{count}");
    let response = proxy.client().get("/bare");
    assert_eq!(
        (response.status, response.field("www-authenticate")),
        (401, Some("Bearer realm=\"portolan\""))
    );
    let good = issuer.one("good RS256");
    let twice = format!("Authorization: Bearer {good}\r\n").repeat(2);
    let mut client = proxy.client();
    assert_eq!(client.send(format!("GET /two HTTP/1.1\r\nHost: a\r\n{twice}\r\n")).response().status, 401);
    assert_eq!(with(&proxy, "/role", issuer.one("insufficient")), 403);
    assert_eq!(proxy.access_line_of("/role")["cause"], "insufficient_claims");
    assert!(origin.requests().is_empty());
    let seen = format!("{:?}{}", proxy.access_log(), proxy.log());
    assert!(!seen.contains(good) && !seen.contains("eyJ"), "{seen}");
}

#[test]
fn a_token_remembered_ends_when_it_ends() {
    let (issuer, origin) = (Issuer::new(), Origin::saying(""));
    let proxy = issuer.proxy("public_key: rsa.pem, audience: api", &origin);
    let token = issuer.one("short");
    if with(&proxy, "/", token) == 200 {
        until("it has expired", || with(&proxy, "/", token) == 401);
    }
    assert_eq!(proxy.access_line(|line| line["status"] == 401)["cause"], "token_expired");
}

#[test]
fn keys_come_from_files_and_secrets_and_algorithms_are_pinned() {
    let (issuer, origin) = (Issuer::new(), Origin::saying(""));
    let secret = "secret: \"${file:secret}\"";
    for (settings, good, bad) in [
        ("public_key: rsa.pem", "good PS384", "good EdDSA"),
        ("public_key: p256.pem", "good ES256", "good ES384"),
        ("public_key: p384.pem", "good ES384", "good RS256"),
        ("public_key: ed.pem", "good EdDSA", "bad algorithm_not_allowed"),
        ("public_key: rsa.pem, algorithms: RS512", "good RS512", "good RS256"),
        ("jwks: jwks, algorithms: [ES256, EdDSA]", "good EdDSA", "good ES384"),
        (secret, "secret HS512", "good RS256"),
        (&format!("{secret}, algorithms: [HS256]"), "secret HS256", "secret HS512"),
    ] {
        let proxy = issuer.proxy(settings, &origin);
        assert_eq!(with(&proxy, "/", issuer.one(good)), 200, "{settings}");
        assert_eq!(with(&proxy, "/bad", issuer.one(bad)), 401, "{settings}");
        assert_eq!(proxy.access_line_of("/bad")["cause"], "algorithm_not_allowed", "{settings}");
    }
}

#[test]
fn a_token_is_taken_from_where_it_is_said_to_stand() {
    let (issuer, origin) = (Issuer::new(), Origin::saying(""));
    let token = issuer.one("good ES256");
    for (from, path, arguments) in [
        ("cookie:token", "/in".to_owned(), vec!["-b".to_owned(), format!("token={token}")]),
        ("query:t", format!("/in?t={token}"), vec![]),
        ("header:X-Token", "/in".to_owned(), vec!["-H".to_owned(), format!("X-Token: {token}")]),
    ] {
        let settings = format!("jwks: jwks, from: \"{from}\", strip: true, public: [/open], mode: enforce");
        let proxy = issuer.proxy(&settings, &origin);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_eq!(status(&proxy, &path, &arguments), "200", "{from}");
        assert_eq!(
            status(&proxy, "/out", &["-H", &format!("Authorization: Bearer {token}")]),
            "401",
            "{from}"
        );
        assert_eq!(status(&proxy, "/open", &[]), "200", "{from}");
        proxy.access_line_of("/in");
        let seen = format!("{:?}", proxy.access_log());
        assert!(!seen.contains(token), "{seen}");
    }
    for request in origin.requests() {
        assert!(!String::from_utf8_lossy(&request.raw).contains(token), "it stays here");
    }
}

#[test]
fn keys_are_read_again_and_what_observes_lets_in() {
    let (issuer, origin) = (Issuer::new(), Origin::saying(""));
    let mut proxy = issuer.proxy("public_key: rsa.pem", &origin);
    let token = issuer.one("good RS256");
    assert_eq!(with(&proxy, "/", token), 200);
    let before = proxy.generation();
    proxy.write("rsa.pem", issuer.one("stranger.pem"));
    proxy.wait_past(before);
    assert_eq!(with(&proxy, "/", token), 401, "the key has changed");
    let observing = "{ jwt: { public_key: rsa.pem, claims_to_headers: { sub: X-User }, mode: observe } }";
    proxy.change(&behind(observing, &origin));
    assert_eq!(with(&proxy, "/seen", token), 200);
    let line = proxy.access_line_of("/seen");
    assert_eq!(
        (&line["observed"][0], &line["cause"]),
        (&"unauthorized".into(), &"wrong_signature".into()),
        "{line}"
    );
    assert!(origin.requests().last().expect("a request").field("x-user").is_none(), "nobody vouches for it");
}
