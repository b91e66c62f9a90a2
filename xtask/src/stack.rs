//! A stack: Postgres, the local AWS, and template.yaml deployed into it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use local_issuer::LocalIssuer;
use sqlx::{
    Connection, PgConnection, Postgres as Driver,
    migrate::{MigrateDatabase, Migrator},
};

use crate::{
    PostgresFault,
    containers::{self, Containers, Service},
    deploy::{self, Local},
    emulator::Emulator,
    files,
    postgres::Postgres,
    process, sandbox,
    settings::{Auth, LocalAws, Settings},
    tools::{Tool, Tools},
    ui::Step,
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
    aws_port: u16,
    postgres_port: u16,
    database_url: Option<String>,
    /// Whether its data matters.
    durable: bool,
    /// Who may call its API.
    pub auth: Auth,
    /// Its Postgres and its AWS, if they are containers.
    containers: Option<Containers>,
}

impl Stack {
    /// The stack of `make up`.
    pub fn local(settings: &Settings) -> Result<Self> {
        match settings.local_aws {
            LocalAws::Ministack => Ok(Self::new(
                settings,
                "local",
                settings.aws_port,
                settings.postgres_port,
                true,
                settings.auth,
            )),
            LocalAws::LocalStack => {
                containers::ensure_docker("AWS=localstack")?;
                Self::in_containers(settings)
            }
        }
    }

    /// The stack whose Postgres and AWS are those of docker-compose.yml.
    pub fn in_containers(settings: &Settings) -> Result<Self> {
        ensure!(
            settings.database_url.is_none(),
            "the containers use the Postgres of docker-compose.yml: unset DATABASE_URL"
        );
        let (aws_port, postgres_port) = (settings.aws_port, settings.postgres_port);
        Ok(Self {
            containers: Some(Containers::new(settings)),
            ..Self::new(settings, "local", aws_port, postgres_port, true, settings.auth)
        })
    }

    /// A stack beside that of `make up`: its own data, on ports that are free now.
    pub fn of_its_own(settings: &Settings, name: &str) -> Result<Self> {
        Ok(Self::new(
            settings,
            name,
            process::free_port()?,
            process::free_port()?,
            false,
            Auth::Open,
        ))
    }

    fn new(settings: &Settings, name: &str, aws_port: u16, postgres_port: u16, durable: bool, auth: Auth) -> Self {
        let folder = settings.root.join(".local").join(name);
        Self {
            root: settings.root.clone(),
            tools: Tools::new(&settings.root),
            emulator: Emulator::new(&folder, aws_port),
            folder,
            aws_port,
            postgres_port,
            database_url: settings.database_url.clone(),
            durable,
            auth,
            containers: None,
        }
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
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join("lock");
        let file = File::create(&path)?;
        if file.try_lock().is_err() {
            eprintln!("waiting for another command that uses {}", self.folder.display());
            file.lock()?;
        }
        Ok(file)
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
        format!("http://localhost:{}/_aws/execute-api/{id}/{stage}", self.aws_port)
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
        self.database_url.is_none()
    }

    /// Stops everything and deletes the data.
    pub fn forget(&self) -> Result<()> {
        if let Some(containers) = &self.containers {
            return containers.forget(&self.log("clean-data"));
        }
        self.stop()?;
        for home in Postgres::homes(&self.root, &self.folder) {
            files::removed(fs::remove_dir_all(&home)).with_context(|| format!("cannot delete {}", home.display()))?;
        }
        Ok(())
    }
}

/// `make down`
pub fn down(stack: &Stack) -> Result<()> {
    let step = Step::start("down", "stopping the functions, the emulator and Postgres");
    stack.stop()?;
    step.done("nothing is running; the data is kept");
    Ok(())
}

