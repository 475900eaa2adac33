//! Certificate and key files that hold something else, as openssl makes them: `check` says what is in them, and what to do.

use super::support::{Outcome, Tree, openssl, portolan};

/// The files of a certificate, and what openssl makes of them.
struct Files(Tree);

impl Files {
    fn new() -> Self {
        let files = Self(Tree::new());
        let subject = ["-subj", "/CN=a.test", "-addext", "subjectAltName=DNS:a.test"];
        let new = ["req", "-x509", "-days", "30", "-nodes", "-newkey", "rsa:2048"];
        for (key, cert) in [("a.key", "a.pem"), ("b.key", "b.pem")] {
            files.make(&[&new[..], &["-keyout", key, "-out", cert], &subject].concat());
        }
        files
    }

    /// Runs openssl where the files lie.
    #[track_caller]
    fn make(&self, arguments: &[&str]) {
        let paths: Vec<String> = arguments
            .iter()
            .map(|word| match word.rsplit_once('.') {
                Some((_, "pem" | "key" | "der" | "p12" | "p7b" | "csr" | "pub" | "ext")) => {
                    self.0.path(word).to_string_lossy().into_owned()
                }
                _ => (*word).to_owned(),
            })
            .collect();
        let run = openssl(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(run.code, 0, "{arguments:?} {run:?}");
    }

    /// What `check` says of this pair of files.
    fn check(&self, cert: &str, key: &str) -> Outcome {
        self.0.write(
            "portolan.yaml",
            format!(
                "certificates: {{ a: {{ cert: {cert}, key: {key} }} }}\n\
                 listeners: {{ web: {{ bind: \"127.0.0.1:0\", tls: {{ certificates: [a] }} }} }}\n\
                 hosts: {{ all: {{ names: [\"*\"], routes: {{ all: {{ path: \"/**\", respond: {{}} }} }} }} }}\n"
            ),
        );
        portolan(&self.0.path(""), &["check", "portolan.yaml"])
    }

    #[track_caller]
    fn assert_told(&self, (cert, key): (&str, &str), parts: &[&str]) {
        let outcome = self.check(cert, key);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        for part in parts {
            assert!(
                outcome.stderr.contains(part),
                "{part} is not said of {cert} and {key}:\n{}",
                outcome.stderr
            );
        }
    }

    fn read(&self, name: &str) -> String {
        self.0.read(name)
    }
}

#[test]
fn encrypted_keys_are_called_encrypted_and_the_way_out_works() {
    let files = Files::new();
    let pass = ["-aes256", "-passout", "pass:sesame"];
    files.make(
        &[&[
            "pkcs8",
            "-topk8",
            "-v2",
            "aes256",
            "-passout",
            "pass:sesame",
            "-in",
            "a.key",
            "-out",
            "pkcs8.key",
        ][..]]
        .concat(),
    );
    files.make(&[&["rsa", "-traditional", "-in", "a.key", "-out", "pkcs1.key"][..], &pass].concat());
    files.make(&[
        "pkcs8",
        "-topk8",
        "-v2",
        "aes256",
        "-passout",
        "pass:sesame",
        "-outform",
        "DER",
        "-in",
        "a.key",
        "-out",
        "pkcs8-key.der",
    ]);
    assert!(files.read("pkcs1.key").contains("Proc-Type: 4,ENCRYPTED"));
    for name in ["pkcs8.key", "pkcs1.key"] {
        let help = format!("openssl pkey -in {name} -out {name}.pem");
        files
            .assert_told(("a.pem", name), &["error[bad-certificate]", "the private key is encrypted", &help]);
        files.make(&["pkey", "-passin", "pass:sesame", "-in", name, "-out", "plain.key"]);
        assert_eq!(files.check("a.pem", "plain.key").code, 0);
    }
    files.assert_told(
        ("a.pem", "pkcs8-key.der"),
        &["the private key is encrypted", "openssl pkey -inform der -in pkcs8-key.der"],
    );
}

#[test]
fn binary_files_are_called_what_they_are() {
    let files = Files::new();
    files.make(&["x509", "-outform", "DER", "-in", "a.pem", "-out", "cert.der"]);
    files.make(&["pkey", "-outform", "DER", "-in", "a.key", "-out", "key.der"]);
    files.make(&[
        "pkcs12",
        "-export",
        "-passout",
        "pass:sesame",
        "-inkey",
        "a.key",
        "-in",
        "a.pem",
        "-out",
        "a.p12",
    ]);
    files.make(&["crl2pkcs7", "-nocrl", "-certfile", "a.pem", "-out", "pem.p7b"]);
    files.make(&["crl2pkcs7", "-nocrl", "-certfile", "a.pem", "-outform", "DER", "-out", "der.p7b"]);
    files.make(&[
        "req",
        "-new",
        "-key",
        "a.key",
        "-subj",
        "/CN=a.test",
        "-outform",
        "DER",
        "-out",
        "csr.der",
    ]);
    for (pair, said, help) in [
        (
            ("cert.der", "a.key"),
            "a certificate in DER",
            "openssl x509 -inform der -in cert.der -out cert.der.pem",
        ),
        (
            ("a.pem", "key.der"),
            "a private key in DER",
            "openssl pkey -inform der -in key.der -out key.der.pem",
        ),
        (("a.p12", "a.key"), "a PKCS#12 archive", "openssl pkcs12 -in a.p12 -nokeys -out a.p12.pem"),
        (("a.pem", "a.p12"), "a PKCS#12 archive", "openssl pkcs12 -in a.p12 -nocerts -nodes -out a.p12.key"),
        (("pem.p7b", "a.key"), "a PKCS#7 bundle", "openssl pkcs7 -print_certs -in pem.p7b"),
        (("der.p7b", "a.key"), "a PKCS#7 bundle", "openssl pkcs7 -inform der -print_certs -in der.p7b"),
        (
            ("csr.der", "a.key"),
            "a certificate signing request",
            "name the certificate that the authority issued",
        ),
    ] {
        files.assert_told(pair, &["error[bad-certificate]", said, help]);
    }
    // The way out works.
    files.make(&["pkcs12", "-in", "a.p12", "-passin", "pass:sesame", "-nokeys", "-out", "out.pem"]);
    files.make(&[
        "pkcs12",
        "-in",
        "a.p12",
        "-passin",
        "pass:sesame",
        "-nocerts",
        "-nodes",
        "-out",
        "out.key",
    ]);
    assert_eq!(files.check("out.pem", "out.key").code, 0);
}

#[test]
fn pem_files_of_another_kind_are_called_what_they_are() {
    let files = Files::new();
    files.make(&["req", "-new", "-key", "a.key", "-subj", "/CN=a.test", "-out", "a.csr"]);
    files.make(&["pkey", "-in", "a.key", "-pubout", "-out", "a.pub"]);
    files.make(&["x509", "-in", "a.pem", "-trustout", "-out", "trusted.pem"]);
    files.0.write("two.key", files.read("a.key") + &files.read("b.key"));
    files.0.write("cut.key", files.read("a.key").replace("-----END PRIVATE KEY-----\n", ""));
    files.0.write("joined.pem", files.read("a.pem").trim_end().to_owned() + &files.read("b.pem"));
    files.0.write("wrong-order.pem", files.read("b.pem") + &files.read("a.pem"));
    let utf16 = |name: &str| -> Vec<u8> {
        format!("\u{feff}{}", files.read(name)).encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    files.0.write("utf16.pem", utf16("a.pem"));
    files.0.write("utf16.key", utf16("a.key"));
    files.0.write("empty.pem", "");
    for (pair, parts) in [
        (
            ("a.csr", "a.key"),
            &["a certificate signing request (CSR)", "name the certificate that the authority issued"][..],
        ),
        (("a.pem", "a.csr"), &["a certificate signing request (CSR)", "name the file of the private key"]),
        (("a.pub", "a.key"), &["there is a public key in it, but no certificate"]),
        (
            ("a.pem", "a.pub"),
            &["there is a public key in it, but no private key", "name the file of the private key"],
        ),
        (("a.key", "a.pem"), &["a private key in it, but no certificate", "cert and key may be swapped"]),
        (
            ("a.pem", "a.pem"),
            &["a certificate in it, but no private key", "name the file of the private key"],
        ),
        (("trusted.pem", "a.key"), &["an OpenSSL trusted certificate", "openssl x509 -in trusted.pem"]),
        (
            ("a.pem", "two.key"),
            &["there are 2 private keys in it", "keep the key that belongs to the certificate"],
        ),
        (("a.pem", "cut.key"), &["the file is cut off"]),
        (("joined.pem", "a.key"), &["two PEM sections share a line", "put a line break"]),
        (
            ("wrong-order.pem", "a.key"),
            &["the private key is that of certificate 2", "put certificate 2 first"],
        ),
        (("utf16.pem", "a.key"), &["UTF-16", "save it as UTF-8"]),
        (("a.pem", "utf16.key"), &["UTF-16", "save it as UTF-8"]),
        (("empty.pem", "a.key"), &["the file is empty"]),
        (("a.pem", "b.key"), &["error[certificate-mismatch]", "certificate and key do not match"]),
    ] {
        files.assert_told(pair, parts);
    }
}

#[test]
fn a_certificate_of_an_old_version_is_called_that() {
    let files = Files::new();
    files.make(&["req", "-new", "-key", "a.key", "-subj", "/CN=a.test", "-out", "a.csr"]);
    files.make(&["x509", "-req", "-in", "a.csr", "-signkey", "a.key", "-days", "30", "-out", "v1.pem"]);
    files.assert_told(("v1.pem", "a.key"), &["the certificate is X.509 version 1", "subjectAltName"]);
}

#[test]
fn a_private_key_among_certificates_is_warned_of_and_one_file_for_both_is_not() {
    let files = Files::new();
    files.0.write("both.pem", files.read("a.pem") + &files.read("a.key"));
    let warned = files.check("both.pem", "a.key");
    assert_eq!(warned.code, 0, "{warned:?}");
    for part in ["warning[", "both.pem holds a private key beside the certificate", "remove the private key"]
    {
        assert!(warned.stderr.contains(part), "{part} in {warned:?}");
    }
    let one = files.check("both.pem", "both.pem");
    assert_eq!(one.code, 0, "{one:?}");
    assert!(!one.stderr.contains("private key"), "{one:?}");
}

/// Marks, ends of lines and comments in any encoding are no matter.
#[test]
fn right_files_are_taken_however_they_were_saved() {
    let files = Files::new();
    for name in ["a.pem", "a.key"] {
        let text = files.read(name);
        files.0.write(format!("bom-{name}"), format!("\u{feff}{text}"));
        files.0.write(format!("crlf-{name}"), text.replace('\n', "\r\n"));
        files.0.write(format!("latin-{name}"), [b"subject=Gr\xfc\xdfe\n", text.as_bytes()].concat());
    }
    for before in ["bom-", "crlf-", "latin-"] {
        let outcome = files.check(&format!("{before}a.pem"), &format!("{before}a.key"));
        assert_eq!(outcome.code, 0, "{before} {outcome:?}");
    }
    files.make(&["ecparam", "-name", "prime256v1", "-genkey", "-out", "ec.key"]);
    files.make(&["req", "-x509", "-key", "ec.key", "-subj", "/CN=a.test", "-days", "30", "-out", "ec.pem"]);
    let with_parameters = files.check("ec.pem", "ec.key");
    assert_eq!(with_parameters.code, 0, "{with_parameters:?}");
}

/// The same reader stands behind authorities and the public keys of tokens.
#[test]
fn authorities_and_public_keys_are_told_alike() {
    let files = Files::new();
    files.make(&["x509", "-outform", "DER", "-in", "a.pem", "-out", "ca.der"]);
    files.make(&["rsa", "-in", "a.key", "-RSAPublicKey_out", "-out", "rsa.pub"]);
    let check = |more: &str, tls: &str, middleware: &str| {
        files.0.write(
            "portolan.yaml",
            format!(
                "certificates: {{ a: {{ cert: a.pem, key: a.key }} }}\n\
                 listeners: {{ web: {{ bind: \"127.0.0.1:0\", tls: {{ certificates: [a]{tls} }} }} }}\n{more}\
                 hosts: {{ all: {{ names: [\"*\"], middleware: [{middleware}], routes: {{ all: {{ path: \"/**\", respond: {{}} }} }} }} }}\n"
            ),
        );
        portolan(&files.0.path(""), &["check", "portolan.yaml"]).stderr
    };
    let upstream = "upstreams: { up: { endpoints: [\"10.0.0.1:1\"], tls: { ca: ca.der } } }\n";
    let jwt = |file: &str| format!("jwt: {{ public_key: {file} }}");
    for (said, parts) in [
        (check(upstream, "", ""), ["a certificate in DER", "openssl x509 -inform der -in ca.der"]),
        (
            check("", ", client_auth: { ca: ca.der }", ""),
            ["a certificate in DER", "openssl x509 -inform der -in ca.der"],
        ),
        (check("", "", &jwt("rsa.pub")), ["a public key in it", "openssl rsa -RSAPublicKey_in -in rsa.pub"]),
        (
            check("", "", &jwt("a.pem")),
            ["there is a certificate in it, but no public key", "openssl x509 -in a.pem -noout -pubkey"],
        ),
        (
            check("", "", &jwt("a.key")),
            ["there is a private key in it, but no public key", "openssl pkey -in a.key -pubout"],
        ),
    ] {
        for part in parts {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}
