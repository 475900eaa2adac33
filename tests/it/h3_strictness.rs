//! What RFC 9114 and RFC 9204 forbid, said by hand on aioquic's QUIC, and the code that answers it.

use serde_json::{Value, json};

use super::{
    http3::start,
    support::{Origin, Secure},
};

/// GET https://a.test/ with references to the static table.
const GET: &str = "0000d1d75006612e74657374c1";

/// How the server answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    /// With a response, whatever it says.
    Response,
    /// The request alone ends.
    Reset(u64),
    /// The connection ends.
    Close(u64),
    /// It asks for no more on the stream, and goes on.
    Stopped(u64),
}
use Answer::{Close, Reset, Response, Stopped};

const STREAM_CREATION_ERROR: u64 = 0x103;
const CLOSED_CRITICAL_STREAM: u64 = 0x104;
const FRAME_UNEXPECTED: u64 = 0x105;
const FRAME_ERROR: u64 = 0x106;
const ID_ERROR: u64 = 0x108;
const SETTINGS_ERROR: u64 = 0x109;
const MISSING_SETTINGS: u64 = 0x10a;
const REQUEST_INCOMPLETE: u64 = 0x10d;
const MESSAGE_ERROR: u64 = 0x10e;
const DECOMPRESSION_FAILED: u64 = 0x200;
const ENCODER_STREAM_ERROR: u64 = 0x201;
const DECODER_STREAM_ERROR: u64 = 0x202;

/// A stream that says these bytes and ends.
fn request(hex: &str) -> Value {
    json!({ "hex": hex, "end": true })
}

/// One that says these bytes and stays.
fn stays(hex: &str) -> Value {
    json!({ "uni": true, "hex": hex })
}

fn ends(hex: &str) -> Value {
    json!({ "uni": true, "hex": hex, "end": true })
}

fn frame(kind: u8, payload: &str) -> String {
    format!("{kind:02x}{:02x}{payload}", payload.len() / 2)
}

fn headers(section: &str) -> String {
    frame(1, section)
}

fn data(hex: &str) -> String {
    frame(0, hex)
}

/// A GET with one more field, said as it is.
fn with(name: &str, value: &str) -> Value {
    request(&headers(&section(&[(name, value)])))
}

fn section(fields: &[(&str, &str)]) -> String {
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut section = GET.to_owned();
    for (name, value) in fields {
        let length = match name.len() {
            short @ 0..7 => format!("{:02x}", 0x20 | short),
            long => format!("27{:02x}", long - 7),
        };
        section += &format!("{length}{}{:02x}{}", hex(name), value.len(), hex(value));
    }
    section
}

fn get() -> Value {
    request(&headers(GET))
}

fn server() -> (Origin, Secure) {
    let origin = Origin::saying("hello");
    let secure = start(&origin.address(), "[h3]", "");
    (origin, secure)
}

