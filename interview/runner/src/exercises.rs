//! `make exercise` and `make exercise-reset`: an exercise is a branch with one commit, so its
//! history reveals nothing.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use xtask::{stack::settings::Settings, tools::files};

use crate::{
    git::Git,
    incident::commands,
    kit::{Kit, State},
    record,
    review::Review,
    workshop::{self, Workshop},
};

/// An exercise in progress: its branch, and its data in git's settings.
pub struct ActiveExercise {
    /// `lost-messages`
    pub name: String,
    /// The commit with the kit that it was created from.
    pub kit: String,
    /// Its first and only initial commit.
    pub start: String,
    /// The branch or commit that was checked out before.
    from: String,
}

impl ActiveExercise {
    /// Finds it by name; without a name, by the branch that is checked out.
    pub fn find(git: &Git, name: Option<&str>) -> Result<Self> {
        let of_branch = || Some(git.branch()?.strip_prefix("exercise/")?.to_owned());
        let name = name.map(str::to_owned).or_else(of_branch).or_else(|| continued(git));
        let name = name.context(
            "no exercise is checked out. To start one: make exercise N=<name>. \
             To continue one: git switch exercise/<name>",
        )?;
        let setting = |key: &str| git.setting(&setting(&name, key));
        match (setting("kit"), setting("start"), setting("from")) {
            (Some(kit), Some(start), Some(from)) => Ok(Self { name, kit, start, from }),
            _ => bail!("the exercise {name} has not been started: make exercise N={name}"),
        }
    }

    /// One that was worked on in another repository.
    pub fn elsewhere(name: &str, kit: &str, start: &str) -> Self {
        Self {
            name: name.to_owned(),
            kit: kit.to_owned(),
            start: start.to_owned(),
            from: String::new(),
        }
    }

    /// The name of one of its git settings.
    pub fn setting(&self, key: &str) -> String {
        setting(&self.name, key)
    }

    /// Fails unless HEAD descends from the exercise.
    pub fn ensure_checked_out(&self, git: &Git) -> Result<()> {
        let branch = branch(&self.name);
        ensure!(
            is_in_head(git, &self.start),
            "{branch} is not checked out: git switch {branch}"
        );
        Ok(())
    }
}

/// The exercise that the checked out branch or commit continues, if the candidate has made one of
/// their own.
fn continued(git: &Git) -> Option<String> {
    let branches = git.run(["for-each-ref", "--format=%(refname:short)", "refs/heads/exercise/"]);
    let branches = branches.unwrap_or_default();
    let names = branches.lines().filter_map(|branch| branch.strip_prefix("exercise/"));
    let mut continued = names.filter(|name| {
        let start = git.setting(&setting(name, "start"));
        start.is_some_and(|start| is_in_head(git, &start))
    });
    continued.next().map(str::to_owned)
}

/// True if HEAD is this commit, or descends from it.
pub fn is_in_head(git: &Git, commit: &str) -> bool {
    git.run(["merge-base", "--is-ancestor", commit, "HEAD"]).is_ok()
}

fn branch(name: &str) -> String {
    format!("exercise/{name}")
}

/// The name of a git setting for an exercise. It belongs to the branch, so it is deleted with it.
fn setting(name: &str, key: &str) -> String {
    format!("branch.{}.{key}", branch(name))
}

