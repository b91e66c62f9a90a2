//! `make dlq` and `make redrive`: runs the program in dead-letters/, here or on AWS.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    deploy, process,
    settings::Settings,
    stack::{self, Stack},
    tools::Tool,
    ui::Step,
};

/// Runs the command `list` or `redrive`: on the stack of `make up`, or on the one that the settings name.
pub fn run(settings: &Settings, command: &str) -> Result<()> {
    let stack = Stack::local(settings)?;
    stack.tools.install(&[Tool::Sam])?;
    let mut program = Command::new(build(&stack)?);
    program.arg(command);
    let outputs = match &settings.stack {
        Some(name) => deploy::outputs_on_aws(&stack, name, None)?,
        None => {
            ensure!(stack.aws_is_running()?, "the local stack is not running: make up");
            deploy::into_emulator(&mut program, &stack);
            program.env("DATABASE_URL", stack::database_url(&stack)?);
            deploy::outputs(&stack, deploy::STACK_NAME)?
        }
    };
    for (variable, name) in [
        ("QUEUE_URL", "TaskQueueUrl"),
        ("DEAD_LETTER_QUEUE_URL", "TaskDeadLetterQueueUrl"),
    ] {
        let url = outputs
            .get(name)
            .with_context(|| format!("the stack has no output {name}"))?;
        program.env(variable, url);
    }
    let status = program.status().context("cannot start dead-letters")?;
    ensure!(status.success(), "dead-letters {command} ended with {status}");
    Ok(())
}

/// Builds the program and returns where it is.
pub fn build(stack: &Stack) -> Result<PathBuf> {
    let program = stack.root.join("target/debug/dead-letters");
    let step = (!program.exists()).then(|| Step::start("build", "compiling dead-letters (a minute, once)"));
    let mut build = process::cargo("cargo");
    build
        .current_dir(&stack.root)
        .args(["build", "--package", "dead-letters"]);
    process::run(&mut build, &stack.log("dead-letters"), |_| {})?;
    if let Some(step) = step {
        step.done("target/debug/dead-letters");
    }
    Ok(program)
}
