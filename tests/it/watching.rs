//! How changes of the configuration's files are noticed: files that are written in place, and files that the system
//! does not watch.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    process::Command,
    time::Duration,
};

use super::support::{Proxy, Tree, portolan, until, waited};

const YAML: &str = r#"
include: ["parts/*.yaml"]
listeners: { web: { bind: "127.0.0.1:0" } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: WORD } } } } }
"#;

fn says(proxy: &Proxy, word: &str) -> bool {
    proxy.client().get("/").text() == word
}

/// Longer than a burst of changes is waited for.
const PAUSE: Duration = Duration::from_millis(1500);

/// Checks that no other generation goes live while the writer pauses.
#[track_caller]
fn assert_stays(proxy: &Proxy, generation: u64) {
    let other = waited(PAUSE, || Some(proxy.generation()).filter(|now| *now != generation));
    assert_eq!(other, None, "a half of the file went live");
}

#[test]
fn a_file_written_in_place_is_read_when_its_writer_has_closed_it() {
    let tree = Tree::new();
    fs::create_dir(tree.path("parts")).unwrap();
    let mut proxy = Proxy::start_in(tree, &YAML.replace("WORD", "one"));
    let before = proxy.generation();
    // Each half is a well-formed configuration of its own.
    let text = format!("admin: {{ bind: \"unix:admin.sock\" }}\n{}", YAML.replace("WORD", "two"));
    let mut file =
        OpenOptions::new().write(true).truncate(true).open(proxy.tree().path("portolan.yaml")).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    assert_stays(&proxy, before);
    file.write_all(
        b"tests: [{ request: { url: \"http://a.test/\", listener: web }, expect: { body: two } }]\n",
    )
    .unwrap();
    assert!(says(&proxy, "one"));
    drop(file);
    proxy.wait_past(before);
    assert!(says(&proxy, "two"));

    // A new file where a glob looks.
    let before = proxy.generation();
    let mut file = fs::File::create(proxy.tree().path("parts/more.yaml")).unwrap();
    file.write_all(b"drain_timeout: 5s\n").unwrap();
    assert_stays(&proxy, before);
    drop(file);
    proxy.wait_past(before);
}

/// Starts in a user namespace of its own, where a limit of inotify is zero. None where there are no such namespaces.
fn without(limit: &str) -> Option<Proxy> {
    let prepare = format!("echo 0 > /proc/sys/user/{limit}");
    let can = Command::new("unshare").args(["-r", "sh", "-c", &prepare]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("not run: there are no user namespaces");
        return None;
    }
    let tree = Tree::new();
    fs::create_dir(tree.path("parts")).unwrap();
    let program = ["unshare", "-r", "sh", "-c", &format!("{prepare}; exec \"$@\""), "sh"];
    Some(Proxy::start_by(&program, tree, &YAML.replace("WORD", "one")))
}

#[test]
fn files_that_the_system_does_not_watch_are_polled_and_that_is_told() {
    for (limit, named) in [
        ("max_inotify_watches", "fs.inotify.max_user_watches"),
        ("max_inotify_instances", "fs.inotify.max_user_instances"),
    ] {
        let Some(mut proxy) = without(limit) else { return };
        let before = proxy.generation();
        proxy.write("portolan.yaml", &YAML.replace("WORD", "two"));
        proxy.wait_past(before);
        assert!(says(&proxy, "two"));
        let before = proxy.generation();
        proxy.write("parts/new.yaml", "drain_timeout: 5s\n");
        proxy.wait_past(before);

        let warnings =
            proxy.log().lines().filter(|line| line.contains("WARN") && line.contains("polled")).count();
        assert_eq!(warnings, 1, "{}", proxy.log());
        assert!(proxy.log().contains(named), "{}", proxy.log());
        let status = proxy.status();
        assert_eq!(status["watching"]["by"], "polling", "{status}");
        let socket = proxy.tree().path("admin.sock").display().to_string();
        let shown = portolan(&proxy.tree().path(""), &["status", "--socket", &socket]).stdout;
        assert!(shown.contains("polled every 2s") && shown.contains(named), "{shown}");
        let health = proxy.admin().get("/health").text();
        assert!(health.contains("files_polled") && health.contains(named), "{health}");
    }
}

#[test]
fn files_that_the_system_watches_are_no_news() {
    let tree = Tree::new();
    fs::create_dir(tree.path("parts")).unwrap();
    let proxy = Proxy::start_in(tree, &YAML.replace("WORD", "one"));
    assert_eq!(proxy.status()["watching"]["by"], "events");
    until("it is healthy", || proxy.admin().get("/health").text() == r#"{"status":"ok","causes":[]}"#);
}

/// The soft limit of open files is raised to the hard one.
#[test]
fn the_limit_of_open_files_is_raised() {
    let tree = Tree::new();
    fs::create_dir(tree.path("parts")).unwrap();
    let program = ["sh", "-c", "ulimit -Sn 300; ulimit -Hn 3000; exec \"$@\"", "sh"];
    let proxy = Proxy::start_by(&program, tree, &YAML.replace("WORD", "one"));
    let limits = fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().filter(|word| *word == "3000").count(), 2, "{line}");
    assert!(proxy.log().contains("raised the limit of open files"), "{}", proxy.log());
}
