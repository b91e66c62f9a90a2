//! `make bench` and `make bench-counts`; bench/ measures.

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

/// Measures against a stack of its own.
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
        eprintln!("  … measuring, three minutes; leave the machine alone");
        let status = bench.status().context("cannot start the measuring program")?;
        ensure!(status.success(), "the measuring program ended with {status}");
        Ok(())
    })
}

/// Writes the numbers of instructions that `make test` compares with.
pub fn write_counts(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        let valgrind = VALGRIND.find_or_install(&stack.log("packages"))?;
        let (deployed, _) = start::start_and_deploy(stack, Profile::Release)?;
        let tests = suite::build(&stack.root, &["--test", "release"], &stack.log("tests-build"))?;
        let totals = TestProgram::find(&tests, "release")?.run(&stack.log("release"), |command| {
            environment::environment_of(command, stack, &deployed);
            command
                .env("VALGRIND", valgrind)
                .env("WRITE_INSTRUCTIONS", "1")
                .arg("instructions");
        })?;
        totals.conclude()
    })
}

/// Builds what the functions are measured against, in the same way, and returns the folder.
fn build_references(stack: &Stack) -> Result<PathBuf> {
    let folder = stack.root.join("target/lambda-references");
    let arguments = ["--package", "empty", "--lambda-dir"].map(OsStr::new);
    let arguments = [&arguments[..], &[folder.as_os_str()]].concat();
    functions::build_release(&stack.tools, &stack.root, &arguments, &stack.log("build"))?;
    Ok(folder)
}

/// Builds the measuring program as the functions are built, and returns where it is.
fn build(stack: &Stack) -> Result<std::path::PathBuf> {
    let step = Step::start("build", "compiling the measuring program (some minutes the first time)");
    let mut build = process::cargo("cargo", &stack.root);
    build.args(["build", "--release", "--package", "bench"]);
    process::run(&mut build, &stack.log("bench"), |line| {
        if line.trim_start().starts_with("Compiling") {
            step.says(line.trim_start());
        }
    })?;
    let program = stack.root.join("target/release/bench");
    step.done("target/release/bench");
    Ok(program)
}
