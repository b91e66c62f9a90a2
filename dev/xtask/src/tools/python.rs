//! The tools that are Python packages. Each has its own virtual environment, because their
//! dependencies conflict, with exact versions from dev/tools/uv.lock; uv itself is pinned in
//! dev/tools/uv.txt.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::tools::{files, process, terminal::Step};

/// A tool, by its group in dev/tools/pyproject.toml.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// cargo-lambda, and zig, its linker
    CargoLambda,
    /// checkov, which finds insecure settings in CloudFormation templates
    Checkov,
    /// schemathesis, which tests the running API against openapi.json
    Contract,
    /// ministack, the emulator
    Emulator,
    /// Node.js, for [`Tools::install_packages`]
    Node,
    /// A PostgreSQL server, for machines that have none
    Postgres,
    /// The SAM CLI, and cfn-lint
    Sam,
    /// A spell checker for source code
    Typos,
}

impl Tool {
    /// The tools that every stack needs.
    pub const ALWAYS: [Self; 2] = [Self::Emulator, Self::Sam];

    fn name(self) -> &'static str {
        match self {
            Self::CargoLambda => "cargo-lambda",
            Self::Checkov => "checkov",
            Self::Contract => "contract",
            Self::Emulator => "emulator",
            Self::Node => "node",
            Self::Postgres => "postgres",
            Self::Sam => "sam",
            Self::Typos => "typos",
        }
    }
}

/// The installed tools of a project.
#[derive(Clone)]
pub struct Tools {
    root: PathBuf,
}

impl Tools {
    /// The tools of the project in this folder.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder of a tool's programs.
    pub fn bin(&self, tool: Tool) -> PathBuf {
        self.folder(tool.name()).join("bin")
    }

    /// A PATH that begins with the tools.
    pub fn path(&self) -> Result<std::ffi::OsString> {
        let own = Tool::ALWAYS.map(Tool::name).into_iter().chain(["cargo-llvm-cov"]);
        path_behind(own.map(|name| self.folder(name).join("bin")))
    }

    /// A PATH that begins with one tool.
    pub fn path_with(&self, tool: Tool) -> Result<std::ffi::OsString> {
        path_behind([self.bin(tool)])
    }

    /// Installs the tools that are missing or differ from their pinned versions.
    pub fn install(&self, tools: &[Tool]) -> Result<()> {
        let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
        let missing: Vec<&str> = names.iter().copied().filter(|name| !self.is_current(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let step = Step::start("tools", &format!("installing {} (once)", missing.join(", ")));
        self.create("uv", |environment| {
            let mut command = Command::new("python3");
            command.args(["-m", "venv", "--clear"]).arg(environment);
            self.logged(&mut command)
                .context("python3 (3.11 or newer, with its venv module) is needed; Debian: apt install python3-venv")?;
            let mut command = Command::new(environment.join("bin/pip"));
            command.args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--require-hashes",
                "-r",
            ]);
            self.logged(command.arg(self.lock("uv")))
        })?;
        for name in &missing {
            step.show(&format!("installing {name}"));
            self.create(name, |environment| {
                self.install_group(name, &self.lock_folder(), environment)
            })?;
        }
        step.done(&format!("installed {} into .local/tools", missing.join(", ")));
        Ok(())
    }

