//! The real binary, run as an operator runs it.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use serde_json::Value;

use super::{Client, Origin, Tree, config, eventually, until};

/// A running Portolan. What it logs and what it writes lies in its tree.
pub struct Proxy {
    child: Child,
    tree: Tree,
    ports: Vec<(String, Vec<String>)>,
    /// Where it is administered.
    socket: String,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

const MAIN: &str = "portolan.yaml";
const ADMIN: &str = "admin.sock";

/// Runs the binary to its end.
pub fn portolan<I: AsRef<std::ffi::OsStr>>(directory: &Path, arguments: &[I]) -> Outcome {
    command().current_dir(directory).args(arguments).output().expect("the binary runs").into()
}

/// A configuration that sends everything from the listener `web` to these endpoints.
pub fn to(endpoints: &[&dyn std::fmt::Display]) -> String {
    let list: Vec<String> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
    config(
        r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { origin: { endpoints: [ENDPOINTS] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#,
        &[("ENDPOINTS", &list.join(", "))],
    )
}

impl Proxy {
    /// Starts with this configuration and waits until it serves.
    #[track_caller]
    pub fn start(yaml: &str) -> Self {
        Self::start_in(Tree::new(), yaml)
    }

    /// Everything goes to one origin.
    #[track_caller]
    pub fn before(origin: &Origin) -> Self {
        Self::start(&to(&[&origin.address()]))
    }

    /// As [`Proxy::start`], beside files that the test has written.
    #[track_caller]
    pub fn start_in(tree: Tree, yaml: &str) -> Self {
        let main = tree.write(MAIN, complete(yaml));
        Self::run(tree, &main)
    }

    /// As [`Proxy::start`], administered where the configuration says it is.
    #[track_caller]
    pub fn administered(yaml: &str, socket: String) -> Self {
        let tree = Tree::new();
        let main = tree.write(MAIN, complete(yaml));
        Self::run_by(tree, &main, socket)
    }

    /// Runs a file of the tree that says where its admin socket is: `admin.sock` in the tree.
    #[track_caller]
    pub fn run(tree: Tree, main: &Path) -> Self {
        let socket = tree.path(ADMIN).to_string_lossy().into_owned();
        Self::run_by(tree, main, socket)
    }

    #[track_caller]
    pub fn run_by(tree: Tree, main: &Path, socket: String) -> Self {
        let mut run = command();
        run.arg("run").arg(main);
        Self::spawn(tree, run, socket)
    }

    /// As [`Proxy::start_in`], run by a program that takes the command as its last arguments and becomes it.
    #[track_caller]
    pub fn start_by(program: &[&str], tree: Tree, yaml: &str) -> Self {
        let main = tree.write(MAIN, complete(yaml));
        let socket = tree.path(ADMIN).to_string_lossy().into_owned();
        let mut run = Command::new(program[0]);
        run.args(&program[1..]).arg(env!("CARGO_BIN_EXE_portolan")).arg("run").arg(main);
        Self::spawn(tree, run, socket)
    }

    #[track_caller]
    fn spawn(tree: Tree, mut run: Command, socket: String) -> Self {
        let stdout = File::create(tree.path("stdout")).unwrap();
        let stderr = File::create(tree.path("stderr")).unwrap();
        let child = run
            .current_dir(tree.path(""))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("the binary starts");
        let mut proxy = Self { child, tree, ports: Vec::new(), socket };
        proxy.refresh();
        proxy
    }

    /// Asks again for the listeners' addresses.
    #[track_caller]
    pub fn refresh(&mut self) {
        let status = eventually("the proxy is up", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the proxy ended with {status}:\n{}", self.log());
            }
            self.try_status()
        });
        self.ports = listeners(&status);
    }

    /// The port of a listener.
    #[track_caller]
    pub fn port(&self, listener: &str) -> u16 {
        let addresses = self.ports.iter().find(|(name, _)| name == listener).map(|(_, list)| list);
        let addresses = addresses.unwrap_or_else(|| panic!("no listener {listener} in {:?}", self.ports));
        let port = addresses.iter().find_map(|address| address.rsplit_once(':')?.1.parse().ok());
        port.unwrap_or_else(|| panic!("no port in {addresses:?}"))
    }

    pub fn url(&self, listener: &str, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port(listener))
    }

