//! The workshop, where graded trees are built and checked.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Seek, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{OpenOptionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::Value;
use xtask::{
    commands::{environment::with_stack, queries},
    stack::{Stack, aws::REGION, deploy, migrations, settings::Settings, start},
    tools::{
        files,
        parallel::side_by_side,
        process,
        python::{Tool, Tools},
        terminal::{self, Step},
    },
};

use crate::{
    git::Git,
    kit::Exercise,
    report::{self, Check, Outcomes},
    review::{Key, Review},
};

/// The check that what a brief protects is as it was.
const PROTECTED: &str = "protected_files_are_unchanged";

/// The check of the candidate's own tests.
const OWN_TESTS: &str = "a_new_test_fails_without_the_change";

/// How long they may take: several times as long as those of the largest file.
const OWN_TESTS_LIMIT: Duration = Duration::from_secs(300);

/// Where it is kept which of them do not pass at the start.
const AT_START: &str = "exercises/at-start";

/// The folders of the candidate's tests, which are modules of the test program `functions`.
const TESTS: [&str; 3] = ["tests/api", "tests/worker", "tests/infrastructure/database"];

/// The folder of the hidden checks while they are compiled.
const CHECKS: &str = "interview/grading/tests";

/// The beginning of their name.
const GRADER: &str = "grader_";

/// The folder of the graded tree.
pub fn source(root: &Path) -> PathBuf {
    root.join(".local/grading")
}

/// A tree that is graded, and its target folder: a copy of both, which is kept so that the next build
/// is incremental, or within a pack the candidate's own.
pub struct Workshop {
    tools: Tools,
    /// The tree.
    source: PathBuf,
    /// Cargo's target folder.
    target: PathBuf,
    logs: PathBuf,
    settings: Settings,
    /// Held to prevent concurrent use.
    _lock: File,
}

/// What is graded.
pub struct Work<'a> {
    pub exercise: &'a Exercise<'a>,
    /// The tree of the exercise's start.
    pub start: &'a str,
    /// The tree of the work.
    pub tree: &'a str,
}

/// The result of grading.
pub enum Graded {
    Checked(Vec<Check>),
    /// It does not compile: the first errors.
    Broken(String),
}

/// The compiled checks.
pub struct Grader {
    /// Their names, in the order of the source.
    pub checks: Vec<String>,
    /// The functions that they run.
    pub functions: Vec<String>,
    /// Their program, compressed: what they report cannot be read in it.
    pub program: PathBuf,
}

/// Postgres and the emulator, which the checks need.
#[derive(Clone)]
pub struct Services {
    database_url: String,
    aws_url: String,
}

impl Services {
    /// Starts them.
    pub fn start(stack: &Stack) -> Result<Self> {
        let database_url = start::postgres_and_aws(stack)?;
        // From it, sqlx creates those of the candidate's tests. It has to exist; that migrations
        // work is for the checks to say.
        let _ = start::database(stack);
        let aws_url = stack.emulator.url();
        Ok(Self { database_url, aws_url })
    }

    fn set(&self, command: &mut Command) {
        deploy::into_aws_at(command, &self.aws_url);
        command
            .env("DATABASE_URL", &self.database_url)
            .env("RUST_BACKTRACE", "0")
            // libtest's JSON output is nightly-only otherwise.
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["-Z", "unstable-options", "--format", "json"]);
    }
}

impl Workshop {
    /// With a copy of what is graded. Waits for its turn.
    pub fn open(settings: &Settings) -> Result<Self> {
        let target = settings.root.join("target/grading");
        Self::of(settings, source(&settings.root), target)
    }

    /// In the working tree itself. Waits for its turn.
    pub fn in_place(settings: &Settings) -> Result<Self> {
        Self::of(settings, settings.root.clone(), settings.root.join("target"))
    }

    fn of(settings: &Settings, source: PathBuf, target: PathBuf) -> Result<Self> {
        let logs = settings.root.join(".local");
        let lock = wait_for_turn(&logs)?;
        Ok(Self {
            tools: Tools::new(&settings.root),
            source,
            target,
            logs,
            settings: settings.clone(),
            _lock: lock,
        })
    }

