//! SETTINGS (RFC 9114 section 7.2.4). Ours say that no dynamic table is kept for the client (RFC 9204 section 5), how
//! large a field section may be and that CONNECT may have a `:protocol` (RFC 9220 section 3); of the client's only the errors matter, since nothing that it allows is used.

use bytes::{Buf, BufMut, BytesMut};

use super::{code::Code, frame, varint};

const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
const H3_DATAGRAM: u64 = 0x33;

/// Settings of HTTP/2 that HTTP/3 has not: they must not be sent (RFC 9114 section 7.2.4.1).
const OF_HTTP2: [u64; 5] = [0x00, 0x02, 0x03, 0x04, 0x05];

/// Writes the frame.
pub fn put(most_field_section: u64, out: &mut impl BufMut) {
    let mut payload = BytesMut::new();
    varint::put(MAX_FIELD_SECTION_SIZE, &mut payload);
    varint::put(most_field_section.min(varint::MOST), &mut payload);
    varint::put(ENABLE_CONNECT_PROTOCOL, &mut payload);
    varint::put(1, &mut payload);
    frame::put_head(frame::SETTINGS, payload.len(), out);
    out.put(payload);
}

/// Looks for errors in the payload.
pub fn check(mut payload: &[u8]) -> Result<(), Code> {
    let mut seen = Vec::new();
    while payload.has_remaining() {
        let setting = varint::take(&mut payload).ok_or(Code::FrameError)?;
        let value = varint::take(&mut payload).ok_or(Code::FrameError)?;
        let is_switch = matches!(setting, ENABLE_CONNECT_PROTOCOL | H3_DATAGRAM);
        if OF_HTTP2.contains(&setting) || seen.contains(&setting) || is_switch && value > 1 {
            return Err(Code::SettingsError);
        }
        seen.push(setting);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_hold_no_error() {
        let mut frame = BytesMut::new();
        put(65536, &mut frame);
        assert_eq!((frame[0], usize::from(frame[1])), (4, frame.len() - 2));
        assert_eq!(check(&frame[2..]), Ok(()));
    }

    #[test]
    fn what_must_not_be_sent_is_an_error() {
        let cases: [(&[u8], Result<(), Code>); 8] = [
            (&[], Ok(())),
            (&[0x01, 0, 0x07, 16, 0x21, 1], Ok(())),
            (&[0x01], Err(Code::FrameError)),
            (&[0x01, 0x40], Err(Code::FrameError)),
            (&[0x02, 1], Err(Code::SettingsError)),
            (&[0x01, 0, 0x01, 0], Err(Code::SettingsError)),
            (&[0x08, 2], Err(Code::SettingsError)),
            (&[0x33, 2], Err(Code::SettingsError)),
        ];
        for (payload, expected) in cases {
            assert_eq!(check(payload), expected, "{payload:?}");
        }
    }
}
