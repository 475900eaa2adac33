//! The configuration changes while requests run: all of it or nothing, and nobody is dropped.

use std::{fs, os::unix::fs::symlink, time::Duration};

use super::support::{
    Certificates, Client, Origin, Proxy, Reply, Tree, config, free_port, openssl, portolan, until, waited,
};

/// Answers everything with this word.
fn saying(word: &str) -> String {
    config(
        r#"
listeners: { web: { bind: "127.0.0.1:0" } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: WORD } } } } }
"#,
        &[("WORD", &word)],
    )
}

#[test]
fn a_changed_file_is_live_by_itself() {
    let mut proxy = Proxy::start(&saying("one"));
    let port = proxy.port("web");
    let mut kept = proxy.client();
    assert_eq!(kept.get("/").text(), "one");
    proxy.change(&saying("two"));
    assert_eq!(proxy.port("web"), port, "a listener that stays keeps its socket");
    assert_eq!(kept.get("/").text(), "two", "the connection lives on");
}

#[test]
fn a_bad_file_changes_nothing_and_is_reported() {
    let mut proxy = Proxy::start(&saying("one"));
    let generation = proxy.generation();
    let hash = proxy.status()["hash"].clone();
    proxy.write("portolan.yaml", &saying("two").replace("respond", "repsond"));
    until("the error is known", || !proxy.status()["last_error"].is_null());
    assert_eq!(proxy.client().get("/").text(), "one");
    assert_eq!(proxy.generation(), generation);
    assert_eq!(proxy.status()["hash"], hash);
    let log = proxy.log();
    assert!(log.contains("unknown-key") && log.contains("repsond"), "the diagnostics are in the log:\n{log}");
    proxy.change(&saying("three"));
    assert_eq!(proxy.client().get("/").text(), "three");
    assert!(proxy.status()["last_error"].is_null());
}

#[test]
fn the_reload_command_waits_and_tells_the_outcome() {
    let proxy = Proxy::start(&saying("one"));
    proxy.write("portolan.yaml", &saying("two"));
    let good = proxy.reload();
    assert_eq!(good.code, 0, "{good:?}");
    assert_eq!(proxy.client().get("/").text(), "two", "what reload reported is live");
    proxy.write("portolan.yaml", &saying("three").replace("names", "nmaes"));
    let bad = proxy.reload();
    assert_eq!(bad.code, 1, "{bad:?}");
    let said = format!("{}{}", bad.stdout, bad.stderr);
    assert!(said.contains("nmaes") && said.contains("portolan.yaml:3"), "{said}");
    assert!(said.contains("names"), "a suggestion: {said}");
    assert_eq!(proxy.client().get("/").text(), "two");
}

#[test]
fn reload_without_a_process_says_so() {
    let tree = Tree::new();
    let outcome = portolan(&tree.path(""), &["reload", "--socket", "nowhere.sock"]);
    assert!(outcome.code > 0, "{outcome:?}");
    assert!(outcome.stderr.contains("nowhere.sock"), "{outcome:?}");
}

#[test]
fn sighup_reloads() {
    // Variables are part of what is read again: without a file that changed, only the signal says so.
    let tree = Tree::new();
    tree.write("word", "one");
    let mut proxy = Proxy::start_in(tree, &saying("\"${file:word}\""));
    assert_eq!(proxy.client().get("/").text(), "one");
    let before = proxy.generation();
    proxy.write("word", "two");
    proxy.signal("HUP");
    proxy.wait_past(before);
    until("the new word", || proxy.client().get("/").text() == "two");
}

#[test]
fn a_swapped_symlink_is_seen_as_kubernetes_swaps_it() {
    let tree = Tree::new();
    for (version, word) in [("v1", "one"), ("v2", "two"), ("v3", "three")] {
        let text =
            format!("admin: {{ bind: \"unix:{}\" }}\n{}", tree.path("admin.sock").display(), saying(word));
        tree.write(format!("config/..{version}/portolan.yaml"), text);
    }
    let data = tree.path("config/..data");
    symlink("..v1", &data).unwrap();
    let main = tree.path("config/portolan.yaml");
    symlink("..data/portolan.yaml", &main).unwrap();
    let mut proxy = Proxy::run(tree, &main);
    assert_eq!(proxy.client().get("/").text(), "one");
    for (version, word) in [("..v2", "two"), ("..v3", "three")] {
        let before = proxy.generation();
        let new = proxy.tree().path("config/..data_tmp");
        symlink(version, &new).unwrap();
        fs::rename(&new, &data).unwrap();
        proxy.wait_past(before);
        assert_eq!(proxy.client().get("/").text(), word);
    }
}