/// Each case on a connection of its own; the answer is that to its last stream.
#[track_caller]
fn check(cases: &[(&str, Vec<Value>, Answer)]) {
    let (_origin, secure) = server();
    let case = |(_, streams, expected): &(&str, Vec<Value>, Answer)| json!({ "streams": streams, "close": matches!(expected, Close(_)) });
    let said: Vec<_> = cases.iter().map(case).collect();
    let told = secure.run("raw", json!({ "cases": said, "limit": 5 })).all();
    assert_eq!(told.len(), cases.len());
    let wrong: Vec<_> = cases
        .iter()
        .zip(&told)
        .filter(|((_, _, expected), told)| answer(told, *expected) != Some(*expected))
        .map(|((name, _, expected), told)| format!("{name}: not {expected:x?} but {told}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn answer(told: &Value, expected: Answer) -> Option<Answer> {
    let last = |list: &str| told[list].as_array().and_then(|list| list.last().cloned()).unwrap_or_default();
    let first_stop = told["stops"].as_array().and_then(|stops| stops.iter().find_map(Value::as_u64));
    match expected {
        Close(_) => told["close"].as_u64().map(Close),
        _ if !told["close"].is_null() => None,
        Reset(_) => last("resets").as_u64().map(Reset),
        Stopped(_) => first_stop.map(Stopped),
        Response => {
            // HEADERS and a reference to, or the text of, a status.
            let begins = last("data").as_str().is_some_and(|data| data.starts_with("01"));
            (begins && last("resets").is_null()).then_some(Response)
        }
    }
}

#[test]
fn requests_are_made_of_frames_in_order() {
    let get = headers(GET);
    check(&[
        ("a plain request", vec![request(&get)], Response),
        (
            "frames that mean nothing",
            vec![request(&format!("{}{get}{}", frame(0x21, "0102"), frame(0x21, "")))],
            Response,
        ),
        ("no frame", vec![request("")], Reset(REQUEST_INCOMPLETE)),
        ("no head", vec![request(&frame(0x21, "00"))], Reset(REQUEST_INCOMPLETE)),
        ("a head cut short", vec![request(&get[..10])], Close(FRAME_ERROR)),
        ("a type alone", vec![request("01")], Close(FRAME_ERROR)),
        ("a body cut short", vec![request(&format!("{get}000568"))], Close(FRAME_ERROR)),
        ("a body before the head", vec![request(&format!("{}{get}", data("00")))], Close(FRAME_UNEXPECTED)),
        (
            "a body after trailers",
            vec![request(&format!("{get}{}{}", headers("0000"), data("00")))],
            Close(FRAME_UNEXPECTED),
        ),
        (
            "trailers twice",
            vec![request(&format!("{get}{}{}", headers("0000"), headers("0000")))],
            Close(FRAME_UNEXPECTED),
        ),
        ("CANCEL_PUSH", vec![request(&format!("{get}{}", frame(3, "00")))], Close(FRAME_UNEXPECTED)),
        ("SETTINGS", vec![request(&format!("{get}{}", frame(4, "")))], Close(FRAME_UNEXPECTED)),
        ("PUSH_PROMISE", vec![request(&format!("{get}{}", frame(5, "00")))], Close(FRAME_UNEXPECTED)),
        ("GOAWAY", vec![request(&format!("{get}{}", frame(7, "00")))], Close(FRAME_UNEXPECTED)),
        ("MAX_PUSH_ID", vec![request(&format!("{get}{}", frame(13, "00")))], Close(FRAME_UNEXPECTED)),
        ("HTTP/2's PRIORITY", vec![request(&format!("{get}{}", frame(2, "")))], Close(FRAME_UNEXPECTED)),
        ("HTTP/2's PING", vec![request(&format!("{get}{}", frame(6, "")))], Close(FRAME_UNEXPECTED)),
        ("HTTP/2's WINDOW_UPDATE", vec![request(&frame(8, ""))], Close(FRAME_UNEXPECTED)),
        ("HTTP/2's CONTINUATION", vec![request(&frame(9, ""))], Close(FRAME_UNEXPECTED)),
    ]);
}

#[test]
fn malformed_requests_are_reset() {
    let whole = |section: &str| request(&headers(section));
    let post = |fields: &[(&str, &str)], body: &str| {
        let section = section(fields).replacen("d1", "d4", 1);
        request(&format!("{}{}", headers(&section), data(body)))
    };
    let extended = |protocols: &[&str]| {
        let fields: Vec<_> = protocols.iter().map(|&protocol| (":protocol", protocol)).collect();
        whole(&section(&fields).replacen("d1", "cf", 1))
    };
    check(&[
        ("an upper-case name", vec![with("Accept", "x")], Reset(MESSAGE_ERROR)),
        ("an empty name", vec![with("", "x")], Reset(MESSAGE_ERROR)),
        ("a space in a name", vec![with("a b", "x")], Reset(MESSAGE_ERROR)),
        ("a colon in a name", vec![with("a:b", "x")], Reset(MESSAGE_ERROR)),
        ("a line feed in a value", vec![with("a", "x\ny: z")], Reset(MESSAGE_ERROR)),
        ("a carriage return in a value", vec![with("a", "x\ry")], Reset(MESSAGE_ERROR)),
        ("NUL in a value", vec![with("a", "x\0")], Reset(MESSAGE_ERROR)),
        ("connection", vec![with("connection", "close")], Reset(MESSAGE_ERROR)),
        ("transfer-encoding", vec![with("transfer-encoding", "chunked")], Reset(MESSAGE_ERROR)),
        ("upgrade", vec![with("upgrade", "h2c")], Reset(MESSAGE_ERROR)),
        ("keep-alive", vec![with("keep-alive", "5")], Reset(MESSAGE_ERROR)),
        ("proxy-connection", vec![with("proxy-connection", "x")], Reset(MESSAGE_ERROR)),
        ("te with more than trailers", vec![with("te", "trailers, gzip")], Reset(MESSAGE_ERROR)),
        ("te with trailers", vec![with("te", "trailers")], Response),
        ("a pseudo-field of responses", vec![with(":status", "200")], Reset(MESSAGE_ERROR)),
        ("a pseudo-field of nothing", vec![with(":x", "200")], Reset(MESSAGE_ERROR)),
        ("a pseudo-field twice", vec![with(":path", "/")], Reset(MESSAGE_ERROR)),
        (":protocol without CONNECT", vec![with(":protocol", "websocket")], Reset(MESSAGE_ERROR)),
        (
            "a pseudo-field after a field",
            vec![whole("0000d1d75006612e74657374216101 62c1".replace(' ', "").as_str())],
            Reset(MESSAGE_ERROR),
        ),
        ("no :method", vec![whole("0000d75006612e74657374c1")], Reset(MESSAGE_ERROR)),
        ("no :scheme", vec![whole("0000d15006612e74657374c1")], Reset(MESSAGE_ERROR)),
        ("no :path", vec![whole("0000d1d75006612e74657374")], Reset(MESSAGE_ERROR)),
        ("no authority", vec![whole("0000d1d7c1")], Reset(MESSAGE_ERROR)),
        ("an empty authority", vec![whole("0000d1d75000c1")], Reset(MESSAGE_ERROR)),
        ("an empty path", vec![whole("0000d1d75006612e746573745100")], Reset(MESSAGE_ERROR)),
        ("a path without a slash", vec![whole("0000d1d75006612e74657374510178")], Reset(MESSAGE_ERROR)),
        (
            "two lengths",
            vec![post(&[("content-length", "1"), ("content-length", "1")], "78")],
            Reset(MESSAGE_ERROR),
        ),
        ("a length that is none", vec![post(&[("content-length", "1x")], "78")], Reset(MESSAGE_ERROR)),
        ("a shorter body", vec![post(&[("content-length", "2")], "78")], Reset(MESSAGE_ERROR)),
        ("a longer body", vec![post(&[("content-length", "1")], "7879")], Reset(MESSAGE_ERROR)),
        ("no body", vec![with("content-length", "1")], Reset(MESSAGE_ERROR)),
        ("a Host that says otherwise", vec![with("host", "b.test")], Response),
        (
            "a pseudo-field in trailers",
            vec![request(&format!("{}{}", headers(GET), headers("0000c1")))],
            Reset(MESSAGE_ERROR),
        ),
        (
            "a length in trailers",
            vec![request(&format!("{}{}", headers(GET), headers("0000c4")))],
            Reset(MESSAGE_ERROR),
        ),
        ("CONNECT with a path", vec![whole("0000cf5006612e74657374c1")], Reset(MESSAGE_ERROR)),
        ("CONNECT", vec![whole("0000cf5006612e74657374")], Response),
        ("CONNECT for a protocol", vec![extended(&["websocket"])], Response),
        ("CONNECT for a protocol that has no name", vec![extended(&[""])], Reset(MESSAGE_ERROR)),
        ("CONNECT for two protocols", vec![extended(&["a", "b"])], Reset(MESSAGE_ERROR)),
    ]);
}

#[test]
fn critical_streams_are_one_of_each_and_stay() {
    let control = "000400";
    check(&[
        ("the three of them", vec![stays(control), stays("02"), stays("03"), get()], Response),
        ("a control stream that ends", vec![ends(control), get()], Close(CLOSED_CRITICAL_STREAM)),
        (
            "one that is reset",
            vec![json!({ "uni": true, "hex": control, "reset": 0x10c }), get()],
            Close(CLOSED_CRITICAL_STREAM),
        ),
        ("an encoder that ends", vec![ends("02"), get()], Close(CLOSED_CRITICAL_STREAM)),
        ("a decoder that ends", vec![ends("03"), get()], Close(CLOSED_CRITICAL_STREAM)),
        ("two control streams", vec![stays(control), stays(control), get()], Close(STREAM_CREATION_ERROR)),
        ("two encoders", vec![stays("02"), stays("02"), get()], Close(STREAM_CREATION_ERROR)),
        ("two decoders", vec![stays("03"), stays("03"), get()], Close(STREAM_CREATION_ERROR)),
        ("a push", vec![stays("0100"), get()], Close(STREAM_CREATION_ERROR)),
        ("a stream of no known type", vec![stays("21aabb"), get()], Stopped(STREAM_CREATION_ERROR)),
        ("a stream without a type", vec![ends(""), get()], Response),
    ]);
}

#[test]
fn the_control_stream_says_settings_first_and_nothing_of_messages() {
    let control = |hex: &str| vec![stays(&format!("00{hex}")), get()];
    check(&[
        ("nothing", control(""), Response),
        ("settings that mean nothing", control("04022101"), Response),
        ("another frame first", control("0d0100"), Close(MISSING_SETTINGS)),
        ("a frame of no known type first", control("2100"), Close(MISSING_SETTINGS)),
        ("SETTINGS twice", control("04000400"), Close(FRAME_UNEXPECTED)),
        ("DATA", control("04000000"), Close(FRAME_UNEXPECTED)),
        ("HEADERS", control("04000100"), Close(FRAME_UNEXPECTED)),
        ("PUSH_PROMISE", control("04000500"), Close(FRAME_UNEXPECTED)),
        ("HTTP/2's PRIORITY", control("04000200"), Close(FRAME_UNEXPECTED)),
        ("HTTP/2's PING", control("04000600"), Close(FRAME_UNEXPECTED)),
        ("a setting of HTTP/2", control("04020201"), Close(SETTINGS_ERROR)),
        ("a setting twice", control("040401000100"), Close(SETTINGS_ERROR)),
        ("a switch that is neither on nor off", control("04020802"), Close(SETTINGS_ERROR)),
        ("half a setting", control("040101"), Close(FRAME_ERROR)),
        ("MAX_PUSH_ID that goes down", control("04000d01050d0104"), Close(ID_ERROR)),
        ("an empty MAX_PUSH_ID", control("04000d00"), Close(FRAME_ERROR)),
        ("a long MAX_PUSH_ID", control("04000d020000"), Close(FRAME_ERROR)),
        ("CANCEL_PUSH of what was not promised", control("0400030100"), Close(ID_ERROR)),
        ("GOAWAY", control("0400070100"), Response),
        ("GOAWAY that goes up", control("0400070100070101"), Close(ID_ERROR)),
        ("an empty GOAWAY", control("04000700"), Close(FRAME_ERROR)),
    ]);
}

#[test]
fn qpack_asks_for_no_dynamic_table() {
    let whole = |section: &str| vec![request(&headers(section))];
    let encoder = |hex: &str| vec![stays(&format!("02{hex}")), get()];
    let decoder = |hex: &str| vec![stays(&format!("03{hex}")), get()];
    check(&[
        ("an empty section", whole(""), Close(DECOMPRESSION_FAILED)),
        ("a Required Insert Count", whole("0100d1d7c1"), Close(DECOMPRESSION_FAILED)),
        ("a negative Base", whole("0080d1d7c1"), Close(DECOMPRESSION_FAILED)),
        ("a field of the dynamic table", whole("000080"), Close(DECOMPRESSION_FAILED)),
        ("a name of the dynamic table", whole("0000400178"), Close(DECOMPRESSION_FAILED)),
        ("a field past its base", whole("000010"), Close(DECOMPRESSION_FAILED)),
        ("a name past its base", whole("0000000178"), Close(DECOMPRESSION_FAILED)),
        ("past the static table", whole("0000ff24"), Close(DECOMPRESSION_FAILED)),
        ("a string cut short", whole("0000d1510578"), Close(DECOMPRESSION_FAILED)),
        ("a Huffman code padded with zeros", whole("0000d1518100"), Close(DECOMPRESSION_FAILED)),
        ("a Huffman code with the end in it", whole("0000d15184ffffffff"), Close(DECOMPRESSION_FAILED)),
        ("an integer without end", whole("0000ffffffffffffffffffffffffffff"), Close(DECOMPRESSION_FAILED)),
        (
            "the same in trailers",
            vec![request(&format!("{}{}", headers(GET), headers("0100")))],
            Close(DECOMPRESSION_FAILED),
        ),
        ("a capacity of 0", encoder("20"), Response),
        ("a capacity", encoder("3f01"), Close(ENCODER_STREAM_ERROR)),
        ("an insertion", encoder("c00178"), Close(ENCODER_STREAM_ERROR)),
        ("a duplicate", encoder("00"), Close(ENCODER_STREAM_ERROR)),
        ("a cancelled stream", decoder("44"), Response),
        ("an acknowledgement", decoder("80"), Close(DECODER_STREAM_ERROR)),
        ("an increment", decoder("01"), Close(DECODER_STREAM_ERROR)),
        ("an increment of 0", decoder("00"), Close(DECODER_STREAM_ERROR)),
    ]);
}

#[test]
fn our_own_control_stream_stays() {
    let (_origin, secure) = server();
    let cases = json!([{ "streams": [stays("000400")], "stop_control": true, "close": true }]);
    let told = secure.run("raw", json!({ "cases": cases, "limit": 5 })).all();
    assert_eq!(told[0]["close"], CLOSED_CRITICAL_STREAM, "{told:?}");
}
