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

#[test]
fn programs_contain_no_environment_of_cargo_lambda_watch() {
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().expect("TOML");
    let environment = manifest["workspace"]["metadata"]["lambda"]["env"].as_table();
    // Those that cannot be there for another reason, as "open" and the name of a region can.
    let values = environment
        .expect("a table")
        .iter()
        .filter(|(name, _)| name.ends_with("_URL"));
    let values: Vec<&str> = values.map(|(_, value)| value.as_str().expect("text")).collect();
    assert_eq!(values.len(), 4, "{values:?}");
    for FunctionSpec { name, .. } in FUNCTIONS {
        let file = format!("../target/lambda/{name}/bootstrap");
        let bootstrap = std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        for value in &values {
            let is_there = bootstrap.windows(value.len()).any(|bytes| bytes == value.as_bytes());
            assert!(!is_there, "{name} contains {value}");
        }
    }
}
