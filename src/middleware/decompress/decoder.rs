//! Takes the coding off one body, piece by piece, in memory that does not grow with it.

use std::{
    fmt,
    io::{self, BufRead, ErrorKind, Read},
};

use bytes::{Buf, Bytes};

use super::Bounds;
use crate::{
    error::Reason,
    http::coding::Coding,
    middleware::{Mode, Window},
};

/// Takes the coding off one body. What is fed is taken in as far as what comes of it is asked for.
pub struct Decoder {
    /// Until nothing will come any more.
    work: Option<Work>,
    bounds: Bounds,
    /// What is decoded at a time.
    piece: Box<[u8]>,
    taken: u64,
    given: u64,
    /// The coding has come to its end, and perhaps the body has not.
    finished: bool,
    /// The body has been fed to its end.
    ended: bool,
    /// It begins as no coding does that is taken off here.
    misfit: bool,
}

struct Work {
    state: State,
    /// Its share of the memory that there is for this.
    _window: Window,
}

enum State {
    Zstd(Box<zstd::stream::read::Decoder<'static, Input>>),
    Br(Box<brotli::Decompressor<Input>>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Input>>),
}

/// What has come and is not decoded yet: reading more of it than that has to wait.
#[derive(Default)]
struct Input {
    data: Bytes,
    ended: bool,
}

const PIECE: usize = 16 * 1024;
/// What zstd may look back: 8 MiB, as RFC 8878 section 3.1.1.1.2 asks of decoders.
const WINDOW_LOG: u32 = 23;
/// From here on the ratio counts.
const SMALL: u64 = 1 << 20;

// === impl Decoder ===

impl Decoder {
    pub fn new(coding: Coding, bounds: Bounds, window: Window) -> Self {
        let state = match coding {
            Coding::Zstd => {
                let mut zstd = zstd::stream::read::Decoder::with_buffer(Input::default())
                    .expect("only a dictionary can be rejected, and there is none");
                zstd.window_log_max(WINDOW_LOG).expect("WINDOW_LOG is in the range that zstd allows");
                State::Zstd(Box::new(zstd))
            }
            Coding::Br => State::Br(Box::new(brotli::Decompressor::new(Input::default(), 4096))),
            Coding::Gzip => State::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(Input::default()))),
        };
        let piece = vec![0; PIECE].into();
        let work = Some(Work { state, _window: window });
        Self { work, bounds, piece, taken: 0, given: 0, finished: false, ended: false, misfit: false }
    }

    /// Takes a piece in, when the last one has been used up: `None` is the body's end.
    pub fn feed(&mut self, data: Option<Bytes>) {
        let Some(Work { state, .. }) = &mut self.work else { return };
        let is_br = matches!(state, State::Br(_));
        let input = state.input();
        match data {
            None => (self.ended, input.ended) = (true, true),
            Some(data) => {
                self.misfit |= is_br && self.taken == 0 && has_large_window(&data);
                self.taken += data.len() as u64;
                input.data = data;
            }
        }
    }

    /// The next decoded piece; `None` where more has to be fed first, or nothing will come any more.
    pub fn next(&mut self, observe: impl FnOnce()) -> Result<Option<Bytes>, Reason> {
        let Some(Work { state, .. }) = &mut self.work else { return Ok(None) };
        if self.misfit || (self.finished && !state.input().data.is_empty()) {
            return Err(Reason::BadCoding);
        }
        match state.read(&mut self.piece) {
            Ok(0) => {
                self.finished = true;
                if !state.input().data.is_empty() {
                    return Err(Reason::BadCoding);
                }
                if self.ended {
                    self.work = None;
                }
                Ok(None)
            }
            Ok(length) => {
                self.given += length as u64;
                self.check(observe)?;
                Ok(Some(Bytes::copy_from_slice(&self.piece[..length])))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(_) => Err(Reason::BadCoding),
        }
    }

    /// Nothing will come any more.
    pub fn is_done(&self) -> bool {
        self.work.is_none()
    }

    /// What is only observed is said once.
    fn check(&mut self, observe: impl FnOnce()) -> Result<(), Reason> {
        let bomb = self.given > SMALL && self.given / self.bounds.ratio > self.taken;
        if self.given <= self.bounds.size && !bomb {
            return Ok(());
        }
        match self.bounds.mode {
            Mode::Enforce => Err(Reason::DecodedTooLarge),
            Mode::Observe => {
                self.bounds = Bounds { size: u64::MAX, ratio: u64::MAX, ..self.bounds };
                observe();
                Ok(())
            }
        }
    }
}

/// Whether brotli's window is one of up to 1 GiB, which RFC 7932 section 9.1 does not know and the library takes.
fn has_large_window(data: &[u8]) -> bool {
    data.first().is_some_and(|first| first & 0x7f == 0x11)
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

// === impl State ===

impl State {
    fn input(&mut self) -> &mut Input {
        match self {
            Self::Zstd(zstd) => zstd.get_mut(),
            Self::Br(br) => br.get_mut(),
            Self::Gzip(gzip) => gzip.get_mut(),
        }
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(zstd) => zstd.read(piece),
            Self::Br(br) => br.read(piece),
            Self::Gzip(gzip) => gzip.read(piece),
        }
    }
}

