//! `make test`, and what else needs a stack of its own.

use std::{
    fs,
    io::Read,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};

use crate::{
    dead_letters, deploy,
    functions::{self, Profile, Programs},
    openapi::{self, Depth},
    process,
    programs::CHROMIUM,
    queries,
    settings::{Auth, Settings},
    stack::{self, Deployed, Handover, Stack, side_by_side},
    suite::{self, TestProgram, Totals},
    tools::Tool,
    ui,
};

/// The name of the tests' stack.
pub const TEST: &str = "test";

/// The name of the stack for what needs one to itself: the commands of the documents, and then the faults.
const ALONE: &str = "alone";

/// What [`suite::build`] builds: everything but exercises, and what only release builds pass.
const TARGETS: [&str; 13] = [
    "--lib",
    "--bin",
    "xtask",
    "--test",
    "functions",
    "--test",
    "infrastructure",
    "--test",
    "deployed",
    "--test",
    "documentation",
    "--test",
    "chaos",
];

/// The test programs that need a deployment, or a translated template, or a stack to themselves.
const NOT_IN_PROCESS: [&str; 4] = ["infrastructure", "deployed", "documentation", "chaos"];

/// Runs every test, on fresh stacks, with the functions in the profile `local`. Stacks, compiling and linting go side by side:
/// each part begins as soon as what it needs is there.
pub fn run(settings: &Settings, filter: Option<&str>) -> Result<()> {
    if let Some(filter) = filter {
        return run_some(settings, filter);
    }
    let totals = Mutex::new(Totals::default());
    let add = |of: Totals| *totals.lock().unwrap_or_else(PoisonError::into_inner) += of;
    with_stack(settings, TEST, |stack| {
        with_stack(settings, ALONE, |alone| {
            let root = &settings.root;
            let (built, tests) = (Handover::<Built>::default(), Handover::<Vec<TestProgram>>::default());
            let (services, deployed) = (Handover::<InProcess>::default(), Handover::<Environment>::default());
            let (linted, documented) = (Handover::<()>::default(), Handover::<Deployed>::default());
            side_by_side([
                &mut || {
                    let programs = functions::build(&stack.tools, root, Profile::Local, &stack.log("build"))?;
                    let dead_letters = dead_letters::build(root)?;
                    built.give(Built { programs, dead_letters });
                    tests.give(suite::build(root, &TARGETS, &stack.log("tests-build"))?);
                    Ok(())
                },
                &mut || {
                    services.give(InProcess::prepare(stack)?);
                    stack.tools.install(&Tool::ALWAYS)?;
                    let chromium = CHROMIUM.find_or_install(&stack.log("packages"))?;
                    deployed.give(Environment::prepare(stack, &built.take()?.programs, &chromium)?);
                    Ok(())
                },
                &mut || {
                    stack.tools.install(&Tool::ALWAYS)?;
                    stack::postgres_and_aws(alone)?;
                    let built = built.take()?;
                    let deployed = stack::deploy_local(alone, &built.programs)?;
                    let tests = tests.take()?;
                    let documentation = TestProgram::find(tests, "documentation")?;
                    add(documentation.run(&alone.log("documentation"), |command| {
                        environment_of(command, alone, &deployed);
                        command.env("DEAD_LETTERS", &built.dead_letters);
                    })?);
                    documented.give(deployed);
                    Ok(())
                },
                &mut || {
                    deploy::lint(stack)?;
                    linted.give(());
                    Ok(())
                },
                // One after the other, as they look at clocks; only the documents' commands, which mostly wait, run beside.
                &mut || {
                    linted.take()?;
                    let (tests, services, environment) = (tests.take()?, services.take()?, deployed.take()?);
                    for test in tests
                        .iter()
                        .filter(|test| !NOT_IN_PROCESS.contains(&test.name.as_str()))
                    {
                        add(run_in_process(test, stack, None, |command| services.set(command))?);
                    }
                    for name in ["infrastructure", "deployed"] {
                        let test = TestProgram::find(tests, name)?;
                        add(test.run(&stack.log(name), |command| environment.set(command))?);
                    }
                    openapi::contract_test(stack, &environment.closed.api_url, Depth::Short)?;
                    chaos_run(alone, documented.take()?, TestProgram::find(tests, "chaos")?)?;
                    add(Totals::one_passed());
                    add(Totals::one_passed());
                    Ok(())
                },
            ])
        })
    })?;
    ui::print_seconds();
    totals.into_inner().unwrap_or_else(PoisonError::into_inner).conclude()
}

/// What is compiled before the tests.
struct Built {
    programs: Programs,
    dead_letters: PathBuf,
}

/// Runs only the tests whose name has the filter in it, with no more around them than those need.
fn run_some(settings: &Settings, filter: &str) -> Result<()> {
    let mut totals = Totals::default();
    with_stack(settings, TEST, |stack| {
        let root = &settings.root;
        let tests = suite::build(root, &TARGETS[..9], &stack.log("tests-build"))?;
        let wanted: Vec<&TestProgram> = tests.iter().filter(|test| test.has(filter).unwrap_or(true)).collect();
        let wants = |name: &str| wanted.iter().any(|test| test.name == name);
        if wants("infrastructure") {
            deploy::lint(stack)?;
        }
        let environment = match wants("deployed") {
            true => {
                let chromium = CHROMIUM.find_or_install(&stack.log("packages"))?;
                let (_, programs) = stack::start_and_deploy(stack, Profile::Local)?;
                Some(Environment::prepare(stack, &programs, &chromium)?)
            }
            false => None,
        };
        let in_process = InProcess::prepare(stack)?;
        for test in wanted {
            totals += test.run(&stack.log(&test.name), |command| {
                match &environment {
                    Some(environment) => environment.set(command),
                    None => in_process.set(command),
                }
                command.env("TEMPLATES", deploy::templates(stack)).arg(filter);
            })?;
        }
        Ok(())
    })?;
    totals.conclude()
}