/// Starts an exercise.
pub fn begin(settings: &Settings, name: Option<&str>) -> Result<()> {
    let git = Git::open(&settings.root)?;
    if let Some(current) = git
        .branch()
        .as_deref()
        .and_then(|branch| branch.strip_prefix("exercise/"))
    {
        bail!("the exercise {current} is in progress: to end it first, run `make exercise-reset`");
    }
    if let Some(incident) = commands::in_progress(&settings.root)? {
        bail!(
            "the incident {} is in progress: to end it first, run `make incident-reset`",
            incident.name()
        );
    }
    let head = git.commit("HEAD").context("there is no commit yet")?;
    let kit = Kit::of(&git, &head)?;
    let exercise = kit.named(name, "exercise")?;
    let name = exercise.name.as_str();
    if exercise.key()?.is_none() {
        exercise.grader()?;
    }
    let branch = branch(name);
    ensure!(
        git.commit(&branch).is_none(),
        "the exercise {name} has already been started.\n\
         To continue it: git switch {branch}\n\
         To restart it:  make exercise-reset N={name}, then this command again"
    );
    ensure_clean(&git)?;

    let from = git.branch().unwrap_or_else(|| head.clone());
    let workshop = Workshop::open(settings)?;
    let tree = exercise.tree(&workshop, State::Start)?;
    let start = git.make_commit(&tree, None, &format!("The exercise {name}"))?;
    // First, so that there is no branch without them.
    for (key, value) in [("kit", &head), ("start", &start), ("from", &from)] {
        git.run(["config", "--local", &setting(name, key), value])?;
    }
    git.run(["branch", "--no-track", &branch, &start])?;
    if let Err(error) = git.run(["switch", "--quiet", &branch]) {
        git.run(["branch", "--quiet", "-D", &branch])?;
        return Err(error);
    }
    keep_runner(&settings.root)?;
    // A proof may have left a solution there.
    git.forget_check_out(&workshop::source(&settings.root))?;
    workshop.forget_grader()?;
    drop(workshop);
    let facts = Facts::of(&exercise.brief()?);
    println!(
        "
The exercise {name} has started, on the branch {branch}.

  Brief      {}
  Level      {}
  Time box   {}

  make grade            check your work; as often as you like, committed or not
  make hint             the next of three hints
  make exercise-reset   end it: back to {}; your work is kept as a commit
",
        exercise.brief_path(),
        facts.level,
        facts.time_box,
        place(&git, &from),
    );
    prepare_in_background(&settings.root)
}

/// The program that started the exercise.
const RUNNER: &str = ".local/exercises/interview";

/// Compiles the checks of the exercise that is checked out while its brief is read. Without a build
/// (`make up`) it does nothing: then `make grade` shows how everything is compiled.
fn prepare_in_background(root: &Path) -> Result<()> {
    if !root.join("target/debug/.fingerprint").exists() {
        return Ok(());
    }
    let mut prepare = Command::new(root.join(RUNNER));
    prepare.arg("prepare").current_dir(root);
    prepare.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // In a process group of its own, so that Ctrl-C at the terminal does not end it.
    prepare
        .process_group(0)
        .spawn()
        .context("cannot start the compilation of the checks")?;
    Ok(())
}

/// Compiles the checks of the exercise that is checked out.
pub fn prepare(settings: &Settings) -> Result<()> {
    let git = Git::open(&settings.root)?;
    let active = ActiveExercise::find(&git, None)?;
    let workshop = Workshop::open(settings)?;
    let kit = Kit::of(&git, &active.kit)?;
    let exercise = kit.exercise(&active.name)?;
    if exercise.key()?.is_some() {
        // A text compiles nothing.
        return Ok(());
    }
    let start = exercise.with_grading(&git.index()?.of_tree(&active.start)?)?;
    workshop.prepare(&git, &exercise, &start)
}

/// Keeps this program, for `make grade`: it grades with the code of the commit that it was built
/// from, not with that of the candidate's tree, and need not be compiled again.
fn keep_runner(root: &Path) -> Result<()> {
    let kept = root.join(RUNNER);
    fs::create_dir_all(kept.parent().context("a folder in .local")?)?;
    // Not overwritten: it may be running.
    files::remove_if_exists(fs::remove_file(&kept))?;
    fs::copy(std::env::current_exe()?, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
    Ok(())
}

/// A readable name of the previous branch or commit.
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
        "there are uncommitted changes, which would end up in the exercise:{list}\n\
         Commit them, or stash them: git stash --include-untracked"
    );
}

/// The level and time box from a brief.
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

/// Ends the named exercise, or else the one that is checked out.
pub fn reset(root: &Path, name: Option<&str>) -> Result<()> {
    let git = Git::open(root)?;
    let active = ActiveExercise::find(&git, name)?;
    let branch = branch(&active.name);
    ensure!(
        git.run(["rev-parse", "--verify", "--quiet", "MERGE_HEAD"]).is_err(),
        "a merge is not complete: git commit, or git merge --abort"
    );
    let is_on_branch = git.branch().as_ref() == Some(&branch);
    ensure!(
        is_on_branch || !is_in_head(&git, &active.start),
        "the work is not on {branch}: git switch {branch}, and git merge the branch that you are on now"
    );
    if is_on_branch {
        keep_changes(&git, &active)?;
        // The previous branch may have been deleted.
        match git.commit(&format!("refs/heads/{}", active.from)) {
            Some(_) => git.run(["switch", "--quiet", &active.from])?,
            None => git.run([
                "switch",
                "--quiet",
                "--detach",
                git.commit(&active.from).as_ref().unwrap_or(&active.kit),
            ])?,
        };
    }
    let work = git.commit(&branch).context("the exercise's branch was deleted")?;
    let record = record::end(&git, &active, &work)?;
    // The places of the defects are shown now, not while they are searched for.
    let kit = Kit::of(&git, &active.kit)?;
    if let Some(key) = kit.exercise(&active.name)?.key()? {
        println!("\n{}", Review::read(&git, &key, &active.start, &work).solution()?);
    }
    // This also deletes its settings.
    git.run(["branch", "--quiet", "-D", &branch])?;
    let kept = if work == active.start {
        "Nothing was changed in it.".to_owned()
    } else {
        let id = git.run(["rev-parse", "--short", &work])?;
        format!(
            "The work is kept for at least a month as the commit {id}:\n\n\
             \x20 git diff {} {id}\n\
             \x20 git branch my-{} {id}   to keep it permanently",
            git.run(["rev-parse", "--short", &active.start])?,
            active.name,
        )
    };
    println!(
        "\nThe exercise {} has ended; you are on {}.\n{kept}\n",
        active.name,
        git.branch().unwrap_or_else(|| "a detached commit".to_owned()),
    );
    if let Some(id) = record {
        println!("What happened in it, to read or hand over: make replay S={id}\n");
    }
    Ok(())
}