    /// Replaces the tree.
    fn check_out(&self, git: &Git, tree: &str) -> Result<()> {
        git.check_out(tree, &self.source)?;
        seed(&self.settings.root, &self.target)
    }

    /// Compiles the checks and a tree's functions, so that the first `make grade` need not.
    pub fn prepare(&self, git: &Git, exercise: &Exercise, tree: &str) -> Result<()> {
        let grader = self.grader(git, exercise)?;
        self.check_out(git, tree)?;
        if let Err(errors) = self.build(&grader.functions)? {
            bail!("{} does not compile:\n{errors}", exercise.name);
        }
        Ok(())
    }

    /// Runs compiled checks on the working tree, whose functions are built here.
    pub fn grade_in_place(&self, grader: &Grader, services: impl FnOnce() -> Result<Services>) -> Result<Graded> {
        if let Err(errors) = self.build(&grader.functions)? {
            return Ok(Graded::Broken(errors));
        }
        Ok(Graded::Checked(self.check(grader, &services()?, None)?))
    }

    /// Runs all checks of a work, or only the one of this name. `services` is called once they are
    /// needed, while the work is compiled.
    pub fn grade(
        &self,
        git: &Git,
        work: &Work<'_>,
        only: Option<&str>,
        services: impl FnOnce() -> Result<Services> + Send,
    ) -> Result<Graded> {
        let mut checks = match work.exercise.key()? {
            Some(key) => grade_text(git, work, &key)?,
            None => match self.grade_code(git, work, only, services)? {
                Graded::Checked(checks) => checks,
                broken => return Ok(broken),
            },
        };
        if let Some(only) = only {
            checks.retain(|check| check.name == only);
            ensure!(!checks.is_empty(), "{} has no check {only}", work.exercise.name);
        }
        Ok(Graded::Checked(checks))
    }

    fn grade_code(
        &self,
        git: &Git,
        work: &Work<'_>,
        only: Option<&str>,
        services: impl FnOnce() -> Result<Services> + Send,
    ) -> Result<Graded> {
        let source = work.exercise.grader()?;
        let mut protected = None;
        if let Some(paths) = header(&source, "unchanged") {
            let changed = git.differing(work.start, work.tree, &paths)?;
            protected = Some(Check::of(PROTECTED, &changed));
            if only == Some(PROTECTED) {
                return Ok(Graded::Checked(protected.into_iter().collect()));
            }
        }
        // Before anything else is started, which would inherit the open file with their source.
        let grader = self.grader(git, work.exercise)?;
        let compiled = fs::read(&grader.program)?;
        let (mut built, mut running, mut services) = (None, None, Some(services));
        side_by_side([
            &mut || {
                self.check_out(git, work.tree)?;
                built = Some(self.build(&grader.functions)?);
                Ok(())
            },
            &mut || {
                running = services.take().map(|start| start()).transpose()?;
                Ok(())
            },
        ])?;
        if let Err(errors) = built.context("the build has no result")? {
            return Ok(Graded::Broken(errors));
        }
        ensure!(
            fs::read(&grader.program).is_ok_and(|program| program == compiled),
            "the compiled checks in {} were changed while the work was compiled: look at its build scripts",
            grader.program.display()
        );
        let services = running.context("the services have not been started")?;
        let mut checks = Vec::new();
        if only != Some(OWN_TESTS) {
            checks = self.check(&grader, &services, only)?;
        }
        checks.extend(protected);
        if header(&source, "tests").is_some() && only.is_none_or(|only| only == OWN_TESTS) {
            checks.push(self.own_tests(git, work, &services)?);
        }
        Ok(Graded::Checked(checks))
    }