/// Holds the API against openapi.json, at full length.
pub fn contract(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        let (_, programs) = stack::start_and_deploy(stack, Profile::Local)?;
        let closed = stack::deploy_another(stack, "closed", Auth::Closed, &programs)?;
        openapi::contract_test(stack, &closed.api_url, Depth::Long)
    })
}

/// Runs only the fault tests, at full length.
pub fn chaos(settings: &Settings, tasks: u32, seed: Option<u64>) -> Result<()> {
    with_stack(settings, ALONE, |stack| {
        let (deployed, _) = stack::start_and_deploy(stack, settings.profile)?;
        let tests = suite::build(&settings.root, &["--test", "chaos"], &stack.log("tests-build"))?;
        let mut command = TestProgram::find(&tests, "chaos")?.command();
        environment_of(&mut command, stack, &deployed);
        command.env("CHAOS_TASKS", tasks.to_string());
        if let Some(seed) = seed {
            command.env("CHAOS_SEED", seed.to_string());
        }
        let status = command.status().context("cannot start the fault tests")?;
        ensure!(status.success(), "the fault tests ended with {status}");
        Ok(())
    })
}

/// The fault tests, in short.
pub fn chaos_run(stack: &Stack, deployed: &Deployed, test: &TestProgram) -> Result<()> {
    let step = ui::Step::start("tests", "chaos");
    let mut command = test.command();
    environment_of(&mut command, stack, deployed);
    process::run(&mut command, &stack.log("chaos"), |line| {
        step.says(&format!("chaos: {}", line.trim()))
    })?;
    step.done("chaos: nothing lost, nothing done twice");
    Ok(())
}

/// What the coverage is not about: the runner, the tests themselves, what the graders of the exercises use, and each
/// `main`, which the deployed functions run.
const NOT_COVERED: &str = "dev/xtask/|tests/|exercises/|main.rs";

/// Runs the tests that call the code in their own process, with coverage: a table, and HTML in coverage/.
pub fn coverage(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        stack.tools.install_cargo_llvm_cov()?;
        let in_process = InProcess::prepare(stack)?;
        let llvm_cov = |arguments: &[&str]| {
            let mut command = process::cargo("cargo", &settings.root);
            in_process.set(&mut command);
            command.env("PATH", stack.tools.path()?).arg("llvm-cov").args(arguments);
            let status = command.args(["--ignore-filename-regex", NOT_COVERED]).status();
            let status = status.context("cannot start cargo")?;
            ensure!(status.success(), "cargo ended with {status}");
            Ok(())
        };
        llvm_cov(&[
            "--workspace",
            "--exclude",
            "xtask",
            "--exclude",
            "grading",
            "--lib",
            "--test",
            "functions",
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
    with_stack(settings, TEST, |stack| {
        queries::refresh(&settings.root, &stack::database(stack)?, &stack.log("queries"))
    })
}

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
        stack::postgres_and_aws(stack)?;
        // The tests make databases of their own beside it.
        let database_url = stack::database(stack)?;
        let aws_url = stack.emulator.url();
        Ok(Self { database_url, aws_url })
    }

    /// Says where they are.
    pub fn set(&self, command: &mut Command) {
        command.env("DATABASE_URL", &self.database_url);
        deploy::into_aws_at(command, &self.aws_url);
    }
}

/// Runs the tests that call the code in their own process, for those called `functions` with a migrated database for each.
pub fn run_in_process(
    test: &TestProgram,
    stack: &Stack,
    skip: Option<&str>,
    set: impl Fn(&mut Command),
) -> Result<Totals> {
    let skip = skip.into_iter().flat_map(|skip| ["--skip", skip]);
    if test.name != "functions" {
        return test.run(&stack.log(&test.name), |command| {
            set(command);
            command.args(skip);
        });
    }
    // The migrator's tests want empty databases, and so come first.
    let mut totals = test.run(&stack.log("functions-migrator"), |command| {
        set(command);
        command.arg(MIGRATOR);
    })?;
    stack::migrate_template(stack)?;
    totals += test.run(&stack.log("functions"), |command| {
        set(command);
        command.args(["--skip", MIGRATOR]).args(skip);
    })?;
    Ok(totals)
}

/// The module of the migrator's tests.
const MIGRATOR: &str = "migrator::";

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
    pub fn prepare(stack: &'a Stack, programs: &Programs, chromium: &std::path::Path) -> Result<Self> {
        // Served by the test that needs it.
        let jwks_url = format!("http://127.0.0.1:{}/keys", process::free_port()?);
        // One after the other: the local AWS creates one stack at a time.
        Ok(Self {
            stack,
            open: stack::deploy_local(stack, programs)?,
            closed: stack::deploy_another(stack, "closed", Auth::Closed, programs)?,
            sandbox: stack::deploy_sandbox_shape(stack, &jwks_url, programs)?,
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

/// Removes what an earlier run has left of the folder.
pub fn empty_folder(folder: &std::path::Path) -> Result<()> {
    crate::files::remove_if_exists(fs::remove_dir_all(folder))?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}
