//! Clients that mean harm over HTTP/3: each attack ends, memory stays where it was, and others are served beside it. By
//! aioquic, whose rules are broken where the attack needs it.

use serde_json::{Value, json};

use super::{
    http3::start,
    support::{Nginx, Origin, Reply, Secure},
};

const EXCESSIVE_LOAD: u64 = 0x107;
const DECOMPRESSION_FAILED: u64 = 0x200;

/// GET https://a.test/attack with references to the static table.
const ATTACK: &str = "0000d1d75006612e7465737451072f61747461636b";
/// The same as POST.
const POST: &str = "0000d4d75006612e7465737451072f61747461636b";

fn before(origin: &dyn std::fmt::Display, listener: &str) -> Secure {
    start(origin, "[h1, h2, h3]", listener)
}

/// Answers all but what an attack asks, which waits for the client's end.
fn waiting() -> Origin {
    Origin::serving_early(|exchange| {
        if exchange.request.start.contains("attack") {
            exchange.read_to_end();
            return Reply::Close;
        }
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Reply::Keep
    })
}

/// Runs an attack and sees that it cost little memory and that others are served before, beside and after it.
#[track_caller]
fn attack(secure: &Secure, what: &str, specification: Value) -> Value {
    attack_within(24 << 20, secure, what, specification)
}

#[track_caller]
fn attack_within(most: u64, secure: &Secure, what: &str, specification: Value) -> Value {
    let others = || secure.ask_one(json!({ "path": "/other" }))["status"].clone();
    assert_eq!(others(), 200);
    let before = secure.proxy.resident();
    let mut running = secure.run(what, specification);
    assert_eq!(others(), 200);
    let told = running.next();
    assert_eq!(others(), 200);
    let after = secure.proxy.resident();
    assert!(after < before + most, "{what}: from {before} to {after} bytes: {told}");
    told
}

fn attacks(origin: &Origin) -> usize {
    origin.requests().iter().filter(|request| request.start.contains("attack")).count()
}

#[test]
fn requests_that_are_taken_back_end_the_connection() {
    for (end, apart) in [(true, false), (true, true), (false, true)] {
        let origin = waiting();
        let secure = before(&origin.address(), "");
        let asked = json!({ "count": 20_000, "section": ATTACK, "end": end, "apart": apart, "limit": 20 });
        let told = attack(&secure, "churn", asked);
        assert_eq!(told["close"], EXCESSIVE_LOAD, "{told}");
        assert!(told["count"].as_u64().unwrap() < 2_000, "{told}");
        assert!(attacks(&origin) < 2_000, "{} requests reached the origin", attacks(&origin));
    }
}

#[test]
fn requests_that_break_the_rules_end_the_connection() {
    let origin = Origin::saying("ok");
    let secure = before(&origin.address(), "");
    // A field of a connection's (RFC 9114 section 4.2).
    let section = format!("{ATTACK}2703{}0178", "636f6e6e656374696f6e");
    let asked = json!({ "count": 20_000, "section": section, "reset": false, "limit": 20 });
    let told = attack(&secure, "churn", asked);
    assert_eq!(told["close"], EXCESSIVE_LOAD, "{told}");
    assert!(told["count"].as_u64().unwrap() < 2_000, "{told}");
    assert_eq!(attacks(&origin), 0);
}

#[test]
fn streams_that_mean_nothing_end_the_connection() {
    let origin = Origin::saying("ok");
    let secure = before(&origin.address(), "");
    let told = attack(&secure, "churn_uni", json!({ "count": 20_000, "limit": 20 }));
    assert_eq!(told["close"], EXCESSIVE_LOAD, "{told}");
    assert!(told["count"].as_u64().unwrap() < 1_000, "{told}");
}

#[test]
fn streams_that_never_say_what_they_are_are_few() {
    let origin = Origin::saying("ok");
    let secure = before(&origin.address(), "");
    let told = attack(&secure, "uni_held", json!({}));
    // Beside the three that aioquic needs.
    assert_eq!((&told["count"], &told["close"]), (&json!(5), &Value::Null), "{told}");
    assert!(told["data"].as_str().unwrap().starts_with("01"), "{told}");
}

#[test]
fn responses_that_are_not_taken_are_given_up_and_kept_small() {
    let nginx = Nginx::serving("location / { }");
    nginx.tree().write("root/attack", vec![b'x'; 64 << 20]);
    nginx.tree().write("root/other", "ok");
    let secure = before(&nginx.address(), "timeouts: { write_idle: 1s }");
    // Pingora reads ahead of a client by nine pieces of 64 KiB for each of its streams.
    let asked = json!({ "section": ATTACK, "count": 100, "window": 1024 });
    let told = attack_within(96 << 20, &secure, "stall", asked);
    let resets = told["resets"].as_array().unwrap();
    assert!(resets.iter().all(|code| !code.is_null()), "{told}");
    assert_eq!(secure.proxy.access_line_of("/attack")["reason"], "client_too_slow");
}

