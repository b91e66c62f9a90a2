//! A local stack: Postgres, the emulator (or LocalStack), and template.yaml deployed into it.

pub mod aws;
pub mod containers;
pub mod deploy;
pub mod emulator;
pub mod functions;
pub mod migrations;
pub mod package;
pub mod parameters;
pub mod postgres;
pub mod regions;
pub mod settings;
pub mod start;

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    stack::{
        containers::{Containers, Service},
        emulator::Emulator,
        postgres::{Postgres, PostgresFault, Shutdown},
        settings::{LocalAws, Settings, StackSettings},
    },
    tools::{files, process, python::Tools, terminal as ui},
};
use anyhow::{Context, Result, ensure};
use local_issuer::LocalIssuer;

/// The lifetime of a token of `make token`: a working day.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(8 * 60 * 60);

/// A stack that can be started and stopped.
pub struct Stack {
    /// The project's folder.
    pub root: PathBuf,
    /// The folder of its state and logs.
    pub folder: PathBuf,
    /// The installed tools.
    pub tools: Tools,
    /// Its emulator; with LocalStack, only the URL is used.
    pub emulator: Emulator,
    /// Its ports, database and authentication.
    pub settings: StackSettings,
    /// True for the stack of `make up`: its settings are saved.
    is_local: bool,
    /// Whether its data survives a crash of the machine.
    durable: bool,
    /// Its Postgres and LocalStack, if they are containers.
    containers: Option<Containers>,
}

impl Stack {
    /// The stack of `make up`.
    pub fn local(settings: &Settings) -> Result<Self> {
        let root = &settings.root;
        let stack = StackSettings::load(root)?;
        match stack.aws {
            LocalAws::Ministack => Ok(Self::new(root, "local", stack, true)),
            LocalAws::LocalStack => match env::var("AWS_HOST") {
                // In docker-compose.yml, which starts LocalStack and Postgres.
                Ok(host) => Ok(Self::with_running_localstack(root, stack, host)),
                Err(_) => {
                    containers::ensure_docker("AWS=localstack")?;
                    Self::in_containers(root, stack)
                }
            },
        }
    }

    /// The stack of `make up`, for a command that needs it started: fails if it never was, and
    /// prints which stack it is.
    pub fn started(settings: &Settings) -> Result<Self> {
        ensure!(
            StackSettings::saved(&settings.root)?.is_some(),
            "no stack was started in {}; start one: make up",
            settings.root.display()
        );
        let stack = Self::local(settings)?;
        stack.print_summary();
        Ok(stack)
    }

    /// The stack of a LocalStack that is already running on another host.
    fn with_running_localstack(root: &Path, settings: StackSettings, host: String) -> Self {
        let stack = Self::new(root, "local", settings, true);
        Self {
            emulator: stack.emulator.on(host),
            ..stack
        }
    }

    /// The stack of the containers in docker-compose.yml.
    pub fn in_containers(root: &Path, settings: StackSettings) -> Result<Self> {
        ensure!(
            settings.database_url.is_none(),
            "DATABASE_URL is set, but the containers use the Postgres of docker-compose.yml; \
             unset it: make … DATABASE_URL="
        );
        let containers = Containers::new(root, settings.aws_port, settings.postgres_port);
        Ok(Self {
            containers: Some(containers),
            ..Self::new(root, "local", settings, true)
        })
    }

    /// A stack of containers beside that of `make up`: with its own data, on free ports.
    pub fn separate_in_containers(settings: &Settings) -> Result<Self> {
        let stack = Self::separate(settings, "containers")?;
        let StackSettings {
            aws_port,
            postgres_port,
            ..
        } = stack.settings;
        let containers = Containers::new(&settings.root, aws_port, postgres_port).separate();
        Ok(Self {
            settings: StackSettings {
                aws: LocalAws::LocalStack,
                database_url: None,
                ..stack.settings
            },
            containers: Some(containers),
            ..stack
        })
    }

    /// Its containers.
    pub fn containers(&self) -> Result<&Containers> {
        self.containers.as_ref().context("the stack has no containers")
    }