    /// Compiles the hidden checks of an exercise, unless this was done before. They consist of code of
    /// the base and the kit alone: what a candidate writes runs in other processes, and cannot report
    /// in their name.
    pub fn grader(&self, git: &Git, exercise: &Exercise) -> Result<Grader> {
        let (source, tree) = (exercise.grader()?, exercise.grading_tree()?);
        let name = format!("{GRADER}{:016x}", hash(&format!("{tree}\n{source}")));
        let program = self.logs.join("grader-program").join(&name);
        if !program.exists() {
            self.check_out(git, &tree)?;
            let step = Step::start("build", "compiling the checks");
            let compiled = self.compile_grader(&name, &source, &step)?;
            files::empty_folder(program.parent().context("a folder in .local")?)?;
            let copy = program.with_extension("copy");
            strip(&compiled, &copy)?;
            compress(&copy, &program)?;
            fs::remove_file(copy)?;
            self.forget_compiled_graders()?;
            step.done("the checks");
        }
        let functions = header(&source, "functions").unwrap_or_default();
        Ok(Grader {
            checks: report::names(&source),
            functions: functions.into_iter().map(str::to_owned).collect(),
            program,
        })
    }

    /// Compiles checks in the tree that is checked out; returns the program.
    fn compile_grader(&self, name: &str, source: &str, step: &Step) -> Result<PathBuf> {
        let checks = self.source.join(CHECKS).join(name).with_extension("rs");
        fs::create_dir_all(self.source.join(CHECKS))?;
        // Candidates do not come across the source, not even while it is compiled. (What is included
        // cannot begin with a comment about the whole file.)
        let (unnamed, path) = unnamed(&self.logs, &source.replace("//! ", "// "))?;
        fs::write(&checks, format!("include!({path:?});\n"))?;
        let built = self.compile(&["--test", name], step);
        drop(unnamed);
        fs::remove_file(checks)?;
        match built? {
            Ok(lines) => executable(&lines, name),
            Err(errors) => bail!("the checks do not compile:\n{errors}"),
        }
    }

    /// Deletes compiled checks and results that were kept, so that those of the next work are not what an
    /// earlier one has put there.
    pub fn forget_grader(&self) -> Result<()> {
        for folder in ["grader-program", AT_START] {
            files::remove_if_exists(fs::remove_dir_all(self.logs.join(folder)))?;
        }
        Ok(())
    }

