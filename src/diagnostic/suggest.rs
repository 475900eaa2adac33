//! Did you mean …?

/// The most letters that may be wrong in a word, however long it is: a whole word too many is no slip of the pen, and may
/// make another meaning.
const MOST_SLIPS: usize = 3;

/// The candidate that the given word is most likely a slip of, if any is near enough.
pub fn closest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near_enough = (given.chars().count() / 3).clamp(1, MOST_SLIPS);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(given, candidate), candidate))
        .filter(|(distance, _)| *distance <= near_enough)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        assert_eq!(closest("stream", ["streams", "auth"]), Some("streams"));
        assert_eq!(closest("upstraem", ["upstream", "rewrite"]), Some("upstream"));
        assert_eq!(closest("ab", ["xyz"]), None);
        assert_eq!(closest("auth_response_headers", ["response_headers", "request_headers"]), None);
    }
}
