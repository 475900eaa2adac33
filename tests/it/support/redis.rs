//! Redis, as it is.

use std::process::{Child, Command, Stdio};

use super::{Tree, free_port, proxy::signal, until};

/// A Redis of a test's own, which keeps nothing on disk.
pub struct Redis {
    child: Child,
    tree: Tree,
    port: u16,
}

impl Redis {
    #[track_caller]
    pub fn start() -> Self {
        let (tree, port) = (Tree::new(), free_port());
        let redis = Self { child: run(&tree, port), tree, port };
        redis.wait();
        redis
    }

    /// A section of a configuration that has it.
    pub fn section(&self) -> String {
        format!("redis: {{ url: \"redis://127.0.0.1:{}\" }}", self.port)
    }

    /// What it answers to a command.
    #[track_caller]
    pub fn ask(&self, command: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(command).output();
        let output = output.expect("redis-cli is installed: tests/install");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Ends it at once, with all that it knows.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    #[track_caller]
    pub fn restart(&mut self) {
        self.child = run(&self.tree, self.port);
        self.wait();
    }

    /// Lets it answer nothing, its connections open.
    pub fn freeze(&self) {
        signal(self.child.id(), "STOP");
    }

    pub fn thaw(&self) {
        signal(self.child.id(), "CONT");
    }

    #[track_caller]
    fn wait(&self) {
        until("redis is up", || self.ask(&["PING"]) == "PONG");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(tree: &Tree, port: u16) -> Child {
    Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
        ])
        .arg(tree.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed: tests/install")
}
