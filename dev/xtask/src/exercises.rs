//! `make exercise` and `make exercise-reset`: an exercise is a branch with one commit, so that its history tells nothing.
//! ([`crate::grade`] has `make grade`.)

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::{
    git::{Git, Index},
    grade,
};

/// Where the briefs are, and what else a candidate may see.
const BRIEFS: &str = "exercises";

/// Where the answers are.
const ANSWERS: &str = "interviewer";

/// What is in the folder of the briefs and is no exercise: the crate that the checks use.
const GRADING: &str = "grading";

/// Where the checks are while they are compiled.
pub const CHECKS: &str = "exercises/grading/tests/grader.rs";

/// An exercise of some commit.
pub struct Exercise<'a> {
    git: &'a Git,
    /// `lost-messages`
    pub name: String,
    /// The commit that it is made from.
    pub base: String,
}

/// A state of an exercise that there is a patch for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// What the candidate gets.
    Start,
    /// The reference solution.
    Solution,
}

impl<'a> Exercise<'a> {
    /// The exercise of this name in a commit.
    pub fn find(git: &'a Git, name: &str, base: &str) -> Result<Self> {
        let names = Self::names(git, base);
        ensure!(
            names.iter().any(|known| known == name),
            "there is no exercise {name:?}, only these: {}",
            names.join(", ")
        );
        let (name, base) = (name.to_owned(), base.to_owned());
        Ok(Self { git, name, base })
    }

    /// The exercises of a commit.
    pub fn names(git: &Git, base: &str) -> Vec<String> {
        let mut names = git.folder(base, BRIEFS);
        // The files of that folder are no folders.
        names.retain(|name| name != GRADING && !name.contains('.'));
        names
    }

    /// Where the brief is.
    pub fn brief_path(&self) -> String {
        format!("{BRIEFS}/{}/README.md", self.name)
    }

    /// The brief.
    pub fn brief(&self) -> Result<String> {
        let brief = self.git.file(&self.base, &self.brief_path());
        brief.with_context(|| format!("there is no {}", self.brief_path()))
    }

    /// Where one of the answers is.
    fn answer_path(&self, file: &str) -> String {
        format!("{ANSWERS}/{}/{file}", self.name)
    }

    /// The hidden checks.
    pub fn grader(&self) -> Result<String> {
        let path = self.answer_path("grader.rs");
        let grader = self.git.file(&self.base, &path);
        grader.with_context(|| format!("there is no {path} in {}", self.base))
    }

    /// The tree of a state, without the answers.
    pub fn tree(&self, state: State) -> Result<String> {
        let index = self.git.index()?.of_tree(&self.base)?;
        // To build something one starts from what there is.
        if self.git.file(&self.base, &self.answer_path("start.patch")).is_some() {
            self.apply(&index, "start.patch")?;
        }
        if state == State::Solution {
            self.apply(&index, "solution.patch")?;
        }
        index.remove_folder(ANSWERS)?;
        index.tree()
    }

    fn apply(&self, index: &Index, patch: &str) -> Result<()> {
        let path = self.answer_path(patch);
        let patch = self.git.file(&self.base, &path);
        let patch = patch.with_context(|| format!("there is no {path} in {}", self.base))?;
        let short = self.base.get(..10).unwrap_or_default();
        index
            .apply(&patch)
            .with_context(|| format!("{path} does not fit the commit {short}"))
    }

    /// The same tree with the hidden checks in it, and with the crate that they use as it was in the beginning.
    pub fn with_grader(&self, index: &Index) -> Result<String> {
        index.take_folder(&format!("{BRIEFS}/{GRADING}"), &self.base)?;
        index.take_file(&self.base, &self.answer_path("grader.rs"), CHECKS)?;
        index.tree()
    }
}

/// An exercise that was begun: its branch, and what git's settings say about it.
pub struct Begun {
    /// `lost-messages`
    pub name: String,
    /// The commit that it was made from.
    pub base: String,
    /// The one commit it began with.
    start: String,
    /// Where one was: a branch, or a commit.
    from: String,
}

