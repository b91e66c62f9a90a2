//! `make bench` and `make bench-counts`; dev/bench measures.

use std::{ffi::OsStr, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    commands::{
        environment::{self, TEST, with_stack},
        suite::{self, TestProgram},
    },
    stack::{
        Stack, deploy,
        functions::{self, Profile},
        settings::Settings,
        start,
    },
    tools::{debian::VALGRIND, process, terminal::Step},
};

/// Measures against a separate stack.
pub fn run(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        let (deployed, _) = start::start_and_deploy(stack, Profile::Release)?;
        let references = build_references(stack)?;
        let program = build(stack)?;
        let mut bench = Command::new(program);
        bench.current_dir(&stack.root);
        deploy::into_emulator(&mut bench, stack);
        bench
            .env("API_URL", &deployed.api_url)
            .env("DATABASE_URL", &deployed.database_url)
            .env("FUNCTIONS", stack.root.join("target/lambda"))
            .env("REFERENCES", references);
        eprintln!("  … measuring for three minutes; keep the machine idle");
        let status = bench.status().context("cannot start the benchmark")?;
        ensure!(status.success(), "the benchmark failed ({status}): see above");
        Ok(())
    })
}

/// Writes the instruction counts that `make verify` compares with.
pub fn write_counts(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        let valgrind = VALGRIND.find_or_install(&stack.log("packages"))?;
        let (deployed, _) = start::start_and_deploy(stack, Profile::Release)?;
        let tests = suite::build(&stack.root, &["--test", "release"], &stack.log("tests-build"))?;
        let totals = TestProgram::find(&tests, "release")?.run(&stack.log("release"), |command| {
            environment::set_deployed(command, stack, &deployed);
            command
                .env("VALGRIND", valgrind)
                .env("WRITE_INSTRUCTIONS", "1")
                .arg("instructions");
        })?;
        totals.conclude()
    })
}

/// Builds the functions that the others are compared with, with the same build, and returns their
/// folder.
fn build_references(stack: &Stack) -> Result<PathBuf> {
    let folder = stack.root.join("target/lambda-references");
    let arguments = ["--package", "empty", "--lambda-dir"].map(OsStr::new);
    let arguments = [&arguments[..], &[folder.as_os_str()]].concat();
    functions::build_release(&stack.tools, &stack.root, &arguments, &stack.log("build"))?;
    Ok(folder)
}

/// Builds the benchmark with the profile `release`, and returns its path.
fn build(stack: &Stack) -> Result<PathBuf> {
    let step = Step::start("build", "compiling the benchmark (some minutes the first time)");
    let mut build = process::cargo("cargo", &stack.root);
    build.args(["build", "--release", "--package", "bench"]);
    process::run(&mut build, &stack.log("bench"), |line| {
        if line.trim_start().starts_with("Compiling") {
            step.show(line.trim_start());
        }
    })?;
    let program = stack.root.join("target/release/bench");
    step.done("target/release/bench");
    Ok(program)
}
