//! Endpoints that are killed under load, and long bodies between HTTP/2 on both sides.

use std::{fs::File, thread, time::Duration};

use super::support::{
    DEADLINE, H2Origin, Load, Nginx, Proxy, Tree, config, curl, free_port, h2load, to, until, within,
};

/// What memory may grow by while a long body passes.
const GROWTH: u64 = 64 << 20;
/// Half a gibibyte: HTTP/2 in debug builds is slow.
const LENGTH: u64 = 512 << 20;

#[test]
fn load_an_endpoint_that_is_killed_and_restarted_fails_no_request() {
    let mut mortal = Nginx::saying("mortal");
    let steady = Nginx::saying("steady");
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0", limits: { requests_per_connection: 1000000 } } }
upstreams: { origin: { endpoints: ["MORTAL", "STEADY"], outlier: { eject_for: 100ms, max_eject_for: 100ms } } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    let words: [(&str, &dyn std::fmt::Display); 2] =
        [("MORTAL", &mortal.address()), ("STEADY", &steady.address())];
    let proxy = Proxy::start(&config(yaml, &words));
    // A thousand requests a second over each protocol, for as long as it takes.
    let load = [&["--h1"][..], &["-m", "10"]].map(|protocol| {
        let url = proxy.url("web", "/");
        Load::repeat(move || h2load(&[&["-n", "3000", "-c", "8", "--rps", "125", &url], protocol].concat()))
    });
    let answers = |wanted: &str| proxy.client().get("/").text() == wanted;
    for _ in 0..5 {
        until("the mortal one answers", || answers("mortal"));
        mortal.kill();
        until("the steady one answers alone", || (0..20).all(|_| answers("steady")));
        mortal.restart();
    }
    for load in load {
        let load = load.stop();
        assert_eq!(load.failed, 0, "{load:?}");
        assert!(load.succeeded >= 3000, "{load:?}");
    }
}

#[test]
fn load_long_bodies_down_over_http2_in_constant_memory() {
    let tree = Tree::new();
    std::fs::create_dir(tree.path("root")).unwrap();
    File::create(tree.path("root/long")).unwrap().set_len(LENGTH).unwrap();
    let nginx = Nginx::start(tree, free_port(), "http2", "");
    let proxy = h2c(&nginx.address());
    let url = proxy.url("web", "/long");
    let size = watched(&proxy, move || {
        curl(&["--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{size_download}", &url]).stdout
    });
    assert_eq!(size, LENGTH.to_string());
}

#[test]
fn load_long_bodies_up_over_http2_in_constant_memory() {
    let origin = H2Origin::counting();
    let proxy = h2c(&origin.address());
    let url = proxy.url("web", "/");
    let tree = Tree::new();
    let file = tree.path("long");
    File::create(&file).unwrap().set_len(LENGTH).unwrap();
    let file = file.display().to_string();
    let size = watched(&proxy, move || curl(&["--http2-prior-knowledge", "-T", &file, &url]).stdout);
    assert_eq!(size, LENGTH.to_string());
}

fn h2c(address: &str) -> Proxy {
    Proxy::start(&to(&[&address]).replace("endpoints:", "protocol: h2c, endpoints:"))
}

/// What `transfer` says, while memory stays where it is.
fn watched(proxy: &Proxy, transfer: impl FnOnce() -> String + Send + 'static) -> String {
    let before = proxy.resident();
    let transfer = thread::spawn(transfer);
    let mut most = before;
    within(DEADLINE + Duration::from_secs(60), "the transfer ends", || {
        most = most.max(proxy.resident());
        transfer.is_finished().then_some(())
    });
    assert!(most < before + GROWTH, "grew from {before} to {most}");
    transfer.join().unwrap()
}
