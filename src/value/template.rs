//! Texts with placeholders: `{id}` is a capture of the route's path, `{request.host}` a variable. Parsed
//! once; rendering looks nothing up by name and allocates nothing but what the output needs.

use std::ops::Range;

/// A parsed template. `{{` and `}}` are literal braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Box<[Piece<Filler>]>,
}

/// A part of a text with placeholders, which are whatever the text's reader makes of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<P> {
    Literal(Box<str>),
    Placeholder(P),
}

/// What a request supplies to templates.
pub trait Variables {
    /// The text of the route's capture at this place among the route's captures, as encoded as it came.
    fn capture(&self, index: usize) -> &str;

    /// Appends the variable's text; nothing where there is none.
    fn variable(&self, variable: Variable, out: &mut String);
}

/// Why a template is refused, and which of its bytes are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    pub range: Range<usize>,
    pub reason: String,
    pub suggestion: Option<String>,
}

macro_rules! variables {
    ($($variant:ident = $name:literal, $meaning:literal;)*) => {
        /// A dotted name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Variable { $(#[doc = $meaning] $variant,)* }

        impl Variable {
            pub const ALL: &'static [Variable] = &[$(Variable::$variant,)*];

            pub fn name(self) -> &'static str {
                match self { $(Variable::$variant => $name,)* }
            }
        }
    };
}

variables! {
    RequestHost = "request.host", "The host asked for, without port.";
    RequestPath = "request.path", "The normalised path.";
    RequestQuery = "request.query", "The query without its \"?\".";
    RequestScheme = "request.scheme", "http or https.";
    RequestMethod = "request.method", "The method.";
    RequestId = "request.id", "The request's identifier.";
    ClientIp = "client.ip", "The client's address.";
    ClientPort = "client.port", "The client's port.";
    TlsClientSubject = "tls.client.subject", "The subject of the client's verified certificate.";
    TlsClientFingerprint = "tls.client.fingerprint", "The SHA-256 of the client's verified certificate.";
    TlsSni = "tls.sni", "The server name that the client asked for.";
    TlsVersion = "tls.version", "The version of TLS.";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filler {
    Capture(usize),
    Variable(Variable),
}

/// Splits a text into its pieces. `read` says what a placeholder is, by its name and by where it stands, braces included.
pub fn pieces<P>(
    text: &str,
    mut read: impl FnMut(&str, Range<usize>) -> Result<P, TemplateError>,
) -> Result<Box<[Piece<P>]>, TemplateError> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(['{', '}']) {
        let brace = at + found;
        literal.push_str(&text[at..brace]);
        let here = &text[brace..];
        at = if here.starts_with("{{") || here.starts_with("}}") {
            literal.push_str(&here[..1]);
            brace + 2
        } else if here.starts_with('}') {
            return Err(TemplateError::new(brace..brace + 1, "\"}\" closes nothing", Some("}}".into())));
        } else {
            let end = close(text, brace)?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            pieces.push(Piece::Placeholder(read(&text[brace + 1..end], brace..end + 1)?));
            end + 1
        };
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(pieces.into())
}

// === impl Template ===

impl Template {
    /// Parses a template that may use these captures.
    pub fn parse(text: &str, captures: &[&str]) -> Result<Self, TemplateError> {
        let parts = pieces(text, |name, range| filler(name, range, captures))?;
        Ok(Self { parts })
    }

    pub fn render(&self, variables: &impl Variables, out: &mut String) {
        self.parts.iter().for_each(|part| part.render(variables, out));
    }

    /// Whether every placeholder in the authority of the URI that the text is, or holds, stands for something. Elsewhere a
    /// URI may lack what a request does not have.
    pub fn fills_authority(&self, variables: &impl Variables) -> bool {
        let (mut text, mut authority) = (String::new(), None);
        for part in &self.parts {
            let before = text.len();
            part.render(variables, &mut text);
            let is_empty = text.len() == before;
            authority = authority.or_else(|| authority_start(&text));
            let Some(start) = authority else { continue };
            match text[start..].contains(['/', '?', '#']) {
                true => return true,
                false if is_empty => return false,
                false => {}
            }
        }
        true
    }

    /// The text, where it is the same for every request.
    pub fn literal(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    pub fn is_literal(&self) -> bool {
        self.literal().is_some()
    }

    /// Whether it says what the query is; otherwise the request's query is kept.
    pub fn has_query(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Piece::Literal(text) if text.contains('?')))
    }

    /// Whether the variable stands in it, for what must be asked for before it can be rendered.
    pub fn uses(&self, variable: Variable) -> bool {
        self.parts.contains(&Piece::Placeholder(Filler::Variable(variable)))
    }
}

