use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{
    Format, file,
    output::{self, Exit, print},
};
use crate::compile::{Row, rows};

/// Shows the table of routes, in the order in which they are tried
#[derive(Debug, Args)]
pub struct Routes {
    /// The configuration [default: ./conf.d/portolan.yaml, ./portolan.yaml or /etc/portolan/portolan.yaml]
    file: Option<PathBuf>,
    /// How it is shown
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const HEAD: [&str; 7] = ["LISTENER", "NAMES", "PATH", "CONDITIONS", "HOST/ROUTE", "ACTION", "CHAIN"];

impl Routes {
    pub fn run(self) -> Exit {
        let snapshot = match file::snapshot(self.file) {
            Ok((snapshot, _)) => snapshot,
            Err(exit) => return exit,
        };
        let rows = rows(&snapshot);
        match self.format {
            Format::Json => output::json(&json!(rows)),
            Format::Text => print(table(rows.iter().map(cells))),
        }
        Exit::Success
    }
}

fn cells(row: &Row) -> [String; 7] {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    [
        row.listener.clone(),
        row.names.join(","),
        row.pattern.clone(),
        or_dash(row.conditions.clone()),
        format!("{}/{}", row.host, row.route),
        row.action.clone(),
        or_dash(row.chain.join(",")),
    ]
}

/// Columns as wide as their widest cell.
fn table(rows: impl Iterator<Item = [String; 7]>) -> String {
    let rows: Vec<_> = std::iter::once(HEAD.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = ["web", "*", "/a/{id}", "-", "www/item", "proxy app", "-"].map(str::to_owned);
        let text = table([row].into_iter());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("PATH"), lines[1].find("/a/{id}"));
        assert_eq!(lines[0].find("ACTION"), lines[1].find("proxy app"));
    }
}
