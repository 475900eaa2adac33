//! tests/cases/http2: heads and bodies that a strict HTTP/2 server refuses, or makes one HTTP/1 request of.
//!
//! `send` is the field section of a request, each field `name: value`, every one sent as a literal, whatever it says; `more`
//! appends as many fields. `gives` is what comes back: `reset`, an error code of RST_STREAM, or a status with its reason in the
//! access log. The connection goes on in both cases. Of a rejected request no byte may reach the origin (with `data`: never the
//! whole of it).

use serde::Deserialize;
use serde_json::Value;

use super::support::{
    AskTrailers, Frames, H2Client, Held, Origin, Proxy, Reaction, cases,
    frames::{
        self, CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, RST_STREAM, request,
    },
    unescape, until, with_and_without_te,
};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    send: Vec<String>,
    #[serde(default)]
    more: usize,
    data: Option<String>,
    #[serde(default)]
    trailers: Vec<String>,
    gives: Gives,
    #[serde(default)]
    origin: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gives {
    reset: Option<String>,
    status: Option<u16>,
    reason: Option<String>,
}

#[test]
fn fields() {
    run("http2/fields.yaml");
}

#[test]
fn pseudo_fields() {
    run("http2/pseudo_fields.yaml");
}

#[test]
fn authority() {
    run("http2/authority.yaml");
}

#[test]
fn bodies() {
    run("http2/bodies.yaml");
}

/// A field that the table remembers (RFC 7541 section 6.2.1).
fn remembered(name: &str, value: &str) -> Vec<u8> {
    let mut literal = frames::literal(name.as_bytes(), value.as_bytes());
    literal[0] = 0x40;
    literal
}

/// The table is one for all requests of a connection, also where some of them are reset.
#[test]
fn a_bad_field_costs_no_other_request_of_its_connection() {
    let held = Held::new();
    let proxy = Proxy::before(&held.origin);
    let mut frames = Frames::connect(proxy.port("web"), &[]);
    let whole = END_STREAM | END_HEADERS;
    let hold = held.hold();
    let first = [request("GET", "/first"), remembered("x-kept", "one")].concat();
    frames.send(HEADERS, whole, 1, &first);
    until("the first is at its origin", || held.origin.connections() > 0);
    // The newest field of the table has index 62.
    let bad =
        [request("GET", "/bad"), vec![0xbe], remembered("X-Bad", "y"), remembered("x-later", "two")].concat();
    frames.send(HEADERS, whole, 3, &bad);
    let (start, rest) = bad.split_at(bad.len() - 12);
    frames.send(HEADERS, END_STREAM, 5, start);
    frames.send(CONTINUATION, 0, 5, &rest[..5]);
    frames.send(CONTINUATION, END_HEADERS, 5, &rest[5..]);
    // Of those that were reset, what was remembered goes on being so.
    frames.send(HEADERS, whole, 7, &[request("GET", "/next"), vec![0xbe, 0xc2]].concat());
    frames.send(HEADERS, whole, 9, &[request("GET", "/bad"), vec![0xbf]].concat());
    drop(hold);
    let (mut reset, mut answered) = (Vec::new(), Vec::new());
    while reset.len() + answered.len() < 5 {
        let frame = frames.receive().expect("the connection goes on");
        assert_ne!(frame.kind, GOAWAY, "{frame:?}");
        match frame.kind {
            RST_STREAM => reset.push((frame.stream, frame.payload)),
            HEADERS => answered.push(frame.stream),
            _ => {}
        }
    }
    reset.sort();
    answered.sort_unstable();
    assert_eq!(reset, [3, 5, 9].map(|stream| (stream, vec![0, 0, 0, 1])));
    assert_eq!(answered, [1, 7]);
    let requests = held.origin.requests();
    let next = requests.iter().find(|request| request.start.contains("/next")).unwrap();
    assert_eq!((next.field("x-kept"), next.field("x-later")), (Some("one"), Some("two")));
    assert_eq!(requests.len(), 2);
}

#[test]
fn a_connection_that_goes_on_with_bad_fields_is_closed() {
    let proxy = Proxy::before(&Origin::saying("reached"));
    let mut frames = Frames::connect(proxy.port("web"), &[]);
    let bad = [request("GET", "/bad"), frames::literal(b"X-Bad", b"y")].concat();
    for stream in (1..1000).step_by(2) {
        if !frames.send(HEADERS, END_STREAM | END_HEADERS, stream, &bad) {
            break;
        }
    }
    assert!(matches!(frames.ended(), Some(ENHANCE_YOUR_CALM) | None));
}

