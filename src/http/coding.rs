//! Content codings (RFC 9110 section 8.4.1): which one a client wants, and writing in it.

use std::{fmt, io::Write as _, mem, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, header};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{sync::Semaphore, task::spawn_blocking};

/// A coding that responses may be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ContentCoding")]
pub enum Coding {
    /// RFC 8878
    Zstd,
    /// Brotli (RFC 7932)
    Br,
    /// RFC 1952
    Gzip,
}

/// Writes one body.
pub struct Encoder {
    state: State,
    /// How many may be at heavy work at a time.
    heavy: Arc<Semaphore>,
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

// === impl Coding ===

impl Coding {
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The coding that a client wants most of those on offer, whose order decides where it wants several
    /// alike (RFC 9110 section 12.5.3). `None`: it shall have the body as it is.
    pub fn wanted(headers: &HeaderMap, offered: &[Self]) -> Option<Self> {
        let accepted = Accepted::of(headers);
        let mut best = (accepted.weight("identity").unwrap_or(0), None);
        for coding in offered {
            let weight = accepted.weight(coding.name()).unwrap_or(0);
            if weight > 0 && (weight > best.0 || (weight == best.0 && best.1.is_none())) {
                best = (weight, Some(*coding));
            }
        }
        best.1
    }
}

/// What Accept-Encoding says, with weights in thousandths.
struct Accepted<'a>(Vec<(&'a str, u16)>);

impl<'a> Accepted<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let elements = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|text| !text.is_empty());
        Self(elements.filter_map(element).collect())
    }

    /// `None` where nothing is said of it: a coding is not wanted then, and "identity" is as good as none.
    fn weight(&self, name: &str) -> Option<u16> {
        let find = |wanted: &str| {
            self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, weight)| *weight)
        };
        let any = || if name == "identity" { find("*").filter(|weight| *weight == 0) } else { find("*") };
        find(name).or_else(|| if name == "gzip" { find("x-gzip") } else { None }).or_else(any)
    }
}

/// `gzip`, `br;q=0.5`; what is malformed is as if it were not there.
fn element(text: &str) -> Option<(&str, u16)> {
    let Some((name, parameter)) = text.split_once(';') else { return Some((text, 1000)) };
    let (key, value) = parameter.split_once('=')?;
    if !key.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    Some((name.trim(), super::weight::thousandths(value.trim())?))
}

// === impl Encoder ===

impl Encoder {
    pub fn new(coding: Coding, heavy: Arc<Semaphore>) -> Self {
        let state = match coding {
            Coding::Zstd => {
                let mut zstd =
                    zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).expect("a level that zstd has");
                zstd.window_log(WINDOW_LOG).expect("a window that zstd has");
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
        let Ok(_permit) = self.heavy.clone().acquire_owned().await else {
            return self.state.encode(&data, end);
        };
        let mut state = mem::replace(&mut self.state, State::Finished);
        let written = spawn_blocking(move || {
            let written = state.encode(&data, end);
            (state, written)
        });
        let (state, written) = written.await.expect("an encoder does not panic, and nobody aborts it");
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

    fn wanted(accept: &str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
        Coding::wanted(&headers, &ALL)
    }

    #[test]
    fn the_client_chooses_and_then_the_operator() {
        assert_eq!(wanted("gzip, br, zstd"), Some(Coding::Zstd));
        assert_eq!(wanted("gzip, br;q=0.9, zstd;q=0.5"), Some(Coding::Gzip));
        assert_eq!(wanted("GZIP;q=0.001"), Some(Coding::Gzip));
        assert_eq!(wanted("identity;q=0, gzip;q=0.001"), Some(Coding::Gzip));
        assert_eq!(wanted("*"), Some(Coding::Zstd));
        assert_eq!(wanted("*, zstd;q=0, br; q=0"), Some(Coding::Gzip));
        assert_eq!(wanted("x-gzip"), Some(Coding::Gzip));
        for none in [
            "",
            "identity",
            "identity, gzip;q=0.5",
            "deflate",
            "gzip;q=0",
            "gzip;q=2",
            "gzip;level=3",
            "*;q=0",
        ] {
            assert_eq!(wanted(none), None, "{none:?}");
        }
        assert_eq!(Coding::wanted(&HeaderMap::new(), &ALL), None);
    }

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
            let mut encoder = Encoder::new(coding, Arc::new(Semaphore::new(1)));
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
            let mut encoder = Encoder::new(coding, Arc::new(Semaphore::new(1)));
            let mut coded = encoder.encode(Bytes::from_static(b"event: one\n\n"), false).await.to_vec();
            coded.extend(encoder.flush());
            assert!(!coded.is_empty(), "{coding:?}");
            assert!(encoder.flush().len() < 16, "{coding:?}: nothing came since");
        }
    }
}
