//! The order of a request's frames: a head, a body, perhaps trailers (RFC 9114 section 4.1).

use bytes::Bytes;

use super::{
    code::{Code, Fault},
    frame::{self, Frames, Piece, Use},
};

/// A part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The head's field section.
    Head(Bytes),
    /// Some of the body; it may be empty.
    Data(Bytes),
    /// The trailers' field section.
    Trailers(Bytes),
    /// A field section that is longer than allowed; nothing is read after it.
    TooLarge,
}

/// Reads a request from its stream's bytes.
#[derive(Debug)]
pub struct Message {
    frames: Frames,
    stage: Stage,
    /// The longest field section that is taken, as it comes.
    most: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Body,
    /// After trailers.
    Over,
    /// What a tunnel carries, to the stream's end.
    Tunnel,
}

impl Message {
    pub fn new(most: usize) -> Self {
        Self { frames: Frames::default(), stage: Stage::Head, most }
    }

    /// What comes from now on is a tunnel's: nothing but DATA means anything in it (RFC 9114 section 4.4).
    pub fn become_tunnel(&mut self) {
        if self.stage == Stage::Body {
            self.stage = Stage::Tunnel;
        }
    }

    /// Takes what has come of the stream.
    pub fn feed(&mut self, input: Bytes) {
        self.frames.feed(input);
    }

    /// The next part, `None` where more has to come.
    pub fn part(&mut self) -> Result<Option<Part>, Fault> {
        let (stage, most) = (self.stage, self.most);
        match self.frames.piece(|kind| allowed(kind, stage, most)).map_err(Fault::Connection)? {
            None => Ok(None),
            Some(Piece::Data(data)) => Ok(Some(Part::Data(data))),
            Some(Piece::TooLong) => Ok(Some(Part::TooLarge)),
            Some(Piece::Whole { payload, .. }) => Ok(Some(match stage {
                Stage::Head => {
                    self.stage = Stage::Body;
                    Part::Head(payload)
                }
                Stage::Body | Stage::Over | Stage::Tunnel => {
                    self.stage = Stage::Over;
                    Part::Trailers(payload)
                }
            })),
        }
    }

    /// The stream has ended.
    pub fn end(&self) -> Result<(), Fault> {
        match (self.frames.is_between_frames(), self.stage) {
            (false, _) => Err(Fault::Connection(Code::FrameError)),
            (true, Stage::Head) => Err(Fault::Request(Code::RequestIncomplete)),
            (true, Stage::Body | Stage::Over | Stage::Tunnel) => Ok(()),
        }
    }
}

fn allowed(kind: u64, stage: Stage, most: usize) -> Result<Use, Code> {
    match (kind, stage) {
        (frame::HEADERS, Stage::Head | Stage::Body) => Ok(Use::Gather { most }),
        (frame::DATA, Stage::Body | Stage::Tunnel) => Ok(Use::Stream),
        (frame::HEADERS | frame::DATA, _) => Err(Code::FrameUnexpected),
        (
            frame::CANCEL_PUSH | frame::SETTINGS | frame::PUSH_PROMISE | frame::GOAWAY | frame::MAX_PUSH_ID,
            _,
        ) => Err(Code::FrameUnexpected),
        (kind, _) if frame::is_of_http2(kind) => Err(Code::FrameUnexpected),
        // Types that are not known mean nothing (RFC 9114 section 9).
        _ => Ok(Use::Skip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNEXPECTED: Fault = Fault::Connection(Code::FrameUnexpected);

    /// The names of the parts, and how it ended.
    fn read(bytes: &[u8]) -> (String, Result<(), Fault>) {
        let mut message = Message::new(100);
        message.feed(Bytes::copy_from_slice(bytes));
        let mut seen = String::new();
        loop {
            match message.part() {
                Ok(None) => return (seen, message.end()),
                Err(fault) => return (seen, Err(fault)),
                Ok(Some(part)) => seen.push(match part {
                    Part::Head(_) => 'h',
                    Part::Data(_) => 'd',
                    Part::Trailers(_) => 't',
                    Part::TooLarge => return (seen + "!", Ok(())),
                }),
            }
        }
    }

    #[test]
    fn the_order_of_frames_is_held() {
        let cases: [(&[u8], &str, Result<(), Fault>); 16] = [
            (&[1, 0], "h", Ok(())),
            (&[1, 0, 0, 1, 9, 0, 0, 0, 1, 9, 1, 0], "hddt", Ok(())),
            (&[0x21, 1, 9, 1, 0, 0x21, 0, 0, 1, 9, 0x21, 0, 1, 0, 0x21, 0], "hdt", Ok(())),
            (&[], "", Err(Fault::Request(Code::RequestIncomplete))),
            (&[0x21, 0], "", Err(Fault::Request(Code::RequestIncomplete))),
            (&[1], "", Err(Fault::Connection(Code::FrameError))),
            (&[1, 2, 0], "", Err(Fault::Connection(Code::FrameError))),
            (&[1, 0, 0, 2, 9], "hd", Err(Fault::Connection(Code::FrameError))),
            (&[1, 0, 0x21, 2, 9], "h", Err(Fault::Connection(Code::FrameError))),
            (&[0, 0, 1, 0], "", Err(UNEXPECTED)),
            (&[1, 0, 1, 0, 1, 0], "ht", Err(UNEXPECTED)),
            (&[1, 0, 1, 0, 0, 0], "ht", Err(UNEXPECTED)),
            (&[1, 0, 4, 0], "h", Err(UNEXPECTED)),
            (&[5, 0], "", Err(UNEXPECTED)),
            (&[1, 0, 2, 0], "h", Err(UNEXPECTED)),
            (&[1, 0x40, 101], "!", Ok(())),
        ];
        for (bytes, parts, end) in cases {
            assert_eq!(read(bytes), (parts.to_owned(), end), "{bytes:?}");
        }
        let mut tunnel = Message::new(100);
        tunnel.feed(Bytes::from_static(&[1, 0, 0, 1, 9, 0x21, 0, 1, 0]));
        assert_eq!(tunnel.part(), Ok(Some(Part::Head(Bytes::new()))));
        tunnel.become_tunnel();
        assert_eq!(tunnel.part(), Ok(Some(Part::Data(Bytes::from_static(&[9])))));
        assert_eq!(tunnel.part(), Err(UNEXPECTED));
        for kind in [0x3, 0x7, 0xd, 0x6, 0x8, 0x9] {
            assert_eq!(read(&[kind, 0]).1, Err(UNEXPECTED), "{kind}");
        }
    }
}
