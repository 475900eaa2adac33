//! Files that list endpoints, read while Portolan serves: the same syntax, checks and messages as the configuration's own.

use std::path::Path;

use schemars::{SchemaGenerator, generate::SchemaSettings};

use super::{
    decode::decode,
    include::Reading,
    inputs::{Content, Inputs},
    parse::{Budget, Syntax, parse},
    shape::Shapes,
    validate::validate,
};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics, Sources},
    upstream::{config::ListedEndpoints, discovery::HEAVIEST},
    value::{Address, Spanned, TextOr, encoding},
};

/// Problems that are told of one file.
const MOST_TOLD: usize = 3;

/// The endpoints that a file's content lists, with their weights; or what is wrong with it, in one line.
pub fn endpoints_file(path: &Path, content: Content) -> Result<Vec<(Address, u16)>, String> {
    let content = content?;
    let text = encoding::text(&content).map_err(|reason| reason.to_string())?;
    let inputs = Inputs::memory([("", ""); 0], [("", ""); 0]);
    let mut reading = Reading::new(&inputs);
    let file = reading.sources.add(path.to_owned(), (&*text).into());
    let mut budget = Budget::default();
    let tree = parse(Syntax::of(path), file, &text, &mut budget, &mut reading.diagnostics);
    let Some(tree) = tree else {
        told(&reading.diagnostics, &reading.sources)?;
        return Ok(Vec::new());
    };
    told(&reading.diagnostics, &reading.sources)?;
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
    let schema = SchemaGenerator::new(settings).into_root_schema_for::<ListedEndpoints>().to_value();
    validate(&tree, &Shapes::of(&schema), &mut reading);
    told(&reading.diagnostics, &reading.sources)?;
    let ListedEndpoints(list) = decode(&tree).map_err(|error| error.message)?;
    let mut problems = Diagnostics::default();
    let endpoints: Vec<(Address, u16)> = list.into_iter().map(|own| endpoint(own, &mut problems)).collect();
    told(&problems, &reading.sources)?;
    Ok(endpoints)
}

fn endpoint(
    Spanned { value, span }: Spanned<TextOr<Address, crate::upstream::config::ListedEndpoint>>,
    problems: &mut Diagnostics,
) -> (Address, u16) {
    let (address, weight) = match value {
        TextOr::Text(address) => (address, None),
        TextOr::Map(map) => (map.address, map.weight),
    };
    let weight = weight.map_or(1, |weight| weight.get());
    if weight > HEAVIEST {
        let message = format!("a weight is a number from 1 to {HEAVIEST}, {weight} is more");
        problems.push(Diagnostic::error(Code::BadValue, span, message));
    }
    (address, weight)
}

/// An error where there is a problem: places and messages of the first few.
fn told(problems: &Diagnostics, sources: &Sources) -> Result<(), String> {
    let errors: Vec<&Diagnostic> = problems.iter().filter(|problem| problem.is_error()).collect();
    if errors.is_empty() {
        return Ok(());
    }
    let told = errors.iter().take(MOST_TOLD).map(|problem| match problem.labels.first() {
        Some(label) => format!("{}: {}", sources.place(label.span), problem.message),
        None => problem.message.clone(),
    });
    let told = told.collect::<Vec<_>>().join("; ");
    let more = errors.len().saturating_sub(MOST_TOLD);
    Err(if more > 0 { format!("{told}; and {more} more") } else { told })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<(String, u16)>, String> {
        let listed = endpoints_file(Path::new(name), Ok(text.as_bytes().into()))?;
        Ok(listed.into_iter().map(|(address, weight)| (address.to_string(), weight)).collect())
    }

    #[test]
    fn yaml_and_json_list_endpoints() {
        let both = [("10.0.0.1:80".to_owned(), 1), ("unix:/run/a.sock".to_owned(), 7)];
        let yaml = "- 10.0.0.1:80\n- { address: \"unix:/run/a.sock\", weight: 7 }\n";
        let json = r#"["10.0.0.1:80", {"address": "unix:/run/a.sock", "weight": 7}]"#;
        assert_eq!(read("a.yaml", yaml).unwrap(), both);
        assert_eq!(read("a.json", json).unwrap(), both);
        assert_eq!(read("a.yaml", "").unwrap(), []);
        assert_eq!(read("a.yaml", "[]").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, told) in [
            ("- 10.0.0.1:80\n- app:80\n", "a.yaml:2: "),
            ("- { address: \"10.0.0.1:80\", wieght: 2 }", "wieght"),
            ("- { address: \"10.0.0.1:80\", weight: 1001 }", "a.yaml:1: a weight is a number from 1 to 1000"),
            ("- { weight: 2 }", "`address` is missing"),
            ("endpoints: [\"10.0.0.1:80\"]", "a.yaml:1: "),
            ("- [", "a.yaml:"),
            ("- a\n- b\n- c\n- d\n", "; and 1 more"),
        ] {
            let error = read("a.yaml", text).unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        assert_eq!(endpoints_file(Path::new("a"), Err("no such file".into())), Err("no such file".into()));
        assert!(endpoints_file(Path::new("a"), Ok(b"\xff".as_slice().into())).is_err());
    }
}
