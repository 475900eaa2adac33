//! The cases under tests/cases/compile: a configuration and everything that is said about it, its tests
//! included.

use super::{Registries, compile, run};
use crate::{
    config::{Inputs, cases, load},
    diagnostic::{Code, Diagnostics, Sources, Style, text},
    snapshot::Snapshot,
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
