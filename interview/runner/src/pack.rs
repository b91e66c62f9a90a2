//! `make pack`: an exercise for a candidate's own machine, without answers and history; `make grade`
//! there, with compiled checks; and the work that comes back, for `make grade FROM=…`.

use std::{
    env::{self, consts},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{ArgAction, Args, builder::FalseyValueParser};
use serde::{Deserialize, Serialize};
use xtask::{
    commands::environment::with_stack,
    stack::settings::Settings,
    tools::{files, process, terminal},
};

use crate::{
    exercises::{ActiveExercise, is_in_head},
    git::{Git, Index},
    kit::{BRIEFS, Exercise, Kit, State},
    workshop::{self, Graded, Grader, Services, Workshop},
};

/// The file in a pack that says what it is.
pub const MARK: &str = "interview/exercise.toml";

/// The ref of the work that was fetched last.
const RETURNED: &str = "refs/interview-returned/head";

/// The programs in a pack with compiled checks: this runner, which interview/Makefile starts, and the
/// checks.
const RUNNER: &str = "interview/grading/bin/interview";
const GRADER: &str = "interview/grading/bin/grader";

/// The options of `make pack`.
#[derive(Args)]
pub struct Options {
    /// A folder in interview/briefs
    #[arg(long, env = "N")]
    name: Option<String>,
    /// With the compiled checks: CHECKS=1
    #[arg(long, env = "CHECKS", value_parser = FalseyValueParser::new(), num_args = 0..=1,
          default_value = "0", default_missing_value = "1", action = ArgAction::Set)]
    checks: bool,
}

/// The content of the mark.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    name: String,
    /// The commit with the kit.
    kit: String,
    checks: Option<Compiled>,
}

/// What `make grade` in a pack has to know about its compiled checks.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compiled {
    names: Vec<String>,
    /// The functions that they run.
    functions: Vec<String>,
    /// The checks that compare with the start, which only the interviewer has.
    left: Vec<String>,
}

/// Writes an archive and a repository of an exercise.
pub fn run(settings: &Settings, options: &Options) -> Result<()> {
    let git = Git::open(&settings.root)?;
    let head = git.commit("HEAD").context("there is no commit yet")?;
    let kit = Kit::of(&git, &head)?;
    let exercise = kit.named(options.name.as_deref(), "pack")?;
    let name = &exercise.name;
    let workshop = Workshop::open(settings)?;
    let start = match options.checks {
        true => packed_with_checks(settings, &git, &exercise, &workshop)?,
        false => packed(&git, &exercise, &workshop)?,
    };
    let commit = git.make_commit(&start, None, &format!("The exercise {name}"))?;

    let folder = settings.root.join(".local/packs");
    fs::create_dir_all(&folder)?;
    let archive = folder.join(format!("{name}.tar.gz"));
    let repository = folder.join(format!("{name}.git"));
    let (archive_path, repository_path) = (archive.to_string_lossy(), repository.to_string_lossy());
    let prefix = format!("--prefix={name}/");
    git.run([
        "archive",
        "--format=tar.gz",
        &prefix,
        "--output",
        &archive_path,
        &commit,
    ])?;
    // Anew: only what the commit consists of gets into it.
    files::remove_if_exists(fs::remove_dir_all(&repository))?;
    git.run([
        "init",
        "--quiet",
        "--bare",
        "--template=",
        "--initial-branch=main",
        &repository_path,
    ])?;
    git.run([
        "push",
        "--quiet",
        "--no-verify",
        &repository_path,
        &format!("{commit}:refs/heads/main"),
    ])?;
    let (hidden, there) = match options.checks {
        true => (
            "the answers, the hints, the source of the checks or the history",
            format!(
                "\nmake grade works there as well, on {} {} with a C library that is not older than this machine's.\n",
                consts::OS,
                consts::ARCH
            ),
        ),
        false => ("the answers, the hints, the checks or the history", " ".to_owned()),
    };
    println!(
        "
Send one of these. Neither has {hidden}.

  archive      .local/packs/{name}.tar.gz
  repository   .local/packs/{name}.git   (git clone; or push it to a private one: main)

The candidate needs Docker alone (docker-compose.yml, .devcontainer) or the README's prerequisites, and
starts with {brief}.{there}You grade what comes back, from this folder:

  make grade FROM=<archive, folder, or repository>
",
        brief = exercise.brief_path(),
    );
    Ok(())
}

/// What the brief says instead of where to get hints.
const BRIEF: &str = "## In this pack

You work in this folder: `make up` first, or Docker ([README](../../../README.md)). Your interviewer has
the hints; ask for one. You send back the folder as an archive, or the repository with your commits,
and that is graded. `make grade` works here only if the pack has the checks.

";

/// What the list of exercises says first.
const HOW: &str = "## How it goes