#[test]
fn files_come_and_go_by_a_glob() {
    let tree = Tree::new();
    let host = |name: &str| {
        format!(
            "hosts: {{ {name}: {{ names: [{name}.example], routes: {{ all: {{ path: \"/**\", respond: {{ body: {name} }} }} }} }} }}\n"
        )
    };
    tree.write("conf.d/a.yaml", host("a"));
    let main = "include: [\"conf.d/*.{yaml,toml}\"]\nlisteners: { web: { bind: \"127.0.0.1:0\" } }\n";
    let mut proxy = Proxy::start_in(tree, main);
    let ask = |proxy: &Proxy, name: &str| {
        let mut client = proxy.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}.example\r\n\r\n")).response().status
    };
    assert_eq!((ask(&proxy, "a"), ask(&proxy, "b")), (200, 404));
    let before = proxy.generation();
    proxy.write(
        "conf.d/b.toml",
        "[hosts.b]\nnames = ['b.example']\nroutes.all = { path = '/**', respond = { body = 'b' } }\n",
    );
    proxy.wait_past(before);
    assert_eq!((ask(&proxy, "a"), ask(&proxy, "b")), (200, 200));
    let before = proxy.generation();
    fs::remove_file(proxy.tree().path("conf.d/a.yaml")).unwrap();
    proxy.wait_past(before);
    assert_eq!((ask(&proxy, "a"), ask(&proxy, "b")), (404, 200));
}

#[test]
fn listeners_come_and_go() {
    let two = r#"
listeners: { web: { bind: "127.0.0.1:0" }, more: { bind: "127.0.0.1:0" } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: two } } } } }
"#;
    let mut proxy = Proxy::start(&saying("one"));
    let web = proxy.port("web");
    proxy.change(two);
    let more = proxy.port("more");
    assert_eq!(Client::tcp(more).get("/").text(), "two");
    let mut kept = Client::tcp(more);
    assert_eq!(kept.get("/").status, 200);
    proxy.change(&saying("one"));
    assert_eq!(proxy.port("web"), web);
    until("the port is closed", || std::net::TcpStream::connect(("127.0.0.1", more)).is_err());
    assert!(kept.is_closed(), "an idle connection of a listener that goes is closed");
    assert_eq!(proxy.client().get("/").text(), "one");
}

#[test]
fn a_taken_address_refuses_the_whole_reload() {
    let port = free_port();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let proxy = Proxy::start(&saying("one"));
    let yaml = config(
        r#"
listeners: { web: { bind: "127.0.0.1:0" }, taken: { bind: "127.0.0.1:PORT" } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: two } } } } }
"#,
        &[("PORT", &port)],
    );
    proxy.write("portolan.yaml", &yaml);
    let outcome = proxy.reload();
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(format!("{outcome:?}").contains("bind-failed"), "{outcome:?}");
    assert_eq!(proxy.client().get("/").text(), "one");
}

/// A listener on one port, and where the process is administered.
fn alone_on(bind: &str, tree: &Tree) -> String {
    let admin = tree.path("admin.sock");
    let admin = format!("admin: {{ bind: \"unix:{}\" }}", admin.display());
    format!("{admin}\n{}", saying("two").replace("127.0.0.1:0", bind))
}

#[test]
fn a_second_portolan_does_not_share_an_address() {
    let first = Proxy::start(&saying("one"));
    let port = first.port("web");
    for bind in [format!("127.0.0.1:{port}"), format!(":{port}")] {
        let tree = Tree::new();
        tree.write("portolan.yaml", alone_on(&bind, &tree));
        let second = portolan(&tree.path(""), &["run", "portolan.yaml"]);
        assert_ne!(second.code, 0, "{second:?}");
        for said in [
            "error[bind-failed]: the listener web cannot have",
            "another process listens there",
            "portolan.yaml:3:",
            &format!("ss -lntup 'sport = :{port}'"),
        ] {
            assert!(second.stderr.contains(said), "{said:?} is not in {}", second.stderr);
        }
    }
    assert_eq!(first.client().get("/").text(), "one");
}

#[test]
fn sockets_of_one_process_may_overlap() {
    let port = free_port();
    let saying_on = |word: &str, bind: &str| saying(word).replace("\"127.0.0.1:0\"", bind);
    let (one, every) = (format!("\"127.0.0.1:{port}\""), format!("\":{port}\""));
    let mut proxy = Proxy::start(&saying_on("start", &one));
    for (word, bind) in
        [("a", &every), ("b", &one), ("c", &format!("[{one}, {every}]")), ("d", &every), ("e", &one)]
    {
        proxy.change(&saying_on(word, bind));
        until("the new answer is there", || Client::tcp(port).get("/").text() == word);
    }
}

#[test]
fn what_runs_finishes_as_it_began() {
    let origin = Origin::serving_early(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nold\r\n");
        exchange.read_some();
        exchange.send("3\r\nend\r\n0\r\n\r\n");
        Reply::Keep
    });
    let mut proxy = Proxy::start(&super::support::to(&[&origin.address()]));
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(client.response_head().status, 200);
    assert_eq!(client.read_exactly(8), b"3\r\nold\r\n");
    proxy.change(&saying("new"));
    assert_eq!(proxy.client().get("/").text(), "new");
    client.send("x");
    assert_eq!(client.read_exactly(13), b"3\r\nend\r\n0\r\n\r\n");
}

