//! The cases under tests/cases/compile: a configuration and everything that is said about it, its tests
//! included.

use super::{Registries, compile, run};
use crate::{
    config::{
        Inputs, cases, load,
        tree::{Kind, Node},
    },
    diagnostic::{Code, Diagnostics, Sources, Style, text},
    snapshot::Snapshot,
    value::{FileId, Span},
};

const DIRECTORY: &str = "tests/cases/compile";

/// What has no case: what only a running process can find, and what needs keys.
const ELSEWHERE: [Code; 3] = [Code::BindFailed, Code::RestartNeeded, Code::CertificateMismatch];

/// Compiles a tree of these files, the first of which is the root.
pub(super) fn compile_files(
    root: &std::path::Path,
    inputs: &Inputs,
) -> (Option<Snapshot>, Diagnostics, Sources) {
    let loaded = load(root, inputs);
    let Some(document) = &loaded.document else { return (None, loaded.diagnostics, loaded.sources) };
    let (snapshot, compiled) = compile(document, &loaded.sources, inputs, &Registries::default());
    let mut diagnostics = loaded.diagnostics;
    diagnostics.extend(compiled);
    (snapshot, diagnostics, loaded.sources)
}

/// Compiles a text that there is nothing to say about.
pub(super) fn sound(input: &str) -> Snapshot {
    let (root, inputs) = cases::world(input.trim_start_matches('\n'));
    let (snapshot, diagnostics, sources) = compile_files(&root, &inputs);
    snapshot.unwrap_or_else(|| panic!("{}", text(&diagnostics, &sources, Style::Plain)))
}

fn said(input: &str) -> String {
    let (root, inputs) = cases::world(input);
    let (snapshot, mut diagnostics, sources) = compile_files(&root, &inputs);
    let failures = snapshot.iter().flat_map(run).flat_map(|outcome| outcome.failures);
    failures.for_each(|failure| diagnostics.push(failure));
    match diagnostics.is_empty() {
        true => "nothing\n".to_owned(),
        false => text(&diagnostics, &sources, Style::Plain),
    }
}

#[test]
fn every_case_says_what_it_said() {
    cases::check(DIRECTORY, said);
}

#[test]
fn every_code_of_meaning_has_a_case() {
    let all: String = cases::cases(DIRECTORY).into_iter().map(|(_, case)| case).collect();
    let meaning = Code::ALL.iter().skip_while(|code| **code != Code::UnknownName);
    for code in meaning.filter(|code| !ELSEWHERE.contains(code)) {
        assert!(all.contains(&format!("[{}]", code.as_str())), "no case shows {}", code.as_str());
    }
}

/// Settings that any text will do for.
const FREE: [(&str, &str); 3] = [("jwt", "issuer"), ("jwt", "audience"), ("jwt", "require")];

#[test]
fn every_setting_of_every_middleware_is_wrong_in_some_case() {
    let schema = crate::config::schema::strict();
    let cases: Vec<_> = cases::cases(DIRECTORY);
    let wrong: Vec<_> = cases.iter().flat_map(|(_, case)| up_to_errors(case)).collect();
    let mut lacking = Vec::new();
    for kind in schema["$defs"]["Middleware"]["oneOf"].as_array().unwrap() {
        let (kind, config) = kind["properties"].as_object().unwrap().iter().next().unwrap();
        let config = config["$ref"].as_str().unwrap().trim_start_matches("#/$defs/");
        let opened: Vec<_> =
            wrong.iter().filter_map(|text| Some(text.rsplit_once(&format!("{kind}: "))?.1)).collect();
        if opened.is_empty() {
            lacking.push(kind.clone());
        }
        for (name, setting) in schema["$defs"][config]["properties"].as_object().into_iter().flatten() {
            let is_switch =
                setting["type"].to_string().contains("boolean") || setting["$ref"] == "#/$defs/Mode";
            let is_free = is_switch || FREE.contains(&(kind.as_str(), name.as_str()));
            if !is_free && !opened.iter().any(|text| setting_in(text) == Some(name.as_str())) {
                lacking.push(format!("{kind}.{name}"));
            }
        }
    }
    assert!(lacking.is_empty(), "no case has an error in {lacking:#?}");
}

