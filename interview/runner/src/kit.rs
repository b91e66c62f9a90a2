//! The kit's files: briefs, answers, and the base commit of the exercises.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

use crate::{
    git::{Git, Index},
    review::Key,
    rubric::RUBRIC,
    workshop::Workshop,
};

/// The candidate's side.
pub const BRIEFS: &str = "interview/briefs";

/// Hidden from the candidate.
pub const ANSWERS: &str = "interview/answers";

/// The live incidents. Exercises and packs do not contain them.
pub const INCIDENTS: &str = "interview/incidents";

/// Contains the id of the base commit, which starts, solutions and the grading crate apply to.
pub const BASE: &str = "interview/BASE";

/// Contains the content hashes of the last proof: see [`crate::proof`].
pub const PROVED: &str = "interview/PROVED";

/// The library of the hidden checks.
const GRADING: &str = "interview/grading";

/// Taken from the base whatever the candidate has done with them: the library of the hidden checks,
/// the harness and the tools of the candidate's tests, and cargo's own settings.
const MACHINERY: [&str; 7] = [
    GRADING,
    "interview/runner",
    "tests/harness",
    "dev/tools",
    ".cargo",
    "rust-toolchain.toml",
    "clippy.toml",
];

/// The interviewer's side of the kit: a candidate's tree has none of it.
const HIDDEN: [&str; 6] = [ANSWERS, INCIDENTS, BASE, PROVED, RUBRIC, "interview/README.md"];

/// The base's page of questions, which had their answers, and the test that reads it.
const QUESTIONS: [&str; 2] = ["INTERVIEW_QUESTIONS.md", "interview/runner/tests/kit/questions.rs"];

/// The test program that includes it.
const KIT_TESTS: &str = "interview/runner/tests/kit/main.rs";

/// What the README says about the kit, between these lines.
const KIT_IN_README: [&str; 2] = ["<!-- interview kit -->\n", "<!-- end of interview kit -->\n"];

/// A statement of the base that is wrong: with `ReportBatchItemFailures`, Lambda does not slow down
/// ("Implementing error handling for an SQS event source", AWS Lambda).
const CORRECTION: [&str; 3] = [
    "functions/task-processor/src/batch.rs",
    ": every record is redelivered, and Lambda polls more slowly.",
    ": every record is redelivered.",
];

/// Dependencies of which the current workspace enables features that the base did not. Their
/// dependents are most of all crates: with these features, what `make up` has compiled serves graded
/// trees as well. Their exact versions are those of the base's Cargo.lock.
const FEATURES: [(&str, &str); 2] = [("num-traits", "0.2"), ("serde_core", "1")];

/// The kit in a commit or a tree.
pub struct Kit<'a> {
    git: &'a Git,
    /// The commit or tree.
    pub id: String,
    /// The base commit of its exercises.
    pub base: String,
}

/// An exercise.
pub struct Exercise<'a> {
    kit: &'a Kit<'a>,
    /// `lost-messages`
    pub name: String,
}

/// A plausible wrong solution, which a check has to fail.
pub struct Mutant {
    /// What is wrong with it: the name of its file.
    pub name: String,
    /// The check that must fail: the patch's first line, `caught by: <check>`.
    pub caught_by: String,
    patch: String,
}

/// A state of an exercise, defined by a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The candidate's starting point.
    Start,
    /// The reference solution.
    Solution,
}

impl State {
    /// Both, in the order in which their patches apply.
    pub const ALL: [Self; 2] = [Self::Start, Self::Solution];

    /// `start` or `solution`
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Solution => "solution",
        }
    }

    /// The file with its patch.
    pub fn patch(self) -> &'static str {
        match self {
            Self::Start => "start.patch",
            Self::Solution => "solution.patch",
        }
    }
}

impl<'a> Kit<'a> {
    /// The kit of a commit.
    pub fn of(git: &'a Git, id: &str) -> Result<Self> {
        let base = git.file(id, BASE).with_context(|| {
            format!("there is no {BASE}: an exercise has none. To end the exercise: make exercise-reset")
        })?;
        let base = base.trim().to_owned();
        if git.commit(&base).is_none() {
            let cause = match git.run(["rev-parse", "--is-shallow-repository"])?.as_str() {
                "true" => "this clone is shallow: git fetch --unshallow",
                _ => "this repository does not have it: git fetch origin",
            };
            bail!("the exercises are based on the commit {base}, but {cause}");
        }
        let id = id.to_owned();
        Ok(Self { git, id, base })
    }