impl Begun {
    /// The one of this name; without a name, the one whose branch is checked out.
    pub fn find(git: &Git, name: Option<&str>) -> Result<Self> {
        let branch = git.branch().unwrap_or_default();
        let name = match (name, branch.strip_prefix("exercise/")) {
            (Some(name), _) | (None, Some(name)) => name.to_owned(),
            (None, None) => bail!(
                "no exercise is checked out. To begin one: make exercise N=<name>. To go on: git switch exercise/<name>"
            ),
        };
        let setting = |key: &str| git.setting(&setting(&name, key));
        match (setting("base"), setting("start"), setting("from")) {
            (Some(base), Some(start), Some(from)) => Ok(Self {
                name,
                base,
                start,
                from,
            }),
            _ => bail!("the exercise {name} has not begun: make exercise N={name}"),
        }
    }

    /// Fails unless what is checked out comes from the exercise.
    pub fn ensure_checked_out(&self, git: &Git) -> Result<()> {
        let descends = git.ask(["merge-base", "--is-ancestor", &self.start, "HEAD"]).is_ok();
        let branch = branch(&self.name);
        ensure!(descends, "{branch} is not checked out: git switch {branch}");
        Ok(())
    }
}

fn branch(name: &str) -> String {
    format!("exercise/{name}")
}

/// Where git keeps what it should remember of an exercise: with its branch, so that it goes with it.
fn setting(name: &str, key: &str) -> String {
    format!("branch.{}.{key}", branch(name))
}

/// Begins an exercise.
pub fn begin(root: &Path, name: Option<&str>) -> Result<()> {
    let git = Git::open(root)?;
    if let Some(current) = git
        .branch()
        .as_deref()
        .and_then(|branch| branch.strip_prefix("exercise/"))
    {
        bail!("you are in the exercise {current}: to end it first, `make exercise-reset`");
    }
    let base = git.commit("HEAD").context("there is no commit yet")?;
    let names = Exercise::names(&git, &base);
    let Some(name) = name else {
        bail!(
            "which one? Say for example `make exercise N=lost-messages`. There are: {}",
            names.join(", ")
        );
    };
    let exercise = Exercise::find(&git, name, &base)?;
    exercise.grader()?;
    let branch = branch(name);
    ensure!(
        git.commit(&branch).is_none(),
        "the exercise {name} has begun already.\n\
         To go on with it: git switch {branch}\n\
         To begin anew:    make exercise-reset N={name}, then this again"
    );
    ensure_clean(&git)?;

    let from = git.branch().unwrap_or_else(|| base.clone());
    let start = git.make_commit(&exercise.tree(State::Start)?, None, &format!("The exercise {name}"))?;
    git.ask(["branch", "--no-track", &branch, &start])?;
    for (key, value) in [("base", &base), ("start", &start), ("from", &from)] {
        git.ask(["config", "--local", &setting(name, key), value])?;
    }
    if let Err(error) = git.ask(["switch", "--quiet", &branch]) {
        git.ask(["branch", "--quiet", "-D", &branch])?;
        return Err(error);
    }
    // Where `make test` may have left a solution.
    git.forget_check_out(&grade::source(root))?;
    let facts = Facts::of(&exercise.brief()?);
    println!(
        "
The exercise {name} has begun, on the branch {branch}.

  Brief      {}
  Level      {}
  Time box   {}

  make grade            check what you have; as often as you like, committed or not
  make exercise-reset   end it: back to {}, your work is kept as a commit
",
        exercise.brief_path(),
        facts.level,
        facts.time_box,
        place(&git, &from),
    );
    Ok(())
}

/// A person's word for where one was.
fn place(git: &Git, from: &str) -> String {
    match git.commit(&format!("refs/heads/{from}")) {
        Some(_) => from.to_owned(),
        None => format!("the commit {}", from.get(..10).unwrap_or(from)),
    }
}

fn ensure_clean(git: &Git) -> Result<()> {
    const SHOWN: usize = 10;
    let changes = git.changes()?;
    if changes.is_empty() {
        return Ok(());
    }
    let mut list = String::new();
    for change in changes.iter().take(SHOWN) {
        list += &format!("\n  {change}");
    }
    if changes.len() > SHOWN {
        list += &format!("\n  and {} more", changes.len() - SHOWN);
    }
    bail!(
        "there are changes that are not committed, and they would get into the exercise:{list}\n\
         Commit them, or put them aside: git stash --include-untracked"
    );
}

/// What the brief says at its beginning and in its section about time.
struct Facts {
    level: String,
    time_box: String,
}

