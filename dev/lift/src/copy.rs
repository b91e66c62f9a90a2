//! The copy: the project's files without what edits.toml lists, with the new names, and with a
//! history of its own.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};
use xtask::tools::{git::Git, process, terminal::Step};

use crate::{edits::Edits, names::Names};

/// The content of each file, by its path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Written by others, or generated from such files.
const NOT_OURS: [&str; 5] = ["/vendor/", ".lock", ".pem", "package-lock.json", "uv.txt"];

/// Files whose names and types are code: a name that they use already has another meaning.
const CODE: [&str; 6] = [".rs", ".sql", ".js", ".html", ".css", "template.yaml"];

/// A copy that is not yet written.
pub struct Copy<'a> {
    files: Files,
    names: &'a Names,
}

impl<'a> Copy<'a> {
    /// Copies the tracked and the new files. Fails if a name has another meaning already.
    pub fn of(root: &Path, names: &'a Names) -> Result<Self> {
        let git = Git::open(root)?;
        let listed = git.run(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        let mut files = Files::new();
        for path in listed.split('\0').filter(|path| !path.is_empty()) {
            // A deleted file stays in the index until that is committed.
            if let Ok(content) = fs::read(root.join(path)) {
                files.insert(path.to_owned(), content);
            }
        }
        Self::from(files, names)
    }

    /// Changes the project's files to those of the copy.
    pub fn from(mut files: Files, names: &'a Names) -> Result<Self> {
        Edits::read()?.apply(&mut files)?;
        for name in names.both() {
            if let Some(place) = first_use(&files, name) {
                anyhow::bail!(
                    "{name:?} already means something else here ({place}), and one word for two things would mix \
                     them up; take another word"
                );
            }
        }
        let mut renamed = Files::new();
        for (path, content) in files {
            let is_ours = !NOT_OURS.iter().any(|other| path.contains(other));
            match String::from_utf8(content) {
                Ok(text) if is_ours => {
                    let text = names.replace(&text);
                    renamed.extend([match path.as_str() {
                        "openapi.json" => (path, with_sorted_members(&text).into_bytes()),
                        query if query.starts_with(".sqlx/") => described_query(&text)?,
                        _ => (names.replace(&path), text.into_bytes()),
                    }]);
                }
                // Pictures and keys are not UTF-8.
                Ok(text) => renamed.extend([(path, text.into_bytes())]),
                Err(error) => renamed.extend([(path, error.into_bytes())]),
            }
        }
        Ok(Self { files: renamed, names })
    }

    /// Writes it to an empty or new folder, formats it, and commits it.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let is_empty = match fs::read_dir(folder) {
            Ok(mut entries) => entries.next().is_none(),
            Err(_) => !folder.exists(),
        };
        ensure!(
            is_empty,
            "DIR={} is not empty, and nothing there is overwritten; take a new folder",
            folder.display()
        );
        let step = Step::start("lift", "copying and renaming the files");
        for (path, content) in &self.files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().context("a file without a folder")?)?;
            fs::write(&path, content)?;
            if content.starts_with(b"#!/") {
                fs::set_permissions(path, Permissions::from_mode(0o755))?;
            }
        }
        step.show("formatting, updating Cargo.lock, committing");
        self.finish(folder).with_context(|| {
            format!(
                "the copy is not complete; before you try again: rm -r {}",
                folder.display()
            )
        })?;
        step.done(&format!("{} files in {}", self.files.len(), folder.display()));
        Ok(())
    }

    fn finish(&self, folder: &Path) -> Result<()> {
        process::output(process::cargo("cargo", folder).args(["fmt", "--all"]))?;
        process::output(process::cargo("cargo", folder).args(["metadata", "--format-version", "1"]))?;
        commit(folder, self.names)
    }

    /// For tests.
    #[cfg(test)]
    pub fn files(&self) -> &Files {
        &self.files
    }
}

/// A file of .sqlx, whose name is the hash of its query.
fn described_query(text: &str) -> Result<(String, Vec<u8>)> {
    let query: Value = serde_json::from_str(text)?;
    let old = query["hash"].as_str().context("a query without a hash")?;
    let new = Sha256::digest(query["query"].as_str().context("a description without a query")?);
    let new: String = new.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((format!(".sqlx/query-{new}.json"), text.replace(old, &new).into_bytes()))
}

/// openapi.json with the members in the order of their names where `make openapi` sorts them: in
/// `paths`, in the parts of `components`, and in examples. As text: a JSON library would not keep its
/// escapes.
fn with_sorted_members(document: &str) -> String {
    let lines: Vec<&str> = document.lines().collect();
    let mut sorted = sort_members(&lines, &mut Vec::new()).join("\n");
    sorted.push('\n');
    sorted
}

