//! Files of the repository that are configurations: all of them compile. And what a hostile one costs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::support::{Proxy, Tree, curl, portolan};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_readmes_examples_compile() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let examples = yaml_blocks(&readme);
    assert!(!examples.is_empty(), "the README has examples");
    for (line, example) in examples {
        let tree = Tree::new();
        supply(&tree);
        tree.write("portolan.yaml", with_what_it_leaves_out(&example));
        let outcome = portolan(&tree.path(""), &["check", "portolan.yaml"]);
        assert_eq!(outcome.code, 0, "README.md:{line}:\n{}{}", outcome.stdout, outcome.stderr);
    }
}

#[test]
fn every_middleware_stands_in_an_example_that_compiles() {
    let read = |file: &str| fs::read_to_string(repository().join(file)).unwrap();
    let mut examples = yaml_blocks(&read("README.md")).into_iter().map(|(_, text)| text).collect::<String>();
    examples += &read("conf.d/portolan.yaml");
    for kind in portolan::middleware::Config::KINDS {
        let opens = [format!("- {kind}:"), format!(" {kind}: {{"), format!("[{kind}: {{")];
        assert!(opens.iter().any(|open| examples.contains(open.as_str())), "no example has {kind}");
    }
}

#[test]
fn the_readme_lists_every_reason_with_its_status() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    for reason in portolan::error::Reason::ALL {
        let row = format!("| `{}` | {} | {} |", reason.code(), reason.status().as_u16(), reason.message());
        assert!(readme.lines().any(|line| line == row), "README.md lacks\n{row}");
    }
}

#[test]
fn every_shipped_configuration_compiles() {
    let mut found = Vec::new();
    let roots = [
        "conf.d/portolan.yaml",
        "packaging/portolan.yaml",
        "packaging/sidecar/portolan.yaml",
        "packaging/tenants/portolan.yaml",
    ];
    for root in roots.map(|root| repository().join(root)) {
        assert!(root.exists(), "{} is missing", root.display());
        let outcome = portolan(repository(), &["check", &root.to_string_lossy()]);
        if outcome.code != 0 {
            found.push(format!("{}:\n{}{}", root.display(), outcome.stdout, outcome.stderr));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_shipped_tests_pass() {
    for root in ["conf.d/portolan.yaml", "packaging/tenants/portolan.yaml"] {
        let outcome = portolan(repository(), &["test", root]);
        assert_eq!(outcome.code, 0, "{outcome:?}");
    }
}

#[test]
fn the_schema_is_not_stale() {
    let committed = fs::read_to_string(repository().join("schemas/portolan.schema.json")).unwrap();
    let stale = portolan(repository(), &["schema"]).stdout.trim() != committed.trim();
    assert!(!stale, "write it again: portolan schema > schemas/portolan.schema.json");
}

/// The shipped configuration as a newcomer runs it, on ports of the test's own.
#[test]
fn the_shipped_configuration_serves() {
    let tree = Tree::new();
    copy(&repository().join("conf.d"), &tree.path("conf.d"));
    let mut files: Vec<PathBuf> =
        fs::read_dir(tree.path("conf.d")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "yaml"));
    let [http, https, origin] = std::array::from_fn(|_| super::support::free_port());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let text = text.replace(":8080", &format!(":{http}")).replace(":8443", &format!(":{https}"));
        let text = text.replace(":8081", &format!(":{origin}"));
        fs::write(&file, text).unwrap();
    }
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["run", "conf.d/portolan.yaml"])
        .current_dir(tree.path(""))
        .env("RUNTIME_DIRECTORY", tree.path(""))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _guard = Killed(child);
    super::support::until("it serves", || curl(&["-f", &format!("http://127.0.0.1:{http}/")]).code == 0);
    let secure = curl(&["-fk", &format!("https://127.0.0.1:{https}/")]);
    assert_eq!(secure.code, 0, "{secure:?}");
}

