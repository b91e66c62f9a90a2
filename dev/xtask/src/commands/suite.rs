//! Building and running test programs, and adding up their results.

use std::{
    ops::AddAssign,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    stack::{Stack, functions::Progress, migrations},
    tools::{
        process,
        terminal::{self, Step},
    },
};

/// The in-process tests, which call the code directly, as arguments of [`build`].
pub const IN_PROCESS: [&str; 7] = [
    "--lib",
    "--bin",
    "dead-letters",
    "--bin",
    "xtask",
    "--test",
    "functions",
];

/// The numbers of tests, by result.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl Totals {
    /// Prints the totals as the last line. Fails if a test failed or no test ran.
    pub fn conclude(self) -> Result<()> {
        let Self {
            passed,
            failed,
            ignored,
        } = self;
        println!("\n{passed} passed, {failed} failed, {ignored} skipped");
        ensure!(failed == 0, "{failed} tests failed: see above");
        ensure!(passed > 0, "no test ran: no test name matches the filter");
        Ok(())
    }

    /// One passed: for a check that does not run in libtest.
    pub fn one_passed() -> Self {
        Self {
            passed: 1,
            ..Self::default()
        }
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |name: &str| {
            let count = counts.split("; ").find_map(|count| count.strip_suffix(name));
            count.and_then(|count| count.trim().parse().ok())
        };
        Some(Self {
            passed: count(" passed")?,
            failed: count(" failed")?,
            ignored: count(" ignored")?,
        })
    }
}

/// A test program that cargo has built.
#[derive(Clone, Debug)]
pub struct TestProgram {
    /// The name of its crate, or its name in tests/Cargo.toml
    pub name: String,
    executable: PathBuf,
    /// The folder of its package, in which cargo would run it.
    folder: PathBuf,
}

/// Builds the test programs of these targets, and returns them.
pub fn build(root: &Path, targets: &[&str], log: &Path) -> Result<Vec<TestProgram>> {
    let step = Step::start("tests", "compiling the tests");
    let mut command = process::cargo("cargo", root);
    command.args([
        "test",
        "--no-run",
        "--workspace",
        "--message-format",
        "json-render-diagnostics",
    ]);
    command.args(targets);
    command
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "120");
    let mut progress = Progress::begin(root);
    let mut programs = Vec::new();
    let mut errors = Vec::new();
    let built = process::run(&mut command, log, |line| {
        if let Some(program) = program(line) {
            programs.push(program);
        } else if let Some(progress) = progress.read(line) {
            step.show(&progress);
        } else if !line.starts_with('{') {
            errors.push(line.to_owned());
        }
    });
    if built.is_err() {
        terminal::say(&errors.join("\n"));
        anyhow::bail!("the tests do not compile: see above");
    }
    progress.save_pace();
    step.done("compiled the tests");
    Ok(programs)
}

/// The test program in a line of cargo's JSON, if it has one.
fn program(line: &str) -> Option<TestProgram> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let executable = message["executable"].as_str().filter(|_| is_test)?;
    Some(TestProgram {
        name: message["target"]["name"].as_str()?.to_owned(),
        executable: PathBuf::from(executable),
        folder: Path::new(message["manifest_path"].as_str()?).parent()?.to_owned(),
    })
}

impl TestProgram {
    /// The program of this name.
    pub fn find<'a>(programs: &'a [Self], name: &str) -> Result<&'a Self> {
        let found = programs.iter().find(|program| program.name == name);
        found.with_context(|| format!("cargo has built no test program {name}"))
    }

    /// The command that runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        // As cargo runs it.
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }

    /// True if it has a test that matches the filter.
    pub fn has(&self, filter: &str) -> Result<bool> {
        let list = process::output(self.command().args(["--list", filter]))?;
        Ok(list.lines().any(|line| line.ends_with(": test")))
    }

    /// Runs its tests, with the environment that `prepare` sets. Their output goes to the log; that
    /// of failed tests also to the terminal.
    pub fn run(&self, log: &Path, prepare: impl FnOnce(&mut Command)) -> Result<Totals> {
        let mut command = self.command();
        prepare(&mut command);
        let step = Step::start("tests", &self.name);
        let mut totals = None;
        let (mut finished, mut lines) = (0, Vec::new());
        let ran = process::run(&mut command, log, |line| {
            if line.starts_with("test ") && line.contains(" ... ") {
                finished += 1;
                step.show(&format!("{}: {finished} tests", self.name));
            }
            totals = totals.or_else(|| Totals::parse(line));
            lines.push(line.to_owned());
        });
        match (ran, totals) {
            (Ok(()), Some(totals)) if totals.passed == 0 => Ok(totals),
            (Ok(()), Some(totals)) => {
                step.done(&format!("{}: {} passed", self.name, totals.passed));
                Ok(totals)
            }
            (Err(_), Some(totals)) if totals.failed > 0 => {
                let failures = lines.iter().skip_while(|line| *line != "failures:");
                let failures: Vec<&str> = failures.map(String::as_str).collect();
                terminal::say(&format!(
                    "\n{}\n  ✗ {}: {} failed",
                    failures.join("\n"),
                    self.name,
                    totals.failed
                ));
                Ok(totals)
            }
            (Err(error), _) => Err(error.context(format!("the tests {} did not finish", self.name))),
            (Ok(()), None) => anyhow::bail!(
                "the tests {} printed no totals; their log: {}",
                self.name,
                log.display()
            ),
        }
    }
}

/// Runs in-process tests; those of `functions` with a migrated database each.
pub fn run_in_process(test: &TestProgram, stack: &Stack, skip: &[&str], set: impl Fn(&mut Command)) -> Result<Totals> {
    let skip = skip.iter().flat_map(|skip| ["--skip", skip]);
    if test.name != "functions" {
        return test.run(&stack.log(&test.name), |command| {
            set(command);
            command.args(skip);
        });
    }
    // The migrator's tests first: they need empty databases.
    let mut totals = test.run(&stack.log("functions-migrator"), |command| {
        set(command);
        command.arg(MIGRATOR);
    })?;
    migrations::migrate_template(stack)?;
    totals += test.run(&stack.log("functions"), |command| {
        set(command);
        command.args(["--skip", MIGRATOR]).args(skip);
        // More threads than cores: they mostly wait for Postgres.
        command.arg(format!("--test-threads={}", 2 * cores()));
    })?;
    Ok(totals)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The module of the migrator's tests.
const MIGRATOR: &str = "migrator::";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_parsed_from_libtest_output() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.5s";
        let totals = Totals::parse(line).expect("totals");
        assert_eq!((totals.passed, totals.failed, totals.ignored), (12, 2, 1));
        assert!(Totals::parse("test result: unknown").is_none());
        assert!(totals.conclude().is_err(), "tests failed");
        assert!(Totals::default().conclude().is_err(), "no test ran");
        Totals::one_passed().conclude().expect("one passed");
    }

    #[test]
    fn only_test_programs_are_parsed_from_artifacts() {
        let line = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/p/shared/Cargo.toml","target":{{"name":"shared"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let found = program(&line(true, "\"/p/target/debug/deps/shared-1\"")).expect("a program");
        assert_eq!(
            (found.name.as_str(), found.folder.as_path()),
            ("shared", Path::new("/p/shared"))
        );
        assert!(program(&line(false, "\"/p/target/debug/x\"")).is_none());
        assert!(program(&line(true, "null")).is_none());
        assert!(program("   Compiling shared").is_none());
    }
}