#[track_caller]
fn run(file: &str) {
    let mut cases: Vec<Case> = with_and_without_te(cases(file));
    let origin = Origin::saying("reached");
    let proxy = Proxy::before(&origin);
    // What is left of a body that was cut may still be on its way when the next case counts bytes.
    cases.sort_by_key(|case| case.data.is_some());
    let failed = |case: &Case| Some(format!("{}: {}", case.case, case.tried(&proxy, &origin).err()?));
    let wrong: Vec<String> = cases.iter().filter_map(failed).collect();
    assert!(wrong.is_empty(), "{} of {} cases failed:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

impl AskTrailers for Case {
    fn name(&mut self) -> &mut String {
        &mut self.case
    }

    fn ask_trailers(&mut self) -> bool {
        let says_te = self.send.iter().any(|field| field.starts_with("te: "));
        self.send.push("te: trailers".to_owned());
        !says_te
    }
}

impl Case {
    fn tried(&self, proxy: &Proxy, origin: &Origin) -> Result<(), String> {
        let (bytes, requests) = (origin.bytes(), origin.requests().len());
        let logged = lines(proxy).len();
        let mut client = H2Client::tcp(proxy.port("web"));
        self.request(&mut client);
        let reaction = client.reaction(1).map_err(|error| format!("no answer: {error}"))?;
        let is_wanted = match &reaction {
            Reaction::Answered => self.gives.status.is_some(),
            Reaction::Reset(code) => self.gives.reset.as_ref() == Some(code),
            Reaction::Ended(_) => false,
        };
        if !is_wanted {
            return Err(format!("{reaction:?} instead of {:?}", self.gives));
        }
        if self.gives.status.is_some() {
            until(&format!("{self:?} is logged"), || {
                lines(proxy)[logged..].iter().any(|line| self.is_said_by(line))
            });
        }
        let arrived = &origin.requests()[requests..];
        let passes = self.gives.status == Some(200);
        if arrived.len() != usize::from(passes) {
            return Err(format!("{} requests reached the origin", arrived.len()));
        }
        if !passes && self.data.is_none() && origin.bytes() != bytes {
            return Err("bytes reached the origin".into());
        }
        let arrived = arrived.first().map(|request| String::from_utf8_lossy(&request.raw).to_lowercase());
        let arrived = arrived.unwrap_or_default();
        let holds =
            |text: &&String| arrived.contains(&String::from_utf8_lossy(&unescape(text)).to_lowercase());
        if let Some(text) = self.origin.iter().find(|text| !holds(text)) {
            return Err(format!("the origin did not get {text:?} but\n{arrived}"));
        }
        self.goes_on(&mut client, origin)
    }

    fn is_said_by(&self, line: &Value) -> bool {
        line["status"].as_u64().map(|status| status as u16) == self.gives.status
            && line["reason"].as_str() == self.gives.reason.as_deref()
    }

    fn request(&self, client: &mut H2Client) {
        let mut fields: Vec<_> = self.send.iter().map(|text| field(text)).collect();
        fields.extend((0..self.more).map(|_| field("x-more: b")));
        client.headers(1, &fields, self.data.is_none());
        if let Some(data) = &self.data {
            client.data(1, &unescape(data), self.trailers.is_empty());
        }
        if !self.trailers.is_empty() {
            let trailers: Vec<_> = self.trailers.iter().map(|text| field(text)).collect();
            client.headers(1, &trailers, true);
        }
    }

    /// One request that breaks the rules is no reason to end the others.
    fn goes_on(&self, client: &mut H2Client, origin: &Origin) -> Result<(), String> {
        let requests = origin.requests().len();
        let fields = [":method: GET", ":scheme: http", ":path: /next", ":authority: a"].map(field);
        client.headers(3, &fields, true);
        match client.reaction(3) {
            Ok(Reaction::Answered) if origin.requests().len() == requests + 1 => Ok(()),
            other => Err(format!("the next request gets {other:?}")),
        }
    }
}

/// What is logged of the cases themselves.
fn lines(proxy: &Proxy) -> Vec<Value> {
    proxy.access_log().into_iter().filter(|line| line["path"] != "/next").collect()
}

/// `name: value`, where the name may begin with a colon and hold others.
fn field(text: &str) -> (Vec<u8>, Vec<u8>) {
    let (name, value) = text.split_once(": ").expect("a name and a value");
    (unescape(name), unescape(value))
}