impl Piece<Filler> {
    fn render(&self, variables: &impl Variables, out: &mut String) {
        match self {
            Self::Literal(text) => out.push_str(text),
            Self::Placeholder(Filler::Capture(index)) => out.push_str(variables.capture(*index)),
            Self::Placeholder(Filler::Variable(variable)) => variables.variable(*variable, out),
        }
    }
}

/// Where the authority of a URI reference begins, as far as the reference is there (RFC 3986 section 3.2).
fn authority_start(text: &str) -> Option<usize> {
    match text.starts_with("//") {
        true => Some(2),
        false => text.find("://").map(|at| at + 3),
    }
}

// === impl TemplateError ===

impl TemplateError {
    pub fn new(range: Range<usize>, reason: impl Into<String>, suggestion: Option<String>) -> Self {
        Self { range, reason: reason.into(), suggestion }
    }
}

/// Where the brace that closes the one at `open` stands.
fn close(text: &str, open: usize) -> Result<usize, TemplateError> {
    match text[open + 1..].find(['{', '}']).map(|found| open + 1 + found) {
        Some(end) if text[end..].starts_with('}') => Ok(end),
        _ => Err(TemplateError::new(open..open + 1, "\"{\" is not closed", Some("{{".into()))),
    }
}

fn filler(name: &str, range: Range<usize>, captures: &[&str]) -> Result<Filler, TemplateError> {
    if let Some(index) = captures.iter().position(|capture| *capture == name) {
        return Ok(Filler::Capture(index));
    }
    if let Some(variable) = Variable::ALL.iter().find(|variable| variable.name() == name) {
        return Ok(Filler::Variable(*variable));
    }
    if let Some(bare) = name.strip_suffix("...").filter(|bare| captures.contains(bare)) {
        return Err(TemplateError::new(
            range,
            "dots stand only where it is captured",
            Some(format!("{{{bare}}}")),
        ));
    }
    let reason = match (name, captures) {
        ("", _) => "a placeholder has no name".to_owned(),
        (dotted, _) if dotted.contains('.') => format!("there is no variable {dotted}"),
        (bare, []) => format!("there is no capture {bare}: nothing is captured here"),
        (bare, captures) => {
            format!("there is no capture {bare}: the path captures {}", captures.join(", "))
        }
    };
    let known = captures.iter().copied().chain(Variable::ALL.iter().map(|variable| variable.name()));
    Err(TemplateError::new(range, reason, meant(name, known)))
}