    /// A stack beside that of `make up`: with its own data, on free ports.
    pub fn separate(settings: &Settings, name: &str) -> Result<Self> {
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
            durable: is_local,
            containers: None,
        }
    }

    /// `local`, or the name of a test stack
    pub fn name(&self) -> &OsStr {
        self.folder.file_name().unwrap_or_default()
    }

    /// Saves the settings of the stack of `make up` for later commands, once its emulator has
    /// started with them.
    fn save_settings(&self) -> Result<()> {
        match self.is_local {
            true => self.settings.save(&self.root),
            false => Ok(()),
        }
    }

    /// Prints which stack it is.
    fn print_summary(&self) {
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

    /// The log of a step's programs.
    pub fn log(&self, step: &str) -> PathBuf {
        self.folder.join(format!("{step}.log"))
    }

    /// The file with the key that signs its tokens.
    pub fn issuer_key(&self) -> PathBuf {
        self.folder.join("issuer.key")
    }

    /// The issuer of its tokens.
    pub fn issuer(&self) -> Result<LocalIssuer> {
        fs::create_dir_all(&self.folder)?;
        let file = self.issuer_key();
        LocalIssuer::open(&file).with_context(|| format!("cannot read or create the signing key {}", file.display()))
    }

    /// Waits until no other command changes the stack, and locks it until the value is dropped.
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

    /// Stops everything and keeps the data.
    pub fn stop(&self) -> Result<()> {
        if let Some(containers) = &self.containers {
            return containers.stop(&self.log("down"));
        }
        self.emulator.stop()?;
        let shutdown = match self.durable {
            true => Shutdown::Fast,
            false => Shutdown::Immediate,
        };
        for home in Postgres::homes(&self.root, &self.folder) {
            Postgres::stop_all(&home, shutdown)?;
        }
        if !self.is_local {
            Postgres::free_memory(&self.folder)?;
        }
        Ok(())
    }

    /// The same stack, with data that survives a crash of the machine, as in production.
    pub fn durable(self) -> Self {
        Self { durable: true, ..self }
    }

    /// Injects a fault into its Postgres.
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

    /// The URL of an API. Not `<id>.execute-api.localhost`, which some clients cannot resolve.
    fn api_url(&self, id: &str, stage: &str) -> String {
        let port = self.settings.aws_port;
        format!("http://localhost:{port}/_aws/execute-api/{id}/{stage}")
    }

    /// True if its emulator, or LocalStack, is running.
    pub fn aws_is_running(&self) -> Result<bool> {
        match (&self.containers, self.settings.aws) {
            (Some(containers), _) => containers.is_running(Service::LocalStack),
            (None, LocalAws::LocalStack) => Ok(containers::localstack_responds(&self.emulator.url())),
            (None, LocalAws::Ministack) => Ok(self.emulator.is_running()),
        }
    }

    /// True if it starts and stops Postgres itself.
    pub fn owns_postgres(&self) -> bool {
        self.settings.database_url.is_none()
    }

    /// The URL of the stack's database, whether or not Postgres is running.
    pub fn database_url(&self) -> Result<String> {
        match (&self.settings.database_url, &self.containers) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(containers)) => Ok(containers.database_url()),
            (None, None) => Ok(self.postgres()?.url("tasks")),
        }
    }

    /// The Postgres that it starts itself.
    pub fn postgres(&self) -> Result<Postgres> {
        let (root, folder) = (&self.root, &self.folder);
        Postgres::find(&self.tools, root, folder, self.settings.postgres_port, self.durable)
    }

    /// Stops everything and deletes the data.
    pub fn clean(&self) -> Result<()> {
        if let Some(containers) = &self.containers {
            containers.clean(&self.log("clean-data"))?;
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

    /// A stack in an empty folder for this test.
    fn stack(test: &str) -> Stack {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join("target/xtask-tests")
            .join(test);
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("a folder");
        let root = root.canonicalize().expect("it exists");
        Stack::new(&root, "local", StackSettings::default(), true)
    }

    #[test]
    fn commands_lock_the_stack() {
        let (one, other) = (stack("turns"), AtomicBool::new(false));
        let lock = one.lock().expect("the first command gets the lock");
        thread::scope(|scope| {
            scope.spawn(|| {
                let _lock = one.lock().expect("the second command gets it later");
                other.store(true, Ordering::SeqCst);
            });
            thread::sleep(Duration::from_millis(200));
            assert!(!other.load(Ordering::SeqCst), "the second command waits");
            // As `make clean-data` does while it holds the lock.
            let _ = fs::remove_dir_all(&one.folder);
            drop(lock);
        });
        assert!(other.load(Ordering::SeqCst));
    }
}
