//! The kit's part of `make check`, `make test` and `make verify`, and `make exercise-base`.

use std::{fs, io::ErrorKind, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use xtask::{
    commands::{
        environment::with_stack,
        suite::{self, Totals},
    },
    stack::{deploy, settings::Settings, start},
    tools::{
        files, process,
        terminal::{self, Step},
    },
};

use crate::{
    git::Git,
    incident::proof as incident,
    kit::{ANSWERS, BASE, BRIEFS, Exercise, Kit, PROVED, State},
    report::Check,
    workshop::{self, Built, Workshop},
};

/// Left out of patches, because it is generated when an exercise starts.
const GENERATED: &str = ".sqlx";

/// The kit's files, which can be deleted.
const KIT: [&str; 2] = ["interview", "INTERVIEW_QUESTIONS.md"];

/// Runs the runner's tests and those of briefs, answers and questions.
pub fn check(settings: &Settings) -> Result<()> {
    let root = &settings.root;
    format(root)?;
    let log = |name: &str| root.join(format!(".local/logs/{name}.log"));
    let tests = suite::build(root, &["--bin", "interview", "--test", "kit"], &log("interview-build"))?;
    let mut totals = Totals::default();
    for test in &tests {
        totals += test.run(&log(&test.name), |_| {})?;
    }
    totals.conclude()
}

/// The graders belong to no crate until an exercise is graded, so `cargo fmt` skips them.
fn format(root: &Path) -> Result<()> {
    if !root.join(ANSWERS).exists() {
        return Ok(());
    }
    let mut rustfmt = Command::new("sh");
    rustfmt.current_dir(root);
    rustfmt.args(["-c", "rustfmt --check --edition 2024 interview/answers/*/grader.rs"]);
    ensure!(
        process::output(&mut rustfmt).is_ok(),
        "the graders are not formatted: make fmt"
    );
    Ok(())
}

/// Proves every exercise, and that the kit can be deleted, skipping what has not changed since the
/// last committed proof. Within an exercise there is nothing to prove.
pub fn run(settings: &Settings) -> Result<()> {
    if !settings.root.join(ANSWERS).exists() {
        return Ok(());
    }
    let git = Git::open(&settings.root)?;
    let proved = Proved::read(&settings.root)?;
    match proved.exercises == Proved::exercises_now(&git)? {
        true => terminal::say("  ✓ exercises  already proved; neither interview/ nor its base has changed since"),
        false => prove(settings, &git)?,
    }
    incident::prove(settings, None)?;
    match proved.without_kit == Proved::without_kit_now(&git)? {
        true => terminal::say("  ✓ no kit     already proved; nothing that could depend on the kit has changed since"),
        false => prove_without_kit(settings, &git)?,
    }
    Ok(())
}

/// The content of interview/PROVED: git tree ids of what was last proved.
#[derive(Default, Deserialize, Serialize)]
struct Proved {
    /// The kit, which includes the id of its base.
    exercises: String,
    /// Everything except the kit and the functions' code.
    without_kit: String,
}

impl Proved {
    fn read(root: &Path) -> Result<Self> {
        match fs::read_to_string(root.join(PROVED)) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("{PROVED} is not readable")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {PROVED}")),
        }
    }

    /// Updates the file, to be committed.
    fn update(root: &Path, change: impl FnOnce(&mut Self)) -> Result<()> {
        let mut proved = Self::read(root)?;
        change(&mut proved);
        let text = format!(
            "# Content hashes of what `make verify` last proved, and need not prove again.\n{}",
            toml::to_string(&proved)?
        );
        fs::write(root.join(PROVED), text)?;
        terminal::say(&format!(
            "  • proved     commit {PROVED}, so that the next make verify skips this proof"
        ));
        Ok(())
    }

    fn exercises_now(git: &Git) -> Result<String> {
        let index = git.index()?.of_working_tree()?;
        index.remove(PROVED)?;
        let tree = index.tree()?;
        git.run(["rev-parse", &format!("{tree}:interview")])
    }

    fn without_kit_now(git: &Git) -> Result<String> {
        let index = git.index()?.of_working_tree()?;
        for path in KIT.iter().chain(&["functions", "shared", "migrations"]) {
            index.remove(path)?;
        }
        index.tree()
    }
}

