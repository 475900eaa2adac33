//! Where delegated files and forward targets lead: never to the admin API or to link-local addresses, and to this machine
//! only where the operator allows it.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
    thread,
};

use super::support::{Origin, Outcome, Proxy, Tree, free_port, portolan, until};

const MAIN: &str = r#"
include: { files: site.yaml, tenant: acme, hosts: ["*"] MORE }
listeners: { web: { bind: "127.0.0.1:0" } }
tenants: { acme: {} }
"#;

fn main(more: &str) -> String {
    MAIN.replace(" MORE", more)
}

/// A tenant's site that proxies everything to one endpoint.
fn site(endpoint: &str) -> String {
    format!(
        "upstreams: {{ up: {{ endpoints: [\"{endpoint}\"], retry: {{ retries: 0 }} }} }}\n\
         hosts: {{ www: {{ names: [\"*\"], routes: {{ all: {{ path: \"/**\", proxy: {{ upstream: up }} }} }} }} }}\n"
    )
}

fn check(main: &str, site: &str) -> Outcome {
    let tree = Tree::new();
    tree.write("portolan.yaml", main);
    tree.write("site.yaml", site);
    portolan(&tree.path(""), &["check", "portolan.yaml"])
}

#[track_caller]
fn assert_denied(outcome: &Outcome, reason: &str) {
    assert_eq!(outcome.code, 1, "{outcome:?}");
    for part in ["error[denied-address]", reason] {
        assert!(outcome.stderr.contains(part), "{part} in {}", outcome.stderr);
    }
}

/// Also with the file beside the root, named without a directory: that is no symlink to anywhere.
#[test]
fn this_machine_is_denied_unless_the_operator_allows_it() {
    for (endpoint, rule, narrowest) in [
        ("127.0.0.1:80", "127.0.0.0/8", "127.0.0.1"),
        ("127.8.0.1:80", "127.0.0.0/8", "127.8.0.1"),
        ("0.0.0.0:80", "127.0.0.0/8", "127.0.0.0/8"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.0/8", "127.0.0.1"),
        ("[::1]:80", "::1", "::1"),
        ("unix:/run/app.sock", "unix:*", "unix:*"),
    ] {
        let denied = check(&main(""), &site(endpoint));
        assert_denied(&denied, &format!("{rule} is denied to delegated files by default"));
        assert!(denied.stderr.contains(&format!("allow_upstreams: [\"{narrowest}\"]")), "{denied:?}");
        let allow = ", allow_upstreams: [127.0.0.0/8, \"::1\", \"unix:*\"]";
        let allowed = check(&main(allow), &site(endpoint));
        assert_eq!(allowed.code, 0, "{endpoint}: {allowed:?}");
        let listed = check(&main(&format!("{allow}, deny_upstreams: [\"{rule}\"]")), &site(endpoint));
        assert_denied(&listed, &format!("deny_upstreams has {rule}"));
    }
    assert_eq!(check(&main(""), &site("10.0.0.1:80")).code, 0);
}

#[test]
fn link_local_addresses_are_denied_whatever_is_allowed() {
    for endpoint in ["169.254.169.254:80", "[::ffff:169.254.1.1]:80", "[fe80::1]:80"] {
        assert_denied(&check(&main(""), &site(endpoint)), "are always denied to delegated files");
    }
    for rule in ["169.254.0.0/16", "fe80::/10", "10.0.0.0/8"] {
        let outcome = check(&main(&format!(", allow_upstreams: [\"{rule}\"]")), &site("10.0.0.1:80"));
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains("allow_upstreams has no effect"), "{outcome:?}");
    }
}

#[test]
fn the_admin_api_is_no_endpoint_however_it_is_written() {
    let allow = ", allow_upstreams: [127.0.0.0/8, \"::1\", \"unix:*\"]";
    for (bind, endpoint) in [
        ("127.0.0.1:9901", "127.0.0.1:9901"),
        ("127.0.0.1:9901", "0.0.0.0:9901"),
        ("127.0.0.1:9901", "[::ffff:127.0.0.1]:9901"),
        ("0.0.0.0:9901", "127.0.0.3:9901"),
        (":9901", "[::1]:9901"),
        ("unix:/run/portolan/own.sock", "unix:/run/portolan/own.sock"),
    ] {
        let admin = format!("admin: {{ bind: \"{bind}\", token: 0123456789abcdef }}\n");
        let outcome = check(&format!("{}{admin}", main(allow)), &site(endpoint));
        assert_denied(&outcome, "the admin API listens there");
    }
    // Where no configuration says it, the socket lies at a usual place.
    assert_denied(
        &check(&main(allow), &site("unix:/run/portolan/admin.sock")),
        "the admin API listens there",
    );
}