In a pack the exercise has already started, and there is no `make exercise`, `make hint` or `make
exercise-reset`: its brief says what to do.
";

/// The tree of a pack: the start, with what is different in a pack, and the mark.
fn packed(git: &Git, exercise: &Exercise, workshop: &Workshop) -> Result<String> {
    let index = git.index()?.of_tree(&exercise.tree(workshop, State::Start)?)?;
    exercise.edit(&index, &exercise.brief_path(), |brief| {
        let (before, rest) = brief.split_once("## Hints\n")?;
        let (_, after) = rest.split_once("## Check yourself\n")?;
        Some(format!("{before}{BRIEF}## Check yourself\n{after}"))
    })?;
    exercise.edit(&index, &format!("{BRIEFS}/README.md"), |list| {
        Some(list.replacen("## How it goes\n", HOW, 1))
    })?;
    mark(&index, exercise, None)?;
    index.tree()
}

fn mark(index: &Index, exercise: &Exercise, checks: Option<Compiled>) -> Result<()> {
    let mark = Mark {
        name: exercise.name.clone(),
        kit: exercise.kit_id().to_owned(),
        checks,
    };
    let text = format!("# For make grade: leave it as it is.\n{}", toml::to_string(&mark)?);
    index.add(MARK, &text)
}

/// The same with the compiled checks, and this program to run them.
fn packed_with_checks(settings: &Settings, git: &Git, exercise: &Exercise, workshop: &Workshop) -> Result<String> {
    let name = &exercise.name;
    ensure!(
        exercise.key()?.is_none(),
        "the result of {name} is a text, whose key cannot be compiled. You grade what is sent back: make pack N={name}"
    );
    let start = packed(git, exercise, workshop)?;
    let grader = workshop.grader(git, exercise)?;
    let compiled = Compiled {
        names: grader.checks,
        functions: grader.functions,
        left: workshop::checks_with_start(&exercise.grader()?),
    };
    let index = git.index()?.of_tree(&start)?;
    mark(&index, exercise, Some(compiled))?;
    let runner = settings.root.join(".local/runner");
    workshop::strip(&env::current_exe()?, &runner)?;
    for (path, program) in [(RUNNER, &runner), (GRADER, &grader.program)] {
        index.add_program(path, program)?;
    }
    fs::remove_file(runner)?;
    index.tree()
}

/// Runs the compiled checks of the pack that is this folder. `conclude` takes the exercise's name and
/// the result.
pub fn grade(settings: &Settings, conclude: impl FnOnce(&str, Graded) -> Result<()>) -> Result<()> {
    let root = &settings.root;
    let text = fs::read_to_string(root.join(MARK)).with_context(|| format!("cannot read {MARK}"))?;
    let mark: Mark = toml::from_str(&text).with_context(|| format!("{MARK} is not readable"))?;
    let checks = mark.checks.context(
        "the checks are with your interviewer, who grades what you send back: this folder as an archive, or \
         the repository with your commits. `make test` and `make check` run the project's own tests",
    )?;
    for check in &checks.left {
        let sentence = check.replace('_', " ");
        terminal::say(&format!("  • not here   {sentence}: your interviewer checks that"));
    }
    let grader = Grader {
        checks: checks.names,
        functions: checks.functions,
        program: root.join(GRADER),
    };
    let workshop = Workshop::in_place(settings)?;
    with_stack(settings, "grader", |stack| {
        conclude(&mark.name, workshop.grade_in_place(&grader, || Services::start(stack))?)
    })
}

/// The exercise and the tree of a work that came back as an archive, a folder or a repository.
pub fn returned(
    git: &Git,
    root: &Path,
    workshop: &Workshop,
    from: &str,
    name: Option<&str>,
) -> Result<(ActiveExercise, String)> {
    let tree = tree_of(git, root, from)?;
    let text = git.file(&tree, MARK).with_context(|| {
        format!(
            "{from} has no {MARK}, so it does not come from make pack. An exercise of this repository is graded without FROM"
        )
    })?;
    let mark: Mark = toml::from_str(&text).with_context(|| format!("{MARK} of {from} is not readable"))?;
    let name = name.unwrap_or(&mark.name);
    ensure!(
        git.commit(&mark.kit).is_some(),
        "{from} was packed from the commit {}, which this repository does not have: git fetch, or grade it where it was packed",
        mark.kit
    );
    // Not a commit that came with the work, whose checks would be the candidate's.
    let is_id = mark.kit.len() == 40 && mark.kit.bytes().all(|byte| byte.is_ascii_hexdigit());
    let contained = git.run([
        "for-each-ref",
        "--count=1",
        "--contains",
        &mark.kit,
        "refs/heads",
        "refs/tags",
    ]);
    let is_ours = contained.is_ok_and(|branch| !branch.is_empty()) || is_in_head(git, &mark.kit);
    ensure!(
        is_id && is_ours,
        "{MARK} of {from} says that it was packed from {}, which is in no branch here",
        mark.kit
    );
    let kit = Kit::of(git, &mark.kit)?;
    let start = packed(git, &kit.exercise(name)?, workshop)?;
    let start = git.make_commit(&start, None, &format!("The exercise {name}"))?;
    let changed = git.differing(&start, &tree, &["."])?.len();
    ensure!(
        changed > 0,
        "nothing was changed in {from}. Of a repository, HEAD is graded: is the work on another branch?"
    );
    let packed_on = git.run(["show", "--no-patch", "--format=%cs", &mark.kit])?;
    terminal::say(&format!(
        "  • work       {name}, packed on {packed_on}; {changed} files were changed"
    ));
    Ok((ActiveExercise::elsewhere(name, &mark.kit, &start), tree))
}

