//! What the copy does not have: the files and passages that edits.toml lists.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::copy::Files;

/// The content of edits.toml.
#[derive(Deserialize)]
pub struct Edits {
    /// Files, and folders with a slash at the end.
    remove: Vec<String>,
    /// New contents.
    write: BTreeMap<String, String>,
    edit: Vec<Edit>,
}

/// A passage, from its first words to its last ones, and what replaces it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: String,
    from: String,
    /// The same as `from` if it is not given: only that is replaced.
    #[serde(default)]
    to: String,
    #[serde(default)]
    with: String,
}

impl Edits {
    /// Those of edits.toml.
    pub fn read() -> Result<Self> {
        toml::from_str(include_str!("../edits.toml")).context("dev/lift/edits.toml is not readable")
    }

    /// Changes the files. Fails if a passage is not there exactly once, because then the file has
    /// changed since the edit was written.
    pub fn apply(&self, files: &mut Files) -> Result<()> {
        for path in &self.remove {
            files.retain(|file, _| file != path && !(path.ends_with('/') && file.starts_with(path.as_str())));
        }
        for (path, text) in &self.write {
            files.insert(path.clone(), text.clone().into_bytes());
        }
        for edit in &self.edit {
            let file = files.get_mut(&edit.file);
            let file =
                file.with_context(|| format!("dev/lift/edits.toml edits {}, which does not exist", edit.file))?;
            let text = std::str::from_utf8(file).with_context(|| format!("{} is not a text", edit.file))?;
            *file = edit.apply(text)?.into_bytes();
        }
        Ok(())
    }
}

impl Edit {
    fn apply(&self, text: &str) -> Result<String> {
        let Self { file, from, to, with } = self;
        let advice = "has changed: adapt dev/lift/edits.toml";
        ensure!(
            text.matches(from.as_str()).count() == 1,
            "{file} {advice}: {from:?} is not there exactly once"
        );
        let (before, rest) = text.split_once(from.as_str()).unwrap_or_default();
        let (_, after) = rest
            .split_once(to.as_str())
            .with_context(|| format!("{file} {advice}: no {to:?} after {from:?}"))?;
        Ok(format!("{before}{with}{after}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_replaces_passage_or_fails() {
        let edit = |from: &str, to: &str| {
            let edit = Edit {
                file: "a".into(),
                from: from.into(),
                to: to.into(),
                with: "-".into(),
            };
            edit.apply("one two three two\n").map_err(|error| error.to_string())
        };
        assert_eq!(edit("one", "").as_deref(), Ok("- two three two\n"));
        assert_eq!(edit("one", "two").as_deref(), Ok("- three two\n"));
        for (from, to) in [("two", ""), ("four", ""), ("three", "one")] {
            assert!(
                edit(from, to).expect_err(from).contains("adapt dev/lift/edits.toml"),
                "{from} {to}"
            );
        }
    }

    #[test]
    fn removal_covers_folder_but_not_its_neighbor() {
        let edits = Edits {
            remove: vec!["a/".into(), "b".into()],
            write: BTreeMap::new(),
            edit: Vec::new(),
        };
        let mut files: Files = ["a/x", "ab", "b", "b/x"]
            .map(|path| (path.to_owned(), Vec::new()))
            .into();
        edits.apply(&mut files).expect("applied");
        assert_eq!(files.into_keys().collect::<Vec<_>>(), ["ab", "b/x"]);
    }
}
