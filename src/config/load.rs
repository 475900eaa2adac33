//! From files to a document: include, unite, override, substitute, validate, decode. Each pass is a file of
//! its own; every problem found is reported.

use std::{path::Path, sync::Arc};

use super::{
    Chosen, Delegated, Document, decode::decode, delegated, include::Reading, inputs::Inputs, overrides,
    qualify::absorb, schema, shape::Shapes, shorthand, sieve::sound_part, substitute, tree::Node,
    unite::unite, validate::validate,
};
use crate::diagnostic::{Code, Diagnostic, Diagnostics, Sources};

/// What came of a configuration's files.
#[derive(Debug)]
pub struct Loaded {
    /// The document: of what is sound, where something was wrong.
    pub document: Option<Document>,
    /// The effective tree: files united, overrides made, references replaced. There where a file parsed and trees are
    /// kept.
    pub tree: Option<Node>,
    /// Whether every file of the operator's could be read and parsed.
    pub is_whole: bool,
    /// The tenants whose parts others write.
    pub delegated: Vec<Arc<Delegated>>,
    pub sources: Sources,
    pub diagnostics: Diagnostics,
}

/// Whether trees are kept when their documents are made: a large one takes more memory than the table that comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trees {
    Keep,
    Drop,
}

/// Loads the tree that starts at `root`.
pub fn load(root: &Path, inputs: &Inputs) -> Loaded {
    load_chosen(root, inputs, (Sources::default(), &Chosen::default()), Trees::Keep)
}

/// The same, with the sources chosen for tenants. `sources` may hold files already.
pub fn load_chosen(
    root: &Path,
    inputs: &Inputs,
    (sources, chosen): (Sources, &Chosen),
    trees: Trees,
) -> Loaded {
    let shapes = Shapes::of(&schema::strict());
    let mut reading = Reading::new(inputs);
    reading.sources = sources;
    let parts = reading.files(root);
    let whole = is_whole(&reading.diagnostics);
    let mut maps = std::mem::take(&mut reading.delegated);
    let grants = delegated::grants(&mut maps, &shapes, &mut reading);
    let mut tree = unite(parts, &shapes, &mut reading.diagnostics);
    let mut document = tree.as_mut().and_then(|tree| {
        // An override may name what a short form leaves out, and be one.
        shorthand::expand(tree, &shapes);
        // What is to be overridden may stand in a file that could not be read.
        let overridden = overrides::apply(tree, whole, &mut reading.diagnostics);
        shorthand::expand(tree, &shapes);
        substitute::apply(tree, &mut reading);
        let document = sound(tree, &shapes, &mut reading, whole);
        // Else what stands in the tree is not what was meant.
        document.filter(|_| overridden)
    });
    let tree = tree.filter(|_| trees == Trees::Keep);
    let Reading { mut sources, mut diagnostics, .. } = reading;
    let mut delegated = Vec::new();
    for grant in grants {
        let mut tenant = Delegated::new(grant, &sources);
        let part = tenant.read((chosen, inputs), &shapes, &mut sources, &mut diagnostics);
        tenant.tree = tenant.tree.filter(|_| trees == Trees::Keep);
        if let Some((document, part)) = document.as_mut().zip(part) {
            absorb(document, &tenant.grant.tenant, part);
        }
        delegated.push(Arc::new(tenant));
    }
    if let Some(document) = &mut document {
        document.delegated = delegated.clone();
    }
    Loaded { document, tree, is_whole: whole, delegated, sources, diagnostics }
}

/// The document of what is sound in a tree.
pub(super) fn sound(
    tree: &Node,
    shapes: &Shapes,
    reading: &mut Reading<'_>,
    whole: bool,
) -> Option<Document> {
    validate(tree, shapes, reading);
    match reading.diagnostics.has_errors() {
        false => document(tree, &mut reading.diagnostics),
        true => sound_part(tree, shapes, &reading.diagnostics, whole),
    }
}

/// Whether every file could be read: a key that stands twice costs no definition but its own.
pub(super) fn is_whole(diagnostics: &Diagnostics) -> bool {
    diagnostics.iter().all(|problem| problem.code == Code::DuplicateKey || !problem.is_error())
}