    /// The names of the exercises.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.git.folder(&self.id, BRIEFS);
        names.retain(|name| !name.contains('.'));
        names
    }

    /// Looks up the exercise that `make <target> N=…` names.
    pub fn named(&'a self, name: Option<&str>, target: &str) -> Result<Exercise<'a>> {
        let name = name.with_context(|| {
            format!(
                "no exercise is named. For example: make {target} N=lost-messages. Available: {}",
                self.names().join(", ")
            )
        })?;
        self.exercise(name)
    }

    /// Looks up an exercise by name.
    pub fn exercise(&'a self, name: &str) -> Result<Exercise<'a>> {
        let names = self.names();
        ensure!(
            names.iter().any(|known| known == name),
            "there is no exercise {name:?}, only these: {}",
            names.join(", ")
        );
        let name = name.to_owned();
        Ok(Exercise { kit: self, name })
    }
}

impl Exercise<'_> {
    /// The commit or tree with the kit.
    pub fn kit_id(&self) -> &str {
        &self.kit.id
    }

    /// The path of the brief.
    pub fn brief_path(&self) -> String {
        format!("{BRIEFS}/{}/README.md", self.name)
    }

    /// The brief.
    pub fn brief(&self) -> Result<String> {
        self.file(&self.brief_path())
    }

    /// The hidden checks.
    pub fn grader(&self) -> Result<String> {
        self.file(&self.answer_path("grader.rs"))
    }

    /// The tree in which the hidden checks are compiled: the base, with their library as in the kit.
    pub fn grading_tree(&self) -> Result<String> {
        let index = self.kit.git.index()?.of_tree(&self.kit.base)?;
        index.restore(&[GRADING], &self.kit.id)?;
        self.unify_features(&index)?;
        index.tree()
    }

    /// The key of an exercise whose result is a text. It has no hidden checks to compile.
    pub fn key(&self) -> Result<Option<Key>> {
        let text = self.kit.git.file(&self.kit.id, &self.answer_path("key.toml"));
        text.map(|text| Key::parse(&text)).transpose()
    }

    /// The path of one of the answer files.
    pub fn answer_path(&self, file: &str) -> String {
        format!("{ANSWERS}/{}/{file}", self.name)
    }

    /// The patch of a state, if it has one: a build exercise starts from the base itself.
    pub fn patch(&self, state: State) -> Option<String> {
        self.kit.git.file(&self.kit.id, &self.answer_path(state.patch()))
    }

    fn file(&self, path: &str) -> Result<String> {
        let file = self.kit.git.file(&self.kit.id, path);
        file.with_context(|| format!("there is no {path} in {}", self.kit.id))
    }

    /// The wrong solutions: patches on top of the solution.
    pub fn mutants(&self) -> Result<Vec<Mutant>> {
        let folder = self.answer_path("mutants");
        let names = self.kit.git.folder(&self.kit.id, &folder).into_iter();
        let mutant = |file: String| {
            let path = format!("{folder}/{file}");
            let patch = self.file(&path)?;
            let first = patch.lines().next().unwrap_or_default();
            let caught_by = first.strip_prefix("caught by: ");
            Ok(Mutant {
                name: file.trim_end_matches(".patch").replace('-', " "),
                caught_by: caught_by
                    .with_context(|| format!("{path} does not begin with `caught by: <check>`"))?
                    .to_owned(),
                patch,
            })
        };
        names.map(mutant).collect()
    }

    /// The tree of a wrong solution, from that of the solution.
    pub fn mutant_tree(&self, workshop: &Workshop, solution: &str, mutant: &Mutant) -> Result<String> {
        let index = self.kit.git.index()?.of_tree(solution)?;
        let applied = index.apply(&mutant.patch);
        applied.with_context(|| format!("the mutant {:?} of {} does not apply", mutant.name, self.name))?;
        if changes_queries(&mutant.patch) {
            let described = workshop.describe_queries(self.kit.git, &index.tree()?)?;
            index.take_from(&described, ".sqlx")?;
        }
        index.tree()
    }

    /// The tree of a submission, from that of the start: one of its answer files as a patch.
    pub fn submitted(&self, workshop: &Workshop, start: &str, file: &str) -> Result<String> {
        let path = self.answer_path(file);
        let patch = self.file(&path)?;
        let index = self.kit.git.index()?.of_tree(start)?;
        index
            .apply(&patch)
            .with_context(|| format!("{path} does not fit the start of {}", self.name))?;
        if changes_queries(&patch) && self.key()?.is_none() {
            let described = workshop.describe_queries(self.kit.git, &index.tree()?)?;
            index.take_from(&described, ".sqlx")?;
        }
        index.tree()
    }

    /// The tree of a state: the base with its patches applied.
    pub fn patched(&self, state: State) -> Result<String> {
        let index = self.kit.git.index()?.of_tree(&self.kit.base)?;
        self.apply(&index, state)?;
        index.tree()
    }

    /// A candidate's tree of a state: with the current briefs, without the answers, and with
    /// descriptions of changed queries.
    pub fn tree(&self, workshop: &Workshop, state: State) -> Result<String> {
        let index = self.kit.git.index()?.of_tree(&self.kit.base)?;
        // Before the patches: the solution of a review is a file in the brief's folder.
        index.take_folder(BRIEFS, &self.kit.id)?;
        self.apply(&index, state)?;
        for hidden in HIDDEN {
            index.remove(hidden)?;
        }
        index.restore(&["interview/Makefile"], &self.kit.id)?;
        self.leave_out_questions(&index)?;
        self.unify_features(&index)?;
        let introduce = |readme: &str| {
            let (before, kit) = readme.split_once(KIT_IN_README[0])?;
            let (_, after) = kit.split_once(KIT_IN_README[1])?;
            let brief = self.brief_path();
            let exercise = format!("## The exercise\n\nThe brief: [{brief}]({brief})\n\n");
            Some(format!("{before}{exercise}{}", after.trim_start()))
        };
        self.edit(&index, "README.md", introduce)?;
        let [file, wrong, right] = CORRECTION;
        self.edit(&index, file, |text| Some(text.replace(wrong, right)))?;
        // A text compiles nothing.
        if self.changes_queries(state) && self.key()?.is_none() {
            let described = workshop.describe_queries(self.kit.git, &index.tree()?)?;
            index.take_from(&described, ".sqlx")?;
        }
        index.tree()
    }

    /// The files of a tree that have the answers to questions.
    pub fn answers_in(&self, tree: &str) -> Result<Vec<String>> {
        self.kit.git.grep(tree, "strong answer")
    }

    /// Removes the base's page of questions, which is no part of a candidate's tree.
    fn leave_out_questions(&self, index: &Index) -> Result<()> {
        for path in QUESTIONS {
            index.remove(path)?;
        }
        self.edit(index, KIT_TESTS, |text| Some(text.replace("mod questions;\n", "")))
    }

    /// Enables the [`FEATURES`] in a tree, through the library of the hidden checks.
    fn unify_features(&self, index: &Index) -> Result<()> {
        self.edit(index, &format!("{GRADING}/Cargo.toml"), |manifest| {
            let missing = FEATURES.iter().filter(|(name, _)| !manifest.contains(name));
            let lines: String = missing
                .map(|(name, version)| format!("{name} = \"{version}\"\n"))
                .collect();
            Some(manifest.replacen("[dependencies]\n", &format!("[dependencies]\n{lines}"), 1))
        })?;
        self.edit(index, "Cargo.lock", |lock| with_dependencies(lock, "grading"))
    }

    /// Edits a file, if it exists, and the edit returns something.
    pub fn edit(&self, index: &Index, path: &str, edited: impl Fn(&str) -> Option<String>) -> Result<()> {
        let text = self.kit.git.file(&index.tree()?, path);
        let Some(text) = text else { return Ok(()) };
        match edited(&text) {
            Some(edited) if edited != text => index.add(path, &edited),
            _ => Ok(()),
        }
    }

    /// Applies the patches up to a state.
    fn apply(&self, index: &Index, state: State) -> Result<()> {
        for applied in State::ALL {
            if let Some(patch) = self.patch(applied) {
                let path = self.answer_path(applied.patch());
                let short = self.kit.base.get(..10).unwrap_or_default();
                index
                    .apply(&patch)
                    .with_context(|| format!("{path} does not fit the commit {short}"))?;
            }
            if applied == state {
                break;
            }
        }
        Ok(())
    }

    /// True if a patch up to this state may have changed a query or the schema.
    fn changes_queries(&self, state: State) -> bool {
        State::ALL
            .into_iter()
            .filter(|applied| *applied == State::Start || state == State::Solution)
            .filter_map(|applied| self.patch(applied))
            .any(|patch| changes_queries(&patch))
    }

    /// The tree of an index, with everything that grades restored from the base.
    pub fn with_grading(&self, index: &Index) -> Result<String> {
        index.restore(&MACHINERY, &self.kit.base)?;
        self.leave_out_questions(index)?;
        self.unify_features(index)?;
        index.tree()
    }
}

