//! A stack: Postgres, the local AWS, and template.yaml deployed into it.

pub mod aws;
pub mod containers;
pub mod deploy;
pub mod emulator;
pub mod functions;
pub mod migrations;
pub mod package;
pub mod parameters;
pub mod postgres;
pub mod settings;
pub mod start;

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    stack::{
        containers::{Containers, Service},
        emulator::Emulator,
        postgres::{Postgres, PostgresFault},
        settings::{LocalAws, Settings, StackSettings},
    },
    tools::{files, process, python::Tools, terminal as ui},
};
use anyhow::{Context, Result, ensure};
use local_issuer::LocalIssuer;

/// How long a token of `make token` lives: a working day.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(8 * 60 * 60);

/// A stack that can be brought up, and stopped again.
pub struct Stack {
    /// The project's folder.
    pub root: PathBuf,
    /// Where the stack keeps its state and logs.
    pub folder: PathBuf,
    /// Its tools.
    pub tools: Tools,
    /// Its AWS.
    pub emulator: Emulator,
    /// What makes it the one that it is.
    pub settings: StackSettings,
    /// True for the stack of `make up`: its settings are kept, and its data outlives a crash of the machine.
    is_local: bool,
    /// Its Postgres and its AWS, if they are containers.
    containers: Option<Containers>,
}

impl Stack {
    /// The stack of `make up`.
    pub fn local(settings: &Settings) -> Result<Self> {
        let root = &settings.root;
        let stack = StackSettings::of_the_local_stack(root)?;
        match stack.aws {
            LocalAws::Ministack => Ok(Self::new(root, "local", stack, true)),
            LocalAws::LocalStack => {
                containers::ensure_docker("AWS=localstack")?;
                Self::in_containers(root, stack)
            }
        }
    }

    /// The stack of `make up`, for a command that acts on what is there: fails if nothing was ever started, and says which
    /// stack it is.
    pub fn started(settings: &Settings) -> Result<Self> {
        ensure!(
            StackSettings::kept(&settings.root)?.is_some(),
            "no stack was started in {}: make up",
            settings.root.display()
        );
        let stack = Self::local(settings)?;
        stack.introduce();
        Ok(stack)
    }

    /// The stack whose Postgres and AWS are those of docker-compose.yml.
    pub fn in_containers(root: &Path, settings: StackSettings) -> Result<Self> {
        ensure!(
            settings.database_url.is_none(),
            "the containers use the Postgres of docker-compose.yml: make … DATABASE_URL="
        );
        let containers = Containers::new(root, settings.aws_port, settings.postgres_port);
        Ok(Self {
            containers: Some(containers),
            ..Self::new(root, "local", settings, true)
        })
    }

    /// A stack beside that of `make up`: its own data, on ports that are free now.
    pub fn of_its_own(settings: &Settings, name: &str) -> Result<Self> {
        let stack = StackSettings {
            aws_port: process::free_port()?,
            postgres_port: process::free_port()?,
            database_url: settings.database_url.clone(),
            ..StackSettings::default()
        };
        Ok(Self::new(&settings.root, name, stack, false))
    }

    fn new(root: &Path, name: &str, settings: StackSettings, is_local: bool) -> Self {
        let folder = root.join(".local").join(name);
        Self {
            root: root.to_owned(),
            tools: Tools::new(root),
            emulator: Emulator::new(&folder, settings.aws_port),
            folder,
            settings,
            is_local,
            containers: None,
        }
    }

    /// `local`, or the name of a stack of the tests
    pub fn name(&self) -> &OsStr {
        self.folder.file_name().unwrap_or_default()
    }

    /// Keeps the settings of the stack of `make up` for the commands after this one, once its AWS has started with them.
    fn keep_settings(&self) -> Result<()> {
        match self.is_local {
            true => self.settings.keep(&self.root),
            false => Ok(()),
        }
    }

    /// Says which stack it is.
    fn introduce(&self) {
        let postgres = match &self.settings.database_url {
            Some(_) => "DATABASE_URL".to_owned(),
            None => format!("Postgres on 127.0.0.1:{}", self.settings.postgres_port),
        };
        let (root, aws) = (self.root.display(), self.settings.aws.as_str());
        ui::say(&format!(
            "  • stack      {root}: {aws} on {}, {postgres}",
            self.emulator.url()
        ));
    }