// === impl Input ===

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.data.is_empty() && !self.ended {
            true => Err(ErrorKind::WouldBlock.into()),
            false => Ok(&self.data),
        }
    }

    fn consume(&mut self, count: usize) {
        self.data.advance(count);
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::middleware::Windows;

    const BOUNDS: Bounds = Bounds { size: 10_000_000, ratio: 100, mode: Mode::Enforce };
    const CODINGS: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    fn encoded(coding: Coding, data: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Zstd => zstd::stream::encode_all(data, 3).unwrap(),
            Coding::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                gzip.write_all(data).unwrap();
                gzip.finish().unwrap()
            }
            Coding::Br => {
                let mut br = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
                br.write_all(data).unwrap();
                br.into_inner()
            }
        }
    }

    fn decoded(coding: Coding, data: &[u8], pieces: usize, bounds: Bounds) -> Result<Vec<u8>, Reason> {
        let mut decoder = Decoder::new(coding, bounds, Windows::default().take(1).unwrap());
        let mut out = Vec::new();
        for piece in data.chunks(pieces).map(Some).chain([None]) {
            decoder.feed(piece.map(Bytes::copy_from_slice));
            while let Some(data) = decoder.next(|| {})? {
                assert!(data.len() <= PIECE);
                out.extend_from_slice(&data);
            }
        }
        assert!(decoder.is_done());
        Ok(out)
    }

    #[test]
    fn bodies_come_out_whatever_the_pieces() {
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| (n % 977).to_le_bytes()).collect();
        for coding in CODINGS {
            let coded = encoded(coding, &text);
            for pieces in [1, 7, 4096, usize::MAX] {
                assert!(decoded(coding, &coded, pieces, BOUNDS).unwrap() == text, "{coding:?} by {pieces}");
            }
            assert_eq!(decoded(coding, &encoded(coding, b""), 1, BOUNDS).unwrap(), b"");
        }
    }

    #[test]
    fn what_is_cut_short_goes_on_or_is_none_is_refused() {
        for coding in CODINGS {
            let coded = encoded(coding, b"a text that is long enough to be cut somewhere in it");
            let cut = &coded[..coded.len() - 3];
            assert_eq!(decoded(coding, cut, 5, BOUNDS), Err(Reason::BadCoding), "{coding:?} cut");
            assert_eq!(decoded(coding, b"\xffnothing", 5, BOUNDS), Err(Reason::BadCoding), "{coding:?} none");
            let more = [&coded[..], b"rest, and more than a header of it"].concat();
            assert_eq!(decoded(coding, &more, 1, BOUNDS), Err(Reason::BadCoding), "{coding:?} and more");
        }
    }

    #[test]
    fn nobody_asks_for_a_larger_window_than_there_is() {
        let data = vec![7; 1 << 20];
        let mut br = Vec::new();
        let params = brotli::enc::BrotliEncoderParams {
            lgwin: 26,
            large_window: true,
            size_hint: data.len(),
            ..Default::default()
        };
        brotli::BrotliCompress(&mut &data[..], &mut br, &params).unwrap();
        assert_eq!(decoded(Coding::Br, &br, 7, BOUNDS), Err(Reason::BadCoding));
        let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        zstd.window_log(24).unwrap();
        zstd.write_all(&data).unwrap();
        assert_eq!(decoded(Coding::Zstd, &zstd.finish().unwrap(), 7, BOUNDS), Err(Reason::BadCoding));
    }

    #[test]
    fn bombs_are_seen_before_they_are_whole() {
        let zeros = vec![0; 9_000_000];
        for coding in CODINGS {
            let coded = encoded(coding, &zeros);
            let bounds = |size, ratio, mode| Bounds { size, ratio, mode };
            let refused = Err(Reason::DecodedTooLarge);
            assert_eq!(decoded(coding, &coded, usize::MAX, BOUNDS), refused, "{coding:?}: by ratio");
            let by_size = bounds(1_000_000, u64::MAX, Mode::Enforce);
            assert_eq!(decoded(coding, &coded, usize::MAX, by_size), refused, "{coding:?}: by size");
            let within = bounds(9_000_000, u64::MAX, Mode::Enforce);
            assert_eq!(decoded(coding, &coded, usize::MAX, within).unwrap().len(), zeros.len());
            let observed = bounds(10, 1, Mode::Observe);
            assert_eq!(decoded(coding, &coded, usize::MAX, observed).unwrap().len(), zeros.len());
            let small = encoded(coding, &zeros[..1_000_000]);
            assert!(decoded(coding, &small, usize::MAX, BOUNDS).is_ok(), "{coding:?}: small");
        }
    }
}
