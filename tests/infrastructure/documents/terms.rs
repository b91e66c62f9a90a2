//! One term for one thing: no file of the repository uses a retired one.

use std::{collections::BTreeMap, fs, path::Path};

use support::documents::{ROOT, file, files};

const TERMS: &str = "tests/infrastructure/documents/terms.toml";

/// Names that are not ours to choose, or not texts: a Unix user, a folder.
const EXCEPTIONS: &[&str] = &["\"nobody\"", "interview/answers"];

/// What to write, and the terms that it replaces.
type Terms = BTreeMap<String, Vec<String>>;

/// A text as lower-case words with a blank around each, and the line of each word.
///
/// Line breaks, comment markers and underscores only separate words, so that a term is found across
/// lines and in names. Punctuation is a word, so that a term is not found across sentences.
fn words(text: &str) -> (String, Vec<(usize, usize)>) {
    let (mut words, mut lines) = (" ".to_owned(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        for word in line.split(|letter: char| letter.is_whitespace() || "/#*_`'-|>".contains(letter)) {
            for part in word.split_inclusive(|letter: char| letter.is_ascii_punctuation()) {
                let end = part.trim_end_matches(|letter: char| letter.is_ascii_punctuation());
                for part in [end, &part[end.len()..]].into_iter().filter(|part| !part.is_empty()) {
                    lines.push((words.len(), number + 1));
                    words.push_str(&part.to_lowercase());
                    words.push(' ');
                }
            }
        }
    }
    (words, lines)
}

/// Each use of a retired term: file, line, term, and what to write instead.
fn uses(path: &str, text: &str, terms: &Terms) -> Vec<String> {
    let (words, lines) = words(text);
    let mut uses = Vec::new();
    for (instead, retired) in terms {
        for term in retired {
            for (start, _) in words.match_indices(&format!(" {term} ")) {
                let line = lines.partition_point(|(at, _)| *at <= start + 1) - 1;
                uses.push(format!("{path}:{}: {term:?}: write {instead}", lines[line].1));
            }
        }
    }
    uses
}

/// False for migrations that have run, for copies and for generated files.
fn is_ours(path: &str) -> bool {
    let others = [
        "vendor/",
        ".sqlx/",
        ".lock",
        "package-lock.json",
        ".patch",
        ".diff",
        "LICENSE",
    ];
    let is_migration = path.starts_with("migrations/0") && path.ends_with(".sql");
    // This file and its data name the terms.
    !is_migration && !path.contains("documents/terms.") && !others.iter().any(|other| path.contains(other))
}

#[test]
fn texts_use_no_retired_term() {
    let terms: BTreeMap<String, Terms> = toml::from_str(&file(TERMS).expect("the terms")).expect("TOML");
    let everywhere = &terms["everywhere"];
    let mut outside_kit = terms["outside_the_interview_kit"].clone();
    outside_kit.extend(everywhere.clone());
    let mut wrong = Vec::new();
    for path in files().iter().filter(|path| is_ours(path)) {
        // Pictures and keys are not UTF-8.
        let Ok(text) = fs::read_to_string(Path::new(ROOT).join(path)) else {
            continue;
        };
        let text = EXCEPTIONS.iter().fold(text, |text, name| text.replace(name, ""));
        let of_kit = path.to_lowercase().starts_with("interview");
        wrong.extend(uses(path, &text, if of_kit { everywhere } else { &outside_kit }));
    }
    assert!(wrong.is_empty(), "{} uses:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn retired_term_is_found_in_names_and_across_lines() {
    let terms = Terms::from([("indefinitely".to_owned(), vec!["for ever".to_owned()])]);
    let text = "// It waits for\n    // ever.\nlet for_ever = 1;\nfor evermore. What for? Ever since.\n(FOR EVER)";
    let found: Vec<String> = [1, 3, 5]
        .map(|line| format!("a.rs:{line}: \"for ever\": write indefinitely"))
        .to_vec();
    assert_eq!(uses("a.rs", text, &terms), found);
}
