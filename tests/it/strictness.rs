//! tests/cases/http1: bytes that a strict HTTP/1.1 server refuses, or reads in one way only.
//!
//! `send` goes out at once and `then`, where it stands, when some of the request is at the origin. `gives` is what comes
//! back: the status of each response, the reason in the access log of the last, and what becomes of the connection. Of a
//! refused request no byte may reach the origin (with `then`: never the whole of it). Of the others, `origin` must stand in
//! what the last of them is there, and `origin_lacks` must not.

use std::time::Duration;

use serde::Deserialize;

use super::support::{
    AskTrailers, Client, Origin, Proxy, cases, http1_with_te, unescape, waited, with_and_without_te,
};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    send: String,
    #[serde(default)]
    then: String,
    gives: Gives,
    #[serde(default)]
    origin: Vec<String>,
    #[serde(default)]
    origin_lacks: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gives {
    status: Statuses,
    reason: Option<String>,
    connection: Fate,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Statuses {
    One(u16),
    Several(Vec<u16>),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fate {
    Closed,
    Kept,
}

/// Cases of one file, tried one after the other.
struct Trial {
    proxy: Proxy,
    origin: Origin,
    logged: usize,
}

/// Less than the 10 seconds that a head may take.
const PATIENCE: Duration = Duration::from_secs(8);

#[test]
fn framing() {
    run("http1/framing.yaml");
}

#[test]
fn unfinished() {
    run("http1/unfinished.yaml");
}

#[test]
fn chunks() {
    run("http1/chunks.yaml");
}

#[test]
fn request_lines() {
    run("http1/request_lines.yaml");
}

#[test]
fn fields() {
    run("http1/fields.yaml");
}

#[test]
fn hosts() {
    run("http1/hosts.yaml");
}

/// What the cases say of TARGET is said of the origin.
#[test]
fn forward() {
    let origin = Origin::saying("reached");
    let target = origin.address().to_string();
    let yaml = r#"
listeners: { web: { bind: "127.0.0.1:0" } }
upstreams: { own: { endpoints: ["TARGET"] } }
hosts:
  own: { names: [a], routes: { own: { path: "/**", proxy: { upstream: own } } } }
  others: { names: ["*"], routes: { out: { path: "/**", forward: { targets: ["TARGET"] } } } }
"#;
    let mut cases: Vec<Case> = cases("http1/forward.yaml");
    for case in &mut cases {
        let texts = case.origin.iter_mut().chain([&mut case.send]);
        texts.for_each(|text| *text = text.replace("TARGET", &target));
    }
    try_all(cases, Proxy::start(&yaml.replace("TARGET", &target)), origin);
}

#[track_caller]
fn run(file: &str) {
    let origin = Origin::saying("reached");
    let proxy = Proxy::before(&origin);
    try_all(cases(file), proxy, origin);
}

/// Tries every case, also with `TE: trailers`, and reports all that went wrong.
#[track_caller]
fn try_all(cases: Vec<Case>, proxy: Proxy, origin: Origin) {
    let cases = with_and_without_te(cases);
    let mut trial = Trial { proxy, origin, logged: 0 };
    let wrong: Vec<String> =
        cases.iter().filter_map(|case| Some(format!("{}: {}", case.case, trial.of(case).err()?))).collect();
    assert!(wrong.is_empty(), "{} of {} cases failed:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

impl Trial {
    fn of(&mut self, case: &Case) -> Result<(), String> {
        let (bytes, requests) = (self.origin.bytes(), self.origin.requests().len());
        let mut client = self.proxy.client();
        client.patience(PATIENCE);
        let statuses = self.answers(case, &mut client);
        let logged = self.reason();
        let statuses = statuses?;
        if statuses != case.gives.statuses() {
            return Err(format!("answered {statuses:?} instead of {:?}", case.gives.statuses()));
        }
        if logged? != case.gives.reason {
            return Err(format!(
                "the log says {:?}",
                self.proxy.access_log().last().map(|l| l["reason"].clone())
            ));
        }
        self.fate(case, &mut client)?;
        let forwarded = statuses.iter().filter(|status| **status == 200).count();
        let kept = usize::from(case.gives.connection == Fate::Kept);
        if forwarded + kept == 0 && case.then.is_empty() && self.origin.bytes() != bytes {
            return Err("bytes reached the origin".into());
        }
        let arrived = &self.origin.requests()[requests..];
        if arrived.len() != forwarded + kept {
            return Err(format!("{} requests reached the origin", arrived.len() - kept));
        }
        match forwarded {
            0 => Ok(()),
            _ => case.check(&String::from_utf8_lossy(&arrived[forwarded - 1].raw).to_lowercase()),
        }
    }

    /// Sends the case and reads as many answers as it shall have.
    fn answers(&self, case: &Case, client: &mut Client) -> Result<Vec<u16>, String> {
        let sent = unescape(&case.send);
        let before = self.origin.bytes();
        // The proxy may refuse and close before all is sent.
        let _ = client.try_send(&sent);
        if !case.then.is_empty() {
            waited(PATIENCE, || (self.origin.bytes() > before).then_some(()))
                .ok_or("nothing came to the origin")?;
            let _ = client.try_send(unescape(&case.then));
        }
        let method = String::from_utf8_lossy(&sent).split(' ').next().unwrap_or_default().to_owned();
        let answers = case.gives.statuses().len();
        (0..answers)
            .map(|_| client.try_response_to(&method).map(|response| response.status))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("no response: {error}"))
    }

    /// The reason in the line of the log that is the last, once there are as many as there were answers.
    fn reason(&mut self) -> Result<Option<String>, String> {
        let lines =
            waited(PATIENCE, || Some(self.proxy.access_log()).filter(|lines| lines.len() > self.logged));
        let lines = lines.ok_or("it is not logged")?;
        self.logged = lines.len();
        Ok(lines.last().and_then(|line| line["reason"].as_str()).map(str::to_owned))
    }

    /// A connection that is kept serves another request.
    fn fate(&mut self, case: &Case, client: &mut Client) -> Result<(), String> {
        if case.gives.connection == Fate::Closed {
            return if client.is_closed() { Ok(()) } else { Err("the connection stays open".into()) };
        }
        let _ = client.try_send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
        let kept =
            client.try_response_to("GET").map_err(|error| format!("the connection is not kept: {error}"))?;
        self.reason()?;
        if kept.status == 200 { Ok(()) } else { Err(format!("the next request gets {}", kept.status)) }
    }
}

impl AskTrailers for Case {
    fn name(&mut self) -> &mut String {
        &mut self.case
    }

    fn ask_trailers(&mut self) -> bool {
        let asking = http1_with_te(&self.send);
        asking.map(|asking| self.send = asking).is_some()
    }
}

impl Case {
    fn check(&self, arrived: &str) -> Result<(), String> {
        let holds =
            |text: &&String| arrived.contains(&String::from_utf8_lossy(&unescape(text)).to_lowercase());
        if let Some(text) = self.origin.iter().find(|text| !holds(text)) {
            return Err(format!("the origin did not get {text:?} but\n{arrived}"));
        }
        if let Some(text) = self.origin_lacks.iter().find(holds) {
            return Err(format!("the origin got {text:?} in\n{arrived}"));
        }
        Ok(())
    }
}

impl Gives {
    fn statuses(&self) -> Vec<u16> {
        match &self.status {
            Statuses::One(status) => vec![*status],
            Statuses::Several(list) => list.clone(),
        }
    }
}