/// Each line of a case's root file that has an error, up to the word that is wrong.
fn up_to_errors(case: &str) -> Vec<String> {
    let (input, said) = case.rsplit_once("\n---\n").unwrap();
    let input = input.split_once("=== portolan.yaml\n").map_or(input, |(_, root)| root);
    let lines: Vec<&str> = input.lines().collect();
    let places = said.lines().filter_map(|line| line.trim_start().strip_prefix("--> portolan.yaml:"));
    places
        .map(|place| {
            let (line, column) = place.split_once(':').unwrap();
            let line = lines[line.parse::<usize>().unwrap() - 1];
            let column = column.parse::<usize>().unwrap() - 1;
            let word = line.chars().skip(column).take_while(|c| !" ,]}".contains(*c));
            line.chars().take(column).chain(word).collect()
        })
        .collect()
}

/// The setting that the text is in, of one that begins with a kind's map: `{ setting: [a, b`.
fn setting_in(text: &str) -> Option<&str> {
    let (mut depth, mut setting) = (0, None);
    for (at, c) in text.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' if depth == 1 => return None,
            '}' | ']' => depth -= 1,
            ':' if depth == 1 && text[at..].starts_with(": ") => {
                setting = text[..at].rsplit([' ', '{']).next()
            }
            _ => {}
        }
    }
    setting
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let signed = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (one, other) = (signed("a.test"), signed("b.test"));
    let root = "\
certificates: { a: { cert: a.pem, key: b.key } }
listeners: { web: { bind: \":443\", tls: { certificates: [a] } } }
hosts: { a: { names: [\"*\"], routes: { all: { path: \"/**\", respond: {} } } } }
";
    let key = |pair: &rcgen::CertifiedKey<rcgen::KeyPair>| pair.signing_key.serialize_pem();
    for (private, expected) in [(key(&one), None), (key(&other), Some(Code::CertificateMismatch))] {
        let files = [("p.yaml", root.to_owned()), ("a.pem", one.cert.pem()), ("b.key", private)];
        let inputs = Inputs::memory(files, [("", "")]);
        let (_, diagnostics, _) = compile_files("p.yaml".as_ref(), &inputs);
        assert_eq!(diagnostics.iter().map(|problem| problem.code).next(), expected);
    }
}

/// Each key and each value of sound trees made wrong in its turn: what is said then is that, and nothing that follows.
#[test]
fn nothing_follows_from_a_single_mistake() {
    let registries = Registries::default();
    let mut mistakes = 0;
    for (path, case) in cases::cases(DIRECTORY) {
        let Some(input) = case.strip_suffix("\n---\nnothing\n") else { continue };
        let (root, inputs) = cases::world(input);
        let loaded = load(&root, &inputs);
        let text = loaded.sources.get(FileId(0)).expect("the root was read").text.clone();
        let mut places = Vec::new();
        own_places(loaded.tree.as_ref().expect("it is sound"), &mut places);
        for (span, wrong) in places {
            let (before, rest) = text.split_at(span.start as usize);
            let (word, after) = rest.split_at((span.end - span.start) as usize);
            let planted = [before, &wrong.replace("{}", word), after].concat();
            let Some(followed) = followed(&input.replacen(text.trim(), planted.trim(), 1), &registries)
            else {
                continue;
            };
            mistakes += 1;
            assert!(followed.is_empty(), "{}, with {wrong:?} for {word:?}:\n{followed}", path.display());
        }
    }
    assert!(mistakes > 400, "only {mistakes} were made");
}

/// What compiling adds to what loading says. `None` where that says nothing: a name that people choose may be another.
fn followed(input: &str, registries: &Registries) -> Option<String> {
    let (root, inputs) = cases::world(input);
    let loaded = load(&root, &inputs);
    let document = loaded.document.filter(|_| loaded.diagnostics.has_errors())?;
    let (_, followed) = compile(&document, &loaded.sources, &inputs, registries);
    Some(text(&followed, &loaded.sources, Style::Plain))
}

/// The keys and values of the root file, each with what makes it wrong.
fn own_places(node: &Node, places: &mut Vec<(Span, &'static str)>) {
    let own = |span: Span| span.file == FileId(0) && span.start < span.end;
    match &node.kind {
        Kind::Null => {}
        Kind::Scalar(_) if own(node.span) => places.push((node.span, "[[]]")),
        Kind::Scalar(_) => {}
        Kind::List(items) => items.iter().for_each(|item| own_places(item, places)),
        Kind::Map(entries) => {
            for (key, value) in entries {
                if own(key.span) {
                    places.extend([(key.span, "wrong"), (key.span, "also: wrong, {}")]);
                }
                own_places(value, places);
            }
        }
    }
}
