//! Files that tenants write themselves: what they may have, and that a broken one is nobody else's trouble.

use std::{fs, os::unix::fs::symlink};

use super::support::{Origin, Outcome, Proxy, Tree, portolan, until};

const MAIN: &str = r#"
include:
  - files: "tenants/acme/*.yaml"
    tenant: acme
    hosts: ["*.acme.example"]
    roots: [data/acme]
    deny_upstreams: [10.9.0.0/16, "unix:*"]
    on_error: keep
  - { files: "tenants/globex/*.yaml", tenant: globex, hosts: ["*.globex.example", www.acme.example], on_error: keep }
listeners: { web: { bind: "127.0.0.1:0" } }
tenants: { acme: {}, globex: {} }
upstreams: { api: { endpoints: ["10.0.0.1:80"] } }
middleware: { api: [response_headers: { set: { X-Of: operator } }] }
hosts:
  www: { names: ["*"], middleware: [api], routes: { all: { path: "/**", respond: { body: operator } }, api: { path: /api, proxy: { upstream: api } } } }
"#;

const ACME: &str = "tenants/acme/site.yaml";
const GLOBEX: &str = "tenants/globex/site.yaml";

/// A site that answers with a word, its names those of everybody.
fn site(tenant: &str, word: &str) -> String {
    format!(
        "upstreams: {{ api: {{ endpoints: [\"10.1.0.1:80\"] }} }}\n\
         middleware: {{ api: [response_headers: {{ set: {{ X-Of: {tenant} }} }}] }}\n\
         hosts:\n  www:\n    names: [www.{tenant}.example]\n    middleware: [api]\n    routes:\n      \
         all: {{ path: \"/**\", respond: {{ body: {word} }} }}\n      \
         api: {{ path: /api, proxy: {{ upstream: api }} }}\n\
         tests: [{{ request: {{ url: \"http://www.{tenant}.example/\", listener: web }}, expect: {{ host: www, body: {word} }} }}]\n"
    )
}

fn tree() -> Tree {
    let tree = Tree::new();
    tree.write(ACME, site("acme", "one"));
    tree.write(GLOBEX, site("globex", "one"));
    tree.write("data/acme/secret", "sesame\n");
    tree.write("data/other/secret", "hush\n");
    tree
}

/// The body that a host answers with, and whose chain it passed.
fn ask(proxy: &Proxy, host: &str) -> (String, String) {
    let response = proxy.client().send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).response();
    (response.text(), response.field("x-of").unwrap_or_default().to_owned())
}

fn says(proxy: &Proxy, host: &str, word: &str) -> bool {
    ask(proxy, host).0 == word
}

fn state(proxy: &Proxy, tenant: &str) -> String {
    let status = proxy.status();
    let mut tenants = status["tenants"].as_array().expect("a list").iter();
    let tenant = tenants.find(|found| found["name"] == tenant).expect("it is listed");
    tenant["state"].as_str().expect("a word").to_owned()
}

/// What `check` says of a tree whose acme has this site.
fn check(tree: &Tree, acme: &str) -> Outcome {
    tree.write("portolan.yaml", MAIN);
    tree.write(ACME, acme);
    portolan(&tree.path(""), &["check", "portolan.yaml"])
}

#[track_caller]
fn assert_refused(outcome: &Outcome, code: &str) {
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains(&format!("error[{code}]")), "{}", outcome.stderr);
}

#[test]
fn names_are_each_tenants_own() {
    let proxy = Proxy::start_in(tree(), MAIN);
    for (host, whose) in [("www.acme.example", "acme"), ("www.globex.example", "globex")] {
        assert_eq!(ask(&proxy, host), ("one".into(), whose.into()));
    }
    assert_eq!(ask(&proxy, "else.example"), ("operator".into(), "operator".into()));
    let upstreams = proxy.status()["upstreams"].clone();
    let names: Vec<_> =
        upstreams.as_array().unwrap().iter().map(|upstream| upstream["name"].clone()).collect();
    assert_eq!(names, ["acme/api", "api", "globex/api"]);
    let explained = portolan(
        &proxy.tree().path(""),
        &["explain", "GET", "http://www.acme.example/api", "--listener", "web", "--config", "portolan.yaml"],
    );
    for part in ["acme/www", "acme/api", "10.1.0.1:80"] {
        assert!(explained.stdout.contains(part), "{part} in {explained:?}");
    }
    let line = proxy.access_line(|line| line["host"] == "acme/www");
    assert_eq!(line["tenant"], "acme");
    assert_eq!(proxy.metric("portolan_delegated_state{state=\"current\",tenant=\"acme\"}"), Some(1.0));
}

