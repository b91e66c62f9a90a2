//! Checks that each exercise is complete: brief, notes, grader and patches. (`make verify` proves
//! them.)

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

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
    let hints = read(format!("interview/answers/{name}/hints.md"));
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
    if brief.contains("Hint 1") {
        wrong.push("the brief shows hints: they belong into hints.md".to_owned());
    }
    if !(1..=3).all(|number| hints.contains(&format!("\n## Hint {number}: "))) || hints.contains("\n## Hint 4") {
        wrong.push("hints.md does not have three hints".to_owned());
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
    if mutants < 6 {
        wrong.push(format!("it has {mutants} mutants, fewer than 6"));
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

/// Runs git with a separate index. None if it fails.
fn git(index: &Path, arguments: &[&str], input: &str) -> Option<()> {
    let mut git = Command::new("git");
    git.current_dir(ROOT).env("GIT_INDEX_FILE", index).args(arguments);
    let mut git = git.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    git.stdin.take()?.write_all(input.as_bytes()).ok()?;
    git.wait().ok()?.success().then_some(())
}

/// Fails unless a patch applies to the start of an exercise.
fn ensure_applies(name: &str, patch: &str, what: &str) {
    let base = file("interview/BASE").expect("the base");
    let index = Path::new(ROOT).join(format!("target/xtask-tests/samples-{name}"));
    fs::create_dir_all(index.parent().expect("a folder")).expect("a folder");
    if git(&index, &["read-tree", base.trim()], "").is_none() {
        // An archive of the project has no history.
        return;
    }
    let briefs = ["rm", "-r", "--quiet", "--cached", "--force", "interview/briefs"];
    git(&index, &briefs, "").expect("the briefs of the base are removed");
    let briefs = ["read-tree", "--prefix=interview/briefs/", "HEAD:interview/briefs"];
    git(&index, &briefs, "").expect("the current briefs are added");
    let apply = ["apply", "--cached", "--whitespace=nowarn", "-"];
    if let Some(start) = file(&format!("interview/answers/{name}/start.patch")) {
        git(&index, &apply, &start).expect("the start applies");
    }
    assert!(
        git(&index, &apply, patch).is_some(),
        "{what} does not apply to the start of {name}"
    );
    fs::remove_file(index).expect("the index is removed");
}

/// The checks of an exercise, as sentences.
fn sentences(name: &str) -> Option<Vec<String>> {
    let grader = file(&format!("interview/answers/{name}/grader.rs"))?;
    let tests = grader.split("#[tokio::test").skip(1);
    let tests = tests.filter_map(|test| test.split_once("async fn ")?.1.split('(').next());
    let mut names: Vec<&str> = tests.collect();
    if grader.contains("\n// unchanged: ") {
        names.push("protected_files_are_unchanged");
    }
    if grader.contains("\n// tests: ") {
        names.push("a_new_test_fails_without_the_change");
    }
    Some(names.into_iter().map(|name| name.replace('_', " ")).collect())
}

/// The checks in a report and whether each passed.
fn outcomes(report: &str) -> Vec<(String, bool)> {
    let outcome = |line: &str| match (line.strip_prefix("  ✓ "), line.strip_prefix("  ✗ ")) {
        (Some(check), _) => Some((check.to_owned(), true)),
        (_, Some(check)) => Some((check.to_owned(), false)),
        _ => None,
    };
    report.lines().filter_map(outcome).collect()
}

#[test]
fn samples_apply_and_are_scored_and_graded() {
    if is_within_an_exercise() {
        return;
    }
    let rubric: toml::Value = toml::from_str(&file("interview/rubric.toml").expect("the rubric")).expect("TOML");
    let rows = rubric["row"].as_array().expect("rows").iter();
    let rows: Vec<&str> = rows.map(|row| row["name"].as_str().expect("a name")).collect();
    let names = folders("interview/answers");
    assert!(names.len() >= 14, "{names:?}");
    for name in names {
        let mut sums = Vec::new();
        for kind in ["weak", "good", "excellent"] {
            let folder = format!("interview/answers/{name}/samples/{kind}");
            let scores = file(&format!("{folder}/scores.yaml")).unwrap_or_else(|| panic!("no scores in {folder}"));
            let scores: serde_json::Value = serde_saphyr::from_str(&scores).expect("YAML");
            let scored = scores["rows"].as_array().expect("rows");
            let scored_rows: Vec<_> = scored.iter().filter_map(|row| row["row"].as_str()).collect();
            assert_eq!(scored_rows, rows, "{folder}");
            let work = scores["work"].as_str().expect("a patch");
            let patch = file(&format!("interview/answers/{name}/{work}")).expect("the patch");
            ensure_applies(&name, &patch, work);
            let transcript = file(&format!("{folder}/transcript.md")).expect("a transcript");
            assert!(transcript.starts_with("Composed for calibration: "), "{folder}");
            assert!(transcript.lines().count() >= 6, "{folder}");

            sums.push(scored.iter().filter_map(|row| row["score"].as_u64()).sum::<u64>());
            let report = file(&format!("{folder}/report.txt")).unwrap_or_else(|| panic!("no report in {folder}"));
            let outcomes = outcomes(&report);
            if let Some(expected) = sentences(&name) {
                let checks: Vec<&String> = outcomes.iter().map(|(check, _)| check).collect();
                assert_eq!(checks, expected.iter().collect::<Vec<_>>(), "{folder}");
            }
            let passed = outcomes.iter().filter(|(_, passed)| *passed).count();
            let total = outcomes.len();
            assert!(
                report.ends_with(&format!("\n{passed} of {total} checks passed\n")),
                "{folder}: {report}"
            );
            // The rule of "Checks and hints" in interview/README.md. The checks of a text are steps.
            let solution = scored[1]["score"].as_u64().expect("a score");
            let allowed = match passed {
                _ if sentences(&name).is_none() => 1..=4,
                all if all == total => 3..=4,
                most if most + 1 == total => 1..=3,
                half if half * 2 >= total => 1..=2,
                _ => 1..=1,
            };
            assert!(
                allowed.contains(&solution),
                "{folder}: {passed} of {total} checks, and the Solution has {solution}"
            );
        }
        assert!(sums[0] < sums[1] && sums[1] < sums[2], "{name}: {sums:?}");
    }
}

/// The acceptance criteria of a brief: the items of the list.
fn criteria(brief: &str) -> Vec<String> {
    let (_, rest) = brief.split_once("\n## Acceptance criteria\n").expect("criteria");
    let mut criteria: Vec<String> = Vec::new();
    for line in rest.split("\n## ").next().unwrap_or_default().lines() {
        let number = format!("{}. ", criteria.len() + 1);
        if line.starts_with("- ") || line.starts_with(&number) {
            criteria.push(line.to_owned());
        } else if let (true, Some(last)) = (line.starts_with("  "), criteria.last_mut()) {
            *last += &format!(" {}", line.trim());
        }
    }
    criteria
}

#[test]
fn every_criterion_has_a_check_or_is_said_to_be_judged() {
    if is_within_an_exercise() {
        return;
    }
    for name in folders("interview/answers") {
        let answers = format!("interview/answers/{name}");
        let brief = file(&format!("interview/briefs/{name}/README.md")).expect("the brief");
        let mapped = file(&format!("{answers}/criteria.toml")).unwrap_or_else(|| panic!("no criteria.toml of {name}"));
        let mapped: toml::Table = toml::from_str(&mapped).expect("TOML");
        let checks = sentences(&name).unwrap_or_else(|| {
            // The checks of a text are not in a source: they are those of its graded sample.
            let report = file(&format!("{answers}/samples/excellent/report.txt")).expect("a report");
            outcomes(&report).into_iter().map(|(check, _)| check).collect()
        });
        let checks: BTreeSet<String> = checks.iter().map(|check| check.replace(' ', "_")).collect();
        let mut used = BTreeSet::new();
        let criteria = criteria(&brief);
        assert_eq!(mapped.len(), criteria.len(), "{name}: the criteria in criteria.toml");
        for (number, criterion) in (1..).zip(&criteria) {
            let by = mapped.get(&format!("{number}")).and_then(|by| by.as_array());
            let by = by.unwrap_or_else(|| panic!("{name}: criterion {number} has no list in criteria.toml"));
            assert!(!by.is_empty(), "{name}: nothing checks criterion {number}");
            for by in by.iter().map(|by| by.as_str().expect("a name")) {
                match by {
                    "interviewer" => assert!(
                        criterion.contains("interviewer"),
                        "{name}: criterion {number} does not say that the interviewer judges it"
                    ),
                    _ => assert!(checks.contains(by), "{name}: criterion {number} names no check: {by}"),
                }
                used.insert(by.to_owned());
            }
        }
        let unused: Vec<&String> = checks.difference(&used).collect();
        assert_eq!(unused, [""; 0], "{name}: checks of no criterion");
    }
}
