//! The test stacks, and the environment variables through which tests find them.

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

/// The name of the stack for tests that need one alone: first the documents' commands, then fault
/// injection.
pub const ALONE: &str = "alone";

/// Passes an empty stack of this name to `work`, and stops it however this process ends.
pub fn with_stack(settings: &Settings, name: &str, work: impl FnOnce(&Stack) -> Result<()>) -> Result<()> {
    with(Stack::separate(settings, name)?, name, work)
}

/// The same, with data that survives a crash of the machine.
pub fn with_durable_stack(settings: &Settings, name: &str, work: impl FnOnce(&Stack) -> Result<()>) -> Result<()> {
    with(Stack::separate(settings, name)?.durable(), name, work)
}

fn with(stack: Stack, name: &str, work: impl FnOnce(&Stack) -> Result<()>) -> Result<()> {
    let _lock = stack.lock()?;
    stack.clean()?;
    let guard = Guard::start(name)?;
    let outcome = work(&stack);
    let ended = guard.end();
    outcome.and(ended)
}

/// A process that stops a stack when this one has ended. It waits for the end of a pipe, which the
/// kernel closes however this process ends: success, Ctrl-C, `kill -9`.
struct Guard {
    child: Child,
}

impl Guard {
    fn start(name: &str) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["stop-stack-at-eof", name])
            .stdin(Stdio::piped())
            // In a separate process group, which Ctrl-C does not reach.
            .process_group(0)
            .spawn()
            .context("cannot start the process that stops the test stack")?;
        Ok(Self { child })
    }

    fn end(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        ensure!(
            self.child.wait()?.success(),
            "the test stack could not be stopped: see above"
        );
        Ok(())
    }
}

/// The [`Guard`]'s process: waits for the end of standard input, then stops the stack.
pub fn stop_at_eof(settings: &Settings, name: &str) -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Stack::separate(settings, name)?.stop()
}

/// The environment of the in-process tests: Postgres and SQS.
pub struct InProcess {
    database_url: String,
    aws_url: String,
}

impl InProcess {
    /// Starts Postgres and the emulator.
    pub fn prepare(stack: &Stack) -> Result<Self> {
        start::postgres_and_aws(stack)?;
        // The tests create their own databases on the same server.
        let database_url = start::database(stack)?;
        let aws_url = stack.emulator.url();
        Ok(Self { database_url, aws_url })
    }

    /// Sets the environment variables of a test program.
    pub fn set(&self, command: &mut Command) {
        command.env("DATABASE_URL", &self.database_url);
        deploy::into_aws_at(command, &self.aws_url);
    }
}

/// The environment of the end-to-end tests: template.yaml deployed open, closed, and as the
/// sandbox; a browser.
pub struct Environment<'a> {
    stack: &'a Stack,
    /// The open API.
    pub open: Deployed,
    /// The closed API, which requires tokens.
    pub closed: Deployed,
    sandbox: Deployed,
    jwks_url: String,
    chromium: PathBuf,
}

impl<'a> Environment<'a> {
    /// Deploys all three. Postgres and the emulator must be running.
    pub fn prepare(stack: &'a Stack, programs: &Programs, chromium: &Path) -> Result<Self> {
        // A test serves it.
        let jwks_url = format!("http://127.0.0.1:{}/keys", process::free_port()?);
        // One after the other: the emulator creates one stack at a time.
        Ok(Self {
            stack,
            open: start::deploy_local(stack, programs)?,
            closed: start::deploy_another(stack, "closed", Auth::Closed, programs)?,
            sandbox: start::deploy_sandbox_shape(stack, &jwks_url, programs)?,
            jwks_url,
            chromium: chromium.to_owned(),
        })
    }

    /// Sets the environment variables of a test program.
    pub fn set(&self, command: &mut Command) {
        set_deployed(command, self.stack, &self.open);
        command
            .env("CHROMIUM", &self.chromium)
            .env("CLOSED_API_URL", &self.closed.api_url)
            .env("SANDBOX_API_URL", &self.sandbox.api_url)
            .env("SANDBOX_DATABASE_URL", &self.sandbox.database_url)
            .env("SANDBOX_JWKS_URL", &self.jwks_url)
            .env("ISSUER_KEY", self.stack.issuer_key());
    }
}

/// Sets the environment variables by which a program finds a deployed stack.
pub fn set_deployed(command: &mut Command, stack: &Stack, deployed: &Deployed) {
    command
        .env("DATABASE_URL", &deployed.database_url)
        .env("API_URL", &deployed.api_url)
        .env("QUEUE_URL", &deployed.task_queue_url)
        .env("DEAD_LETTER_QUEUE_URL", &deployed.dead_letter_queue_url)
        .env("TEMPLATES", deploy::templates(stack))
        .env("TEST_STACK", stack.name());
    deploy::into_emulator(command, stack);
    if let Ok(xtask) = std::env::current_exe() {
        command.env("XTASK", &xtask);
        if stack.owns_postgres() {
            // The chaos tests inject faults with `fail-postgres`.
            command.env("FAIL_POSTGRES", xtask);
        }
    }
}
