//! What RFC 9113 and RFC 7541 say of frames, streams and field blocks, and the code that answers each breach: by the sections
//! of h2spec's list. What is said of fields (RFC 9113 section 8) is in tests/cases/http2, floods are in hostile.rs.

use std::io::ErrorKind;

use super::support::{
    Origin, Proxy, config,
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING, PRIORITY,
        PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, request, section,
    },
    to,
};

/// How the proxy answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    /// It goes on as if nothing had been.
    Nothing,
    /// With the whole of a response on this stream.
    Response(u32),
    /// The stream alone ends, with this code.
    Reset(u32, u32),
    /// The connection ends with this code.
    Ended(u32),
}
use Answer::{Ended, Nothing, Reset, Response};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

const PADDED: u8 = 8;
const PRIORITIZED: u8 = 0x20;
const UNKNOWN: u8 = 0x16;
const LAST_WORD: &[u8; 8] = b"the end.";

/// What is said at once; and what is said when the response to it is over.
struct Case {
    name: &'static str,
    said: Vec<u8>,
    then: Vec<u8>,
    answer: Answer,
}

fn case(name: &'static str, said: &[Vec<u8>], answer: Answer) -> Case {
    Case { name, said: said.concat(), then: Vec::new(), answer }
}

/// A case whose stream 1 has had its request and its response.
fn later(name: &'static str, then: &[Vec<u8>], answer: Answer) -> Case {
    Case { name, said: get(1), then: then.concat(), answer }
}

/// A whole request.
fn get(stream: u32) -> Vec<u8> {
    headers(END_STREAM | END_HEADERS, stream, &request("GET", "/"))
}

/// The head of a request whose body follows.
fn post(stream: u32) -> Vec<u8> {
    headers(END_HEADERS, stream, &request("POST", "/"))
}

fn headers(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, payload)
}

