//! Weights of what clients accept (RFC 9110 section 12.4.2).

/// `0.5` as 500; `None` for what is no weight.
pub fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction =
        decimals.bytes().chain(*b"000").take(3).fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match (whole, fraction) {
        ("0", fraction) => Some(fraction),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_up_to_three_decimals() {
        for (text, weight) in
            [("0", 0), ("1", 1000), ("1.000", 1000), ("0.5", 500), ("0.05", 50), ("0.", 0), ("0.999", 999)]
        {
            assert_eq!(thousandths(text), Some(weight), "{text}");
        }
        for text in ["", "2", "1.1", "-0", "0.1234", ".5", "0,5", "0.x", "1e0"] {
            assert_eq!(thousandths(text), None, "{text:?}");
        }
    }
}
