//! Starts a stack's Postgres and AWS, deploys template.yaml and gives the functions their code.

use std::collections::BTreeMap;

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
        settings::Auth,
    },
    tools::{parallel::side_by_side, process, python::Tool, terminal::Step},
};
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
    Deployed::new(stack, stack.database_url()?, &there.outputs)
}

/// Starts Postgres and the local AWS, deploys template.yaml and builds the functions, side by side; then migrates, and gives
/// the functions their code. What already runs stays, and what is up to date is neither built nor deployed.
pub fn start_and_deploy(stack: &Stack, profile: Profile) -> Result<(Deployed, Programs)> {
    let mut programs = Programs::new();
    let database_url = stack.database_url()?;
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

/// Deploys template.yaml as the stack's settings want it, into a stack whose Postgres and AWS run.
pub fn deploy_local(stack: &Stack, programs: &Programs) -> Result<Deployed> {
    let database_url = stack.database_url()?;
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
        parameters: parameters::emulated_sandbox(jwks_url),
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
        None => Ok(stack.postgres()?.url(name)),
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
        parameters: parameters::local(stack, &local)?,
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

/// Brings up only the database, migrated, and returns how to connect.
pub fn database(stack: &Stack) -> Result<String> {
    let url = start_postgres(stack)?;
    migrate(stack, &url)?;
    Ok(url)
}

/// Starts Postgres, unless it runs, and returns how to connect: the database of that name need not be there.
pub fn start_postgres(stack: &Stack) -> Result<String> {
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
