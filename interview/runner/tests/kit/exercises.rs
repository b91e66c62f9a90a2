//! Checks that each exercise is complete: brief, notes, grader and patches. (`make verify` proves
//! them.)

use std::{collections::BTreeSet, fs, path::Path};

use support::documents::{ROOT, file};

/// The kinds, the section with the assignment, and whether the exercise starts from a patch.
const KINDS: [(&str, &str, bool); 4] = [
    ("build", "Task", false),
    ("debug", "Symptoms", true),
    ("read", "Task", false),
    ("review", "Task", true),
];

const SECTIONS: [&str; 5] = ["Context", "Acceptance criteria", "Time box", "Hints", "Check yourself"];

const LEVELS: [&str; 3] = ["junior (0-2 years)", "mid (2-5 years)", "senior (5+ years)"];

/// The names of a folder's subfolders.
fn folders(path: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(Path::new(ROOT).join(path)).into_iter().flatten();
    let folders = entries.map(|entry| entry.expect("an entry"));
    let folders = folders.filter(|entry| entry.path().is_dir());
    folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Within an exercise the answers are absent.
fn is_within_an_exercise() -> bool {
    !Path::new(ROOT).join("interview/answers").exists()
}

/// Everything that is wrong with an exercise's files.
fn mistakes(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut read = |path: String| {
        let text = file(&path);
        if text.is_none() {
            wrong.push(format!("there is no {path}"));
        }
        text.unwrap_or_default()
    };
    let brief = read(format!("interview/briefs/{name}/README.md"));
    let notes = read(format!("interview/answers/{name}/notes.md"));
    // A text is compared with a key.
    let key = file(&format!("interview/answers/{name}/key.toml"));
    let grader = match key {
        Some(_) => String::new(),
        None => read(format!("interview/answers/{name}/grader.rs")),
    };
    read(format!("interview/answers/{name}/solution.patch"));
    let catalogue = read("interview/briefs/README.md".to_owned());

    let said = |what: &str| {
        let (_, rest) = brief.split_once(&format!("**{what}:** "))?;
        rest.split([' ', '\n', '·']).next()
    };
    let Some((_, wanted, starts_with_patch)) = KINDS.iter().find(|(kind, ..)| Some(*kind) == said("Kind")) else {
        wrong.push("the brief lacks **Kind:** build, debug, read or review".to_owned());
        return wrong;
    };
    if !LEVELS
        .iter()
        .any(|level| brief.contains(&format!("\n**Level:** {level} ·")))
    {
        wrong.push(format!("the brief lacks **Level:** with one of {LEVELS:?}"));
    }
    for section in SECTIONS.iter().chain([wanted]) {
        if !brief.contains(&format!("\n## {section}\n")) {
            wrong.push(format!("the brief has no section {section}"));
        }
    }
    if brief.matches("<details><summary>Hint ").count() != 3 {
        wrong.push("the brief does not have three hints".to_owned());
    }
    if brief.contains("interview/answers") {
        wrong.push("the brief mentions files that the candidate must not see".to_owned());
    }
    if !catalogue.contains(&format!("[{name}]({name}/README.md)")) {
        wrong.push("it is not in interview/briefs/README.md".to_owned());
    }
    for (what, text, most) in [("brief", &brief, 110), ("notes", &notes, 100)] {
        if text.lines().count() > most {
            wrong.push(format!("the {what} has more than {most} lines"));
        }
    }
    let checks = grader.matches("#[tokio::test").count();
    if key.is_none() && !(5..=9).contains(&checks) {
        wrong.push(format!("the grader has {checks} checks, not 5 to 9"));
    }
    let mutants = fs::read_dir(Path::new(ROOT).join(format!("interview/answers/{name}/mutants")));
    let mutants = mutants.into_iter().flatten().count();
    if !(6..=12).contains(&mutants) {
        wrong.push(format!("it has {mutants} mutants, not 6 to 12"));
    }
    let start = file(&format!("interview/answers/{name}/start.patch"));
    if start.is_some() != *starts_with_patch {
        wrong.push("start.patch must exist for debug and review exercises only".to_owned());
    }
    let shown = file(&format!("interview/briefs/{name}/pull-request.diff"));
    if shown.is_some() && shown != start {
        wrong.push("pull-request.diff differs from start.patch".to_owned());
    }
    wrong
}

#[test]
fn every_exercise_is_complete() {
    if is_within_an_exercise() {
        return;
    }
    assert_eq!(
        folders("interview/briefs"),
        folders("interview/answers"),
        "the exercises with briefs, and those with answers"
    );
    for name in folders("interview/briefs") {
        assert_eq!(mistakes(&name), [""; 0], "{name}");
    }
}