fn data(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

fn continuation(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(CONTINUATION, flags, stream, payload)
}

/// Depends on another stream, with a weight.
fn priority(stream: u32, on: u32) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[15]].concat())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn settings(name: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// A request in one block, which begins as `GET` with references to the static table does.
fn block(more: &[u8]) -> Vec<u8> {
    headers(END_STREAM | END_HEADERS, 1, &[&[0x82, 0x84, 0x86, 0x01, 0x01, b'a'], more].concat())
}

/// A block in two, and what comes between.
fn parted(between: &[u8], rest: &[u8]) -> Vec<u8> {
    let whole = request("GET", "/");
    let (first, last) = whole.split_at(10);
    [headers(END_STREAM, 1, first), between.to_vec(), continuation(END_HEADERS, 1, last), rest.to_vec()]
        .concat()
}

#[track_caller]
fn check(cases: &[Case]) {
    let origin = Origin::saying("hello");
    let proxy = Proxy::before(&origin);
    let wrong = |case: &Case| {
        let answer = case.answered(proxy.port("web"));
        (answer != case.answer).then(|| format!("{}: {answer:?} instead of {:?}", case.name, case.answer))
    };
    let wrong: Vec<_> = cases.iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Case {
    fn answered(&self, port: u16) -> Answer {
        let mut frames = Frames::connect(port, &[]);
        frames.write(&self.said);
        if !self.then.is_empty() {
            assert_eq!(until_settled(&mut frames, Response(1)), Response(1), "{}", self.name);
            frames.write(&self.then);
        }
        frames.send(PING, 0, 0, LAST_WORD);
        let answer = until_settled(&mut frames, self.answer);
        if !matches!(answer, Ended(_)) {
            // It goes on for all other streams.
            frames.write(&get(101));
            assert_eq!(until_settled(&mut frames, Response(101)), Response(101), "{}", self.name);
        }
        answer
    }
}

/// Reads on until it is clear what the answer is, where this is expected.
fn until_settled(frames: &mut Frames, expected: Answer) -> Answer {
    loop {
        let frame =
            frames.try_receive().unwrap_or_else(|error| panic!("{expected:?} does not come: {error}"));
        let Frame { kind, flags, stream, payload } = &frame;
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match *kind {
            GOAWAY => return Ended(code(4)),
            RST_STREAM => return Reset(*stream, code(0)),
            DATA | HEADERS if flags & END_STREAM != 0 && expected == Response(*stream) => return expected,
            // Behind it, an error of a stream may still come, as may a response.
            PING if payload == LAST_WORD && expected == Nothing => return Nothing,
            SETTINGS if flags & ACK == 0 => {
                frames.send(SETTINGS, ACK, 0, &[]);
            }
            _ => {}
        }
    }
}

#[test]
fn what_is_allowed_is_taken() {
    let padded = [&[3][..], &request("GET", "/"), &[0; 3]].concat();
    let prioritized = [&[0, 0, 0, 0, 255][..], &request("GET", "/")].concat();
    let both = [&[3, 0, 0, 0, 0, 255][..], &request("GET", "/"), &[0; 3]].concat();
    check(&[
        case("2: PRIORITY for an idle stream", &[priority(3, 1), get(1)], Response(1)),
        case("2: WINDOW_UPDATE behind a request", &[get(1), window(1, 100)], Response(1)),
        case("2: PRIORITY behind a request", &[get(1), priority(1, 3)], Response(1)),
        case("2: RST_STREAM behind a request", &[get(1), reset(1, 8)], Nothing),
        later("2: PRIORITY behind a response", &[priority(1, 3)], Nothing),
        later("5.1: WINDOW_UPDATE behind a response", &[window(1, 100)], Nothing),
        later("5.1: RST_STREAM behind a response", &[reset(1, 8)], Nothing),
        case("3.1: DATA in several frames", &[post(1), data(0, 1, b"a"), data(1, 1, b"b")], Response(1)),
        case(
            "3.1: DATA with padding",
            &[post(1), data(END_STREAM | PADDED, 1, b"\x03abc\0\0\0")],
            Response(1),
        ),
        case("3.1: DATA that is all padding", &[post(1), data(END_STREAM | PADDED, 1, b"\x00")], Response(1)),
        case("3.2: HEADERS with padding", &[headers(0x5 | PADDED, 1, &padded)], Response(1)),
        case("3.2: HEADERS with a priority", &[headers(0x5 | PRIORITIZED, 1, &prioritized)], Response(1)),
        case("3.2: HEADERS with both", &[headers(0x5 | PADDED | PRIORITIZED, 1, &both)], Response(1)),
        case("3.3: PRIORITY that is exclusive", &[priority(1, 1 << 31 | 3), get(1)], Response(1)),
        case("3.4: RST_STREAM within a body", &[post(1), reset(1, 8)], Nothing),
        case("3.5: SETTINGS", &[settings(3, 100), get(1)], Response(1)),
        case("3.7: PING", &[frame(PING, 0, 0, b"anything")], Nothing),
        case("3.9: WINDOW_UPDATE", &[window(0, 1), post(1), window(1, 1), data(1, 1, b"")], Response(1)),
        case("3.10: CONTINUATION", &[parted(&[], &[])], Response(1)),
        case("3.10: several", &[parted(&continuation(0, 1, &[]), &[])], Response(1)),
        case(
            "4: trailers",
            &[post(1), data(0, 1, b"a"), headers(0x5, 1, &section(&[("x-sum", "1")]))],
            Response(1),
        ),
        case("4.1: a frame of an unknown type", &[frame(UNKNOWN, 0, 0, b"x"), get(1)], Response(1)),
        case("4.1: flags that nothing is said of", &[frame(PING, 0x16, 0, b"anything"), get(1)], Response(1)),
        case("4.1: the reserved bit", &[frame(PING, 0, 1 << 31, b"anything"), get(1)], Response(1)),
        case("4.2: as much DATA as may be", &[post(1), data(1, 1, &[b'x'; 16_384])], Response(1)),
        case(
            "5.5: an unknown frame on a stream",
            &[post(1), frame(UNKNOWN, 0xff, 1, b""), data(1, 1, b"")],
            Response(1),
        ),
        case("6.5.2: an unknown setting", &[settings(0xff, 1), get(1)], Response(1)),
        case("6.7: PING that acknowledges", &[frame(PING, ACK, 0, b"whatever")], Nothing),
        // Who asks for nothing more is told the same.
        case(
            "7: GOAWAY with an unknown code",
            &[frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff])],
            Ended(0),
        ),
        case("7: RST_STREAM with an unknown code", &[post(1), reset(1, 0xff)], Nothing),
        case("8.1: an informational answer is none of a client's", &[get(1), get(3)], Response(3)),
    ]);
}

