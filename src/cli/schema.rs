use clap::Args;

use super::output::{Exit, json};
use crate::config::schema;

/// Prints the configuration's JSON Schema, for editors
#[derive(Debug, Args)]
pub struct Schema {}

impl Schema {
    pub fn run(self) -> Exit {
        json(&schema::generate());
        Exit::Success
    }
}
