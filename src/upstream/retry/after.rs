//! When an endpoint says that it may be asked again.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// Retry-After as a wait from `now` on: seconds or a date (RFC 9110 section 10.2.3). `None` where there is none, or none that
/// can be read.
pub fn after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(read("3"), Some(3));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:27 GMT"), Some(0));
        for none in ["", "-1", "3.5", "soon", "99999999999999999999"] {
            assert_eq!(read(none), None, "{none:?}");
        }
        assert_eq!(after(&HeaderMap::new(), now), None);
    }
}