/// Proves that the project works without the kit: `make test` in a copy.
fn prove_without_kit(settings: &Settings, git: &Git) -> Result<()> {
    let without_kit = Proved::without_kit_now(git)?;
    let index = git.index()?.of_working_tree()?;
    for path in KIT {
        index.remove(path)?;
    }
    let copy = settings.root.join(".local/without-kit");
    git.check_out(&index.tree()?, &copy)?;
    workshop::seed(&settings.root, &copy.join("target"))?;
    fs::create_dir_all(copy.join(".local"))?;
    if !copy.join(".local/tools").exists() {
        symlink(settings.root.join(".local/tools"), copy.join(".local/tools"))?;
    }
    let step = Step::start("no kit", "make test, in a copy without the interview kit");
    let mut make = process::cargo("make", &copy);
    make.args(["--no-print-directory", "help", "test"])
        .env_remove("CARGO_TARGET_DIR");
    process::run(&mut make, &settings.root.join(".local/logs/without-kit.log"), |line| {
        step.show(line.trim())
    })?;
    step.done("make test passes without the interview kit");
    git.forget_check_out(&copy)?;
    Proved::update(&settings.root, |proved| proved.without_kit = without_kit)
}

/// Proves that the start of every exercise fails its checks and that the solution passes them, from
/// the working tree.
fn prove(settings: &Settings, git: &Git) -> Result<()> {
    let proved_now = Proved::exercises_now(git)?;
    let working_tree = git.index()?.of_working_tree()?.tree()?;
    let kit = Kit::of(git, &working_tree)?;
    let exercises = kit.names().into_iter().map(|name| kit.exercise(&name));
    let exercises = exercises.collect::<Result<Vec<_>>>()?;
    let workshop = Workshop::open(settings)?;
    let mut trees = Vec::new();
    for exercise in &exercises {
        for state in State::ALL {
            trees.push((exercise, state, exercise.tree(&workshop, state)?));
        }
    }
    let mut wrong = Vec::new();
    with_stack(settings, "grader", |stack| {
        let database_url = start::postgres_and_aws(stack)?;
        for both in trees.chunks(State::ALL.len()) {
            let (exercise, ..) = both[0];
            let checks = |(_, state, tree): &(&Exercise, State, String)| {
                let built = workshop.build(git, &exercise.grader()?, tree)?;
                let Built::Grader(grader) = built else {
                    bail!("{}: {state:?} does not compile", exercise.name);
                };
                let mut command = Command::new(&grader.program);
                deploy::into_emulator(&mut command, stack);
                workshop.check(&grader, command.env("DATABASE_URL", &database_url))
            };
            match disproved(exercise, &checks(&both[0])?, &checks(&both[1])?)? {
                Some(reason) => wrong.push(format!("{}: {reason}", exercise.name)),
                None => terminal::say(&format!(
                    "  ✓ proved     {}: the start fails, the solution passes",
                    exercise.name
                )),
            }
        }
        Ok(())
    })?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Proved::update(&settings.root, |proved| proved.exercises = proved_now)
}

/// What is wrong with an exercise, if anything.
fn disproved(exercise: &Exercise, start: &[Check], solution: &[Check]) -> Result<Option<String>> {
    if let Some(check) = solution.iter().find(|check| !check.passed()) {
        let reason = check.reason().unwrap_or_default();
        return Ok(Some(format!("the solution fails {}: {reason}", check.name)));
    }
    let failed = start.iter().filter(|check| !check.passed()).count();
    if failed == 0 {
        return Ok(Some("all checks pass at the start".to_owned()));
    }
    if failed == start.len() && exercise.brief()?.contains("**Kind:** debug") {
        return Ok(Some(
            "every check fails at the start, so they reveal nothing about the defect".to_owned(),
        ));
    }
    Ok(None)
}

/// `make exercise-base`: bases the exercises on the current commit. Merges their patches into it; a
/// conflict is left in a worktree for manual resolution, which the next run picks up.
pub fn rebase(settings: &Settings) -> Result<()> {
    let git = Git::open(&settings.root)?;
    let head = move_base(&settings.root, &git)?;
    terminal::say(&format!("  ✓ base       every exercise applies to {head}"));
    prove(settings, &git)
}