#[test]
fn frames_have_a_form() {
    let (large, much) = (vec![0; 16_385], vec![b'x'; 16_385]);
    check(&[
        case("4.2: too much DATA", &[post(1), data(1, 1, &much)], Ended(FRAME_SIZE_ERROR)),
        case("4.2: HEADERS too large", &[headers(0x5, 1, &large)], Ended(FRAME_SIZE_ERROR)),
        case("4.2: an unknown frame too large", &[frame(UNKNOWN, 0, 0, &large)], Ended(FRAME_SIZE_ERROR)),
        case("5.4.1: a PING of 9 bytes", &[frame(PING, 0, 0, b"123456789")], Ended(FRAME_SIZE_ERROR)),
        case("6.1: DATA on stream 0", &[data(1, 0, b"x")], Ended(PROTOCOL_ERROR)),
        case(
            "6.1: more padding than DATA",
            &[post(1), data(1 | PADDED, 1, b"\x05abc")],
            Ended(PROTOCOL_ERROR),
        ),
        case("6.1: padding without a length", &[post(1), data(1 | PADDED, 1, b"")], Ended(FRAME_SIZE_ERROR)),
        case("6.2: HEADERS on stream 0", &[headers(0x5, 0, &request("GET", "/"))], Ended(PROTOCOL_ERROR)),
        case(
            "6.2: more padding than HEADERS",
            &[headers(0x5 | PADDED, 1, b"\x05\x82")],
            Ended(PROTOCOL_ERROR),
        ),
        case("6.2: half a priority", &[headers(0x5 | PRIORITIZED, 1, b"\0\0")], Ended(FRAME_SIZE_ERROR)),
        case("6.3: PRIORITY on stream 0", &[priority(0, 1)], Ended(PROTOCOL_ERROR)),
        case("6.3: PRIORITY of 4 bytes", &[post(1), frame(PRIORITY, 0, 1, &[0; 4])], Ended(FRAME_SIZE_ERROR)),
        case("6.4: RST_STREAM on stream 0", &[reset(0, 8)], Ended(PROTOCOL_ERROR)),
        case(
            "6.4: RST_STREAM of 3 bytes",
            &[post(1), frame(RST_STREAM, 0, 1, &[0; 3])],
            Ended(FRAME_SIZE_ERROR),
        ),
        case(
            "6.5: an acknowledgement that says something",
            &[frame(SETTINGS, ACK, 0, &[0; 6])],
            Ended(FRAME_SIZE_ERROR),
        ),
        case(
            "6.5: SETTINGS on a stream",
            &[frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100])],
            Ended(PROTOCOL_ERROR),
        ),
        case("6.5: half a setting", &[frame(SETTINGS, 0, 0, &[0; 3])], Ended(FRAME_SIZE_ERROR)),
        case("6.5.2: ENABLE_PUSH of 2", &[settings(2, 2)], Ended(PROTOCOL_ERROR)),
        case("6.5.2: INITIAL_WINDOW_SIZE of 2^31", &[settings(4, 1 << 31)], Ended(FLOW_CONTROL_ERROR)),
        case("6.5.2: MAX_FRAME_SIZE of 2^14-1", &[settings(5, 16_383)], Ended(PROTOCOL_ERROR)),
        case("6.5.2: MAX_FRAME_SIZE of 2^24", &[settings(5, 1 << 24)], Ended(PROTOCOL_ERROR)),
        case(
            "6.6: PUSH_PROMISE",
            &[post(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])],
            Ended(PROTOCOL_ERROR),
        ),
        case("6.7: PING on a stream", &[frame(PING, 0, 1, b"anything")], Ended(PROTOCOL_ERROR)),
        case("6.7: a PING of 6 bytes", &[frame(PING, 0, 0, b"123456")], Ended(FRAME_SIZE_ERROR)),
        case("6.8: GOAWAY on a stream", &[frame(GOAWAY, 0, 1, &[0; 8])], Ended(PROTOCOL_ERROR)),
        case("6.8: half a GOAWAY", &[frame(GOAWAY, 0, 0, &[0; 4])], Ended(FRAME_SIZE_ERROR)),
        case("6.9: no more window for all", &[window(0, 0)], Ended(PROTOCOL_ERROR)),
        case("6.9: no more window for a stream", &[post(1), window(1, 0)], Ended(PROTOCOL_ERROR)),
        case(
            "6.9: WINDOW_UPDATE of 3 bytes",
            &[frame(WINDOW_UPDATE, 0, 0, &[0; 3])],
            Ended(FRAME_SIZE_ERROR),
        ),
        case("6.9.1: too much window for all", &[window(0, (1 << 31) - 1)], Ended(FLOW_CONTROL_ERROR)),
        case(
            "6.9.1: too much window for a stream",
            &[post(1), window(1, (1 << 31) - 1)],
            Reset(1, FLOW_CONTROL_ERROR),
        ),
        case(
            "6.9.2: too much window by a setting",
            &[post(1), window(1, (1 << 31) - 1 - 65_535), settings(4, 65_536)],
            Ended(FLOW_CONTROL_ERROR),
        ),
    ]);
}

