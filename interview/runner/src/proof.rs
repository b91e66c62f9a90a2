//! What `make check`, `make test` and `make verify` say about the kit, and `make exercise-base`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use xtask::{
    commands::{
        environment::with_stack,
        suite::{self, Totals},
    },
    stack::{deploy, settings::Settings, start},
    tools::{files, process, terminal},
};

use crate::{
    git::Git,
    kit::{ANSWERS, BASE, Exercise, Kit, PROVED, State},
    report::Check,
    workshop::{Built, Workshop},
};

/// What patches leave out: it is generated when an exercise begins, or belongs to the kit.
const NOT_IN_PATCHES: [&str; 2] = [".sqlx", "interview"];

/// Tests the runner, and looks at briefs, answers and questions.
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

/// The graders belong to no crate until an exercise is graded, so `cargo fmt` passes them over.
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

/// Proves every exercise, unless nothing that they are made of has changed since the last proof that was committed. Within
/// an exercise there is nothing to prove.
pub fn run(settings: &Settings) -> Result<()> {
    let root = &settings.root;
    if !root.join(ANSWERS).exists() {
        return Ok(());
    }
    let git = Git::open(root)?;
    if fs::read_to_string(root.join(PROVED)).is_ok_and(|proved| fingerprint(&git).is_ok_and(|now| now == proved.trim()))
    {
        terminal::say("  ✓ exercises  proved before; neither interview/ nor its base has changed since");
        return Ok(());
    }
    prove(settings, &git)
}

/// Proves that the start of every exercise fails its checks and that the solution passes them, as they are in the working
/// tree.
fn prove(settings: &Settings, git: &Git) -> Result<()> {
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
                let built = workshop.build(git, exercise, tree)?;
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
    fs::write(settings.root.join(PROVED), fingerprint(git)? + "\n")?;
    terminal::say(&format!("  ✓ exercises  all are proved; commit {PROVED}"));
    Ok(())
}

/// What is wrong with an exercise, if anything is.
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
        return Ok(Some("every check fails at the start, so they tell nothing".to_owned()));
    }
    Ok(None)
}

/// Of all that the exercises are made of: the kit in the working tree, which names the base.
fn fingerprint(git: &Git) -> Result<String> {
    let index = git.index()?.of_working_tree()?;
    index.remove(PROVED)?;
    let tree = index.tree()?;
    git.ask(["rev-parse", &format!("{tree}:interview")])
}

/// `make exercise-base`: rests the exercises on the current commit. Merges what their patches change into it; where that
/// conflicts, a worktree waits for a person, and the next run takes what is in there.
pub fn rebase(settings: &Settings) -> Result<()> {
    let root = &settings.root;
    let git = Git::open(root)?;
    let head = git.commit("HEAD").context("there is no commit yet")?;
    let working_tree = git.index()?.of_working_tree()?.tree()?;
    let kit = Kit::of(&git, &working_tree)?;
    let mut conflicts = Vec::new();
    let mut patches = Vec::new();
    for name in kit.names() {
        let exercise = kit.exercise(&name)?;
        // What the exercise starts from: the base, or the state before.
        let (mut old, mut new) = (kit.base.clone(), head.clone());
        for state in State::ALL {
            if exercise.patch(state).is_none() {
                continue;
            }
            let changed = git.make_commit(&exercise.patched(state)?, Some(&old), &name)?;
            let worktree = root
                .join(".local/exercise-base")
                .join(format!("{name}-{}", state.word()));
            let Some(tree) = moved(&git, &changed, &new, &worktree)? else {
                conflicts.push(worktree);
                break;
            };
            let tree = generated_of(&git, &tree, &new)?;
            let patch = git.diff(&new, &tree, &NOT_IN_PATCHES)?;
            patches.push((root.join(exercise.answer_path(state.patch())), patch));
            new = git.make_commit(&tree, Some(&new), &name)?;
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
    git.ask(["worktree", "prune"])?;
    terminal::say(&format!("  ✓ base       every exercise applies to {head}"));
    prove(settings, &git)
}

/// The tree of a change on another commit: merged, or as it was resolved by hand. None if it has conflicts.
fn moved(git: &Git, change: &str, onto: &str, worktree: &PathBuf) -> Result<Option<String>> {
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
    let real = |path: &&String| {
        !NOT_IN_PATCHES
            .iter()
            .any(|folder| path.starts_with(&format!("{folder}/")))
    };
    if conflicts.iter().any(|path| real(&path)) {
        git.check_out(&tree, worktree)?;
        return Ok(None);
    }
    Ok(Some(tree))
}

/// The tree with those folders as they are in a commit that patches leave out.
fn generated_of(git: &Git, tree: &str, commit: &str) -> Result<String> {
    let index = git.index()?.of_tree(tree)?;
    for folder in NOT_IN_PATCHES {
        index.take_folder(folder, commit)?;
    }
    index.tree()
}
