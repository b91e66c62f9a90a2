//! `make test` and what else needs a stack of its own.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    dead_letters, deploy, files,
    openapi::{self, Thoroughness},
    packages::{CHROMIUM, VALGRIND},
    process,
    settings::Settings,
    stack::{self, Deployed, Stack},
    ui::Step,
};

/// Runs every test against a fresh stack: `cargo test`, with the stack in its environment.
pub fn run(settings: &Settings, arguments: &[String]) -> Result<()> {
    with_stack(settings, |stack| {
        let surroundings = Surroundings::prepare(stack)?;
        let dead_letters = dead_letters::build(stack)?;
        check_queries(stack, &surroundings.deployed.database_url)?;
        openapi::hold(stack, &surroundings.closed.api_url, Thoroughness::Short)?;
        succeed(
            surroundings
                .cargo(stack)?
                .env("DEAD_LETTERS", dead_letters)
                .env("XTASK", std::env::current_exe()?)
                .args(["test", "--workspace", "--all-targets", "--quiet"])
                .args(arguments),
        )
    })
}

/// Holds the API against openapi.json, at full length.
pub fn contract(settings: &Settings) -> Result<()> {
    with_stack(settings, |stack| {
        stack::up(stack)?;
        openapi::hold(stack, &stack::up_closed(stack)?.api_url, Thoroughness::Long)
    })
}

/// Runs only the fault tests, at full length.
pub fn chaos(settings: &Settings, tasks: u32, seed: Option<u64>) -> Result<()> {
    with_stack(settings, |stack| {
        let deployed = stack::up(stack)?;
        let mut command = cargo(stack, &deployed)?;
        command.env("CHAOS_TASKS", tasks.to_string());
        if let Some(seed) = seed {
            command.env("CHAOS_SEED", seed.to_string());
        }
        succeed(command.args(["test", "--package", "tests", "--test", "chaos", "--quiet"]))
    })
}

/// What the coverage is not about: the runner, the tests themselves, what the graders of the exercises use, and each
/// `main`, which the deployed functions run.
const NOT_COVERED: &str = "xtask/|tests/|exercises/|main.rs";

/// Runs the tests with coverage: a table, and HTML in coverage/.
pub fn coverage(settings: &Settings) -> Result<()> {
    with_stack(settings, |stack| {
        stack.tools.install_cargo_llvm_cov()?;
        let surroundings = Surroundings::prepare(stack)?;
        let llvm_cov = |arguments: &[&str]| {
            let mut command = surroundings.cargo(stack)?;
            command.env("PATH", stack.tools.path()?);
            command.arg("llvm-cov").args(arguments);
            succeed(command.args(["--ignore-filename-regex", NOT_COVERED]))
        };
        llvm_cov(&[
            "--workspace",
            "--exclude",
            "xtask",
            // Not the fault tests: they run the deployed functions, which are not measured.
            "--lib",
            "--test",
            "tests",
            "--html",
            "--output-dir",
            "coverage",
        ])?;
        llvm_cov(&["report"])?;
        println!("\nLine by line: coverage/html/index.html");
        Ok(())
    })
}

/// Refreshes .sqlx: what `sqlx::query!` knows of the schema, so that a build needs no database.
pub fn refresh_queries(settings: &Settings) -> Result<()> {
    with_stack(settings, |stack| {
        let fresh = describe_queries(stack, &stack::database(stack)?)?;
        let committed = stack.root.join(".sqlx");
        files::removed(fs::remove_dir_all(&committed))?;
        fs::rename(fresh, committed)?;
        Ok(())
    })
}

/// Fails if the committed .sqlx does not fit the queries and the schema.
fn check_queries(stack: &Stack, database_url: &str) -> Result<()> {
    let fresh = describe_queries(stack, database_url)?;
    ensure!(
        contents(&fresh)? == contents(&stack.root.join(".sqlx"))?,
        ".sqlx does not fit the queries and migrations: run `make sqlx` and commit the result"
    );
    Ok(())
}