#[test]
fn a_broken_tenant_stays_as_it_was_while_the_rest_changes() {
    let tree = tree();
    tree.write("data/acme/page.html", "one");
    let mut proxy = Proxy::start_in(tree, MAIN);
    let with_file = site("acme", "one").replacen("body: one }", "file: ../../data/acme/page.html }", 1);
    let before = proxy.generation();
    proxy.write(ACME, &with_file);
    proxy.wait_past(before);
    assert!(says(&proxy, "www.acme.example", "one"));

    // The file that it names is gone, and its own is wrong: what was read then still serves.
    fs::remove_file(proxy.tree().path("data/acme/page.html")).unwrap();
    proxy.write(ACME, "hosts: { www: { nmaes: [www.acme.example] } }\n");
    until("it is kept", || state(&proxy, "acme") == "kept");
    assert!(says(&proxy, "www.acme.example", "one"));
    proxy.change(&MAIN.replace("body: operator", "body: changed"));
    proxy.write(GLOBEX, &site("globex", "two"));
    until("the others go on", || says(&proxy, "www.globex.example", "two"));
    assert!(says(&proxy, "else.example", "changed") && says(&proxy, "www.acme.example", "one"));

    // Loudly.
    assert_eq!(state(&proxy, "globex"), "current");
    let shown = portolan(
        &proxy.tree().path(""),
        &["status", "--socket", &proxy.tree().path("admin.sock").to_string_lossy()],
    );
    assert!(
        shown.stdout.contains("The files of tenant acme are wrong") && shown.stdout.contains("nmaes"),
        "{shown:?}"
    );
    assert!(proxy.log().contains("acme (kept)") && proxy.log().contains("unknown-key"), "{}", proxy.log());
    assert_eq!(proxy.metric("portolan_delegated_state{state=\"kept\",tenant=\"acme\"}"), Some(1.0));
    assert!(proxy.admin().get("/health").text().contains("delegated_files_wrong"));
    let reload = proxy.reload();
    assert_eq!(reload.code, 0, "{reload:?}");
    assert!(reload.stderr.contains("the files of tenant acme are wrong"), "{reload:?}");

    proxy.write(ACME, &site("acme", "three"));
    until("it is mended", || says(&proxy, "www.acme.example", "three") && state(&proxy, "acme") == "current");
    assert_eq!(proxy.metric("portolan_delegated_state{state=\"kept\",tenant=\"acme\"}"), None);
}

