//! `make grade`: builds a candidate's work with the hidden checks, and reports which checks pass.

use std::{
    fs,
    path::{self, Path, PathBuf},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{ArgAction, Args, builder::FalseyValueParser};
use xtask::{
    commands::environment::with_stack,
    stack::{Stack, settings::Settings},
    tools::terminal,
};

use crate::{
    exercises::ActiveExercise,
    git::Git,
    incident::commands,
    kit::{Exercise, Kit},
    pack, record,
    report::{self, Check},
    workshop::{Graded, Services, Work, Workshop},
};

/// How often the files are compared with those that were graded last.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The options of `make grade`.
#[derive(Args)]
pub struct Options {
    /// A folder in interview/briefs
    #[arg(long, env = "N")]
    name: Option<String>,
    /// Grade again after every change: WATCH=1
    #[arg(long, env = "WATCH", value_parser = FalseyValueParser::new(), num_args = 0..=1,
          default_value = "0", default_missing_value = "1", action = ArgAction::Set)]
    watch: bool,
    /// Also write the report to this file, as JSON: JSON=report.json
    #[arg(long, env = "JSON")]
    json: Option<PathBuf>,
    /// What a candidate sent back: an archive, a folder or a repository
    #[arg(long, env = "FROM")]
    from: Option<String>,
}

impl Options {
    /// Prints the report and passes the checks on. Fails if a check does.
    fn conclude(&self, name: &str, graded: Graded, record: impl FnOnce(&[Check])) -> Result<()> {
        let checks = match graded {
            Graded::Checked(checks) => checks,
            Graded::Broken(errors) => {
                println!("\nThe code does not compile, so no checks ran:\n\n{errors}\n");
                if errors.contains("cargo sqlx prepare") {
                    println!("A query or the schema has changed: make sqlx describes them.\n");
                }
                println!("All errors: cargo check --all-targets\n");
                let checks = [Check::failed("the_code_compiles", errors)];
                record(&checks);
                self.write(name, &checks)?;
                anyhow::bail!("the code does not compile");
            }
        };
        println!("\n{name}\n\n{}", report::of_checks(&checks));
        record(&checks);
        self.write(name, &checks)?;
        let failed = checks.iter().filter(|check| !check.passed()).count();
        ensure!(failed == 0, "{failed} of {} checks failed", checks.len());
        Ok(())
    }

    /// Fails if the report cannot be written: before the work is graded, not after.
    fn ensure_writable(&self) -> Result<()> {
        let Some(file) = &self.json else { return Ok(()) };
        let folder = path::absolute(file)?.parent().map(Path::to_owned).unwrap_or_default();
        ensure!(
            folder.is_dir() && !file.is_dir(),
            "the report cannot be written to {}: there is no folder {}",
            file.display(),
            folder.display()
        );
        Ok(())
    }

    /// Has git ignore the report, which is no part of the work.
    fn ignore_report(&self, git: &Git, root: &Path) -> Result<()> {
        let Some(file) = &self.json else { return Ok(()) };
        let file = path::absolute(file)?;
        let Ok(inside) = file.strip_prefix(root) else {
            return Ok(());
        };
        let excluded = git.run(["rev-parse", "--path-format=absolute", "--git-path", "info/exclude"])?;
        let line = format!("/{}", inside.display());
        let text = fs::read_to_string(&excluded).unwrap_or_default();
        if text.lines().any(|known| known == line) {
            return Ok(());
        }
        let end = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        fs::create_dir_all(Path::new(&excluded).parent().context("a folder in .git")?)?;
        fs::write(excluded, format!("{text}{end}{line}\n")).context("cannot have git ignore the report")
    }