    /// Deletes what the compiler has left of checks.
    fn forget_compiled_graders(&self) -> Result<()> {
        for folder in ["debug/deps", "debug/incremental"] {
            for entry in fs::read_dir(self.target.join(folder)).into_iter().flatten() {
                let entry = entry?;
                let path = entry.path();
                if entry.file_name().to_string_lossy().starts_with(GRADER) {
                    match path.is_dir() {
                        true => fs::remove_dir_all(path)?,
                        false => fs::remove_file(path)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Builds what the checks need of the tree that is checked out: these functions, as far as they
    /// exist, and the translated template. Returns the first errors, if it is not possible.
    fn build(&self, functions: &[String]) -> Result<Result<(), String>> {
        let step = Step::start("build", "compiling what has changed");
        // A function that is not there any more must not be checked as it was.
        files::empty_folder(&self.target.join("functions"))?;
        let functions = self.existing(functions);
        let targets: Vec<&str> = functions.iter().flat_map(|function| ["--bin", function]).collect();
        // Without a target cargo would build everything.
        if !targets.is_empty()
            && let Err(errors) = self.compile(&targets, &step)?
        {
            return Ok(Err(errors));
        }
        for function in &functions {
            link(
                &self.target.join("debug").join(function),
                &self.target.join("functions").join(function),
            )?;
        }
        self.tools.install(&[Tool::Sam])?;
        if let Err(error) = self.translate(&self.target.join("templates"), &step) {
            return Ok(Err(format!("template.yaml: {error:#}")));
        }
        step.done("the functions that the checks need");
        Ok(Ok(()))
    }

    /// Those of these functions that exist. One that the exercise requires may not exist yet; its
    /// checks then report that.
    fn existing<'a>(&self, functions: &'a [String]) -> Vec<&'a str> {
        let folders = self.source.join("functions");
        let functions = functions.iter().map(String::as_str);
        functions.filter(|function| folders.join(function).is_dir()).collect()
    }

    /// Compiles targets of the tree that is checked out. Returns the lines that cargo prints, or the
    /// first errors.
    fn compile(&self, targets: &[&str], step: &Step) -> Result<Result<Vec<String>, String>> {
        let mut cargo = process::cargo("cargo", &self.source);
        cargo
            .env("CARGO_TARGET_DIR", &self.target)
            // No package is selected, so that the dependencies of `make up` serve.
            .args(["build", "--message-format", "json-render-diagnostics"])
            .args(targets);
        let mut lines = Vec::new();
        let compiled = process::run(&mut cargo, &self.logs.join("grading-build.log"), |line| {
            if line.trim_start().starts_with("Compiling") {
                step.show(line.trim_start());
            }
            lines.push(line.to_owned());
        });
        match (compiled, report::first_errors(&lines)) {
            (Ok(()), _) => Ok(Ok(lines)),
            (Err(_), Some(errors)) if !report::is_of_machine(&errors) => Ok(Err(errors)),
            (Err(error), Some(errors)) => Err(error.context(errors)),
            (Err(error), None) => Err(error),
        }
    }

    /// Compiles the test program of the candidate's tests, or returns the first errors.
    fn compile_tests(&self, step: &Step) -> Result<Result<PathBuf, String>> {
        match self.compile(&["--test", "functions"], step)? {
            Ok(lines) => executable(&lines, "functions").map(Ok),
            Err(errors) => Ok(Err(errors)),
        }
    }

    /// Compiles and runs the candidate's tests: all must pass with the work, and one that is new or
    /// changed must fail at the start.
    fn own_tests(&self, git: &Git, work: &Work<'_>, services: &Services) -> Result<Check> {
        let changed = git.differing(work.start, work.tree, &TESTS)?;
        let modules: Vec<String> = changed.iter().map(|path| module(path)).collect();
        if modules.is_empty() {
            return Ok(Check::failed(
                OWN_TESTS,
                format!("no file in {} has changed", TESTS.join(", ")),
            ));
        }
        for path in &changed {
            let reads = |tree: &str| reads_files(&git.file(tree, path).unwrap_or_default());
            if reads(work.tree) > reads(work.start) {
                let reason = format!("{path} reads a file: a test has to run the code, not to look at it");
                return Ok(Check::failed(OWN_TESTS, reason));
            }
        }
        let step = Step::start("tests", "compiling yours");
        self.check_out(git, work.tree)?;
        let program = match self.compile_tests(&step)? {
            Ok(program) => program,
            Err(errors) => {
                let first = errors.lines().take(2).collect::<Vec<_>>().join(" ");
                return Ok(Check::failed(OWN_TESTS, format!("the tests do not compile: {first}")));
            }
        };
        step.show("running yours");
        let Outcomes {
            passed,
            failed,
            ignored,
            unfinished,
        } = self.run_tests(&program, &modules, services)?;
        if let [first, ..] = &failed[..] {
            let reason = format!("{} fail with your change, for example {first}", failed.len());
            return Ok(Check::failed(OWN_TESTS, reason));
        }
        if let [first, ..] = &unfinished[..] {
            let reason = format!(
                "{first} did not end; all together may take {} s",
                OWN_TESTS_LIMIT.as_secs()
            );
            return Ok(Check::failed(OWN_TESTS, reason));
        }
        if let [first, ..] = &ignored[..] {
            return Ok(Check::failed(OWN_TESTS, format!("{first} is ignored")));
        }
        let check = match self.not_passed_at_start(git, work, &modules, services, &step)? {
            None if passed.is_empty() => Check::failed(OWN_TESTS, "none of the changed files has a test"),
            None => {
                terminal::say(
                    "  • tests      with the code of the start they do not compile, so whether one fails is for the \
                     interviewer to judge",
                );
                Check::ok(OWN_TESTS)
            }
            Some(not_passed) if not_passed.iter().any(|test| passed.contains(test)) => Check::ok(OWN_TESTS),
            Some(_) => Check::failed(
                OWN_TESTS,
                format!("all tests in {} also pass at the start", changed.join(", ")),
            ),
        };
        step.done("ran yours, with the change and without");
        Ok(check)
    }

    /// The tests of these modules that do not pass with the code of the start; none if they do not even
    /// compile there. The result is kept: it is the same until the tests change.
    fn not_passed_at_start(
        &self,
        git: &Git,
        work: &Work<'_>,
        modules: &[String],
        services: &Services,
        step: &Step,
    ) -> Result<Option<Vec<String>>> {
        let index = git.index()?.of_tree(work.start)?;
        index.restore(&["tests", "Cargo.lock"], work.tree)?;
        let tree = work.exercise.with_grading(&index)?;
        drop(index);
        let kept = self.logs.join(AT_START).join(&tree);
        if let Ok(text) = fs::read_to_string(&kept) {
            return Ok(serde_json::from_str(&text)?);
        }
        step.show("compiling yours with the code of the start");
        self.check_out(git, &tree)?;
        let not_passed = match self.compile_tests(step)? {
            Err(_) => None,
            Ok(program) => {
                step.show("running yours with the code of the start");
                let Outcomes { failed, unfinished, .. } = self.run_tests(&program, modules, services)?;
                Some([failed, unfinished].concat())
            }
        };
        files::empty_folder(&self.logs.join(AT_START))?;
        fs::write(kept, serde_json::to_string(&not_passed)?)?;
        Ok(not_passed)
    }

    /// Runs the tests of these modules, for a limited time.
    fn run_tests(&self, program: &Path, modules: &[String], services: &Services) -> Result<Outcomes> {
        let mut command = Command::new(program);
        services.set(&mut command);
        command.current_dir(self.source.join("tests")).args(modules);
        let mut lines = Vec::new();
        let log = self.logs.join("grading-tests.log");
        let ran = process::run_within(Some(OWN_TESTS_LIMIT), &mut command, &log, |line| {
            lines.push(line.to_owned())
        });
        let outcomes = Outcomes::read(&lines);
        match ran {
            Err(error) if outcomes.failed.is_empty() && outcomes.unfinished.is_empty() => Err(error),
            _ => Ok(outcomes),
        }
    }

    /// Has the compiler ask a database about every query of a tree; returns a folder with a `.sqlx`
    /// as `make sqlx` would write it. Kept for the next time.
    pub fn describe_queries(&self, git: &Git, tree: &str) -> Result<PathBuf> {
        let kept = self.logs.join("exercises/queries").join(tree);
        if kept.exists() {
            return Ok(kept);
        }
        self.check_out(git, tree)?;
        let step = Step::start("queries", "describing those that the exercise changes");
        let fresh = self.logs.join("exercises/describing");
        files::empty_folder(&fresh.join(".sqlx"))?;
        with_stack(&self.settings, "grader", |stack| {
            let url = start::start_postgres(stack)?;
            migrations::migrate_from(&self.source.join("migrations"), &url)?;
            let mut cargo = process::cargo("cargo", &self.source);
            cargo
                .env("CARGO_TARGET_DIR", &self.target)
                // No package is selected, so that the dependencies of `make up` serve. Any function
                // will do: the queries are those of `shared`.
                .args(["build", "--bin", "health"]);
            let log = self.logs.join("grading-queries.log");
            queries::describe_with(&mut cargo, &self.source, &url, &fresh.join(".sqlx"), &log)
        })?;
        fs::create_dir_all(kept.parent().context("a folder in .local")?)?;
        fs::rename(&fresh, &kept)?;
        step.done("described those that the exercise changes");
        Ok(kept)
    }

    /// Translates the tree's template for CloudFormation, unless that is already done.
    fn translate(&self, templates: &Path, step: &Step) -> Result<()> {
        let sources = ["template.yaml", "dev/tools/translate.py"].map(|file| fs::read(self.source.join(file)));
        let [template, translator] = sources.map(Result::unwrap_or_default);
        let (wanted, mark) = ([template, translator].concat(), templates.join("of"));
        if fs::read(&mark).is_ok_and(|translated| translated == wanted) {
            return Ok(());
        }
        step.show("translating template.yaml");
        let mut python = Command::new(self.tools.bin(Tool::Sam).join("python"));
        python.current_dir(&self.source).env("AWS_DEFAULT_REGION", REGION);
        let log = self.logs.join("grading-template.log");
        process::run(
            python.args(["dev/tools/translate.py", "template.yaml"]).arg(templates),
            &log,
            |_| {},
        )?;
        Ok(fs::write(mark, wanted)?)
    }

    /// Runs the hidden checks, or one of them.
    fn check(&self, grader: &Grader, services: &Services, only: Option<&str>) -> Result<Vec<Check>> {
        let step = Step::start("checks", "running");
        let program = self.logs.join("checks-running");
        decompress(&grader.program, &program)?;
        let mut command = Command::new(&program);
        services.set(&mut command);
        command
            .current_dir(self.source.join("interview/grading"))
            .env("FUNCTIONS", self.target.join("functions"))
            .env("TEMPLATES", self.target.join("templates"))
            // They mostly wait.
            .arg("--test-threads=8");
        if let Some(only) = only {
            command.args(["--exact", only]);
        }
        let mut lines = Vec::new();
        let ran = process::run(&mut command, &self.logs.join("grading-checks.log"), |line| {
            // It is running, and needs its file no more.
            let _ = fs::remove_file(&program);
            lines.push(line.to_owned());
        });
        files::remove_if_exists(fs::remove_file(&program))?;
        let names = grader
            .checks
            .iter()
            .filter(|name| only.is_none_or(|only| only == *name));
        let checks = report::read(&names.cloned().collect::<Vec<_>>(), &lines)?;
        match ran {
            Err(error) if checks.iter().all(Check::passed) => Err(error),
            _ => {
                step.done("full output: .local/grading-checks.log");
                Ok(checks)
            }
        }
    }
}

/// Locks the workshop. Until it is free, shows what is compiled in it.
fn wait_for_turn(logs: &Path) -> io::Result<File> {
    let is_locked = AtomicBool::new(false);
    thread::scope(|scope| {
        let lock = files::lock(&logs.join("grading.lock"), || {
            scope.spawn(|| {
                let what = "for another grading command (WATCH=1?), or for make exercise, which compiles the checks";
                let step = Step::start("waiting", what);
                while !is_locked.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(200));
                    let log = fs::read_to_string(logs.join("grading-build.log")).unwrap_or_default();
                    let mut lines = log.lines().rev().map(str::trim);
                    if let Some(line) = lines.find(|line| line.starts_with("Compiling")) {
                        step.show(&format!("while another command is {}", line.to_lowercase()));
                    }
                }
            });
        });
        is_locked.store(true, Ordering::Relaxed);
        lock
    })
}

/// Grades a review.
fn grade_text(git: &Git, work: &Work<'_>, key: &Key) -> Result<Vec<Check>> {
    Review::read(git, key, work.start, work.tree).checks()
}

/// Seeds the target folder with the dependencies compiled for `make up`, so that only the project's
/// own crates are compiled. A copy, because cargo does not distinguish the crates of two checkouts,
/// and would recompile them alternately.
pub fn seed(root: &Path, target: &Path) -> Result<()> {
    let wanted = fs::read(root.join("Cargo.lock"))?;
    let mark = target.join("seeded-for.lock");
    if fs::read(&mark).is_ok_and(|seeded| seeded == wanted) {
        return Ok(());
    }
    let step = Step::start("build", "copying the compiled dependencies");
    let (from, to) = (root.join("target/debug"), target.join("debug"));
    files::empty_folder(target)?;
    fs::create_dir_all(to.join("deps"))?;
    for folder in [".fingerprint", "build"] {
        if from.join(folder).exists() {
            process::output(Command::new("cp").arg("-Rp").arg(from.join(folder)).arg(&to))?;
        }
    }
    for entry in fs::read_dir(from.join("deps")).into_iter().flatten() {
        let (file, entry) = (to.join("deps"), entry?);
        let is_library = |name: &str| name.starts_with("lib") || name.ends_with(".d");
        if is_library(&entry.file_name().to_string_lossy()) {
            copy(&entry.path(), &file.join(entry.file_name()))?;
        }
    }
    fs::write(mark, wanted)?;
    step.done("copied the compiled dependencies");
    Ok(())
}

/// What a grader declares in a line like `// functions: create-task, task-processor`: the functions
/// to build, the files that must be unchanged (pathspecs), whether the candidate's tests are run.
pub fn header<'a>(grader: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let mut lines = grader.lines();
    let line = lines.find_map(|line| line.strip_prefix("// ")?.strip_prefix(name)?.strip_prefix(": "))?;
    Some(line.split(", ").collect())
}

