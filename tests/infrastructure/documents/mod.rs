//! The documents: their links, targets and commands exist. `operations` checks the runbook, `costs`
//! the tables of costs, `scaling` those of the model, `terms` the vocabulary of all texts.

mod costs;
mod operations;
mod scaling;
mod terms;

use std::path::Path;

use support::documents::{ROOT, file, files, unexplained_commands, wrong_links, wrong_targets};

/// The documents that people read. The interview kit's documents have their own tests, because the
/// kit can be deleted.
fn documents() -> Vec<String> {
    let is_other = |path: &str| ["vendor/", ".github/"].iter().any(|other| path.contains(other));
    let mut documents = files();
    documents.retain(|path| path.ends_with(".md") && !path.to_lowercase().starts_with("interview") && !is_other(path));
    documents
}

/// A document, without the passages about the interview kit if the kit was deleted.
fn read(path: &str) -> String {
    let document = file(path).expect("the document");
    if Path::new(ROOT).join("interview").exists() {
        return document;
    }
    let mut passages = document.split("<!-- interview kit -->");
    let first = passages.next().unwrap_or_default().to_owned();
    passages.fold(first, |text, passage| {
        let (_, rest) = passage.split_once("<!-- end of interview kit -->").expect("an end");
        text + rest
    })
}

#[test]
fn document_links_resolve() {
    for path in documents() {
        let document = read(&path);
        assert_eq!(wrong_links(&path, &document, file, ""), [""; 0]);
    }
}

#[test]
fn documented_make_targets_exist() {
    for path in documents() {
        assert_eq!(wrong_targets(&read(&path)), [""; 0], "{path}");
    }
}

#[test]
fn documented_commands_are_tested_or_explained() {
    for path in documents() {
        let expected: &[&str] = match path.as_str() {
            // The first command: it starts the services that this test needs, so no test runs it.
            "README.md" => {
                &["make up      # installs what is missing, starts everything, deploys template.yaml, prints the URLs"]
            }
            _ => &[],
        };
        assert_eq!(unexplained_commands(&read(&path)), expected, "{path}");
    }
    assert_eq!(unexplained_commands("```sh\nmake it so\n```\n"), ["make it so"]);
}

#[test]
fn broken_link_is_detected() {
    for wrong in [
        "[there](docs/nowhere.md)",
        "[there](#nowhere)",
        "[there](docs/architecture.md#nowhere)",
        // Used in the file, or a part of a name that is defined there.
        "[`timeout`](shared/core/src/store/connection.rs)",
        "[`Data`](shared/core/src/store/connection.rs)",
        "[`Database::may_repeat`](shared/core/src/store/connection.rs)",
        "[`StoreError::Gone`](shared/core/src/store/error.rs)",
        "[`Visibility`](template.yaml)",
        "[`Globals.Memory`](template.yaml)",
        "[`Outputs.MemorySize`](template.yaml)",
        "[`tasks_closed`](migrations/0002_reconciler.sql)",
        "[`tasks.fencing`](migrations/0001_tasks.sql)",
        "[`postgres`](migrations/roles.sql)",
        "[`profile.fast`](Cargo.toml)",
        "[`profile`](README.md)",
    ] {
        assert_eq!(wrong_links("README.md", wrong, file, "").len(), 1, "{wrong}");
    }
    assert_eq!(wrong_targets("`make nothing`, and\nmake up"), ["nothing"]);
}
