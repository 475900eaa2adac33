//! An origin that answers when it may.

use std::sync::{Arc, Mutex, MutexGuard};

use super::{Origin, Reply};

pub struct Held {
    pub origin: Origin,
    gate: Arc<Mutex<()>>,
}

impl Held {
    pub fn new() -> Self {
        let gate = Arc::new(Mutex::new(()));
        let waiting = gate.clone();
        let origin = Origin::serving(move |exchange| {
            drop(waiting.lock());
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            Reply::Keep
        });
        Self { origin, gate }
    }

    /// Nobody is answered as long as this lives.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap()
    }
}
