//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` in values, replaced after parsing, so that what comes in
//! cannot change the tree's shape. `$${` is a literal `${`.

use super::{
    include::Reading,
    tree::{Kind, Node},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    value::{FilePath, Span},
};

/// Replaces every reference in the node.
pub fn apply(node: &mut Node, reading: &mut Reading<'_>) {
    match &mut node.kind {
        Kind::Null => {}
        Kind::List(items) => items.iter_mut().for_each(|item| apply(item, reading)),
        Kind::Map(entries) => entries.iter_mut().for_each(|(_, value)| apply(value, reading)),
        Kind::Scalar(scalar) if !scalar.text.contains("${") => {}
        Kind::Scalar(scalar) => {
            let Some(replaced) = replaced(&scalar.text, node.span, reading) else {
                reading.unresolved.insert(node.span);
                return;
            };
            if replaced.secret {
                reading.sources.conceal(&replaced.text, &scalar.text);
                scalar.secret = Some(std::mem::take(&mut scalar.text));
            }
            scalar.text = replaced.text.into();
        }
    }
}

struct Replaced {
    text: String,
    secret: bool,
}

/// The text with its references replaced; none where one is wrong, which is reported.
fn replaced(text: &str, span: Span, reading: &mut Reading<'_>) -> Option<Replaced> {
    let mut done = Replaced { text: String::with_capacity(text.len()), secret: false };
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            done.text.push_str(before);
            done.text.push_str("${");
            rest = &reference[2..];
            continue;
        }
        done.text.push_str(before);
        let Some(end) = reference.find('}') else {
            let diagnostic = Diagnostic::error(Code::BadSubstitution, span, "`${` is not closed by `}`");
            reading.diagnostics.push(diagnostic.help("a literal `${` is written `$${`"));
            return None;
        };
        match reference[2..end].strip_prefix("file:") {
            Some(path) => {
                done.text.push_str(&file(path, span, reading)?);
                done.secret = true;
            }
            None => done.text.push_str(&variable(&reference[2..end], span, reading)?),
        }
        rest = &reference[end + 1..];
    }
    done.text.push_str(rest);
    Some(done)
}

fn variable(reference: &str, span: Span, reading: &mut Reading<'_>) -> Option<String> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    if !is_variable(name) {
        let message = format!("`${{{reference}}}` is no reference");
        let help = "${NAME}, ${NAME:-default} and ${file:PATH} are; a literal `${` is written `$${`";
        reading.diagnostics.push(Diagnostic::error(Code::BadSubstitution, span, message).help(help));
        return None;
    }
    if reading.roots.is_some() {
        let message = "a delegated file cannot use the environment";
        let help = "${file:PATH} reads a file under the include's roots";
        let reason = "it holds what the operator knows";
        reading
            .diagnostics
            .push(Diagnostic::error(Code::NotDelegated, span, message).reason(reason).help(help));
        return None;
    }
    let value = reading.inputs.env(name).or_else(|| default.map(str::to_owned));
    if value.is_none() {
        let message = format!("the variable {name} is not set");
        let help = format!("set it, or give a default: ${{{name}:-…}}");
        reading.diagnostics.push(Diagnostic::error(Code::UnsetVariable, span, message).help(help));
    }
    value
}

fn file(path: &str, span: Span, reading: &mut Reading<'_>) -> Option<String> {
    if path.is_empty() {
        let diagnostic = Diagnostic::error(Code::BadSubstitution, span, "a path follows `${file:`");
        reading.diagnostics.push(diagnostic);
        return None;
    }
    let path = reading.sources.resolve(span.file, &FilePath(path.into()));
    let text = reading.named(&path, span)?;
    Some(text.trim().to_owned())
}

fn is_variable(name: &str) -> bool {
    let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    word && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}