impl Facts {
    fn of(brief: &str) -> Self {
        let level = brief.split_once("**Level:**").map(|(_, rest)| rest);
        let level = level.and_then(|rest| rest.split(['\n', '·']).next());
        Self {
            level: level.unwrap_or("see the brief").trim().to_owned(),
            time_box: section(brief, "Time box")
                .and_then(|text| text.split_inclusive(['.', '\n']).next())
                .map_or("see the brief", |line| line.trim().trim_end_matches('.'))
                .to_owned(),
        }
    }
}

/// The text under a heading, up to the next one.
pub fn section<'a>(document: &'a str, title: &str) -> Option<&'a str> {
    let (_, text) = document.split_once(&format!("\n## {title}\n"))?;
    Some(text.split("\n## ").next().unwrap_or_default().trim())
}

/// Ends an exercise: the one that is named, or else the one that is checked out.
pub fn reset(root: &Path, name: Option<&str>) -> Result<()> {
    let git = Git::open(root)?;
    let begun = Begun::find(&git, name)?;
    let branch = branch(&begun.name);
    if git.branch().as_ref() == Some(&branch) {
        keep_changes(&git, &begun)?;
        // The branch that one came from may be gone by now.
        match git.commit(&format!("refs/heads/{}", begun.from)) {
            Some(_) => git.ask(["switch", "--quiet", &begun.from])?,
            None => git.ask([
                "switch",
                "--quiet",
                "--detach",
                git.commit(&begun.from).as_ref().unwrap_or(&begun.base),
            ])?,
        };
    }
    let work = git.commit(&branch).context("the exercise's branch is gone")?;
    // Its settings go with it.
    git.ask(["branch", "--quiet", "-D", &branch])?;
    let kept = if work == begun.start {
        "Nothing was changed in it.".to_owned()
    } else {
        let id = git.ask(["rev-parse", "--short", &work])?;
        format!(
            "The work is kept, for a month at least, as the commit {id}:\n\n\
             \x20 git diff {} {id}\n\
             \x20 git branch my-{} {id}   to keep it for ever",
            git.ask(["rev-parse", "--short", &begun.start])?,
            begun.name,
        )
    };
    println!(
        "\nThe exercise {} has ended; you are on {}.\n{kept}\n",
        begun.name,
        git.branch().unwrap_or_else(|| "a commit of no branch".to_owned()),
    );
    Ok(())
}

