//! Who is let in, and what upstreams are told of them.

use std::time::Instant;

use super::support::{Origin, Proxy, Tree, config, curl, until};

/// By `htpasswd -nbB -C 4 ann secret` and `argon2 -id`, both of "secret".
pub const BCRYPT: &str = "$2y$04$8DnHYFmuNA1L0eW3O2EBoODVmcfXlA/XPFj44XBH/1WehrElwZ./W";
const ARGON2ID: &str =
    "$argon2id$v=19$m=256,t=1,p=1$c29tZXNhbHQxMjM0$hMVqguGLO0b1lqHtVDG2/0oTOpuE+TLT+p5Oc3Svmus";

/// `printf %s secret | sha256sum`
const SHA256: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

pub fn behind(middleware: &str, origin: &Origin) -> String {
    let yaml = r#"
defaults: { middleware: [MIDDLEWARE] }
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    config(yaml, &[("MIDDLEWARE", &middleware), ("ORIGIN", &origin.address())])
}

/// The status that curl gets, with these arguments.
pub fn status(proxy: &Proxy, path: &str, arguments: &[&str]) -> String {
    let url = proxy.url("web", path);
    curl(&[&["-o", "/dev/null", "-w", "%{http_code}", &url], arguments].concat()).stdout
}

#[test]
fn a_users_password_lets_in_and_stays_here() {
    let origin = Origin::saying("");
    let tree = Tree::new();
    tree.write("users", format!("# people\nann:{BCRYPT}\nbob:{ARGON2ID}\n"));
    let part = "{ basic_auth: { file: users, realm: 'A \"B\"', forward_user: X-User, public: /health } }";
    let proxy = Proxy::start_in(tree, &behind(part, &origin));
    for user in ["ann:secret", "bob:secret", "ann:secret"] {
        assert_eq!(
            status(&proxy, "/in", &["-u", user, "-H", "X-User: root", "-H", "X_User: root"]),
            "200",
            "{user}"
        );
    }
    let names: Vec<_> =
        origin.requests().iter().map(|request| request.field("x-user").unwrap().to_owned()).collect();
    assert_eq!(names, ["ann", "bob", "ann"]);
    for request in origin.requests() {
        assert!(request.field("authorization").is_none() && request.field("x_user").is_none());
    }
    for user in ["ann:Secret", "ann:", "eve:secret", ":secret", "ann:secret "] {
        assert_eq!(status(&proxy, "/out", &["-u", user]), "401", "{user}");
    }
    let mut client = proxy.client();
    let response = client.get("/bare");
    assert_eq!(response.status, 401);
    assert_eq!(response.field("www-authenticate"), Some("Basic realm=\"A \\\"B\\\"\", charset=\"UTF-8\""));
    let line = proxy.access_line_of("/bare");
    assert_eq!(
        (&line["reason"], &line["cause"]),
        (&"unauthorized".into(), &"no_credentials".into()),
        "{line}"
    );
    assert_eq!(proxy.access_line_of("/out")["cause"], "wrong_password");
    assert_eq!(origin.requests().len(), 3);
    assert_eq!(status(&proxy, "/health", &["-H", "X-User: root"]), "200");
    assert!(origin.requests()[3].field("x-user").is_none(), "nobody vouches on public paths");
    let everything = format!("{}{:?}", proxy.log(), proxy.access_log());
    assert!(!everything.contains("secret") && !everything.contains("$2y$"), "{everything}");
}

#[test]
fn users_are_read_again_when_their_file_changes() {
    let origin = Origin::saying("");
    let tree = Tree::new();
    tree.write("users", format!("ann:{BCRYPT}\n"));
    let mut proxy = Proxy::start_in(tree, &behind("{ basic_auth: { file: users, strip: false } }", &origin));
    assert_eq!(status(&proxy, "/", &["-u", "ann:secret"]), "200");
    assert!(origin.request().field("authorization").is_some());
    let before = proxy.generation();
    proxy.write("users", &format!("bob:{BCRYPT}\n"));
    proxy.wait_past(before);
    assert_eq!(status(&proxy, "/", &["-u", "ann:secret"]), "401", "what was remembered went with the user");
    assert_eq!(status(&proxy, "/", &["-u", "bob:secret"]), "200");
    proxy.write("users", "bob:$apr1$x$y\n");
    until("the weak hash is reported", || proxy.log().contains("MD5 (apr1)"));
    assert_eq!(status(&proxy, "/", &["-u", "bob:secret"]), "200", "the users before stay");
}

/// By `htpasswd -nbB -C 12 ann secret`: checking it takes a while.
const SLOW: &str = "$2y$12$pfYTdXZRBY6n0xyVbQxaief3fIuRWLGKlyV/KUjMB7QCRedQtLiLm";