/// Commits all changes, bypassing hooks.
fn keep_changes(git: &Git, active: &ActiveExercise) -> Result<()> {
    if git.changes()?.is_empty() {
        return Ok(());
    }
    git.run(["add", "--all"])?;
    let tree = git.run(["write-tree"])?;
    let message = format!("Work on the exercise {}", active.name);
    let commit = git.make_commit(&tree, git.commit("HEAD").as_deref(), &message)?;
    git.run(["update-ref", "HEAD", &commit])?;
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use std::{fs, path::PathBuf, process::Command};

    use xtask::stack::functions::Profile;

    use super::*;

    const PATCH: &str = "\
diff --git a/src.txt b/src.txt
--- a/src.txt
+++ b/src.txt
@@ -1 +1 @@
-FROM
+TO
";

    pub fn run(folder: &Path, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.current_dir(folder)
            .args(["-c", "user.name=t", "-c", "user.email=t"]);
        let output = git.args(["-c", "commit.gpgSign=false"]).args(arguments).output();
        let output = output.expect("git starts");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        text
    }

    pub fn write(folder: &Path, path: &str, text: &str) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a file")).expect("a folder");
        fs::write(path, text).expect("written");
    }

    /// A repository with the exercise `broken`, based on its first commit, in a separate folder for
    /// this test.
    pub fn repository(test: &str) -> PathBuf {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask-tests");
        let folder = target.join("exercises").join(test);
        let _ = fs::remove_dir_all(&folder);
        for (path, text) in [
            (".gitignore", "/.local/\n"),
            (".sqlx/query.json", "{}\n"),
            ("src.txt", "right\n"),
            ("interview/grading/lib.rs", "the graders' own\n"),
            ("INTERVIEW_QUESTIONS.md", "A strong answer\n"),
            ("interview/runner/tests/kit/questions.rs", "A strong answer\n"),
            ("interview/runner/tests/kit/main.rs", "mod exercises;\nmod questions;\n"),
            (
                "README.md",
                "# T\n<!-- interview kit -->\nAnswers\n<!-- end of interview kit -->\n\n## License\n",
            ),
        ] {
            write(&folder, path, text);
        }
        run(&folder, &["init", "--quiet", "--initial-branch", "main"]);
        run(&folder, &["add", "--all"]);
        run(&folder, &["commit", "--quiet", "--message", "base"]);
        let base = run(&folder, &["rev-parse", "HEAD"]);
        for (path, text) in [
            ("src.txt", "right, and moved on\n"),
            ("interview/BASE", &base),
            ("interview/README.md", "for interviewers\n"),
            ("interview/incidents/README.md", "for interviewers\n"),
            ("interview/briefs/README.md", "list\n"),
            (
                "interview/briefs/broken/README.md",
                "# Broken\n\n**Level:** mid (2-5 years) · **Kind:** debug\n\n## Time box\n\n60 minutes. Slowly.\n\n## Hints\n",
            ),
            ("interview/rubric.toml", "\n"),
            ("interview/answers/broken/hints.md", "# Broken: hints\n"),
            ("interview/answers/broken/grader.rs", "// functions: a\n"),
            (
                "interview/answers/broken/start.patch",
                &PATCH.replace("FROM", "right").replace("TO", "wrong"),
            ),
            (
                "interview/answers/broken/solution.patch",
                &PATCH.replace("FROM", "wrong").replace("TO", "right again"),
            ),
        ] {
            write(&folder, path, text);
        }
        run(&folder, &["add", "--all"]);
        run(&folder, &["commit", "--quiet", "--message", "the kit"]);
        folder
    }

    /// The settings of a command in a folder.
    pub fn settings(folder: &Path) -> Settings {
        Settings {
            root: folder.to_owned(),
            database_url: None,
            stack: None,
            sam_port: 0,
            yes: false,
            profile: Profile::Local,
        }
    }

    fn begin(folder: &Path, name: Option<&str>) -> Result<()> {
        super::begin(&settings(folder), name)
    }

    pub fn read(folder: &Path, path: &str) -> Option<String> {
        fs::read_to_string(folder.join(path)).ok()
    }

    pub fn refusal<T>(result: Result<T>) -> String {
        result.map(|_| ()).expect_err("it is refused").to_string()
    }

    #[test]
    fn exercise_hides_answers_and_reset_keeps_the_work() {
        let folder = repository("whole");
        begin(&folder, Some("broken")).expect("it begins");
        assert_eq!(run(&folder, &["branch", "--show-current"]), "exercise/broken");
        assert_eq!(run(&folder, &["rev-list", "--count", "HEAD"]), "1");
        assert_eq!(read(&folder, "src.txt").as_deref(), Some("wrong\n"));
        for hidden in ["answers", "incidents", "BASE", "README.md", "rubric.toml"] {
            assert!(!folder.join("interview").join(hidden).exists(), "{hidden}");
        }
        let brief = "interview/briefs/broken/README.md";
        assert!(folder.join(brief).exists());
        for path in ["INTERVIEW_QUESTIONS.md", "interview/runner/tests/kit/questions.rs"] {
            assert!(!folder.join(path).exists(), "{path}");
        }
        let readme = format!("# T\n## The exercise\n\nThe brief: [{brief}]({brief})\n\n## License\n");
        assert_eq!(read(&folder, "README.md"), Some(readme));
        let tests = read(&folder, "interview/runner/tests/kit/main.rs");
        assert_eq!(tests.as_deref(), Some("mod exercises;\n"));
        assert_eq!(run(&folder, &["status", "--porcelain"]), "");

        write(&folder, "src.txt", "repaired\n");
        write(&folder, "new/test.rs", "a test\n");
        write(&folder, "interview/grading/lib.rs", "cheating\n");
        let git = Git::open(&folder).expect("a repository");
        let active = ActiveExercise::find(&git, None).expect("an active exercise");
        active.ensure_checked_out(&git).expect("it is");
        let kit = Kit::of(&git, &active.kit).expect("the kit");
        let exercise = kit.exercise(&active.name).expect("it is there");
        let index = git.index().expect("an index").of_working_tree().expect("what there is");
        let graded = exercise.with_grading(&index).expect("a tree");
        for (path, text) in [
            ("src.txt", "repaired\n"),
            ("new/test.rs", "a test\n"),
            ("interview/grading/lib.rs", "the graders' own\n"),
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
        assert_eq!(read(&folder, "src.txt").as_deref(), Some("right, and moved on\n"));
        assert!(!folder.join("new").exists() && folder.join("interview/answers").exists());
        let kept = run(&folder, &["rev-parse", "HEAD@{1}"]);
        assert_eq!(git.file(&kept, "new/test.rs").as_deref(), Some("a test\n"));
        assert_eq!(git.setting("branch.exercise/broken.kit"), None);
        begin(&folder, Some("broken")).expect("it begins anew");
    }

    #[test]
    fn begin_refuses_unknown_names_and_unclean_states() {
        let folder = repository("refusals");
        let unknown = refusal(begin(&folder, Some("unknown")));
        assert!(
            unknown.contains("\"unknown\"") && unknown.ends_with(": broken"),
            "{unknown}"
        );
        assert!(refusal(begin(&folder, None)).contains("Available: broken"));
        assert!(refusal(reset(&folder, None)).contains("no exercise is checked out"));
        assert!(refusal(reset(&folder, Some("broken"))).contains("has not been started"));

        write(&folder, "src.txt", "changed\n");
        write(&folder, "stray file", "\n");
        let dirty = refusal(begin(&folder, Some("broken")));
        assert!(dirty.contains("\n   M src.txt\n  ?? \"stray file\"\n"), "{dirty}");
        assert!(dirty.contains("git stash --include-untracked"), "{dirty}");
        run(&folder, &["stash", "--quiet", "--include-untracked"]);

        begin(&folder, Some("broken")).expect("it begins");
        assert!(refusal(begin(&folder, Some("broken"))).contains("the exercise broken is in progress"));
        run(&folder, &["switch", "--quiet", "main"]);
        assert!(refusal(begin(&folder, Some("broken"))).contains("git switch exercise/broken"));
        let git = Git::open(&folder).expect("a repository");
        let active = ActiveExercise::find(&git, Some("broken")).expect("it has been started");
        assert!(refusal(active.ensure_checked_out(&git)).contains("git switch exercise/broken"));
        // It can also be ended from another branch.
        reset(&folder, Some("broken")).expect("it ends");
        assert_eq!(run(&folder, &["branch", "--list"]), "* main");
    }

    #[test]
    fn reset_returns_to_the_previous_branch_or_commit() {
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
            "the branch was deleted, the commit was not"
        );
    }

    #[test]
    fn exercises_rest_on_their_base() {
        let folder = repository("base");
        let git = Git::open(&folder).expect("a repository");
        let tree = |state| {
            let kit = Kit::of(&git, "HEAD")?;
            kit.exercise("broken")?.patched(state)
        };
        let solution = tree(State::Solution).expect("it applies, although HEAD has moved on");
        assert_eq!(git.file(&solution, "src.txt").as_deref(), Some("right again\n"));

        let head = run(&folder, &["rev-parse", "HEAD"]);
        write(&folder, "interview/BASE", &head);
        run(&folder, &["commit", "--quiet", "--all", "--message", "another base"]);
        let misfit = refusal(tree(State::Start));
        assert!(
            misfit.starts_with("interview/answers/broken/start.patch does not fit"),
            "{misfit}"
        );
        write(&folder, "interview/BASE", &"1".repeat(40));
        run(&folder, &["commit", "--quiet", "--all", "--message", "unknown base"]);
        let unknown = refusal(tree(State::Start));
        assert!(unknown.ends_with("git fetch origin"), "{unknown}");
    }

    #[test]
    fn shallow_clone_is_told_to_fetch() {
        let folder = repository("deep");
        let shallow = folder.with_file_name("shallow");
        let _ = fs::remove_dir_all(&shallow);
        let url = format!("file://{}", folder.canonicalize().expect("a folder").display());
        run(
            &folder,
            &["clone", "--quiet", "--depth", "1", &url, &shallow.to_string_lossy()],
        );
        let message = refusal(begin(&shallow, Some("broken")));
        assert!(message.ends_with("git fetch --unshallow"), "{message}");
    }

    #[test]
    fn folder_without_its_own_repository_is_refused() {
        let folder = repository("none").join("src");
        fs::create_dir_all(&folder).expect("a folder");
        assert!(refusal(begin(&folder, Some("broken"))).contains("belongs to another one"));
    }

    #[test]
    fn checkout_writes_only_changed_files() {
        let folder = repository("checkout");
        let git = Git::open(&folder).expect("a repository");
        let to = folder.join(".local/copy");
        let tree = |name: &str| run(&folder, &["rev-parse", &format!("{name}^{{tree}}")]);
        git.check_out(&tree("HEAD~"), &to).expect("it is filled");
        let modified = |path: &str| {
            fs::metadata(to.join(path))
                .and_then(|file| file.modified())
                .expect("a file")
        };
        let before = ["src.txt", "interview/grading/lib.rs"].map(modified);
        assert_eq!(read(&to, "src.txt").as_deref(), Some("right\n"));
        write(&to, ".local/built", "ignored\n");
        write(&to, "interview/grading/tests/grader.rs", "a leftover\n");
        write(&to, "interview/grading/lib.rs", "the graders' own\n");

        git.check_out(&tree("HEAD"), &to).expect("it is filled");
        assert_eq!(read(&to, "src.txt").as_deref(), Some("right, and moved on\n"));
        assert!(to.join(".local/built").exists() && !to.join("interview/grading/tests").exists());
        let after = ["src.txt"].map(modified);
        assert!(after[0] > before[0], "{before:?} {after:?}");
        assert_eq!(run(&folder, &["status", "--porcelain"]), "");
        assert_eq!(run(&folder, &["branch", "--list"]), "* main");

        git.forget_check_out(&to).expect("it is deleted");
        assert!(!to.exists());
        git.forget_check_out(&to).expect("twice is fine");
        git.check_out(&tree("HEAD"), &to).expect("it is filled");
        assert_eq!(read(&to, "src.txt").as_deref(), Some("right, and moved on\n"));
    }

    #[test]
    fn begin_shows_level_and_time_box() {
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
