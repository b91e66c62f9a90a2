//! The exercises of the interview kit: is each of them whole, does what a candidate gets fail its hidden checks, and does
//! the reference solution pass them? A test binary of its own, because it builds each exercise twice, in
//! `.local/grading`.
//!
//! What is proved is what is committed: an exercise is made from a commit. Within an exercise (no `interviewer/`), and
//! without git, there is nothing to prove.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::Path,
    process::{Command, Output},
};

/// The kinds, the section that says what is wanted, and whether there is a patch that the exercise begins with.
const KINDS: [(&str, &str, bool); 3] = [
    ("build", "Task", false),
    ("debug", "Symptoms", true),
    ("review", "Task", true),
];

const SECTIONS: [&str; 5] = ["Context", "Acceptance criteria", "Time box", "Hints", "Check yourself"];

const LEVELS: [&str; 3] = ["junior (0-2 years)", "mid (2-5 years)", "senior (5+ years)"];

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// What a git command prints, if it succeeds.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir("..").args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// Says something even if the test succeeds: what follows takes its time.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

fn file(path: &str) -> Option<String> {
    fs::read_to_string(Path::new("..").join(path)).ok()
}

/// The folders in a folder.
fn folders(path: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(Path::new("..").join(path)).into_iter().flatten();
    let folders = entries.map(|entry| entry.expect("an entry"));
    let folders = folders.filter(|entry| entry.path().is_dir());
    folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The exercises that the working tree has.
fn exercises() -> BTreeSet<String> {
    let mut exercises = folders("exercises");
    assert!(exercises.remove("grading"), "the graders' crate is there");
    exercises
}

/// True within an exercise, where the answers are not.
fn is_within_an_exercise() -> bool {
    !Path::new("../interviewer").exists()
}

/// All that is wrong with the files of an exercise.
fn mistakes(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut read = |path: String| {
        let text = file(&path);
        if text.is_none() {
            wrong.push(format!("there is no {path}"));
        }
        text.unwrap_or_default()
    };
    let brief = read(format!("exercises/{name}/README.md"));
    let notes = read(format!("interviewer/{name}/notes.md"));
    let grader = read(format!("interviewer/{name}/grader.rs"));
    read(format!("interviewer/{name}/solution.patch"));
    let catalogue = read("exercises/README.md".to_owned());

    let said = |what: &str| {
        let (_, rest) = brief.split_once(&format!("**{what}:** "))?;
        rest.split([' ', '\n', '·']).next()
    };
    let Some((_, wanted, starts_with_patch)) = KINDS.iter().find(|(kind, ..)| Some(*kind) == said("Kind")) else {
        wrong.push("the brief does not say **Kind:** build, debug or review".to_owned());
        return wrong;
    };
    if !LEVELS
        .iter()
        .any(|level| brief.contains(&format!("\n**Level:** {level} ·")))
    {
        wrong.push(format!("the brief does not say **Level:** one of {LEVELS:?}"));
    }
    for section in SECTIONS.iter().chain([wanted]) {
        if !brief.contains(&format!("\n## {section}\n")) {
            wrong.push(format!("the brief has no section {section}"));
        }
    }
    if brief.matches("<details><summary>Hint ").count() != 3 {
        wrong.push("the brief has no three hints".to_owned());
    }
    if brief.contains("interviewer/") {
        wrong.push("the brief speaks of what the candidate must not see".to_owned());
    }
    if !catalogue.contains(&format!("[{name}]({name}/README.md)")) {
        wrong.push("it is not in exercises/README.md".to_owned());
    }
    for (what, text, most) in [("brief", &brief, 90), ("notes", &notes, 80)] {
        if text.lines().count() > most {
            wrong.push(format!("the {what} has more than {most} lines"));
        }
    }
    let checks = grader.matches("#[tokio::test").count();
    // A review has one for each planted defect.
    let most = if *wanted == "Task" && *starts_with_patch { 16 } else { 8 };
    if !(5..=most).contains(&checks) {
        wrong.push(format!("the grader has {checks} checks, not 5 to {most}"));
    }
    let start = file(&format!("interviewer/{name}/start.patch"));
    if start.is_some() != *starts_with_patch {
        wrong.push("what it begins with is not as its kind wants it".to_owned());
    }
    let shown = file(&format!("exercises/{name}/pull-request.diff"));
    if shown.is_some() && shown != start {
        wrong.push("the pull request that the candidate reads is not the one that they get".to_owned());
    }
    wrong
}

#[test]
fn every_exercise_is_whole() {
    if is_within_an_exercise() {
        return;
    }
    assert_eq!(
        exercises(),
        folders("interviewer"),
        "the briefs, and what belongs to them"
    );
    for name in exercises() {
        assert_eq!(mistakes(&name), [""; 0], "{name}");
    }
}

/// What came of the checks of a state: of each its name, and why it failed, if it did.
fn checks(name: &str, state: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let xtask = std::env::var("XTASK").expect("XTASK is not set: run the tests with `make verify`");
    let output = run(&xtask, &["prove-exercise", name, state]);
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}, {state}: {reason}"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let checks = text.lines().map(|line| {
        let mut columns = line.split('\t').map(str::to_owned);
        let mut column = || columns.next().expect("three columns");
        let (check, outcome, reason) = (column(), column(), column());
        (check, (outcome != "passed").then_some(reason))
    });
    Ok(checks.collect())
}

/// What the states of an exercise are to be, and are not.
fn disproved(name: &str) -> Result<(), String> {
    let start = checks(name, "start")?;
    let failed = start.iter().filter(|(_, reason)| reason.is_some()).count();
    if failed == 0 {
        return Err(format!("{name}: there is nothing to do, all checks pass at the start"));
    }
    let is_debug = file(&format!("exercises/{name}/README.md")).is_some_and(|brief| brief.contains("**Kind:** debug"));
    if is_debug && failed == start.len() {
        return Err(format!(
            "{name}: everything fails at the start, so the checks tell nothing"
        ));
    }
    for (check, reason) in checks(name, "solution")? {
        if let Some(reason) = reason {
            return Err(format!("{name}: the solution fails {check}: {reason}"));
        }
    }
    say(&format!(
        "  ✓ {name}: {failed} of {} checks fail at the start, none with the solution",
        start.len()
    ));
    Ok(())
}

/// What must stay as it is: what is checked out, the branches, the index, the settings, the working tree.
fn repository() -> [Option<String>; 5] {
    [
        git(&["symbolic-ref", "HEAD"]),
        git(&["show-ref", "--head"]),
        git(&["ls-files", "--stage"]),
        git(&["config", "--local", "--list"]),
        git(&["--no-optional-locks", "status", "--porcelain"]),
    ]
}

#[test]
fn what_a_candidate_gets_fails_its_checks_and_the_reference_solution_passes_them() {
    let committed = git(&["ls-tree", "--name-only", "HEAD:interviewer"]).unwrap_or_default();
    if is_within_an_exercise() || committed.is_empty() {
        return;
    }
    let before = repository();
    if before[4] != Some(String::new()) {
        say("  the exercises are proved as they are committed, without what is changed since");
    }
    let names = exercises();
    let committed = names.iter().filter(|name| committed.lines().any(|line| line == *name));
    let wrong: Vec<String> = committed.filter_map(|name| disproved(name).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(repository(), before, "the repository is as it was");
}
