//! The stacks of the tests and what they tell the tests about themselves.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    stack::{
        Stack, deploy,
        functions::Programs,
        settings::{Auth, Settings},
        start::{self, Deployed},
    },
    tools::process,
};
/// The name of the tests' stack.
pub const TEST: &str = "test";

/// The name of the stack for what needs one to itself: the commands of the documents, and then the faults.
pub const ALONE: &str = "alone";

/// Gives `work` a stack of this name, without a past, and stops it however this process ends.
pub fn with_stack(settings: &Settings, name: &str, work: impl FnOnce(&Stack) -> Result<()>) -> Result<()> {
    let stack = Stack::of_its_own(settings, name)?;
    let _lock = stack.lock()?;
    stack.forget()?;
    let guard = Guard::start(name)?;
    let outcome = work(&stack);
    let ended = guard.end();
    outcome.and(ended)
}

/// A process that stops a stack when this one is gone. It waits for the end of a pipe, which comes
/// with every kind of end: success, Ctrl-C, `kill -9`.
struct Guard {
    child: Child,
}

impl Guard {
    fn start(name: &str) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["stop-stack-at-eof", name])
            .stdin(Stdio::piped())
            // A group of its own, so that Ctrl-C does not reach it.
            .process_group(0)
            .spawn()
            .context("cannot start the guard of the stack")?;
        Ok(Self { child })
    }

    fn end(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        ensure!(self.child.wait()?.success(), "the stack could not be stopped");
        Ok(())
    }
}

/// What the [`Guard`]'s process does.
pub fn stop_at_eof(settings: &Settings, name: &str) -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Stack::of_its_own(settings, name)?.stop()
}

/// What the tests need that call the code in their own process: Postgres, and SQS.
pub struct InProcess {
    database_url: String,
    aws_url: String,
}

impl InProcess {
    /// Starts both.
    pub fn prepare(stack: &Stack) -> Result<Self> {
        start::postgres_and_aws(stack)?;
        // The tests make databases of their own beside it.
        let database_url = start::database(stack)?;
        let aws_url = stack.emulator.url();
        Ok(Self { database_url, aws_url })
    }

    /// Says where they are.
    pub fn set(&self, command: &mut Command) {
        command.env("DATABASE_URL", &self.database_url);
        deploy::into_aws_at(command, &self.aws_url);
    }
}

/// What the tests of deployed functions need: template.yaml deployed open, closed, and in the sandbox's shape; a browser.
pub struct Environment<'a> {
    stack: &'a Stack,
    /// The open one.
    pub open: Deployed,
    /// The closed one, where tokens count.
    pub closed: Deployed,
    sandbox: Deployed,
    jwks_url: String,
    chromium: PathBuf,
}

impl<'a> Environment<'a> {
    /// Deploys into a stack whose Postgres and AWS run.
    pub fn prepare(stack: &'a Stack, programs: &Programs, chromium: &Path) -> Result<Self> {
        // Served by the test that needs it.
        let jwks_url = format!("http://127.0.0.1:{}/keys", process::free_port()?);
        // One after the other: the local AWS creates one stack at a time.
        Ok(Self {
            stack,
            open: start::deploy_local(stack, programs)?,
            closed: start::deploy_another(stack, "closed", Auth::Closed, programs)?,
            sandbox: start::deploy_sandbox_shape(stack, &jwks_url, programs)?,
            jwks_url,
            chromium: chromium.to_owned(),
        })
    }

    /// Says where all of that is.
    pub fn set(&self, command: &mut Command) {
        environment_of(command, self.stack, &self.open);
        command
            .env("CHROMIUM", &self.chromium)
            .env("CLOSED_API_URL", &self.closed.api_url)
            .env("SANDBOX_API_URL", &self.sandbox.api_url)
            .env("SANDBOX_DATABASE_URL", &self.sandbox.database_url)
            .env("SANDBOX_JWKS_URL", &self.jwks_url)
            .env("ISSUER_KEY", self.stack.issuer_key());
    }
}

/// Says where a deployed stack is.
pub fn environment_of(command: &mut Command, stack: &Stack, deployed: &Deployed) {
    command
        .env("DATABASE_URL", &deployed.database_url)
        .env("API_URL", &deployed.api_url)
        .env("QUEUE_URL", &deployed.task_queue_url)
        .env("DEAD_LETTER_QUEUE_URL", &deployed.dead_letter_queue_url)
        .env("TEMPLATES", deploy::templates(stack))
        .env("TEST_STACK", stack.name());
    deploy::into_emulator(command, stack);
    if stack.owns_postgres()
        && let Ok(xtask) = std::env::current_exe()
    {
        // How the fault tests make it fail.
        command.env("FAIL_POSTGRES", xtask);
    }
}
