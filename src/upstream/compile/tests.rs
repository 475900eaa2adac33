use super::*;
use crate::{
    diagnostic::Severity,
    upstream::Pool,
    value::{Span, StatusRange},
};

/// A value as if it were written at this byte.
fn at<T>(start: u32, value: T) -> Spanned<T> {
    Spanned::new(value, Span { start, end: start + 1, ..Span::default() })
}

fn text<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} cannot be read"))
}

fn upstream(endpoints: &[&str]) -> Config {
    let endpoints = (100..).zip(endpoints).map(|(place, address)| at(place, TextOr::Text(text(address))));
    Config {
        outlier: None,
        circuit_breaker: None,
        failover_threshold: None,
        panic_threshold: None,
        slow_start: None,
        proxy_protocol: None,
        balance: None,
        protocol: None,
        endpoints: at(99, endpoints.collect()),
        tls: None,
        health: None,
        pool: config::Pool::default(),
        timeouts: config::Timeouts::default(),
        limits: config::Limits::default(),
        retry: Default::default(),
        sticky: None,
    }
}

fn one() -> Config {
    upstream(&["10.0.0.1:80"])
}

fn http(path: &str) -> config::Health {
    config::Health {
        http: Some(config::HttpCheck { path: at(1, path.into()), status: None, host: None }),
        grpc: None,
        tcp: None,
        interval: None,
        timeout: None,
        unhealthy_after: None,
        healthy_after: None,
    }
}

fn authority() -> String {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()
}

/// Compiles with `ca.pem` in place of every file; gives the problems' codes and places too.
fn compile(config: &Config, pem: &str) -> (Option<Settings>, Vec<(Severity, Code, u32)>) {
    let mut out = Diagnostics::default();
    let mut cx = Context {
        file: &mut |_| Some(pem.as_bytes().into()),
        certificate: &|_| None,
        first_byte: time::Duration::from_secs(30),
        zone: None,
        body_idle: time::Duration::from_secs(40),
        denied: &Denied::default(),
        endpoints_file: &|_| EndpointsFile {
            path: "endpoints.yaml".into(),
            roots: None,
            read: ReadEndpoints(Arc::new(|| Err("it is not there".into()))),
        },
        resolvers: Arc::default(),
        out: &mut out,
    };
    let settings = settings(&at(0, text("pool")), config, &mut cx);
    let problems = out.iter().map(|d| (d.severity, d.code, d.labels[0].span.start)).collect();
    (settings, problems)
}

fn good(config: &Config) -> Settings {
    let (settings, problems) = compile(config, "");
    assert_eq!(problems, []);
    settings.expect("no problem was reported")
}

/// The one error, and that nothing was compiled.
fn error(config: &Config) -> (Code, u32) {
    let (settings, problems) = compile(config, "");
    assert!(settings.is_none());
    match problems[..] {
        [(Severity::Error, code, place)] => (code, place),
        _ => panic!("{problems:?}"),
    }
}

#[test]
fn defaults_are_filled_in() {
    let settings = good(&upstream(&["10.0.0.1:80", "unix:/run/x.sock"]));
    assert_eq!(settings.balance, Balance::RoundRobin);
    assert_eq!(settings.protocol, Protocol::H1);
    assert_eq!(settings.retry.retries, 2);
    assert_eq!(settings.pool, Pool::of_idle(time::Duration::from_secs(60)));
    let Timeouts { connect, first_byte, body_idle } = settings.timeouts;
    assert_eq!([connect, first_byte, body_idle].map(|time| time.as_secs()), [5, 30, 40]);
    assert!(settings.endpoints.iter().all(|endpoint| endpoint.weight == 1));

    let health = good(&Config { health: Some(at(5, http("/ready?full=1"))), ..one() }).health.unwrap();
    assert_eq!((health.interval.as_secs(), health.timeout.as_secs()), (5, 1));
    assert_eq!((health.unhealthy_after, health.healthy_after), (3, 2));
    assert_eq!(health.probe, Probe::Http { path: text("/ready?full=1"), status: 200..=299, host: None });
}

#[test]
fn what_is_written_goes_before_defaults() {
    let mut config = one();
    config.balance =
        Some(at(1, TextOr::Map(BalanceByKey::ConsistentHash(at(2, TextOr::Text(text("client_ip")))))));
    config.timeouts.first_byte = Some(at(3, text("5m")));
    config.retry.retries = Some(at(1, 0));
    let mut health = http("/");
    let check = health.http.as_mut().unwrap();
    (check.status, check.host) = (Some(StatusRange(204..=204)), Some(at(4, "a.example:81".into())));
    config.health = Some(at(5, health));
    let settings = good(&config);
    assert_eq!(settings.balance, Balance::ConsistentHash(config::BalanceKey::ClientIp));
    assert_eq!(settings.timeouts.first_byte.as_secs(), 300);
    assert_eq!(settings.retry.retries, 0);
    let Probe::Http { status, host, .. } = settings.health.unwrap().probe else { panic!("not http") };
    assert_eq!((status, host.unwrap().name()), (204..=204, "a.example"));
}

