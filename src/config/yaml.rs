//! YAML 1.2 as a tree: anchors, aliases and merge keys written out, keys once, depth and size bounded.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};

use super::{
    braces,
    parse::{Budget, DEEPEST, depth, start, too_deep, too_many},
    tree::{Key, Kind, Node, Style},
};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    value::{FileId, Span},
};

/// The tree of a YAML text; none where it is empty or its errors leave none.
pub fn parse(file: FileId, text: &str, budget: &mut Budget, diagnostics: &mut Diagnostics) -> Option<Node> {
    let base = start(text);
    let text = &text[base..];
    let offsets = Offsets::new(text, base);
    let mut builder = Builder {
        file,
        offsets,
        budget,
        diagnostics,
        open: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        documents: 0,
    };
    let mut parser = Parser::new_from_str(text);
    match builder.run(&mut parser) {
        Ok(()) => builder.root.filter(|root| !root.is_null()),
        Err(diagnostic) => {
            diagnostics.push(*diagnostic);
            None
        }
    }
}

type Stop = Box<Diagnostic>;

/// Turns the parser's events into nodes.
struct Builder<'a> {
    file: FileId,
    offsets: Offsets<'a>,
    budget: &'a mut Budget,
    diagnostics: &'a mut Diagnostics,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
}

/// A list or map whose end is yet to come.
struct Open {
    start: usize,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key>, merges: Vec<Node> },
}

// === impl Builder ===

