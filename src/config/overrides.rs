//! `override`: dotted paths whose values take the place of what stands there.

use super::tree::{Key, Kind, Node};
use crate::diagnostic::{Code, Diagnostic, Diagnostics, closest};

/// Takes `override` out of the tree and does what it says. In a tree that is not whole, what is not there
/// is no one's fault. Says whether nothing was wrong.
pub fn apply(root: &mut Node, whole: bool, diagnostics: &mut Diagnostics) -> bool {
    let Kind::Map(sections) = &mut root.kind else { return true };
    let Some(at) = sections.iter().position(|(key, _)| &*key.text == "override") else { return true };
    let (_, overrides) = sections.remove(at);
    let errors = diagnostics.errors();
    match overrides.kind {
        Kind::Null => {}
        Kind::Map(entries) => {
            for (path, value) in entries {
                let replaced = replace(root, &path, value);
                if let Some(diagnostic) = replaced.err().filter(|_| whole) {
                    diagnostics.push(*diagnostic);
                }
            }
        }
        _ => {
            let message =
                format!("`override` is a map from dotted path to value, this is {}", overrides.what());
            diagnostics.push(Diagnostic::error(Code::WrongType, overrides.span, message));
        }
    }
    diagnostics.errors() == errors
}

fn replace(root: &mut Node, path: &Key, value: Node) -> Result<(), Box<Diagnostic>> {
    *find(root, &path.text).map_err(|missing| Box::new(no_target(path, &missing)))? = value;
    Ok(())
}

fn no_target(path: &Key, Missing { within, candidates }: &Missing) -> Diagnostic {
    let known = candidates.iter().map(|candidate| &**candidate);
    let rest = &path.text[within.len()..];
    let next = rest.split('.').next().unwrap_or(rest);
    let message = match within.trim_end_matches('.') {
        "" => format!("there is no `{next}` to override"),
        parent => format!("there is no `{next}` in `{parent}` to override"),
    };
    let near = closest(rest, known.clone()).or_else(|| closest(next, known));
    Diagnostic::error(Code::OverrideTarget, path.span, message).help(match near {
        Some(near) => format!("did you mean `{within}{near}`?"),
        None => "only what stands somewhere can be overridden".to_owned(),
    })
}

/// How far a path leads, and what there is from there on.
struct Missing {
    within: String,
    candidates: Vec<Box<str>>,
}

/// The node at a dotted path. Names may hold dots themselves: the longest key that fits goes first.
fn find<'a>(node: &'a mut Node, path: &str) -> Result<&'a mut Node, Missing> {
    let steps = steps(node, path).map_err(|(within, candidates)| Missing { within, candidates })?;
    Ok(steps.into_iter().fold(node, |node, step| match &mut node.kind {
        Kind::Map(entries) => &mut entries[step].1,
        _ => unreachable!("steps lead through maps"),
    }))
}

/// Which entry to take at each level.
fn steps(node: &Node, path: &str) -> Result<Vec<usize>, (String, Vec<Box<str>>)> {
    let entries = node.as_map().unwrap_or_default();
    let mut fitting: Vec<usize> = (0..entries.len()).filter(|at| leads(&entries[*at].0.text, path)).collect();
    fitting.sort_by_key(|at| std::cmp::Reverse(entries[*at].0.text.len()));
    let mut missing = None;
    for at in fitting {
        let (key, value) = &entries[at];
        let Some(rest) = path.get(key.text.len() + 1..) else { return Ok(vec![at]) };
        match steps(value, rest) {
            Ok(mut steps) => {
                steps.insert(0, at);
                return Ok(steps);
            }
            Err((within, candidates)) => {
                missing.get_or_insert((format!("{}.{within}", key.text), candidates));
            }
        }
    }
    Err(missing.unwrap_or_else(|| (String::new(), entries.iter().map(|(key, _)| key.text.clone()).collect())))
}

fn leads(key: &str, path: &str) -> bool {
    path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