/// The files that came back, without those that git ignores.
fn tree_of(git: &Git, root: &Path, from: &str) -> Result<String> {
    let path = Path::new(from);
    if path.is_file() {
        let folder = root.join(".local/returned");
        files::empty_folder(&folder)?;
        let mut unpack = match from.ends_with(".zip") {
            true => {
                let mut unzip = Command::new("unzip");
                unzip.arg("-q").arg(path).arg("-d").arg(&folder);
                unzip
            }
            false => {
                let mut tar = Command::new("tar");
                tar.arg("-xf").arg(path).arg("-C").arg(&folder);
                tar
            }
        };
        if let Err(error) = process::output(&mut unpack) {
            // A bundle is a file that git can fetch from.
            return fetched(git, from).with_context(|| format!("{from} is neither an archive nor a bundle: {error:#}"));
        }
        let tree = git.index()?.of_folder(&project_in(&folder)?)?.tree();
        fs::remove_dir_all(&folder)?;
        return tree;
    }
    if path.is_dir() && !path.join(".git").exists() && !path.join("HEAD").exists() {
        return git.index()?.of_folder(&project_in(path)?)?.tree();
    }
    fetched(git, from)
}

/// The tree of a repository's HEAD.
fn fetched(git: &Git, from: &str) -> Result<String> {
    if Path::new(from).join(".git").exists() {
        let changes = git.run(["-C", from, "status", "--porcelain"])?;
        ensure!(
            changes.is_empty(),
            "{from} has changes that are not committed, which would not be graded:\n{changes}"
        );
    }
    // `+`: the ref may be that of another work.
    git.run([
        "fetch",
        "--quiet",
        "--no-tags",
        "--",
        from,
        &format!("+HEAD:{RETURNED}"),
    ])
    .with_context(|| format!("{from} is no archive, no folder, and no repository that git can fetch from"))?;
    git.run(["rev-parse", &format!("{RETURNED}^{{tree}}")])
}