impl<'a> Builder<'a> {
    fn run(&mut self, parser: &mut Parser<'a, StrInput<'a>>) -> Result<(), Stop> {
        while let Some(event) = parser.next_event() {
            let (event, place) = event.map_err(|error| self.syntax(&error))?;
            let mut span = self.span(place);
            if let Event::Scalar(..) = event {
                // The parser counts the blanks after a quoted text to it.
                span.end = span.start + small(self.offsets.written(span).trim_end().len());
            }
            self.event(event, span)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(_) => self.document(span),
            Event::Scalar(text, style, anchor, tag) => {
                self.untagged(tag.is_some(), span)?;
                self.scalar(&text, style, anchor, span)
            }
            Event::SequenceStart(anchor, tag) => {
                self.untagged(tag.is_some(), span)?;
                self.begin(span, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.untagged(tag.is_some(), span)?;
                self.begin(span, anchor, Content::Map { entries: Vec::new(), key: None, merges: Vec::new() })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn document(&mut self, span: Span) -> Result<(), Stop> {
        self.documents += 1;
        match self.documents {
            1 => Ok(()),
            _ => {
                Err(stop(Code::Syntax, span, "a file holds one document")
                    .help("put the rest into another file"))
            }
        }
        .map_err(Box::new)
    }

    fn untagged(&self, tagged: bool, span: Span) -> Result<(), Stop> {
        match tagged {
            true => Err(Box::new(
                stop(Code::Syntax, span, "tags are not used")
                    .help("a value's type is said by where it stands: take the `!…` away, quote a text that starts with \"!\""),
            )),
            false => Ok(()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, span: Span) -> Result<(), Stop> {
        let plain = style == ScalarStyle::Plain;
        // A key is a text, whatever it looks like.
        if let Some(Open { content: Content::Map { key: key @ None, .. }, .. }) = self.open.last_mut() {
            *key = Some(Key { text: text.into(), span });
            return self.afford(text.len(), span);
        }
        self.afford(text.len(), span)?;
        let node = match plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
            true => Node::null(span),
            false => Node::scalar(span, text, if plain { Style::Plain } else { Style::Quoted }),
        };
        self.remember(anchor, &node)?;
        self.add(node)
    }

    fn begin(&mut self, span: Span, anchor: usize, content: Content) -> Result<(), Stop> {
        self.value_expected(span)?;
        self.afford(0, span)?;
        if self.open.len() >= DEEPEST {
            return Err(Box::new(too_deep(span)));
        }
        self.open.push(Open { start: span.start as usize, anchor, content });
        Ok(())
    }

    fn end(&mut self, span: Span) -> Result<(), Stop> {
        let Open { start, anchor, content } = self.open.pop().expect("the parser ends only what it began");
        let mut node = match content {
            Content::List(mut items) => {
                items.shrink_to_fit();
                Node { span: Span { start: small(start), ..span }, kind: Kind::List(items) }
            }
            Content::Map { entries, merges, .. } => {
                self.unique(&entries);
                let mut entries = merged(entries, merges);
                // Most maps are small, and there may be a million: what they have in reserve counts.
                entries.shrink_to_fit();
                Node::map(Span { start: small(start), ..span }, entries)
            }
        };
        // A block's end is where the next thing starts: what lies between is not the node's.
        let written = self.offsets.written(node.span);
        node.span.end = node.span.start + small(written.trim_end().len());
        self.remember(anchor, &node)?;
        self.add(node)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        self.value_expected(span)?;
        let node = self.anchors.get(&anchor).ok_or_else(|| {
            Box::new(stop(Code::UnknownAnchor, span, "an alias stands inside of what it names"))
        })?;
        if self.open.len() + depth(node) > DEEPEST {
            return Err(Box::new(too_deep(span)));
        }
        if !self.budget.take(node) {
            return Err(Box::new(too_many(span)));
        }
        let node = node.clone();
        self.add(node)
    }

    fn value_expected(&self, span: Span) -> Result<(), Stop> {
        match self.open.last() {
            Some(Open { content: Content::Map { key: None, .. }, .. }) => Err(Box::new(
                match braces::near(self.offsets.text, span.start as usize - self.offsets.base) {
                    Some(word) => self.unquoted(word),
                    None => stop(Code::Syntax, span, "a key must be a text"),
                },
            )),
            _ => Ok(()),
        }
    }

    fn afford(&mut self, length: usize, span: Span) -> Result<(), Stop> {
        match self.budget.take_one(length) {
            true => Ok(()),
            false => Err(Box::new(too_many(span))),
        }
    }

    fn remember(&mut self, anchor: usize, node: &Node) -> Result<(), Stop> {
        if anchor == 0 {
            return Ok(());
        }
        if !self.budget.take(node) {
            return Err(Box::new(too_many(node.span)));
        }
        self.anchors.insert(anchor, node.clone());
        Ok(())
    }

    fn add(&mut self, node: Node) -> Result<(), Stop> {
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key, merges }) => {
                let key = key.take().expect("a value follows its key");
                match &*key.text {
                    "<<" => merges.extend(mergeable(node)?),
                    _ => entries.push((key, node)),
                }
            }
        }
        Ok(())
    }

    fn unique(&mut self, entries: &[(Key, Node)]) {
        let mut keys: Vec<&Key> = entries.iter().map(|(key, _)| key).collect();
        keys.sort_by(|a, b| (&a.text, a.span.start).cmp(&(&b.text, b.span.start)));
        for pair in keys.windows(2).filter(|pair| pair[0].text == pair[1].text) {
            self.diagnostics.push(
                stop(Code::DuplicateKey, pair[1].span, format!("`{}` stands twice in one map", pair[1].text))
                    .reason("again here")
                    .label(pair[0].span, "first here"),
            );
        }
    }

    fn syntax(&self, error: &ScanError) -> Stop {
        let at = self.offsets.byte(error.marker().index()) - self.offsets.base;
        Box::new(if let Some(tab) = tab(self.offsets.text, at) {
            stop(Code::Tab, self.local(tab..tab + 1), "a tab stands where a line is indented")
                .help("YAML indents with spaces")
        } else if error.info().contains("unknown anchor") {
            stop(Code::UnknownAnchor, self.word(at), "no such anchor stands before this alias")
        } else if error.info().contains("recursion limit") {
            too_deep(self.word(at))
        } else if let Some(word) = braces::near(self.offsets.text, at) {
            self.unquoted(word)
        } else {
            stop(Code::Syntax, self.word(at), error.info().to_owned())
        })
    }

    fn unquoted(&self, word: std::ops::Range<usize>) -> Diagnostic {
        let span = self.local(word.clone());
        braces::diagnostic(span, &self.offsets.text[word])
    }

    /// The word at a byte of the text.
    fn word(&self, at: usize) -> Span {
        let rest = &self.offsets.text[at..];
        let length = rest.find(|c: char| c.is_whitespace() || ",:{}[]".contains(c)).unwrap_or(rest.len());
        self.local(at..at + length.max(rest.chars().next().map_or(0, char::len_utf8)))
    }

    fn span(&mut self, place: saphyr_parser::Span) -> Span {
        let (start, end) = (self.offsets.byte(place.start.index()), self.offsets.byte(place.end.index()));
        Span { file: self.file, start: small(start), end: small(end) }
    }

    fn local(&self, range: std::ops::Range<usize>) -> Span {
        let base = self.offsets.base;
        Span { file: self.file, start: small(base + range.start), end: small(base + range.end) }
    }
}

/// From the parser's count of characters to bytes of the file.
struct Offsets<'a> {
    text: &'a str,
    base: usize,
    /// The byte of each 64th character; empty where all is ASCII.
    table: Vec<u32>,
}

impl<'a> Offsets<'a> {
    fn new(text: &'a str, base: usize) -> Self {
        let table = match text.is_ascii() {
            true => Vec::new(),
            false => text.char_indices().step_by(64).map(|(at, _)| small(at)).collect(),
        };
        Self { text, base, table }
    }

