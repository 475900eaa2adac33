//! An HTTP/3 client that we did not write: aioquic, driven by `h3.py`, for tunnels by `h3_tunnel.py`, where it means harm
//! by `h3_hostile.py` and, where it breaks the rules of QUIC itself, by `h3_faults.py`.

use serde_json::{Value, json};

use super::Python;

const PROGRAM: &str = concat!(
    include_str!("h3.py"),
    include_str!("ws_messages.py"),
    include_str!("h3_tunnel.py"),
    include_str!("h3_hostile.py"),
    include_str!("h3_faults.py"),
    "\nasyncio.run(globals()[SPEC['do']]())\n"
);

/// A client at work.
pub struct Http3(Python);

impl Http3 {
    /// Does what the specification says; what `what` is, the programs tell.
    #[track_caller]
    pub fn run(what: &str, port: u16, ca: &str, mut specification: Value) -> Self {
        let fields = specification.as_object_mut().expect("an object");
        fields.extend(
            [("do", json!(what)), ("port", json!(port)), ("ca", json!(ca))].map(|(k, v)| (k.into(), v)),
        );
        Self(Python::run(PROGRAM, &[&specification.to_string()]))
    }

    /// The next thing that it says.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        let line = self.0.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// All that it still says, once it has ended well.
    #[track_caller]
    pub fn all(self) -> Vec<Value> {
        self.0.finish().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}
