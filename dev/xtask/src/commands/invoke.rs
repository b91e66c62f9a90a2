//! `make invoke`: runs a function of the local stack once more with an event that `make dev`
//! recorded, or with one from a file; also under a debugger.

use std::{
    fs::{self, DirBuilder},
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    stack::{
        Stack,
        aws::Aws,
        deploy, functions,
        settings::{LocalAws, Settings},
    },
    tools::{files, process, terminal::Step},
};

/// The folder in that of a stack in which .vscode/launch.json finds the program and its variables.
const FOLDER: &str = "invoke";

/// The records' folder in that of a stack: dev/tools/emulator.py writes them while it exists.
const INVOCATIONS: &str = "invocations";

/// How a debugger gets at the function.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Debug {
    /// It attaches to the process, which waits for it.
    Attach,
    /// It starts the process.
    Launch,
}

/// A record of dev/tools/emulator.py.
#[derive(Deserialize)]
struct Invocation {
    seconds: f64,
    is_error: bool,
    event: Value,
    /// Null if it was too large to be recorded.
    response: Value,
}

/// The outcome of the invocation: tests/harness/src/bin/invoke.rs
#[derive(Deserialize)]
struct Outcome {
    seconds: f64,
    is_error: bool,
    response: Value,
}

/// Lets the stack's emulator record invocations from now on. The folder is readable only by its
/// owner: events contain what clients sent.
pub fn record(stack: &Stack) -> Result<()> {
    let folder = stack.folder.join(INVOCATIONS);
    let created = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    created.with_context(|| format!("cannot create {}", folder.display()))
}

/// Runs a function once. Without a function, lists what is recorded.
pub fn run(
    settings: &Settings,
    test_stack: Option<&str>,
    function: Option<&str>,
    event: &str,
    debug: Option<Debug>,
) -> Result<()> {
    let stack = match test_stack {
        None => Stack::started(settings)?,
        Some(name) => Stack::separate(settings, name)?,
    };
    ensure!(
        stack.settings.aws == LocalAws::Ministack,
        "functions in LocalStack run in containers, whose invocations are not recorded: make up AWS=ministack"
    );
    let aws_url = match test_stack {
        None => stack.emulator.url(),
        Some(_) => std::env::var("AWS_ENDPOINT_URL")?,
    };
    let recorded = stack.folder.join(INVOCATIONS);
    let names = functions::names(&stack.root)?;
    let deployed = Aws::new(aws_url.clone());
    let there = deployed.stack(deploy::STACK_NAME)?;
    let there = there.context("nothing is deployed in the local stack; deploy: make dev")?;
    let lambda_name = |function: &str| there.functions.get(&deploy::logical_id(function));
    let Some(function) = function.filter(|name| !name.is_empty()) else {
        let lambda_names = names
            .iter()
            .filter_map(|name| Some((name.as_str(), lambda_name(name)?.as_str())));
        return list(&recorded, lambda_names);
    };
    let Some(lambda_name) = lambda_name(function) else {
        bail!(
            "FN={function} is no function of the local stack; it has: {}",
            names.join(", ")
        );
    };
    let (event, before) = read_event(&recorded.join(lambda_name), function, event)?;
    let mut variables = deployed.variables(lambda_name)?;
    variables.insert("AWS_ENDPOINT_URL".to_owned(), aws_url);

    let program = build(&stack.root, function, debug)?;
    let folder = stack.folder.join(FOLDER);
    files::remove_if_exists(fs::remove_dir_all(&folder))?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder.join(function))?;
    for bootstrap in [folder.join("bootstrap"), folder.join(function).join("bootstrap")] {
        fs::copy(&program, &bootstrap).with_context(|| format!("cannot write {}", bootstrap.display()))?;
    }
    let request = json!({
        "functions": folder,
        "function": function,
        "variables": variables.iter().collect::<Vec<_>>(),
        "event": event,
        "debug": debug.map(|debug| format!("{debug:?}").to_lowercase()),
        "variables_file": folder.join("variables.env"),
    });
    let outcome = invoke(&program.with_file_name("invoke"), &request)?;
    if let Some(before) = before {
        print("recorded", before.seconds, before.is_error, &before.response);
    }
    print("again", outcome.seconds, outcome.is_error, &outcome.response);
    Ok(())
}

/// The event of a record, with the record, or of a file.
fn read_event(recorded: &Path, function: &str, event: &str) -> Result<(Value, Option<Invocation>)> {
    let file = match event {
        "last" => records(recorded)?.pop().with_context(|| {
            format!(
                "no invocation of {function} is recorded. make dev records those from its start on, of at most 256 KB; \
                 or pass a file with an event: EVENT=event.json"
            )
        })?,
        file => PathBuf::from(file),
    };
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read EVENT={}", file.display()))?;
    if let Ok(invocation) = serde_json::from_str::<Invocation>(&text) {
        return Ok((invocation.event.clone(), Some(invocation)));
    }
    let event = serde_json::from_str(&text).with_context(|| format!("EVENT={} is not JSON", file.display()))?;
    Ok((event, None))
}

/// The records in a folder, the oldest first.
fn records(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut records = Vec::new();
    // A function that was never invoked has no folder.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        records.push(entry?.path());
    }
    records.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    records.sort();
    Ok(records)
}

fn list<'a>(recorded: &Path, functions: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
    let mut is_empty = true;
    for (function, lambda_name) in functions {
        for file in records(&recorded.join(lambda_name))?.into_iter().rev() {
            let age = fs::metadata(&file)?.modified()?;
            let age = SystemTime::now().duration_since(age).unwrap_or_default();
            let Ok(record) = serde_json::from_str::<Invocation>(&fs::read_to_string(&file)?) else {
                continue;
            };
            let outcome = if record.is_error { "error" } else { "ok" };
            println!(
                "{function:<16} {:>6} s ago {:>8.1} ms  {outcome:<5}  {}",
                age.as_secs(),
                record.seconds * 1e3,
                file.display()
            );
            is_empty = false;
        }
    }
    ensure!(!is_empty, "nothing is recorded yet: start make dev, and send a request");
    println!("\nTo run the latest of a function again: make invoke FN=task-processor; another: EVENT=<file>");
    Ok(())
}

/// Builds the function and the program that invokes it. For a debugger with variables' names and
/// types, which the local profile leaves out.
fn build(root: &Path, function: &str, debug: Option<Debug>) -> Result<PathBuf> {
    let step = Step::start("build", &format!("compiling {function}"));
    let cargo = |program: &str, config: &[&str]| {
        let mut build = process::cargo("cargo", root);
        build.args(["build", "--quiet", "--bin", program]).args(config);
        let status = build.stdin(Stdio::null()).status().context("cannot start cargo")?;
        ensure!(status.success(), "{program} does not compile: see above");
        Ok(())
    };
    cargo("invoke", &[])?;
    let symbols: &[&str] = if debug.is_some() {
        &["--config", "profile.dev.debug=\"full\""]
    } else {
        &[]
    };
    cargo(function, symbols)?;
    step.done(&format!("compiled {function}"));
    Ok(root.join("target/debug").join(function))
}

fn invoke(program: &Path, request: &Value) -> Result<Outcome> {
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut input = child.stdin.take().context("no standard input")?;
    input.write_all(request.to_string().as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the function was not invoked: see above");
    serde_json::from_slice(&output.stdout).context("the outcome is not readable")
}

fn print(what: &str, seconds: f64, is_error: bool, response: &Value) {
    let error = if is_error { "error " } else { "" };
    println!("{what:<9}{:>9.1} ms  {error}{response}", seconds * 1e3);
}
