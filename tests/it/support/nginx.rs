//! nginx as the origin.

use std::process::{Child, Command, Stdio};

use super::{Tree, config, free_port, until};

/// An nginx of a test's own, in one process.
pub struct Nginx {
    child: Child,
    tree: Tree,
    port: u16,
}

const CONFIGURATION: &str = r#"
daemon off;
master_process off;
pid DIR/pid;
error_log DIR/error.log;
events { worker_connections 2048; }
http {
  log_format seen escape=json '{"method":"$request_method","target":"$request_uri","body":"$request_body","status":"$status"}';
  access_log off;
  client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi;
  uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
  client_max_body_size 0;
  keepalive_requests 1000000;
  server { listen 127.0.0.1:PORT EXTRA; root DIR/root; SERVER }
}
"#;

impl Nginx {
    /// Answers every path with `body`.
    #[track_caller]
    pub fn saying(body: &str) -> Self {
        Self::serving(&format!("location / {{ return 200 \"{body}\"; }}"))
    }

    /// Runs with these directives in its one server; files lie in `root/` of its tree.
    #[track_caller]
    pub fn serving(server: &str) -> Self {
        Self::start(Tree::new(), free_port(), "", server)
    }

    /// As [`Nginx::serving`], with parameters of `listen` (ssl, http2) and files already in the tree.
    #[track_caller]
    pub fn start(tree: Tree, port: u16, listen: &str, server: &str) -> Self {
        let directory = tree.path("");
        let words: [(&str, &dyn std::fmt::Display); 4] =
            [("SERVER", &server), ("DIR", &directory.display()), ("PORT", &port), ("EXTRA", &listen)];
        tree.write("nginx.conf", config(CONFIGURATION, &words));
        let child = run(&tree);
        let mut nginx = Self { child, tree, port };
        nginx.wait();
        nginx
    }

    fn wait(&mut self) {
        until("nginx is up", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "nginx ended: {}", self.tree.read("error.log"));
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Ends it at once, with every connection that it has.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) {
        self.child = run(&self.tree);
        self.wait();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(tree: &Tree) -> Child {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new("nginx")
        .env("PATH", path)
        .arg("-p")
        .arg(tree.path(""))
        .arg("-c")
        .arg(tree.path("nginx.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx is installed: tests/install")
}