/// The known name that was probably meant, in its braces: one a slip away, or a variable whose last word it is.
pub fn meant<'a>(name: &str, mut known: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    let slips = (name.len() / 3).max(1);
    let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
    let nearest = known.clone().filter(|known| distance(known) <= slips).min_by_key(distance);
    let by_last_word = || known.find(|known| known.rsplit('.').next() == Some(name));
    nearest.or_else(by_last_word).map(|name| format!("{{{name}}}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Fixed;

    impl Variables for Fixed {
        fn capture(&self, index: usize) -> &str {
            ["7", "a%2Fb"][index]
        }

        fn variable(&self, variable: Variable, out: &mut String) {
            out.push('<');
            out.push_str(variable.name());
            out.push('>');
        }
    }

    fn render(text: &str) -> String {
        let mut out = String::new();
        Template::parse(text, &["id", "rest"]).unwrap().render(&Fixed, &mut out);
        out
    }

    fn refused(text: &str) -> TemplateError {
        Template::parse(text, &["id", "rest"]).unwrap_err()
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(render("/v2/{id}"), "/v2/7");
        assert_eq!(render("/{rest}/x"), "/a%2Fb/x");
        assert_eq!(
            render("https://www.{request.host}{request.path}"),
            "https://www.<request.host><request.path>"
        );
        assert_eq!(render("{{{id}}}"), "{7}");
        assert_eq!(render("a {{b}} ä"), "a {b} ä");
        assert_eq!(render(""), "");
        for variable in Variable::ALL {
            assert_eq!(render(&format!("{{{}}}", variable.name())), format!("<{}>", variable.name()));
        }
    }

    #[test]
    fn what_an_authority_lacks_is_seen() {
        struct Nothing;
        impl Variables for Nothing {
            fn capture(&self, _: usize) -> &str {
                ""
            }

            fn variable(&self, _: Variable, _: &mut String) {}
        }
        let fills = |text| {
            let template = Template::parse(text, &["id"]).unwrap();
            assert!(template.fills_authority(&Fixed), "{text}");
            template.fills_authority(&Nothing)
        };
        for text in [
            "https://{id}/",
            "https://www.{id}{request.path}",
            "//{id}",
            "see https://{id}:8443/x",
            "https://{id}.a",
        ] {
            assert!(!fills(text), "{text}");
        }
        for text in [
            "/{id}",
            "https://a/{id}",
            "https://a{request.path}".replace("{request.path}", "/").as_str(),
            "{id}",
            "//a?{id}",
            "https://a#{id}",
        ] {
            assert!(fills(text), "{text}");
        }
    }

    #[test]
    fn a_template_knows_what_it_holds() {
        let parse = |text| Template::parse(text, &["id"]).unwrap();
        assert_eq!(parse("a{{").literal(), Some("a{"));
        assert!(parse("").is_literal());
        assert!(!parse("{id}").is_literal());
        assert!(parse("/x?{request.query}").has_query());
        assert!(!parse("/x/{id}").has_query());
        assert!(parse("{request.id}").uses(Variable::RequestId));
        assert!(!parse("{id}").uses(Variable::RequestId));
    }

    #[test]
    fn what_is_unknown_is_refused_with_its_place_and_what_was_meant() {
        let error = refused("/v2/{idd}");
        assert_eq!(error.range, 4..9);
        assert_eq!(error.reason, "there is no capture idd: the path captures id, rest");
        assert_eq!(error.suggestion.as_deref(), Some("{id}"));
        assert_eq!(refused("{host}").suggestion.as_deref(), Some("{request.host}"));
        assert_eq!(refused("{request.hots}").suggestion.as_deref(), Some("{request.host}"));
        assert_eq!(refused("{request.hots}").reason, "there is no variable request.hots");
        assert_eq!(refused("{zzzzz}").suggestion, None);
        assert_eq!(refused("{rest...}").suggestion.as_deref(), Some("{rest}"));
        assert_eq!(refused("{}").range, 0..2);
        let error = Template::parse("{x}", &[]).unwrap_err();
        assert_eq!(error.reason, "there is no capture x: nothing is captured here");
    }

    #[test]
    fn braces_that_do_not_pair_are_refused() {
        assert_eq!(refused("a{id").range, 1..2);
        assert_eq!(refused("a{b{id}").range, 1..2);
        assert_eq!(refused("a}b").range, 1..2);
        assert_eq!(refused("a}b").suggestion.as_deref(), Some("}}"));
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer(text in "[{}a.ä?]{0,16}") {
            if let Err(error) = Template::parse(&text, &["a"]) {
                prop_assert!(text.get(error.range).is_some());
            }
        }

        #[test]
        fn doubled_braces_render_as_the_text(text in "[{}aä]{0,16}") {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            let template = Template::parse(&escaped, &[]).unwrap();
            prop_assert_eq!(template.literal(), Some(&*text));
        }
    }
}