#[test]
fn streams_have_states() {
    let end = || data(END_STREAM, 1, b"");
    check(&[
        case("5.1: DATA on an idle stream", &[data(1, 1, b"x")], Ended(PROTOCOL_ERROR)),
        case("5.1: RST_STREAM on an idle stream", &[reset(1, 8)], Ended(PROTOCOL_ERROR)),
        case("5.1: WINDOW_UPDATE on an idle stream", &[window(1, 100)], Ended(PROTOCOL_ERROR)),
        case(
            "5.1: CONTINUATION on an idle stream",
            &[continuation(END_HEADERS, 1, &[])],
            Ended(PROTOCOL_ERROR),
        ),
        case("5.1: DATA behind a request", &[get(1), data(1, 1, b"x")], Ended(STREAM_CLOSED)),
        case("5.1: HEADERS behind a request", &[get(1), get(1)], Ended(STREAM_CLOSED)),
        case(
            "5.1: CONTINUATION behind a request",
            &[get(1), continuation(END_HEADERS, 1, &[])],
            Ended(PROTOCOL_ERROR),
        ),
        case(
            "5.1: DATA behind RST_STREAM",
            &[post(1), reset(1, 8), data(1, 1, b"x")],
            Reset(1, STREAM_CLOSED),
        ),
        case("5.1: HEADERS behind RST_STREAM", &[post(1), reset(1, 8), get(1)], Ended(STREAM_CLOSED)),
        case(
            "5.1: CONTINUATION behind RST_STREAM",
            &[post(1), reset(1, 8), continuation(END_HEADERS, 1, &[])],
            Ended(PROTOCOL_ERROR),
        ),
        later("5.1: DATA behind a response", &[data(1, 1, b"x")], Reset(1, STREAM_CLOSED)),
        later("5.1: HEADERS behind a response", &[get(1)], Ended(STREAM_CLOSED)),
        later(
            "5.1: CONTINUATION behind a response",
            &[continuation(END_HEADERS, 1, &[])],
            Ended(PROTOCOL_ERROR),
        ),
        case("5.1.1: a stream of the server's", &[get(2)], Ended(PROTOCOL_ERROR)),
        case("5.1.1: a stream that was passed over", &[get(5), get(3)], Ended(PROTOCOL_ERROR)),
        case(
            "5.3.1: HEADERS that depend on themselves",
            &[headers(0x5 | PRIORITIZED, 1, &[&[0, 0, 0, 1, 15][..], &request("GET", "/")].concat())],
            Reset(1, PROTOCOL_ERROR),
        ),
        case("5.3.1: PRIORITY that depends on itself", &[post(1), priority(1, 1)], Reset(1, PROTOCOL_ERROR)),
        case(
            "8.1: HEADERS within a body that end nothing",
            &[post(1), headers(END_HEADERS, 1, &section(&[("x-a", "b")])), end()],
            Reset(1, PROTOCOL_ERROR),
        ),
    ]);
}

