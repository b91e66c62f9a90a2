//! `make dlq` and `make redrive`: run the program in dev/dead-letters/, against the local stack or
//! AWS.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    stack::{Stack, aws::Aws, deploy, functions, settings::Settings},
    tools::{
        python::{Tool, Tools},
        terminal,
    },
};

/// `make dlq`
pub fn list(settings: &Settings) -> Result<()> {
    let mut program = prepare(settings)?;
    run(program.arg("list"))
}

/// `make redrive`: lists the messages, asks for confirmation, and redrives them.
pub fn redrive(settings: &Settings) -> Result<()> {
    let mut program = prepare(settings)?;
    if !settings.yes {
        run(program.arg("list"))?;
        ensure!(
            terminal::confirm("Redrive all of them to the task queue?")?,
            "canceled; nothing was redriven (to confirm without a question: YES=1)"
        );
        program = prepare(settings)?;
    }
    run(program.arg("redrive"))
}

/// The program, with the queues and the database of the stack that the settings name, or else of
/// the stack of `make up`.
fn prepare(settings: &Settings) -> Result<Command> {
    let root = &settings.root;
    let (mut program, outputs);
    match &settings.stack {
        Some(name) => {
            let tools = Tools::new(root);
            tools.install(&[Tool::Sam])?;
            program = Command::new(build(root)?);
            outputs = deploy::outputs_on_aws(&tools, root, name, None)?;
        }
        None => {
            let stack = Stack::started(settings)?;
            ensure!(
                stack.aws_is_running()?,
                "the local stack is not running; start it: make up"
            );
            program = Command::new(build(root)?);
            deploy::into_emulator(&mut program, &stack);
            program.env("DATABASE_URL", stack.database_url()?);
            let there = Aws::new(stack.emulator.url()).stack(deploy::STACK_NAME)?;
            outputs = there.map_or_else(BTreeMap::new, |there| there.outputs);
        }
    };
    for (variable, name) in [
        ("QUEUE_URL", "TaskQueueUrl"),
        ("DEAD_LETTER_QUEUE_URL", "TaskDeadLetterQueueUrl"),
    ] {
        let url = outputs
            .get(name)
            .with_context(|| format!("the stack has no output {name}; deploy it again"))?;
        program.env(variable, url);
    }
    Ok(program)
}

fn run(program: &mut Command) -> Result<()> {
    let status = program.status().context("cannot start dead-letters")?;
    ensure!(status.success(), "dead-letters failed ({status}): see above");
    Ok(())
}

/// Builds the program and returns its path.
pub fn build(root: &Path) -> Result<PathBuf> {
    let log = root.join(".local/logs/dead-letters.log");
    functions::cargo_build(root, ["--bin", "dead-letters"], "dead-letters", &log)?;
    Ok(root.join("target/debug/dead-letters"))
}