    /// Installs cargo-llvm-cov, for `make coverage`.
    pub fn install_cargo_llvm_cov(&self) -> Result<()> {
        const VERSION: &str = "0.9.1";
        let folder = self.folder("cargo-llvm-cov");
        let stamp = folder.join("installed.txt");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == VERSION) {
            return Ok(());
        }
        let step = Step::start("tools", "compiling cargo-llvm-cov (once)");
        let mut command = Command::new("cargo");
        command.args(["install", "--locked", "--force", "--version", VERSION, "--root"]);
        self.logged(command.arg(&folder).arg("cargo-llvm-cov"))?;
        fs::write(stamp, VERSION)?;
        step.done(&format!("installed cargo-llvm-cov {VERSION} into .local/tools"));
        Ok(())
    }

    /// Installs Redocly CLI, the linter of openapi.json, with its own Node.js; returns the path of
    /// its program.
    pub fn install_redocly(&self) -> Result<PathBuf> {
        let folder = self.install_packages("redocly", &self.lock_folder().join("redocly"))?;
        Ok(folder.join("node_modules/.bin/redocly"))
    }

    /// Installs the packages of a package-lock.json with npm, and Node.js; returns their folder.
    pub fn install_packages(&self, name: &str, wanted: &Path) -> Result<PathBuf> {
        self.install(&[Tool::Node])?;
        let folder = self.folder(name);
        let lock = |folder: &Path| fs::read(folder.join("package-lock.json"));
        if folder.join("node_modules/.package-lock.json").exists()
            && lock(&folder).is_ok_and(|installed| lock(wanted).is_ok_and(|wanted| installed == wanted))
        {
            return Ok(folder);
        }
        let step = Step::start("tools", &format!("installing {name} (once)"));
        fs::create_dir_all(&folder)?;
        for file in ["package.json", "package-lock.json"] {
            fs::copy(wanted.join(file), folder.join(file))?;
        }
        let mut npm = Command::new(self.bin(Tool::Node).join("npm"));
        npm.current_dir(&folder)
            .env("PATH", self.path_with(Tool::Node)?)
            .env("npm_config_cache", folder.join("npm-cache"));
        self.logged(npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]))?;
        step.done(&format!("installed {name} into .local/tools"));
        Ok(folder)
    }

    /// Installs a group of a project in its own virtual environment.
    pub fn install_group(&self, group: &str, project: &Path, environment: &Path) -> Result<()> {
        let mut command = Command::new(self.folder("uv").join("bin/uv"));
        command.args([
            "sync",
            "--quiet",
            "--frozen",
            "--no-python-downloads",
            "--only-group",
            group,
        ]);
        command.arg("--project").arg(project);
        self.logged(command.env("UV_PROJECT_ENVIRONMENT", environment))
    }

    /// True if the tool was installed from the current lock file.
    fn is_current(&self, name: &str) -> bool {
        let stamp = fs::read(self.folder(name).join("installed.txt"));
        matches!((stamp, fs::read(self.lock(name))), (Ok(installed), Ok(wanted)) if installed == wanted)
    }

    /// Installs a tool, unless it is current. Parallel steps and other commands wait for one
    /// another.
    fn create(&self, name: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let folder = self.folder(name);
        let _lock = files::lock(&folder.with_extension("lock"), || {})?;
        if self.is_current(name) {
            return Ok(());
        }
        let stamp = folder.join("installed.txt");
        // A complete installation is updated in place; an interrupted one may be broken and starts
        // from scratch.
        if fs::remove_file(&stamp).is_err() {
            files::empty_folder(&folder)?;
        }
        install(&folder).with_context(|| format!("cannot install {name}"))?;
        // Last: an interrupted installation has no stamp and is repeated.
        fs::copy(self.lock(name), stamp)?;
        Ok(())
    }

    fn logged(&self, command: &mut Command) -> Result<()> {
        process::run(command, &self.root.join(".local/logs/tools.log"), |_| {})
    }

    /// Where a tool is installed.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.join(".local/tools").join(name)
    }

    /// The project's dev/tools/ folder.
    pub fn lock_folder(&self) -> PathBuf {
        self.root.join("dev/tools")
    }

    fn lock(&self, name: &str) -> PathBuf {
        self.lock_folder().join(if name == "uv" { "uv.txt" } else { "uv.lock" })
    }
}

/// These folders, followed by the inherited PATH.
fn path_behind(own: impl IntoIterator<Item = PathBuf>) -> Result<std::ffi::OsString> {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let all = own.into_iter().chain(std::env::split_paths(&inherited));
    std::env::join_paths(all).context("the path of the project's folder must not contain a colon")
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn parallel_steps_install_a_tool_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask-tests/install");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("dev/tools")).expect("a folder");
        fs::write(root.join("dev/tools/uv.txt"), "uv==1.0.0").expect("a lock file");
        let (tools, installed) = (Tools::new(&root), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let install = |_: &Path| {
                        installed.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(100));
                        Ok(())
                    };
                    tools.create("uv", install).expect("it is installed");
                });
            }
        });
        assert_eq!(installed.into_inner(), 1);
        assert!(tools.is_current("uv"));
    }

    #[test]
    fn update_keeps_installation_unless_one_was_interrupted() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask-tests/update");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("dev/tools")).expect("a folder");
        let tools = Tools::new(&root);
        let program = |folder: &Path| folder.join("program");
        let update = |lock: &str, outcome: Result<()>| {
            fs::write(root.join("dev/tools/uv.lock"), lock).expect("a lock file");
            let mut was_kept = false;
            let installed = tools.create("sam", |folder| {
                was_kept = program(folder).exists();
                fs::write(program(folder), lock)?;
                outcome
            });
            (was_kept, installed.is_ok(), tools.is_current("sam"))
        };
        assert_eq!(update("1", Ok(())), (false, true, true));
        assert_eq!(update("2", Ok(())), (true, true, true));
        assert_eq!(update("3", Err(anyhow::anyhow!("interrupted"))), (true, false, false));
        assert_eq!(update("3", Ok(())), (false, true, true));
    }

    #[test]
    fn lock_file_names_public_hosts_and_fits_dependabot() {
        let dev = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let locks = ["tools/uv.lock", "bench/peers/uv.lock"];
        for lock in locks.map(|lock| dev.join(lock)).iter().filter(|lock| lock.exists()) {
            let lock = fs::read_to_string(lock).expect("a lock file");
            for url in lock.split('"').filter(|text| text.contains("://")) {
                let hosts = ["https://files.pythonhosted.org/", "https://pypi.org/"];
                assert!(hosts.iter().any(|host| url.starts_with(host)), "{url}");
            }
            // It skips larger files, and would update pyproject.toml alone.
            assert!(lock.len() <= 500_000, "{} bytes", lock.len());
        }
    }
}
