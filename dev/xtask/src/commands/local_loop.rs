//! `make bench LOOP=1`: how long a developer waits, in a fresh clone of the committed tree,
//! compared with a plain `cargo build` of the same change.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

use crate::{
    commands::environment::{TEST, with_stack},
    stack::{functions, settings::Settings},
    tools::{files, process, terminal::Step},
};

/// A row of the table.
pub struct Row {
    /// The step that is measured.
    pub what: &'static str,
    /// Its measured cost.
    pub measured: Cost,
    /// The goal in seconds, on two idle cores.
    pub goal: f64,
    /// The cost of `cargo build --release` of the functions after the same change.
    pub release: Option<Cost>,
}

/// The cost of a command.
#[derive(Clone, Copy)]
pub struct Cost {
    seconds: f64,
    /// Of the command and the processes that it waited for, without the servers that it left
    /// running.
    cpu_seconds: f64,
}

/// Measures, prints the table, and writes it to docs/performance.md.
pub fn run(settings: &Settings) -> Result<()> {
    in_clone(settings, "docs/performance.md", measure)
}

/// Measures in a fresh clone, prints the table, and writes it between the markers in a document.
pub fn in_clone(
    settings: &Settings,
    document: &str,
    measure: impl FnOnce(&Clone, &mut Vec<Row>) -> Result<()>,
) -> Result<()> {
    let mut rows = Vec::new();
    let outcome = with_stack(settings, TEST, |stack| {
        let clone = Clone::make(&settings.root, &stack.folder.join("clone"), stack.log("loop"))?;
        let measured = measure(&clone, &mut rows);
        // Also after a failure.
        clone.remove().and(measured)
    });
    let table = table(&rows);
    println!("\n{table}");
    // An hour of measuring must not be lost to its last step: what was measured is printed in any case.
    outcome?;
    let file = settings.root.join(document);
    let text = fs::read_to_string(&file)?;
    let (begin, end) = ("<!-- make bench LOOP=1 -->\n", "<!-- end of make bench LOOP=1 -->\n");
    let markers = || format!("{document} has no line `{}` or `{}`", begin.trim(), end.trim());
    let (before, rest) = text.split_once(begin).with_context(markers)?;
    let (_, after) = rest.split_once(end).with_context(markers)?;
    fs::write(&file, format!("{before}{begin}\n{table}\n{end}{after}"))?;
    println!("Written to {document}.");
    Ok(())
}

fn measure(clone: &Clone, rows: &mut Vec<Row>) -> Result<()> {
    let mut row = |what, goal, measured: Result<Cost>, release: Option<Result<Cost>>| -> Result<()> {
        let (measured, release) = (measured?, release.transpose()?);
        rows.push(Row {
            what,
            measured,
            goal,
            release,
        });
        Ok(())
    };
    row(
        "first `make up` in a fresh clone",
        150.0,
        clone.make_target(&["up"]),
        Some(clone.release()),
    )?;
    // Before anything is edited: tests of a changed project may fail.
    row("`make test` after `make up`", 300.0, clone.make_target(&["test"]), None)?;
    clone.edit_shared(1)?;
    row(
        "`make up` after a one-line change in `shared`",
        20.0,
        clone.make_target(&["up"]),
        Some(clone.release()),
    )?;
    clone.edit_function(1)?;
    row(
        "`make up` after a one-line change in one function",
        5.0,
        clone.make_target(&["up"]),
        Some(clone.release()),
    )?;
    row("`make up`, nothing changed", 2.0, clone.make_target(&["up"]), None)?;
    clone.add_migration()?;
    row(
        "`make up` after a new migration",
        10.0,
        clone.make_target(&["up"]),
        Some(clone.release()),
    )?;
    clone.discard_changes()?;
    clone.make_target(&["check"])?;
    clone.edit_shared(2)?;
    row(
        "`make check` after a one-line change in `shared`",
        60.0,
        clone.make_target(&["check"]),
        None,
    )?;
    clone.discard_changes()?;
    clone.make_target(&["clean-data"])?;
    fs::remove_dir_all(clone.folder.join("target"))?;
    row("`make test` from scratch", 600.0, clone.make_target(&["test"]), None)
}

/// A file of `shared`, and a line in it.
const SHARED: (&str, &str) = (
    "shared/core/src/http/serve.rs",
    "    let service = service_fn(move |request| {",
);

/// A file of a function, and a line in it.
const FUNCTION: (&str, &str) = ("functions/get-task/src/lib.rs", "    let caller = context.caller()?;");

/// A fresh clone, with its own ports.
pub struct Clone {
    folder: PathBuf,
    log: PathBuf,
    ports: [u16; 2],
}

impl Clone {
    fn make(root: &Path, folder: &Path, log: PathBuf) -> Result<Self> {
        let clone = Self {
            folder: folder.to_owned(),
            log,
            ports: [process::free_port()?, process::free_port()?],
        };
        let mut git = Command::new("git");
        git.args(["clone", "--quiet", "--no-hardlinks"]).args([root, folder]);
        process::run(&mut git, &clone.log, |_| {})?;
        Ok(clone)
    }