#[test]
fn nothing_comes_between_the_frames_of_a_block() {
    check(&[
        case("4.3: PRIORITY", &[parted(&priority(1, 3), &[])], Ended(PROTOCOL_ERROR)),
        case("4.3: HEADERS of another stream", &[parted(&get(3), &[])], Ended(PROTOCOL_ERROR)),
        case("5.5: an unknown frame", &[parted(&frame(UNKNOWN, 0, 1, b""), &[])], Ended(PROTOCOL_ERROR)),
        case("6.10: DATA", &[parted(&data(0, 1, b"x"), &[])], Ended(PROTOCOL_ERROR)),
        case("6.10: PING", &[parted(&frame(PING, 0, 0, b"anything"), &[])], Ended(PROTOCOL_ERROR)),
        case(
            "6.10: CONTINUATION of another stream",
            &[parted(&continuation(0, 3, &[]), &[])],
            Ended(PROTOCOL_ERROR),
        ),
        case(
            "6.10: CONTINUATION on stream 0",
            &[parted(&continuation(0, 0, &[]), &[])],
            Ended(PROTOCOL_ERROR),
        ),
        case(
            "6.10: CONTINUATION behind HEADERS that end the block",
            &[post(1), continuation(END_HEADERS, 1, &[])],
            Ended(PROTOCOL_ERROR),
        ),
        case(
            "6.10: CONTINUATION behind one that ends the block",
            &[parted(&[], &continuation(END_HEADERS, 1, &[]))],
            Ended(PROTOCOL_ERROR),
        ),
        case(
            "6.10: CONTINUATION behind DATA",
            &[post(1), data(0, 1, b"x"), continuation(END_HEADERS, 1, &[])],
            Ended(PROTOCOL_ERROR),
        ),
    ]);
}

#[test]
fn blocks_are_as_hpack_says() {
    let name_then = |value: &[u8]| block(&[&[0x00, 0x01, b'x'], value].concat());
    check(&[
        case("6.1: an indexed field", &[block(&[0x90])], Response(1)),
        case(
            "6.2.1: a field that is to be remembered",
            &[block(&[0x40, 1, b'x', 1, b'y', 0xbe])],
            Response(1),
        ),
        case("6.2.1: one with an indexed name", &[block(&[0x53, 1, b'y'])], Response(1)),
        case("6.2.2: one that is not", &[block(&[0x00, 1, b'x', 1, b'y'])], Response(1)),
        case("6.2.2: one with an indexed name", &[block(&[0x0f, 0x04, 1, b'y'])], Response(1)),
        case("6.2.3: one that never is", &[block(&[0x10, 1, b'x', 1, b'y'])], Response(1)),
        case("6.2.3: one with an indexed name", &[block(&[0x1f, 0x04, 1, b'y'])], Response(1)),
        case(
            "6.3: a smaller table",
            &[headers(0x5, 1, &[0x20, 0x82, 0x84, 0x86, 0x01, 1, b'a'])],
            Response(1),
        ),
        case("5.2: Huffman's code", &[headers(0x5, 1, &[0x82, 0x84, 0x86, 0x01, 0x81, 0x1f])], Response(1)),
        case("2.3.3: past both tables", &[block(&[0xbe])], Ended(COMPRESSION_ERROR)),
        case("2.3.3: a name past both tables", &[block(&[0x7e, 1, b'y'])], Ended(COMPRESSION_ERROR)),
        case("6.1: index 0", &[block(&[0x80])], Ended(COMPRESSION_ERROR)),
        case("4.2: a change of size behind a field", &[block(&[0x20])], Ended(COMPRESSION_ERROR)),
        case(
            "6.3: a larger table than was allowed",
            &[headers(0x5, 1, &[0x3f, 0xe2, 0x1f, 0x82, 0x84, 0x86, 0x01, 1, b'a'])],
            Ended(COMPRESSION_ERROR),
        ),
        case("5.2: padding of more than 7 bits", &[name_then(&[0x82, 0x1f, 0xff])], Ended(COMPRESSION_ERROR)),
        case("5.2: padding with zeros", &[name_then(&[0x81, 0x18])], Ended(COMPRESSION_ERROR)),
        case("5.2: the end within", &[name_then(&[0x84, 0xff, 0xff, 0xff, 0xff])], Ended(COMPRESSION_ERROR)),
        case("5.1: an integer without end", &[block(&[0xff; 12])], Ended(COMPRESSION_ERROR)),
        case("4.3: a string cut short", &[block(&[0x00, 0x05, b'x'])], Ended(COMPRESSION_ERROR)),
        case("4.3: the same in trailers", &[post(1), headers(0x5, 1, &[0x80])], Ended(COMPRESSION_ERROR)),
    ]);
}

