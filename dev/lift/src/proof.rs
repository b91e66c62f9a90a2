//! The proof: `make check` and `make up` succeed in a copy, and it does its work.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use xtask::{
    stack::settings::Settings,
    tools::{
        files,
        git::Git,
        http, process,
        terminal::{self, Step},
    },
};

use crate::{copy::Copy, names::Names};

/// The id of the tree that was last proved.
const PROVED: &str = "dev/lift/PROVED";

/// What a copy does not depend on.
const IRRELEVANT: [&str; 5] = [
    "interview",
    "INTERVIEW_QUESTIONS.md",
    "CHANGELOG.md",
    "dev/bench",
    PROVED,
];

/// Proves it, unless nothing has changed since the last committed proof.
pub fn run(settings: &Settings) -> Result<()> {
    let root = &settings.root;
    let now = tree(&Git::open(root)?)?;
    let proved = fs::read_to_string(root.join(PROVED)).unwrap_or_default();
    if proved.lines().last() == Some(now.as_str()) {
        terminal::say("  ✓ lift       already proved; nothing that a copy contains has changed since");
        return Ok(());
    }
    prove(root)?;
    let comment = "# The git tree of which was last proved that a copy of it works.";
    fs::write(root.join(PROVED), format!("{comment}\n{now}\n"))?;
    terminal::say(&format!(
        "  • proved     commit {PROVED}, so that the next proof is skipped while nothing changes"
    ));
    Ok(())
}

fn tree(git: &Git) -> Result<String> {
    let index = git.index()?.of_working_tree()?;
    for path in IRRELEVANT {
        index.remove(path)?;
    }
    index.tree()
}

fn prove(root: &Path) -> Result<()> {
    let copied = Proof {
        folder: root.join(".local/lift"),
        ports: [process::free_port()?, process::free_port()?],
    };
    copied.clean()?;
    Copy::of(root, &Names::new("invoices", None)?)?.write(&copied.folder)?;
    seed(root, &copied.folder)?;
    let outcome = copied.check_and_try();
    if outcome.is_err() {
        // The files are left for a look at them, but no stack.
        copied.make(&["clean-data"])?;
        return outcome.with_context(|| format!("the copy does not work; it is in {}", copied.folder.display()));
    }
    copied.clean()
}

/// A copy of the project, with a stack of its own.
struct Proof {
    folder: PathBuf,
    ports: [u16; 2],
}

impl Proof {
    fn check_and_try(&self) -> Result<()> {
        self.make(&["check"])?;
        self.make(&["up"])?;
        let step = Step::start("lift", "POST /invoices");
        let api = self.make(&["url"])?;
        let api = api.lines().last().unwrap_or_default();
        http::task_is_processed(&format!("{api}/invoices"))?;
        step.done("make check and make up succeed in a copy with invoices, and it completes one");
        Ok(())
    }

    /// Runs make in the copy, and returns its output.
    fn make(&self, targets: &[&str]) -> Result<String> {
        let step = Step::start("lift", &format!("make {} in the copy", targets.join(" ")));
        let mut make = process::cargo("make", &self.folder);
        make.arg("--no-print-directory").args(targets);
        make.env("AWS_PORT", self.ports[0].to_string());
        make.env("POSTGRES_PORT", self.ports[1].to_string());
        for ours in ["CARGO_TARGET_DIR", "DATABASE_URL", "NAME", "SINGULAR", "DIR"] {
            make.env_remove(ours);
        }
        let mut output = String::new();
        let log = self
            .folder
            .with_file_name(format!("logs/lift-{}.log", targets.join("-")));
        process::run(&mut make, &log, |line| {
            step.show(&format!("make {}: {}", targets.join(" "), line.trim()));
            output.push_str(line);
            output.push('\n');
        })?;
        step.done(&format!("make {} succeeds in the copy", targets.join(" ")));
        Ok(output)
    }

    /// Stops the stack and deletes the copy, if there is one.
    fn clean(&self) -> Result<()> {
        if self.folder.join("target/debug/xtask").exists() {
            self.make(&["clean-data"])?;
        }
        Ok(files::remove_if_exists(fs::remove_dir_all(&self.folder))?)
    }
}

/// Gives the copy the tools and the compiled dependencies of the project. A copy of those, because
/// cargo does not distinguish crates of one name in two folders.
fn seed(root: &Path, copy: &Path) -> Result<()> {
    let tools = root.join(".local/tools");
    for folder in [&tools, &copy.join(".local")] {
        fs::create_dir_all(folder)?;
    }
    symlink(tools, copy.join(".local/tools"))?;
    let (from, to) = (root.join("target/debug"), copy.join("target/debug"));
    fs::create_dir_all(to.join("deps"))?;
    let step = Step::start("lift", "copying the compiled dependencies");
    let mut cp = Command::new("sh");
    cp.arg("-c")
        .arg(r#"cp -Rp "$0/.fingerprint" "$0/build" "$1" && cp -p "$0"/deps/lib* "$0"/deps/*.d "$1/deps""#);
    process::output(cp.args([from, to]))?;
    step.done("copied the compiled dependencies");
    Ok(())
}
