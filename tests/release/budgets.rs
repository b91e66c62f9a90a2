//! The sizes of the deployed functions, and their release profile.

use std::io::Write;

use flate2::{Compression, write::DeflateEncoder};

use crate::support::functions::{FUNCTIONS, FunctionSpec};

#[test]
fn functions_are_within_their_size_budgets() {
    for FunctionSpec { name, size_budget, .. } in FUNCTIONS {
        let file = format!("../target/lambda/{name}/bootstrap");
        let bootstrap = std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        // The zip contains only this file.
        let mut zip = DeflateEncoder::new(Vec::new(), Compression::default());
        zip.write_all(&bootstrap).expect("memory is writable");
        let megabytes = zip.finish().expect("memory is writable").len() as f64 / 1e6;
        assert!(
            megabytes <= size_budget,
            "{name}: {megabytes:.2} MB zipped, over its budget of {size_budget} MB"
        );
    }
}

#[test]
fn release_profile_unwinds_panics() {
    // With `abort`, cargo-lambda's default, one panicking record would fail its whole batch.
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().expect("TOML");
    assert_eq!(manifest["profile"]["release"]["panic"].as_str(), Some("unwind"));
}
