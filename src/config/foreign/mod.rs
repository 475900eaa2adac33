//! Words from the configurations of other products, and the key that means the same here.
//!
//! The nearest key by edit distance may mean something else. Where keys decide who is trusted, a wrong suggestion opens a
//! hole: `auth_response_headers` of Traefik is `copy_headers` here and not `response_headers`.

mod keys;
mod values;

use values::VALUES;

/// What to write instead of a foreign word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// A key of the same map, or a word in the same place.
    Key(&'static str),
    /// Another place or nothing to configure, as help for the reader.
    Elsewhere(&'static str),
}

/// A foreign word in lower case with underscores, and what it means.
pub type Word = (&'static str, Meant);

/// The foreign words for the map of a definition.
pub fn words(definition: &str) -> &'static [Word] {
    keys::all().find(|(name, _)| *name == definition).map_or(&[], |(_, words)| words)
}

/// The foreign words for the value of a definition.
pub fn values(definition: &str) -> &'static [Word] {
    VALUES.iter().find(|(name, _)| *name == definition).map_or(&[], |(_, words)| words)
}

/// What a key of these words means, in whatever style it is written.
pub fn meant(words: &[Word], key: &str) -> Option<Meant> {
    if words.is_empty() {
        return None;
    }
    let snake = snake_case(key);
    words.iter().find(|(word, _)| *word == snake).map(|(_, meant)| *meant)
}

/// `authResponseHeaders`, `Auth-Response-Headers` and `trustedIPs` in lower case with underscores.
fn snake_case(word: &str) -> String {
    let mut snake = String::with_capacity(word.len() + 4);
    let letters: Vec<char> = word.chars().collect();
    for (at, letter) in letters.iter().enumerate() {
        let after_lower = at > 0 && (letters[at - 1].is_lowercase() || letters[at - 1].is_ascii_digit());
        match letter {
            '-' | '.' | ' ' => snake.push('_'),
            upper if upper.is_uppercase() => {
                if after_lower {
                    snake.push('_');
                }
                snake.extend(upper.to_lowercase());
            }
            other => snake.push(*other),
        }
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::{Meant::Key, *};

    #[test]
    fn words_are_recognised_in_every_style() {
        for word in ["auth_response_headers", "authResponseHeaders", "auth-response-headers"] {
            assert_eq!(meant(words("ForwardAuth"), word), Some(Key("copy_headers")), "{word}");
        }
        assert_eq!(meant(words("TrustedProxies"), "trustedIPs"), Some(Key("from")));
        assert_eq!(meant(words("Ip"), "sourceRange"), Some(Key("allow")));
        assert_eq!(meant(words("Nothing"), "address"), None);
    }

    fn definition_of<'a>(schema: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
        let definition = if name.is_empty() { schema } else { &schema["$defs"][name] };
        assert!(definition.is_object(), "no definition is called {name}");
        definition
    }

    #[test]
    fn every_foreign_value_leads_to_a_word_that_exists() {
        let schema = crate::config::schema::strict();
        for (definition, words) in VALUES {
            let known = definition_of(&schema, definition).to_string();
            for (word, meant) in *words {
                assert!(!known.contains(&format!("\"{word}\"")), "{word} is a word of {definition} itself");
                if let Key(key) = meant {
                    assert!(known.contains(&format!("\"{key}\"")), "{definition} has no word {key}");
                }
                assert_eq!(*word, snake_case(word), "written in lower case with underscores");
            }
        }
    }

    #[test]
    fn every_foreign_word_leads_to_a_key_that_exists() {
        let schema = crate::config::schema::strict();
        for (definition, words) in keys::all() {
            let shape = definition_of(&schema, definition);
            let choices = shape["oneOf"].as_array().map_or(&[][..], Vec::as_slice);
            let is_key = |key: &str| {
                !shape["properties"][key].is_null()
                    || choices.iter().any(|choice| !choice["properties"][key].is_null())
            };
            for (word, meant) in *words {
                assert!(!is_key(word), "{word} is a key of {definition} itself");
                if let Key(key) = meant {
                    assert!(is_key(key), "{definition} has no key {key}, which {word} leads to");
                }
                assert_eq!(*word, snake_case(word), "written in lower case with underscores");
            }
        }
    }
}
