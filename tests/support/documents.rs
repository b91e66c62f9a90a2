//! Checks of the documents' links, of the items that they name, and of their commands.

use std::{collections::BTreeSet, fs, path::Path, sync::LazyLock};

use regex::Regex;
use walkdir::{DirEntry, WalkDir};

/// The repository's folder.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// git's own folder, the folders in .gitignore, and what Python and Node leave behind.
const IGNORED: [&str; 7] = [
    ".git",
    "target",
    ".local",
    ".aws-sam",
    "coverage",
    "node_modules",
    "__pycache__",
];

/// A file of the repository, if it exists.
pub fn file(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(ROOT).join(path)).ok()
}

/// The paths of the repository's files, except ignored ones.
pub fn files() -> Vec<String> {
    let is_included = |entry: &DirEntry| !IGNORED.contains(&entry.file_name().to_string_lossy().as_ref());
    WalkDir::new(ROOT)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(is_included)
        .map(|entry| entry.expect("a readable folder"))
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let path = entry.path().strip_prefix(ROOT).expect("a path below the root");
            path.to_string_lossy().into_owned()
        })
        .collect()
}

pub fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a regular expression")
}

/// The document without its code blocks, and those blocks.
pub fn without_code(document: &str) -> (String, Vec<String>) {
    let (mut text, mut blocks, mut in_block) = (String::new(), Vec::new(), false);
    for line in document.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
            if in_block {
                blocks.push(format!("{line}\n"));
            }
        } else if in_block {
            let block = blocks.last_mut().expect("a block was started");
            block.push_str(line);
            block.push('\n');
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    (text, blocks)
}

/// The anchors of a document's headings, as GitHub generates them.
pub fn anchors(document: &str) -> BTreeSet<String> {
    let (text, _) = without_code(document);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let letters = heading.trim_start_matches('#').trim().to_lowercase();
            let letters = letters.replace(' ', "-");
            letters
                .chars()
                .filter(|c| c.is_alphanumeric() || "-_".contains(*c))
                .collect()
        })
        .collect()
}

/// The links of a document to files of the repository: text, path from the repository's root, and
/// anchor.
pub fn links(path: &str, document: &str) -> Vec<(String, String, Option<String>)> {
    let (text, _) = without_code(document);
    let folder = Path::new(path).parent().expect("it is a file");
    static LINK: LazyLock<Regex> = LazyLock::new(|| regex(r"\[([^\]]+)\]\(([^)\s]+)\)"));
    LINK.captures_iter(&text)
        .filter(|link| !link[2].contains("://"))
        .map(|link| {
            let (target, anchor) = match link[2].split_once('#') {
                Some((target, anchor)) => (target, Some(anchor.to_owned())),
                None => (&link[2], None),
            };
            let target = match target {
                "" => path.to_owned(),
                target => normalize(&folder.join(target).to_string_lossy()),
            };
            (link[1].to_owned(), target, anchor)
        })
        .collect()
}

/// "docs/../README.md" -> "README.md"
fn normalize(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The name of an item, if the link names one:
/// `[`Database::run`](shared/core/src/store/connection.rs)`.
pub fn symbol<'a>(text: &'a str, path: &str) -> Option<&'a str> {
    let name = text.strip_prefix('`')?.strip_suffix('`')?;
    let is_name = name
        .chars()
        .all(|letter| letter.is_alphanumeric() || "_:.".contains(letter));
    (is_name && !path.ends_with(name)).then_some(name)
}

/// Whether a file defines the item: in Rust (including `Type::method` and `Enum::Variant`), in a
/// template (a logical id or a `Block.Key`), in SQL (an object, a `table.column`, a role) or in
/// TOML (a table or a `table.key`).
pub fn defines(path: &str, text: &str, name: &str) -> bool {
    let (owner, last) = match name.rsplit_once("::").or_else(|| name.rsplit_once('.')) {
        Some((owner, last)) => (Some(owner), last),
        None => (None, name),
    };
    match path.rsplit('.').next() {
        Some("rs") => match owner {
            None => text.lines().any(|line| item(line) == Some(last)),
            Some(owner) => bodies(text, owner).any(|line| item(line) == Some(last) || member(line) == Some(last)),
        },
        Some("yaml") => match owner {
            None => text.contains(&format!("\n  {last}:")),
            Some(block) => {
                let mut lines = text
                    .lines()
                    .skip_while(|line| line.strip_suffix(':') != Some(block))
                    .skip(1);
                let inside = lines
                    .by_ref()
                    .take_while(|line| line.is_empty() || line.starts_with(' '));
                let key = format!("{last}:");
                inside.map(str::trim_start).any(|line| line.starts_with(&key))
            }
        },
        Some("sql") => {
            let words: Vec<&str> = words(text).collect();
            let pair = |kinds: &[&str], name| words.windows(2).any(|two| kinds.contains(&two[0]) && two[1] == name);
            match owner {
                None => pair(&["table", "index", "function", "type", "constraint"], last) || role(text, last),
                Some(table) => {
                    let begins = |line: &str| line.split(' ').next() == Some(last);
                    pair(&["table"], table) && (pair(&["column"], last) || text.lines().map(str::trim).any(begins))
                }
            }
        }
        Some("toml") => {
            let table = |name: &str| text.split_once(&format!("\n[{name}]\n"));
            let key = owner.and_then(|owner| {
                let (_, after) = table(owner)?;
                let keys = after.split("\n[").next()?;
                Some(keys.lines().any(|line| line.split(' ').next() == Some(last)))
            });
            table(name).is_some() || key == Some(true)
        }
        _ => false,
    }
}

