//! The workshop, where graded trees are built and checked.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::{
    commands::{environment::with_stack, queries},
    stack::{aws::REGION, migrations, settings::Settings, start},
    tools::{
        files, process,
        python::{Tool, Tools},
        terminal::Step,
    },
};

use crate::{
    git::Git,
    report::{self, Check},
};

/// The path of the hidden checks while they are compiled.
const CHECKS: &str = "interview/grading/tests/grader.rs";

/// The folder of the graded tree.
pub fn source(root: &Path) -> PathBuf {
    root.join(".local/grading")
}

/// A copy of the graded tree and its target folder. Both are kept, so that the next build is
/// incremental.
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

/// The result of compiling.
pub enum Built {
    Grader(Grader),
    /// The first errors.
    Broken(String),
}

/// The compiled checks and their dependencies.
pub struct Grader {
    /// Their names, in the order of the source.
    checks: Vec<String>,
    pub program: PathBuf,
    functions: PathBuf,
    templates: PathBuf,
}

impl Workshop {
    /// Waits for its turn.
    pub fn open(settings: &Settings) -> Result<Self> {
        let logs = settings.root.join(".local");
        let lock = files::lock(&logs.join("grading.lock"), || {
            eprintln!("waiting for another grading command to finish");
        })?;
        Ok(Self {
            tools: Tools::new(&settings.root),
            source: source(&settings.root),
            target: settings.root.join("target/grading"),
            logs,
            settings: settings.clone(),
            _lock: lock,
        })
    }

    /// Builds the hidden checks within a tree, and the functions that they need.
    pub fn build(&self, git: &Git, grader: &str, tree: &str) -> Result<Built> {
        git.check_out(tree, &self.source)?;
        let checks = self.source.join(CHECKS);
        fs::create_dir_all(checks.parent().context("the path has no parent")?)?;
        fs::write(&checks, grader)?;
        let mut functions = functions_of(grader)?;
        // A function that the exercise requires may not exist yet; its checks then report that.
        functions.retain(|function| self.source.join("functions").join(function).is_dir());
        seed(&self.settings.root, &self.target)?;
        let step = Step::start("build", "compiling what has changed");
        let mut cargo = process::cargo("cargo", &self.source);
        cargo
            .env("CARGO_TARGET_DIR", &self.target)
            .args(["build", "--message-format", "json-render-diagnostics"])
            // No package is selected, so that the dependencies of `make up` serve.
            .args(["--test", "grader"]);
        for function in &functions {
            cargo.args(["--bin", function]);
        }
        let mut lines = Vec::new();
        let compiled = process::run(&mut cargo, &self.logs.join("grading-build.log"), |line| {
            if line.trim_start().starts_with("Compiling") {
                step.show(line.trim_start());
            }
            lines.push(line.to_owned());
        });
        // Only the compiled checks are needed, and candidates do not come across the source.
        fs::remove_file(checks)?;
        if let Err(error) = compiled {
            return match report::first_errors(&lines) {
                Some(errors) => Ok(Built::Broken(errors)),
                None => Err(error),
            };
        }
        let program = lines.iter().find_map(|line| executable(line, "grader"));
        let grader = Grader {
            checks: report::names(grader),
            program: program.context("cargo reports no executable for the checks")?,
            functions: self.target.join("functions"),
            templates: self.target.join("templates"),
        };
        for function in &functions {
            link(
                &self.target.join("debug").join(function),
                &grader.functions.join(function),
            )?;
        }
        if let Err(error) = self.translate(&grader.templates, &step) {
            return Ok(Built::Broken(format!("template.yaml: {error:#}")));
        }
        step.done("the checks, and the functions that they need");
        Ok(Built::Grader(grader))
    }

    /// Has the compiler ask a database about every query of a tree; returns a folder with a `.sqlx`
    /// as `make sqlx` would write it. Kept for the next time.
    pub fn describe_queries(&self, git: &Git, tree: &str) -> Result<PathBuf> {
        let kept = self.logs.join("exercises/queries").join(tree);
        if kept.exists() {
            return Ok(kept);
        }
        git.check_out(tree, &self.source)?;
        seed(&self.settings.root, &self.target)?;
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
        self.tools.install(&[Tool::Sam])?;
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

    /// Runs the checks, with the stack in the command's environment.
    pub fn check(&self, grader: &Grader, command: &mut Command) -> Result<Vec<Check>> {
        command
            .current_dir(self.source.join("interview/grading"))
            .env("FUNCTIONS", &grader.functions)
            .env("TEMPLATES", &grader.templates)
            .env("RUST_BACKTRACE", "0")
            // libtest's JSON output is nightly-only otherwise.
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["-Z", "unstable-options", "--format", "json"])
            // They mostly wait.
            .arg("--test-threads=4");
        let mut lines = Vec::new();
        let ran = process::run(command, &self.logs.join("grading-checks.log"), |line| {
            lines.push(line.to_owned())
        });
        let checks = report::read(&grader.checks, &lines);
        match ran {
            Err(error) if checks.iter().all(Check::passed) => Err(error),
            _ => Ok(checks),
        }
    }
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

/// The functions that a grader declares: `// functions: create-task, task-processor`
fn functions_of(grader: &str) -> Result<Vec<String>> {
    let line = grader.lines().find_map(|line| line.strip_prefix("// functions: "));
    let functions: Vec<String> = line
        .into_iter()
        .flat_map(|line| line.split(", "))
        .map(str::to_owned)
        .collect();
    ensure!(
        !functions.is_empty(),
        "the grader has no line like `// functions: create-task, task-processor`"
    );
    Ok(functions)
}

/// The executable in a line of cargo's JSON output, if it belongs to this target.
fn executable(line: &str, target: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let found = message["target"]["name"] == target && message["reason"] == "compiler-artifact";
    found
        .then(|| message["executable"].as_str().map(PathBuf::from))
        .flatten()
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
