//! Who is let in by a certificate, and what upstreams are told of it: certificates that openssl has made, shown by curl.

use super::support::{Origin, Proxy, Tree, config, curl, openssl};

const TREE: &str = r#"
certificates: { local: { self_signed: [localhost] } }
listeners:
  secure: { bind: "127.0.0.1:0", tls: { certificates: [local], client_auth: { ca: ca.pem, mode: optional } } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts:
  all:
    names: ["*"]
    middleware: [mtls: MTLS]
    routes: { all: { path: "/**", proxy: { upstream: origin } } }
"#;

/// Who holds a certificate: the name of its files, the subject as openssl takes it, the alternative names.
const HOLDERS: [(&str, &str, &str); 6] = [
    ("ann", "/C=DE/O=Acme, Inc./CN=ann", "email:ann@example.com"),
    ("forger", "/CN=ann,O=Acme\\\\, Inc.,C=DE", "DNS:forger.example"),
    ("shop", "/CN=shop", "DNS:shop.svc.example,URI:spiffe://example.org/ns/shop/sa/web"),
    (
        "shopkeeper",
        "/CN=shopkeeper",
        "DNS:svc.example,DNS:shop.svc.example.org,URI:spiffe://example.org/ns/shopkeeper",
    ),
    ("mixed", "/CN=shop.svc.example", "email:spiffe://example.org/ns/shop@example.org,DNS:example.com"),
    ("umlaut", "/O=Bär \\+ Söhne/CN=jürgen", "DNS:umlaut.example"),
];

struct Holders(Tree);

impl Holders {
    fn new() -> Self {
        let holders = Self(Tree::new());
        let (ca, ca_key) = (holders.file("ca.pem"), holders.file("ca.key"));
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-utf8"];
        run(&[&["req", "-x509", "-out", &ca, "-keyout", &ca_key, "-subj", "/CN=authority"][..], &key]
            .concat());
        for (name, subject, sans) in HOLDERS {
            let (own, private) = (holders.file(&format!("{name}.pem")), holders.file(&format!("{name}.key")));
            let names = format!("subjectAltName={sans}");
            let request = ["req", "-x509", "-CA", &ca, "-CAkey", &ca_key, "-out", &own, "-keyout", &private];
            let leaf = ["-subj", subject, "-addext", &names, "-addext", "basicConstraints=critical,CA:FALSE"];
            run(&[&request[..], &leaf, &key].concat());
        }
        holders
    }

    fn file(&self, name: &str) -> String {
        self.0.path(name).to_string_lossy().into_owned()
    }

    /// What openssl says of a certificate.
    fn said(&self, name: &str, arguments: &[&str]) -> String {
        let file = self.file(&format!("{name}.pem"));
        let said = run(&[&["x509", "-noout", "-in", &file], arguments].concat());
        said.trim().split_once('=').expect("what it is, and that").1.trim().to_owned()
    }

    fn subject(&self, name: &str) -> String {
        self.said(name, &["-subject", "-nameopt", "RFC2253"])
    }

    fn proxy(self, settings: &str, origin: &Origin) -> Guarded {
        let directory = self.0.path("");
        Guarded { proxy: Proxy::start_in(self.0, &tree(settings, origin)), directory }
    }
}

fn tree(settings: &str, origin: &Origin) -> String {
    config(TREE, &[("MTLS", &settings), ("ORIGIN", &origin.address())])
}

fn run(arguments: &[&str]) -> String {
    let run = openssl(arguments);
    assert_eq!(run.code, 0, "{arguments:?}: {run:?}");
    run.stdout
}

struct Guarded {
    proxy: Proxy,
    directory: std::path::PathBuf,
}

impl Guarded {
    /// The status and the body that curl gets, with somebody's certificate.
    fn ask(&self, holder: Option<&str>, path: &str, arguments: &[&str]) -> (String, String) {
        let file = |name: &str, kind: &str| {
            self.directory.join(format!("{name}.{kind}")).to_string_lossy().into_owned()
        };
        let url = format!("https://localhost:{}{path}", self.proxy.port("secure"));
        let shown = holder.map_or(Vec::new(), |name| {
            vec!["--cert".to_owned(), file(name, "pem"), "--key".to_owned(), file(name, "key")]
        });
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        let run = curl(&[&["-k", "-w", "\n%{http_code}", &url][..], &shown, arguments].concat());
        let (body, status) = run.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("no status: {run:?}"));
        (status.to_owned(), body.to_owned())
    }

    fn status(&self, holder: Option<&str>, path: &str) -> String {
        let [first, second] = ["--http1.1", "--http2"].map(|version| self.ask(holder, path, &[version]).0);
        assert_eq!(first, second, "{holder:?} {path}: each protocol says the same");
        first
    }

    /// Who of all is let in.
    fn let_in(&self) -> Vec<&'static str> {
        let all = HOLDERS.iter().map(|(name, ..)| *name);
        all.filter(|name| match self.status(Some(name), "/").as_str() {
            "200" => true,
            "403" => false,
            other => panic!("{name}: {other}"),
        })
        .collect()
    }
}