/// Rewrites the patches and the base, and returns the base: the current commit.
fn move_base(root: &Path, git: &Git) -> Result<String> {
    let head = git.commit("HEAD").context("there is no commit yet")?;
    let working_tree = git.index()?.of_working_tree()?.tree()?;
    let kit = Kit::of(git, &working_tree)?;
    let mut conflicts = Vec::new();
    let mut patches = Vec::new();
    for name in kit.names() {
        let exercise = kit.exercise(&name)?;
        // The parent of the state: the base, or the previous state.
        let (mut old, mut new) = (kit.base.clone(), head.clone());
        for state in State::ALL {
            if exercise.patch(state).is_none() {
                continue;
            }
            let changed = git.make_commit(&exercise.patched(state)?, Some(&old), &name)?;
            let worktree = root
                .join(".local/exercise-base")
                .join(format!("{name}-{}", state.word()));
            let Some(tree) = moved(git, &changed, &new, &worktree)? else {
                conflicts.push(worktree);
                break;
            };
            let tree = generated_of(git, &tree, &new)?;
            let patch = git.diff(&new, &tree, GENERATED)?;
            // The pull request is also shown as a diff.
            let shown = root.join(BRIEFS).join(&name).join("pull-request.diff");
            if state == State::Start && shown.exists() {
                patches.push((shown, patch.clone()));
            }
            patches.push((root.join(exercise.answer_path(state.patch())), patch));
            // A child of the old state, which becomes the merge base of the next merge.
            new = git.make_commit(&tree, Some(&changed), &name)?;
            old = changed;
        }
    }
    if !conflicts.is_empty() {
        let list: Vec<String> = conflicts
            .iter()
            .map(|folder| format!("  {}", folder.display()))
            .collect();
        bail!(
            "these do not apply to the current commit; each folder has the merge with its conflict markers:\n{}\n\
             Resolve them there (git status names the files), then: make exercise-base",
            list.join("\n")
        );
    }
    for (file, patch) in patches {
        fs::write(&file, patch).with_context(|| format!("cannot write {}", file.display()))?;
    }
    fs::write(root.join(BASE), format!("{head}\n"))?;
    files::remove_if_exists(fs::remove_dir_all(root.join(".local/exercise-base")))?;
    git.run(["worktree", "prune"])?;
    Ok(head)
}

/// The tree of a change on another commit: merged, or manually resolved. None if it has conflicts.
fn moved(git: &Git, change: &str, onto: &str, worktree: &Path) -> Result<Option<String>> {
    if worktree.exists() {
        let resolved = git.tree_of_worktree(worktree)?;
        let marked = git.grep(&resolved, "^<<<<<<< ")?;
        ensure!(
            marked.is_empty(),
            "{} still has conflict markers: {}",
            worktree.display(),
            marked.join(", ")
        );
        return Ok(Some(resolved));
    }
    let (tree, conflicts) = git.merge(onto, change)?;
    if conflicts.iter().any(|path| !Path::new(path).starts_with(GENERATED)) {
        git.check_out(&tree, worktree)?;
        return Ok(None);
    }
    Ok(Some(tree))
}

/// The tree, with generated files from a commit.
fn generated_of(git: &Git, tree: &str, commit: &str) -> Result<String> {
    let index = git.index()?.of_tree(tree)?;
    index.take_folder(GENERATED, commit)?;
    index.tree()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exercises::tests::{read, refusal, repository, run, write};

    fn move_base_of(folder: &Path) -> Result<String> {
        move_base(folder, &Git::open(folder)?)
    }

    #[test]
    fn base_moves_with_its_patches() {
        let folder = repository("moved");
        // The file that the patches change has moved, and has more in it.
        run(&folder, &["mv", "src.txt", "moved.txt"]);
        write(&folder, "moved.txt", "right\n");
        run(&folder, &["commit", "--quiet", "--all", "--message", "main moves"]);
        let head = run(&folder, &["rev-parse", "HEAD"]);
        assert_eq!(move_base_of(&folder).expect("it applies"), head);
        assert_eq!(read(&folder, "interview/BASE"), Some(head + "\n"));
        let start = read(&folder, "interview/answers/broken/start.patch").expect("a patch");
        assert!(
            start.contains("+++ b/moved.txt\n@@ -1 +1 @@\n-right\n+wrong\n"),
            "{start}"
        );
        let solution = read(&folder, "interview/answers/broken/solution.patch").expect("a patch");
        assert!(solution.contains("-wrong\n+right again\n"), "{solution}");
    }

    #[test]
    fn conflicts_are_resolved_manually() {
        let folder = repository("conflict");
        write(&folder, "src.txt", "something else\n");
        run(&folder, &["commit", "--quiet", "--all", "--message", "main moves"]);
        let conflict = refusal(move_base_of(&folder));
        let worktree = folder.join(".local/exercise-base/broken-start");
        assert!(conflict.contains(&worktree.display().to_string()), "{conflict}");
        let unresolved = refusal(move_base_of(&folder));
        assert!(unresolved.contains("conflict markers: "), "{unresolved}");
        assert_eq!(
            run(&folder, &["status", "--porcelain"]),
            "",
            "nothing is written before all apply"
        );

        write(&worktree, "src.txt", "wrong, and something else\n");
        let next = refusal(move_base_of(&folder));
        assert!(next.contains("broken-solution"), "{next}");
        write(
            &folder.join(".local/exercise-base/broken-solution"),
            "src.txt",
            "right again\n",
        );
        move_base_of(&folder).expect("all are resolved");
        let start = read(&folder, "interview/answers/broken/start.patch").expect("a patch");
        assert!(
            start.contains("-something else\n+wrong, and something else\n"),
            "{start}"
        );
        assert!(!worktree.exists());
    }
}