fn document(tree: &Node, diagnostics: &mut Diagnostics) -> Option<Document> {
    let decoded = decode(tree).map_err(|error| {
        diagnostics.push(Diagnostic::error(Code::BadValue, error.span.unwrap_or(tree.span), error.message));
    });
    decoded.ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{config::print, diagnostic, value::FilePath};

    const NO_VARIABLES: [(&str, &str); 0] = [];

    fn codes(loaded: &Loaded) -> Vec<Code> {
        loaded.diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
    }

    fn load_one(content: impl Into<Vec<u8>>) -> Loaded {
        load(Path::new("portolan.yaml"), &Inputs::memory([("portolan.yaml", content)], NO_VARIABLES))
    }

    #[test]
    fn a_missing_root_is_a_problem_without_a_place() {
        let loaded = load(Path::new("none.yaml"), &Inputs::memory([("a", "")], NO_VARIABLES));
        assert_eq!(codes(&loaded), [Code::UnreadableFile]);
        let text = diagnostic::text(&loaded.diagnostics, &loaded.sources, diagnostic::Style::Plain);
        assert!(text.contains("none.yaml cannot be read: no such file"), "{text}");
        assert!(loaded.document.is_none() && loaded.tree.is_none());
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert_eq!(codes(&load_one(b"log: {}\n# \xff".to_vec())), [Code::NotUtf8]);
        assert_eq!(codes(&load_one(b"\xff\xfea\0".to_vec())), [Code::NotUtf8]);
        let size = usize::try_from(Inputs::LARGEST).unwrap() + 1;
        assert_eq!(codes(&load_one(vec![b'#'; size])), [Code::TooLarge]);
        assert_eq!(codes(&load_one("\u{feff}log: {}\n")), []);
    }

    #[test]
    fn what_is_written_arrives_with_its_place() {
        let text = "listeners:\n  web: { bind: \":80\" }\nhosts:\n  www:\n    names: [a.example]\n    routes:\n      \
                    r: { path: \"/a\", headers: { X-Beta: 1 }, respond: { status: 404, file: b.html } }\n";
        let loaded = load_one(text);
        let document = loaded.document.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
        let bind = &document.listeners.find("web").unwrap().value.bind.0[0];
        assert_eq!(loaded.sources.written(bind.span), "\":80\"");
        let route = &document.hosts.0[0].value.routes.0[0];
        assert_eq!(loaded.sources.written(route.name.span), "r");
        assert_eq!(loaded.sources.written(route.value.headers.0[0].value.span), "1");
        let file = route.value.respond.as_ref().unwrap().file.as_ref().unwrap();
        assert_eq!(file.value, FilePath("b.html".into()));
    }

    #[test]
    fn secrets_are_printed_as_references_and_change_the_hash() {
        let with = |secret: &str| {
            let root =
                "admin: { bind: \"unix:/run/${file:s}\" }\nlog: { level: info }\nprocess: { threads: 2 }\n";
            let files = [("conf/p.yaml", root.to_owned()), ("conf/s", format!("{secret}\n"))];
            let inputs = Inputs::memory(files, NO_VARIABLES);
            (load(Path::new("conf/p.yaml"), &inputs), inputs.hash())
        };
        let ((one, hash), (_, other)) = (with("hush"), with("hush!"));
        assert_eq!(one.document.as_ref().unwrap().admin.as_ref().unwrap().bind.to_string(), "unix:/run/hush");
        let printed = print(one.tree.as_ref().unwrap());
        assert_eq!(
            printed,
            "admin:\n  bind: unix:/run/${file:s}\nlog:\n  level: info\nprocess:\n  threads: 2\n"
        );
        assert_eq!(hash.len(), 64);
        assert_ne!(hash, other);
        assert_eq!(hash, with("hush").1);
    }

    #[test]
    fn all_that_was_asked_for_is_watched() {
        let root = "include: [\"parts/*.yaml\", gone.yaml]\nadmin: { bind: \"${file:bind}\" }\n";
        let inputs = Inputs::memory([("conf/p.yaml", root), ("conf/parts/a.yaml", "log: {}")], NO_VARIABLES);
        load(Path::new("conf/p.yaml"), &inputs);
        let watched = inputs.watched();
        for path in ["conf/p.yaml", "conf/gone.yaml", "conf/bind", "conf/parts", "conf/parts/a.yaml"] {
            assert!(watched.contains(&path.into()), "{path} is not among {watched:?}");
        }
    }

    #[test]
    fn a_file_full_of_mistakes_is_answered_in_bounded_time() {
        let keys: String = (0..50_000).map(|key| format!("k{key}: {{ x: 1 }}\n")).collect();
        assert_eq!(load_one(keys.clone()).diagnostics.errors(), Diagnostics::MOST);
        let nested = keys.replace("\nk", "\n  k");
        assert_eq!(load_one(format!("upstreams:\n  {nested}")).diagnostics.errors(), Diagnostics::MOST);
    }

    #[test]
    fn yaml_and_toml_say_the_same() {
        let yaml = load_one(
            "drain_timeout: 5s\nprocess: { threads: 2 }\nupstreams: { a: { endpoints: [\"1.1.1.1:1\"] } }\n",
        );
        let toml =
            "drain_timeout = \"5s\"\nprocess.threads = 2\n[upstreams.a]\nendpoints = [\"1.1.1.1:1\"]\n";
        let toml = load(Path::new("p.toml"), &Inputs::memory([("p.toml", toml)], NO_VARIABLES));
        assert_eq!(format!("{:?}", yaml.document.unwrap()), format!("{:?}", toml.document.unwrap()));
    }

    /// Words that fit somewhere, so that trees often pass.
    fn words() -> impl Strategy<Value = String> {
        let words = [
            "30s",
            "64KiB",
            "\":80\"",
            "\"127.0.0.1:80\"",
            "a",
            "info",
            "json",
            "true",
            "false",
            "7",
            "404",
            "1.3",
            "h1",
            "GET",
            "\"/a/{id}\"",
            "null",
            "",
            "{}",
            "[]",
            "X-A",
            "round_robin",
            "10.0.0.0/8",
            "{ regex: a }",
            "[a]",
            "{ recover: {} }",
            "[{ request_id: }]",
            "50%",
            "https",
            "require",
            "{ present: true }",
            "{ hash: host }",
        ];
        prop::sample::select(words.to_vec()).prop_map(str::to_owned)
    }

    /// A value that the schema allows, or nearly.
    fn value(schema: serde_json::Value, root: serde_json::Value, depth: u32) -> BoxedStrategy<String> {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
            return value(root["$defs"][name].clone(), root, depth);
        }
        for several in ["anyOf", "oneOf"] {
            if let Some(branches) = schema[several].as_array().filter(|_| depth > 0) {
                let branches = branches.iter().map(|branch| value(branch.clone(), root.clone(), depth - 1));
                return prop::strategy::Union::new(branches).boxed();
            }
        }
        let example = schema["examples"].as_array().and_then(|examples| examples.first()).cloned();
        let word = schema.get("const").cloned().or_else(|| schema["enum"].get(0).cloned()).or(example);
        if let Some(word) = word {
            return prop_oneof![9 => Just(word.to_string()), 1 => words()].boxed();
        }
        let items = schema.get("items").cloned();
        if let Some(items) = items.filter(|_| depth > 0) {
            let items = prop::collection::vec(value(items, root, depth - 1), 0..3);
            return items.prop_map(|items| format!("[{}]", items.join(", "))).boxed();
        }
        if let Some(properties) = schema["properties"].as_object().filter(|_| depth > 0) {
            let required = schema["required"].clone();
            let entries: Vec<_> = properties
                .iter()
                .map(|(key, part)| {
                    let needed =
                        required.as_array().is_some_and(|r| r.iter().any(|name| name == key.as_str()));
                    let part = value(part.clone(), root.clone(), depth - 1);
                    let key = key.clone();
                    let entry = part.prop_map(move |value| format!("{key}: {value}"));
                    prop::option::weighted(if needed { 0.99 } else { 0.2 }, entry)
                })
                .collect();
            return entries
                .prop_map(|entries| {
                    format!("{{ {} }}", entries.into_iter().flatten().collect::<Vec<_>>().join(", "))
                })
                .boxed();
        }
        let additional =
            schema.get("additionalProperties").filter(|part| part.is_object() && depth > 0).cloned();
        if let Some(part) = additional {
            return value(part, root, depth - 1).prop_map(|value| format!("{{ a: {value} }}")).boxed();
        }
        words().boxed()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn a_tree_that_passed_can_be_decoded(section in any::<prop::sample::Index>(), seed in any::<u64>()) {
            use proptest::{strategy::ValueTree, test_runner::{TestRng, RngAlgorithm, TestRunner}};
            let schema = schema::strict();
            let sections: Vec<_> = schema["properties"].as_object().unwrap().iter().collect();
            let (key, part) = sections[section.index(sections.len())];
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&seed.to_be_bytes());
            let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
            let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
            let written = value(part.clone(), schema.clone(), 9).new_tree(&mut runner).unwrap().current();
            let text = format!("{key}: {written}\n");
            let loaded = load_one(text.clone());
            let complaint = loaded.diagnostics.has_errors();
            // Of a tree that did not pass, what is sound can be.
            let is_meant = loaded.tree.is_some() && key.as_str() != "override";
            prop_assert!(!is_meant || loaded.document.is_some(), "{text}\n{:?}", loaded.diagnostics);
            // A decode error is no validation error: its message is serde's.
            let tree = loaded.tree.filter(|_| complaint);
            if let Some(tree) = tree {
                let inputs = Inputs::memory([("", "")], NO_VARIABLES);
                let mut reading = Reading::new(&inputs);
                reading.sources = loaded.sources;
                validate(&tree, &Shapes::of(&schema), &mut reading);
                let before = matches!(key.as_str(), "include" | "override");
                prop_assert!(reading.diagnostics.has_errors() || before, "{text}\n{:?}", loaded.diagnostics);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), toml: bool) {
            let name = if toml { "p.toml" } else { "p.yaml" };
            load(Path::new(name), &Inputs::memory([(name, bytes)], NO_VARIABLES));
        }
    }
}
