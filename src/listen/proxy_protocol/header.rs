//! The PROXY protocol's header, versions 1 and 2 (HAProxy's doc/proxy-protocol.txt): what a balancer says of the connection
//! that it took for us. Nothing of it is guessed: what is not as written there is malformed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// Nothing that can be told yet.
    More,
    /// The beginning of something else.
    Other,
    /// A header of this many bytes.
    Header(usize, Told),
}

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Who connected; none where the sender speaks for itself (a health check of its own), or where the client has no
    /// address that we know (a unix socket, another family).
    pub client: Option<SocketAddr>,
    /// What ALPN settled between the client and the sender.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client asked the sender for, by SNI.
    pub authority: Option<String>,
}

/// Why a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed PROXY header: {0}")]
pub struct Malformed(&'static str);

const V1: &[u8] = b"PROXY ";
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// A line of version 1 with its end.
const MOST_V1: usize = 107;
/// A header of version 2 up to its addresses.
const HEAD_V2: usize = 16;
/// What a header of version 2 may take in all: its addresses and what TLS says of the client need a fraction of that.
pub const MOST: usize = 4096;

const TLV_ALPN: u8 = 0x01;
const TLV_AUTHORITY: u8 = 0x02;
const TLV_CRC32C: u8 = 0x03;

/// Reads the header that `bytes` begin with.
pub fn read(bytes: &[u8]) -> Result<First, Malformed> {
    let begins = |with: &[u8]| {
        let known = bytes.len().min(with.len());
        bytes[..known] == with[..known]
    };
    match (begins(V1), begins(V2)) {
        _ if bytes.is_empty() => Ok(First::More),
        (true, _) if bytes.len() >= V1.len() => line(bytes),
        (_, true) if bytes.len() >= V2.len() => binary(bytes),
        (false, false) => Ok(First::Other),
        _ => Ok(First::More),
    }
}

// === version 1 ===

fn line(bytes: &[u8]) -> Result<First, Malformed> {
    let window = &bytes[..bytes.len().min(MOST_V1)];
    let Some(end) = memchr::memmem::find(window, b"\r\n") else {
        return match window.len() == MOST_V1 {
            true => Err(Malformed("its line does not end")),
            false => Ok(First::More),
        };
    };
    let text = std::str::from_utf8(&window[V1.len()..end]).map_err(|_| Malformed("its line is no ASCII"))?;
    let client = match text.split_once(' ') {
        _ if text == "UNKNOWN" || text.starts_with("UNKNOWN ") => None,
        Some(("TCP4", rest)) => Some(client::<Ipv4Addr>(rest)?),
        Some(("TCP6", rest)) => Some(client::<Ipv6Addr>(rest)?),
        _ => return Err(Malformed("its family is none of TCP4, TCP6 and UNKNOWN")),
    };
    Ok(First::Header(end + 2, Told { client, ..Told::default() }))
}

/// `SOURCE DESTINATION PORT PORT`, one space between each.
fn client<A: std::str::FromStr + Into<IpAddr>>(text: &str) -> Result<SocketAddr, Malformed> {
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or(Malformed("its line is too short"));
    let (source, destination, from, to) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(Malformed("its line goes on"));
    }
    let address = |text: &str| text.parse::<A>().map_err(|_| Malformed("an address of another family"));
    let _ = (address(destination)?, port(to)?);
    Ok(SocketAddr::new(address(source)?.into(), port(from)?))
}

fn port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(Malformed("a port that is none"))
}

// === version 2 ===

fn binary(bytes: &[u8]) -> Result<First, Malformed> {
    let Some(head) = bytes.first_chunk::<HEAD_V2>() else { return Ok(First::More) };
    let [command, family, high, low] = [head[12], head[13], head[14], head[15]];
    let length = HEAD_V2 + usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || command & 0xf > 1 {
        return Err(Malformed("its version or command is unknown"));
    }
    if length > MOST {
        return Err(Malformed("it is too long"));
    }
    let Some(whole) = bytes.get(..length) else { return Ok(First::More) };
    // LOCAL: the sender speaks for itself, and what else stands there is to be skipped.
    if command & 0xf == 0 {
        return Ok(First::Header(length, Told::default()));
    }
    let (client, rest) = addresses(family, &whole[HEAD_V2..])?;
    let mut told = Told { client, ..Told::default() };
    told.read(rest, whole)?;
    Ok(First::Header(length, told))
}

