//! The functions as programs: which there are, and how they are built.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::tools::{
    process,
    python::{Tool, Tools},
    terminal::Step,
};

/// How the functions are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quick to compile and to link, by this machine's own compiler: cargo's profile `dev`, so that `cargo test` and the
    /// rest share what is compiled.
    Local,
    /// As they are deployed to AWS: `cargo lambda build --release`.
    Release,
}

/// The programs by the names of their functions.
pub type Programs = BTreeMap<String, PathBuf>;

/// The names of the functions: the folders in functions/.
pub fn names(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("functions");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().join("Cargo.toml").exists() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds what changed since the last time, for this machine.
pub fn build(tools: &Tools, root: &Path, profile: Profile, log: &Path) -> Result<Programs> {
    let names = names(root)?;
    match profile {
        Profile::Local => {
            let bins = names.iter().flat_map(|name| ["--bin", name.as_str()]);
            cargo_build(root, bins, "the functions", log)?;
            Ok(local_programs(root, names))
        }
        Profile::Release => {
            tools.install(&[Tool::CargoLambda])?;
            build_release(tools, root, &[] as &[&str], log)?;
            let lambda = root.join("target/lambda");
            let bootstrap = |name: &String| (name.clone(), lambda.join(name).join("bootstrap"));
            Ok(names.iter().map(bootstrap).collect())
        }
    }
}

/// The same with the profile `dev` and without a word, unless it fails: then what the compiler says goes to the terminal.
pub fn build_quietly(root: &Path) -> Result<Programs> {
    let names = names(root)?;
    let mut command = process::cargo("cargo", root);
    command
        .args(["build", "--quiet"])
        .args(names.iter().flat_map(|name| ["--bin", name]));
    let status = command.status().context("cannot start cargo")?;
    ensure!(status.success(), "it does not compile: see above");
    Ok(local_programs(root, names))
}

fn local_programs(root: &Path, names: Vec<String>) -> Programs {
    let debug = root.join("target/debug");
    names.into_iter().map(|name| (name.clone(), debug.join(name))).collect()
}

/// Builds programs with the profile `dev`. All of them with the features that the whole workspace asks for (nothing is
/// selected by `--package`), so that no dependency is compiled twice.
pub fn cargo_build<'a>(root: &Path, targets: impl IntoIterator<Item = &'a str>, what: &str, log: &Path) -> Result<()> {
    let step = Step::start("build", &format!("compiling {what}"));
    let mut command = process::cargo("cargo", root);
    command.arg("build").args(targets);
    // In bytes that a pipe gets, too; the width leaves room for the names.
    command
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "120");
    let mut progress = Progress::begin(root);
    process::run(&mut command, log, |line| {
        if let Some(said) = progress.read(line) {
            step.says(&said);
        }
    })?;
    progress.end();
    step.done(&format!("compiled {what}"));
    Ok(())
}

/// Builds the functions as they are deployed, into target/lambda. cargo-lambda fills those folders anew at each build, so
/// that every deployment to AWS builds first.
pub fn build_release(tools: &Tools, root: &Path, options: &[impl AsRef<OsStr>], log: &Path) -> Result<()> {
    let step = Step::start("build", "compiling for AWS, in the profile release (some minutes)");
    let mut command = process::cargo(tools.bin(Tool::CargoLambda).join("cargo-lambda"), root);
    // First, because zig is started by its Python.
    command.env("PATH", tools.path_with(Tool::CargoLambda)?);
    if std::env::var_os("HOME").is_none() {
        // zig keeps its cache there, and fails without.
        command.env("HOME", root.join(".local"));
    }
    command.args(["lambda", "build", "--release"]).args(options);
    process::run(&mut command, log, |line| {
        let line = line.trim_start();
        if line.starts_with("Compiling") {
            step.says(line);
        }
    })?;
    step.done("compiled for AWS: target/lambda");
    Ok(())
}

/// How far cargo is, and how long it will take, judged by how long it took before.
pub struct Progress {
    /// Where the seconds for each crate are kept.
    file: PathBuf,
    started: Instant,
    /// Seconds for each crate, the last time.
    pace: Option<f64>,
    /// Crates that were up to date when compiling began, and that are now.
    done: Option<(u32, u32)>,
}

impl Progress {
    /// A build of fewer crates tells nothing about the pace.
    const ENOUGH: u32 = 20;

    /// Of a command that begins now.
    pub fn begin(root: &Path) -> Self {
        let file = root.join(".local/seconds-per-crate");
        let pace = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        let started = Instant::now();
        Self {
            file,
            started,
            pace,
            done: None,
        }
    }

    /// What to say of a line of cargo's, if it tells how far it is.
    pub fn read(&mut self, line: &str) -> Option<String> {
        let (done, total) = crates(line)?;
        let (first, _) = self.done.unwrap_or((done, done));
        self.done = Some((first, done));
        let elapsed = self.started.elapsed().as_secs_f64();
        let compiled = done - first;
        // Its own pace as soon as it has one.
        let pace = match compiled >= Self::ENOUGH {
            true => Some(elapsed / f64::from(compiled)),
            false => self.pace,
        };
        let left = match pace {
            Some(pace) => format!(", about {:.0} s left", pace * f64::from(total - done)),
            None => String::new(),
        };
        Some(format!("{done} of {total} crates{left}"))
    }

    /// Keeps the pace for the next time.
    pub fn end(self) {
        let Some((first, last)) = self.done else { return };
        let compiled = last - first;
        if compiled >= Self::ENOUGH {
            let pace = self.started.elapsed().as_secs_f64() / f64::from(compiled);
            // Only an estimate.
            let _ = fs::write(&self.file, format!("{pace:.3}\n"));
        }
    }
}

/// `    Building [=====>      ] 120/317: syn, serde` is (120, 317).
fn crates(line: &str) -> Option<(u32, u32)> {
    let (_, rest) = line.split_once("Building [")?;
    let (_, rest) = rest.split_once("] ")?;
    let (done, rest) = rest.split_once('/')?;
    let total = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
    let (done, total) = (done.parse().ok()?, total.parse().ok()?);
    (done <= total).then_some((done, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_progress_is_read() {
        assert_eq!(
            crates("    Building [=====>      ] 120/317: syn, serde(build)"),
            Some((120, 317))
        );
        assert_eq!(crates("    Building [>           ] 0/17"), Some((0, 17)));
        for other in ["   Compiling syn v2.0.119", "Building [", "    Building [=>] x/2", ""] {
            assert_eq!(crates(other), None, "{other}");
        }
    }

    #[test]
    fn every_function_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let names = names(&root).expect("names");
        assert!(
            names.len() >= 17 && names.iter().any(|name| name == "get-task"),
            "{names:?}"
        );
        let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Table = manifest.parse().expect("TOML");
        let built = &manifest["workspace"]["metadata"]["lambda"]["build"]["packages"];
        let built: Vec<&str> = built
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|name| name.as_str())
            .collect();
        assert_eq!(built, names, "what cargo-lambda builds for AWS");
    }
}