#[test]
fn heads_that_never_end_are_refused_in_time() {
    let origin = Origin::saying("ok");
    let secure = before(&origin.address(), "timeouts: { header: 1s }");
    // A frame of 16 KiB that comes by single bytes; frames that mean nothing, for ever.
    for (begin, frames) in [("018000400000", false), ("2100", true)] {
        let told = attack(&secure, "trickle", json!({ "begin": begin, "count": 100, "frames": frames }));
        assert_eq!((&told["over"], &told["close"]), (&json!(100), &Value::Null), "{told}");
        let answers = told["data"].as_array().unwrap();
        assert!(answers.iter().all(|data| data.as_str().unwrap().starts_with("01")), "{told}");
    }
    assert_eq!(secure.proxy.access_line(|line| line["status"] == 408)["reason"], "header_timeout");
}

#[test]
fn floods_of_the_control_stream_are_read_past_for_a_while() {
    let origin = Origin::saying("ok");
    let secure = before(&origin.address(), "");
    let (some, flood) = (64 << 10, 4 << 20);
    for (frame, size, close) in [
        // Of no known type: empty ones, and one that says something.
        ("2100", flood, Some(EXCESSIVE_LOAD)),
        ("210100", some, None),
        ("210100", flood, Some(EXCESSIVE_LOAD)),
        // PRIORITY_UPDATE for stream 0 (RFC 9218 section 7.2).
        ("800f07000400753d31", some, None),
        ("800f07000400753d31", flood, Some(EXCESSIVE_LOAD)),
        ("0d0109", some, None),
        ("0d0109", flood, Some(EXCESSIVE_LOAD)),
        ("070109", some, None),
        ("070109", flood, Some(EXCESSIVE_LOAD)),
        ("0400", some, Some(0x105)),
    ] {
        let told = attack(&secure, "control_flood", json!({ "frame": frame, "size": size }));
        assert_eq!(told["close"].as_u64(), close, "{frame}: {told}");
        let is_answered = told["data"].as_str().is_some_and(|data| data.starts_with("01"));
        assert_eq!(is_answered, close.is_none(), "{frame}: {told}");
    }
}

#[test]
fn sections_that_are_large_or_become_so_are_refused() {
    let origin = Origin::saying("ok");
    let secure = before(&origin.address(), "");
    for kind in ["static", "huffman", "literal", "many", "announced"] {
        let told = attack(&secure, "sections", json!({ "kind": kind, "count": 100 }));
        assert_eq!(told["close"], Value::Null, "{kind}: {told}");
        let answers = told["data"].as_array().unwrap();
        assert!(answers.len() == 100 && answers.iter().all(|data| data == "01"), "{kind}: {told}");
    }
    let told = attack(&secure, "sections", json!({ "kind": "endless", "count": 1 }));
    assert_eq!(told["close"], DECOMPRESSION_FAILED, "{told}");
    // What others asked reached it, and nothing of the attacks.
    assert!(origin.requests().iter().all(|request| request.start.contains("/other")));
}

#[test]
fn empty_frames_of_a_body_are_no_progress() {
    let origin = waiting();
    let secure = before(&origin.address(), "");
    for frame in ["0000", "2100"] {
        let asked = json!({ "section": POST, "frame": frame, "count": 1_000_000 });
        let told = attack(&secure, "frames", asked);
        assert_eq!(told["close"], EXCESSIVE_LOAD, "{frame}: {told}");
        assert!(told["sent"].as_u64().unwrap() < 1_000_000, "{told}");
    }
}

#[test]
fn frames_that_mean_nothing_end_the_connection_when_they_are_much() {
    let origin = waiting();
    let secure = before(&origin.address(), "");
    // In a body with a byte of it here and there, and before any.
    for (section, frame) in [
        (Some(POST), format!("21400a{}000162", "00".repeat(10))),
        (None, format!("2140ff{}", "00".repeat(255))),
    ] {
        let asked = json!({ "section": section, "frame": frame, "count": 1_000_000 });
        let told = attack(&secure, "frames", asked);
        assert_eq!(told["close"], EXCESSIVE_LOAD, "{frame}: {told}");
        assert!(told["sent"].as_u64().unwrap() < 1_000_000, "{told}");
    }
}

#[test]
fn handshakes_that_never_finish_are_forgotten() {
    let origin = Origin::saying("ok");
    let secure = before(&origin.address(), "timeouts: { handshake: 1s }");
    let told = attack(&secure, "flood", json!({ "count": 400 }));
    assert_eq!(told["status"], 200, "{told}");
    let failed = "portolan_quic_handshakes_total{listener=\"secure\",outcome=\"failed\"}";
    super::support::until("they are given up", || {
        secure.proxy.metric(failed).is_some_and(|count| count >= 64.0)
    });
}