    fn byte(&self, character: usize) -> usize {
        let local = match self.table.get(character / 64) {
            None if self.table.is_empty() => character.min(self.text.len()),
            None => self.text.len(),
            Some(at) => {
                let rest = &self.text[*at as usize..];
                *at as usize + rest.char_indices().nth(character % 64).map_or(rest.len(), |(at, _)| at)
            }
        };
        self.base + local
    }

    fn written(&self, span: Span) -> &'a str {
        let (start, end) = (span.start as usize - self.base, span.end as usize - self.base);
        self.text.get(start..end).unwrap_or_default()
    }
}

/// The maps that a `<<` brings in.
fn mergeable(node: Node) -> Result<Vec<Node>, Stop> {
    let wrong = |span| Box::new(stop(Code::WrongType, span, "`<<` takes a map or a list of maps"));
    match node.kind {
        Kind::Map(_) => Ok(vec![node]),
        Kind::List(items) => match items.iter().find(|item| item.as_map().is_none()) {
            None => Ok(items),
            Some(item) => Err(wrong(item.span)),
        },
        _ => Err(wrong(node.span)),
    }
}

/// A map's own keys go before merged ones, the first merged map's before the next.
fn merged(mut entries: Vec<(Key, Node)>, merges: Vec<Node>) -> Vec<(Key, Node)> {
    if merges.is_empty() {
        return entries;
    }
    let mut present: std::collections::HashSet<Box<str>> =
        entries.iter().map(|(key, _)| key.text.clone()).collect();
    for merge in merges {
        if let Kind::Map(more) = merge.kind {
            entries.extend(more.into_iter().filter(|(key, _)| present.insert(key.text.clone())));
        }
    }
    entries
}

/// A tab in the indentation of the line at a byte, or of the line before.
fn tab(text: &str, at: usize) -> Option<usize> {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let before = text[..start.saturating_sub(1)].rfind('\n').map_or(0, |newline| newline + 1);
    [start, before].into_iter().find_map(|line| {
        let indent = text[line..].find(|c: char| !matches!(c, ' ' | '\t'));
        text[line..][..indent.unwrap_or(0)].find('\t').map(|tab| line + tab)
    })
}

fn stop(code: Code, span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(code, span, message)
}