/// The lines of a JSON object or array, with its first and last one. The place is that of the names
/// that lead to it.
fn sort_members<'a>(lines: &[&'a str], place: &mut Vec<&'a str>) -> Vec<String> {
    let [first, content @ .., last] = lines else {
        return lines.iter().map(|line| (*line).to_owned()).collect();
    };
    let indent = first.len() - first.trim_start().len() + 2;
    let is_begin =
        |line: &&str| line.len() - line.trim_start().len() == indent && !line.trim_start().starts_with(['}', ']']);
    let mut begins: Vec<usize> = (0..content.len()).filter(|line| is_begin(&content[*line])).collect();
    begins.push(content.len());
    let mut members: Vec<(&str, Vec<String>)> = begins
        .windows(2)
        .map(|member| {
            let name = content[member[0]].trim_start().split("\": ").next().unwrap_or_default();
            place.push(name);
            let lines = sort_members(&content[member[0]..member[1]], place);
            place.pop();
            (name, lines)
        })
        .collect();
    let is_sorted = match place[..] {
        ["\"paths"] | ["\"components", _] => true,
        _ => place.contains(&"\"example"),
    };
    if is_sorted && last.trim_start().starts_with('}') {
        members.sort_by_key(|(name, _)| *name);
    }
    // A comma depends on the place.
    let count = members.len();
    for (number, (_, lines)) in members.iter_mut().enumerate() {
        if let Some(line) = lines.last_mut() {
            let comma = if number + 1 < count { "," } else { "" };
            *line = format!("{}{comma}", line.strip_suffix(',').unwrap_or(line));
        }
    }
    let content = members.into_iter().flat_map(|(_, lines)| lines);
    std::iter::once((*first).to_owned())
        .chain(content)
        .chain([(*last).to_owned()])
        .collect()
}

/// Where code uses a word outside of comments: path and line.
fn first_use(files: &Files, word: &str) -> Option<String> {
    let code = files
        .iter()
        .filter(|(path, _)| CODE.iter().any(|end| path.ends_with(end)) && !path.contains("/vendor/"));
    code.filter_map(|(path, content)| Some((path, std::str::from_utf8(content).ok()?)))
        .find_map(|(path, text)| {
            let mut lines = text.lines().map(str::trim_start).enumerate();
            let is_comment = |line: &str| ["//", "--", "#", "*", "/*"].iter().any(|start| line.starts_with(start));
            let (number, _) = lines.find(|(_, line)| !is_comment(line) && words(line).any(|used| used == word))?;
            Some(format!("{path}:{}", number + 1))
        })
}

/// The words of a line, in lower case: those of `newTask` and `NEW_TASK` are "new" and "task".
fn words(line: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut was_lowercase = false;
    for letter in line.chars() {
        if !letter.is_ascii_alphabetic() || letter.is_ascii_uppercase() && was_lowercase {
            words.push(String::new());
        }
        if letter.is_ascii_alphabetic()
            && let Some(word) = words.last_mut()
        {
            word.push(letter.to_ascii_lowercase());
        }
        was_lowercase = letter.is_ascii_lowercase();
    }
    words.into_iter()
}

