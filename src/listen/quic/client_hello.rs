//! Checks of a QUIC client's first message that rustls does not make: the transport parameters of version 1 come in the
//! extension of RFC 9001, not in the one of its drafts.

use std::{any::Any, sync::Arc};

use quinn::{
    ConnectionId, Side, TransportErrorCode,
    crypto::{
        ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
        UnsupportedVersion, rustls::QuicServerConfig,
    },
};
use quinn_proto::{TransportError, transport_parameters::TransportParameters};

/// The cryptography of a listener, with these checks.
pub(super) struct Strict(pub Arc<QuicServerConfig>);

/// A handshake, with these checks.
struct Checked {
    session: Box<dyn Session>,
    /// What has come of the ClientHello, until it is whole and checked.
    hello: Option<Vec<u8>>,
}

/// What there is of a ClientHello.
#[derive(Debug, PartialEq, Eq)]
enum Hello {
    /// It is not whole, or not one: rustls says so.
    Unchecked,
    HasParameters,
    LacksParameters,
}

/// RFC 9000 section 15. Drafts have their own extension.
const VERSION: u32 = 1;
/// RFC 9001 section 8.2.
const TRANSPORT_PARAMETERS: u16 = 0x39;
/// An alert of TLS (RFC 8446 section 6).
const MISSING_EXTENSION: u8 = 109;
/// No ClientHello is as long as that.
const MOST: usize = 64 << 10;

impl ServerConfig for Strict {
    fn initial_keys(&self, version: u32, destination: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, destination)
    }

    fn retry_tag(&self, version: u32, destination: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, destination, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, parameters: &TransportParameters) -> Box<dyn Session> {
        let session = self.0.clone().start_session(version, parameters);
        match version {
            VERSION => Box::new(Checked { session, hello: Some(Vec::new()) }),
            _ => session,
        }
    }
}

impl Checked {
    fn check(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        let Some(hello) = &mut self.hello else { return Ok(()) };
        hello.extend_from_slice(bytes);
        match look_at(hello) {
            Hello::Unchecked if hello.len() < MOST => return Ok(()),
            Hello::Unchecked | Hello::HasParameters => self.hello = None,
            Hello::LacksParameters => {
                let code = TransportErrorCode::crypto(MISSING_EXTENSION);
                let reason = "no quic_transport_parameters extension".to_owned();
                return Err(TransportError { code, frame: None, reason });
            }
        }
        Ok(())
    }
}

impl Session for Checked {
    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.check(bytes)?;
        self.session.read_handshake(bytes)
    }

    fn initial_keys(&self, destination: &ConnectionId, side: Side) -> Keys {
        self.session.initial_keys(destination, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.session.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.session.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.session.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session.transport_parameters()
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        self.session.write_handshake(out)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session.next_1rtt_keys()
    }

    fn is_valid_retry(&self, destination: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.session.is_valid_retry(destination, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}

/// Looks for the extension in a message of the handshake (RFC 8446 sections 4 and 4.1.2).
fn look_at(message: &[u8]) -> Hello {
    extensions(message).map_or(Hello::Unchecked, |mut extensions| {
        while let Some((kind, rest)) = take(extensions, 2) {
            if kind == usize::from(TRANSPORT_PARAMETERS) {
                return Hello::HasParameters;
            }
            let Some((_, rest)) = vector(rest, 2) else { return Hello::Unchecked };
            extensions = rest;
        }
        Hello::LacksParameters
    })
}

/// The extensions of a ClientHello that is whole.
fn extensions(message: &[u8]) -> Option<&[u8]> {
    const CLIENT_HELLO: usize = 1;
    let (kind, rest) = take(message, 1)?;
    let (hello, _) = vector(rest, 3).filter(|_| kind == CLIENT_HELLO)?;
    // The version and the random.
    let rest = hello.get(2 + 32..)?;
    let (_, rest) = vector(rest, 1)?;
    let (_, rest) = vector(rest, 2)?;
    let (_, rest) = vector(rest, 1)?;
    vector(rest, 2).map(|(extensions, _)| extensions)
}

/// A number of so many bytes.
fn take(bytes: &[u8], size: usize) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_at_checked(size)?;
    Some((number.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest))
}

/// Bytes behind their length, which takes so many.
fn vector(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = take(bytes, size)?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
        let extensions: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &sized(body)].concat())
            .collect();
        let body =
            [&[3, 3][..], &[7; 32], &[2, 1, 1], &[0, 2, 0x13, 1], &[1, 0], &sized(&extensions)].concat();
        [&[1, 0][..], &sized(&body)].concat()
    }

    #[test]
    fn the_extension_of_the_rfc_is_looked_for_once_all_is_there() {
        let sound = hello(&[(0, b"name"), (0x39, b"parameters"), (0xffa5, b"")]);
        assert_eq!(look_at(&sound), Hello::HasParameters);
        assert_eq!(look_at(&hello(&[(0, b"name"), (0xffa5, b"parameters")])), Hello::LacksParameters);
        assert_eq!(look_at(&hello(&[])), Hello::LacksParameters);
        for end in 0..sound.len() {
            assert_eq!(look_at(&sound[..end]), Hello::Unchecked, "{end}");
        }
        assert_eq!(look_at(&[2, 0, 0, 0]), Hello::Unchecked);
    }
}
