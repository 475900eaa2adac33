//! Words of the language that belong to later work: refused as such, never as unknown. A word goes from
//! here when the type that it belongs to gets it.

/// The schema's definition (the root is "") and its words to come.
const LATER: &[(&str, &[&str])] = &[
    ("", &["database", "audit", "events"]),
    ("Process", &["upgrade_socket"]),
    ("Admin", &["debug"]),
    ("Certificate", &["acme"]),
    ("QuicDatagrams", &["true"]),
    ("Tenant", &["cache"]),
    ("Route", &["cache", "grpc", "grpc_json", "files", "hub"]),
];

/// Whether a definition will have the word.
pub fn is_later(definition: &str, word: &str) -> bool {
    words(definition).contains(&word)
}

/// The words that a definition will have.
pub fn words(definition: &str) -> &'static [&'static str] {
    LATER.iter().find(|(name, _)| *name == definition).map_or(&[], |(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_come_is_not_there_yet() {
        let schema = crate::config::schema::strict();
        for (name, words) in LATER {
            let definition = if name.is_empty() { &schema } else { &schema["$defs"][name] };
            assert!(definition.is_object(), "no definition is called {name}");
            for word in *words {
                assert!(
                    definition["properties"][word].is_null(),
                    "{name}.{word} is there: take it from the table"
                );
            }
        }
    }
}