#[test]
fn hostile_files_are_answered_in_bounded_time() {
    let bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x,x]\n{}",
        ('b'..='k')
            .map(|c| {
                let before = (c as u8 - 1) as char;
                format!("{c}: &{c} [{}]\n", vec![format!("*{before}"); 9].join(","))
            })
            .collect::<String>()
    );
    for (what, text) in [
        ("an alias bomb", bomb.into_bytes()),
        ("deep nesting", "[".repeat(100_000).into_bytes()),
        (
            "deep maps",
            (0..5000).map(|n| format!("{}a:\n", " ".repeat(n % 300))).collect::<String>().into_bytes(),
        ),
        ("ten megabytes", format!("hosts:\n{}", "  x: { names: [\"*\"] }\n".repeat(400_000)).into_bytes()),
        ("invalid UTF-8", b"listeners: \xff\xfe".to_vec()),
        ("a tab", b"listeners:\n\tweb: {}\n".to_vec()),
        ("nothing", Vec::new()),
        ("a NUL", b"listeners: \0".to_vec()),
    ] {
        let tree = Tree::new();
        tree.write("portolan.yaml", text);
        let start = Instant::now();
        let outcome = portolan(&tree.path(""), &["check", "portolan.yaml"]);
        assert_eq!(outcome.code, 1, "{what}: {}", &outcome.stderr[..outcome.stderr.len().min(500)]);
        assert!(start.elapsed() < Duration::from_secs(120), "{what}: {:?}", start.elapsed());
    }
}

#[test]
fn a_byte_order_mark_is_no_hindrance() {
    let tree = Tree::new();
    let yaml = "listeners: { web: { bind: \"127.0.0.1:0\" } }\nhosts: { a: { names: [\"*\"], routes: { a: { path: /, respond: {} } } } }\n";
    tree.write("portolan.yaml", format!("\u{feff}{yaml}"));
    let outcome = portolan(&tree.path(""), &["check", "portolan.yaml"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
}

#[test]
fn toml_says_the_same() {
    let tree = Tree::new();
    let toml = r#"
admin.bind = "unix:admin.sock"
listeners.web.bind = "127.0.0.1:0"
[hosts.all]
names = ["*"]
routes.all = { path = "/**", respond = { body = "toml" } }
"#;
    let main = tree.write("portolan.toml", toml);
    let proxy = Proxy::run(tree, &main);
    assert_eq!(proxy.client().get("/").text(), "toml");
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The blocks between ```yaml and ```, with the line that each begins at.
fn yaml_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line) {
            (None, "```yaml") => open = Some((number + 2, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, block)), line) => {
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

/// The README shows the sections that it speaks of; those around them are the same each time.
fn with_what_it_leaves_out(example: &str) -> String {
    let mut text = example.to_owned();
    for (section, rest) in [
        ("certificates:", "certificates: { local: { self_signed: [localhost] } }\n"),
        ("listeners:", "listeners: { web: { bind: \"127.0.0.1:0\" } }\n"),
        ("upstreams:", "upstreams: { app: { endpoints: [\"127.0.0.1:3000\"] } }\n"),
        (
            "hosts:",
            "hosts: { all: { names: [\"*\"], routes: { all: { path: \"/**\", proxy: { upstream: app } } } } }\n",
        ),
    ] {
        if !text.lines().any(|line| line.starts_with(section)) {
            text.push_str(rest);
        }
    }
    text
}

/// The files that the README's examples name.
fn supply(tree: &Tree) {
    let certificates = super::support::Certificates::new(tree);
    certificates.sign("example", &["example.com", "*.example.com"]);
    fs::create_dir_all(tree.path("certs")).unwrap();
    for (from, to) in [
        ("example.pem", "certs/example.com.pem"),
        ("example.key", "certs/example.com.key"),
        ("example.pem", "certs/inside.pem"),
        ("example.key", "certs/inside.key"),
        ("ca.pem", "certs/clients-ca.pem"),
        ("ca.pem", "certs/internal-ca.pem"),
    ] {
        fs::copy(tree.path(from), tree.path(to)).unwrap();
    }
    tree.write("pages/404.html", "<h1>Not here</h1>\n");
    tree.write("staff.htpasswd", "# nobody yet\n");
    tree.write("clients.keys", "");
    tree.write("schemas/order.json", "{}");
    tree.write("schemas/paging.json", "{}");
    let point = "A".repeat(43);
    let set = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{point}"}}]}}"#);
    tree.write("issuer.jwks.json", set);
    tree.write("pages/down.html", "<h1>Back soon</h1>\n");
    tree.write("welcome.html", "<h1>Welcome</h1>\n");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().expect("an entry has a name"));
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}
