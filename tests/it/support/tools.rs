//! Programs that we did not write.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use super::{Outcome, Tree};

/// What a program said and how it ended.
pub type Run = Outcome;

/// curl, silent, with a limit to its time.
#[track_caller]
pub fn curl(arguments: &[&str]) -> Run {
    let output =
        Command::new("curl").args(["-sS", "--noproxy", "*", "--max-time", "60"]).args(arguments).output();
    output.expect("curl is installed: tests/install").into()
}

/// openssl, with nothing on its input.
#[track_caller]
pub fn openssl(arguments: &[&str]) -> Run {
    let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output();
    output.expect("openssl is installed: tests/install").into()
}

/// What testssl.sh finds at an address, held against an authority: everything that it looks at but what each suite and each
/// client of old would get, which takes as long as all the rest.
#[track_caller]
pub fn testssl(address: &str, ca: &str, tree: &Tree) -> Vec<Value> {
    let file = tree.path("testssl.json");
    let output = Command::new(if runs("testssl") { "testssl" } else { "testssl.sh" })
        .args(["--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--add-ca", ca])
        .args(["--protocols", "--std", "--fs", "--server-preference", "--server-defaults", "--headers"])
        .args(["--vulnerable", "--jsonfile"])
        .args([file.as_os_str(), address.as_ref()])
        .stdin(Stdio::null())
        .output();
    let run: Run = output.expect("testssl.sh is installed: tests/install").into();
    serde_json::from_str(&tree.read(&file)).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// Whether there is a program of this name.
pub fn runs(name: &str) -> bool {
    let probe = Command::new(name).arg("--version").stdin(Stdio::null()).output();
    probe.is_ok_and(|output| output.status.success())
}

/// A Python program that has `aioquic`, `websockets`, `prometheus_client`, `jwt`, `cryptography`, `h2`, `wsproto`, `grpc`, `grpc_health`
/// and OpenTelemetry's messages; it is killed with this.
pub struct Python {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Python {
    #[track_caller]
    pub fn run(program: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(interpreter())
            .args(["-u", "-c", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python is installed: tests/install");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, output }
    }

    /// The next line that it prints.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Everything that it still prints, once it has ended well.
    #[track_caller]
    pub fn finish(mut self) -> String {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("text");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "python ended with {status}:\n{rest}");
        rest
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const MODULES: &str = "import aioquic, cryptography, grpc, grpc_health.v1, h2, jwt, opentelemetry.proto.collector.trace.v1, prometheus_client, websockets, \
     wsproto";

/// The first interpreter that has all that is imported: the one that `tests/install` made, the system's, the user's.
fn interpreter() -> String {
    let made = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python3");
    let has_all = |python: &&str| {
        let probe = Command::new(python).args(["-c", MODULES]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let found = [made, "/usr/bin/python3", "python3"].into_iter().find(has_all);
    found.expect("a Python with all that tests/install puts there").to_owned()
}