/// `make clean-data`
pub fn clean_data(stack: &Stack) -> Result<()> {
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

/// Brings the stack up: what already runs stays, what changed is built and deployed.
pub fn up(stack: &Stack) -> Result<Deployed> {
    stack.tools.install(&Tool::ALWAYS)?;
    let database_url = start_postgres(stack)?;
    start_emulator(stack)?;
    deploy::build(stack)?;
    migrate_and_deploy(stack, deploy::STACK_NAME, database_url, stack.auth)
}

/// Deploys template.yaml once more into a stack that is up: closed, with a database of its own.
pub fn up_closed(stack: &Stack) -> Result<Deployed> {
    let database_url = further_database(stack, "closed")?;
    migrate_and_deploy(stack, "task-api-closed", database_url, Auth::Closed)
}

/// Deploys template.yaml once more into a stack that is up: in the sandbox's shape, with an empty database, for tokens of
/// an issuer that publishes the stack's key at `jwks_url`.
pub fn up_sandbox(stack: &Stack, jwks_url: &str) -> Result<Deployed> {
    let database_url = further_database(stack, "sandbox")?;
    let template = deploy::emulated_sandbox(stack, &database_url)?;
    let parameters = sandbox::emulated_parameters(jwks_url);
    let shape = "in the sandbox's shape";
    let outputs = deploy::deploy(stack, "task-api-sandbox", &template, &parameters, shape)?;
    Deployed::new(stack, "sandbox", database_url, &outputs)
}

fn further_database(stack: &Stack, name: &str) -> Result<String> {
    match &stack.database_url {
        Some(url) => Ok(url.clone()),
        None => Ok(find_postgres(stack)?.url(name)),
    }
}

fn migrate_and_deploy(stack: &Stack, name: &str, database_url: String, auth: Auth) -> Result<Deployed> {
    // Before the functions that expect the new schema.
    migrate(stack, &database_url)?;
    let local = Local {
        database_url: match stack.containers {
            Some(_) => containers::DATABASE_URL,
            None => &database_url,
        },
        auth,
    };
    let parameters = deploy::local_parameters(stack, &local)?;
    let shape = match auth {
        Auth::Open => "open to everybody here",
        Auth::Closed => "closed: `make token`",
    };
    let outputs = deploy::deploy(stack, name, Path::new("template.yaml"), &parameters, shape)?;
    Deployed::new(stack, "local", database_url, &outputs)
}

/// Brings up only Postgres and AWS, with nothing in them, and returns how to connect to Postgres: the database of that
/// name need not be there.
pub fn postgres_and_aws(stack: &Stack) -> Result<String> {
    stack.tools.install(&[Tool::Emulator])?;
    let database_url = start_postgres(stack)?;
    start_emulator(stack)?;
    Ok(database_url)
}

/// Brings up only the database, migrated, and returns how to connect.
pub fn database(stack: &Stack) -> Result<String> {
    let url = start_postgres(stack)?;
    migrate(stack, &url)?;
    Ok(url)
}

/// How to connect to the stack's database, whether or not it runs.
pub fn database_url(stack: &Stack) -> Result<String> {
    match (&stack.database_url, &stack.containers) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(containers)) => Ok(containers.database_url()),
        (None, None) => Ok(find_postgres(stack)?.url("tasks")),
    }
}

fn find_postgres(stack: &Stack) -> Result<Postgres> {
    let (root, folder) = (&stack.root, &stack.folder);
    Postgres::find(&stack.tools, root, folder, stack.postgres_port, stack.durable)
}

fn start_postgres(stack: &Stack) -> Result<String> {
    let step = Step::start("postgres", "starting");
    if let Some(url) = &stack.database_url {
        step.done("using DATABASE_URL");
        return Ok(url.clone());
    }
    if let Some(containers) = &stack.containers {
        containers.start(Service::Postgres, &stack.log("postgres-start"), |line| step.says(line))?;
        step.done(&format!("container on 127.0.0.1:{}", stack.postgres_port));
        return Ok(containers.database_url());
    }
    let postgres = find_postgres(stack)?;
    if postgres.is_running() {
        step.done(&format!("already running on 127.0.0.1:{}", stack.postgres_port));
    } else {
        process::ensure_free(stack.postgres_port, "POSTGRES_PORT", "Postgres")?;
        postgres.start(&stack.log("postgres-start"))?;
        step.done(&format!("{} on 127.0.0.1:{}", postgres.version()?, stack.postgres_port));
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
        stack.emulator.stop()?;
        process::ensure_free(stack.aws_port, "AWS_PORT", "the local AWS")?;
        stack.emulator.start(&stack.tools)?;
        step.done(&format!("emulator on {}", stack.emulator.url()));
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn migrate(stack: &Stack, url: &str) -> Result<()> {
    let step = Step::start("migrate", "migrating the database");
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
        bail!(
            "the database cannot be migrated: {error:#}.\n\
             If a migration was changed after it ran here: make clean-data, then make up"
        );
    }
    step.done(&format!(
        "{} migrations applied, the functions' roles are set up",
        migrations.iter().count()
    ));
    Ok(())
}

/// How long a token of `make token` lives: a working day.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(8 * 60 * 60);

/// `make token`
pub fn token(stack: &Stack, subject: &str, scope: &str) -> Result<()> {
    println!("{}", stack.issuer()?.token(subject, scope, TOKEN_LIFETIME));
    Ok(())
}

impl Deployed {
    fn new(stack: &Stack, stage: &str, database_url: String, outputs: &BTreeMap<String, String>) -> Result<Self> {
        let output = |name: &str| {
            outputs
                .get(name)
                .with_context(|| format!("template.yaml has no output {name}"))
        };
        Ok(Self {
            api_url: stack.api_url(output("ApiId")?, stage),
            database_url,
            task_queue_url: output("TaskQueueUrl")?.clone(),
            dead_letter_queue_url: output("TaskDeadLetterQueueUrl")?.clone(),
        })
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

  curl -i {api_url}/tasks -H 'content-type: application/json' \\
    -d '{{\"title\":\"Process user data\",\"description\":\"Count the words of this\"}}'
  curl {api_url}/tasks

  make logs    follow the functions' logs
  make dev     serve with hot reload
  make down    stop everything (the data stays)
"
        );
    }
}
