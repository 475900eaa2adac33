//! Frames of WebSocket of every kind (RFC 6455 section 5), the forbidden ones too, after the list of Autobahn's cases:
//! Portolan looks at none, so each arrives as it was said, byte for byte, both ways: from clients of HTTP/1.1, HTTP/2 and
//! HTTP/3, each to an origin of HTTP/1.1 and one of HTTP/2.

use std::fs;

use base64::Engine;
use serde_json::json;

use super::{
    extended_connect::{H2_CLIENT, h2c},
    h3_tunnels::Server,
    support::{Origin, Proxy, Python, Reply, Tree},
};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// The bit of a message's last frame.
const FIN: u8 = 0x80;

/// How a length is written.
#[derive(Clone, Copy)]
enum Width {
    Shortest,
    Two,
    Eight,
}

#[derive(Clone)]
struct Frame {
    first: u8,
    payload: Vec<u8>,
    width: Width,
}

struct Case {
    name: String,
    frames: Vec<Frame>,
}

fn frame(first: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame { first, payload: payload.as_ref().to_vec(), width: Width::Shortest }
}

fn whole(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    frame(FIN | opcode, payload)
}

fn close(code: u16, reason: &[u8]) -> Frame {
    whole(CLOSE, [&code.to_be_bytes()[..], reason].concat())
}

/// A message in pieces of some size.
fn fragments(opcode: u8, payload: &[u8], size: usize) -> Vec<Frame> {
    let pieces: Vec<_> = payload.chunks(size).collect();
    let frame = |(at, piece): (usize, &&[u8])| {
        let fin = if at + 1 == pieces.len() { FIN } else { 0 };
        frame(fin | if at == 0 { opcode } else { CONTINUATION }, piece)
    };
    pieces.iter().enumerate().map(frame).collect()
}

impl Frame {
    /// As a client says it, with a key, or as a server does, without.
    fn write(&self, key: Option<[u8; 4]>, out: &mut Vec<u8>) {
        let length = self.payload.len();
        let mask = if key.is_some() { 0x80 } else { 0 };
        out.push(self.first);
        match (self.width, length) {
            (Width::Shortest, 0..=125) => out.push(mask | u8::try_from(length).unwrap()),
            (Width::Shortest, 126..=65535) | (Width::Two, _) => {
                out.push(mask | 126);
                out.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                out.push(mask | 127);
                out.extend((length as u64).to_be_bytes());
            }
        }
        let Some(key) = key else { return out.extend(&self.payload) };
        out.extend(key);
        out.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
}

impl Case {
    fn of_client(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, frame) in self.frames.iter().enumerate() {
            // The first key is zeros: the payload goes as it is.
            let key = u32::try_from(at).unwrap().wrapping_mul(0x9e37_79b9).to_be_bytes();
            frame.write(Some(key), &mut out);
        }
        out
    }

