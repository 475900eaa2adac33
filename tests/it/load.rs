//! Reloads under load: no request fails, memory stays flat, and no task, thread or file descriptor is left behind.

use super::support::{Certificates, DEADLINE, Load, Nginx, Proxy, Tree, config, h2load, waited, wrk};

const CONFIGURATION: &str = r#"
certificates: { web: { cert: web.pem, key: web.key } }
listeners:
  web: { bind: "127.0.0.1:0", limits: { requests_per_connection: 1000000 } }
  secure: { bind: "127.0.0.1:0", tls: { certificates: [web] }, limits: { requests_per_connection: 1000000 } }
middleware:
  edge: [{ request_id: {} }, { response_headers: { set: { X-Generation: "NUMBER" } } }]
upstreams:
  origin: { endpoints: ["ORIGIN"], balance: BALANCE, health: { tcp: {} }, pool: { idle: 1s } }
hosts:
  all:
    names: ["*"]
    middleware: [edge]
    routes:
      all: { path: "/**", proxy: { upstream: origin } }
      numberNUMBER: { path: "/number/NUMBER", respond: { body: "NUMBER" } }
"#;

fn number(n: usize, origin: &Nginx) -> String {
    // Every other reload also replaces what the upstream is.
    let balance = if n.is_multiple_of(2) { "round_robin" } else { "random_two" };
    config(CONFIGURATION, &[("NUMBER", &n), ("ORIGIN", &origin.address()), ("BALANCE", &balance)])
}

/// What runs and is open in a proxy that has nothing to do: tasks by kind, threads, file descriptors.
#[derive(Debug)]
struct Held {
    tasks: Vec<String>,
    threads: usize,
    files: usize,
}

impl Held {
    fn by(proxy: &Proxy) -> Self {
        let metrics = proxy.metrics();
        let tasks = metrics.lines().filter(|line| line.starts_with("portolan_tasks{"));
        let tasks = tasks.map(str::to_owned).collect();
        Self { tasks, threads: proxy.threads(), files: proxy.open_files() }
    }

    fn is_within(&self, other: &Self) -> bool {
        self.tasks == other.tasks && self.threads <= other.threads && self.files <= other.files
    }
}

#[test]
fn two_hundred_reloads_under_load_fail_no_request() {
    let origin = Nginx::saying("hello");
    let tree = Tree::new();
    let certificates = Certificates::new(&tree);
    certificates.sign("web", &["localhost"]);
    let proxy = Proxy::start_in(tree, &number(0, &origin));
    let idle = Held::by(&proxy);
    assert!(idle.tasks.iter().any(|line| line == "portolan_tasks{kind=\"health\"} 1"), "{idle:?}");
    let url = proxy.url("web", "/");
    let secure = format!("https://127.0.0.1:{}/", proxy.port("secure"));
    let by_wrk = Load::repeat(move || wrk(&["-t1", "-c8", "-d2s", "--timeout", "10s", &url]));
    let by_h2load = Load::repeat(move || h2load(&["-n", "2000", "-c", "4", "-m", "10", &secure]));
    let reload = |range: std::ops::Range<usize>| {
        for n in range {
            proxy.write("portolan.yaml", &number(n, &origin));
            let outcome = proxy.reload();
            assert_eq!(outcome.code, 0, "reload {n}: {outcome:?}");
            assert_eq!(proxy.client().get(&format!("/number/{n}")).text(), n.to_string());
        }
    };
    reload(1..50);
    let memory = proxy.resident();
    reload(50..201);
    let memory_after = proxy.resident();
    let (by_wrk, by_h2load) = (by_wrk.stop(), by_h2load.stop());
    assert_eq!(by_wrk.failed, 0, "{by_wrk:?}");
    assert_eq!(by_h2load.failed, 0, "{by_h2load:?}");
    assert!(by_wrk.succeeded > 1000 && by_h2load.succeeded > 1000, "{by_wrk:?} {by_h2load:?}");
    assert!(memory_after < memory + (24 << 20), "memory grew from {memory} to {memory_after}");
    // Threads for blocking work end after ten seconds.
    let mut now = Held::by(&proxy);
    let is_idle = waited(DEADLINE, || {
        now = Held::by(&proxy);
        now.is_within(&idle).then_some(())
    });
    assert!(is_idle.is_some(), "{now:?} is left, and {idle:?} before");
}

#[test]
fn memory_is_flat_over_a_thousand_reloads() {
    let origin = Nginx::saying("hello");
    let tree = Tree::new();
    Certificates::new(&tree).sign("web", &["localhost"]);
    let proxy = Proxy::start_in(tree, &number(0, &origin));
    let reload = |range: std::ops::Range<usize>| {
        for n in range {
            proxy.write("portolan.yaml", &number(n, &origin));
            assert_eq!(proxy.reload().code, 0, "reload {n}");
        }
    };
    reload(1..200);
    let memory = proxy.resident();
    reload(200..1001);
    let after = proxy.resident();
    assert!(after < memory + (16 << 20), "memory grew from {memory} to {after}");
}
