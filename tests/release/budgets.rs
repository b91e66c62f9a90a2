//! What is deployed: how much a function weighs, and how it is compiled.

use std::io::Write;

use flate2::{Compression, write::DeflateEncoder};

#[test]
fn every_function_is_within_its_budget() {
    // Megabytes of the deflated `bootstrap`, which is all that is in the zip.
    for (budget, functions) in [
        (
            1.7,
            &[
                "admin-dashboard",
                "admin-task",
                "api-docs",
                "api-info",
                "authorizer",
                "delete-task",
                "get-task",
                "health",
                "list-tasks",
                "migrator",
                "update-task",
            ][..],
        ),
        (
            2.4,
            &[
                "admin-redrive",
                "admin-status",
                "create-task",
                "process-task",
                "task-processor",
                "task-reconciler",
            ],
        ),
    ] {
        for function in functions {
            let file = format!("../target/lambda/{function}/bootstrap");
            let bootstrap = std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
            let mut zip = DeflateEncoder::new(Vec::new(), Compression::default());
            zip.write_all(&bootstrap).expect("memory is writable");
            let megabytes = zip.finish().expect("memory is writable").len() as f64 / 1e6;
            assert!(
                megabytes <= budget,
                "{function} has {megabytes:.2} MB zipped, its budget is {budget} MB"
            );
        }
    }
}

#[test]
fn a_panic_unwinds_in_what_is_deployed() {
    // With `abort`, cargo-lambda's default, one panicking record would take its whole batch down.
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().expect("TOML");
    assert_eq!(manifest["profile"]["release"]["panic"].as_str(), Some("unwind"));
}
