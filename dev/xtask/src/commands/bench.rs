//! `make bench`, `make bench-peers`, `make scale` and `make load`; dev/bench measures.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    commands::environment::{TEST, with_durable_stack, with_stack},
    stack::{
        Stack, deploy,
        functions::{self, Profile},
        settings::Settings,
        start,
    },
    tools::{
        process,
        python::{Tool, Tools},
        terminal::Step,
    },
};

/// The name of the stack of `make bench-peers`.
const PEERS: &str = "peers";

/// The name of the stack of `make scale`.
const SCALE: &str = "scale";

/// The name of the stack of `make load`.
const LOAD: &str = "load";

/// The groups of dev/bench/peers/pyproject.toml.
const PYTHON_PEERS: [&str; 3] = ["api", "pgqueuer", "procrastinate"];

/// Measures against a separate stack.
pub fn run(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        let (deployed, _) = start::start_and_deploy(stack, Profile::Release)?;
        let references = build_references(stack)?;
        let program = build(stack, &[])?;
        let mut bench = command(&program, stack);
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
    with_own_postgres(settings, "bench-peers", PEERS, |stack| {
        let node_peers = install_peers(&stack.tools, &stack.root)?;
        let database_url = start::postgres_and_aws(stack)?;
        // By this machine's linker: with the benchmark's dependencies, which are compiled anyway.
        const FUNCTIONS: [&str; 3] = ["get-task", "list-tasks", "create-task"];
        let program = build(stack, &FUNCTIONS)?;
        let functions = stack.folder.join("functions");
        for name in FUNCTIONS {
            fs::create_dir_all(functions.join(name))?;
            fs::copy(program.with_file_name(name), functions.join(name).join("bootstrap"))?;
        }
        let mut bench = command(&program, stack);
        bench
            .arg("peers")
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
                peer(&stack.tools, group).join("bin/python"),
            );
        }
        eprintln!("  … measuring for ten minutes; keep the machine idle");
        measure(&mut bench, stack)
    })
}

/// Measures with this many millions of tasks, on a Postgres with the durability of production.
pub fn run_scale(settings: &Settings, millions: f64, unsent: u32) -> Result<()> {
    with_own_postgres(settings, "scale", SCALE, |stack| {
        let database_url = start::start_postgres(stack)?;
        let mut bench = command(&build(stack, &[])?, stack);
        bench
            .arg("scale")
            .env("DATABASE_URL", database_url)
            .env("MILLIONS", millions.to_string())
            .env("UNSENT", unsent.to_string());
        eprintln!("  … filling takes a minute for each million");
        measure(&mut bench, stack)
    })
}

/// Puts load on the functions' code, on a Postgres with the durability of production.
pub fn run_load(settings: &Settings, scenario: &str, minutes: f64, rate: u32) -> Result<()> {
    with_own_postgres(settings, "load", LOAD, |stack| {
        let database_url = start::postgres_and_aws(stack)?;
        let mut bench = command(&build(stack, &[])?, stack);
        bench
            .arg("load")
            .env("DATABASE_URL", database_url)
            .env("SCENARIO", scenario)
            .env("MINUTES", minutes.to_string())
            .env("RATE", rate.to_string());
        measure(&mut bench, stack)
    })
}

/// Runs a measurement on a separate stack with a Postgres of its own, which has the durability of
/// production.
fn with_own_postgres(
    settings: &Settings,
    target: &str,
    name: &str,
    run: impl FnOnce(&Stack) -> Result<()>,
) -> Result<()> {
    ensure!(
        settings.database_url.is_none(),
        "make {target} measures the CPU of a Postgres on this machine, which it starts; unset DATABASE_URL: \
         make {target} DATABASE_URL="
    );
    with_durable_stack(settings, name, run)
}

/// The benchmark's command, with the stack's emulator as AWS.
fn command(program: &Path, stack: &Stack) -> Command {
    let mut bench = Command::new(program);
    bench.current_dir(&stack.root);
    deploy::into_emulator(&mut bench, stack);
    bench
}

/// Measures with the stack's own Postgres.
fn measure(bench: &mut Command, stack: &Stack) -> Result<()> {
    let status = bench.status().context("cannot start the benchmark")?;
    ensure!(
        status.success(),
        "the benchmark failed ({status}): see above; Postgres's log: {}",
        stack.log("postgres").display()
    );
    Ok(())
}

/// Installs what `make bench-peers` measures beside ours, from the lock files in dev/bench/peers;
/// returns the folder with the packages for Node.js.
fn install_peers(tools: &Tools, root: &Path) -> Result<PathBuf> {
    let wanted = root.join("dev/bench/peers");
    let folder = tools.install_packages("peers", &wanted)?;
    // A module finds its packages in a folder above it.
    for entry in fs::read_dir(&wanted)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "mjs") {
            fs::copy(&file, folder.join(file.file_name().unwrap_or_default()))?;
        }
    }
    let step = Step::start("tools", "installing the peers in Python");
    for group in PYTHON_PEERS {
        tools
            .install_group(group, &wanted, &peer(tools, group))
            .with_context(|| format!("cannot install {group}; to start anew: rm -r .local/tools/peers*"))?;
    }
    step.done("the peers in Python are in .local/tools");
    Ok(folder)
}

/// The virtual environment of a group in dev/bench/peers/pyproject.toml.
fn peer(tools: &Tools, group: &str) -> PathBuf {
    tools.folder(&format!("peers-{group}"))
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
