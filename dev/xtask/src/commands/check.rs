//! `make check`: the checks that need no deployment, in a minute.

use std::{
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};

use crate::{
    commands::{
        environment::{InProcess, TEST, with_stack},
        suite::{self, IN_PROCESS, TestProgram, Totals, run_in_process},
    },
    stack::settings::Settings,
    tools::{
        parallel::side_by_side,
        process,
        python::{Tool, Tools},
        terminal::{self, Step},
    },
};

/// Slow tests, which `make test` runs: one fills a table for half a minute, the others try hundreds
/// of random histories.
const SLOW: [&str; 2] = ["of_a_million_tasks", "properties::"];

/// The tests of `infrastructure` that only read files: links, commands, terms. Costs need the
/// translated template.
const DOCUMENTS: [&str; 3] = ["documents::", "--skip", "costs::"];

/// Checks the format, lints, and runs the tests that need no deployment.
pub fn run(settings: &Settings) -> Result<()> {
    let root = &settings.root;
    let mut totals = Totals::default();
    format(root)?;
    spelling(&Tools::new(root), root)?;
    with_stack(settings, TEST, |stack| {
        let (mut in_process, mut tests) = (None, Vec::new());
        side_by_side([
            &mut || {
                in_process = Some(InProcess::prepare(stack)?);
                Ok(())
            },
            &mut || {
                clippy(root, &stack.log("clippy"))?;
                let targets = [&IN_PROCESS[..], &["--test", "infrastructure"]].concat();
                tests = suite::build(root, &targets, &stack.log("tests-build"))?;
                Ok(())
            },
        ])?;
        let in_process = in_process.context("Postgres and the emulator were not started")?;
        let (files, others): (Vec<_>, Vec<_>) = tests
            .iter()
            .partition(|test| ["xtask", "infrastructure"].contains(&test.name.as_str()));
        let totals = Mutex::new(&mut totals);
        let run = |tests: &[&TestProgram]| {
            for test in tests {
                let ran = match test.name.as_str() {
                    "infrastructure" => test.run(&stack.log("infrastructure"), |command| {
                        command.args(DOCUMENTS);
                    })?,
                    _ => run_in_process(test, stack, &SLOW, |command| in_process.set(command))?,
                };
                **totals.lock().unwrap_or_else(PoisonError::into_inner) += ran;
            }
            Ok(())
        };
        side_by_side([&mut || run(&files), &mut || run(&others)])
    })?;
    terminal::print_seconds();
    totals.conclude()
}

/// `make fmt`
pub fn fmt(root: &Path) -> Result<()> {
    process::output(process::cargo("cargo", root).args(["fmt", "--all"])).map(drop)
}

/// Fails if a source file is not formatted.
pub fn format(root: &Path) -> Result<()> {
    let step = Step::start("format", "cargo fmt --check");
    let formatted = process::output(process::cargo("cargo", root).args(["fmt", "--all", "--check"]));
    ensure!(formatted.is_ok(), "the code is not formatted; format it: make fmt");
    step.done("formatted");
    Ok(())
}

/// Fails on a misspelled word; `typos.toml` has the exceptions.
pub fn spelling(tools: &Tools, root: &Path) -> Result<()> {
    tools.install(&[Tool::Typos])?;
    let step = Step::start("spelling", "typos");
    let mut typos = Command::new(tools.bin(Tool::Typos).join("typos"));
    typos.current_dir(root).args(["--format", "brief"]);
    let found = typos.output().context("cannot start typos")?;
    ensure!(
        found.status.success(),
        "misspelled words; if one is right, add it to typos.toml:\n{}",
        String::from_utf8_lossy(&found.stdout)
    );
    step.done("no misspelled words");
    Ok(())
}

/// Runs clippy, and checks that ring is the only TLS provider.
pub fn clippy(root: &Path, log: &Path) -> Result<()> {
    let step = Step::start("clippy", "linting");
    let mut command = process::cargo("cargo", root);
    command.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]);
    process::run(&mut command, log, |_| {})?;
    let mut tree = process::cargo("cargo", root);
    tree.args(["tree", "--workspace", "--prefix", "none"]);
    ensure!(
        !process::output(&mut tree)?.contains("aws-lc-sys"),
        "aws-lc-sys is a dependency, which costs 42 ms of CPU in every cold start; to find what needs it: \
         cargo tree --workspace --invert aws-lc-sys"
    );
    step.done("no warnings; ring is the only TLS provider");
    Ok(())
}

/// Builds the documentation of all crates; a broken link is an error.
pub fn documentation(root: &Path, log: &Path) -> Result<()> {
    let step = Step::start("doc", "cargo doc");
    let mut command = process::cargo("cargo", root);
    command.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    // Private items are documented, so links to them resolve.
    command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    process::run(&mut command, log, |_| {})?;
    step.done("target/doc");
    Ok(())
}
