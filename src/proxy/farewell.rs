//! How a WebSocket is taken leave of before its connection is cut: each end is sent a Close that says so (RFC 6455 sections
//! 5.5.1 and 7.4.1), as soon as it stands in no frame of the other's, and nothing after it. What goes through is followed,
//! and otherwise left alone.

use std::future::{pending, poll_fn};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::signal::Signal;
use crate::http::websocket::{Frames, going_away, going_away_masked};

/// What is followed of a tunnel that carries WebSocket.
pub(super) struct Farewell {
    /// Says until when the tunnel may stay.
    leaving: watch::Receiver<Option<Instant>>,
    signal: Signal<Option<Instant>>,
    /// Once it was said.
    until: Option<Instant>,
    to_client: Way,
    to_upstream: Way,
}

/// What comes next for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Leave is to be taken of both ends.
    Leave,
    /// Leave has been taken, and the time for an answer is over.
    End,
}

#[derive(Default)]
struct Way {
    frames: Frames,
    leave: Leave,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Leave {
    #[default]
    Untaken,
    /// Where the Close is to stand has been reached.
    Due,
    /// What of the Close has not been sent yet.
    Taking(Bytes),
    Taken,
}

// === impl Farewell ===

impl Farewell {
    pub(super) fn new(leaving: watch::Receiver<Option<Instant>>) -> Self {
        Self {
            signal: Signal::said(leaving.clone()),
            leaving,
            until: None,
            to_client: Way::default(),
            to_upstream: Way::default(),
        }
    }

    /// What the client gets of what the upstream says.
    pub(super) fn down(&mut self, data: Bytes) -> Bytes {
        self.to_client.pass(data, self.until.is_some())
    }

    /// What the upstream gets of what the client says.
    pub(super) fn up(&mut self, data: Bytes) -> Bytes {
        self.to_upstream.pass(data, self.until.is_some())
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.until.is_some()
    }

    /// The Close for the upstream, where it is time for it: once.
    pub(super) fn close_upstream(&mut self) -> Option<Bytes> {
        if !self.is_leaving() || !self.to_upstream.is_due() {
            return None;
        }
        self.to_upstream.leave = Leave::Taken;
        Some(going_away_masked())
    }

    /// What is to be sent of the Close for the client, where it is time for it, until nothing is left of it.
    pub(super) fn close_client(&mut self) -> Option<&mut Bytes> {
        if self.is_leaving() && self.to_client.is_due() {
            self.to_client.leave = Leave::Taking(going_away());
        }
        match &mut self.to_client.leave {
            Leave::Taking(close) => Some(close),
            _ => None,
        }
    }

    /// The client has all of its Close.
    pub(super) fn client_closed(&mut self) {
        self.to_client.leave = Leave::Taken;
    }

    /// Whether the client has been told and has not said its own Close yet.
    pub(super) fn awaits_client(&self) -> bool {
        self.to_client.leave == Leave::Taken && !self.to_upstream.frames.has_closed()
    }

    pub(super) async fn next(&mut self) -> Next {
        match self.until {
            None => {
                poll_fn(|cx| self.signal.poll(cx)).await;
                self.until = *self.leaving.borrow();
                Next::Leave
            }
            Some(until) if self.to_client.leave == Leave::Taken => {
                sleep_until(until).await;
                Next::End
            }
            // In the middle of a frame it is left to be cut.
            Some(_) => pending().await,
        }
    }
}

/// What comes next, where there is a tunnel to take leave of.
pub(super) async fn next(farewell: &mut Option<Box<Farewell>>) -> Next {
    match farewell {
        Some(farewell) => farewell.next().await,
        None => pending().await,
    }
}

// === impl Way ===

impl Way {
    /// What passes: all, unless leave is to be taken. Then what ends a frame, and nothing behind that; but it is followed on,
    /// since the answer to a Close is in it.
    fn pass(&mut self, mut data: Bytes, leaving: bool) -> Bytes {
        let passed = match self.leave {
            Leave::Untaken if leaving && !self.frames.has_closed() => {
                let end = self.frames.finish(&data);
                self.is_due();
                self.frames.follow(&data[end..]);
                end
            }
            Leave::Untaken => {
                self.frames.follow(&data);
                data.len()
            }
            _ => {
                self.frames.follow(&data);
                0
            }
        };
        data.truncate(passed);
        data
    }

