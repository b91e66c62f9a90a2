//! `make check`: what a change must pass before anything is deployed, in a minute.

use std::{
    path::Path,
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
        terminal::{self, Step},
    },
};

/// One fills a table for half a minute, the others try hundreds of random histories; `make test` runs them.
const TOO_LONG: [&str; 2] = ["of_a_million_tasks", "properties::"];

/// Format, lints, and the tests that need no deployment.
pub fn run(settings: &Settings) -> Result<()> {
    let root = &settings.root;
    let mut totals = Totals::default();
    format(root)?;
    with_stack(settings, TEST, |stack| {
        let (mut in_process, mut tests) = (None, Vec::new());
        side_by_side([
            &mut || {
                in_process = Some(InProcess::prepare(stack)?);
                Ok(())
            },
            &mut || {
                clippy(root, &stack.log("clippy"))?;
                tests = suite::build(root, &IN_PROCESS, &stack.log("tests-build"))?;
                Ok(())
            },
        ])?;
        let in_process = in_process.context("Postgres and the emulator were started")?;
        let (runners, others): (Vec<_>, Vec<_>) = tests.iter().partition(|test| test.name == "xtask");
        let totals = Mutex::new(&mut totals);
        let run = |tests: &[&TestProgram]| {
            for test in tests {
                let of = run_in_process(test, stack, &TOO_LONG, |command| in_process.set(command))?;
                **totals.lock().unwrap_or_else(PoisonError::into_inner) += of;
            }
            Ok(())
        };
        side_by_side([&mut || run(&runners), &mut || run(&others)])
    })?;
    terminal::print_seconds();
    totals.conclude()
}

/// `make fmt`
pub fn fmt(root: &Path) -> Result<()> {
    process::output(process::cargo("cargo", root).args(["fmt", "--all"])).map(drop)
}

/// Fails if a source is not formatted.
pub fn format(root: &Path) -> Result<()> {
    let step = Step::start("format", "cargo fmt --check");
    let formatted = process::output(process::cargo("cargo", root).args(["fmt", "--all", "--check"]));
    ensure!(formatted.is_ok(), "the code is not formatted: make fmt");
    step.done("formatted");
    Ok(())
}

/// Clippy, and one TLS provider.
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
        "aws-lc-sys is a dependency (cargo tree --workspace --invert aws-lc-sys); it costs 42 ms of CPU in every cold start"
    );
    step.done("no warnings; TLS by ring alone");
    Ok(())
}