#[test]
fn its_tunnels_lead_to_nothing_that_its_upstreams_must_not_have() {
    let origin = Origin::saying("reached");
    let port = origin.address().port();
    let tree = tree();
    // The name is the tenant's: it says where it leads, whatever that is denied to its upstreams.
    let site = "hosts: { out: { names: [localhost], routes: { out: { path: \"/\", forward: { targets: TARGETS, deny: [] } } } } }";
    let targets = format!("[\"localhost:{port}\", \"127.0.0.0/8:{port}\"]");
    tree.write(ACME, site.replace("TARGETS", &targets));
    let main = MAIN
        .replace("hosts: [\"*.acme.example\"]", "hosts: [localhost]")
        .replace("deny_upstreams: [10.9.0.0/16, \"unix:*\"]", "deny_upstreams: [127.0.0.0/8, \"::1\"]");
    let proxy = Proxy::start_in(tree, &main);
    assert_eq!(state(&proxy, "acme"), "current");
    let request = format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
    assert_eq!(proxy.client().send(request).response_head().status, 403);
    assert_eq!(proxy.access_line(|line| line["method"] == "CONNECT")["reason"], "target_refused");
    let request = format!("GET http://localhost:{port}/ HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
    assert_eq!(proxy.client().send(request).response().status, 403);
    assert_eq!(proxy.access_line(|line| line["method"] == "GET")["reason"], "target_refused");
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_tenants_failing_tests_are_its_own() {
    let proxy = Proxy::start_in(tree(), MAIN);
    proxy.write(ACME, &site("acme", "two").replacen("body: two", "body: other", 1));
    until("it is kept", || state(&proxy, "acme") == "kept");
    assert!(says(&proxy, "www.acme.example", "one"));
    assert!(proxy.log().contains("failed-test"));
    proxy.write(GLOBEX, &site("globex", "two"));
    until("the others go on", || says(&proxy, "www.globex.example", "two"));
}

#[test]
fn who_was_never_right_has_no_hosts_and_the_process_starts() {
    let tree = tree();
    tree.write(ACME, "hosts: [");
    let proxy = Proxy::start_in(tree, MAIN);
    assert_eq!(state(&proxy, "acme"), "absent");
    assert!(says(&proxy, "www.acme.example", "operator"), "its host is as any that is not known");
    assert!(says(&proxy, "www.globex.example", "one"));
    assert!(proxy.log().contains("acme (absent)"));
    proxy.write(ACME, &site("acme", "one"));
    until("it is mended", || says(&proxy, "www.acme.example", "one"));
    assert_eq!(state(&proxy, "acme"), "current");
}

#[test]
fn a_conflict_is_the_fault_of_who_came_later() {
    let mut proxy = Proxy::start_in(tree(), MAIN);
    // Another tenant claims what acme has: it is refused, though it may have the name.
    proxy.write(
        GLOBEX,
        &site("globex", "two").replace("[www.globex.example]", "[www.globex.example, www.acme.example]"),
    );
    until("globex is kept", || state(&proxy, "globex") == "kept");
    assert!(says(&proxy, "www.globex.example", "one") && says(&proxy, "www.acme.example", "one"));
    assert_eq!(state(&proxy, "acme"), "current");
    // The operator takes the name: that goes before the tenant, until it is given back.
    proxy.change(&MAIN.replace("names: [\"*\"]", "names: [\"*\", www.acme.example]"));
    assert_eq!(state(&proxy, "acme"), "absent");
    assert!(says(&proxy, "www.acme.example", "operator"));
    proxy.change(MAIN);
    assert!(says(&proxy, "www.acme.example", "one"));
    assert_eq!(state(&proxy, "acme"), "current");
}

/// What a tenant claims that it may not have is nobody else's conflict, even of one who has nothing to go back to.
#[test]
fn who_claims_the_host_of_another_harms_nobody_else() {
    let claims = site("acme", "one").replace("[www.acme.example]", "[www.acme.example, www.globex.example]");
    let tree = tree();
    tree.write(ACME, &claims);
    let proxy = Proxy::start_in(tree, MAIN);
    assert_eq!((state(&proxy, "acme"), state(&proxy, "globex")), ("absent".into(), "current".into()));
    assert!(says(&proxy, "www.globex.example", "one"));

    proxy.write(ACME, &site("acme", "one"));
    until("it is mended", || state(&proxy, "acme") == "current");
    proxy.write(ACME, &claims);
    until("it is kept", || state(&proxy, "acme") == "kept");
    proxy.write(GLOBEX, &site("globex", "two"));
    until("the other goes on", || says(&proxy, "www.globex.example", "two"));
    assert_eq!((state(&proxy, "acme"), state(&proxy, "globex")), ("kept".into(), "current".into()));
}

#[test]
fn without_on_error_a_broken_tenant_refuses_all() {
    let main = MAIN.replace(", on_error: keep", "");
    let proxy = Proxy::start_in(tree(), &main);
    proxy.write(GLOBEX, "hosts: [");
    let refused = proxy.reload();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(says(&proxy, "www.globex.example", "one"));
}

#[test]
fn check_tells_all_problems_of_all_tenants() {
    let tree = tree();
    tree.write(GLOBEX, site("globex", "one").replace("hosts:", "hsots:"));
    let outcome = check(&tree, &site("acme", "one").replace("www.acme.example]", "www.other.example]"));
    assert_refused(&outcome, "forbidden-host");
    assert_refused(&outcome, "unknown-key");
    let good = check(
        &Tree::new(),
        "hosts: { www: { names: [a.acme.example], routes: { all: { path: /, respond: {} } } } }",
    );
    assert_eq!(good.code, 0, "{good:?}");
}

#[test]
fn files_and_secrets_lie_under_the_roots_whatever_leads_there() {
    let tree = tree();
    let naming = |reference: &str| {
        site("acme", "one").replacen("body: one", &format!("body: \"${{file:{reference}}}\""), 1)
    };
    let within = check(
        &tree,
        &naming("../../data/acme/secret")
            .replace("expect: { host: www, body: one }", "expect: { host: www }"),
    );
    assert_eq!(within.code, 0, "{within:?}");

    symlink(tree.path("data/other/secret"), tree.path("data/acme/link")).unwrap();
    symlink(tree.path("data/other"), tree.path("data/acme/directory")).unwrap();
    for outside in [
        "../../data/other/secret",
        "../../data/acme/../other/secret",
        "../../data/acme/link",
        "../../data/acme/directory/secret",
        "../../data/acme/../../../../../../etc/hostname",
        "/etc/hostname",
    ] {
        let outcome = check(&tree, &naming(outside));
        assert_refused(&outcome, "outside-roots");
        assert!(!outcome.stderr.contains("hush"), "{outcome:?}");
    }
    // A link that stays inside is none that gets out, and roots may be links themselves.
    symlink("secret", tree.path("data/acme/inner")).unwrap();
    fs::rename(tree.path("data/acme"), tree.path("data/acme.1")).unwrap();
    symlink("acme.1", tree.path("data/acme")).unwrap();
    let inner = check(
        &tree,
        &naming("../../data/acme/inner").replace("expect: { host: www, body: one }", "expect: { host: www }"),
    );
    assert_eq!(inner.code, 0, "{inner:?}");
    assert_refused(&check(&tree, &naming("../../data/acme/link")), "outside-roots");
}

#[test]
fn delegated_files_are_no_links_to_others() {
    let tree = tree();
    tree.write("elsewhere.yaml", "upstreams: { hush: { endpoints: [] } }\n");
    symlink(tree.path("elsewhere.yaml"), tree.path("tenants/acme/more.yaml")).unwrap();
    let outcome = check(&tree, &site("acme", "one"));
    assert_refused(&outcome, "outside-roots");
    assert!(!outcome.stderr.contains("hush"), "{outcome:?}");
    fs::remove_file(tree.path("tenants/acme/more.yaml")).unwrap();

    // As Kubernetes mounts them: by a link beside, which is swapped.
    tree.write("tenants/acme/..1/more.yaml", "middleware: { more: [recover: {}] }\n");
    symlink("..1", tree.path("tenants/acme/..data")).unwrap();
    symlink("..data/more.yaml", tree.path("tenants/acme/more.yaml")).unwrap();
    let mounted = check(&tree, &site("acme", "one"));
    assert_eq!(mounted.code, 0, "{mounted:?}");
    assert!(mounted.stderr.contains("chain acme/more is used nowhere"), "{mounted:?}");
}

#[test]
fn what_is_denied_is_no_endpoint() {
    let tree = tree();
    for address in ["10.9.0.1:80", "[::ffff:10.9.0.1]:80", "unix:/run/x.sock"] {
        assert_refused(&check(&tree, &site("acme", "one").replace("10.1.0.1:80", address)), "denied-address");
    }
    for (name, allowed) in
        [("a.b.acme.example", true), ("acme.example", false), ("*", false), ("*.example", false)]
    {
        let site = format!(
            "hosts: {{ w: {{ names: [\"{name}\"], routes: {{ all: {{ path: /, respond: {{}} }} }} }} }}\n"
        );
        let outcome = check(&tree, &site);
        assert_eq!(outcome.code == 0, allowed, "{name}: {outcome:?}");
    }
}

#[test]
fn what_the_operator_put_in_stays_in() {
    let tree = tree();
    for undone in ["without: [request_id]", "middleware: [request_id: { trust: true }]"] {
        tree.write("portolan.yaml", format!("{MAIN}defaults: {{ middleware: [request_id: {{}}] }}\n"));
        tree.write(ACME, site("acme", "one").replace("middleware: [api]", undone));
        assert_refused(&portolan(&tree.path(""), &["check", "portolan.yaml"]), "not-delegated");
    }
    let own = site("acme", "one").replace("/api, proxy", "/api, without: [response_headers], proxy");
    assert_eq!(check(&tree, &own).code, 0, "what is its own it takes away");
}

#[test]
fn commands_tell_of_who_is_broken_and_go_on_with_the_rest() {
    let tree = tree();
    tree.write("portolan.yaml", MAIN);
    tree.write(ACME, "hosts: { www: { nmaes: [www.acme.example] } }\n");
    let explain =
        ["explain", "GET", "http://www.globex.example/", "--listener", "web", "--config", "portolan.yaml"];
    for (command, code, shown) in [
        (&["routes", "portolan.yaml"][..], 0, "globex/www"),
        (&explain, 0, "globex/www"),
        (&["test", "portolan.yaml"], 1, "ok     "),
    ] {
        let outcome = portolan(&tree.path(""), command);
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert!(outcome.stdout.contains(shown) && !outcome.stdout.contains("acme/www"), "{outcome:?}");
        for told in ["error[unknown-key]", "the files of tenant acme are wrong: its hosts are left out here"]
        {
            assert!(outcome.stderr.contains(told), "{told} in {outcome:?}");
        }
    }
    tree.write("portolan.yaml", MAIN.replacen("    on_error: keep\n", "", 1));
    let refused = portolan(&tree.path(""), &["routes", "portolan.yaml"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{refused:?}");
}
