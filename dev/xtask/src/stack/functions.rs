//! The functions' names, and how they are built.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::{
    stack::parameters,
    tools::{
        files, process,
        python::{Tool, Tools},
        terminal::Step,
    },
};

/// The parameters of template.yaml for the programs in target/lambda, which samconfig.toml names for
/// a bare `sam local start-api`. SAM's error without it is this name.
const SAM_LOCAL_PARAMETERS: &str = "target/lambda/made-by-make-build.yaml";

/// A build profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Compiles and links quickly, with this machine's linker: cargo's profile `dev`, to share
    /// compiled crates with `cargo test`.
    Local,
    /// As deployed to AWS: `cargo lambda build --release`.
    Release,
}

/// The programs, by function.
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

/// Builds the functions for this machine.
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

/// The same with the profile `dev`, silently; the compiler's errors go to the terminal.
pub fn build_quietly(root: &Path) -> Result<Programs> {
    let names = names(root)?;
    let mut command = process::cargo("cargo", root);
    command
        .args(["build", "--quiet"])
        .args(names.iter().flat_map(|name| ["--bin", name]));
    let status = command.status().context("cannot start cargo")?;
    ensure!(status.success(), "the functions do not compile: see above");
    Ok(local_programs(root, names))
}

fn local_programs(root: &Path, names: Vec<String>) -> Programs {
    let debug = root.join("target/debug");
    names.into_iter().map(|name| (name.clone(), debug.join(name))).collect()
}

/// Builds programs with the profile `dev`. Without `--package`, features are those of the whole
/// workspace, so no dependency is compiled twice.
pub fn cargo_build<'a>(root: &Path, targets: impl IntoIterator<Item = &'a str>, what: &str, log: &Path) -> Result<()> {
    let step = Step::start("build", &format!("compiling {what}"));
    let mut command = process::cargo("cargo", root);
    command.arg("build").args(targets);
    // Cargo prints no progress to a pipe unless forced to, with a width.
    command
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "120");
    let mut progress = Progress::begin(root);
    process::run(&mut command, log, |line| {
        if let Some(progress) = progress.read(line) {
            step.show(&progress);
        }
    })?;
    progress.save_pace();
    step.done(&format!("compiled {what}"));
    Ok(())
}

/// Builds the functions as deployed to AWS, into target/lambda. cargo-lambda rewrites those folders
/// in each build, so every deployment to AWS builds first.
pub fn build_release(tools: &Tools, root: &Path, options: &[impl AsRef<OsStr>], log: &Path) -> Result<()> {
    let step = Step::start("build", "compiling for AWS, with the profile release (some minutes)");
    let mut command = process::cargo(tools.bin(Tool::CargoLambda).join("cargo-lambda"), root);
    // cargo-lambda starts zig with the first Python on the PATH.
    command.env("PATH", tools.path_with(Tool::CargoLambda)?);
    if std::env::var_os("HOME").is_none() {
        // zig needs it for its cache.
        command.env("HOME", root.join(".local"));
    }
    command.args(["lambda", "build", "--release"]).args(options);
    let parameters = root.join(SAM_LOCAL_PARAMETERS);
    files::remove_if_exists(fs::remove_file(&parameters))?;
    process::run(&mut command, log, |line| {
        let line = line.trim_start();
        if line.starts_with("Compiling") {
            step.show(line);
        }
    })?;
    let is_for_arm64 = options.iter().any(|option| option.as_ref() == "--arm64");
    let architecture = match is_for_arm64 {
        true => "arm64",
        false => parameters::architecture(),
    };
    fs::write(&parameters, parameters::sam_local(architecture))
        .with_context(|| format!("cannot write {}", parameters.display()))?;
    step.done("compiled for AWS: target/lambda");
    Ok(())
}

/// Cargo's progress, with an estimate of the remaining time from earlier builds.
pub struct Progress {
    /// The file with the seconds per crate.
    file: PathBuf,
    started: Instant,
    /// Seconds per crate in an earlier build.
    pace: Option<f64>,
    /// Crates that were up to date at the beginning, and now.
    done: Option<(u32, u32)>,
}

impl Progress {
    /// The number of compiled crates from which the pace is estimated.
    const SAMPLE: u32 = 20;

    /// For a build that starts now.
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

    /// The progress in a line of cargo's output, if there is any.
    pub fn read(&mut self, line: &str) -> Option<String> {
        let (done, total) = crates(line)?;
        let (first, _) = self.done.unwrap_or((done, done));
        self.done = Some((first, done));
        let elapsed = self.started.elapsed().as_secs_f64();
        let compiled = done - first;
        // The pace of this build, as soon as it is known.
        let pace = match compiled >= Self::SAMPLE {
            true => Some(elapsed / f64::from(compiled)),
            false => self.pace,
        };
        let left = match pace {
            Some(pace) => format!(", about {:.0} s left", pace * f64::from(total - done)),
            None => String::new(),
        };
        Some(format!("{done} of {total} crates{left}"))
    }

    /// Saves the pace for the next build.
    pub fn save_pace(self) {
        let Some((first, last)) = self.done else { return };
        let compiled = last - first;
        if compiled >= Self::SAMPLE {
            let pace = self.started.elapsed().as_secs_f64() / f64::from(compiled);
            // Only an estimate: a failure to save it does not matter.
            let _ = fs::write(&self.file, format!("{pace:.3}\n"));
        }
    }
}

/// (120, 317) for `    Building [=====>      ] 120/317: syn, serde`.
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
    use crate::stack::containers;

    #[test]
    fn cargo_progress_is_parsed() {
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
    fn bare_sam_local_uses_parameters_of_build() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let config = fs::read_to_string(root.join("samconfig.toml")).expect("a file");
        let config: toml::Table = config.parse().expect("TOML");
        let bare = &config["default"]["local_start_api"]["parameters"];
        assert_eq!(
            bare["parameter_overrides"].as_str(),
            Some(format!("file://{SAM_LOCAL_PARAMETERS}").as_str())
        );
        // As in `make sam-local`.
        assert_eq!(bare["docker_network"].as_str(), Some(containers::NETWORK));
        let variables = bare["env_vars"].as_str().expect("a file");
        let variables = fs::read_to_string(root.join(variables)).expect("a file");
        let variables: serde_json::Value = serde_json::from_str(&variables).expect("JSON");
        assert_eq!(variables["Parameters"]["DATABASE_URL"], containers::DATABASE_URL);
    }

    #[test]
    fn cargo_lambda_builds_every_function() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let names = names(&root).expect("names");
        assert!(
            names.len() >= 17 && names.iter().any(|name| name == "get-task"),
            "{names:?}"
        );
        let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Table = manifest.parse().expect("TOML");
        let built = &manifest["workspace"]["metadata"]["lambda"]["build"]["packages"];
        let mut built: Vec<&str> = built
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|name| name.as_str())
            .collect();
        built.sort_unstable();
        assert_eq!(built, names, "the packages that cargo-lambda builds for AWS");
    }
}
