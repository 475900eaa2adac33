//! What one tenant is held to, and that the others do not feel it.

use super::support::{Client, Proxy};

const YAML: &str = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
tenants:
  loud: { limits: { rate: 1/h, burst: 5, in_flight: 100 } }
  calm: { limits: { rate: 1/h, burst: 300, in_flight: 100 } }
hosts:
  one: { names: [one.loud], tenant: loud, routes: { all: { path: "/**", respond: { body: loud } } } }
  two: { names: [two.loud], tenant: loud, routes: { all: { path: "/**", respond: { body: loud } } } }
  calm: { names: [calm], tenant: calm, routes: { all: { path: "/**", respond: { body: calm } } } }
  none: { names: ["*"], routes: { all: { path: "/**", respond: { body: nobody } } } }
"#;

fn ask(client: &mut Client, host: &str) -> u16 {
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).response().status
}

#[test]
fn who_floods_is_refused_and_the_other_is_not() {
    let proxy = Proxy::start(YAML);
    let port = proxy.port("web");
    let flood = |host: &'static str| {
        move || {
            let mut client = Client::tcp(port);
            (0..500).filter(|_| ask(&mut client, host) == 200).count()
        }
    };
    let floods = [flood("one.loud"), flood("two.loud")].map(std::thread::spawn);
    let (mut client, mut nobodys) = (proxy.client(), proxy.client());
    for _ in 0..300 {
        assert_eq!([ask(&mut client, "calm"), ask(&mut nobodys, "else")], [200, 200]);
    }
    let passed: usize = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    assert_eq!(passed, 5, "of the burst, over all hosts");
    assert_eq!(ask(&mut client, "calm"), 429, "its own limit");
    let line = proxy.access_line(|line| line["status"] == 429);
    assert_eq!((&line["reason"], &line["tenant"]), (&"rate_limited".into(), &"loud".into()));
}
