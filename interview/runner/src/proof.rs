//! The kit's part of `make check`, `make test` and `make verify`, and `make exercise-base`.

use std::{collections::BTreeMap, fs, io::ErrorKind, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use xtask::{
    commands::{
        environment::with_stack,
        suite::{self, Totals},
    },
    stack::settings::Settings,
    tools::{
        files, process,
        terminal::{self, Step},
    },
};

use crate::{
    git::Git,
    incident::{self, spec},
    kit::{ANSWERS, BASE, BRIEFS, Exercise, INCIDENTS, Kit, Mutant, PROVED, State},
    report::Check,
    workshop::{self, Graded, Services, Work, Workshop},
};

/// Left out of patches, because it is generated when an exercise starts.
const GENERATED: &str = ".sqlx";

/// The kit's files, which can be deleted.
const KIT: [&str; 2] = ["interview", "INTERVIEW_QUESTIONS.md"];

/// The code that builds a graded tree, checks it, and reads the outcomes of its checks.
const GRADING_CODE: [&str; 5] = [
    "interview/grading",
    "interview/runner/src/workshop.rs",
    "interview/runner/src/report.rs",
    "interview/runner/src/review.rs",
    WORDS,
];

/// Decides what a review or the evidence of an incident mentions.
const WORDS: &str = "interview/runner/src/words.rs";

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

/// The code of the incidents, and what of it a proof does not depend on.
const INCIDENT_CODE: &str = "interview/runner/src/incident";
const INCIDENT_COMMANDS: &str = "interview/runner/src/incident/commands.rs";

/// Proves every exercise and incident, or the named one, and that the kit can be deleted, skipping
/// what has not changed since the last committed proof. Within an exercise there is nothing to
/// prove.
pub fn run(settings: &Settings, name: Option<&str>) -> Result<()> {
    if !settings.root.join(ANSWERS).exists() {
        return Ok(());
    }
    let git = Git::open(&settings.root)?;
    let incidents = spec::names(&settings.root);
    if let Some(name) = name {
        let working_tree = git.index()?.of_working_tree()?.tree()?;
        let exercises = Kit::of(&git, &working_tree)?.names();
        let is_of = |names: &[String]| names.iter().any(|known| known == name);
        return match (is_of(&exercises), is_of(&incidents)) {
            (true, _) => prove(settings, &git, Some(name)),
            (_, true) => prove_incidents(settings, &git, &[name.to_owned()]),
            _ => bail!(
                "there is no exercise or incident {name:?}, only these: {}",
                [exercises, incidents].concat().join(", ")
            ),
        };
    }
    prove(settings, &git, None)?;
    prove_incidents(settings, &git, &incidents)?;
    match Proved::read(&settings.root)?.without_kit == Proved::without_kit_now(&git)? {
        true => terminal::say("  ✓ no kit     already proved; nothing that could depend on the kit has changed since"),
        false => prove_without_kit(settings, &git)?,
    }
    Ok(())
}

/// The content of interview/PROVED: git tree ids of what was last proved.
#[derive(Default, Deserialize, Serialize)]
struct Proved {
    /// Everything except the kit and the functions' code.
    without_kit: String,
    /// What the proof of each exercise depends on, by its name.
    #[serde(default)]
    exercises: BTreeMap<String, String>,
    /// The same of each incident.
    #[serde(default)]
    incidents: BTreeMap<String, String>,
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
        Ok(fs::write(root.join(PROVED), text)?)
    }

    /// What the proof of an exercise depends on: its patches and checks, the base, and the code
    /// that grades. Texts, other exercises and other commands are not part of it.
    fn exercise_now(git: &Git, name: &str) -> Result<String> {
        let index = git.index()?.of_working_tree()?;
        let answers = |file: &str| format!("{ANSWERS}/{name}/{file}");
        let own = ["grader.rs", "key.toml", "start.patch", "solution.patch", "mutants"].map(answers);
        let own = own.iter().map(String::as_str);
        let kept: Vec<&str> = own.chain([BASE]).chain(GRADING_CODE).collect();
        index.keep(&kept)?;
        index.tree()
    }

    /// What the proof of an incident depends on: its definition, and the code that breaks, grades
    /// and restores. Neither texts nor the product, whose changes would prove all incidents anew.
    fn incident_now(git: &Git, name: &str) -> Result<String> {
        let index = git.index()?.of_working_tree()?;
        index.keep(&[&format!("{INCIDENTS}/{name}/incident.toml"), INCIDENT_CODE, WORDS])?;
        index.remove(INCIDENT_COMMANDS)?;
        index.tree()
    }

    fn without_kit_now(git: &Git) -> Result<String> {
        let index = git.index()?.of_working_tree()?;
        for path in KIT.iter().chain(&["functions", "shared", "migrations"]) {
            index.remove(path)?;
        }
        index.tree()
    }
}