/// Commits what has not been, whatever hooks there are.
fn keep_changes(git: &Git, begun: &Begun) -> Result<()> {
    if git.changes()?.is_empty() {
        return Ok(());
    }
    git.ask(["add", "--all"])?;
    let tree = git.ask(["write-tree"])?;
    let message = format!("Work on the exercise {}", begun.name);
    let commit = git.make_commit(&tree, git.commit("HEAD").as_deref(), &message)?;
    git.ask(["update-ref", "HEAD", &commit])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, process::Command};

    use super::*;

    const PATCH: &str = "\
diff --git a/src.txt b/src.txt
--- a/src.txt
+++ b/src.txt
@@ -1 +1 @@
-FROM
+TO
";

    fn run(folder: &Path, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.current_dir(folder)
            .args(["-c", "user.name=t", "-c", "user.email=t"]);
        let output = git.args(["-c", "commit.gpgSign=false"]).args(arguments).output();
        let output = output.expect("git starts");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        text
    }

    fn write(folder: &Path, path: &str, text: &str) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a file")).expect("a folder");
        fs::write(path, text).expect("written");
    }

    /// A repository with the exercise `broken`, in a folder of this test's own.
    fn repository(test: &str) -> PathBuf {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask-tests");
        let folder = target.join("exercises").join(test);
        let _ = fs::remove_dir_all(&folder);
        for (path, text) in [
            (".gitignore", "/.local/\n"),
            ("src.txt", "right\n"),
            ("exercises/README.md", "list\n"),
            ("exercises/grading/lib.rs", "the graders' own\n"),
            (
                "exercises/broken/README.md",
                "# Broken\n\n**Level:** mid (2-5 years) · **Kind:** debug\n\n## Time box\n\n60 minutes. Slowly.\n\n## Hints\n",
            ),
            ("interviewer/broken/grader.rs", "// functions: a\n"),
            (
                "interviewer/broken/start.patch",
                &PATCH.replace("FROM", "right").replace("TO", "wrong"),
            ),
            (
                "interviewer/broken/solution.patch",
                &PATCH.replace("FROM", "wrong").replace("TO", "right again"),
            ),
        ] {
            write(&folder, path, text);
        }
        run(&folder, &["init", "--quiet", "--initial-branch", "main"]);
        run(&folder, &["add", "--all"]);
        run(&folder, &["commit", "--quiet", "--message", "all"]);
        folder
    }

    fn read(folder: &Path, path: &str) -> Option<String> {
        fs::read_to_string(folder.join(path)).ok()
    }

    fn refusal<T>(result: Result<T>) -> String {
        result.map(|_| ()).expect_err("it is refused").to_string()
    }

    #[test]
    fn an_exercise_has_one_commit_without_the_answers_and_its_end_keeps_the_work() {
        let folder = repository("whole");
        begin(&folder, Some("broken")).expect("it begins");
        assert_eq!(run(&folder, &["branch", "--show-current"]), "exercise/broken");
        assert_eq!(run(&folder, &["rev-list", "--count", "HEAD"]), "1");
        assert_eq!(read(&folder, "src.txt").as_deref(), Some("wrong\n"));
        assert!(!folder.join("interviewer").exists());
        assert_eq!(run(&folder, &["status", "--porcelain"]), "");

        write(&folder, "src.txt", "mended\n");
        write(&folder, "new/test.rs", "a test\n");
        write(&folder, "exercises/grading/lib.rs", "cheating\n");
        let git = Git::open(&folder).expect("a repository");
        let begun = Begun::find(&git, None).expect("it is checked out");
        begun.ensure_checked_out(&git).expect("it is");
        let exercise = Exercise::find(&git, &begun.name, &begun.base).expect("it is there");
        let index = git.index().expect("an index").of_working_tree().expect("what there is");
        let graded = exercise.with_grader(&index).expect("a tree");
        for (path, text) in [
            ("src.txt", "mended\n"),
            ("new/test.rs", "a test\n"),
            ("exercises/grading/lib.rs", "the graders' own\n"),
            (CHECKS, "// functions: a\n"),
        ] {
            assert_eq!(git.file(&graded, path).as_deref(), Some(text), "{path}");
        }
        drop(index);
        assert_eq!(
            git.changes().expect("a list").len(),
            3,
            "nothing of that is staged or changed"
        );

        reset(&folder, None).expect("it ends");
        assert_eq!(run(&folder, &["branch", "--list"]), "* main");
        assert_eq!(run(&folder, &["status", "--porcelain"]), "");
        assert_eq!(read(&folder, "src.txt").as_deref(), Some("right\n"));
        assert!(!folder.join("new").exists() && folder.join("interviewer").exists());
        let kept = run(&folder, &["rev-parse", "HEAD@{1}"]);
        assert_eq!(git.file(&kept, "new/test.rs").as_deref(), Some("a test\n"));
        assert_eq!(git.setting("branch.exercise/broken.base"), None);
        begin(&folder, Some("broken")).expect("it begins anew");
    }

    #[test]
    fn nothing_begins_that_would_mix_things_up() {
        let folder = repository("refusals");
        let unknown = refusal(begin(&folder, Some("brocken")));
        assert!(
            unknown.contains("\"brocken\"") && unknown.ends_with(": broken"),
            "{unknown}"
        );
        assert!(refusal(begin(&folder, None)).contains("There are: broken"));
        assert!(refusal(reset(&folder, None)).contains("no exercise is checked out"));
        assert!(refusal(reset(&folder, Some("broken"))).contains("has not begun"));

        write(&folder, "src.txt", "changed\n");
        write(&folder, "stray file", "\n");
        let dirty = refusal(begin(&folder, Some("broken")));
        assert!(dirty.contains("\n   M src.txt\n  ?? \"stray file\"\n"), "{dirty}");
        assert!(dirty.contains("git stash --include-untracked"), "{dirty}");
        run(&folder, &["stash", "--quiet", "--include-untracked"]);

        begin(&folder, Some("broken")).expect("it begins");
        assert!(refusal(begin(&folder, Some("broken"))).contains("you are in the exercise broken"));
        run(&folder, &["switch", "--quiet", "main"]);
        assert!(refusal(begin(&folder, Some("broken"))).contains("git switch exercise/broken"));
        let git = Git::open(&folder).expect("a repository");
        let begun = Begun::find(&git, Some("broken")).expect("it has begun");
        assert!(refusal(begun.ensure_checked_out(&git)).contains("git switch exercise/broken"));
        // From where one is, too.
        reset(&folder, Some("broken")).expect("it ends");
        assert_eq!(run(&folder, &["branch", "--list"]), "* main");
    }

    #[test]
    fn one_comes_back_to_where_one_was_whether_it_is_a_branch_or_a_commit() {
        let folder = repository("detached");
        let head = run(&folder, &["rev-parse", "HEAD"]);
        run(&folder, &["switch", "--quiet", "--detach"]);
        begin(&folder, Some("broken")).expect("it begins");
        reset(&folder, None).expect("it ends");
        assert_eq!(run(&folder, &["rev-parse", "HEAD"]), head);
        assert_eq!(run(&folder, &["branch", "--show-current"]), "");

        run(&folder, &["switch", "--quiet", "--create", "feature"]);
        begin(&folder, Some("broken")).expect("it begins");
        run(&folder, &["branch", "--quiet", "-D", "feature"]);
        reset(&folder, None).expect("it ends");
        assert_eq!(
            run(&folder, &["rev-parse", "HEAD"]),
            head,
            "the branch is gone, the commit is not"
        );
    }

    #[test]
    fn a_patch_that_does_not_fit_is_named() {
        let folder = repository("misfit");
        let git = Git::open(&folder).expect("a repository");
        let exercise = |base: &str| Exercise::find(&git, "broken", base).expect("it is there");
        let solution = exercise("HEAD").tree(State::Solution).expect("it fits");
        assert_eq!(git.file(&solution, "src.txt").as_deref(), Some("right again\n"));
        write(&folder, "src.txt", "moved on\n");
        run(&folder, &["commit", "--quiet", "--all", "--message", "main moves"]);
        let misfit = refusal(exercise("HEAD").tree(State::Start));
        assert!(
            misfit.starts_with("interviewer/broken/start.patch does not fit"),
            "{misfit}"
        );
    }

    #[test]
    fn a_folder_without_a_repository_of_its_own_is_refused() {
        let folder = repository("none").join("src");
        fs::create_dir_all(&folder).expect("a folder");
        assert!(refusal(begin(&folder, Some("broken"))).contains("a part of another one"));
    }

    #[test]
    fn only_what_differs_is_written_into_a_folder() {
        let folder = repository("checkout");
        let git = Git::open(&folder).expect("a repository");
        let exercise = Exercise::find(&git, "broken", "HEAD").expect("it is there");
        let to = folder.join(".local/copy");
        git.check_out(&exercise.tree(State::Start).expect("a tree"), &to)
            .expect("it is filled");
        let modified = |path: &str| {
            fs::metadata(to.join(path))
                .and_then(|file| file.modified())
                .expect("a file")
        };
        let before = ["src.txt", "exercises/README.md"].map(modified);
        assert_eq!(read(&to, "src.txt").as_deref(), Some("wrong\n"));
        write(&to, "target/built", "by cargo\n");
        // As cargo may leave it.
        write(&to, "exercises/broken/README.md", "changed\n");

        git.check_out("HEAD", &to).expect("it is filled");
        assert_eq!(read(&to, "src.txt").as_deref(), Some("right\n"));
        assert!(to.join("interviewer").exists() && to.join("target/built").exists());
        assert!(read(&to, "exercises/broken/README.md").is_some_and(|brief| brief.starts_with("# Broken")));
        let after = ["src.txt", "exercises/README.md"].map(modified);
        assert!(after[0] > before[0] && after[1] == before[1], "{before:?} {after:?}");
        git.check_out(&exercise.tree(State::Start).expect("a tree"), &to)
            .expect("it is filled");
        assert!(!to.join("interviewer").exists());
        assert_eq!(run(&folder, &["status", "--porcelain"]), "");

        git.forget_check_out(&to).expect("it is deleted");
        assert!(!to.exists());
        git.forget_check_out(&to).expect("twice is fine");
        git.check_out("HEAD", &to).expect("it is filled");
        assert_eq!(read(&to, "src.txt").as_deref(), Some("right\n"));
    }

    #[test]
    fn what_the_brief_says_about_level_and_time_is_told_at_the_beginning() {
        let facts = Facts::of(
            "# T\n\n**Level:** mid (2-5 years) · **Kind:** debug\n\n## Time box\n\n60 minutes. Slowly.\n\n## Hints\n",
        );
        assert_eq!(
            (facts.level.as_str(), facts.time_box.as_str()),
            ("mid (2-5 years)", "60 minutes")
        );
        let facts = Facts::of("# T\n");
        assert_eq!(
            (facts.level.as_str(), facts.time_box.as_str()),
            ("see the brief", "see the brief")
        );
    }
}
