//! Starts a stack's Postgres and emulator, and deploys template.yaml and the functions' code.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};

use crate::{
    stack::{
        Stack,
        aws::Aws,
        containers::{self, Service},
        deploy::{self, Deployment, EmulatedSandbox},
        functions::{self, Profile, Programs},
        migrations::migrate,
        parameters::{self, Local},
        settings::{Auth, LocalAws},
    },
    tools::{parallel::side_by_side, process, python::Tool, terminal::Step},
};

/// A deployed stack.
pub struct Deployed {
    /// The API's URL.
    pub api_url: String,
    /// The database's URL.
    pub database_url: String,
    /// The URL of the task queue.
    pub task_queue_url: String,
    /// The URL of the dead-letter queue.
    pub dead_letter_queue_url: String,
}

impl Deployed {
    fn new(stack: &Stack, database_url: String, outputs: &BTreeMap<String, String>) -> Result<Self> {
        let output = |name: &str| {
            outputs
                .get(name)
                .with_context(|| format!("the deployed stack has no output {name}, which template.yaml should have"))
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
}

/// The stack that `make up` has deployed; fails if it is not running.
pub fn deployed(stack: &Stack) -> Result<Deployed> {
    let there = stack
        .aws_is_running()?
        .then(|| Aws::new(stack.emulator.url()).stack(deploy::STACK_NAME));
    let there = there
        .transpose()?
        .flatten()
        .context("the local stack is not running; start it: make up")?;
    Deployed::new(stack, stack.database_url()?, &there.outputs)
}

/// Starts Postgres and the emulator, deploys template.yaml and builds the functions, in parallel;
/// then migrates the database and deploys the functions' code. Skips what is running or up to date.
pub fn start_and_deploy(stack: &Stack, profile: Profile) -> Result<(Deployed, Programs)> {
    stack.settings.ensure_deployable()?;
    let mut programs = Programs::new();
    let database_url = stack.database_url()?;
    let deployment = local_deployment(stack, deploy::STACK_NAME, &database_url, stack.settings.auth)?;
    side_by_side([
        &mut || start_postgres(stack).map(drop),
        &mut || {
            stack.tools.install(&Tool::ALWAYS)?;
            start_emulator(stack)?;
            stack.save_settings()?;
            deploy::template(stack, &deployment).map(drop)
        },
        &mut || {
            programs = functions::build(&stack.tools, &stack.root, profile, &stack.log("build"))?;
            Ok(())
        },
    ])?;
    // After compiling succeeded, and before the functions that expect the new schema are deployed.
    migrate(stack, &database_url)?;
    Ok((deploy_code(stack, &deployment, database_url, &programs)?, programs))
}

/// Deploys the functions' code.
fn deploy_code(stack: &Stack, deployment: &Deployment, database_url: String, programs: &Programs) -> Result<Deployed> {
    let step = Step::start("code", "comparing with the deployed code");
    let (changed, outputs) = deploy::code(stack, deployment, programs)?;
    step.done(&match changed.len() {
        0 => "nothing has changed".to_owned(),
        1..=3 => format!("new code for {}", changed.join(", ")),
        many => format!("new code for {many} functions"),
    });
    Deployed::new(stack, database_url, &outputs)
}

/// Deploys template.yaml with the stack's settings. Postgres and the emulator must be running.
pub fn deploy_local(stack: &Stack, programs: &Programs) -> Result<Deployed> {
    let database_url = stack.database_url()?;
    deploy(stack, deploy::STACK_NAME, database_url, stack.settings.auth, programs)
}

/// Deploys template.yaml a second time, as `name` and with its own database.
pub fn deploy_another(stack: &Stack, name: &str, auth: Auth, programs: &Programs) -> Result<Deployed> {
    let database_url = database_for(stack, name)?;
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

/// Deploys the sandbox's template to the emulator, with an empty database; it accepts tokens of an
/// issuer that publishes the stack's key at `jwks_url`.
pub fn deploy_sandbox_shape(stack: &Stack, jwks_url: &str, programs: &Programs) -> Result<Deployed> {
    let database_url = database_for(stack, "sandbox")?;
    let migrator = programs.get("migrator").context("the migrator was not built")?;
    let deployment = Deployment {
        name: "task-api-sandbox",
        parameters: parameters::emulated_sandbox(jwks_url),
        emulated_sandbox: Some(EmulatedSandbox {
            database_url: &database_url,
            migrator,
        }),
        shape: "as the sandbox",
    };
    deploy::template(stack, &deployment)?;
    deploy_code(stack, &deployment, database_url.clone(), programs)
}

fn database_for(stack: &Stack, name: &str) -> Result<String> {
    match &stack.settings.database_url {
        Some(url) => Ok(url.clone()),
        None => Ok(stack.postgres()?.url(name)),
    }
}

/// The local deployment of template.yaml.
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
        parameters: parameters::local(stack, &local)?,
        emulated_sandbox: None,
        shape: match auth {
            Auth::Open => "open: every caller is the same admin",
            Auth::Closed => "closed: callers need a token (make token)",
        },
    })
}

/// Starts Postgres and the emulator without deploying anything, and returns the database's URL. The
/// database itself may not exist yet.
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

/// Starts Postgres, migrates the database and returns its URL.
pub fn database(stack: &Stack) -> Result<String> {
    let url = start_postgres(stack)?;
    migrate(stack, &url)?;
    Ok(url)
}

/// Starts Postgres unless it is running, and returns the database's URL. The database itself may
/// not exist yet.
pub fn start_postgres(stack: &Stack) -> Result<String> {
    let step = Step::start("postgres", "starting");
    if let Some(url) = &stack.settings.database_url {
        step.done("using DATABASE_URL");
        return Ok(url.clone());
    }
    if let Some(containers) = &stack.containers {
        containers.start(Service::Postgres, &stack.log("postgres-start"), |line| step.show(line))?;
        step.done(&format!("container on 127.0.0.1:{}", stack.settings.postgres_port));
        return Ok(containers.database_url());
    }
    let postgres = stack.postgres()?;
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
            step.show(line)
        })?;
        step.done(&format!("LocalStack on {}", stack.emulator.url()));
    } else if stack.settings.aws == LocalAws::LocalStack {
        let url = stack.emulator.url();
        process::wait_until(Duration::from_secs(60), || containers::localstack_responds(&url))
            .with_context(|| format!("no LocalStack responds on {url}"))?;
        step.done(&format!("LocalStack on {url}"));
    } else if stack.emulator.is_running() {
        step.done(&format!("already running on {}", stack.emulator.url()));
    } else {
        stack.emulator.ensure_no_other_stacks()?;
        stack.emulator.stop()?;
        process::ensure_free(stack.settings.aws_port, "AWS_PORT", "the emulator")?;
        stack.emulator.start(&stack.tools)?;
        step.done(&format!("emulator on {}", stack.emulator.url()));
    }
    Ok(())
}
