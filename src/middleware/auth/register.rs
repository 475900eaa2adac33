//! Who may come in: `NAME:HASH` lines of a file, and the same in the configuration.

use crate::{
    diagnostic::{Code, Diagnostic},
    middleware::Context,
    value::{FilePath, Map, Span, Spanned},
};

/// A name with its hash, and where they stand.
pub struct Line {
    pub name: String,
    pub hash: String,
    place: Place,
}

enum Place {
    /// A line of the file that is named there.
    File {
        named: Span,
        line: String,
    },
    Inline(Span),
}

/// Every line of the file and of the map. Empty lines of a file, and those that start with "#", say nothing.
pub fn lines(
    file: Option<&Spanned<FilePath>>,
    inline: &Map<String, Spanned<String>>,
    cx: &mut Context<'_>,
) -> Vec<Line> {
    let mut all = Vec::new();
    if let Some(file) = file {
        let text = cx.world.files.text(file).unwrap_or_default();
        let shown = file.0.display();
        for (line, number) in text.lines().zip(1..) {
            let place = Place::File { named: file.span, line: format!("{shown}:{number}") };
            match split(line.trim_ascii()) {
                Ok(None) => {}
                Ok(Some((name, hash))) => all.push(Line { name: name.into(), hash: hash.into(), place }),
                Err(reason) => place.report(reason, None, cx),
            }
        }
    }
    all.extend(inline.iter().map(|entry| Line {
        name: entry.name.value.clone(),
        hash: entry.value.value.clone(),
        place: Place::Inline(entry.name.span),
    }));
    all
}

fn split(line: &str) -> Result<Option<(&str, &str)>, &'static str> {
    match line.split_once(':') {
        _ if line.is_empty() || line.starts_with('#') => Ok(None),
        Some((name, hash)) if !name.is_empty() => Ok(Some((name, hash))),
        _ => Err("the line is not NAME:HASH"),
    }
}

impl Line {
    /// Reports what is wrong with it. The hash itself is not for messages.
    pub fn report(&self, message: &str, help: &str, cx: &mut Context<'_>) {
        self.place.report(message, Some(help), cx);
    }
}

impl Place {
    fn report(&self, message: &str, help: Option<&str>, cx: &mut Context<'_>) {
        let problem = match self {
            Self::File { named, line } => {
                Diagnostic::error(Code::BadValue, *named, format!("{line}: {message}"))
            }
            Self::Inline(span) => Diagnostic::error(Code::BadValue, *span, message),
        };
        cx.diagnostics.push(problem.maybe_help(help));
    }
}
