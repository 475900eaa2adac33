//! The texts that spans point into.

use std::{borrow::Cow, fmt, path::PathBuf, sync::Arc};

use crate::value::{FileId, FilePath, Span};

/// Every file of a tree, by [`FileId`].
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
    secrets: Vec<Secret>,
}

/// A text never shown, and the reference that is shown for it.
#[derive(Clone)]
struct Secret {
    text: Box<str>,
    reference: Box<str>,
}

#[derive(Clone, Debug)]
pub struct Source {
    /// As shown to people: relative to where the command runs where that is shorter.
    pub path: PathBuf,
    pub text: Arc<str>,
    /// The byte at which each line starts.
    lines: Vec<u32>,
}

/// A place as editors count: from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Sources {
    pub fn add(&mut self, path: PathBuf, text: Arc<str>) -> FileId {
        let lines = std::iter::once(0)
            .chain(text.bytes().zip(1u32..).filter(|(b, _)| *b == b'\n').map(|(_, at)| at))
            .collect();
        let file = self.next();
        self.files.push(Source { path, text, lines });
        file
    }

    /// The file that is added next.
    pub fn next(&self) -> FileId {
        FileId(u32::try_from(self.files.len()).expect("fewer files than u32 counts"))
    }

    pub fn get(&self, file: FileId) -> Option<&Source> {
        self.files.get(file.0 as usize)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Source> {
        self.files.iter()
    }

    /// A path written in a file, relative to that file.
    pub fn resolve(&self, file: FileId, path: &FilePath) -> PathBuf {
        let directory = self.get(file).and_then(|source| source.path.parent());
        directory.map_or_else(|| path.0.clone(), |directory| directory.join(&path.0))
    }

    /// The words at a span.
    pub fn written(&self, span: Span) -> &str {
        let text = self.get(span.file).map_or("", |source| &source.text);
        text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// Remembers a text that came from a file of secrets, for [`Sources::redact`].
    pub fn conceal(&mut self, text: &str, reference: &str) {
        // A shorter text is no secret, and would be found everywhere.
        if text.len() > 3 {
            self.secrets.push(Secret { text: text.into(), reference: reference.into() });
        }
    }

    /// The message with every secret replaced by its reference.
    pub fn redact<'a>(&self, message: &'a str) -> Cow<'a, str> {
        let mut message = Cow::Borrowed(message);
        for Secret { text, reference } in &self.secrets {
            let escaped = text.escape_debug().to_string();
            for form in [&**text, &*escaped] {
                if message.contains(form) {
                    message = Cow::Owned(message.replace(form, reference));
                }
            }
        }
        message
    }

    /// `conf.d/upstreams.yaml:3`, the short way to name a definition's place.
    pub fn place(&self, span: Span) -> String {
        match self.get(span.file) {
            Some(source) => format!("{}:{}", source.path.display(), source.position(span.start).line),
            None => "?".into(),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reference)
    }
}

impl Source {
    pub fn position(&self, at: u32) -> Position {
        let line = self.lines.partition_point(|start| *start <= at).max(1);
        let start = self.lines[line - 1] as usize;
        let before = self.text.get(start..(at as usize).min(self.text.len())).unwrap_or_default();
        Position { line, column: before.chars().count() + 1 }
    }

    /// The byte range of a line, counted from 1, without its line break.
    pub fn line(&self, number: usize) -> std::ops::Range<usize> {
        let start = self.lines.get(number - 1).map_or(self.text.len(), |at| *at as usize);
        let end = self.lines.get(number).map_or(self.text.len(), |at| *at as usize - 1);
        start..end.max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_as_editors_do() {
        let mut sources = Sources::default();
        let file = sources.add("conf/a.yaml".into(), "a: ä\nbc: d\n".into());
        let source = sources.get(file).unwrap();
        assert_eq!(source.position(5), Position { line: 1, column: 5 });
        assert_eq!(source.position(6), Position { line: 2, column: 1 });
        assert_eq!(&source.text[source.line(2)], "bc: d");
        let path = sources.resolve(file, &FilePath("../x".into()));
        assert_eq!(path, PathBuf::from("conf/../x"));
        assert_eq!(sources.resolve(file, &FilePath("/x".into())), PathBuf::from("/x"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut sources = Sources::default();
        sources.conceal("hush\"hush", "${file:s}");
        assert_eq!(sources.redact("got hush\"hush"), "got ${file:s}");
        assert_eq!(sources.redact(&format!("got {:?}", "hush\"hush")), "got \"${file:s}\"");
        assert!(!format!("{sources:?}").contains("hush"));
    }
}