#[test]
fn a_reload_forgets_no_password_of_users_that_stay() {
    let origin = Origin::saying("");
    let tree = Tree::new();
    tree.write("users", format!("ann:{SLOW}\n"));
    let yaml = behind("{ basic_auth: { file: users, realm: REALM } }", &origin);
    let realm = |nth: usize| yaml.replace("REALM", &format!("realm{nth}"));
    let mut proxy = Proxy::start_in(tree, &realm(0));
    let taken = |proxy: &Proxy| {
        let began = Instant::now();
        assert_eq!(status(proxy, "/", &["-u", "ann:secret"]), "200");
        began.elapsed()
    };
    let checked = taken(&proxy);
    let after = (1..=5).map(|nth| {
        proxy.change(&realm(nth));
        taken(&proxy)
    });
    // The quickest of several: the machine has other things to do.
    let remembered = after.min().unwrap();
    assert!(remembered < checked / 2, "checked in {checked:?}, after a reload {remembered:?}");
}

#[test]
fn many_at_once_are_checked_beside_the_threads_that_serve() {
    let origin = Origin::saying("");
    let users = format!("{{ basic_auth: {{ users: {{ ann: {BCRYPT} }}, public: /quick }} }}");
    let proxy = Proxy::start(&behind(&users, &origin));
    std::thread::scope(|scope| {
        for nth in 0..24 {
            let proxy = &proxy;
            scope.spawn(move || {
                let (user, expected) =
                    if nth % 2 == 0 { ("ann:secret", "200") } else { ("ann:wrong", "401") };
                assert_eq!(status(proxy, "/", &["-u", user]), expected);
                assert_eq!(status(proxy, "/quick", &[]), "200");
            });
        }
    });
}

#[test]
fn a_key_lets_in_from_each_place_and_stays_here() {
    for (from, path, arguments) in [
        ("header:X-API-Key", "/a?x=1", &["-H", "X-API-Key: secret"][..]),
        ("cookie:key", "/a?x=1", &["-b", "a=1; key=secret; b=2"]),
        ("query:k", "/a?k=secret&x=1", &["-e", "http://a/?%6b=secret"]),
    ] {
        let origin = Origin::saying("");
        let tree = Tree::new();
        tree.write("keys", format!("app:{SHA256}\n"));
        let part = format!("{{ api_key: {{ file: keys, from: \"{from}\", forward_name: X-Client }} }}");
        let proxy = Proxy::start_in(tree, &behind(&part, &origin));
        let forged = [arguments, &["-H", "X-Client: root"]].concat();
        assert_eq!(status(&proxy, path, &forged), "200", "{from}");
        let request = origin.request();
        assert_eq!(request.field("x-client"), Some("app"), "{from}");
        let raw = String::from_utf8_lossy(&request.raw).replace("%6b=secret", "");
        assert!(!raw.contains("secret"), "{from}: {raw}");
        assert!(raw.starts_with("GET /a?x=1 "), "{raw}");
        assert_eq!(status(&proxy, "/none", &[]), "401", "{from}");
        proxy.access_line_of("/a");
        let seen = format!("{:?}{}", proxy.access_log(), proxy.log());
        assert!(!seen.contains("secret"), "{from}: {seen}");
        let line = proxy.access_line_of("/none");
        assert_eq!((&line["reason"], &line["cause"]), (&"unauthorized".into(), &"no_key".into()), "{line}");
    }
}

#[test]
fn a_wrong_key_or_two_of_them_are_refused() {
    let origin = Origin::saying("");
    let part = format!("{{ api_key: {{ keys: {{ app: {SHA256} }}, public: [\"/open/**\"] }} }}");
    let proxy = Proxy::start(&behind(&part, &origin));
    assert_eq!(status(&proxy, "/wrong", &["-H", "X-API-Key: other"]), "401");
    assert_eq!(status(&proxy, "/hash", &["-H", &format!("X-API-Key: {SHA256}")]), "401");
    assert_eq!(status(&proxy, "/two", &["-H", "X-API-Key: secret", "-H", "X-API-Key: other"]), "401");
    assert_eq!(proxy.access_line_of("/two")["cause"], "several_keys");
    assert!(origin.requests().is_empty());
    assert_eq!(status(&proxy, "/open/a", &[]), "200");
    assert_eq!(status(&proxy, "/open/../shut", &["--path-as-is"]), "401");
    let response = proxy.client().get("/bare");
    assert_eq!(response.field("www-authenticate"), Some("ApiKey realm=\"portolan\""));
}

#[test]
fn what_only_observes_lets_in_and_still_vouches_for_nobody() {
    for (part, cause) in [
        (
            format!(
                "{{ basic_auth: {{ users: {{ ann: {BCRYPT} }}, forward_user: X-User, mode: observe }} }}"
            ),
            "no_credentials",
        ),
        (
            format!("{{ api_key: {{ keys: {{ app: {SHA256} }}, forward_name: X-User, mode: observe }} }}"),
            "no_key",
        ),
    ] {
        let origin = Origin::saying("");
        let proxy = Proxy::start(&behind(&part, &origin));
        assert_eq!(status(&proxy, "/", &["-H", "X-User: root"]), "200");
        assert!(origin.request().field("x-user").is_none());
        let line = proxy.access_line_of("/");
        assert_eq!((&line["observed"][0], &line["cause"]), (&"unauthorized".into(), &cause.into()), "{line}");
    }
}
