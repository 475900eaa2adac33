//! Bodies pass as they come: byte by byte, however long, and no further than someone reads.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::mpsc,
    thread,
};

use super::support::{DEADLINE, Origin, Proxy, Reply, curl, eventually, until};

/// What memory may grow by while a body of gigabytes passes.
const GROWTH: u64 = 64 << 20;
const TWO_GIBIBYTES: u64 = 2 << 30;

#[test]
fn server_sent_events_arrive_one_by_one() {
    let (next, events) = mpsc::channel::<&str>();
    let events = std::sync::Mutex::new(events);
    let origin = Origin::serving(move |exchange| {
        exchange
            .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for event in events.lock().unwrap().iter() {
            exchange.send(format!("{:x}\r\n{event}\r\n", event.len()));
        }
        exchange.send("0\r\n\r\n");
        Reply::Keep
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    let head = client.response_head();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    // Each is sent only when the one before it has arrived: a buffer anywhere would stop the test.
    for event in ["data: 1\n\n", "d", "ata: 2\n\n", "x"] {
        next.send(event).unwrap();
        let expected = format!("{:x}\r\n{event}\r\n", event.len());
        assert_eq!(String::from_utf8(client.read_exactly(expected.len())).unwrap(), expected);
    }
    drop(next);
    assert_eq!(client.read_exactly(5), b"0\r\n\r\n");
}

#[test]
fn a_request_body_reaches_the_origin_as_it_comes() {
    let (seen, at_origin) = mpsc::channel();
    let seen = std::sync::Mutex::new(seen);
    let origin = Origin::serving_early(move |exchange| {
        let mut pieces = String::new();
        while !pieces.ends_with("0\r\n\r\n") {
            let piece = String::from_utf8(exchange.read_some()).unwrap();
            assert!(!piece.is_empty(), "the proxy closed");
            pieces.push_str(&piece);
            seen.lock().unwrap().send(pieces.clone()).unwrap();
        }
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        Reply::Keep
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
        while !at_origin.recv_timeout(DEADLINE).expect("the piece at the origin").contains(piece) {}
    }
    assert_eq!(client.send("0\r\n\r\n").response().status, 200);
}

#[test]
fn an_early_response_arrives_while_the_body_is_still_sent() {
    let origin = Origin::serving_early(|exchange| {
        exchange.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
        exchange.read_to_end();
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").send(vec![b'x'; 1000]);
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (413, "big"));
}

#[test]
fn a_conversation_over_one_exchange_goes_both_ways() {
    let origin = Origin::serving_early(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        loop {
            let said = exchange.read_some();
            if said.is_empty() || said.ends_with(b"0\r\n\r\n") {
                exchange.send("0\r\n\r\n");
                return Reply::Close;
            }
            exchange.send("2\r\nok\r\n");
        }
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.response_head().status, 200);
    for _ in 0..5 {
        client.send("3\r\nyou\r\n");
        assert_eq!(client.read_exactly(7), b"2\r\nok\r\n");
    }
}

#[test]
fn a_client_that_goes_is_told_to_the_origin() {
    let (told, gone) = mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::serving(move |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        exchange.read_to_end();
        told.lock().unwrap().send(()).unwrap();
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send("GET /going HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_head().status, 200);
    drop(client);
    gone.recv_timeout(DEADLINE).expect("the origin's connection is closed");
    assert_eq!(proxy.access_line_of("/going")["reason"], "client_gone");
}

#[test]
fn a_client_that_goes_before_the_answer_is_told_to_the_origin() {
    let (told, gone) = mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::serving(move |exchange| {
        told.lock().unwrap().send("asked").unwrap();
        exchange.read_to_end();
        told.lock().unwrap().send("gone").unwrap();
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(gone.recv_timeout(DEADLINE), Ok("asked"));
    drop(client);
    assert_eq!(gone.recv_timeout(DEADLINE), Ok("gone"));
}

#[test]
fn an_origin_is_not_read_faster_than_the_client_reads() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        while exchange.try_send(&piece).is_ok() {}
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let before = proxy.resident();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.response_head();
    // Read some, then see where memory stands: a proxy without backpressure would hold what the origin sent.
    client.read_exactly(64 << 20);
    assert!(proxy.resident() < before + GROWTH, "grew from {before} to {}", proxy.resident());
}

#[test]
fn load_two_gibibytes_down_in_constant_memory() {
    let origin = Origin::serving(|exchange| {
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {TWO_GIBIBYTES}\r\n\r\n"));
        let piece = vec![b'x'; 1 << 20];
        (0..TWO_GIBIBYTES >> 20).for_each(|_| exchange.send(&piece));
        Reply::Keep
    });
    let proxy = Proxy::before(&origin);
    let before = proxy.resident();
    let url = proxy.url("web", "/");
    let download = thread::spawn(move || {
        curl(&["--max-time", "150", "-o", "/dev/null", "-w", "%{size_download}", &url])
    });
    let mut most = before;
    super::support::within(DEADLINE * 6, "the download ends", || {
        most = most.max(proxy.resident());
        download.is_finished().then_some(())
    });
    assert_eq!(download.join().unwrap().stdout, TWO_GIBIBYTES.to_string());
    assert!(most < before + GROWTH, "grew from {before} to {most}");
}

#[test]
fn load_two_gibibytes_up_in_constant_memory() {
    let (counted, arrived) = mpsc::channel();
    let counted = std::sync::Mutex::new(counted);
    let origin = Origin::serving_early(move |exchange| {
        let mut left = TWO_GIBIBYTES;
        let mut piece = vec![0; 1 << 20];
        while left > 0 {
            match exchange.stream.read(&mut piece) {
                Ok(length @ 1..) => left -= length as u64,
                _ => break,
            }
        }
        counted.lock().unwrap().send(TWO_GIBIBYTES - left).unwrap();
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        Reply::Keep
    });
    let proxy = Proxy::before(&origin);
    let before = proxy.resident();
    let port = proxy.port("web");
    let upload = thread::spawn(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {TWO_GIBIBYTES}\r\n\r\n").unwrap();
        let piece = vec![b'x'; 1 << 20];
        (0..TWO_GIBIBYTES >> 20).for_each(|_| stream.write_all(&piece).unwrap());
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8(status.to_vec()).unwrap()
    });
    let mut most = before;
    super::support::within(DEADLINE * 6, "the upload ends", || {
        most = most.max(proxy.resident());
        upload.is_finished().then_some(())
    });
    assert_eq!(upload.join().unwrap(), "HTTP/1.1 200");
    assert_eq!(arrived.recv_timeout(DEADLINE), Ok(TWO_GIBIBYTES));
    assert!(most < before + GROWTH, "grew from {before} to {most}");
}

#[test]
fn what_is_in_flight_ends_with_its_client() {
    let origin = Origin::serving(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        exchange.read_to_end();
        Reply::Close
    });
    let proxy = Proxy::before(&origin);
    let files = eventually("files counted", || Some(proxy.open_files()));
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = proxy.client();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            client.response_head();
            client
        })
        .collect();
    drop(clients);
    until("every descriptor is closed", || proxy.open_files() <= files + 2);
}