    /// A new connection to the listener `web`.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::tcp(self.port("web"))
    }

    /// Writes a file of the tree, the main one as `portolan.yaml`, in one step as editors do.
    pub fn write(&self, name: &str, text: &str) {
        let text = if name == MAIN { complete(text) } else { text.to_owned() };
        let new = self.tree.write(format!("{name}.new"), text);
        fs::rename(new, self.tree.path(name)).unwrap();
    }

    /// Replaces the main file and waits until the change is live.
    #[track_caller]
    pub fn change(&mut self, yaml: &str) {
        let before = self.generation();
        self.write(MAIN, yaml);
        self.wait_past(before);
    }

    /// Waits until a later generation than this is live.
    #[track_caller]
    pub fn wait_past(&mut self, generation: u64) {
        until("a new generation", || self.generation() > generation);
        self.refresh();
    }

    /// A new connection to its admin socket.
    #[track_caller]
    pub fn admin(&self) -> Client {
        Client::unix(self.tree.path(ADMIN))
    }

    /// What Prometheus would be shown.
    #[track_caller]
    pub fn metrics(&self) -> String {
        let response = self.admin().get("/metrics");
        assert_eq!(response.status, 200);
        response.text()
    }

    /// The value of one series, its labels written as they are shown; none where there is no such series.
    #[track_caller]
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(value.parse().expect("a number"))
    }

    pub fn reload(&self) -> Outcome {
        portolan(&self.tree.path(""), &["reload", "--socket", &self.socket])
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        eventually("status", || self.try_status())
    }

    fn try_status(&self) -> Option<Value> {
        let arguments = ["status", "--socket", &self.socket, "--format", "json"];
        let outcome = portolan(&self.tree.path(""), &arguments);
        (outcome.code == 0).then(|| serde_json::from_str(&outcome.stdout).expect("status in JSON"))
    }

    #[track_caller]
    pub fn generation(&self) -> u64 {
        self.status()["generation"].as_u64().expect("a generation")
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged about itself.
    pub fn log(&self) -> String {
        self.tree.read("stderr")
    }

    /// The access log so far.
    pub fn access_log(&self) -> Vec<Value> {
        let text = self.tree.read("stdout");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Waits for the first line of the access log that `wanted` accepts.
    #[track_caller]
    pub fn access_line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually("a line of the access log", || self.access_log().into_iter().find(&wanted))
    }

    /// Waits for the access log's line of a path.
    #[track_caller]
    pub fn access_line_of(&self, path: &str) -> Value {
        self.access_line(|line| line["path"] == path)
    }

    /// Bytes of memory that it holds now.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes * 1024
    }

    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs").count()
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the proxy ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            let _ = writeln!(std::io::stderr(), "--- the proxy's log ends with:\n{tail}");
        }
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "no signal {name} to {pid}");
}

fn command() -> Command {
    Command::new(PathBuf::from(env!("CARGO_BIN_EXE_portolan")))
}

/// Adds what every test wants, where the configuration does not say it: a socket to ask, a log to read.
fn complete(yaml: &str) -> String {
    let mut text = yaml.to_owned();
    for (key, line) in
        [("admin:", "admin: { bind: \"unix:admin.sock\" }\n"), ("process:", "process: { threads: 2 }\n")]
    {
        if !yaml.lines().any(|line| line.starts_with(key)) {
            text.push_str(line);
        }
    }
    text
}

/// The listeners' names and addresses in what `status` says.
fn listeners(status: &Value) -> Vec<(String, Vec<String>)> {
    let list = status["listeners"].as_array().expect("a list of listeners");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entry = |listener: &Value| {
        let addresses = listener["addresses"].as_array().into_iter().flatten().map(text).collect();
        (text(&listener["name"]), addresses)
    };
    list.iter().map(entry).collect()
}
