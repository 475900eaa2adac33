//! How values are written into a line, without the formatter's cost: a busy proxy writes many.

use std::{
    cell::Cell,
    fmt,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::value::Timestamp;

/// `2026-01-31T23:59:59`, of RFC 3339's `2026-01-31T23:59:59.123Z`.
const TO_SECONDS: usize = 19;

thread_local! {
    /// The second that was written last, and its text: the lines of one second share it.
    static SECOND: Cell<(u64, [u8; TO_SECONDS])> = const { Cell::new((u64::MAX, [0; TO_SECONDS])) };
}

pub(super) fn text(line: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    line.write_fmt(text).expect("a Vec takes all that is written");
}

pub(super) fn number(line: &mut Vec<u8>, number: u64) {
    match number {
        // The most frequent ones.
        0..10 => line.push(digit(number)),
        _ => line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
    }
}

/// Milliseconds to the microsecond.
pub(super) fn milliseconds(line: &mut Vec<u8>, time: Duration) {
    let micros = u64::from(time.subsec_micros());
    number(line, time.as_secs().saturating_mul(1000).saturating_add(micros / 1000));
    thousandths(line, micros % 1000);
}

pub(super) fn time(line: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut second, mut text) = SECOND.get();
    if second != since.as_secs() {
        let shown = Timestamp(time).to_string();
        let Some(to_seconds) = shown.as_bytes().first_chunk() else { return };
        (second, text) = (since.as_secs(), *to_seconds);
        SECOND.set((second, text));
    }
    line.extend_from_slice(&text);
    thousandths(line, since.subsec_millis().into());
    line.push(b'Z');
}

pub(super) fn ip(line: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => ipv4(line, ip),
        IpAddr::V6(ip) => text(line, format_args!("{ip}")),
    }
}

fn ipv4(line: &mut Vec<u8>, ip: Ipv4Addr) {
    // Copied at once: each digit on its own would ask for room in the line.
    let (mut text, mut end) = ([0; "255.255.255.255".len()], 0);
    let mut put = |byte| {
        text[end] = byte;
        end += 1;
    };
    for (nth, part) in ip.octets().into_iter().map(u64::from).enumerate() {
        if nth > 0 {
            put(b'.');
        }
        if part >= 100 {
            put(digit(part / 100));
        }
        if part >= 10 {
            put(digit(part / 10));
        }
        put(digit(part));
    }
    line.extend_from_slice(&text[..end]);
}

/// The point and three digits of a number below 1000.
fn thousandths(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(&[b'.', digit(number / 100), digit(number / 10), digit(number)]);
}

/// The last digit of a number.
fn digit(number: u64) -> u8 {
    b'0' + (number % 10) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut line = Vec::new();
        write(&mut line);
        String::from_utf8(line).unwrap()
    }

    proptest! {
        #[test]
        fn values_are_written_as_the_formatter_writes_them(
            millis in 0u64..4_102_444_800_000,
            later in 0u64..3000,
            micros: u32,
            address: [u8; 4],
        ) {
            for millis in [millis, millis + later] {
                let at = UNIX_EPOCH + Duration::from_millis(millis);
                prop_assert_eq!(written(|line| time(line, at)), Timestamp(at).to_string());
            }
            let duration = Duration::from_micros(micros.into());
            let shown = format!("{}.{:03}", micros / 1000, micros % 1000);
            prop_assert_eq!(written(|line| milliseconds(line, duration)), shown);
            let address = IpAddr::from(address);
            prop_assert_eq!(written(|line| ip(line, address)), address.to_string());
        }
    }
}