#[test]
fn certificates_are_read_again_when_they_change() {
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["localhost"]);
    let yaml = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners: { secure: { bind: "127.0.0.1:0", tls: { certificates: [web] } } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", respond: { body: ok } } } } }
"#;
    let mut proxy = Proxy::start_in(tree, yaml);
    let address = format!("127.0.0.1:{}", proxy.port("secure"));
    let fingerprint = || {
        let run = openssl(&["s_client", "-connect", &address, "-showcerts"]);
        run.stdout.split("-----BEGIN CERTIFICATE-----").nth(1).unwrap_or_default().to_owned()
    };
    let (old, before) = (fingerprint(), proxy.generation());
    let mut kept =
        Client::tls(proxy.port("secure"), "localhost", certificates.client(&["http/1.1"])).unwrap();
    assert_eq!(kept.get("/").status, 200);
    certificates.sign("web", &["localhost"]);
    proxy.wait_past(before);
    until("the new certificate is shown", || fingerprint() != old);
    assert_eq!(kept.get("/").status, 200, "the old connection lives on");
}

#[test]
fn failing_tests_refuse_a_reload() {
    let tested = |word: &str| {
        let tests = "tests: [{ request: { url: \"http://a/\", listener: web }, expect: { body: one } }]\n";
        format!("{}{tests}", saying(word))
    };
    let proxy = Proxy::start(&tested("one"));
    proxy.write("portolan.yaml", &tested("two"));
    let outcome = proxy.reload();
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(format!("{outcome:?}").contains("failed-test"), "{outcome:?}");
    assert_eq!(proxy.client().get("/").text(), "one");
}

#[test]
fn a_burst_of_changes_is_few_reloads() {
    let tree = Tree::new();
    tree.write("conf.d/0.yaml", "");
    let main = format!("include: [\"conf.d/*.yaml\"]\n{}", saying("one"));
    let mut proxy = Proxy::start_in(tree, &main);
    let before = proxy.generation();
    for n in 0..50 {
        proxy.write(&format!("conf.d/{n}.yaml"), &format!("tenants: {{ t{n}: {{}} }}\n"));
    }
    proxy.wait_past(before);
    until("all of them are read", || proxy.reload().code == 0);
    assert!(proxy.generation() <= before + 10, "{} reloads", proxy.generation() - before);
}

#[test]
fn health_is_remembered_over_reloads() {
    let dead = free_port();
    let yaml = |word: &str| {
        config(
            r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams:
  origin:
    endpoints: ["127.0.0.1:DEAD"]
    health: { tcp: {}, interval: 60s, timeout: 1s, unhealthy_after: 1, healthy_after: 1 }
hosts:
  all:
    names: ["*"]
    routes: { all: { path: "/**", proxy: { upstream: origin } }, word: { path: /word, respond: { body: WORD } } }
"#,
            &[("DEAD", &dead), ("WORD", &word)],
        )
    };
    let mut proxy = Proxy::start(&yaml("one"));
    until("the dead one is known", || proxy.client().get("/").status == 503);
    proxy.change(&yaml("two"));
    assert_eq!(proxy.client().get("/word").text(), "two");
    // The next check is a minute away: who answers 503 now remembers.
    assert_eq!(proxy.client().get("/").status, 503);
}

/// What a reload needs beside the two tables is given back when it is over, and not ten seconds later.
#[test]
fn reloads_in_a_row_do_not_add_up_in_memory() {
    let mut yaml = "access_log: false\nlisteners: { web: { bind: \"127.0.0.1:0\" } }\n\
                    upstreams: { app: { endpoints: [\"127.0.0.1:9\"] } }\nhosts:\n"
        .to_owned();
    for host in 0..2000 {
        yaml += &format!("  h{host}:\n    names: [h{host}.example]\n    routes:\n");
        for route in 0..5 {
            yaml +=
                &format!("      r{route}: {{ path: \"/a/{route}/{{id}}\", proxy: {{ upstream: app }} }}\n");
        }
    }
    let proxy = Proxy::start(&yaml);
    proxy.reload();
    // The least that it holds within so long, or the first that is below a limit.
    let least = |within: u64, limit: u64| {
        let mut least = u64::MAX;
        waited(Duration::from_secs(within), || {
            least = least.min(proxy.resident());
            (least < limit).then_some(())
        });
        least
    };
    let before = least(1, 0);
    for _ in 0..4 {
        assert_eq!(proxy.reload().code, 0);
    }
    // The allocator by itself would take ten seconds.
    let limit = before + (12 << 20);
    let after = least(5, limit);
    assert!(after < limit, "{} MiB, and {} MiB before", after >> 20, before >> 20);
}