/// The checks of a grader that compare the work with the start.
pub fn checks_with_start(grader: &str) -> Vec<String> {
    let declared = [("unchanged", PROTECTED), ("tests", OWN_TESTS)].into_iter();
    let checks = declared.filter(|(name, _)| header(grader, name).is_some());
    checks.map(|(_, check)| check.to_owned()).collect()
}

/// The module of a test file: `tests/worker/processor.rs` is `worker::processor::`.
fn module(path: &str) -> String {
    let path = path.trim_start_matches("tests/").trim_start_matches("infrastructure/");
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    format!("{}::", path.replace('/', "::"))
}

/// How often a test file reads other files.
fn reads_files(text: &str) -> usize {
    let ways = ["include!", "include_str!", "include_bytes!", "fs::read", "File::open"];
    ways.iter().map(|way| text.matches(way).count()).sum()
}

/// The executable of this target, from cargo's JSON output.
fn executable(lines: &[String], target: &str) -> Result<PathBuf> {
    let messages = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut those =
        messages.filter(|message| message["target"]["name"] == target && message["reason"] == "compiler-artifact");
    let executable = those.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.with_context(|| format!("cargo reports no executable of {target}"))
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// A file without a name, and the path at which the processes that inherit it read it.
fn unnamed(folder: &Path, text: &str) -> Result<(File, String)> {
    let path = folder.join(format!("unnamed-{}", std::process::id()));
    let mut options = File::options();
    let mut file = options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    fs::remove_file(path)?;
    file.write_all(text.as_bytes())?;
    // Where a path under /dev/fd is the same open file, it is read from here.
    file.rewind()?;
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).context("cannot let cargo inherit a file")?;
    let path = format!("/dev/fd/{}", file.as_raw_fd());
    Ok((file, path))
}

