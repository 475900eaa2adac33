//! Did you mean …?

/// The candidate that the given word is most likely a slip of, if any is near enough.
pub fn closest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near_enough = (given.chars().count() / 3).max(1);
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
    }
}
