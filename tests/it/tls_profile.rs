//! What a listener offers of TLS: Mozilla's intermediate profile where nothing is said, the modern one from TLS 1.3 on.

use serde_json::Value;

use super::support::{Proxy, Python, Tree, config, openssl, testssl};

struct Secure {
    proxy: Proxy,
    /// The file of the authority's certificate.
    ca: String,
}

impl std::ops::Deref for Secure {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

/// A listener whose certificate has a key of this kind, lasts as long as the profiles allow, and is signed.
fn secure(key: &str, tls: &str) -> Secure {
    let tree = Tree::new();
    let kind = |key: &str| match key {
        "rsa" => vec!["-newkey", "rsa:2048"],
        _ => vec!["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    };
    let path = |name: &str| tree.path(name).to_string_lossy().into_owned();
    let (ca, ca_key, request) = (path("ca.pem"), path("ca.key"), path("site.csr"));
    let (cert, file, extensions) = (path("site.pem"), path("site.key"), path("extensions"));
    tree.write(
        "extensions",
        "subjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\n\
         extendedKeyUsage=serverAuth\n",
    );
    let authority =
        ["req", "-x509", "-nodes", "-days", "80", "-subj", "/CN=Authority", "-keyout", &ca_key, "-out", &ca];
    let signs = ["-addext", "keyUsage=critical,keyCertSign"];
    made(&[&authority[..], &kind("ec"), &signs].concat());
    let asks = ["req", "-nodes", "-subj", "/CN=localhost", "-keyout", &file, "-out", &request];
    made(&[&asks[..], &kind(key)].concat());
    made(&[
        "x509",
        "-req",
        "-days",
        "80",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-extfile",
        &extensions,
        "-out",
        &cert,
    ]);
    let yaml = r#"
certificates: { site: { cert: site.pem, key: site.key } }
listeners: { secure: { bind: "127.0.0.1:0", tls: { certificates: [site] TLS } } }
hosts:
  all:
    names: ["*"]
    routes:
      all: { path: "/**", middleware: [{ security_headers: { hsts: { max_age: 365d } } }], respond: { body: ok } }
"#;
    Secure { proxy: Proxy::start_in(tree, &config(yaml, &[("TLS", &tls)])), ca }
}

#[track_caller]
fn made(arguments: &[&str]) {
    let run = openssl(arguments);
    assert_eq!(run.code, 0, "{run:?}");
}

/// The suite and more that is agreed with a client that offers just this, at the lowest of its own security levels.
fn agreed(proxy: &Proxy, arguments: &[&str]) -> Option<String> {
    let address = format!("127.0.0.1:{}", proxy.port("secure"));
    let run = openssl(&[&["s_client", "-connect", &address][..], arguments].concat());
    let begun = run.stdout.contains("Cipher is ") && !run.stdout.contains("Cipher is (NONE)");
    begun.then_some(run.stdout)
}

/// The suites of those that openssl knows which the listener takes, one handshake for each.
fn suites(proxy: &Proxy, version: &str) -> Vec<String> {
    let (known, switch, level) = match version {
        "-tls1_3" => (TLS13_KNOWN.to_owned(), "-ciphersuites", ""),
        _ => {
            let known = openssl(&["ciphers", "-tls1_2", "-s", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]).stdout;
            assert!(known.contains("3DES") || known.contains("CBC") || known.contains("-SHA:"), "{known}");
            (known, "-cipher", ":@SECLEVEL=0")
        }
    };
    let is_of_it = |suite: &&str| suite.starts_with("TLS_") == (version == "-tls1_3");
    let takes = |suite: &&str| agreed(proxy, &[version, switch, &format!("{suite}{level}")]).is_some();
    let mut taken: Vec<_> =
        known.trim().split(':').filter(is_of_it).filter(takes).map(str::to_owned).collect();
    taken.sort();
    taken
}

const TLS13_KNOWN: &str = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:\
    TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256";
const TLS13: [&str; 3] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// The intermediate profile's, without DHE, which ring does not have; all of them with forward secrecy and AEAD.
fn intermediate(key: &str) -> Vec<String> {
    ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"]
        .map(|suite| format!("ECDHE-{key}-{suite}"))
        .into()
}

#[test]
fn the_default_is_the_intermediate_profile() {
    for (key, name) in [("ec", "ECDSA"), ("rsa", "RSA")] {
        let proxy = secure(key, "");
        assert_eq!(suites(&proxy, "-tls1_3"), TLS13, "{key}");
        assert_eq!(suites(&proxy, "-tls1_2"), intermediate(name), "{key}");
        for old in ["-tls1_1", "-tls1"] {
            assert!(agreed(&proxy, &[old, "-cipher", "ALL:@SECLEVEL=0"]).is_none(), "{key} {old}");
        }
    }
}

#[test]
fn from_1_3_on_it_is_the_modern_profile() {
    let proxy = secure("ec", ", min_version: 1.3");
    assert_eq!(suites(&proxy, "-tls1_3"), TLS13);
    for old in ["-tls1_2", "-tls1_1", "-tls1"] {
        assert!(agreed(&proxy, &[old, "-cipher", "ALL:@SECLEVEL=0"]).is_none(), "{old}");
    }
}

#[test]
fn curves_are_those_of_the_profile() {
    // In TLS 1.2 a client's curves bind the certificate's key as well, where that has one.
    let proxy = secure("rsa", "");
    for version in ["-tls1_2", "-tls1_3"] {
        for (group, is_taken) in
            [("X25519", true), ("P-256", true), ("P-384", true), ("P-521", false), ("X448", false)]
        {
            let said = agreed(&proxy, &[version, "-groups", group]);
            assert_eq!(said.is_some(), is_taken, "{version} {group}");
        }
    }
    for group in ["ffdhe2048", "ffdhe3072"] {
        assert!(agreed(&proxy, &["-tls1_3", "-groups", group]).is_none(), "{group}");
    }
}

#[test]
fn nothing_is_compressed_or_negotiated_again() {
    let proxy = secure("ec", "");
    let said = agreed(&proxy, &["-tls1_2", "-comp"]).expect("a connection");
    assert!(said.contains("Compression: NONE"), "{said}");
    // The extension that makes renegotiation safe is there (RFC 5746); that it is refused is in hostile.rs.
    assert!(said.contains("Secure Renegotiation IS supported"), "{said}");
    assert!(said.contains("Extended master secret: yes"), "{said}");
    assert!(agreed(&proxy, &["-tls1_2", "-sigalgs", "ECDSA+SHA1"]).is_none(), "SHA-1 signs nothing");
}

/// sslyze compares by itself what it finds, the certificate too, with what Mozilla asks for.
#[test]
fn sslyze_has_no_finding() {
    for (key, tls, profile) in
        [("ec", "", "intermediate"), ("rsa", "", "intermediate"), ("ec", ", min_version: 1.3", "modern")]
    {
        let secure = secure(key, tls);
        let target = format!("localhost:{}", secure.port("secure"));
        let program = "import runpy; runpy.run_module('sslyze', run_name='__main__')";
        let arguments = ["--certinfo_ca_file", &secure.ca, "--mozilla_config", profile, &target];
        let said = Python::run(program, &arguments).finish();
        assert!(said.contains("OK - Compliant."), "{key} {profile}: {said}");
    }
}

/// What testssl.sh is right to find in a test's certificate, which nobody revokes.
const OF_THE_CERTIFICATE: [&str; 1] = ["cert_revocation"];

/// Checks by which one can tell that a whole run took place: of protocols, suites, the server, the answer, weaknesses.
const CHECKS: [&str; 8] = [
    "TLS1_2",
    "TLS1_3",
    "cipherlist_STRONG",
    "cert_chain_of_trust",
    "HSTS_time",
    "heartbleed",
    "ROBOT",
    "RC4",
];

#[track_caller]
fn testssl_finds_nothing(tls: &str) {
    let secure = secure("ec", tls);
    let findings = testssl(&format!("localhost:{}", secure.port("secure")), &secure.ca, secure.tree());
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    for check in CHECKS {
        assert!(findings.iter().any(|finding| finding["id"] == check), "{check} was not looked at");
    }
    let grave = |finding: &&Value| {
        let is_grave = ["MEDIUM", "HIGH", "CRITICAL", "FATAL"].contains(&text(finding, "severity").as_str());
        is_grave && !OF_THE_CERTIFICATE.contains(&text(finding, "id").as_str())
    };
    let grave: Vec<_> = findings.iter().filter(grave).collect();
    assert!(grave.is_empty(), "{grave:#?}");
}

#[test]
fn testssl_finds_nothing_above_low() {
    testssl_finds_nothing("");
}

#[test]
fn testssl_finds_nothing_above_low_from_1_3_on() {
    testssl_finds_nothing(", min_version: 1.3");
}