/// What a path leads to can change after it was checked.
#[test]
fn a_socket_that_becomes_the_admin_socket_is_not_connected_to() {
    let tree = Tree::new();
    serve(&tree.path("app.sock"));
    symlink("app.sock", tree.path("up.sock")).unwrap();
    let up = tree.path("up.sock");
    tree.write("site.yaml", site(&format!("unix:{}", up.display())));
    let proxy = Proxy::start_in(tree, &main(", allow_upstreams: [\"unix:*\"]"));
    let ask = || {
        proxy
            .client()
            .send("POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            .response()
    };
    assert_eq!(ask().text(), "app");
    let generation = proxy.generation();
    let links: [fn(&Path, &Path) -> std::io::Result<()>; 2] =
        [|from, to| symlink(from, to), |from, to| fs::hard_link(from, to)];
    for link in links {
        let new = proxy.tree().path("new.sock");
        link(&proxy.tree().path("admin.sock"), &new).unwrap();
        fs::rename(&new, &up).unwrap();
        assert_eq!(ask().status, 502);
    }
    assert_eq!(proxy.generation(), generation);
}

/// Answers every connection with one response.
fn serve(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\napp");
        }
    });
}

/// Clients choose the targets: the operator's routes do not lead them to the admin API either.
#[test]
fn no_forward_target_is_the_admin_api() {
    let (port, origin) = (free_port(), Origin::saying("reached"));
    let reached = origin.address().port();
    let yaml = format!(
        "listeners: {{ web: {{ bind: \"127.0.0.1:0\" }} }}\nadmin: {{ bind: \"127.0.0.1:{port}\" }}\n\
         hosts: {{ all: {{ names: [\"*\"], routes: {{ out: {{ path: \"/**\", forward: {{ deny: [], targets: \
         [\"127.0.0.0/8:{port}\", \"localhost:{port}\", \"127.0.0.0/8:{reached}\"] }} }} }} }} }}\n"
    );
    let proxy = Proxy::administered(&yaml, format!("127.0.0.1:{port}"));
    for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"] {
        let target = format!("{host}:{port}");
        let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        assert_eq!(proxy.client().send(connect).response_head().status, 403, "{target}");
        let absolute =
            format!("POST http://{target}/reload HTTP/1.1\r\nHost: {target}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(proxy.client().send(absolute).response().status, 403, "{target}");
    }
    let target = format!("127.0.0.1:{reached}");
    let request = format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n");
    assert_eq!(proxy.client().send(request).response().text(), "reached");
    assert_eq!(proxy.generation(), 1);
}

/// A forward route of a tenant is held to what its upstreams are held to, after resolution.
#[test]
fn a_tenants_forward_targets_are_denied_this_machine_too() {
    let origin = Origin::saying("reached");
    let port = origin.address().port();
    let tree = Tree::new();
    tree.write(
        "site.yaml",
        format!(
            "hosts: {{ out: {{ names: [\"*\"], routes: {{ out: {{ path: \"/**\", forward: {{ deny: [], targets: \
             [\"127.0.0.0/8:{port}\", \"localhost:{port}\"] }} }} }} }} }}\n"
        ),
    );
    let mut proxy = Proxy::start_in(tree, &main(""));
    let ask = |proxy: &Proxy, host: &str| {
        let request = format!("GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        proxy.client().send(request).response().status
    };
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(ask(&proxy, host), 403, "{host}");
    }
    assert_eq!(origin.connections(), 0);
    proxy.change(&main(", allow_upstreams: [127.0.0.0/8, \"::1\"]"));
    until("it is allowed", || ask(&proxy, "127.0.0.1") == 200);
}

#[test]
fn a_symlink_that_leads_elsewhere_is_named_and_a_plain_file_is_none() {
    let tree = Tree::new();
    tree.write("portolan.yaml", main(""));
    tree.write("elsewhere/other.yaml", site("10.0.0.1:80"));
    symlink("elsewhere/other.yaml", tree.path("site.yaml")).unwrap();
    let outcome = portolan(&tree.path(""), &["check", "portolan.yaml"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome.stderr.contains("site.yaml leads to") && outcome.stderr.contains("elsewhere/other.yaml"),
        "{outcome:?}"
    );
    fs::remove_file(tree.path("site.yaml")).unwrap();
    tree.write("site.yaml", site("10.0.0.1:80"));
    for files in ["site.yaml", "./site.yaml", "elsewhere/../site.yaml", "s*.yaml", "./{site,other}.yaml"] {
        tree.write("portolan.yaml", main("").replace("site.yaml", &format!("\"{files}\"")));
        let outcome = portolan(&tree.path(""), &["check", "portolan.yaml"]);
        assert_eq!(outcome.code, 0, "{files}: {outcome:?}");
    }
}
