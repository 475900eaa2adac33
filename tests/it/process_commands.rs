//! `portolan reload` and `portolan status` speak to the process that is meant, or to none.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use super::support::{Outcome, Proxy, Tree, until};

const YAML: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: WORD } } } } }
"#;

/// Runs the binary where default admin sockets lie in a directory of the test's own.
fn command(runtime: &Path, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command.env_remove("PORTOLAN_ADMIN_TOKEN").env_remove("XDG_RUNTIME_DIR");
    command.env("RUNTIME_DIRECTORY", runtime).current_dir(directory).args(arguments);
    command
}

fn run(runtime: &Path, directory: &Path, arguments: &[&str]) -> Outcome {
    command(runtime, directory, arguments).output().unwrap().into()
}

/// A process on the default socket of its runtime directory.
struct Running {
    child: Child,
    tree: Tree,
}

impl Running {
    fn start(tree: Tree) -> Self {
        tree.write("run/none", "");
        tree.write("portolan.yaml", YAML.replace("WORD", "one") + "process: { threads: 1 }\n");
        let mut command = command(&tree.path("run"), &tree.path(""), &["run", "portolan.yaml"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let running = Self { child, tree };
        until("it runs", || running.ask(&running.tree.path(""), &["status"]).code == 0);
        running
    }

    fn ask(&self, directory: &Path, arguments: &[&str]) -> Outcome {
        run(&self.tree.path("run"), directory, arguments)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_configuration_that_does_not_parse_leads_to_no_other_process() {
    let other = Running::start(Tree::new());
    let tree = Tree::new();
    for (text, shown) in [
        ("listeners: [\n", "error[syntax]"),
        ("admin: { bind: 127 }\n", "error["),
        ("include: gone.yaml\n", "error[include-missing]"),
        ("", "error[empty-file]"),
    ] {
        tree.write("portolan.yaml", text);
        for arguments in [&["reload"][..], &["status"], &["reload", "--config", "portolan.yaml"]] {
            let outcome = other.ask(&tree.path(""), arguments);
            assert_eq!(
                (outcome.code, outcome.stdout.as_str()),
                (1, ""),
                "{arguments:?} {text:?} {outcome:?}"
            );
            for part in [shown, "--socket ADDRESS"] {
                assert!(outcome.stderr.contains(part), "{part} in {outcome:?}");
            }
        }
    }
    let outcome = other.ask(&tree.path(""), &["reload", "--config", "gone.yaml"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    // The way that is named leads there all the same.
    let socket = other.tree.path("run/admin.sock");
    let named = other.ask(&tree.path(""), &["status", "--socket", &socket.to_string_lossy()]);
    assert_eq!(named.code, 0, "{named:?}");
}

#[test]
fn the_default_place_of_another_configuration_is_not_taken_for_its_own() {
    let other = Running::start(Tree::new());
    let tree = Tree::new();
    let file = tree.write("portolan.yaml", YAML.replace("WORD", "two"));
    for arguments in [&["reload"][..], &["status"], &["reload", "--config", "portolan.yaml"]] {
        let outcome = other.ask(&tree.path(""), arguments);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (3, ""), "{outcome:?}");
        let runs = other.tree.path("portolan.yaml").display().to_string();
        for part in [&format!("process {}", other.child.id()), &runs, "--socket ADDRESS"] {
            assert!(outcome.stderr.contains(part), "{part} in {outcome:?}");
        }
    }
    // Its own, by whatever path, and where nothing was named or found.
    let elsewhere = Tree::new();
    std::os::unix::fs::symlink(other.tree.path("portolan.yaml"), elsewhere.path("linked.yaml")).unwrap();
    drop(file);
    for (directory, arguments) in [
        (&other.tree, &["reload"][..]),
        (&elsewhere, &["reload", "--config", "linked.yaml"]),
        (&elsewhere, &["status"]),
    ] {
        let outcome = other.ask(&directory.path(""), arguments);
        assert_eq!(outcome.code, 0, "{arguments:?} {outcome:?}");
    }
}

#[test]
fn the_process_and_its_configuration_are_named() {
    let proxy = Proxy::start(&YAML.replace("WORD", "one"));
    let (pid, path) = (proxy.pid(), proxy.tree().path("portolan.yaml").display().to_string());
    let reload = proxy.reload();
    assert!(reload.stdout.starts_with(&format!("process {pid}, {path}: generation 2 is live")), "{reload:?}");
    proxy.write("portolan.yaml", "listeners: [");
    let refused = proxy.reload();
    assert!(
        refused.stderr.contains(&format!("process {pid}, {path}: the configuration is refused")),
        "{refused:?}"
    );
    let status = proxy.status();
    assert_eq!((&status["pid"], &status["configuration"]), (&pid.into(), &path.clone().into()));
    let socket = proxy.tree().path("admin.sock");
    let shown =
        super::support::portolan(&proxy.tree().path(""), &["status", "--socket", &socket.to_string_lossy()]);
    assert!(shown.stdout.contains(&path) && shown.stdout.contains(&format!("process {pid}")), "{shown:?}");
}

/// Both want the default socket.
#[test]
fn a_second_process_is_told_how_to_get_a_socket_of_its_own() {
    let first = Running::start(Tree::new());
    let tree = Tree::new();
    tree.write("portolan.yaml", YAML.replace("WORD", "two"));
    let outcome = first.ask(&tree.path(""), &["run", "portolan.yaml"]);
    assert_eq!(outcome.code, 3, "{outcome:?}");
    for part in
        ["admin.sock", "running already", "admin: { bind: \"unix:/run/portolan/NAME.sock\" }", "--socket"]
    {
        assert!(outcome.stderr.contains(part), "{part} in {outcome:?}");
    }
}
