//! A browser: Chromium without a window.

use std::process::{Command, Stdio};

use super::{Run, Tree, openssl, runs};

/// Debian's name for it, and those that it has elsewhere.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// It shall speak to nobody but who is tested, and without all that a machine for tests does not have.
const ALWAYS: [&str; 13] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-proxy-server",
    // A server that listens on IPv4 alone is refused on ::1, and over QUIC there is no second try.
    "--host-resolver-rules=MAP localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--timeout=60000",
    "--dump-dom",
];

/// Loads a page of https://localhost and says what it has become when it is loaded. The key in the certificate is trusted.
#[track_caller]
pub fn browse(port: u16, path: &str, certificate: &str, more: &[&str]) -> Run {
    let profile = Tree::new();
    let output = Command::new(program())
        .args(ALWAYS)
        .args([
            format!("--user-data-dir={}", profile.path("profile").display()),
            format!("--ignore-certificate-errors-spki-list={}", key_digest(certificate)),
        ])
        .args(more)
        .arg(format!("https://localhost:{port}{path}"))
        .env("HOME", profile.path(""))
        .stdin(Stdio::null())
        .output();
    output.expect("chromium is installed: tests/install").into()
}

fn program() -> &'static str {
    NAMES.into_iter().find(|name| runs(name)).expect("chromium is installed: tests/install")
}

/// The SHA-256 of a certificate's public key in Base64, as pins are written.
fn key_digest(certificate: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let said = openssl(&["x509", "-in", certificate, "-noout", "-pubkey"]);
    let lines = said.stdout.lines().filter(|line| !line.starts_with("--")).collect::<String>();
    let key = STANDARD.decode(lines).expect("a public key");
    STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, &key))
}