/// The client's address, and what stands behind the addresses. Of a family that we do not know nothing can be told apart.
fn addresses(family: u8, body: &[u8]) -> Result<(Option<SocketAddr>, &[u8]), Malformed> {
    const SHORT: Malformed = Malformed("its addresses are cut off");
    const STREAM: u8 = 1;
    let is_stream = family & 0xf == STREAM;
    match family >> 4 {
        0 => Ok((None, body)),
        1 => {
            let (block, rest) = body.split_first_chunk::<12>().ok_or(SHORT)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *block;
            let client = SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]));
            Ok((is_stream.then_some(client), rest))
        }
        2 => {
            let (block, rest) = body.split_first_chunk::<36>().ok_or(SHORT)?;
            let source: [u8; 16] = *block.first_chunk().ok_or(SHORT)?;
            let port = u16::from_be_bytes([block[32], block[33]]);
            Ok((is_stream.then_some(SocketAddr::new(Ipv6Addr::from(source).into(), port)), rest))
        }
        3 => {
            let (_, rest) = body.split_first_chunk::<216>().ok_or(SHORT)?;
            Ok((None, rest))
        }
        _ => Ok((None, &[])),
    }
}

impl Told {
    /// Reads what stands behind the addresses, each `type, length, value`; what is not known is skipped.
    fn read(&mut self, mut rest: &[u8], whole: &[u8]) -> Result<(), Malformed> {
        const SHORT: Malformed = Malformed("a value is cut off");
        let mut checked = false;
        while !rest.is_empty() {
            let ([kind, high, low], after) = rest.split_first_chunk::<3>().ok_or(SHORT)?;
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let value = after.get(..length).ok_or(SHORT)?;
            rest = &after[length..];
            let is_again = match *kind {
                TLV_ALPN => self.alpn.replace(value.to_vec()).is_some(),
                TLV_AUTHORITY => {
                    let name =
                        std::str::from_utf8(value).map_err(|_| Malformed("an authority that is no text"))?;
                    self.authority.replace(name.to_owned()).is_some()
                }
                TLV_CRC32C => {
                    let at = whole.len() - rest.len() - length;
                    check(whole, at, value)?;
                    std::mem::replace(&mut checked, true)
                }
                _ => false,
            };
            if is_again {
                return Err(Malformed("a value stands twice"));
            }
        }
        Ok(())
    }
}

/// The checksum is of the header with zeros in its own place.
fn check(whole: &[u8], at: usize, value: &[u8]) -> Result<(), Malformed> {
    let said: [u8; 4] = value.try_into().map_err(|_| Malformed("a checksum of another length"))?;
    let (before, after) = (&whole[..at], &whole[at + said.len()..]);
    let bytes = before.iter().chain(&[0; 4]).chain(after);
    match crc32c(bytes) == u32::from_be_bytes(said) {
        true => Ok(()),
        false => Err(Malformed("its checksum does not fit")),
    }
}

