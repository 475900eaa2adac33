//! The cases under tests/cases: a configuration, a line of three hyphens, what is said about it.
//! `=== NAME` starts a file (the first is the root), `=== environment` lines of NAME=value.

use std::{fs, path::PathBuf};

use super::{Inputs, Loaded, load};
use crate::diagnostic::{Code, Style, text};

const DIRECTORY: &str = "tests/cases/config";
const SEPARATOR: &str = "\n---\n";

/// The root and the world of a case.
pub(crate) fn world(input: &str) -> (PathBuf, Inputs) {
    let input =
        if input.starts_with("=== ") { input.to_owned() } else { format!("=== portolan.yaml\n{input}\n") };
    let mut files = Vec::new();
    let mut environment = Vec::new();
    let input = format!("\n{input}\n");
    for part in input.split("\n=== ").skip(1) {
        let (name, content) = part.split_once('\n').unwrap_or((part, ""));
        match name {
            "environment" => environment.extend(content.lines().filter_map(|line| line.split_once('='))),
            name => files.push((name.to_owned(), content.to_owned())),
        }
    }
    let root = PathBuf::from(&files[0].0);
    (root, Inputs::memory(files, environment))
}

/// Compares what is said about each case of a directory with what it ends with, or writes that there.
pub(crate) fn check(directory: &str, said: impl Fn(&str) -> String) {
    let mut wrong = Vec::new();
    for (path, case) in cases(directory) {
        let (input, expected) = case.rsplit_once(SEPARATOR).unwrap_or((case.trim_end(), ""));
        let said = said(input);
        if std::env::var_os("PORTOLAN_UPDATE").is_some() {
            fs::write(&path, format!("{input}{SEPARATOR}{said}")).unwrap();
        } else if said != expected {
            wrong.push(format!("{}:\n{said}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "not as expected (PORTOLAN_UPDATE=1 rewrites):\n{}", wrong.join("\n"));
}

/// All cases of a directory.
pub(crate) fn cases(directory: &str) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(directory).expect("the cases are there");
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn load_case(input: &str) -> Loaded {
    let (root, inputs) = world(input);
    load(&root, &inputs)
}

fn said(loaded: &Loaded) -> String {
    match loaded.diagnostics.is_empty() {
        true => "nothing\n".to_owned(),
        false => text(&loaded.diagnostics, &loaded.sources, Style::Plain),
    }
}

#[test]
fn every_case_says_what_it_said() {
    check(DIRECTORY, |input| said(&load_case(input)));
}

#[test]
fn every_code_of_reading_has_a_case() {
    let all: String = cases(DIRECTORY).into_iter().map(|(_, case)| case).collect();
    // These have tests of their own: their files are no texts to look at.
    let elsewhere = [Code::NotUtf8, Code::TooLarge, Code::TooManyNodes, Code::TooDeep];
    let reading = Code::ALL.iter().take_while(|code| **code != Code::UnknownName);
    for code in reading.filter(|code| !elsewhere.contains(code)) {
        assert!(all.contains(&format!("[{}]", code.as_str())), "no case shows {}", code.as_str());
    }
}

#[test]
fn the_language_by_example_is_known_word_by_word() {
    let case = fs::read_to_string(format!("{DIRECTORY}/example.yaml")).unwrap();
    let (input, _) = case.rsplit_once(SEPARATOR).unwrap();
    let known = [Code::NotSupportedYet, Code::UnreadableFile, Code::UnsetVariable];
    for diagnostic in load_case(input).diagnostics.iter() {
        assert!(known.contains(&diagnostic.code), "{diagnostic:?}");
    }
}
