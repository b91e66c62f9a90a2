//! `make hint`: the next hint of the current exercise, on record.

use anyhow::{Context, Result, ensure};

use crate::{
    exercises::ActiveExercise,
    git::Git,
    kit::ANSWERS,
    record::{Event, Record},
};

/// A hint.
#[derive(Debug, PartialEq, Eq)]
pub struct Hint {
    pub title: String,
    pub text: String,
}

/// The hints of an exercise in a commit with the kit.
pub fn of(git: &Git, kit: &str, exercise: &str) -> Result<Vec<Hint>> {
    let path = format!("{ANSWERS}/{exercise}/hints.md");
    let text = git.file(kit, &path).with_context(|| {
        format!("this exercise has no hints on file ({path}): it was started before they moved there from its brief")
    })?;
    let hints = parse(&text);
    ensure!(
        !hints.is_empty(),
        "{path} has no heading like `## Hint 1: where to look`"
    );
    Ok(hints)
}

fn parse(text: &str) -> Vec<Hint> {
    let sections = text.split("\n## Hint ").skip(1);
    let hints = sections.filter_map(|section| {
        let (heading, text) = section.split_once('\n')?;
        let (_, title) = heading.split_once(": ")?;
        Some(Hint {
            title: title.trim().to_owned(),
            // Links start in the hints' folder; on a terminal, in the project's.
            text: text.trim().replace("](../../../", "]("),
        })
    });
    hints.collect()
}

/// Prints the next hint and records that it was taken.
pub fn run(git: &Git) -> Result<()> {
    let active = ActiveExercise::find(git, None)?;
    let hints = of(git, &active.kit, &active.name)?;
    let mut record = Record::of_or_begin(git, &active)?;
    let taken = record.hints();
    let Some(hint) = hints.get(taken) else {
        println!("\nAll {} hints have been taken. Here they are again.", hints.len());
        for (number, hint) in (1..).zip(&hints) {
            print(number, hints.len(), hint);
        }
        return Ok(());
    };
    let tree = git.index()?.of_working_tree()?.tree()?;
    let (number, title) = (taken + 1, hint.title.clone());
    record.add(&tree, Event::Hint { number, title })?;
    print(number, hints.len(), hint);
    println!(
        "Recorded as taken after {:.0} minutes.\n",
        record.minutes_to(crate::record::now())
    );
    Ok(())
}

fn print(number: usize, of: usize, hint: &Hint) {
    println!("\nHint {number} of {of}: {}\n\n{}\n", hint.title, hint.text);
}