/// The project's folder: this one, or the only one in it.
fn project_in(folder: &Path) -> Result<PathBuf> {
    if folder.join("Cargo.toml").exists() || folder.join(MARK).exists() {
        return Ok(folder.to_owned());
    }
    let inner = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let inner: Vec<PathBuf> = inner.filter(|path| path.join(MARK).exists()).collect();
    match &inner[..] {
        [project] => Ok(project.clone()),
        [] => bail!(
            "{} does not contain the project: there is no {MARK} in it",
            folder.display()
        ),
        [one, other, ..] => bail!(
            "it contains several projects: {} and {}",
            one.display(),
            other.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exercises::tests::{refusal, repository, run, settings, write};

    fn options(name: Option<&str>, checks: bool) -> Options {
        let name = name.map(str::to_owned);
        Options { name, checks }
    }

    /// The names of a tree's files.
    fn files(git: &Git, tree: &str) -> Vec<String> {
        let files = git.run(["ls-tree", "-r", "--name-only", tree]).expect("a list");
        files.lines().map(str::to_owned).collect()
    }

    #[test]
    fn pack_has_neither_answers_nor_history_and_its_work_returns() {
        let folder = repository("packed");
        let (git, settings) = (Git::open(&folder).expect("a repository"), settings(&folder));
        super::run(&settings, &options(Some("broken"), false)).expect("it is packed");
        let packed = folder.join(".local/packs/broken.git");
        assert_eq!(run(&packed, &["rev-list", "--count", "--all"]), "1");
        let objects = run(&packed, &["rev-list", "--objects", "--all"]);
        for hidden in ["answers", "hints", "BASE", "rubric"] {
            assert!(!objects.contains(hidden), "{objects}");
        }
        let expected = [
            ".gitignore",
            ".sqlx/query.json",
            "README.md",
            "interview/briefs/README.md",
            "interview/briefs/broken/README.md",
            "interview/exercise.toml",
            "interview/grading/lib.rs",
            "interview/runner/tests/kit/main.rs",
            "src.txt",
        ];
        let sent = folder.join(".local/sent");
        files::empty_folder(&sent).expect("a folder");
        let tar =
            |arguments: &[&str]| process::output(Command::new("tar").current_dir(&sent).args(arguments)).expect("tar");
        tar(&["-xf", "../packs/broken.tar.gz"]);
        let work = sent.join("broken");
        run(
            &folder,
            &["clone", "--quiet", &packed.to_string_lossy(), ".local/cloned"],
        );
        let clone = folder.join(".local/cloned");
        for copy in [&work, &clone] {
            write(copy, "src.txt", "repaired\n");
            write(copy, ".local/built", "ignored\n");
        }
        run(&clone, &["commit", "--quiet", "--all", "--message", "work"]);
        tar(&["-czf", "back.tar.gz", "broken"]);

        let workshop = Workshop::open(&settings).expect("a workshop");
        for from in [&sent.join("back.tar.gz"), &work, &sent, &clone] {
            let from = from.to_string_lossy();
            let (active, tree) = returned(&git, &folder, &workshop, &from, None).expect("it returns");
            assert_eq!(active.name, "broken", "{from}");
            assert_eq!(files(&git, &tree), expected, "{from}");
            let changed = git.diff(&active.start, &tree, ".sqlx").expect("a diff");
            assert!(changed.contains("-wrong\n+repaired\n") && changed.matches("diff --git").count() == 1);
        }
        let refused = |from: &Path| refusal(returned(&git, &folder, &workshop, &from.to_string_lossy(), None));
        write(&clone, "src.txt", "more\n");
        assert!(refused(&clone).contains("not committed"), "{}", refused(&clone));
        process::output(Command::new("cp").args(["-R"]).args([&work, &sent.join("another")])).expect("copied");
        assert!(refused(&sent).contains("several projects"), "{}", refused(&sent));
        assert!(refused(&packed).contains("nothing was changed"), "{}", refused(&packed));
        assert_eq!(run(&folder, &["status", "--porcelain"]), "");
        assert_eq!(run(&folder, &["branch", "--list"]), "* main");
    }

    #[test]
    fn foreign_work_is_refused_with_the_reason() {
        let folder = repository("foreign");
        let (git, settings) = (Git::open(&folder).expect("a repository"), settings(&folder));
        let workshop = Workshop::open(&settings).expect("a workshop");
        let returned = |from: &str| {
            refusal(returned(
                &git,
                &folder,
                &workshop,
                &folder.join(from).to_string_lossy(),
                None,
            ))
        };
        write(&folder, ".local/text.tar.gz", "no archive\n");
        write(&folder, ".local/empty/README.md", "no project\n");
        let tree = run(&folder, &["rev-parse", "HEAD^{tree}"]);
        let forged = run(&folder, &["commit-tree", &tree, "-m", "another history"]);
        for (work, kit) in [("other", "1".repeat(40)), ("forged", forged)] {
            write(
                &folder,
                &format!(".local/{work}/interview/exercise.toml"),
                &format!("name = \"broken\"\nkit = \"{kit}\"\n"),
            );
        }
        for (from, said) in [
            ("missing", "is no archive, no folder, and no repository"),
            (".local/text.tar.gz", "is neither an archive nor a bundle"),
            (".local/empty", "does not contain the project"),
            (".local/other", "which this repository does not have"),
            (".", "so it does not come from make pack"),
            (".local/forged", "which is in no branch here"),
        ] {
            let refused = returned(from);
            assert!(refused.contains(said), "{from}: {refused}");
        }
        assert!(refusal(super::run(&settings, &options(Some("unknown"), false))).contains("broken"));
        assert!(
            refusal(super::run(&settings, &options(None, false)))
                .contains("make pack N=lost-messages. Available: broken")
        );
    }

    #[test]
    fn checks_of_text_are_not_packed() {
        let folder = repository("unpackable");
        let answers = folder.join("interview/answers/broken");
        let commit = || {
            run(&folder, &["add", "--all"]);
            run(&folder, &["commit", "--quiet", "--message", "changed"]);
        };
        let packed = || refusal(super::run(&settings(&folder), &options(Some("broken"), true)));
        write(
            &answers,
            "key.toml",
            "file = \"review.md\"\nmost = 1\ndefects = []\ndecoys = []\n",
        );
        commit();
        assert!(
            packed().contains("is a text, whose key cannot be compiled"),
            "{}",
            packed()
        );
    }

    #[test]
    fn pack_without_checks_is_graded_by_interviewer() {
        let folder = repository("unchecked");
        write(&folder, MARK, "name = \"broken\"\nkit = \"1\"\n");
        let grade = refusal(super::grade(&settings(&folder), |_, _| panic!("it was graded")));
        assert!(grade.contains("with your interviewer"), "{grade}");
    }
}