    /// Writes the report for programs, if that is wanted.
    fn write(&self, name: &str, checks: &[Check]) -> Result<()> {
        let Some(file) = &self.json else { return Ok(()) };
        let text = format!("{:#}\n", report::as_json(name, checks));
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Grades the incident in progress, the working tree of the exercise that is checked out, or what
/// came back from a candidate.
pub fn run(settings: &Settings, options: &Options) -> Result<()> {
    options.ensure_writable()?;
    let is_exercise = || Git::open(&settings.root).is_ok_and(|git| ActiveExercise::find(&git, None).is_ok());
    if options.from.is_none() && settings.root.join(pack::MARK).exists() && !is_exercise() {
        ensure!(!options.watch, "WATCH=1 is not available in a pack: make grade");
        return pack::grade(settings, |name, graded| options.conclude(name, graded, |_| {}));
    }
    let git = Git::open(&settings.root)?;
    options.ignore_report(&git, &settings.root)?;
    let name = options.name.as_deref();
    if options.from.is_none() && commands::is_current(&settings.root, &git, name)? {
        ensure!(
            !options.watch,
            "WATCH=1 grades after changes to files, which an incident has none of: make grade"
        );
        return commands::grade(settings, &git, |name, checks| options.write(name, checks));
    }
    let workshop = Workshop::open(settings)?;
    let (active, returned) = match &options.from {
        Some(from) => {
            workshop.forget_grader()?;
            let (active, tree) = pack::returned(&git, &settings.root, &workshop, from, name)?;
            (active, Some(tree))
        }
        None => {
            let active = ActiveExercise::find(&git, name)?;
            active.ensure_checked_out(&git)?;
            (active, None)
        }
    };
    let kit = Kit::of(&git, &active.kit)?;
    let exercise = kit.exercise(&active.name)?;
    let grading = Grading {
        git: &git,
        active: &active,
        exercise: &exercise,
        workshop: &workshop,
        options,
        returned,
        services: OnceLock::new(),
    };
    if exercise.key()?.is_some() {
        // A text needs no services.
        return grading.run(None);
    }
    with_stack(settings, "grader", |stack| grading.run(Some(stack)))
}

struct Grading<'a> {
    git: &'a Git,
    active: &'a ActiveExercise,
    exercise: &'a Exercise<'a>,
    workshop: &'a Workshop,
    options: &'a Options,
    /// The tree that a candidate sent back.
    returned: Option<String>,
    /// Started once.
    services: OnceLock<Services>,
}

impl Grading<'_> {
    /// Grades once, or after every change.
    fn run(&self, stack: Option<&Stack>) -> Result<()> {
        let mut tree = self.tree()?;
        loop {
            let outcome = self.grade(&tree, stack);
            if !self.options.watch {
                return outcome;
            }
            if let Err(error) = outcome {
                terminal::say(&format!("\n{error:#}"));
            }
            terminal::say("  … watch      waiting for a change (Ctrl-C ends)");
            tree = match self.next(&tree)? {
                Some(changed) => changed,
                None => {
                    terminal::say("  • watch      ended: the exercise is not checked out any more");
                    return Ok(());
                }
            };
        }
    }

    /// The work as it is now.
    fn tree(&self) -> Result<String> {
        let index = self.git.index()?;
        self.exercise.with_grading(&match &self.returned {
            Some(returned) => index.of_tree(returned)?,
            None => index.of_working_tree()?,
        })
    }

    /// The next state that differs from this one and does not change any more; none once the exercise
    /// has ended.
    fn next(&self, graded: &str) -> Result<Option<String>> {
        let mut last = graded.to_owned();
        loop {
            thread::sleep(LOOK_EVERY);
            if self.active.ensure_checked_out(self.git).is_err() {
                return Ok(None);
            }
            let now = self.tree()?;
            if now == last && now != graded {
                return Ok(Some(now));
            }
            last = now;
        }
    }

    /// Grades a tree and prints the report. Fails if a check does.
    fn grade(&self, tree: &str, stack: Option<&Stack>) -> Result<()> {
        let started = Instant::now();
        let work = Work {
            exercise: self.exercise,
            start: &self.active.start,
            tree,
        };
        let services = || match self.services.get() {
            Some(services) => Ok(services.clone()),
            None => {
                let started = Services::start(stack.context("only texts are graded without a stack")?)?;
                Ok(self.services.get_or_init(|| started).clone())
            }
        };
        let graded = self.workshop.grade(self.git, &work, None, services)?;
        self.options
            .conclude(&self.active.name, graded, |checks| self.record(tree, started, checks))
    }

    /// Records the grade, unless the work came from elsewhere: a record belongs to a branch.
    fn record(&self, tree: &str, started: Instant, checks: &[Check]) {
        if self.returned.is_none() {
            record::grade(self.git, self.active, tree, started.elapsed().as_secs_f64(), checks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exercises::tests::{read, refusal, repository, run, write};

    #[test]
    fn report_is_ignored_by_git_and_may_be_elsewhere() {
        let folder = repository("report");
        let git = Git::open(&folder).expect("a repository");
        let options = |json: &Path| Options {
            name: None,
            watch: false,
            json: Some(json.to_owned()),
            from: None,
        };
        for inside in ["r.json", "src/r.json", "r.json"] {
            write(&folder, "src/kept.txt", "kept\n");
            let options = options(&folder.join(inside));
            options.ensure_writable().expect("it can be written");
            options.ignore_report(&git, &folder).expect("it is ignored");
            options.write("broken", &[]).expect("it is written");
        }
        assert_eq!(run(&folder, &["status", "--porcelain"]), "?? src/");
        let excluded = read(&folder, ".git/info/exclude").expect("a list");
        assert!(excluded.ends_with("/r.json\n/src/r.json\n"), "{excluded}");
        let outside = options(Path::new("/tmp/r.json"));
        outside.ensure_writable().expect("it can be written");
        outside.ignore_report(&git, &folder).expect("there is nothing to do");
        let missing = refusal(options(&folder.join("missing/r.json")).ensure_writable());
        assert!(missing.contains("there is no folder"), "{missing}");
    }
}
