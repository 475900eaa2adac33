//! The end: nothing new, what runs finishes, and no longer than it may.

use std::{net::TcpStream, sync::mpsc, time::Duration};

use super::support::{DEADLINE, Origin, Proxy, Reply, curl, to, until};

/// An origin that answers when it is told to.
fn held() -> (Origin, mpsc::Sender<()>) {
    let (release, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::serving(move |exchange| {
        let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
        Reply::Keep
    });
    (origin, release)
}

#[test]
fn what_is_in_flight_finishes_and_the_process_ends() {
    for signal in ["TERM", "INT"] {
        let (origin, release) = held();
        let mut proxy = Proxy::before(&origin);
        let port = proxy.port("web");
        let mut idle = proxy.client();
        let mut busy = proxy.client();
        busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        until("the origin was asked", || origin.requests().len() == 1);
        proxy.signal(signal);
        assert!(idle.is_closed(), "{signal}: an idle connection is closed at once");
        until("nothing new is taken", || TcpStream::connect(("127.0.0.1", port)).is_err());
        assert!(proxy.is_running(), "{signal}");
        release.send(()).unwrap();
        let response = busy.response();
        assert_eq!((response.status, response.text().as_str()), (200, "late"), "{signal}");
        assert_eq!(response.field("connection"), Some("close"), "{signal}");
        assert!(proxy.ended().success(), "{signal}");
    }
}

#[test]
fn an_idle_process_ends_at_once() {
    let origin = Origin::saying("");
    let mut proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.get("/");
    proxy.signal("TERM");
    let start = std::time::Instant::now();
    assert!(proxy.ended().success());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn the_deadline_ends_what_does_not_end() {
    let (origin, _release) = held();
    let yaml = format!("drain_timeout: 500ms\n{}", to(&[&origin.address()]));
    let mut proxy = Proxy::start(&yaml);
    let mut busy = proxy.client();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the origin was asked", || origin.requests().len() == 1);
    proxy.signal("TERM");
    proxy.ended();
    assert!(busy.is_closed());
}

#[test]
fn a_second_signal_ends_it_now() {
    let (origin, _release) = held();
    let mut proxy = Proxy::before(&origin);
    let mut busy = proxy.client();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the origin was asked", || origin.requests().len() == 1);
    let port = proxy.port("web");
    proxy.signal("TERM");
    until("it drains", || TcpStream::connect(("127.0.0.1", port)).is_err());
    proxy.signal("TERM");
    proxy.ended();
}

#[test]
fn http_2_is_told_to_go_away_and_finishes() {
    let (origin, release) = held();
    let mut proxy = Proxy::before(&origin);
    let url = proxy.url("web", "/");
    let busy = std::thread::spawn(move || curl(&["--http2-prior-knowledge", &url]));
    until("the origin was asked", || origin.requests().len() == 1);
    proxy.signal("TERM");
    release.send(()).unwrap();
    assert_eq!(busy.join().unwrap().stdout, "late");
    assert!(proxy.ended().success());
}

#[test]
fn unix_sockets_are_taken_away() {
    let origin = Origin::saying("unix");
    let yaml = to(&[&origin.address()]).replace("\"127.0.0.1:0\"", "\"unix:web.sock\"");
    let mut proxy = Proxy::start(&yaml);
    let socket = proxy.tree().path("web.sock");
    assert_eq!(super::support::Client::unix(&socket).get("/").text(), "unix");
    proxy.signal("TERM");
    proxy.ended();
    assert!(!socket.exists());
}

#[test]
fn a_socket_left_by_a_killed_process_is_no_hindrance() {
    let origin = Origin::saying("again");
    let tree = super::support::Tree::new();
    drop(std::os::unix::net::UnixListener::bind(tree.path("web.sock")).unwrap());
    let yaml = to(&[&origin.address()]).replace("\"127.0.0.1:0\"", "\"unix:web.sock\"");
    let proxy = Proxy::start_in(tree, &yaml);
    assert_eq!(super::support::Client::unix(proxy.tree().path("web.sock")).get("/").text(), "again");
}