/// RFC 3720 appendix B.4; a header is short enough to go bit by bit.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    const REVERSED: u32 = 0x82f6_3b78;
    let step = |crc: u32, _: u32| (crc >> 1) ^ (REVERSED & (crc & 1).wrapping_neg());
    !bytes.fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&V2[..], &[command, family], &length, body].concat()
    }

    const INET: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xc0, 0x01, 0x01, 0xbb];

    fn told(bytes: &[u8]) -> Told {
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Ok(First::More), "cut at {cut}");
        }
        match read(&[bytes, b"GET"].concat()) {
            Ok(First::Header(length, told)) if length == bytes.len() => told,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_line_names_the_client() {
        let client = |line: &str| told(line.as_bytes()).client.map(|client| client.to_string());
        assert_eq!(client("PROXY TCP4 192.0.2.7 198.51.100.1 49153 443\r\n").unwrap(), "192.0.2.7:49153");
        assert_eq!(client("PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\n").unwrap(), "[2001:db8::7]:1");
        assert_eq!(client("PROXY UNKNOWN\r\n"), None);
        assert_eq!(client("PROXY UNKNOWN ffff:f::1 ffff:f::2 65535 65535\r\n"), None);
    }

    #[test]
    fn a_line_that_is_not_exactly_one_is_malformed() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n",
            "PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n",
            "PROXY TCP4 ::1 ::1 1 1\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
            "PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n",
            "PROXY TCP4 1.2.3.4 name 1 1\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n\r\n",
        ] {
            assert!(read(line.as_bytes()).is_err(), "{line:?}");
        }
        assert!(read(&[b"PROXY UNKNOWN ", &[b'x'; 100][..]].concat()).is_err());
    }

    #[test]
    fn a_binary_header_names_the_client_and_what_tls_said() {
        let tlvs =
            [&INET[..], &[1, 0, 2, b'h', b'2', 2, 0, 3, b'a', b'.', b'b', 4, 0, 1, 0, 0xee, 0, 0]].concat();
        let told = told(&v2(0x21, 0x11, &tlvs));
        assert_eq!(told.client.unwrap().to_string(), "192.0.2.7:49153");
        assert_eq!(told.alpn.as_deref(), Some(&b"h2"[..]));
        assert_eq!(told.authority.as_deref(), Some("a.b"));
    }

    #[test]
    fn other_families_and_the_sender_itself_name_no_client() {
        assert_eq!(told(&v2(0x20, 0x11, &INET)), Told::default());
        assert_eq!(told(&v2(0x20, 0x00, &[])), Told::default());
        assert_eq!(told(&v2(0x21, 0x00, &[])), Told::default());
        assert_eq!(told(&v2(0x21, 0x31, &[0; 216])), Told::default());
        assert_eq!(told(&v2(0x21, 0xf1, &[1, 2, 3])), Told::default());
        assert_eq!(told(&v2(0x21, 0x12, &INET)), Told::default());
        let mut inet6 = [0; 36];
        (inet6[15], inet6[33]) = (1, 80);
        assert_eq!(told(&v2(0x21, 0x21, &inet6)).client.unwrap().to_string(), "[::1]:80");
    }

    #[test]
    fn a_checksum_is_checked() {
        // The check value of CRC-32C.
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
        let mut header = v2(0x21, 0x11, &[&INET[..], &[3, 0, 4, 0, 0, 0, 0]].concat());
        let sum = crc32c(header.iter()).to_be_bytes();
        let at = header.len() - 4;
        header[at..].copy_from_slice(&sum);
        assert!(told(&header).client.is_some());
        header[20] ^= 1;
        assert_eq!(read(&header), Err(Malformed("its checksum does not fit")));
    }

    #[test]
    fn what_is_cut_off_unknown_or_twice_is_malformed() {
        for header in [
            v2(0x11, 0x11, &INET),
            v2(0x22, 0x11, &INET),
            v2(0x21, 0x11, &INET[..11]),
            v2(0x21, 0x21, &INET),
            v2(0x21, 0x31, &INET),
            v2(0x21, 0x11, &[&INET[..], &[1, 0]].concat()),
            v2(0x21, 0x11, &[&INET[..], &[1, 0, 9, 0]].concat()),
            v2(0x21, 0x11, &[&INET[..], &[2, 0, 1, 0xff]].concat()),
            v2(0x21, 0x11, &[&INET[..], &[3, 0, 1, 0]].concat()),
            v2(0x21, 0x11, &[&INET[..], &[1, 0, 0, 1, 0, 0]].concat()),
            v2(0x21, 0x11, &[0; 5000]),
        ] {
            assert!(read(&header).is_err(), "{header:?}");
        }
    }

    #[test]
    fn anything_else_is_told_by_its_first_bytes() {
        for other in [&b"G"[..], b"PRI * HTTP/2.0", b"PROXZ", b"\x16\x03\x01", b"\r\n\r\nGET", b"proxy TCP4"]
        {
            assert_eq!(read(other), Ok(First::Other));
        }
    }
}