#[test]
fn endpoints_are_checked() {
    assert_eq!(error(&upstream(&[])), (Code::NoEndpoints, 99));
    assert_eq!(error(&upstream(&["10.0.0.1:80", "10.0.0.1:80"])), (Code::DuplicateName, 101));
    let mut config = one();
    let map = config::EndpointMap {
        address: Some(at(6, text("10.0.0.2:80"))),
        weight: Some(at(7, text("1001"))),
        ..Default::default()
    };
    config.endpoints.value.push(at(6, TextOr::Map(map)));
    assert_eq!(error(&config), (Code::BadValue, 7));
}

#[test]
fn sources_are_checked() {
    let with = |map: config::EndpointMap| {
        let mut config = one();
        config.endpoints.value.push(at(6, TextOr::Map(map)));
        config
    };
    let dns = || config::EndpointMap { dns: Some(at(5, text("app:80"))), ..Default::default() };
    let srv = || config::EndpointMap { srv: Some(at(5, text("_http._tcp.app"))), ..Default::default() };
    let file = || config::EndpointMap { file: Some(at(5, text("endpoints.yaml"))), ..Default::default() };
    let address = || config::EndpointMap { address: Some(at(5, text("10.0.0.2:80"))), ..Default::default() };

    let (weight, refresh) = (Some(at(7, text("3"))), Some(at(8, text("10s"))));
    let prefer = Some(at(9, config::Prefer::V6));
    let settings = good(&with(config::EndpointMap { weight, refresh, prefer, ..dns() }));
    let source = &settings.sources[0];
    assert_eq!(source.definition.to_string(), "dns app:80");
    assert_eq!(
        (source.weight, source.refresh, source.prefer),
        (3, Some(time::Duration::from_secs(10)), config::Prefer::V6)
    );
    assert_eq!(good(&upstream(&["app:80", "10.0.0.1:80"])).sources.len(), 1);
    for map in [dns(), srv()] {
        let priority = Some(at(10, 2));
        assert_eq!(good(&with(config::EndpointMap { priority, ..map.clone() })).sources[0].priority, 2);
        let backup = Some(at(11, true));
        assert_eq!(good(&with(config::EndpointMap { backup, ..map.clone() })).sources[0].priority, u32::MAX);
        let both = config::EndpointMap { priority, backup, ..map.clone() };
        assert_eq!(error(&with(both)), (Code::NoEffect, 10));
        let zone = Some(at(12, text("a")));
        assert_eq!(error(&with(config::EndpointMap { zone, ..map })), (Code::NoEffect, 12));
    }

    assert_eq!(error(&with(config::EndpointMap::default())), (Code::MissingKey, 6));
    assert_eq!(error(&with(config::EndpointMap { dns: dns().dns, ..srv() })), (Code::BadValue, 6));
    for refresh in ["0s", "999ms", "366d"] {
        let refresh = Some(at(8, text(refresh)));
        assert_eq!(error(&with(config::EndpointMap { refresh, ..dns() })), (Code::BadValue, 8));
    }
    for (map, place) in [
        (config::EndpointMap { weight, ..srv() }, 7),
        (config::EndpointMap { refresh, ..address() }, 8),
        (config::EndpointMap { prefer, ..address() }, 9),
    ] {
        assert_eq!(error(&with(map)), (Code::NoEffect, place));
    }
    assert_eq!(error(&upstream(&["app:80", "APP:80"])), (Code::DuplicateName, 101));

    // A file may become right while it is served by.
    let (settings, problems) = compile(&with(file()), "");
    assert_eq!(settings.unwrap().sources.len(), 1);
    assert_eq!(problems, [(Severity::Warning, Code::BadEndpointsFile, 5)]);
    let (_, problems) = compile(&with(config::EndpointMap { weight, ..file() }), "");
    assert!(problems.contains(&(Severity::Error, Code::NoEffect, 7)), "{problems:?}");
}