fn small(at: usize) -> u32 {
    u32::try_from(at).expect("a file has 16 MiB at most")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<Code>) {
        let mut diagnostics = Diagnostics::default();
        let node = parse(FileId(0), text, &mut Budget::default(), &mut diagnostics);
        (node, diagnostics.iter().map(|diagnostic| diagnostic.code).collect())
    }

    fn plain(node: &Node) -> serde_yaml::Value {
        use serde_yaml::Value;
        match &node.kind {
            Kind::Null => Value::Null,
            Kind::Scalar(scalar) => Value::from(&*scalar.text),
            Kind::List(items) => items.iter().map(plain).collect(),
            Kind::Map(entries) => Value::Mapping(
                entries.iter().map(|(key, value)| ((&*key.text).into(), plain(value))).collect(),
            ),
        }
    }

    /// serde_yaml's value with every scalar as a text.
    fn texts(value: serde_yaml::Value) -> serde_yaml::Value {
        use serde_yaml::Value;
        match value {
            Value::Bool(value) => value.to_string().into(),
            Value::Number(value) => value.to_string().into(),
            Value::Sequence(items) => items.into_iter().map(texts).collect(),
            Value::Mapping(map) => {
                Value::Mapping(map.into_iter().map(|(key, value)| (texts(key), texts(value))).collect())
            }
            other => other,
        }
    }

    fn documents() -> impl Strategy<Value = serde_yaml::Value> {
        let leaf = prop_oneof![
            Just(serde_yaml::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            "[ -~äß\\n]{0,12}".prop_map(serde_yaml::Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..6).prop_map(serde_yaml::Value::from),
                prop::collection::btree_map("[a-z0-9 :#{}-]{1,8}", inner, 1..6).prop_map(|map| {
                    serde_yaml::Value::Mapping(
                        map.into_iter().map(|(key, value)| (key.into(), value)).collect(),
                    )
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn documents_are_read_as_serde_yaml_reads_them(document in documents()) {
            prop_assume!(!document.is_null());
            let text = serde_yaml::to_string(&document).unwrap();
            let (node, codes) = read(&text);
            prop_assert!(codes.is_empty(), "{codes:?}\n{text}");
            prop_assert_eq!(node.as_ref().map(plain), Some(texts(document)), "{}", text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a-c:\\-\\[\\]{}&*<!|>'\"#%@`,? \\t\\n\u{feff}ä]{0,60}") {
            read(&text);
        }
    }

    #[test]
    fn spans_are_bytes_and_cover_the_words() {
        for before in ["", "\u{feff}"] {
            let text = format!("{before}ä: \"ßß\"\nlist: [é, {{ k: v }}]\nmap:\n  a: b\n\n# end\n");
            let node = read(&text).0.unwrap();
            let words = |node: &Node| text[node.span.start as usize..node.span.end as usize].to_owned();
            assert_eq!(words(node.get("ä").unwrap()), "\"ßß\"");
            assert_eq!(words(node.get("list").unwrap()), "[é, { k: v }]");
            let (key, map) = &node.as_map().unwrap()[2];
            assert_eq!(&text[key.span.start as usize..key.span.end as usize], "map");
            assert!(words(map).starts_with("a: b"), "{}", words(map));
        }
    }

    #[test]
    fn texts_stay_as_written() {
        let node = read("a: [no, 007, 1.3, 1_000, 0x1F, ~, null, '', \"null\", 1:30]").0.unwrap();
        let Kind::List(items) = &node.get("a").unwrap().kind else { panic!() };
        let texts: Vec<_> = items.iter().map(|item| item.as_scalar().map(|scalar| &*scalar.text)).collect();
        let some = |text| Some(text);
        let expected = [
            some("no"),
            some("007"),
            some("1.3"),
            some("1_000"),
            some("0x1F"),
            None,
            None,
            some(""),
            some("null"),
            some("1:30"),
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn merged_keys_come_last_and_give_way() {
        let node = read("a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], x: 0}").0.unwrap();
        let merged = serde_yaml::to_string(&plain(node.get("c").unwrap())).unwrap();
        assert_eq!(merged, "x: '0'\ny: '2'\nz: '4'\n");
    }

    #[test]
    fn bombs_and_depths_end_in_an_error() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert_eq!(read(&bomb).1, [Code::TooManyNodes]);
        let long = format!("a: &a {}\nb: [{}]", "x".repeat(1 << 20), vec!["*a"; 100_000].join(", "));
        assert_eq!(read(&long).1, [Code::TooManyNodes]);
        assert_eq!(read(&"[".repeat(100_000)).1, [Code::TooDeep]);
        assert_eq!(read(&"- ".repeat(100_000)).1, [Code::TooDeep]);
        let mut tower = "a0: &a0 [x]\n".to_owned();
        for level in 1..80 {
            tower.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert_eq!(read(&tower).1, [Code::TooDeep]);
    }

    #[test]
    fn a_large_file_is_read_in_a_moment() {
        let mut text = "upstreams:\n".to_owned();
        while text.len() < 10_000_000 {
            let next = text.len();
            text.push_str(&format!(
                "  u{next}: {{ endpoints: [\"127.0.0.1:80\"], timeouts: {{ connect: 1s }} }}\n"
            ));
        }
        let (node, codes) = read(&text);
        assert!(codes.is_empty(), "{codes:?}");
        assert!(node.unwrap().get("upstreams").unwrap().as_map().unwrap().len() > 100_000);
    }
}
