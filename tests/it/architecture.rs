//! The walls of the house: which part may import which, and how long a file may be.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Every arrow that is allowed: a part, and those that it may import beside itself. Lowest layer first; nothing
/// points up, nothing points sideways.
const ARROWS: &[(&str, &str)] = &[
    // L0: words and rules, no I/O
    ("value", ""),
    ("http", "value"),
    ("diagnostic", "value"),
    ("error", "http value"),
    ("wire", "error http value"),
    // L1a
    ("telemetry", "error http value"),
    ("tls", "diagnostic error http value"),
    // L1b
    ("matcher", "diagnostic http tls value"),
    ("upstream", "diagnostic error http telemetry tls value wire"),
    ("trace", "http telemetry upstream value"),
    ("store", "telemetry value"),
    // L1c
    ("middleware", "diagnostic error http matcher store telemetry tls trace upstream value"),
    // L1d
    ("action", "diagnostic error http matcher middleware telemetry tls upstream value"),
    // L1e
    ("routing", "action diagnostic error http matcher middleware telemetry tls upstream value"),
    // L2
    ("config", "action diagnostic http matcher middleware store telemetry tls trace upstream value"),
    // L3
    ("snapshot", "action config error http matcher middleware routing telemetry tls trace upstream value"),
    (
        "compile",
        "action config diagnostic error http matcher middleware routing snapshot store telemetry tls trace \
         upstream value",
    ),
    // L4
    (
        "proxy",
        "action error http matcher middleware routing snapshot telemetry tls trace upstream value wire",
    ),
    // L5
    ("listen", "config error http proxy snapshot telemetry tls value wire"),
    ("admin", "diagnostic http snapshot telemetry upstream value wire"),
    // L6
    (
        "server",
        "action admin compile config diagnostic error http listen middleware proxy routing snapshot telemetry tls upstream \
         value",
    ),
    ("cli", "admin compile config diagnostic http middleware routing server snapshot telemetry value"),
];

/// Arrows of single files that point elsewhere, and why that does no harm.
const EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "snapshot/mod.rs",
    "compile",
    "the tests of a configuration travel with it: their form is the compiler's own",
)];

/// Lines that a file may have before its tests.
const LONGEST: usize = 500;

/// Files that may be longer, and why.
const LONGER: &[(&str, &str)] = &[];

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for file in sources() {
        let part = part_of(&file);
        if ["main", "lib"].contains(&part.as_str()) {
            continue;
        }
        let allowed = ARROWS.iter().find(|(name, _)| *name == part).map(|(_, allowed)| *allowed);
        let allowed = allowed.unwrap_or_else(|| panic!("{part} has no line in ARROWS"));
        let excused =
            |import: &str| EXCEPTIONS.iter().any(|(name, to, _)| file.ends_with(name) && *to == import);
        let text = fs::read_to_string(&file).unwrap();
        for import in imports(before_tests(&text)) {
            if import != part && !allowed.split(' ').any(|name| name == import) && !excused(&import) {
                wrong.push(format!("{}: {part} imports {import}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that are not allowed:\n{}", wrong.join("\n"));
}

#[test]
fn every_arrow_points_to_a_part_above_in_the_table() {
    for (at, (part, allowed)) in ARROWS.iter().enumerate() {
        for target in allowed.split_whitespace() {
            let below = ARROWS[..at].iter().any(|(name, _)| *name == target);
            assert!(below, "{part} may import {target}, which stands below it");
        }
    }
}

#[test]
fn files_are_short() {
    let too_long = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        let length = before_tests(&text).lines().count();
        let excused = LONGER.iter().any(|(name, _)| file.ends_with(name));
        (length > LONGEST && !excused).then(|| format!("{length} {}", file.display()))
    };
    let found: Vec<String> = sources().iter().filter_map(too_long).collect();
    assert!(found.is_empty(), "files of more than {LONGEST} lines before their tests:\n{}", found.join("\n"));
}

#[test]
fn imports_are_read_from_every_form() {
    let text = "use crate::value::Name;\nuse crate::{\n    http::{self, path},\n    tls,\n};\nfn x() -> crate::error::Error {}\n// crate::cli";
    let expected = ["error", "http", "tls", "value"].map(String::from);
    assert_eq!(imports(text).into_iter().collect::<Vec<_>>(), expected);
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![source()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false if path.extension().is_some_and(|ending| ending == "rs") => files.push(path),
                false => {}
            }
        }
    }
    files.sort();
    files
}

/// `value` for src/value/name.rs and for src/value.rs.
fn part_of(file: &Path) -> String {
    let inside = file.strip_prefix(source()).expect("it lies in src");
    let first = inside.components().next().expect("it has a name");
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn before_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().expect("split yields something")
}

/// The parts named by `crate::…`, wherever it stands: `use` lines, with braces or without, and paths in code.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = BTreeSet::new();
    for (at, word) in code.match_indices("crate::") {
        let standing_alone = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if !standing_alone {
            continue;
        }
        let rest = &code[at + word.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_members(group)),
            None => found.extend(first_word(rest)),
        }
    }
    found
}

/// The first word of each member of `a::b, c::{d, e}, f}`.
fn group_members(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut members = vec![String::new()];
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(String::new()),
            _ => {}
        }
        if let Some(member) = members.last_mut().filter(|_| depth == 0) {
            member.push(character);
        }
    }
    members.iter().filter_map(|member| first_word(member.trim_start_matches([',', ' ', '\n']))).collect()
}

/// Modules are lowercase; what is not names an item of the crate's root.
fn first_word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    word.starts_with(|c: char| c.is_ascii_lowercase()).then_some(word)
}