/// Told after a proof.
fn say_commit() {
    terminal::say(&format!(
        "  • proved     commit {PROVED}, so that the next make verify skips this proof"
    ));
}

/// Proves that the project works without the kit: `make check` in a copy. The functions do not know
/// the kit, so what needs them deployed passes as in `make test`.
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
    let step = Step::start("no kit", "make check, in a copy without the interview kit");
    let mut make = process::cargo("make", &copy);
    make.args(["--no-print-directory", "help", "check"])
        .env_remove("CARGO_TARGET_DIR");
    process::run(&mut make, &settings.root.join(".local/logs/without-kit.log"), |line| {
        step.show(line.trim())
    })?;
    step.done("make check passes without the interview kit");
    git.forget_check_out(&copy)?;
    Proved::update(&settings.root, |proved| proved.without_kit = without_kit)?;
    say_commit();
    Ok(())
}

/// Proves that the start of an exercise fails its checks and that the solution passes them, from
/// the working tree, for every exercise that has changed since its last proof. Each proof is
/// recorded at once, so that an interrupted run continues where it ended.
fn prove(settings: &Settings, git: &Git, name: Option<&str>) -> Result<()> {
    let working_tree = git.index()?.of_working_tree()?.tree()?;
    let kit = Kit::of(git, &working_tree)?;
    let names = match name {
        Some(name) => vec![kit.exercise(name)?.name],
        None => kit.names(),
    };
    let proved = Proved::read(&settings.root)?.exercises;
    let mut due = Vec::new();
    for name in &names {
        let now = Proved::exercise_now(git, name)?;
        if proved.get(name) != Some(&now) {
            due.push((kit.exercise(name)?, now));
        }
    }
    say_skipped("exercises", names.len() - due.len(), names.len());
    if due.is_empty() {
        return Ok(());
    }
    let workshop = Workshop::open(settings)?;
    // Before the stack starts: describing changed queries needs one, too.
    let trees = due.iter().map(|(exercise, _)| Trees::of(exercise, &workshop));
    let trees = trees.collect::<Result<Vec<_>>>()?;
    let mut wrong = Vec::new();
    with_stack(settings, "grader", |stack| {
        let services = Services::start(stack)?;
        for (number, ((exercise, now), trees)) in due.iter().zip(&trees).enumerate() {
            let place = format!("{} of {}", number + 1, due.len());
            terminal::say(&format!("  • proving    {} ({place})", exercise.name));
            let grade = |tree: &str, only: Option<&str>| {
                let start = &trees.start;
                let work = Work { exercise, start, tree };
                workshop.grade(git, &work, only, || Ok(services.clone()))
            };
            match disproved(exercise, trees, grade)? {
                Some(reason) => wrong.push(format!("{}: {reason}", exercise.name)),
                None => Proved::update(&settings.root, |proved| {
                    proved.exercises.insert(exercise.name.clone(), now.clone());
                    proved.exercises.retain(|name, _| kit.names().contains(name));
                })?,
            }
        }
        Ok(())
    })?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    say_commit();
    Ok(())
}

/// Proves those of these incidents that have changed since their last proof.
fn prove_incidents(settings: &Settings, git: &Git, names: &[String]) -> Result<()> {
    let proved = Proved::read(&settings.root)?.incidents;
    let mut due = BTreeMap::new();
    for name in names {
        let now = Proved::incident_now(git, name)?;
        if proved.get(name) != Some(&now) {
            due.insert(name.as_str(), now);
        }
    }
    say_skipped("incidents", names.len() - due.len(), names.len());
    if due.is_empty() {
        return Ok(());
    }
    let known = spec::names(&settings.root);
    incident::proof::prove(settings, due.keys().copied(), |name| {
        Proved::update(&settings.root, |proved| {
            proved.incidents.insert(name.to_owned(), due[name].clone());
            proved.incidents.retain(|name, _| known.contains(name));
        })
    })?;
    say_commit();
    Ok(())
}

/// Told before a proof, about what need not be proved again.
fn say_skipped(what: &str, skipped: usize, all: usize) {
    if skipped > 0 {
        terminal::say(&format!(
            "  ✓ {what:<10} {skipped} of {all} already proved; nothing that they depend on has changed since"
        ));
    }
}

/// What is graded to prove an exercise.
struct Trees {
    start: String,
    solution: String,
    mutants: Vec<(Mutant, String)>,
}

impl Trees {
    fn of(exercise: &Exercise, workshop: &Workshop) -> Result<Self> {
        let solution = exercise.tree(workshop, State::Solution)?;
        let mutants = exercise.mutants()?.into_iter().map(|mutant| {
            let tree = exercise.mutant_tree(workshop, &solution, &mutant)?;
            Ok((mutant, tree))
        });
        let start = exercise.tree(workshop, State::Start)?;
        let answers = exercise.answers_in(&start)?;
        ensure!(
            answers.is_empty(),
            "the start of {} has answers: {answers:?}",
            exercise.name
        );
        Ok(Self {
            start,
            mutants: mutants.collect::<Result<_>>()?,
            solution,
        })
    }
}

