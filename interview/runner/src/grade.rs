//! `make grade`: builds a candidate's work with the hidden checks, and reports which checks pass.

use std::{fs, path::PathBuf, sync::OnceLock, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Args;
use xtask::{
    commands::environment::with_stack,
    stack::{Stack, settings::Settings},
    tools::terminal,
};

use crate::{
    exercises::ActiveExercise,
    git::Git,
    kit::{Exercise, Kit},
    report::{self, Check},
    workshop::{Graded, Services, Work, Workshop},
};

/// How often the files are compared with those that were graded last.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The options of `make grade`.
#[derive(Args)]
pub struct Options {
    /// A folder in interview/briefs
    #[arg(long, env = "N")]
    name: Option<String>,
    /// Grade again after every change: WATCH=1
    #[arg(long, env = "WATCH", num_args = 0..=1, default_missing_value = "1")]
    watch: Option<String>,
    /// Also write the report to this file, as JSON: JSON=report.json
    #[arg(long, env = "JSON")]
    json: Option<PathBuf>,
}

/// Grades the working tree of the exercise that is checked out.
pub fn run(settings: &Settings, options: &Options) -> Result<()> {
    let git = Git::open(&settings.root)?;
    let active = ActiveExercise::find(&git, options.name.as_deref())?;
    active.ensure_checked_out(&git)?;
    let kit = Kit::of(&git, &active.kit)?;
    let exercise = kit.exercise(&active.name)?;
    let workshop = Workshop::open(settings)?;
    let grading = Grading {
        git: &git,
        active: &active,
        exercise: &exercise,
        workshop: &workshop,
        options,
        services: OnceLock::new(),
    };
    if exercise.key()?.is_some() {
        // A text needs no services.
        return grading.run(None);
    }
    with_stack(settings, "grader", |stack| grading.run(Some(stack)))
}

struct Grading<'a> {
    git: &'a Git,
    active: &'a ActiveExercise,
    exercise: &'a Exercise<'a>,
    workshop: &'a Workshop,
    options: &'a Options,
    /// Started once.
    services: OnceLock<Services>,
}

impl Grading<'_> {
    /// Grades once, or after every change.
    fn run(&self, stack: Option<&Stack>) -> Result<()> {
        let mut tree = self.tree()?;
        let watch = self
            .options
            .watch
            .as_deref()
            .is_some_and(|watch| !matches!(watch, "" | "0"));
        loop {
            let outcome = self.grade(&tree, stack);
            if !watch {
                return outcome;
            }
            if let Err(error) = outcome {
                terminal::say(&format!("\n{error:#}"));
            }
            terminal::say("  … watch      waiting for a change (Ctrl-C ends)");
            tree = self.next(&tree)?;
        }
    }

    /// The work as it is now.
    fn tree(&self) -> Result<String> {
        self.exercise.with_grading(&self.git.index()?.of_working_tree()?)
    }

    /// The next state that differs from this one and does not change any more.
    fn next(&self, graded: &str) -> Result<String> {
        let mut last = graded.to_owned();
        loop {
            thread::sleep(LOOK_EVERY);
            let now = self.tree()?;
            if now == last && now != graded {
                return Ok(now);
            }
            last = now;
        }
    }

    /// Grades a tree and prints the report. Fails if a check does.
    fn grade(&self, tree: &str, stack: Option<&Stack>) -> Result<()> {
        let work = Work {
            exercise: self.exercise,
            start: &self.active.start,
            tree,
        };
        let services = || match self.services.get() {
            Some(services) => Ok(services.clone()),
            None => {
                let started = Services::start(stack.context("only texts are graded without a stack")?)?;
                Ok(self.services.get_or_init(|| started).clone())
            }
        };
        let checks = match self.workshop.grade(self.git, &work, None, services)? {
            Graded::Checked(checks) => checks,
            Graded::Broken(errors) => {
                println!("\nThe code does not compile, so no checks ran:\n\n{errors}\n");
                println!("All errors: cargo check --all-targets\n");
                self.write(&[Check::failed("the_code_compiles", errors)])?;
                anyhow::bail!("the code does not compile");
            }
        };
        println!("\n{}\n\n{}", self.active.name, report::of_checks(&checks));
        self.write(&checks)?;
        let failed = checks.iter().filter(|check| !check.passed()).count();
        ensure!(failed == 0, "{failed} of {} checks failed", checks.len());
        Ok(())
    }

    /// Writes the report for programs, if that is wanted.
    fn write(&self, checks: &[Check]) -> Result<()> {
        let Some(file) = &self.options.json else { return Ok(()) };
        let text = format!("{:#}\n", report::as_json(&self.active.name, checks));
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}