#[test]
fn a_preface_that_is_none_gets_no_answer() {
    let origin = Origin::saying("hello");
    let proxy = Proxy::start(&to(&[&origin.address()]).replace("0\" }", "0\", protocols: [h2c] }"));
    let mut client = proxy.client();
    client.send("INVALID CONNECTION PREFACE\r\n\r\n");
    assert!(client.is_closed());
    // The preface's second half is a frame of SETTINGS.
    let mut frames = Frames::connect_with(proxy.port("web"), &frame(PING, 0, 0, LAST_WORD));
    let ended = std::iter::repeat_with(|| frames.try_receive()).find_map(Result::err).expect("an end");
    assert_ne!(ended.kind(), ErrorKind::WouldBlock, "it stays open");
}

#[test]
fn settings_are_acknowledged_and_pings_answered() {
    let origin = Origin::saying("hello");
    let proxy = Proxy::before(&origin);
    let mut frames = Frames::connect(proxy.port("web"), &[]);
    let acknowledged = |frames: &mut Frames| {
        std::iter::from_fn(|| frames.receive()).find(|frame| frame.kind == SETTINGS && frame.flags == ACK)
    };
    acknowledged(&mut frames).expect("the preface's settings are acknowledged");
    frames.write(&settings(3, 50));
    assert!(acknowledged(&mut frames).expect("those that follow are").payload.is_empty());
    frames.send(PING, ACK, 0, b"no quest");
    frames.send(PING, 0, 0, b"question");
    let pong = frames.until(PING).expect("an answer");
    assert_eq!((pong.flags, &pong.payload[..]), (ACK, &b"question"[..]));
}

/// The bodies of the next frames of DATA, as long as there are some before a PING is answered.
fn bodies(frames: &mut Frames) -> Vec<usize> {
    frames.send(PING, 0, 0, LAST_WORD);
    let until_answered = |frame: &Frame| (frame.kind, frame.flags) != (PING, ACK);
    let all = std::iter::from_fn(|| frames.receive()).take_while(until_answered);
    all.filter(|frame| frame.kind == DATA).map(|frame| frame.payload.len()).collect()
}

fn next_body(frames: &mut Frames) -> usize {
    frames.until(DATA).expect("DATA").payload.len()
}

#[test]
fn windows_are_kept_to() {
    let origin = Origin::saying("hello");
    let proxy = Proxy::before(&origin);
    let started = |size| {
        let mut frames = Frames::connect(proxy.port("web"), &[(4, size)]);
        frames.write(&get(1));
        frames
    };
    // 6.9.1: no more than there is room for.
    let mut frames = started(1);
    assert_eq!(next_body(&mut frames), 1);
    assert_eq!(bodies(&mut frames), [0; 0]);
    // 6.5.3: of two values of a setting, the last holds.
    let mut frames = Frames::connect(proxy.port("web"), &[(4, 100), (4, 1)]);
    frames.write(&get(1));
    assert_eq!(next_body(&mut frames), 1);
    // 6.9.2: a setting changes the windows that there are.
    let mut frames = started(0);
    frames.until(HEADERS).expect("a head");
    assert_eq!(bodies(&mut frames), [0; 0]);
    frames.write(&settings(4, 1));
    assert_eq!(next_body(&mut frames), 1);
    // 6.9.2: below nothing, too.
    let mut frames = started(3);
    assert_eq!(next_body(&mut frames), 3);
    frames.write(&settings(4, 2));
    assert_eq!(bodies(&mut frames), [0; 0]);
    frames.write(&window(1, 1));
    assert_eq!(bodies(&mut frames), [0; 0]);
    frames.write(&window(1, 1));
    assert_eq!(next_body(&mut frames), 1);
}

#[test]
fn a_stream_too_many_is_refused() {
    let origin = Origin::saying("hello");
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0", http2: { max_streams: 2 } } }
upstreams: { origin: { endpoints: ["ORIGIN"] } }
hosts: { all: { names: ["*"], routes: { all: { path: "/**", proxy: { upstream: origin } } } } }
"#;
    let proxy = Proxy::start(&config(yaml, &[("ORIGIN", &origin.address())]));
    let mut frames = Frames::connect(proxy.port("web"), &[]);
    frames.until(SETTINGS).expect("settings");
    frames.send(SETTINGS, ACK, 0, &[]);
    frames.write(&[post(1), post(3), post(5)].concat());
    assert_eq!(until_settled(&mut frames, Response(5)), Reset(5, REFUSED_STREAM));
    frames.write(&data(END_STREAM, 3, b"x"));
    assert_eq!(until_settled(&mut frames, Response(3)), Response(3));
}