#[test]
fn each_list_lets_in_whom_it_names_and_nobody_else() {
    let origin = Origin::saying("");
    let holders = Holders::new();
    let [ann, umlaut, forger] = ["ann", "umlaut", "forger"].map(|name| holders.subject(name));
    let fingerprint = holders.said("shop", &["-fingerprint", "-sha256"]);
    assert!(fingerprint.contains(':'), "{fingerprint}");
    let plain = fingerprint.replace(':', "").to_lowercase();
    let mut guarded = holders.proxy("{ mode: observe }", &origin);
    for (settings, let_in) in [
        ("{}".to_owned(), HOLDERS.map(|(name, ..)| name).to_vec()),
        (format!("{{ subjects: ['{ann}', '{umlaut}'] }}"), vec!["ann", "umlaut"]),
        ("{ subjects: [CN=ann, 'CN=Ann,O=Acme\\, Inc.,C=DE'] }".into(), vec![]),
        (format!("{{ subjects: ['{forger}'] }}"), vec!["forger"]),
        (format!("{{ fingerprints: ['{fingerprint}'] }}"), vec!["shop"]),
        (format!("{{ fingerprints: '{plain}' }}"), vec!["shop"]),
        ("{ sans: { dns: '*.svc.example' } }".into(), vec!["shop"]),
        ("{ sans: { dns: [SVC.example, umlaut.example] } }".into(), vec!["shopkeeper", "umlaut"]),
        ("{ sans: { uri: 'spiffe://example.org/ns/shop/*' } }".into(), vec!["shop"]),
        ("{ sans: { uri: ['spiffe://example.org/ns/shopkeeper'] } }".into(), vec!["shopkeeper"]),
        ("{ sans: { email: '*@example.com' } }".into(), vec!["ann"]),
        (format!("{{ subjects: '{ann}', sans: {{ dns: shop.svc.example }} }}"), vec!["ann", "shop"]),
    ] {
        guarded.proxy.change(&tree(&settings, &origin));
        assert_eq!(guarded.let_in(), let_in, "{settings}");
        assert_eq!(guarded.status(None, "/none"), "403", "{settings}");
        assert_eq!(guarded.proxy.access_line_of("/none")["reason"], "certificate_required");
    }
}

#[test]
fn why_somebody_is_refused_is_said_to_the_log_alone() {
    let origin = Origin::saying("");
    let guarded = Holders::new().proxy("{ subjects: CN=shop, public: /health }", &origin);
    let (status, body) = guarded.ask(None, "/none", &[]);
    assert_eq!(status, "403");
    assert!(body.contains("certificate_required"), "{body}");
    let (status, body) = guarded.ask(Some("ann"), "/other", &[]);
    assert_eq!(status, "403");
    assert!(body.contains("forbidden") && !body.contains("certificate"), "{body}");
    let line = guarded.proxy.access_line_of("/other");
    assert_eq!((&line["reason"], &line["cause"]), (&"forbidden".into(), &"certificate_not_allowed".into()));
    assert!(origin.requests().is_empty());
    assert_eq!(guarded.status(None, "/health"), "200");
    assert_eq!(guarded.status(Some("ann"), "/health"), "200");
    assert_eq!(guarded.status(Some("shop"), "/"), "200");
    let refused = "portolan_middleware_decisions_total{decision=\"refused\",kind=\"mtls\"}";
    assert_eq!(guarded.proxy.metric(refused), Some(2.0));
}

#[test]
fn upstreams_are_told_and_nobody_else_can_tell_them() {
    let origin = Origin::saying("");
    let fields = "{ subject: X-Subject, issuer: X-Issuer, serial: X-Serial, fingerprint: X-Print, dns: X-DNS, \
                  uri: X-URI, email: X-Email }";
    let holders = Holders::new();
    let (subject, serial) = (holders.subject("ann"), holders.said("shop", &["-serial"]).to_lowercase());
    let print = holders.said("shop", &["-fingerprint", "-sha256"]).replace(':', "").to_lowercase();
    let guarded = holders.proxy(&format!("{{ headers: {fields}, public: /health }}"), &origin);
    let forged =
        ["-H", "X-Subject: root", "-H", "X_Subject: root", "-H", "X-DNS: root", "-H", "X-Email: root"];
    for version in ["--http1.1", "--http2"] {
        let before = origin.requests().len();
        let arguments = [&forged[..], &[version]].concat();
        for (holder, path) in
            [(Some("shop"), "/"), (Some("ann"), "/"), (None, "/health"), (Some("ann"), "/health")]
        {
            assert_eq!(guarded.ask(holder, path, &arguments).0, "200");
        }
        let requests = &origin.requests()[before..];
        let values = |nth: usize, name: &str| requests[nth].values(name).join(" | ");
        assert_eq!(values(0, "x-subject"), "CN=shop");
        assert_eq!(values(0, "x-issuer"), "CN=authority");
        assert_eq!(values(0, "x-serial").trim_start_matches('0'), serial.trim_start_matches('0'));
        assert_eq!(values(0, "x-print"), print);
        assert_eq!(values(0, "x-dns"), "shop.svc.example");
        assert_eq!(values(0, "x-uri"), "spiffe://example.org/ns/shop/sa/web");
        assert_eq!(
            (values(1, "x-subject"), values(1, "x-email")),
            (subject.clone(), "ann@example.com".into())
        );
        for (nth, name) in [(0, "x-email"), (1, "x-dns"), (2, "x-subject"), (2, "x-dns"), (3, "x-subject")] {
            assert_eq!(values(nth, name), "", "{nth} {name}");
        }
        assert!(requests.iter().all(|request| request.field("x_subject").is_none()));
    }
}

#[test]
fn what_only_observes_lets_in_and_vouches_for_nobody() {
    let origin = Origin::saying("");
    let settings = "{ subjects: CN=shop, headers: { subject: X-Subject }, mode: observe }";
    let guarded = Holders::new().proxy(settings, &origin);
    for (holder, path, reason) in
        [(None, "/none", "certificate_required"), (Some("ann"), "/other", "forbidden")]
    {
        assert_eq!(guarded.ask(holder, path, &["-H", "X-Subject: root"]).0, "200");
        assert_eq!(guarded.proxy.access_line_of(path)["observed"][0], reason);
    }
    assert!(origin.requests().iter().all(|request| request.field("x-subject").is_none()));
}
