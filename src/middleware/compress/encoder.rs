//! Writes a body in a content coding, piece by piece.

use std::{fmt, io::Write as _, mem};

use bytes::Bytes;

use crate::{http::coding::Coding, middleware::HeavyWork};

/// Writes one body.
pub struct Encoder {
    state: State,
    heavy: HeavyWork,
}

enum State {
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(Box<flate2::write::GzEncoder<Vec<u8>>>),
    Finished,
}

/// Levels that cost about as much processor time per byte as a proxy can spare on the way.
const ZSTD_LEVEL: i32 = 3;
const BR_QUALITY: u32 = 4;
const GZIP_LEVEL: u32 = 5;
/// 512 KiB to look back: what a response being written holds in memory.
const WINDOW_LOG: u32 = 19;
/// A piece of this size or more is written off the worker's thread, where others would wait for it.
const HEAVY: usize = 16 * 1024;

// === impl Encoder ===

impl Encoder {
    pub fn new(coding: Coding, heavy: HeavyWork) -> Self {
        let state = match coding {
            Coding::Zstd => {
                let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)
                    .expect("ZSTD_LEVEL is in the range that zstd allows");
                zstd.window_log(WINDOW_LOG).expect("WINDOW_LOG is in the range that zstd allows");
                State::Zstd(Box::new(zstd))
            }
            Coding::Br => {
                State::Br(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, BR_QUALITY, WINDOW_LOG)))
            }
            Coding::Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                State::Gzip(Box::new(flate2::write::GzEncoder::new(Vec::new(), level)))
            }
        };
        Self { state, heavy }
    }

    /// Takes a piece in and gives what is ready to be sent: possibly nothing, before the end.
    pub async fn encode(&mut self, data: Bytes, end: bool) -> Bytes {
        if data.len() < HEAVY {
            return self.state.encode(&data, end);
        }
        let mut state = mem::replace(&mut self.state, State::Finished);
        let work = move || {
            let written = state.encode(&data, end);
            (state, written)
        };
        let (state, written) = self.heavy.run(work).await;
        self.state = state;
        written
    }

    /// What is held back: for bodies that come bit by bit.
    pub fn flush(&mut self) -> Bytes {
        self.state.flush();
        self.state.take()
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

// === impl State ===

/// Why writing cannot fail.
const IN_MEMORY: &str = "memory takes whatever is written";

impl State {
    fn encode(&mut self, data: &[u8], end: bool) -> Bytes {
        match self {
            Self::Zstd(zstd) => zstd.write_all(data).expect(IN_MEMORY),
            Self::Br(br) => br.write_all(data).expect(IN_MEMORY),
            Self::Gzip(gzip) => gzip.write_all(data).expect(IN_MEMORY),
            Self::Finished => {}
        }
        match end {
            true => mem::replace(self, Self::Finished).finish(),
            false => self.take(),
        }
    }

    fn flush(&mut self) {
        match self {
            Self::Zstd(zstd) => zstd.flush().expect(IN_MEMORY),
            Self::Br(br) => br.flush().expect(IN_MEMORY),
            Self::Gzip(gzip) => gzip.flush().expect(IN_MEMORY),
            Self::Finished => {}
        }
    }

    fn take(&mut self) -> Bytes {
        let written = match self {
            Self::Zstd(zstd) => zstd.get_mut(),
            Self::Br(br) => br.get_mut(),
            Self::Gzip(gzip) => gzip.get_mut(),
            Self::Finished => return Bytes::new(),
        };
        mem::take(written).into()
    }

    fn finish(self) -> Bytes {
        match self {
            Self::Zstd(zstd) => zstd.finish().expect(IN_MEMORY).into(),
            Self::Br(br) => br.into_inner().into(),
            Self::Gzip(gzip) => gzip.finish().expect(IN_MEMORY).into(),
            Self::Finished => Bytes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    fn decoded(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match coding {
            Coding::Zstd => drop(zstd::Decoder::new(coded).unwrap().read_to_end(&mut plain).unwrap()),
            Coding::Br => drop(brotli::Decompressor::new(coded, 4096).read_to_end(&mut plain).unwrap()),
            Coding::Gzip => drop(flate2::read::GzDecoder::new(coded).read_to_end(&mut plain).unwrap()),
        }
        plain
    }

    #[tokio::test]
    async fn what_is_written_is_read_back_piece_by_piece() {
        let text: Vec<u8> = (0..20_000u32).flat_map(|n| format!("{n} is a number\n").into_bytes()).collect();
        for coding in ALL {
            let mut encoder = Encoder::new(coding, HeavyWork::default());
            let mut coded = Vec::new();
            for piece in text.chunks(40_000).chain([&b"tail"[..]]) {
                coded.extend(encoder.encode(Bytes::copy_from_slice(piece), false).await);
            }
            coded.extend(encoder.flush());
            coded.extend(encoder.encode(Bytes::new(), true).await);
            assert!(coded.len() * 3 < text.len(), "{coding:?}: {}", coded.len());
            assert_eq!(decoded(coding, &coded), [&text[..], b"tail"].concat(), "{coding:?}");
        }
    }

    #[tokio::test]
    async fn a_flush_gives_what_was_held_back() {
        for coding in ALL {
            let mut encoder = Encoder::new(coding, HeavyWork::default());
            let mut coded = encoder.encode(Bytes::from_static(b"event: one\n\n"), false).await.to_vec();
            coded.extend(encoder.flush());
            assert!(!coded.is_empty(), "{coding:?}");
            assert!(encoder.flush().len() < 16, "{coding:?}: nothing came since");
        }
    }
}
