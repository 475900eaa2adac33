//! Paths that everybody may ask for.

use crate::{
    diagnostic::{Code, Diagnostic},
    matcher::path::PathPattern,
    middleware::{Context, Exchange},
    value::{OneOrMany, Spanned},
};

/// Path patterns that a part does not act on.
#[derive(Debug)]
pub struct Public(Box<[PathPattern]>);

impl Public {
    pub fn compile(patterns: &OneOrMany<Spanned<String>>, cx: &mut Context<'_>) -> Self {
        let parse = |text: &Spanned<String>| {
            text.parse()
                .inspect_err(|reason: &String| {
                    let message = format!("{:?} is no path pattern", text.value);
                    let problem = Diagnostic::error(Code::BadPattern, text.span, message);
                    cx.diagnostics.push(problem.reason(reason.as_str()));
                })
                .ok()
        };
        Self(patterns.iter().filter_map(parse).collect())
    }

    pub fn covers(&self, exchange: &Exchange) -> bool {
        self.0.iter().any(|pattern| pattern.matches(&exchange.path).is_some()) && is_plain(&exchange.path)
    }
}

/// Whether every upstream sees the same path in it: one that decodes slashes, or takes "..;" for "..", may see
/// another, which is not public.
fn is_plain(path: &str) -> bool {
    !["%2F", "%5C", "..;"].iter().any(|other| path.contains(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_public(pattern: &str, path: &str) -> bool {
        let public = Public(Box::new([pattern.parse().unwrap()]));
        public.covers(&Exchange::for_tests("GET", path))
    }

    #[test]
    fn what_a_pattern_matches_is_public() {
        assert!(is_public("/health", "/health") && is_public("/static/**", "/static/a/b"));
        assert!(!is_public("/health", "/healthy") && !is_public("/static/**", "/admin"));
        assert!(!Public(Box::new([])).covers(&Exchange::for_tests("GET", "/")));
    }

    #[test]
    fn a_path_that_may_mean_another_is_not() {
        for path in ["/static/..%2Fadmin", "/static/..%5Cadmin", "/static/..;/admin"] {
            assert!(!is_public("/static/**", path), "{path}");
        }
    }
}
