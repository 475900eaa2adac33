//! Redis, as it is.

use std::process::{Child, Command, Stdio};

use super::{Certificates, Tree, free_port, proxy::signal, until};

/// A Redis of a test's own, which keeps nothing on disk.
pub struct Redis {
    child: Child,
    tree: Tree,
    port: u16,
    over_tls: bool,
}

impl Redis {
    #[track_caller]
    pub fn start() -> Self {
        Self::run(Tree::new(), false)
    }

    /// One that takes TLS alone, with a certificate of a private authority, from who is `app` with the password `p@ss`.
    #[track_caller]
    pub fn secured() -> Self {
        let tree = Tree::new();
        Certificates::new(&tree).sign("server", &["127.0.0.1"]);
        Self::run(tree, true)
    }

    #[track_caller]
    fn run(tree: Tree, over_tls: bool) -> Self {
        let port = free_port();
        let redis = Self { child: run(&tree, port, over_tls), tree, port, over_tls };
        redis.wait();
        redis
    }

    /// A section of a configuration that has it.
    pub fn section(&self) -> String {
        let port = self.port;
        match self.over_tls {
            false => format!("redis: {{ url: \"redis://127.0.0.1:{port}\" }}"),
            true => format!(
                "redis: {{ url: \"rediss://app:p%40ss@127.0.0.1:{port}\", ca: {}, timeout: 1s }}",
                self.tree.path("ca.pem").display()
            ),
        }
    }

    /// What it answers to a command.
    #[track_caller]
    pub fn ask(&self, command: &[&str]) -> String {
        let port = self.port.to_string();
        let mut client = Command::new("redis-cli");
        client.args(["-p", &port]);
        if self.over_tls {
            client.args(["--no-auth-warning", "--user", "app", "--pass", "p@ss", "--tls", "--cacert"]);
            client.arg(self.tree.path("ca.pem"));
        }
        let output = client.args(command).output();
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
        self.child = run(&self.tree, self.port, self.over_tls);
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

fn run(tree: &Tree, port: u16, over_tls: bool) -> Child {
    let file = |name: &str| tree.path(name).display().to_string();
    let place = match over_tls {
        false => format!("port {port}"),
        true => format!(
            "port 0\ntls-port {port}\ntls-auth-clients no\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
             user default off\nuser app on >p@ss ~* &* +@all",
            file("server.pem"),
            file("server.key"),
            file("ca.pem")
        ),
    };
    let rest = format!("bind 127.0.0.1\nsave \"\"\nappendonly no\ndir {}", file(""));
    Command::new("redis-server")
        .arg(tree.write("redis.conf", format!("{place}\n{rest}\n")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed: tests/install")
}