/// What is wrong with an exercise, if anything: its solution passes every check, its start fails
/// some, and each of its mutants fails the check that it names. `grade` takes what to grade, and a
/// check if only that one is to run.
fn disproved(
    exercise: &Exercise,
    trees: &Trees,
    grade: impl Fn(&str, Option<&str>) -> Result<Graded>,
) -> Result<Option<String>> {
    let checks = |tree: &str, what: &str, only: Option<&str>| match grade(tree, only)? {
        Graded::Checked(checks) => Ok(checks),
        Graded::Broken(errors) => bail!("{}: {what} does not compile:\n{errors}", exercise.name),
    };
    let of_start = checks(&trees.start, "the start", None)?;
    let of_solution = checks(&trees.solution, "the solution", None)?;
    if let Some(reason) = disproved_by(exercise, &of_start, &of_solution)? {
        return Ok(Some(reason));
    }
    terminal::say("  ✓ proved     the start fails, the solution passes");
    let mut undetected = Vec::new();
    for (Mutant { name, caught_by, .. }, tree) in &trees.mutants {
        let checks = checks(tree, &format!("the mutant \"{name}\""), Some(caught_by))?;
        match checks.iter().find_map(Check::reason) {
            Some(reason) => terminal::say(&format!("  ✓ proved     \"{name}\" fails {caught_by}: {reason}")),
            None => {
                terminal::say(&format!("  ✗ wrong      \"{name}\" passes {caught_by}"));
                undetected.push(format!("the mutant \"{name}\" passes {caught_by}"));
            }
        }
    }
    Ok((!undetected.is_empty()).then(|| undetected.join("; ")))
}

/// What is wrong with the outcomes of start and solution, if anything.
fn disproved_by(exercise: &Exercise, start: &[Check], solution: &[Check]) -> Result<Option<String>> {
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
    prove(settings, &git, None)
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
    use crate::exercises::tests::{read, refusal, repository, run, settings, write};

    fn move_base_of(folder: &Path) -> Result<String> {
        move_base(folder, &Git::open(folder)?)
    }

    #[test]
    fn proof_depends_on_own_answers_base_and_grading_code() {
        let folder = repository("proof");
        let git = Git::open(&folder).expect("a repository");
        let now = || Proved::exercise_now(&git, "broken").expect("a tree");
        let proved = now();
        for (path, text) in [
            ("src.txt", "the product moves on\n"),
            ("interview/README.md", "another text\n"),
            ("interview/briefs/broken/README.md", "another brief\n"),
            ("interview/answers/broken/notes.md", "other notes\n"),
            ("interview/answers/another/grader.rs", "another exercise\n"),
            ("interview/runner/src/main.rs", "another command\n"),
            ("interview/PROVED", "\n"),
        ] {
            write(&folder, path, text);
            assert_eq!(now(), proved, "{path}");
        }
        for path in [
            "interview/answers/broken/grader.rs",
            "interview/answers/broken/start.patch",
            "interview/answers/broken/solution.patch",
            "interview/answers/broken/mutants/wrong.patch",
            "interview/BASE",
            "interview/grading/lib.rs",
            "interview/runner/src/workshop.rs",
            "interview/runner/src/report.rs",
            "interview/runner/src/review.rs",
            WORDS,
        ] {
            let before = now();
            write(&folder, path, "changed\n");
            assert_ne!(now(), before, "{path}");
        }
    }

    #[test]
    fn incident_proof_depends_on_definition_and_code() {
        let folder = repository("incident-proof");
        let git = Git::open(&folder).expect("a repository");
        let now = || Proved::incident_now(&git, "late").expect("a tree");
        let proved = now();
        for path in [
            "src.txt",
            "interview/incidents/late/brief.md",
            "interview/incidents/another/incident.toml",
            INCIDENT_COMMANDS,
            "interview/runner/src/workshop.rs",
            "interview/PROVED",
        ] {
            write(&folder, path, "changed\n");
            assert_eq!(now(), proved, "{path}");
        }
        for path in [
            "interview/incidents/late/incident.toml",
            "interview/runner/src/incident/grade.rs",
            "interview/runner/src/incident/any.rs",
            WORDS,
        ] {
            let before = now();
            write(&folder, path, "changed\n");
            assert_ne!(now(), before, "{path}");
        }
    }

    #[test]
    fn proof_of_unknown_name_lists_the_known_ones() {
        let folder = repository("unknown-proof");
        write(&folder, "interview/incidents/late/incident.toml", "\n");
        for name in ["", "unknown", "late/"] {
            let refused = refusal(super::run(&settings(&folder), Some(name)));
            assert_eq!(
                refused,
                format!("there is no exercise or incident {name:?}, only these: broken, late")
            );
        }
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
