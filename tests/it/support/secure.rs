//! A proxy with a listener `secure` for TLS, and the clients that trust it.

use serde_json::{Value, json};

use super::{Certificates, Http3, Proxy, Tree, curl};

/// A proxy that has a certificate for localhost, and the file of the authority that signed it.
pub struct Secure {
    pub proxy: Proxy,
    pub ca: String,
}

impl Secure {
    /// Starts with this configuration, which finds the certificate in `web.pem` and `web.key`.
    #[track_caller]
    pub fn start(yaml: &str) -> Self {
        let tree = Tree::new();
        let certificates = Certificates::new(&tree);
        certificates.sign("web", &["localhost"]);
        Self { proxy: Proxy::start_in(tree, yaml), ca: certificates.ca() }
    }

    /// What curl prints for a path over HTTP/2.
    #[track_caller]
    pub fn curl(&self, path: &str, arguments: &[&str]) -> String {
        let url = format!("https://localhost:{}{path}", self.proxy.port("secure"));
        let run = curl(&[&["--http2", "--cacert", &self.ca, &url][..], arguments].concat());
        assert_eq!(run.code, 0, "{run:?}");
        run.stdout
    }

    /// Starts a client of HTTP/3.
    #[track_caller]
    pub fn run(&self, what: &str, specification: Value) -> Http3 {
        Http3::run(what, self.proxy.port("secure"), &self.ca, specification)
    }

    /// The answers to these requests over HTTP/3, at once on one connection.
    #[track_caller]
    pub fn ask(&self, requests: Value) -> Vec<Value> {
        self.run("requests", json!({ "requests": requests })).all()
    }

    #[track_caller]
    pub fn ask_one(&self, request: Value) -> Value {
        self.ask(json!([request])).remove(0)
    }
}
