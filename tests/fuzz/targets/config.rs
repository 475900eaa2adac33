//! Any bytes as a configuration: loading and rendering neither panic nor take long.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use portolan::{
    config::{Inputs, load, print},
    diagnostic::{Style, json, text},
};

fuzz_target!(|bytes: &[u8]| {
    for name in ["portolan.yaml", "portolan.toml"] {
        let loaded = load(Path::new(name), &Inputs::memory([(name, bytes)], [("NAME", "value")]));
        text(&loaded.diagnostics, &loaded.sources, Style::Plain);
        json(&loaded.diagnostics, &loaded.sources);
        loaded.tree.as_ref().map(print);
        assert!(loaded.document.is_some() || loaded.diagnostics.has_errors());
    }
});
