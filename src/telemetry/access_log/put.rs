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
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Milliseconds to the microsecond.
pub(super) fn milliseconds(line: &mut Vec<u8>, time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    number(line, micros / 1000);
    line.push(b'.');
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
    line.push(b'.');
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
    for (nth, part) in ip.octets().into_iter().enumerate() {
        if nth > 0 {
            line.push(b'.');
        }
        number(line, part.into());
    }
}

/// Three digits of a number below 1000.
fn thousandths(line: &mut Vec<u8>, number: u64) {
    let digits = [number / 100, number / 10 % 10, number % 10];
    line.extend_from_slice(&digits.map(|digit| b'0' + digit as u8));
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
