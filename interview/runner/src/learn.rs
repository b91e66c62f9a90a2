//! `make learn`: the exercises in order, with progress; after a pass, the reference and the notes.

use std::{cmp::Reverse, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{
    exercises::{ActiveExercise, section},
    git::Git,
    kit::{ANSWERS, Kit, State},
    page::{self, escape},
    record::{self, Record},
};

/// The levels, in the order to take the exercises in.
const LEVELS: [&str; 3] = ["junior", "mid", "senior"];

/// An exercise in the course.
struct Lesson {
    name: String,
    level: &'static str,
    kind: String,
    minutes: u32,
    progress: Progress,
}

/// How far it has come.
#[derive(Default)]
struct Progress {
    is_started: bool,
    is_passed: bool,
    /// The most checks passed, and of how many.
    best: Option<(usize, usize)>,
    /// The hints taken in the latest record.
    hints: usize,
}

/// Lists the exercises with progress, or shows the reference of the one named.
pub fn run(root: &Path, name: Option<&str>) -> Result<()> {
    let git = Git::open(root)?;
    // Within an exercise the kit is in the commit that it was started from.
    let active = ActiveExercise::find(&git, None).ok();
    let kit = match &active {
        Some(active) => active.kit.clone(),
        None => git.commit("HEAD").context("there is no commit yet")?,
    };
    match name {
        None => {
            print!(
                "\n{}\n",
                list(&lessons(&git, &kit)?, active.map(|active| active.name).as_deref())
            );
            Ok(())
        }
        Some(name) => reference(root, &git, &kit, name),
    }
}

fn lessons(git: &Git, kit: &str) -> Result<Vec<Lesson>> {
    let kit = Kit::of(git, kit)?;
    let mut lessons = Vec::new();
    for name in kit.names() {
        let brief = kit.exercise(&name)?.brief()?;
        let word = |what: &str| {
            let (_, rest) = brief.split_once(&format!("**{what}:** "))?;
            rest.split([' ', '\n', '·']).next()
        };
        let level = LEVELS.into_iter().find(|level| Some(*level) == word("Level"));
        let time_box = section(&brief, "Time box").unwrap_or_default();
        lessons.push(Lesson {
            level: level.unwrap_or("senior"),
            kind: word("Kind").unwrap_or_default().to_owned(),
            minutes: time_box
                .split(' ')
                .next()
                .and_then(|minutes| minutes.parse().ok())
                .unwrap_or_default(),
            progress: progress(git, &name)?,
            name,
        });
    }
    let level = |lesson: &Lesson| LEVELS.iter().position(|level| *level == lesson.level);
    lessons.sort_by(|one, other| (level(one), one.minutes, &one.name).cmp(&(level(other), other.minutes, &other.name)));
    Ok(lessons)
}

/// All records of an exercise, the latest first. A candidate's session is no progress of the
/// learner.
fn records<'a>(git: &'a Git, name: &str) -> Result<Vec<Record<'a>>> {
    let records = record::ids(git)?.into_iter().rev();
    let mut records: Vec<_> = records.filter_map(|id| Record::readable(git, &id)).collect();
    records.retain(|record| record.start.exercise == name && record.start.candidate.is_none());
    Ok(records)
}

fn progress(git: &Git, name: &str) -> Result<Progress> {
    let records = records(git, name)?;
    let grades = records.iter().flat_map(Record::grades);
    let best = grades
        .map(|(_, passed, all)| (passed, all))
        .max_by_key(|(passed, all)| (*passed, Reverse(*all)));
    Ok(Progress {
        is_started: !records.is_empty() || ActiveExercise::find(git, Some(name)).is_ok(),
        is_passed: records.iter().any(Record::is_passed),
        best,
        hints: records.first().map_or(0, Record::hints),
    })
}

fn list(lessons: &[Lesson], active: Option<&str>) -> String {
    let passed = lessons.iter().filter(|lesson| lesson.progress.is_passed).count();
    let mut text = format!("{passed} of {} exercises passed\n\n", lessons.len());
    for lesson in lessons {
        let Progress {
            is_started,
            is_passed,
            best,
            hints,
        } = lesson.progress;
        let mut state = match best {
            _ if is_passed => "passed".to_owned(),
            Some((passed, all)) => format!("{passed} of {all} checks"),
            None if is_started => "started".to_owned(),
            None => String::new(),
        };
        if hints > 0 {
            state += &format!(", {hints} of 3 hints");
        }
        let mark = if is_passed { '✓' } else { ' ' };
        text += format!(
            "  {mark} {:<22} {:<7} {:<7} {:>3} min  {state}",
            lesson.name, lesson.level, lesson.kind, lesson.minutes
        )
        .trim_end();
        text += "\n";
    }
    text += "\n";
    let next = lessons.iter().find(|lesson| !lesson.progress.is_passed);
    match (active, next) {
        (Some(name), _)
            if lessons
                .iter()
                .any(|lesson| lesson.name == name && lesson.progress.is_passed) =>
        {
            text += &format!(
                "{name} is passed:\n  make learn N={name}   the reference solution and the notes\n  \
                 make exercise-reset   ends it\n"
            );
        }
        (Some(name), _) => {
            text += &format!(
                "{name} is in progress:\n  the brief: interview/briefs/{name}/README.md\n  \
                 make hint    the next hint\n  make grade   check your work\n"
            );
        }
        (None, Some(next)) => {
            let name = &next.name;
            text += &match next.progress.is_started && next.progress.best.is_none() {
                _ if next.progress.best.is_some() => {
                    format!("To continue: make exercise N={name}, or git switch exercise/{name}\n")
                }
                true => format!("To continue: git switch exercise/{name}\n"),
                false => format!("Next: make exercise N={name}\n"),
            };
        }
        (None, None) => text += "All are passed. The reference of each: make learn N=<name>\n",
    }
    text
}

/// Writes a page with the reference solution beside the notes. Refuses before a pass.
fn reference(root: &Path, git: &Git, kit: &str, name: &str) -> Result<()> {
    let kit = Kit::of(git, kit)?;
    let exercise = kit.exercise(name)?;
    let progress = progress(git, name)?;
    ensure!(
        progress.is_passed,
        "the reference of {name} is shown after a grade that passes all checks; {}. For a hint: make hint",
        match progress.best {
            Some((passed, all)) => format!("your best passed {passed} of {all}"),
            None => "there is no grade yet besides those of sessions".to_owned(),
        }
    );
    let notes = git
        .file(&kit.id, &format!("{ANSWERS}/{name}/notes.md"))
        .context("the exercise has no notes")?;
    let solution = exercise
        .patch(State::Solution)
        .context("the exercise has no solution")?;
    let records = records(git, name)?;
    let passed = records.iter().find(|record| record.is_passed());
    let mut yours = String::new();
    if let Some(record) = passed {
        let pass = record.grades().filter(|(_, passed, all)| passed == all).last();
        if let Some((entry, ..)) = pass {
            yours = git.diff(&record.start.start, &entry.commit, ".sqlx")?;
        }
    }
    let body = format!(
        "<h1>{name}</h1>\n<div class=\"columns\">\n<section>\n<h2>Reference solution</h2>\n{}</section>\n\
         <section>\n<h2>Notes</h2>\n<pre class=\"text\">{}</pre>\n</section>\n</div>\n<h2>Your solution</h2>\n{}",
        page::diff(&solution),
        escape(notes.trim()),
        page::diff(&yours),
    );
    let path = page::write(root, "learn", &format!("{name}.html"), name, &body)?;
    println!("\nThe reference solution and the notes, side by side, and your solution: {path}\n");
    Ok(())
}