/// Has the compiler ask the database about every query; returns the folder with the answers.
fn describe_queries(stack: &Stack, database_url: &str) -> Result<std::path::PathBuf> {
    let step = Step::start("queries", "checking them against the schema");
    let fresh = stack.folder.join("sqlx");
    files::removed(fs::remove_dir_all(&fresh))?;
    fs::create_dir_all(&fresh)?;
    // The macros ask while their crate is compiled, and cargo compiles it only if it looks changed.
    let source = File::options()
        .append(true)
        .open(stack.root.join("shared/src/lib.rs"))?;
    let modified = source.metadata()?.modified()?;
    source.set_modified(std::time::SystemTime::now())?;
    let mut check = process::cargo("cargo");
    check.current_dir(&stack.root).args(["check", "--package", "shared"]);
    check
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &fresh)
        .env("DATABASE_URL", database_url);
    let checked = process::run(&mut check, &stack.log("queries"), |_| {});
    source.set_modified(modified)?;
    checked?;
    step.done(&format!("{} fit the schema", contents(&fresh)?.len()));
    Ok(fresh)
}

fn contents(folder: &Path) -> Result<BTreeMap<OsString, String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    entries
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name(), fs::read_to_string(entry.path())?))
        })
        .collect()
}

/// Gives `work` the stack of the tests, without a past, and stops it however this process ends.
pub fn with_stack(settings: &Settings, work: impl FnOnce(&Stack) -> Result<()>) -> Result<()> {
    with_stack_of(settings, TEST, work)
}

/// The same with a stack of another name.
pub fn with_stack_of(settings: &Settings, name: &str, work: impl FnOnce(&Stack) -> Result<()>) -> Result<()> {
    let stack = Stack::of_its_own(settings, name)?;
    let _lock = stack.lock()?;
    stack.forget()?;
    let guard = Guard::start(name)?;
    let outcome = work(&stack);
    let ended = guard.end();
    outcome.and(ended)
}

/// The name of the tests' stack.
pub const TEST: &str = "test";

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

/// What the tests need beside a stack: the same once more, closed, and in the sandbox's shape; a browser; valgrind.
struct Surroundings {
    deployed: Deployed,
    closed: Deployed,
    sandbox: Deployed,
    jwks_url: String,
    chromium: PathBuf,
    valgrind: PathBuf,
}

impl Surroundings {
    /// Makes sure of all that; lints first, which is quick.
    fn prepare(stack: &Stack) -> Result<Self> {
        let chromium = CHROMIUM.find_or_install(&stack.log("packages"))?;
        let valgrind = VALGRIND.find_or_install(&stack.log("packages"))?;
        deploy::lint(stack)?;
        // Served by the test that needs it.
        let jwks_url = format!("http://127.0.0.1:{}/keys", process::free_port()?);
        Ok(Self {
            deployed: stack::up(stack)?,
            closed: stack::up_closed(stack)?,
            sandbox: stack::up_sandbox(stack, &jwks_url)?,
            jwks_url,
            chromium,
            valgrind,
        })
    }

    /// A cargo command with all that in its environment.
    fn cargo(&self, stack: &Stack) -> Result<Command> {
        let mut command = cargo(stack, &self.deployed)?;
        command
            .env("CHROMIUM", &self.chromium)
            .env("VALGRIND", &self.valgrind)
            .env("CLOSED_API_URL", &self.closed.api_url)
            .env("SANDBOX_API_URL", &self.sandbox.api_url)
            .env("SANDBOX_DATABASE_URL", &self.sandbox.database_url)
            .env("SANDBOX_JWKS_URL", &self.jwks_url)
            .env("ISSUER_KEY", stack.issuer_key());
        Ok(command)
    }
}

/// A cargo command with the stack in its environment.
pub fn cargo(stack: &Stack, deployed: &Deployed) -> Result<Command> {
    let mut command = process::cargo("cargo");
    command
        .current_dir(&stack.root)
        .env("DATABASE_URL", &deployed.database_url)
        .env("API_URL", &deployed.api_url)
        .env("QUEUE_URL", &deployed.task_queue_url)
        .env("DEAD_LETTER_QUEUE_URL", &deployed.dead_letter_queue_url)
        .env("TEMPLATES", deploy::templates(stack));
    deploy::into_emulator(&mut command, stack);
    if stack.owns_postgres() {
        // How the fault tests make it fail.
        command.env("FAIL_POSTGRES", std::env::current_exe()?);
    }
    Ok(command)
}

/// Runs it, here, and fails if it does.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().context("cannot start cargo")?;
    ensure!(status.success(), "cargo ended with {status}");
    Ok(())
}
