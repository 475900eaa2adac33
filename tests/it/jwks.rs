//! Keys that are fetched from an issuer in Python, which changes them and fails.

use super::{
    auth::behind,
    jwt::with,
    support::{Origin, Proxy, Python, curl, until},
};

pub struct Issuer {
    _python: Python,
    pub port: u16,
    tokens: Vec<(String, String)>,
}

impl Issuer {
    pub fn start() -> Self {
        let mut python = Python::run(include_str!("support/jwks.py"), &[]);
        let port = python.line().parse().expect("its port");
        let mut token = || {
            let line = python.line();
            let (name, token) = line.split_once(' ').expect("a name and a token");
            (name.to_owned(), token.to_owned())
        };
        let tokens = vec![token(), token(), token()];
        Self { _python: python, port, tokens }
    }

    pub fn token(&self, name: &str) -> &str {
        let found = self.tokens.iter().find(|(found, _)| found == name);
        &found.unwrap_or_else(|| panic!("no {name}")).1
    }

    /// Tells it something, or asks it.
    fn ask(&self, what: &str) -> String {
        curl(&[&format!("http://127.0.0.1:{}/{what}", self.port)]).stdout
    }

    fn fetches(&self) -> usize {
        self.ask("fetches").parse().expect("a number")
    }

    fn config(&self, settings: &str, origin: &Origin) -> String {
        let jwks = format!("jwks: \"http://127.0.0.1:{}/jwks\"", self.port);
        behind(&format!("{{ jwt: {{ {jwks}, claims_to_headers: {{ sub: X-User }} {settings} }} }}"), origin)
    }
}

#[test]
fn a_rotation_is_followed_at_once_and_a_key_that_is_gone_is_gone() {
    let (issuer, origin) = (Issuer::start(), Origin::saying(""));
    let proxy = Proxy::start(&issuer.config("", &origin));
    until("the first fetch", || with(&proxy, "/", issuer.token("one")) == 200);
    issuer.ask("keys?two");
    assert_eq!(with(&proxy, "/old", issuer.token("one")), 200, "its key is known until the set is fetched");
    assert_eq!(with(&proxy, "/new", issuer.token("two")), 200, "{:?}", proxy.access_log().last());
    assert_eq!(with(&proxy, "/gone", issuer.token("one")), 401);
    assert_eq!(proxy.access_line_of("/gone")["cause"], "unknown_key");
    assert_eq!(origin.requests().last().expect("a request").values("x-user"), ["ann"]);
    for _ in 0..30 {
        assert_eq!(with(&proxy, "/flood", issuer.token("stranger")), 401);
    }
    let fetches = issuer.fetches();
    assert!((2..=3).contains(&fetches), "{fetches} fetches: a flood of unknown keys is no flood of fetches");
}

#[test]
fn a_key_that_cannot_be_used_spoils_no_other_and_no_rotation() {
    let (issuer, origin) = (Issuer::start(), Origin::saying(""));
    issuer.ask("odd");
    let proxy = Proxy::start(&issuer.config("", &origin));
    until("the first fetch", || with(&proxy, "/", issuer.token("one")) == 200);
    issuer.ask("keys?two");
    assert_eq!(with(&proxy, "/new", issuer.token("two")), 200);
    assert_eq!(with(&proxy, "/gone", issuer.token("one")), 401);
    let log = proxy.log();
    for said in
        ["small", "must have 2048 to 8192 bits (got 1024)", "AKP", "P-521", "it lacks e", "it is not a JWK"]
    {
        assert!(log.contains(said), "{said}: {log}");
    }
    // Where none is left there is nothing to verify with, and the keys that are known stay.
    issuer.ask("keys?");
    assert_eq!(with(&proxy, "/", issuer.token("one")), 401);
}

#[test]
fn pinned_algorithms_hold_for_what_is_fetched() {
    let (issuer, origin) = (Issuer::start(), Origin::saying(""));
    issuer.ask("keys?one,two");
    let proxy = Proxy::start(&issuer.config(", algorithms: [ES256]", &origin));
    until("the first fetch", || with(&proxy, "/", issuer.token("two")) == 200);
    assert_eq!(with(&proxy, "/pinned", issuer.token("one")), 401);
    assert_eq!(proxy.access_line_of("/pinned")["cause"], "algorithm_not_allowed");
}

#[test]
fn nobody_passes_before_there_are_keys_and_they_outlive_their_issuer() {
    let (issuer, origin) = (Issuer::start(), Origin::saying(""));
    issuer.ask("status?500");
    let mut proxy = Proxy::start(&issuer.config(", refresh: 50ms", &origin));
    assert_eq!(with(&proxy, "/early", issuer.token("one")), 503);
    let line = proxy.access_line_of("/early");
    assert_eq!((&line["reason"], &line["cause"]), (&"keys_unavailable".into(), &"no_keys".into()));
    assert_eq!(proxy.client().get("/bare").status, 401);
    until("it is said", || proxy.log().contains("status 500"));
    assert!(origin.requests().is_empty());

    issuer.ask("status?200");
    until("a fetch that ends well", || with(&proxy, "/", issuer.token("one")) == 200);
    issuer.ask("keys?one,two");
    until("the interval", || with(&proxy, "/", issuer.token("two")) == 200);
    issuer.ask("status?404");
    until("it is said", || proxy.log().contains("status 404"));
    assert_eq!(with(&proxy, "/", issuer.token("two")), 200);

    let (later, token) = (issuer.config(", refresh: 1h", &origin), issuer.token("two").to_owned());
    drop(issuer);
    proxy.change(&later);
    assert_eq!(with(&proxy, "/", &token), 200, "what was known is known after a reload");
    until("one task", || proxy.metric("portolan_tasks{kind=\"jwks\"}") == Some(1.0));
    proxy.change(&behind("{ recover: {} }", &origin));
    until("no task", || proxy.metric("portolan_tasks{kind=\"jwks\"}") == Some(0.0));
    assert!(!proxy.log().contains(&token));
}