    fn of_server(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.frames.iter().for_each(|frame| frame.write(None, &mut out));
        out
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |name: String, frames: Vec<Frame>| cases.push(Case { name, frames });
    for length in [0, 1, 125, 126, 127, 128, 65535, 65536] {
        case(format!("text of {length}"), vec![whole(TEXT, "*".repeat(length))]);
        case(format!("binary of {length}"), vec![whole(BINARY, vec![0xfe; length])]);
    }
    for (length, width, name) in [
        (5, Width::Two, "two"),
        (5, Width::Eight, "eight"),
        (65535, Width::Eight, "eight"),
        (0, Width::Eight, "eight"),
    ] {
        let long = Frame { width, ..whole(BINARY, vec![7; length]) };
        case(format!("a length of {length} in {name} bytes"), vec![long]);
    }
    for opcode in [PING, PONG] {
        for length in [0, 1, 125, 126] {
            case(format!("opcode {opcode} of {length}"), vec![whole(opcode, vec![b'p'; length])]);
        }
    }
    case("ten pings".into(), (0..10_u8).map(|n| whole(PING, [n])).collect());
    let parts = || fragments(TEXT, b"fragmented", 5);
    for at in 0..=2 {
        let mut frames = parts();
        frames.insert(at, whole(PING, "there?"));
        case(format!("a ping at {at} of two fragments"), frames);
    }
    case("a ping in fragments".into(), fragments(PING, b"ping", 2));
    case("fragments of one byte".into(), fragments(TEXT, &[b'x'; 500], 1));
    case("empty fragments".into(), vec![frame(TEXT, ""), frame(CONTINUATION, ""), whole(CONTINUATION, "")]);
    case("a continuation of nothing".into(), vec![whole(CONTINUATION, "lost")]);
    case(
        "a message within another".into(),
        vec![frame(TEXT, "a"), whole(TEXT, "b"), whole(CONTINUATION, "c")],
    );
    for bits in 1..8 {
        case(
            format!("reserved bits {bits}"),
            vec![whole(bits << 4 | TEXT, "text"), whole(bits << 4 | PING, "ping")],
        );
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        case(
            format!("opcode {opcode}"),
            vec![whole(opcode, ""), whole(opcode, "payload"), whole(TEXT, "after")],
        );
    }
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        case(format!("close {code}"), vec![close(code, b"")]);
        case(format!("close {code} with a reason"), vec![close(code, "fertig: ä".as_bytes())]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1012, 1016, 1100, 2000, 2999, 5000, 65535] {
        case(format!("close {code}, which nobody may say"), vec![close(code, b"")]);
    }
    case("close with nothing".into(), vec![whole(CLOSE, "")]);
    case("close with half a code".into(), vec![whole(CLOSE, [3])]);
    case("close with the longest reason".into(), vec![close(1000, &[b'r'; 123])]);
    case("close with one too long".into(), vec![close(1000, &[b'r'; 124])]);
    case("close with a reason that is no text".into(), vec![close(1000, &[0xce, 0xba, 0xed, 0xa0, 0x80])]);
    case("two closes".into(), vec![close(1000, b"one"), close(1001, b"two")]);
    case("text after close".into(), vec![close(1000, b""), whole(TEXT, "late"), whole(PING, "late")]);
    let greek = "κόσμε \u{10ffff} \u{feff} Hello-µ@ßöäüàá-UTF-8!!";
    case("text of many letters".into(), vec![whole(TEXT, greek)]);
    case("letters cut in two".into(), fragments(TEXT, greek.as_bytes(), 1));
    for (name, bytes) in [
        ("a surrogate", &b"\xed\xa0\x80edited"[..]),
        ("an overlong slash", b"\xc0\xaf"),
        ("beyond the last letter", b"\xf4\x90\x80\x80"),
        ("half a letter", b"\xce"),
        ("bytes of no letter", b"\xfe\xff"),
    ] {
        case(format!("text with {name}"), vec![whole(TEXT, bytes)]);
    }
    let large: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    case("1 MiB".into(), vec![whole(BINARY, &large)]);
    for size in [64, 1000, 65536] {
        case(format!("1 MiB in fragments of {size}"), fragments(BINARY, &large, size));
    }
    cases
}

/// The cases, and a directory with what is said and heard of each by its number: what the client is to say (`N.client`) and
/// the server (`N.server`), and what reaches the server (`N.seen`) and the client (`N.heard`).
struct Table {
    cases: Vec<Case>,
    tree: Tree,
}

impl Table {
    fn new() -> Self {
        let (cases, tree) = (cases(), Tree::new());
        for (at, case) in cases.iter().enumerate() {
            tree.write(format!("{at}.client"), case.of_client());
            tree.write(format!("{at}.server"), case.of_server());
        }
        Self { cases, tree }
    }

    fn directory(&self) -> String {
        self.tree.path("").to_string_lossy().trim_end_matches('/').to_owned()
    }