#[test]
fn protocol_and_tls_go_together() {
    let with = |protocol, tls: bool| Config {
        protocol: Some(at(3, protocol)),
        tls: tls.then(|| at(4, config::Tls::default())),
        ..one()
    };
    assert_eq!(error(&with(Protocol::H2c, true)), (Code::BadValue, 3));
    assert_eq!(error(&with(Protocol::H2, false)), (Code::MissingKey, 3));
    assert_eq!(error(&with(Protocol::Auto, false)), (Code::MissingKey, 3));
    for (protocol, tls) in [
        (Protocol::H1, false),
        (Protocol::H1, true),
        (Protocol::H2, true),
        (Protocol::Auto, true),
        (Protocol::H2c, false),
    ] {
        assert_eq!(good(&with(protocol, tls)).tls.is_some(), tls);
    }
}

#[test]
fn tls_is_checked() {
    let tls = |tls| Config { tls: Some(at(1, tls)), ..one() };
    for wrong in ["", "a b", "https://a", "a:443", "[::1]", "*.example.com"] {
        let config = tls(config::Tls { server_name: Some(at(2, wrong.into())), ..Default::default() });
        assert_eq!(error(&config), (Code::BadValue, 2), "{wrong:?}");
    }
    for right in ["api.internal", "10.0.0.1", "::1", "under_score.example.com"] {
        let config = tls(config::Tls { server_name: Some(at(2, right.into())), ..Default::default() });
        let server_name = good(&config).tls.unwrap().server_name;
        assert_eq!(server_name, ServerName::Fixed(right.into()));
        assert!(!Host::of_name(right).name().is_empty());
    }
    let ca = || Some(at(3, text("ca.pem")));
    let config = tls(config::Tls { ca: ca(), ..Default::default() });
    assert_eq!(error(&config), (Code::BadCertificate, 3));
    assert!(compile(&config, &authority()).0.is_some());

    let verify = Some(at(4, Verify::None));
    let (settings, problems) = compile(&tls(config::Tls { verify, ..Default::default() }), "");
    assert!(settings.is_some());
    assert_eq!(problems, [(Severity::Warning, Code::InsecureUpstream, 4)]);
    let (settings, problems) =
        compile(&tls(config::Tls { verify, ca: ca(), ..Default::default() }), &authority());
    assert!(settings.is_none());
    assert!(problems.contains(&(Severity::Error, Code::NoEffect, 3)));
}

#[test]
fn health_is_checked() {
    let with = |change: &dyn Fn(&mut config::Health)| {
        let mut health = http("/ready");
        change(&mut health);
        Config { health: Some(at(9, health)), ..one() }
    };
    assert_eq!(error(&with(&|health| health.http = None)), (Code::MissingKey, 9));
    assert_eq!(error(&with(&|health| health.tcp = Some(config::TcpCheck {}))), (Code::BadValue, 9));
    let grpc = |service: Option<&str>| {
        let check = config::GrpcCheck { service: service.map(str::to_owned), host: None };
        config::Health { http: None, grpc: Some(at(6, check)), ..http("/") }
    };
    assert_eq!(error(&with(&|health| health.grpc = grpc(None).grpc)), (Code::BadValue, 9));
    assert_eq!(error(&with(&|health| *health = grpc(None))), (Code::BadValue, 6), "HTTP/1.1 has no gRPC");
    for (service, expected) in [(None, ""), (Some("a.B"), "a.B")] {
        let protocol = Some(at(3, Protocol::H2c));
        let settings = good(&Config { protocol, ..with(&|health| *health = grpc(service)) });
        let probe = Probe::Grpc { service: expected.to_owned(), host: None };
        assert_eq!(settings.health.unwrap().probe, probe);
    }
    assert_eq!(error(&with(&|health| health.interval = Some(at(8, text("0s"))))), (Code::BadValue, 8));
    for wrong in ["", "ready", "/a b", "/a#b", "http://a/"] {
        assert_eq!(error(&with(&|health| *health = http(wrong))), (Code::BadValue, 1), "{wrong:?}");
    }
    let host = |text: &'static str| {
        with(&move |health| health.http.as_mut().unwrap().host = Some(at(7, text.to_owned())))
    };
    for wrong in ["", "a b", "user@a", ":80", "http://a"] {
        assert_eq!(error(&host(wrong)), (Code::BadValue, 7), "{wrong:?}");
    }
}

#[test]
fn times_are_finite_and_all_problems_come_at_once() {
    let mut config = upstream(&[]);
    config.protocol = Some(at(1, Protocol::H2));
    config.timeouts.connect = Some(at(2, text("0s")));
    config.timeouts.body_idle = Some(at(3, text("366d")));
    config.pool.idle = Some(at(4, text("0ms")));
    let (settings, problems) = compile(&config, "");
    assert!(settings.is_none());
    assert_eq!(problems.iter().map(|(_, _, place)| *place).collect::<Vec<_>>(), [99, 1, 2, 3, 4]);
}
