//! Checks that each live incident is complete, besides its definition, which the runner tests.
//! (`make verify` proves them.)

use std::{fs, path::Path};

use support::documents::{ROOT, file};

/// The names of the incidents; none within an exercise.
fn names() -> Vec<String> {
    let entries = fs::read_dir(Path::new(ROOT).join("interview/incidents"))
        .into_iter()
        .flatten();
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn guide_lists_incidents_with_numbers_and_levels() {
    let Some(guide) = file("interview/README.md") else {
        return;
    };
    for (number, name) in (1..).zip(names()) {
        let notes = file(&format!("interview/incidents/{name}/notes.md")).expect("notes");
        let level = notes
            .split_once("**Level:** ")
            .and_then(|(_, rest)| rest.split(' ').next());
        let level = level.expect("a level");
        let row = format!("| {number} | [{name}](incidents/{name}/brief.md) | {level} |");
        assert!(guide.contains(&row), "{row}");
    }
}

#[test]
fn incident_has_three_hints() {
    for name in names() {
        let hints = file(&format!("interview/incidents/{name}/hints.md")).expect("hints");
        for number in 1..=3 {
            assert!(
                hints.contains(&format!("\n## Hint {number}: ")),
                "{name}: hint {number}"
            );
        }
        assert!(!hints.contains("\n## Hint 4"), "{name}");
    }
}

#[test]
fn incident_and_exercise_have_different_names() {
    for name in names() {
        assert!(!Path::new(ROOT).join("interview/briefs").join(&name).exists(), "{name}");
    }
}
