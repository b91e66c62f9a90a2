//! Checks of the kit's files (`exercises`, `incidents`, `questions`), of its `commands`, and here of the links and
//! commands in its documents.

mod commands;
mod exercises;
mod incidents;
mod questions;

use std::{fs, path::Path, process::Command};

use support::documents::{ROOT, file, unexplained_commands, wrong_links, wrong_targets};

/// The kit's documents.
fn documents() -> Vec<String> {
    let mut documents = vec![
        "INTERVIEW_QUESTIONS.md".to_owned(),
        "interview/briefs/README.md".to_owned(),
    ];
    for (folder, name) in [
        ("interview/briefs", "README.md"),
        ("interview/answers", "hints.md"),
        ("interview/answers", "notes.md"),
        ("interview/incidents", "brief.md"),
        ("interview/incidents", "hints.md"),
        ("interview/incidents", "notes.md"),
    ] {
        let entries = fs::read_dir(Path::new(ROOT).join(folder)).into_iter().flatten();
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        documents.extend(names.map(|below| format!("{folder}/{}/{name}", below.to_string_lossy())));
    }
    // Absent within an exercise.
    documents.extend(["interview/README.md", "interview/answers/questions.md"].map(str::to_owned));
    documents.retain(|path| file(path).is_some());
    documents
}

/// The document's start patch, whose files exist only once its exercise has started.
fn start_of(path: &str) -> String {
    let name = path.split('/').nth(2).unwrap_or_default();
    file(&format!("interview/answers/{name}/start.patch")).unwrap_or_default()
}

/// A file that an exercise refers to, from the base commit. Files of the kit, and all files if
/// there is no history, are read from the working tree.
fn file_of_base(path: &str) -> Option<String> {
    let base = file("interview/BASE").filter(|_| !path.starts_with("interview/"));
    let Some(base) = base else { return file(path) };
    let mut git = Command::new("git");
    git.current_dir(ROOT).args(["show", &format!("{}:{path}", base.trim())]);
    match git.output() {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).ok(),
        _ => file(path),
    }
}

#[test]
fn links_resolve() {
    let is_whole = Path::new(ROOT).join("interview/answers").exists();
    for path in documents() {
        let document = file(&path).expect("the document");
        let mut wrong = match path.split('/').count() {
            // interview/briefs/lost-messages/README.md
            4 => wrong_links(&path, &document, file_of_base, &start_of(&path)),
            _ => wrong_links(&path, &document, file, ""),
        };
        // Within an exercise, the start patches of the others are absent.
        wrong.retain(|_| is_whole || !path.starts_with("interview/briefs/"));
        assert_eq!(wrong, [""; 0]);
    }
}

#[test]
fn named_make_targets_exist() {
    for path in documents() {
        assert_eq!(wrong_targets(&file(&path).expect("the document")), [""; 0], "{path}");
    }
}

#[test]
fn commands_state_their_requirements() {
    for path in documents() {
        // Tested by the proofs and by the runner's tests.
        let expected: &[&str] = match path.as_str() {
            "interview/briefs/README.md" => {
                &["make exercise N=lost-messages   # starts it, on a separate branch with one commit"]
            }
            "interview/README.md" => &["make exercise N=lost-messages && make grade && make exercise-reset"],
            _ => &[],
        };
        let document = file(&path).expect("the document");
        assert_eq!(unexplained_commands(&document), expected, "{path}");
    }
}
