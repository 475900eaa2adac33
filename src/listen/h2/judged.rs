//! The stream under h2, which sees to two things. A request with a malformed field ends alone, where h2 would end the connection
//! (see [`Sections`]). And GOAWAY says what the client did wrong: h2 says PROTOCOL_ERROR for nearly all of it, where frames of a
//! wrong size, frames behind a stream's end and field blocks that cannot be unpacked have codes of their own (RFC 9113 section 7).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    rules::{GOAWAY, HEAD, Head, Rules},
    sections::Sections,
};

/// Frames in the bytes of one direction, as they come.
#[derive(Clone, Copy, Debug)]
struct Walk {
    /// Bytes up to the next frame's head.
    skip: usize,
    /// That head and what is wanted of its payload, as far as they came.
    kept: [u8; KEPT],
    have: usize,
}

/// Of a frame.
enum Shown<'a> {
    /// Its head and what is wanted of its payload, which ends there in the bytes at hand.
    Frame { head: Head, payload: &'a [u8], end: usize },
    /// Some of the rest.
    More(&'a [u8]),
}

const KEPT: usize = HEAD + 12 * 6;
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

#[derive(Debug)]
pub(super) struct Judged<T> {
    io: T,
    rules: Rules,
    sections: Sections,
    /// What goes to h2 before anything else is read.
    ready: Bytes,
    incoming: Walk,
    outgoing: Walk,
}

impl<T> Judged<T> {
    /// `most_fields`: the size of a list of fields from which h2 answers that it is too large.
    pub fn new(io: T, most_fields: usize) -> Self {
        Self {
            io,
            rules: Rules::default(),
            sections: Sections::new(PREFACE, most_fields),
            ready: Bytes::new(),
            incoming: Walk::behind(PREFACE),
            outgoing: Walk::behind(0),
        }
    }
}

impl Walk {
    /// Through frames that begin behind so many bytes.
    fn behind(skip: usize) -> Self {
        Self { skip, kept: [0; KEPT], have: 0 }
    }

    /// Shows what these bytes are of frames.
    fn through(&mut self, mut bytes: &[u8], mut show: impl FnMut(Shown<'_>)) {
        let all = bytes.len();
        loop {
            let skipped = self.skip.min(bytes.len());
            if skipped > 0 {
                show(Shown::More(&bytes[..skipped]));
            }
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            if let Some((head, payload)) = whole(bytes).filter(|_| self.have == 0) {
                bytes = &bytes[HEAD + payload.len()..];
                self.skip = head.length - payload.len();
                show(Shown::Frame { head, payload, end: all - bytes.len() });
                continue;
            }
            let Some((head, used)) = self.gather(bytes) else { return };
            bytes = &bytes[used..];
            let wanted = head.wanted();
            show(Shown::Frame { head, payload: &self.kept[HEAD..HEAD + wanted], end: all - bytes.len() });
            (self.have, self.skip) = (0, head.length - wanted);
        }
    }

    /// Goes through so many of these bytes.
    fn pass(&mut self, bufs: &[io::IoSlice<'_>], mut count: usize) {
        for buf in bufs {
            let some = count.min(buf.len());
            self.through(&buf[..some], |_| {});
            count -= some;
        }
    }

    /// The head of a frame that came in pieces, of which all that is wanted is kept, and how many of the bytes it took.
    fn gather(&mut self, bytes: &[u8]) -> Option<(Head, usize)> {
        let mut used = self.keep(bytes, HEAD);
        let head = Head::read(self.kept[..self.have].first_chunk()?);
        let most = HEAD + head.wanted();
        used += self.keep(&bytes[used..], most);
        (self.have == most).then_some((head, used))
    }

    fn keep(&mut self, bytes: &[u8], most: usize) -> usize {
        let some = most.saturating_sub(self.have).min(bytes.len());
        self.kept[self.have..self.have + some].copy_from_slice(&bytes[..some]);
        self.have += some;
        some
    }
}

/// The head of the frame that begins here and what is wanted of its payload, where all that has come.
fn whole(bytes: &[u8]) -> Option<(Head, &[u8])> {
    let head = Head::read(bytes.first_chunk()?);
    Some((head, bytes.get(HEAD..HEAD + head.wanted())?))
}

impl<T> Judged<T> {
    /// What is about to be written, where the code of a GOAWAY in it is another than is due. The walk is through it then.
    fn amended(&self, walk: &mut Walk, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut amended = None;
        walk.through(bytes, |shown| {
            let Shown::Frame { head: Head { kind: GOAWAY, .. }, payload, end } = shown else { return };
            let said = payload.last_chunk().map(|code| u32::from_be_bytes(*code));
            if said != Some(Reason::PROTOCOL_ERROR.into()) {
                return;
            }
            let mut copy = bytes.to_vec();
            // All four bytes are here but where h2's own buffer was written in part.
            if let Some(code) = end.checked_sub(4).and_then(|start| copy.get_mut(start..end)) {
                code.copy_from_slice(&u32::from(self.rules.due()).to_be_bytes());
                amended = Some(copy);
            }
        });
        amended
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Judged<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, rules, sections, ready, incoming, .. } = self.get_mut();
        loop {
            if !ready.is_empty() {
                let some = ready.len().min(buf.remaining());
                buf.put_slice(&ready.split_to(some));
                return Poll::Ready(Ok(()));
            }
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            // What comes behind the first breach changes nothing.
            let is_judged = !rules.is_broken();
            if is_judged {
                // h2 asks for more when it has taken every frame that it has.
                rules.go_on();
            }
            ready!(Pin::new(&mut *io).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            if is_judged {
                incoming.through(read, |shown| match shown {
                    Shown::Frame { head, payload, .. } => rules.take(head, payload),
                    Shown::More(payload) => rules.take_more(payload),
                });
                if !rules.begins_well() {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "no settings come first");
                    return Poll::Ready(Err(error));
                }
            }
            let instead = match read.is_empty() {
                true => sections.end(),
                false => match sections.pass(read) {
                    Some(instead) => instead,
                    None => return Poll::Ready(Ok(())),
                },
            };
            if read.is_empty() && instead.is_empty() {
                return Poll::Ready(Ok(()));
            }
            buf.set_filled(before);
            *ready = instead.into();
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Judged<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some((first, others)) = bufs.split_first() else { return Poll::Ready(Ok(0)) };
        let mut walk = this.outgoing;
        // A GOAWAY is in the first of them: the others are of a body.
        if let Some(amended) = this.amended(&mut walk, first) {
            let written = ready!(Pin::new(&mut this.io).poll_write(cx, &amended))?;
            this.outgoing.pass(&[io::IoSlice::new(&amended)], written);
            return Poll::Ready(Ok(written));
        }
        let io = Pin::new(&mut this.io);
        let written = ready!(match others {
            [] => io.poll_write(cx, first),
            _ => io.poll_write_vectored(cx, bufs),
        })?;
        match bufs.iter().map(|buf| buf.len()).sum::<usize>() == written {
            true => {
                others.iter().for_each(|buf| walk.through(buf, |_| {}));
                this.outgoing = walk;
            }
            false => this.outgoing.pass(bufs, written),
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    }

    #[test]
    fn frames_are_the_same_however_they_come() {
        let all =
            [frame(4, &[7; 90]), frame(0, &[1; 30]), frame(7, b"12345678 and more"), frame(6, b"")].concat();
        let seen = |size: usize| {
            let (mut walk, mut seen) = (Walk::behind(0), Vec::new());
            for piece in all.chunks(size) {
                walk.through(piece, |shown| match shown {
                    Shown::Frame { head, payload, .. } => seen.push((head, payload.to_vec(), 0)),
                    Shown::More(rest) => seen.last_mut().unwrap().2 += rest.len(),
                });
            }
            seen
        };
        let whole = seen(all.len());
        let lengths: Vec<_> =
            whole.iter().map(|(head, seen, rest)| (head.length, seen.len(), *rest)).collect();
        assert_eq!(lengths, [(90, 72, 18), (30, 0, 30), (17, 8, 9), (0, 0, 0)]);
        for size in 1..40 {
            assert_eq!(seen(size), whole, "{size}");
        }
    }

    #[test]
    fn a_goaway_alone_is_amended() {
        let mut judged = Judged::new((), 4096);
        let amended = |judged: &Judged<()>, bytes: &[u8]| judged.amended(&mut judged.outgoing.clone(), bytes);
        let goaway = |code: u8| frame(7, &[0, 0, 0, 1, 0, 0, 0, code]);
        assert_eq!(amended(&judged, &goaway(1)), Some(goaway(1)));
        judged.rules.take(Head { length: 0, kind: 4, flags: 0, stream: 0 }, b"");
        judged.rules.take(Head { length: 9, kind: 6, flags: 0, stream: 0 }, b"");
        assert_eq!(amended(&judged, &goaway(1)), Some(goaway(6)));
        let behind = [frame(6, &[0; 8]), goaway(1)].concat();
        assert_eq!(amended(&judged, &behind), Some([frame(6, &[0; 8]), goaway(6)].concat()));
        for code in [0, 2, 11] {
            assert_eq!(amended(&judged, &goaway(code)), None);
        }
        assert_eq!(amended(&judged, &frame(0, &goaway(1))), None, "it is a body's");
        judged.outgoing.through(&goaway(1)[..10], |_| {});
        assert_eq!(amended(&judged, &goaway(1)[10..]), Some(goaway(6)[10..].to_vec()));
    }

    /// What is due after these bytes of frames, in pieces of some size.
    fn due(bytes: &[u8], size: usize) -> Reason {
        let (mut walk, mut rules) = (Walk::behind(0), Rules::default());
        for piece in bytes.chunks(size) {
            walk.through(piece, |shown| match shown {
                Shown::Frame { head, payload, .. } => rules.take(head, payload),
                Shown::More(payload) => rules.take_more(payload),
            });
        }
        rules.due()
    }

    proptest! {
        #[test]
        fn any_frames_are_judged_alike_however_they_come(
            frames in vec((0..12_u8, any::<u8>(), 0..6_u8, vec(any::<u8>(), 0..20)), 0..12),
            cut in 0..30_usize,
            size in 1..50_usize,
        ) {
            let mut bytes = frame(4, b"");
            for (kind, flags, stream, payload) in frames {
                let mut frame = frame(kind, &payload);
                (frame[4], frame[8]) = (flags, stream);
                bytes.extend(frame);
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            prop_assert_eq!(due(&bytes, size), due(&bytes, bytes.len().max(1)));
        }
    }
}
