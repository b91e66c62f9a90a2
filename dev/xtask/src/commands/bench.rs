//! `make bench`, `make bench-peers`, `make scale` and `make bench-counts`; dev/bench measures.

use std::{ffi::OsStr, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    commands::{
        environment::{self, LOAD, PEERS, SCALE, TEST, with_durable_stack, with_stack},
        suite::{self, TestProgram},
    },
    stack::{
        Stack, deploy,
        functions::{self, Profile},
        settings::Settings,
        start,
    },
    tools::{
        debian::VALGRIND,
        process,
        python::{PYTHON_PEERS, Tool},
        terminal::Step,
    },
};

/// Measures against a separate stack.
pub fn run(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        let (deployed, _) = start::start_and_deploy(stack, Profile::Release)?;
        let references = build_references(stack)?;
        let program = build(stack, &[])?;
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

/// Measures other task processors and the API in Python beside ours, on a Postgres with the
/// durability of production.
pub fn run_peers(settings: &Settings, tasks: u32, waiting: u32) -> Result<()> {
    ensure!(
        settings.database_url.is_none(),
        "make bench-peers measures the CPU of a Postgres on this machine, which it starts; unset DATABASE_URL: \
         make bench-peers DATABASE_URL="
    );
    with_durable_stack(settings, PEERS, |stack| {
        let node_peers = stack.tools.install_peers()?;
        let database_url = start::postgres_and_aws(stack)?;
        // By this machine's linker: with the benchmark's dependencies, which are compiled anyway.
        const FUNCTIONS: [&str; 3] = ["get-task", "list-tasks", "create-task"];
        let program = build(stack, &FUNCTIONS)?;
        let functions = stack.folder.join("functions");
        for name in FUNCTIONS {
            fs::create_dir_all(functions.join(name))?;
            fs::copy(program.with_file_name(name), functions.join(name).join("bootstrap"))?;
        }
        let mut bench = Command::new(program);
        bench.arg("peers").current_dir(&stack.root);
        deploy::into_emulator(&mut bench, stack);
        bench
            .env("DATABASE_URL", database_url)
            .env("FUNCTIONS", functions)
            .env("NODE", stack.tools.bin(Tool::Node).join("node"))
            .env("NODE_PEERS", node_peers)
            .env("PEERS", stack.root.join("dev/bench/peers"))
            .env("TASKS", tasks.to_string())
            .env("WAITING", waiting.to_string());
        for group in PYTHON_PEERS {
            bench.env(
                format!("PYTHON_{}", group.to_uppercase()),
                stack.tools.python_of_peer(group),
            );
        }
        eprintln!("  … measuring for ten minutes; keep the machine idle");
        let status = bench.status().context("cannot start the benchmark")?;
        ensure!(
            status.success(),
            "the benchmark failed ({status}): see above; Postgres's log: {}",
            stack.log("postgres").display()
        );
        Ok(())
    })
}

/// Measures with this many millions of tasks, on a Postgres with the durability of production.
pub fn run_scale(settings: &Settings, millions: f64, unsent: u32) -> Result<()> {
    ensure!(
        settings.database_url.is_none(),
        "make scale measures the CPU of a Postgres on this machine, which it starts; unset DATABASE_URL: \
         make scale DATABASE_URL="
    );
    with_durable_stack(settings, SCALE, |stack| {
        let database_url = start::start_postgres(stack)?;
        let program = build(stack, &[])?;
        let mut bench = Command::new(program);
        bench.arg("scale").current_dir(&stack.root);
        deploy::into_emulator(&mut bench, stack);
        bench
            .env("DATABASE_URL", database_url)
            .env("MILLIONS", millions.to_string())
            .env("UNSENT", unsent.to_string());
        eprintln!("  … filling takes a minute for each million");
        let status = bench.status().context("cannot start the benchmark")?;
        ensure!(
            status.success(),
            "the benchmark failed ({status}): see above; Postgres's log: {}",
            stack.log("postgres").display()
        );
        Ok(())
    })
}

/// Puts load on the functions' code, on a Postgres with the durability of production.
pub fn run_load(settings: &Settings, scenario: &str, minutes: f64, rate: u32) -> Result<()> {
    ensure!(
        settings.database_url.is_none(),
        "make chaos SCENARIO=… measures the CPU of a Postgres on this machine, which it starts; unset DATABASE_URL: \
         make chaos DATABASE_URL="
    );
    with_durable_stack(settings, LOAD, |stack| {
        let database_url = start::postgres_and_aws(stack)?;
        let program = build(stack, &[])?;
        let mut load = Command::new(program);
        load.arg("load").current_dir(&stack.root);
        deploy::into_emulator(&mut load, stack);
        load.env("DATABASE_URL", database_url)
            .env("SCENARIO", scenario)
            .env("MINUTES", minutes.to_string())
            .env("RATE", rate.to_string());
        let status = load.status().context("cannot start the load")?;
        ensure!(status.success(), "the scenario failed ({status}): see above");
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

/// Builds the benchmark and other packages with the profile `release`, and returns its path.
fn build(stack: &Stack, others: &[&str]) -> Result<PathBuf> {
    let step = Step::start("build", "compiling the benchmark (some minutes the first time)");
    let mut build = process::cargo("cargo", &stack.root);
    build.args(["build", "--release", "--package", "bench"]);
    build.args(others.iter().flat_map(|name| ["--package", name]));
    process::run(&mut build, &stack.log("bench"), |line| {
        if line.trim_start().starts_with("Compiling") {
            step.show(line.trim_start());
        }
    })?;
    let program = stack.root.join("target/release/bench");
    step.done("target/release/bench");
    Ok(program)
}
