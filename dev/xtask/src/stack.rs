//! A stack: Postgres, the local AWS, and template.yaml deployed into it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use local_issuer::LocalIssuer;
use sqlx::{
    Connection, PgConnection, Postgres as Driver,
    migrate::{MigrateDatabase, MigrateError, Migrator},
};

use crate::{
    PostgresFault,
    aws::Aws,
    containers::{self, Containers, Service},
    deploy::{self, Deployment, EmulatedSandbox, Local},
    emulator::Emulator,
    files,
    functions::{self, Profile, Programs},
    postgres::Postgres,
    process, sandbox,
    settings::{Auth, LocalAws, Settings, StackSettings},
    tools::{Tool, Tools},
    ui::{self, Step},
};

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
    /// Whether its data outlives a crash of the machine.
    durable: bool,
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

    fn new(root: &Path, name: &str, settings: StackSettings, durable: bool) -> Self {
        let folder = root.join(".local").join(name);
        Self {
            root: root.to_owned(),
            tools: Tools::new(root),
            emulator: Emulator::new(&folder, settings.aws_port),
            folder,
            settings,
            durable,
            containers: None,
        }
    }

    /// `local`, or the name of a stack of the tests
    pub fn name(&self) -> &OsStr {
        self.folder.file_name().unwrap_or_default()
    }

    /// Keeps the settings of the stack of `make up` for the commands after this one, once its AWS has started with them.
    fn keep_settings(&self) -> Result<()> {
        match self.durable {
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
        Ok(())
    }

    /// Makes its Postgres fail.
    pub fn fail_postgres(&self, fault: PostgresFault) -> Result<()> {
        let postgres = find_postgres(self)?;
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

/// `make down`
pub fn down(stack: &Stack) -> Result<()> {
    let _lock = stack.lock()?;
    let step = Step::start("down", "stopping the functions, the emulator and Postgres");
    stack.stop()?;
    step.done("nothing is running; the data is kept");
    Ok(())
}

/// `make clean-data`
pub fn clean_data(stack: &Stack) -> Result<()> {
    let _lock = stack.lock()?;
    let step = Step::start("clean-data", "stopping everything and deleting the data");
    stack.forget()?;
    step.done("nothing is running; the data is gone");
    Ok(())
}

/// A stack that is up.
pub struct Deployed {
    /// Where the API answers.
    pub api_url: String,
    /// Its database.
    pub database_url: String,
    /// The queue that triggers the task-processor.
    pub task_queue_url: String,
    /// Where messages end that could not be processed.
    pub dead_letter_queue_url: String,
}

/// `make up`
pub fn up(stack: &Stack, profile: Profile) -> Result<()> {
    let lock = stack.lock()?;
    let (deployed, _) = start_and_deploy(stack, profile)?;
    drop(lock);
    deployed.announce();
    Ok(())
}

/// Starts Postgres and the local AWS, deploys template.yaml and builds the functions, side by side; then migrates, and gives
/// the functions their code. What already runs stays, and what is up to date is neither built nor deployed.
pub fn start_and_deploy(stack: &Stack, profile: Profile) -> Result<(Deployed, Programs)> {
    let mut programs = Programs::new();
    let database_url = database_url(stack)?;
    let deployment = local_deployment(stack, deploy::STACK_NAME, &database_url, stack.settings.auth)?;
    side_by_side([
        &mut || start_postgres(stack).map(drop),
        &mut || {
            stack.tools.install(&Tool::ALWAYS)?;
            start_emulator(stack)?;
            stack.keep_settings()?;
            deploy::template(stack, &deployment).map(drop)
        },
        &mut || {
            programs = functions::build(&stack.tools, &stack.root, profile, &stack.log("build"))?;
            Ok(())
        },
    ])?;
    // When all has been compiled, and before the functions that expect the new schema.
    migrate(stack, &database_url)?;
    Ok((deploy_code(stack, &deployment, database_url, &programs)?, programs))
}

/// Gives the functions of a deployment their code.
fn deploy_code(stack: &Stack, deployment: &Deployment, database_url: String, programs: &Programs) -> Result<Deployed> {
    let step = Step::start("code", "comparing with what is deployed");
    let (changed, outputs) = deploy::code(stack, deployment, programs)?;
    step.done(&match changed.len() {
        0 => "nothing has changed".to_owned(),
        1..=3 => format!("new code for {}", changed.join(", ")),
        many => format!("new code for {many} functions"),
    });
    Deployed::new(stack, database_url, &outputs)
}

/// Something that one of several threads makes and others wait for.
pub struct Handover<T>(OnceLock<T>);

impl<T> Default for Handover<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Handover<T> {
    /// Here it is.
    pub fn give(&self, value: T) {
        // Given once.
        let _ = self.0.set(value);
    }

    /// Waits for it; fails when a thread of [`side_by_side`] has failed, as it may not come then.
    pub fn take(&self) -> Result<&T> {
        loop {
            if let Some(value) = self.0.get() {
                return Ok(value);
            }
            ensure!(!process::are_terminated(), "what this needs was not made");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Does things at the same time. When one fails, the programs that the others run are ended.
pub fn side_by_side<const N: usize>(work: [&mut (dyn FnMut() -> Result<()> + Send); N]) -> Result<()> {
    let first = Mutex::new(None);
    thread::scope(|scope| {
        for work in work {
            let first = &first;
            scope.spawn(move || {
                if let Err(error) = work() {
                    first
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(error);
                    process::terminate();
                }
            });
        }
    });
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Deploys template.yaml as the stack's settings want it, into a stack whose Postgres and AWS run.
pub fn deploy_local(stack: &Stack, programs: &Programs) -> Result<Deployed> {
    let database_url = database_url(stack)?;
    deploy(stack, deploy::STACK_NAME, database_url, stack.settings.auth, programs)
}

/// The same once more, as `name` and with a database of its own.
pub fn deploy_another(stack: &Stack, name: &str, auth: Auth, programs: &Programs) -> Result<Deployed> {
    let database_url = further_database(stack, name)?;
    deploy(
        stack,
        &format!("{}-{name}", deploy::STACK_NAME),
        database_url,
        auth,
        programs,
    )
}

fn deploy(stack: &Stack, name: &str, database_url: String, auth: Auth, programs: &Programs) -> Result<Deployed> {
    migrate(stack, &database_url)?;
    let deployment = local_deployment(stack, name, &database_url, auth)?;
    deploy::template(stack, &deployment)?;
    deploy_code(stack, &deployment, database_url, programs)
}

/// The same once more: in the sandbox's shape, with an empty database, for tokens of an issuer that publishes the stack's
/// key at `jwks_url`.
pub fn deploy_sandbox_shape(stack: &Stack, jwks_url: &str, programs: &Programs) -> Result<Deployed> {
    let database_url = further_database(stack, "sandbox")?;
    let migrator = programs.get("migrator").context("there is no migrator")?;
    let deployment = Deployment {
        name: "task-api-sandbox",
        parameters: sandbox::emulated_parameters(jwks_url),
        emulated_sandbox: Some(EmulatedSandbox {
            database_url: &database_url,
            migrator,
        }),
        shape: "in the sandbox's shape",
    };
    deploy::template(stack, &deployment)?;
    deploy_code(stack, &deployment, database_url.clone(), programs)
}

fn further_database(stack: &Stack, name: &str) -> Result<String> {
    match &stack.settings.database_url {
        Some(url) => Ok(url.clone()),
        None => Ok(find_postgres(stack)?.url(name)),
    }
}

/// The deployment of template.yaml to this machine.
pub fn local_deployment<'a>(stack: &Stack, name: &'a str, database_url: &str, auth: Auth) -> Result<Deployment<'a>> {
    let local = Local {
        database_url: match stack.containers {
            Some(_) => containers::DATABASE_URL,
            None => database_url,
        },
        auth,
    };
    Ok(Deployment {
        name,
        parameters: deploy::local_parameters(stack, &local)?,
        emulated_sandbox: None,
        shape: match auth {
            Auth::Open => "unauthenticated, with one admin",
            Auth::Closed => "closed: `make token`",
        },
    })
}

/// Brings up only Postgres and AWS, with nothing in them, and returns how to connect to Postgres: the database of that
/// name need not be there.
pub fn postgres_and_aws(stack: &Stack) -> Result<String> {
    let mut database_url = String::new();
    side_by_side([
        &mut || {
            database_url = start_postgres(stack)?;
            Ok(())
        },
        &mut || {
            stack.tools.install(&[Tool::Emulator])?;
            start_emulator(stack)
        },
    ])?;
    Ok(database_url)
}

/// Migrates what Postgres makes each new database of, so that those of the tests need not be migrated one by one: half of
/// their time. Not for a Postgres that is not ours.
pub fn migrate_template(stack: &Stack) -> Result<()> {
    if stack.owns_postgres() {
        migrate_quietly(stack, &find_postgres(stack)?.url("template1"))?;
    }
    Ok(())
}

/// Brings up only the database, migrated, and returns how to connect.
pub fn database(stack: &Stack) -> Result<String> {
    let url = start_postgres(stack)?;
    migrate(stack, &url)?;
    Ok(url)
}

/// How to connect to the stack's database, whether or not it runs.
pub fn database_url(stack: &Stack) -> Result<String> {
    match (&stack.settings.database_url, &stack.containers) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(containers)) => Ok(containers.database_url()),
        (None, None) => Ok(find_postgres(stack)?.url("tasks")),
    }
}

fn find_postgres(stack: &Stack) -> Result<Postgres> {
    let (root, folder) = (&stack.root, &stack.folder);
    Postgres::find(&stack.tools, root, folder, stack.settings.postgres_port, stack.durable)
}

fn start_postgres(stack: &Stack) -> Result<String> {
    let step = Step::start("postgres", "starting");
    if let Some(url) = &stack.settings.database_url {
        step.done("using DATABASE_URL");
        return Ok(url.clone());
    }
    if let Some(containers) = &stack.containers {
        containers.start(Service::Postgres, &stack.log("postgres-start"), |line| step.says(line))?;
        step.done(&format!("container on 127.0.0.1:{}", stack.settings.postgres_port));
        return Ok(containers.database_url());
    }
    let postgres = find_postgres(stack)?;
    if postgres.is_running() {
        step.done(&format!(
            "already running on 127.0.0.1:{}",
            stack.settings.postgres_port
        ));
    } else {
        process::ensure_free(stack.settings.postgres_port, "POSTGRES_PORT", "Postgres")?;
        postgres.start(&stack.log("postgres-start"))?;
        step.done(&format!(
            "{} on 127.0.0.1:{}",
            postgres.version()?,
            stack.settings.postgres_port
        ));
    }
    Ok(postgres.url("tasks"))
}

fn start_emulator(stack: &Stack) -> Result<()> {
    let step = Step::start("aws", "starting the emulator");
    if let Some(containers) = &stack.containers {
        containers.start(Service::LocalStack, &stack.log("localstack-start"), |line| {
            step.says(line)
        })?;
        step.done(&format!("LocalStack on {}", stack.emulator.url()));
    } else if stack.emulator.is_running() {
        step.done(&format!("already running on {}", stack.emulator.url()));
    } else {
        stack.emulator.ensure_no_other_stacks()?;
        stack.emulator.stop()?;
        process::ensure_free(stack.settings.aws_port, "AWS_PORT", "the local AWS")?;
        stack.emulator.start(&stack.tools)?;
        step.done(&format!("emulator on {}", stack.emulator.url()));
    }
    Ok(())
}

fn migrate(stack: &Stack, url: &str) -> Result<()> {
    let step = Step::start("migrate", "migrating the database");
    let applied = migrate_quietly(stack, url)?;
    step.done(&format!(
        "{applied} migrations applied, the functions' roles are set up"
    ));
    Ok(())
}

/// Migrates the database and returns how many migrations it has.
#[tokio::main(flavor = "current_thread")]
pub async fn migrate_quietly(stack: &Stack, url: &str) -> Result<usize> {
    // Read now, not compiled in: the runner must not depend on `shared`, or a change of a query would keep it from
    // compiling just when `make sqlx` is needed.
    let folder = stack.root.join("migrations");
    let migrations = Migrator::new(folder.as_path()).await?;
    let roles = fs::read_to_string(folder.join("roles.sql"))?;
    let migrated = async {
        if !Driver::database_exists(url).await? {
            Driver::create_database(url).await?;
        }
        let mut connection = PgConnection::connect(url).await?;
        migrations.run(&mut connection).await?;
        sqlx::raw_sql(&roles)
            .execute(&mut connection)
            .await
            .context("roles.sql, for which the user must be allowed to create roles")?;
        anyhow::Ok(())
    };
    if let Err(error) = migrated.await {
        bail!("{}", cannot_migrate(&error));
    }
    Ok(migrations.iter().count())
}

/// What to do about it depends on why. Only a migration that was changed after it had run is a reason to delete the data.
fn cannot_migrate(error: &anyhow::Error) -> String {
    let advice = match error.downcast_ref() {
        Some(MigrateError::VersionMismatch(version)) => format!(
            "The migration {version} was changed after it had run here. Undo the change, and put it into a new migration; \
             or, if this data may go: make clean-data, then make up"
        ),
        Some(MigrateError::VersionMissing(version)) => format!(
            "The migration {version} has run here, but is not in migrations/: it comes from another branch. Go back to \
             that branch; or use another database: make up DATABASE_URL=…"
        ),
        _ if error
            .chain()
            .any(|cause| cause.to_string().contains("too many clients")) =>
        {
            "Every connection of this Postgres is taken. Wait a minute, or: make down, then make up; the data stays"
                .to_owned()
        }
        _ => "Its log is in .local; the data is as it was".to_owned(),
    };
    format!("the database cannot be migrated: {error:#}.\n{advice}")
}

/// How long a token of `make token` lives: a working day.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(8 * 60 * 60);

/// `make token`
pub fn token(stack: &Stack, subject: &str, scope: &str) -> Result<()> {
    println!("{}", stack.issuer()?.token(subject, scope, TOKEN_LIFETIME));
    Ok(())
}

/// What `make up` deployed, if its AWS still runs.
pub fn deployed(stack: &Stack) -> Result<Deployed> {
    let there = stack
        .aws_is_running()?
        .then(|| Aws::new(stack.emulator.url()).stack(deploy::STACK_NAME));
    let there = there
        .transpose()?
        .flatten()
        .context("the local stack is not running: make up")?;
    Deployed::new(stack, database_url(stack)?, &there.outputs)
}

impl Deployed {
    fn new(stack: &Stack, database_url: String, outputs: &BTreeMap<String, String>) -> Result<Self> {
        let output = |name: &str| {
            outputs
                .get(name)
                .with_context(|| format!("template.yaml has no output {name}"))
        };
        Ok(Self {
            api_url: stack.api_url(
                output("ApiId")?,
                output("ApiUrl")?.rsplit('/').next().unwrap_or_default(),
            ),
            database_url,
            task_queue_url: output("TaskQueueUrl")?.clone(),
            dead_letter_queue_url: output("TaskDeadLetterQueueUrl")?.clone(),
        })
    }

    /// Prints the API's URL: `make url`.
    pub fn print_url(&self) {
        println!("{}", self.api_url);
    }

    /// Tells a person what they have, and what to do with it.
    pub fn announce(&self) {
        let Self {
            api_url, database_url, ..
        } = self;
        println!(
            "
The task API is running.

  API        {api_url}
  Docs       {api_url}/docs
  Dashboard  {api_url}/admin/dashboard
  Database   {database_url}

Create a task, and see it completed a moment later:

  export API=$(make url)
  curl -i $API/tasks -H 'content-type: application/json' \\
    -d '{{\"title\":\"Process user data\",\"description\":\"Count the words of this\"}}'
  curl $API/tasks

  make dev     rebuild and swap a function on each change
  make logs    follow the functions' logs
  make down    stop everything (the data stays)
"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

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

    #[test]
    fn data_is_deleted_only_for_a_changed_migration() {
        let advice = |error: anyhow::Error| cannot_migrate(&error);
        assert!(advice(MigrateError::VersionMismatch(3).into()).contains("make clean-data"));
        assert!(!advice(MigrateError::VersionMissing(12).into()).contains("clean-data"));
        let crowded = advice(anyhow::anyhow!("FATAL: sorry, too many clients already"));
        assert!(
            crowded.contains("make down") && !crowded.contains("clean-data"),
            "{crowded}"
        );
        assert!(!advice(anyhow::anyhow!("connection refused")).contains("clean-data"));
    }
}
