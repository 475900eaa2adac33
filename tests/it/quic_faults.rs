//! What RFC 9000 and RFC 9001 forbid a client, and the code that the connection is closed with: by the sections of h3spec's
//! list. What comes above QUIC is in h3_strictness.rs.

use serde_json::{Value, json};

use super::{http3::start, support::Origin};

const FLOW_CONTROL_ERROR: u64 = 0x3;
const STREAM_LIMIT_ERROR: u64 = 0x4;
const STREAM_STATE_ERROR: u64 = 0x5;
const FINAL_SIZE_ERROR: u64 = 0x6;
const FRAME_ENCODING_ERROR: u64 = 0x7;
const TRANSPORT_PARAMETER_ERROR: u64 = 0x8;
const PROTOCOL_VIOLATION: u64 = 0xa;
/// Alerts of TLS (RFC 9001 section 4.8).
const UNEXPECTED_MESSAGE: u64 = 0x10a;
const MISSING_EXTENSION: u64 = 0x16d;
const NO_APPLICATION_PROTOCOL: u64 = 0x178;

#[track_caller]
fn check(cases: &[(&str, Value, u64)]) {
    let origin = Origin::saying("hello");
    let secure = start(&origin.address(), "[h3]", "");
    let said: Vec<_> = cases.iter().map(|(_, case, _)| case).collect();
    let told = secure.run("faults", json!({ "cases": said, "limit": 10 })).all();
    let told: Vec<_> = told.iter().map(|told| told["close"].as_u64()).collect();
    assert_eq!(told.len(), cases.len());
    let wrong: Vec<_> = cases
        .iter()
        .zip(told)
        .filter(|((.., code), told)| *told != Some(*code))
        .map(|((name, _, code), told)| format!("{name}: not {code:#x} but {told:x?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(secure.ask_one(json!({}))["body"], "hello", "others are served");
}

#[test]
fn frames_that_no_client_may_send_close_the_connection() {
    let frames = |hex: &str| json!({ "frames": hex.replace(' ', "") });
    let id = "0102030405060708";
    let token = "00".repeat(16);
    check(&[
        ("4.1: data past the window", frames("0e 00 c000010000000000 01 78"), FLOW_CONTROL_ERROR),
        ("4.5: a stream of two sizes", frames("0b 00 01 78 0f 00 01 01 78"), FINAL_SIZE_ERROR),
        ("4.6: a stream too many", frames("0a 80100000 00"), STREAM_LIMIT_ERROR),
        ("12.4: a frame of no known type", frames("3f"), FRAME_ENCODING_ERROR),
        ("13.1: ACK of what was not sent", frames("02 80100000 00 00 00"), PROTOCOL_VIOLATION),
        ("19.4: RESET_STREAM of the server's stream", frames("04 03 00 00"), STREAM_STATE_ERROR),
        ("19.5: STOP_SENDING of a stream that is not there", frames("05 01 00"), STREAM_STATE_ERROR),
        ("19.5: STOP_SENDING of what the server only reads", frames("05 02 00"), STREAM_STATE_ERROR),
        ("19.6: a handshake's data past its window", frames("06 80100000 01 78"), 0xd),
        ("19.7: NEW_TOKEN", frames("07 01 00"), PROTOCOL_VIOLATION),
        ("19.8: STREAM that the server has not begun", frames("0a 01 00"), STREAM_STATE_ERROR),
        ("19.8: STREAM on what the server only writes", frames("0a 03 00"), STREAM_STATE_ERROR),
        ("19.10: MAX_STREAM_DATA of a stream that is not there", frames("11 01 00"), STREAM_STATE_ERROR),
        ("19.10: MAX_STREAM_DATA of what the server only reads", frames("11 02 00"), STREAM_STATE_ERROR),
        ("19.11: MAX_STREAMS past 2^60", frames("12 d000000000000001"), FRAME_ENCODING_ERROR),
        ("19.11: MAX_STREAMS past 2^60, one-way", frames("13 d000000000000001"), FRAME_ENCODING_ERROR),
        ("19.13: STREAM_DATA_BLOCKED on what the server only writes", frames("15 03 00"), STREAM_STATE_ERROR),
        ("19.14: STREAMS_BLOCKED past 2^60", frames("16 d000000000000001"), FRAME_ENCODING_ERROR),
        (
            "19.15: an id that retires more than there is",
            frames(&format!("18 01 02 08 {id} {token}")),
            FRAME_ENCODING_ERROR,
        ),
        ("19.15: an id of no byte", frames(&format!("18 01 00 00 {token}")), FRAME_ENCODING_ERROR),
        (
            "19.15: an id of 21 bytes",
            frames(&format!("18 01 00 15 {} {token}", "01".repeat(21))),
            FRAME_ENCODING_ERROR,
        ),
        ("19.16: an id retired that was not given", frames("19 7fff"), PROTOCOL_VIOLATION),
        ("19.20: HANDSHAKE_DONE", frames("1e"), PROTOCOL_VIOLATION),
        ("TLS 6: KeyUpdate", frames("06 00 05 1800000100"), UNEXPECTED_MESSAGE),
    ]);
}

#[test]
fn transport_parameters_that_no_client_may_send_close_the_connection() {
    let parameter = |name: u64, value: Option<&str>| json!({ "parameters": { name.to_string(): value } });
    let address = format!("7f000001115c{}115c08{}{}", "00".repeat(16), "01".repeat(8), "02".repeat(16));
    check(&[
        ("7.3: no initial_source_connection_id", parameter(0xf, None), TRANSPORT_PARAMETER_ERROR),
        ("7.3: another initial_source_connection_id", parameter(0xf, Some("01")), TRANSPORT_PARAMETER_ERROR),
        ("18.2: original_destination_connection_id", parameter(0, Some("0102")), TRANSPORT_PARAMETER_ERROR),
        ("18.2: stateless_reset_token", parameter(2, Some(&"00".repeat(16))), TRANSPORT_PARAMETER_ERROR),
        ("18.2: preferred_address", parameter(0xd, Some(&address)), TRANSPORT_PARAMETER_ERROR),
        ("18.2: retry_source_connection_id", parameter(0x10, Some("0102")), TRANSPORT_PARAMETER_ERROR),
        ("18.2: max_udp_payload_size of 1199", parameter(3, Some("44af")), TRANSPORT_PARAMETER_ERROR),
        ("18.2: ack_delay_exponent of 21", parameter(0xa, Some("15")), TRANSPORT_PARAMETER_ERROR),
        ("18.2: max_ack_delay of 2^14", parameter(0xb, Some("80004000")), TRANSPORT_PARAMETER_ERROR),
        ("18.2: active_connection_id_limit of 1", parameter(0xe, Some("01")), TRANSPORT_PARAMETER_ERROR),
        (
            "18.2: more streams than there are numbers",
            parameter(8, Some("d000000000000001")),
            TRANSPORT_PARAMETER_ERROR,
        ),
        ("8.2: none at all", json!({ "extensions": [] }), MISSING_EXTENSION),
        ("8.2: in the extension of the drafts", json!({ "extensions": "draft" }), MISSING_EXTENSION),
    ]);
}

#[test]
fn handshakes_that_no_client_may_make_close_the_connection() {
    check(&[
        (
            "17.2: reserved bits in a handshake's packet",
            json!({ "handshake": { "bits": 0x0c } }),
            PROTOCOL_VIOLATION,
        ),
        (
            "17.3: reserved bits in a packet",
            json!({ "application": { "bits": 0x18 }, "frames": "01" }),
            PROTOCOL_VIOLATION,
        ),
        (
            "17.2.4: PATH_CHALLENGE in a handshake's packet",
            json!({ "handshake": { "frames": "1a0102030405060708" } }),
            PROTOCOL_VIOLATION,
        ),
        (
            "TLS 6: KeyUpdate in the handshake",
            json!({ "handshake": { "frames": "0600051800000100" } }),
            UNEXPECTED_MESSAGE,
        ),
        ("TLS 8.1: a protocol that is not spoken here", json!({ "alpn": ["h9"] }), NO_APPLICATION_PROTOCOL),
        ("TLS 8.1: no protocol", json!({ "alpn": null }), NO_APPLICATION_PROTOCOL),
    ]);
}