    /// Whether it is time for the Close. Who has said one itself says nothing more.
    fn is_due(&mut self) -> bool {
        if self.leave == Leave::Untaken && self.frames.is_between() && !self.frames.has_closed() {
            self.leave = Leave::Due;
        }
        self.leave == Leave::Due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TEXT: &[u8] = b"\x81\x03abc";
    const CLOSE: &[u8] = b"\x88\x00";

    async fn leaving() -> (watch::Sender<Option<Instant>>, Farewell) {
        let (say, leaving) = watch::channel(None);
        (say, Farewell::new(leaving))
    }

    async fn told(say: &watch::Sender<Option<Instant>>, farewell: &mut Farewell) {
        say.send_replace(Some(Instant::now() + Duration::from_secs(1)));
        assert_eq!(farewell.next().await, Next::Leave);
    }

    #[tokio::test(start_paused = true)]
    async fn until_it_is_time_everything_passes() {
        let (_say, mut farewell) = leaving().await;
        for piece in [TEXT, &TEXT[..2], &TEXT[2..], b"anything at all"] {
            assert_eq!(farewell.down(Bytes::from_static(piece)), piece);
            assert_eq!(farewell.up(Bytes::from_static(piece)), piece);
        }
        assert!(farewell.close_client().is_none() && farewell.close_upstream().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn between_frames_leave_is_taken_at_once_and_of_each_once() {
        let (say, mut farewell) = leaving().await;
        told(&say, &mut farewell).await;
        assert!(farewell.close_upstream().is_some() && farewell.close_upstream().is_none());
        assert_eq!(farewell.close_client().unwrap(), &going_away());
        let _ = farewell.close_client().unwrap().split_to(3);
        assert_eq!(farewell.close_client().unwrap().len(), 1, "the rest is not forgotten");
        farewell.client_closed();
        assert!(farewell.close_client().is_none());
        assert!(farewell.down(Bytes::from_static(TEXT)).is_empty(), "nothing follows a Close");
        assert_eq!(farewell.next().await, Next::End);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_ends_first() {
        let (say, mut farewell) = leaving().await;
        farewell.down(Bytes::from_static(&TEXT[..2]));
        told(&say, &mut farewell).await;
        assert!(farewell.close_client().is_none() && farewell.close_upstream().is_some());
        assert!(tokio::time::timeout(Duration::from_secs(9), farewell.next()).await.is_err(), "it is cut");
        assert_eq!(farewell.down(Bytes::from_static(b"a")), &b"a"[..]);
        assert!(farewell.close_client().is_none());
        assert_eq!(farewell.down(Bytes::from_static(b"bc\x81\x03abc")), &b"bc"[..]);
        assert!(farewell.close_client().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_clients_answer_is_heard_even_behind_what_it_was_saying() {
        let (say, mut farewell) = leaving().await;
        farewell.up(Bytes::from_static(&TEXT[..3]));
        told(&say, &mut farewell).await;
        let _ = farewell.close_client().unwrap().split_to(4);
        farewell.client_closed();
        assert!(farewell.awaits_client() && farewell.close_upstream().is_none());
        // The end of its frame, another, and the beginning of a third.
        assert_eq!(farewell.up(Bytes::from_static(b"bc\x81\x03abc\x81\x01")), &b"bc"[..]);
        assert!(farewell.awaits_client() && farewell.close_upstream().is_some());
        // A payload that looks like a Close, then one.
        assert!(farewell.up(Bytes::from_static(b"\x88")).is_empty() && farewell.awaits_client());
        assert!(farewell.up(Bytes::from_static(b"\x88")).is_empty() && !farewell.awaits_client());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_closed_is_left_alone() {
        let (say, mut farewell) = leaving().await;
        farewell.up(Bytes::from_static(CLOSE));
        told(&say, &mut farewell).await;
        assert!(farewell.close_upstream().is_none() && farewell.close_client().is_some());
    }
}
