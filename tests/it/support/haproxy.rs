//! HAProxy, before Portolan.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use super::{Tree, config, free_port, until};

/// A HAProxy of a test's own that hands connections on as they come.
pub struct Haproxy {
    child: Child,
    _tree: Tree,
    pub port: u16,
}

const CONFIGURATION: &str = r"
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen all
  bind 127.0.0.1:PORT BIND
  server one 127.0.0.1:TO SERVER
";

impl Haproxy {
    /// `bind` and `server` are further words of the two lines.
    #[track_caller]
    pub fn before(to: u16, bind: &str, server: &str) -> Self {
        let (tree, port) = (Tree::new(), free_port());
        let words: [(&str, &dyn std::fmt::Display); 4] =
            [("PORT", &port), ("BIND", &bind), ("TO", &to), ("SERVER", &server)];
        let file = tree.write("haproxy.cfg", config(CONFIGURATION, &words));
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let child = Command::new("haproxy")
            .env("PATH", path)
            .args(["-db", "-f"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy is installed: tests/install");
        let mut haproxy = Self { child, _tree: tree, port };
        until("haproxy is up", || {
            assert!(haproxy.child.try_wait().unwrap().is_none(), "haproxy has ended");
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        haproxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