/// A first commit, by the user; by no one in particular if git does not know them.
fn commit(folder: &Path, names: &Names) -> Result<()> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        for (name, _) in std::env::vars_os() {
            // Set by git for its hooks.
            if name.to_string_lossy().starts_with("GIT_") {
                git.env_remove(&name);
            }
        }
        process::output(git.current_dir(folder).args(arguments))
    };
    git(&["init", "--quiet", "--initial-branch", "main"])?;
    git(&["add", "--all"])?;
    let message = format!("Start from the task API, with {} instead of tasks", names.both()[0]);
    let identity = match git(&["config", "user.email"]) {
        Ok(_) => vec![],
        Err(_) => vec!["-c", "user.name=make lift", "-c", "user.email=lift@localhost"],
    };
    git(&[
        &identity[..],
        &["commit", "--quiet", "--no-verify", "--message", &message],
    ]
    .concat())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()
            .expect("the project's folder")
    }

    /// The project's files, also where it is no git repository, as in a container.
    fn project() -> Files {
        let mut files = Files::new();
        let mut folders = vec![root()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path
                    .strip_prefix(root())
                    .expect("below the root")
                    .to_str()
                    .expect("text")
                    .to_owned();
                let is_ignored = [".git", ".local", ".aws-sam", "coverage", "target"].contains(&name.as_str());
                match path.is_dir() {
                    _ if is_ignored || path.is_symlink() => {}
                    true => folders.push(path),
                    false => drop(files.insert(name, fs::read(path).expect("a file"))),
                }
            }
        }
        files
    }

    fn invoices() -> Names {
        Names::new("invoices", None).expect("valid names")
    }

    #[test]
    fn copy_names_neither_tasks_nor_what_it_lacks() {
        const ALLOWED: [&str; 14] = [
            "xtask",
            "tokio::task",
            "task::JoinHandle",
            "task::JoinSet",
            "MoveTask",
            "move_task",
            "TaskHandle",
            "LAMBDA_TASK_ROOT",
            "from the task API",
            "Copyright (c) 2026 The task API authors",
            "bench-counts",
            "BenchCounts",
            "function:bench",
            "\"sub\": \"bench\"",
        ];
        let names = invoices();
        let copy = Copy::from(project(), &names).expect("a copy");
        let mut left = Vec::new();
        for (path, content) in copy.files() {
            if NOT_OURS.iter().any(|other| path.contains(other)) {
                continue;
            }
            assert!(names.replace(path) == *path, "{path}");
            for line in String::from_utf8_lossy(content).lines() {
                let line = ALLOWED
                    .iter()
                    .fold(line.to_owned(), |line, allowed| line.replace(allowed, ""));
                let lower = line.to_lowercase();
                let lacks = [
                    "interview",
                    "candidate's",
                    "grader",
                    "exercises",
                    "make bench",
                    "make lift",
                    "dev/bench",
                ];
                if names.replace(&line) != line || lacks.iter().any(|lacks| lower.contains(lacks)) {
                    left.push(format!("{path}: {line}"));
                }
            }
        }
        assert_eq!(left, [""; 0], "{}", left.join("\n"));
        assert!(copy.files().contains_key("functions/get-invoice/src/lib.rs"));
        assert!(copy.files().contains_key("migrations/0001_invoices.sql"));
    }

    #[test]
    fn members_of_document_are_sorted_by_name() {
        let document = String::from_utf8(project().remove("openapi.json").expect("the document")).expect("text");
        assert_eq!(with_sorted_members(&document), document);
        // "Task" comes late, "Invoice" early.
        let renamed = invoices().replace(&document);
        let sorted = with_sorted_members(&renamed);
        assert_ne!(sorted, renamed);
        let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!(parse(&sorted), parse(&renamed));
        let schemas = sorted.lines().skip_while(|line| *line != "    \"schemas\": {").skip(1);
        let schemas: Vec<&str> = schemas
            .take_while(|line| !line.starts_with("    }"))
            .filter(|line| line.starts_with("      \""))
            .collect();
        assert!(schemas.len() > 10 && schemas.is_sorted(), "{schemas:?}");
    }

    #[test]
    fn described_query_is_named_by_its_hash() {
        let query = r#"{"query": "select 1 as \"invoice\"", "hash": "old"}"#;
        let (path, content) = described_query(query).expect("a description");
        let hash: String = Sha256::digest(r#"select 1 as "invoice""#)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(path, format!(".sqlx/query-{hash}.json"));
        assert_eq!(String::from_utf8(content).expect("text"), query.replace("old", &hash));
        // As sqlx does it.
        let name = |path: &str| path.starts_with(".sqlx/");
        for (path, content) in project().into_iter().filter(|(path, _)| name(path)) {
            assert_eq!(
                described_query(std::str::from_utf8(&content).expect("text"))
                    .expect("a description")
                    .0,
                path
            );
        }
    }

    #[test]
    fn name_with_another_meaning_is_refused() {
        for (plural, singular) in [("messages", None), ("events", None), ("statuses", Some("status"))] {
            let names = Names::new(plural, singular).expect("valid names");
            let error = Copy::from(project(), &names).err().expect(plural).to_string();
            assert!(error.contains("already means something else here"), "{error}");
        }
        assert_eq!(words("NEW_TASK newTask").filter(|word| word == "task").count(), 2);
    }

    #[test]
    fn folder_with_content_is_refused_and_unchanged() {
        let folder = std::env::temp_dir().join(format!("lift-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("mine"), "mine").expect("a file");
        let names = invoices();
        let copy = Copy {
            files: [("a".to_owned(), vec![])].into(),
            names: &names,
        };
        let error = copy.write(&folder).expect_err("refused").to_string();
        let file = copy.write(&folder.join("mine")).expect_err("refused").to_string();
        let left = fs::read_dir(&folder).expect("the folder").count();
        fs::remove_dir_all(&folder).expect("removed");
        assert!(
            error.contains("is not empty") && file.contains("is not empty"),
            "{error} {file}"
        );
        assert_eq!(left, 1);
    }
}
