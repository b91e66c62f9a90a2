//! `make grade`: builds a candidate's work with the hidden checks, and reports which checks pass.

use std::{process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use xtask::{
    commands::environment::with_stack,
    stack::{deploy, settings::Settings, start},
    tools::{parallel::side_by_side, terminal::Step},
};

use crate::{
    exercises::ActiveExercise,
    git::Git,
    kit::Kit,
    pack, record, report,
    workshop::{Built, Workshop},
};

/// Grades the working tree of the exercise that is checked out, or what came back from a candidate.
pub fn run(settings: &Settings, name: Option<&str>, from: Option<&str>) -> Result<()> {
    let started = Instant::now();
    ensure!(
        from.is_some() || !settings.root.join(pack::MARK).exists(),
        "the checks are with your interviewer, who grades what you send back: this folder as an archive, or \
         the repository with your commits. `make test` and `make check` run the project's own tests"
    );
    let git = Git::open(&settings.root)?;
    let workshop = Workshop::open(settings)?;
    let (active, work) = match from {
        Some(from) => {
            let (active, tree) = pack::returned(&git, &settings.root, &workshop, from, name)?;
            (active, git.index()?.of_tree(&tree)?)
        }
        None => {
            let active = ActiveExercise::find(&git, name)?;
            active.ensure_checked_out(&git)?;
            (active, git.index()?.of_working_tree()?)
        }
    };
    let kit = Kit::of(&git, &active.kit)?;
    let exercise = kit.exercise(&active.name)?;
    let tree = exercise.with_grading(&work)?;
    drop(work);
    with_stack(settings, "grader", |stack| {
        let (mut built, mut database_url) = (None, String::new());
        side_by_side([
            &mut || {
                built = Some(workshop.build(&git, &exercise.grader()?, &tree)?);
                Ok(())
            },
            &mut || {
                database_url = start::postgres_and_aws(stack)?;
                Ok(())
            },
        ])?;
        let grader = match built.context("the build has no result")? {
            Built::Grader(grader) => grader,
            Built::Broken(errors) => {
                println!("\nThe code does not compile, so no checks ran:\n\n{errors}\n");
                println!("All errors: cargo check --all-targets\n");
                return Ok(());
            }
        };
        let mut command = Command::new(&grader.program);
        deploy::into_emulator(&mut command, stack);
        command.env("DATABASE_URL", database_url);
        let step = Step::start("checks", "running");
        let checks = workshop.check(&grader, &mut command)?;
        step.done("full output: .local/grading-checks.log");
        println!("\n{}\n\n{}", active.name, report::of_checks(&checks));
        if from.is_some() {
            // The record of an exercise belongs to its branch.
            return Ok(());
        }
        record::grade(&git, &active, &tree, started.elapsed().as_secs_f64(), &checks);
        Ok(())
    })
}
