//! The date of a message, in the one form that is written (RFC 9110 section 5.6.7).

use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;

thread_local! {
    /// The second that was last asked for, with its text: many answers are given in one.
    static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))) };
}

/// The date as it is now.
pub fn now() -> HeaderValue {
    at(SystemTime::now())
}

fn at(time: SystemTime) -> HeaderValue {
    let second = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second {
            let date = httpdate::fmt_http_date(time);
            *text = HeaderValue::try_from(date).expect("a date is letters, digits and spaces");
            *last = second;
        }
        text.clone()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_second_has_its_own_date() {
        let start = UNIX_EPOCH + Duration::from_millis(784_111_777_900);
        assert_eq!(at(start), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(start + Duration::from_millis(50)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(start + Duration::from_millis(100)), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(at(start), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
