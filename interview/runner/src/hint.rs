//! `make hint`: the next hint of the current exercise, on record.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::{
    exercises::ActiveExercise,
    git::Git,
    incident::commands,
    kit::{ANSWERS, INCIDENTS},
    record::{Event, Record, Start},
};

/// A hint.
#[derive(Debug, PartialEq, Eq)]
pub struct Hint {
    pub title: String,
    pub text: String,
}

/// The hints of an exercise or an incident, in the commit with the kit.
fn of(git: &Git, start: &Start) -> Result<Vec<Hint>> {
    let folder = if start.incident { INCIDENTS } else { ANSWERS };
    let path = format!("{folder}/{}/hints.md", start.exercise);
    let text = git.file(&start.kit, &path).with_context(|| {
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
pub fn run(root: &Path) -> Result<()> {
    let git = &Git::open(root)?;
    let (mut record, tree) = match commands::current(root, git)? {
        Some(incident) => incident,
        None => {
            let active = ActiveExercise::find(git, None)?;
            let record = Record::of_or_begin(git, &active)?;
            (record, git.index()?.of_working_tree()?.tree()?)
        }
    };
    let hints = of(git, &record.start)?;
    let taken = record.hints();
    let Some(hint) = hints.get(taken) else {
        println!("\nAll {} hints have been taken. Here they are again.", hints.len());
        for (number, hint) in (1..).zip(&hints) {
            print(number, hints.len(), hint);
        }
        return Ok(());
    };
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