    fn remove(&self) -> Result<()> {
        self.make_target(&["clean-data"])?;
        Ok(files::remove_if_exists(fs::remove_dir_all(&self.folder))?)
    }

    /// Runs make in the clone.
    pub fn make_target(&self, arguments: &[&str]) -> Result<Cost> {
        let mut make = process::cargo("make", &self.folder);
        make.arg("--no-print-directory").args(arguments);
        make.env("AWS_PORT", self.ports[0].to_string());
        make.env("POSTGRES_PORT", self.ports[1].to_string());
        make.env_remove("DATABASE_URL");
        self.time(&mut make, &format!("make {}", arguments.join(" ")))
    }

    /// Builds the functions with plain `cargo build --release`, in a separate target folder.
    fn release(&self) -> Result<Cost> {
        let mut cargo = process::cargo("cargo", &self.folder);
        cargo.env("CARGO_TARGET_DIR", self.folder.join("target/plain"));
        cargo.args(["build", "--release"]);
        for function in functions::names(&self.folder)? {
            cargo.args(["--package", &function]);
        }
        self.time(&mut cargo, "cargo build --release")
    }

    fn time(&self, command: &mut Command, what: &str) -> Result<Cost> {
        let step = Step::start("measure", what);
        let (started, before) = (Instant::now(), cpu_seconds_of_children()?);
        process::run(command, &self.log, |line| {
            step.show(&format!("{what}: {}", line.trim()))
        })?;
        let cost = Cost {
            seconds: started.elapsed().as_secs_f64(),
            cpu_seconds: cpu_seconds_of_children()? - before,
        };
        step.done(&format!("{what}: {cost}"));
        Ok(cost)
    }

    /// Adds a line without effect to code that all functions behind the API contain.
    fn edit_shared(&self, number: u32) -> Result<()> {
        self.add_before(SHARED, number)
    }

    /// Adds a line without effect to one function.
    pub fn edit_function(&self, number: u32) -> Result<()> {
        self.add_before(FUNCTION, number)
    }

    /// Adds a line without effect to the committed version of a file: tests must still pass.
    fn add_before(&self, (file, line): (&str, &str), number: u32) -> Result<()> {
        self.edit(file, line, &format!("    std::hint::black_box({number});\n{line}"))
    }

    fn add_migration(&self) -> Result<()> {
        let file = self.folder.join("migrations/9999_measured.sql");
        Ok(fs::write(file, "comment on table tasks is 'measured';\n")?)
    }

    fn discard_changes(&self) -> Result<()> {
        self.git(&["checkout", "--quiet", "."])?;
        self.git(&["clean", "--quiet", "--force", "migrations"])
    }

    /// Replaces text in the committed version of a file.
    fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        self.git(&["checkout", "--quiet", file])?;
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{file} has no {from}");
        Ok(fs::write(path, text.replacen(from, to, 1))?)
    }

    /// Runs git in the clone.
    pub fn git(&self, arguments: &[&str]) -> Result<()> {
        let mut git = Command::new("git");
        process::output(git.current_dir(&self.folder).args(arguments)).map(drop)
    }
}

fn cpu_seconds_of_children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(microseconds as f64 / 1e6)
}

impl std::fmt::Display for Cost {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(formatter, "{:.1} s [{:.0}]", self.seconds, self.cpu_seconds)
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = "| step | seconds [CPU seconds] | goal | | `cargo build --release` of the same change |\n\
                     |---|---|---|---|---|\n"
        .to_owned();
    for Row {
        what,
        measured,
        goal,
        release,
    } in rows
    {
        let release = release.map(|cost| cost.to_string()).unwrap_or_default();
        let verdict = if measured.seconds <= *goal { "ok" } else { "**missed**" };
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| {what} | {measured} | {goal:.0} s | {verdict} | {release} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_marks_missed_goals() {
        let cost = |seconds| Cost {
            seconds,
            cpu_seconds: 7.4,
        };
        let row = |what, seconds, release| Row {
            what,
            measured: cost(seconds),
            goal: 5.0,
            release,
        };
        let table = table(&[row("quick", 4.96, Some(cost(30.0))), row("slow", 5.04, None)]);
        assert!(
            table.contains("| quick | 5.0 s [7] | 5 s | ok | 30.0 s [7] |\n"),
            "{table}"
        );
        assert!(
            table.contains("| slow | 5.0 s [7] | 5 s | **missed** |  |\n"),
            "{table}"
        );
    }

    #[test]
    fn edited_lines_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (file, line) in [SHARED, FUNCTION] {
            let text = fs::read_to_string(root.join(file)).expect("a source file");
            assert!(text.contains(line), "{file}: {line}");
        }
    }
}