    /// An origin that reads what a case's client says, keeps it, and says what its server does. The path is the case's
    /// number.
    fn http_1(&self) -> Origin {
        let directory = self.tree.path("");
        Origin::serving(move |exchange| {
            let path = exchange.request.start.split(' ').nth(1).and_then(|path| path.strip_prefix('/'));
            let number: usize = path.and_then(|path| path.parse().ok()).expect("a case's number");
            let file = |kind: &str| directory.join(format!("{number}.{kind}"));
            let key = exchange.request.field("sec-websocket-key").expect("a key").to_owned();
            exchange.send(switching(&key));
            let (expected, mut said) = (fs::read(file("client")).unwrap().len(), Vec::new());
            while said.len() < expected {
                let some = exchange.read_some();
                if some.is_empty() {
                    break;
                }
                said.extend(some);
            }
            fs::write(file("seen"), said).unwrap();
            exchange.send(fs::read(file("server")).unwrap());
            Reply::Close
        })
    }

    /// One that does the same over HTTP/2, with its address.
    fn http_2(&self) -> (Python, String) {
        let mut origin = Python::run(include_str!("support/h2_websocket_origin.py"), &[&self.directory()]);
        let address = format!("127.0.0.1:{}", origin.line());
        (origin, address)
    }

    fn by_http_1(&self, proxy: &Proxy) {
        for (at, case) in self.cases.iter().enumerate() {
            let mut client = proxy.client();
            client.send(format!(
                "GET /{at} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ));
            assert_eq!(client.response_head().status, 101, "{}", case.name);
            let bytes = case.of_client();
            // Short ones come byte by byte.
            let size = if bytes.len() < 100 { 1 } else { bytes.len() };
            bytes.chunks(size).for_each(|piece| {
                client.send(piece);
            });
            self.tree.write(format!("{at}.heard"), client.read_to_end());
        }
    }

    fn by_http_2(&self, proxy: &Proxy) {
        let (directory, count) = (format!("in={}", self.directory()), format!("count={}", self.cases.len()));
        let port = proxy.port("web").to_string();
        let said = Python::run(H2_CLIENT, &["raw", &port, "/", &directory, &count]).finish();
        assert_eq!(said.trim(), "all");
    }

    fn by_http_3(&self, server: &Server) {
        let specification = json!({ "directory": self.directory(), "count": self.cases.len() });
        let said = server.run("ws_raw", specification).all();
        assert_eq!(said, [json!({ "tunnels": self.cases.len() })]);
    }

    /// Sees that each side has heard what the other said.
    fn check(&self) {
        let read = |at: usize, kind: &str| fs::read(self.tree.path(format!("{at}.{kind}"))).ok();
        let is_wrong = |(at, case): &(usize, &Case)| {
            read(*at, "seen") != Some(case.of_client()) || read(*at, "heard") != Some(case.of_server())
        };
        let wrong: Vec<_> =
            self.cases.iter().enumerate().filter(is_wrong).map(|(_, case)| case.name.as_str()).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(self.cases.len() >= 90, "{} cases", self.cases.len());
    }
}

/// The answer to a request with this key (RFC 6455 section 4.2.2).
pub fn switching(key: &str) -> String {
    let said = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, said.as_bytes());
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

#[test]
fn every_frame_passes_as_it_is_over_http_1() {
    let table = Table::new();
    let origin = table.http_1();
    table.by_http_1(&Proxy::before(&origin));
    table.check();
}

#[test]
fn every_frame_passes_as_it_is_over_http_2() {
    let table = Table::new();
    let origin = table.http_1();
    table.by_http_2(&Proxy::before(&origin));
    table.check();
}

#[test]
fn every_frame_passes_as_it_is_over_http_3() {
    let table = Table::new();
    let origin = table.http_1();
    table.by_http_3(&Server::before(&origin.address(), ""));
    table.check();
}

#[test]
fn every_frame_passes_as_it_is_over_http_1_to_http_2() {
    let table = Table::new();
    let (_origin, address) = table.http_2();
    table.by_http_1(&Proxy::start(&h2c(&address)));
    table.check();
}

#[test]
fn every_frame_passes_as_it_is_over_http_2_to_http_2() {
    let table = Table::new();
    let (_origin, address) = table.http_2();
    table.by_http_2(&Proxy::start(&h2c(&address)));
    table.check();
}

#[test]
fn every_frame_passes_as_it_is_over_http_3_to_http_2() {
    let table = Table::new();
    let (_origin, address) = table.http_2();
    table.by_http_3(&Server::before(&address, "protocol: h2c,"));
    table.check();
}