/// A Cargo.lock in which a package also depends on the [`FEATURES`]; none without this package.
fn with_dependencies(lock: &str, package: &str) -> Option<String> {
    let (before, rest) = lock.split_once(&format!("name = \"{package}\"\n"))?;
    let (head, rest) = rest.split_once("dependencies = [\n")?;
    let (dependencies, after) = rest.split_once("]\n")?;
    let mut lines: BTreeSet<String> = dependencies.lines().map(str::to_owned).collect();
    lines.extend(FEATURES.iter().map(|(name, _)| format!(" \"{name}\",")));
    let dependencies: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Some(format!(
        "{before}name = \"{package}\"\n{head}dependencies = [\n{dependencies}]\n{after}"
    ))
}

/// True if a patch may have changed a query or the schema. The code of the connection has no query.
fn changes_queries(patch: &str) -> bool {
    let folders = ["migrations/", "shared/core/src/store/"].map(|folder| format!("+++ b/{folder}"));
    let mut lines = patch.lines().filter(|line| !line.ends_with("/connection.rs"));
    lines.any(|line| folders.iter().any(|folder| line.starts_with(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_file_gets_the_dependencies_once() {
        let lock = "[[package]]\nname = \"a\"\n\n[[package]]\nname = \"grading\"\nversion = \"1\"\n\
                    dependencies = [\n \"anyhow\",\n \"tokio\",\n]\n\n[[package]]\n";
        let added = lock.replace(" \"tokio\",", " \"num-traits\",\n \"serde_core\",\n \"tokio\",");
        assert_eq!(with_dependencies(lock, "grading"), Some(added.clone()));
        assert_eq!(with_dependencies(&added, "grading"), Some(added));
        assert_eq!(with_dependencies(lock, "another"), None);
    }
}