/// Writes a program without its symbols, which are most of it, and name what it does.
pub fn strip(program: &Path, to: &Path) -> Result<()> {
    process::output(Command::new("strip").arg("-o").args([to, program])).map(drop)
}

fn compress(file: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    let mut compressed = GzEncoder::new(File::create(&new)?, Compression::fast());
    io::copy(&mut File::open(file)?, &mut compressed)?;
    compressed.finish()?;
    Ok(fs::rename(new, to)?)
}

/// Writes a compressed program again.
fn decompress(compressed: &Path, program: &Path) -> Result<()> {
    // One that was killed may have left it.
    files::remove_if_exists(fs::remove_file(program))?;
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(0o700).open(program)?;
    io::copy(&mut GzDecoder::new(File::open(compressed)?), &mut file)
        .with_context(|| format!("{} is damaged", compressed.display()))?;
    Ok(())
}

/// Copies a file with its modification time, which cargo uses to detect changes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot write {}", to.display()))?;
    let modified = fs::metadata(from)?.modified()?;
    Ok(File::options().write(true).open(to)?.set_modified(modified)?)
}

/// Creates a function's folder, with its program under Lambda's name for it.
fn link(program: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let bootstrap = folder.join("bootstrap");
    if fs::read_link(&bootstrap).is_ok_and(|linked| linked == program) {
        return Ok(());
    }
    let _ = fs::remove_file(&bootstrap);
    symlink(program, &bootstrap).with_context(|| format!("cannot link {}", bootstrap.display()))
}