    /// Where a step of this stack writes what its programs say.
    pub fn log(&self, step: &str) -> PathBuf {
        self.folder.join(format!("{step}.log"))
    }

    /// Where the key is that its tokens are signed with.
    pub fn issuer_key(&self) -> PathBuf {
        self.folder.join("issuer.key")
    }

    /// Who issues its tokens.
    pub fn issuer(&self) -> Result<LocalIssuer> {
        fs::create_dir_all(&self.folder)?;
        let file = self.issuer_key();
        LocalIssuer::open(&file).with_context(|| format!("cannot use {}", file.display()))
    }

    /// Keeps two commands from changing the stack at the same time; for as long as the value lives.
    pub fn lock(&self) -> Result<File> {
        // Beside the folder, which `make clean-data` deletes.
        let lock = files::lock(&self.folder.with_extension("lock"), || {
            ui::say(&format!(
                "  … waiting    for another command that uses {}",
                self.folder.display()
            ));
        });
        Ok(lock?)
    }

    /// Stops everything; the data stays.
    pub fn stop(&self) -> Result<()> {
        if let Some(containers) = &self.containers {
            return containers.stop(&self.log("down"));
        }
        self.emulator.stop()?;
        for home in Postgres::homes(&self.root, &self.folder) {
            Postgres::stop_all(&home)?;
        }
        if !self.is_local {
            Postgres::free_memory(&self.folder)?;
        }
        Ok(())
    }

    /// Makes its Postgres fail.
    pub fn fail_postgres(&self, fault: PostgresFault) -> Result<()> {
        let postgres = self.postgres()?;
        let log = self.log("fail-postgres");
        match fault {
            PostgresFault::Restart => postgres.restart(false, &log),
            PostgresFault::Crash => postgres.restart(true, &log),
            PostgresFault::Pause => postgres.pause(),
            PostgresFault::Resume => postgres.resume(),
        }
    }

    /// Where an API in its AWS answers. Not <id>.execute-api.localhost, which not every client can resolve.
    fn api_url(&self, id: &str, stage: &str) -> String {
        let port = self.settings.aws_port;
        format!("http://localhost:{port}/_aws/execute-api/{id}/{stage}")
    }

    /// True if its AWS runs.
    pub fn aws_is_running(&self) -> Result<bool> {
        match &self.containers {
            Some(containers) => containers.is_running(Service::LocalStack),
            None => Ok(self.emulator.is_running()),
        }
    }

    /// True if its Postgres is one that it starts and stops itself.
    pub fn owns_postgres(&self) -> bool {
        self.settings.database_url.is_none()
    }

    /// How to connect to the stack's database, whether or not it runs.
    pub fn database_url(&self) -> Result<String> {
        match (&self.settings.database_url, &self.containers) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(containers)) => Ok(containers.database_url()),
            (None, None) => Ok(self.postgres()?.url("tasks")),
        }
    }

    /// Its own Postgres.
    pub fn postgres(&self) -> Result<Postgres> {
        let (root, folder) = (&self.root, &self.folder);
        Postgres::find(&self.tools, root, folder, self.settings.postgres_port, self.is_local)
    }

    /// Stops everything and deletes the data.
    pub fn forget(&self) -> Result<()> {
        if let Some(containers) = &self.containers {
            containers.forget(&self.log("clean-data"))?;
        } else {
            self.stop()?;
        }
        for home in Postgres::homes(&self.root, &self.folder) {
            files::remove_if_exists(fs::remove_dir_all(&home))
                .with_context(|| format!("cannot delete {}", home.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    /// A stack in a folder of this test's own.
    fn stack(test: &str) -> Stack {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join("target/xtask-tests")
            .join(test);
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("a folder");
        let root = root.canonicalize().expect("it is there");
        Stack::new(&root, "local", StackSettings::default(), true)
    }

    #[test]
    fn two_commands_take_turns() {
        let (one, other) = (stack("turns"), AtomicBool::new(false));
        let lock = one.lock().expect("the first one gets it");
        thread::scope(|scope| {
            scope.spawn(|| {
                let _lock = one.lock().expect("the second one gets it later");
                other.store(true, Ordering::SeqCst);
            });
            thread::sleep(Duration::from_millis(200));
            assert!(!other.load(Ordering::SeqCst), "the second one waits");
            // As `make clean-data` does while it holds the lock.
            let _ = fs::remove_dir_all(&one.folder);
            drop(lock);
        });
        assert!(other.load(Ordering::SeqCst));
    }
}
