//! `make grade`: builds what a candidate has, together with the hidden checks, and reports how far it is.

use std::process::Command;

use anyhow::{Context, Result};
use xtask::{
    commands::environment::with_stack,
    stack::{deploy, settings::Settings, start},
    tools::{parallel::side_by_side, terminal::Step},
};

use crate::{
    exercises::Begun,
    git::Git,
    kit::Kit,
    report,
    workshop::{Built, Workshop},
};

/// Grades the exercise that is checked out, as it is in the working tree.
pub fn run(settings: &Settings, name: Option<&str>) -> Result<()> {
    let git = Git::open(&settings.root)?;
    let begun = Begun::find(&git, name)?;
    begun.ensure_checked_out(&git)?;
    let kit = Kit::of(&git, &begun.kit)?;
    let exercise = kit.exercise(&begun.name)?;
    let tree = exercise.with_grading(&git.index()?.of_working_tree()?)?;
    let workshop = Workshop::open(settings)?;
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
        let grader = match built.context("it was built")? {
            Built::Grader(grader) => grader,
            Built::Broken(errors) => {
                println!("\nIt does not compile, so nothing could be checked:\n\n{errors}\n");
                println!("The same, and what follows: cargo check --all-targets\n");
                return Ok(());
            }
        };
        let mut command = Command::new(&grader.program);
        deploy::into_emulator(&mut command, stack);
        command.env("DATABASE_URL", database_url);
        let step = Step::start("checks", "running");
        let checks = workshop.check(&grader, &mut command)?;
        step.done("all that they printed: .local/grading-checks.log");
        println!("\n{}\n\n{}", begun.name, report::of_checks(&checks));
        Ok(())
    })
}