/// The names and keywords in the text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != '!');
    words.filter(|word| !word.is_empty())
}

/// The name of the Rust item that begins in this line.
fn item(line: &str) -> Option<&str> {
    if line.trim_start().starts_with("//") {
        return None;
    }
    let mut words = words(line).skip_while(|word| ["pub", "crate", "super", "async"].contains(word));
    match (words.next()?, words.next()?) {
        ("const", "fn") => words.next(),
        ("const" | "enum" | "fn" | "macro_rules!" | "static" | "struct" | "trait" | "type", name) => Some(name),
        _ => None,
    }
}

/// The name of the Rust variant or field that begins in this line.
fn member(line: &str) -> Option<&str> {
    let line = line.strip_prefix("    ")?;
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let name = words(line).next()?;
    line.strip_prefix(name)?
        .starts_with([':', ',', '(', ' '])
        .then_some(name)
}

/// The lines of the Rust blocks of a type: its definition and its implementations. A block extends
/// from an unindented line to the next unindented closing brace.
fn bodies<'a>(text: &'a str, owner: &'a str) -> impl Iterator<Item = &'a str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let mut head = words(line).skip_while(|word| *word == "pub");
        let is_head = !line.starts_with(' ')
            && head
                .next()
                .is_some_and(|word| ["impl", "enum", "struct", "trait"].contains(&word));
        if is_head {
            inside = head.any(|word| word == owner);
        } else if *line == "}" {
            inside = false;
        }
        inside && !is_head
    })
}

/// Whether the SQL grants a privilege to this role.
fn role(text: &str, name: &str) -> bool {
    let grants = text
        .split(';')
        .filter_map(|statement| statement.trim_start().rsplit_once(" to "));
    grants
        .map(|(_, roles)| roles)
        .any(|roles| words(roles).any(|role| role == name))
}

/// The errors in the links of a document. `read` returns the linked files; `added` is a patch whose
/// additions count as present.
pub fn wrong_links(path: &str, document: &str, read: impl Fn(&str) -> Option<String>, added: &str) -> Vec<String> {
    let wrong = links(path, document).into_iter().filter_map(|(text, target, anchor)| {
        if Path::new(ROOT).join(&target).is_dir() {
            return None;
        }
        let Some(content) = (if target == path {
            Some(document.to_owned())
        } else {
            read(&target)
        }) else {
            let is_added = added.contains(&format!("\n--- /dev/null\n+++ b/{target}\n"));
            return (!is_added).then(|| format!("{path}: no file {target}"));
        };
        if let Some(anchor) = anchor
            && !anchors(&content).contains(&anchor)
        {
            return Some(format!("{path}: {target} has no heading #{anchor}"));
        }
        let name = symbol(&text, &target)?;
        let added = added.lines().filter_map(|line| line.strip_prefix('+'));
        let content = added.fold(content, |content, line| content + "\n" + line);
        (!defines(&target, &content, name)).then(|| format!("{path}: {target} does not define {name}"))
    });
    wrong.collect()
}

/// The `make` targets that a document names but that do not exist.
pub fn wrong_targets(document: &str) -> Vec<String> {
    let makefile = file("Makefile").expect("the Makefile");
    let included = makefile.lines().filter_map(|line| line.strip_prefix("-include "));
    let makefiles = included.filter_map(file).fold(makefile.clone(), |all, one| all + &one);
    let rules = makefiles.lines().filter(|line| !line.starts_with(['#', '\t']));
    let targets: BTreeSet<&str> = rules.flat_map(|line| line.split([' ', ':'])).collect();
    let named = regex(r"(?m)(?:`|^)make ([a-z][a-z-]*)");
    let named = named.captures_iter(document).map(|found| found[1].to_owned());
    named.filter(|target| !targets.contains(target.as_str())).collect()
}

/// The first lines of `sh` blocks that do not state what a test would need to run them.
/// (`documentation.rs` runs `console` blocks.)
pub fn unexplained_commands(document: &str) -> Vec<String> {
    let (_, blocks) = without_code(document);
    let blocks = blocks.iter().filter_map(|block| block.strip_prefix("```sh\n"));
    let first_lines = blocks.map(|block| block.lines().next().unwrap_or_default().to_owned());
    first_lines.filter(|line| !line.starts_with("# needs ")).collect()
}
