//! `make verify-containers`: everything that needs Docker, under a project name of its own, so that
//! the volumes of `docker compose up` are not touched.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{
    commands::{
        environment::set_deployed,
        openapi::{self, Depth},
        suite::{self, TestProgram, Totals},
    },
    stack::{
        Stack,
        containers::{self, Containers},
        deploy::{self, STACK_NAME},
        functions::Programs,
        settings::{Auth, Settings},
        start,
    },
    tools::{
        debian::CHROMIUM,
        http, process,
        python::Tool,
        terminal::{self, Step},
    },
};

/// The tests of the deployed stack that LocalStack's free image cannot pass, with the reason.
const NOT_ON_LOCALSTACK: [(&str, &str); 6] = [
    ("authentication::", "it runs no authorizer"),
    ("of_closed_api", "it runs no authorizer"),
    ("burst_of_requests", "it starts a container for each concurrent request"),
    ("compressed_body", "its API Gateway passes deflated bodies on"),
    ("invocations::", "only the emulator records invocations"),
    ("sandbox::", "the sandbox is a closed API"),
];

/// Verifies docker-compose.yml, then the deployed stack in LocalStack.
pub fn run(settings: &Settings) -> Result<()> {
    containers::ensure_docker("make verify-containers")?;
    containers::ensure_none()?;
    let stack = Stack::separate_in_containers(settings)?;
    let _lock = stack.lock()?;
    // What an interrupted run has left.
    stack.clean()?;
    let mut totals = Totals::default();
    let work = |totals: &mut Totals| {
        *totals += only_docker(&stack)?;
        stack.clean()?;
        *totals += localstack(&stack, settings)?;
        anyhow::Ok(())
    };
    let outcome = work(&mut totals);
    let cleaned = stack.clean();
    outcome?;
    cleaned?;
    terminal::print_seconds();
    totals.conclude()
}

/// What docs/deploy.md promises of `docker compose up --wait`.
fn only_docker(stack: &Stack) -> Result<Totals> {
    let compose = stack.containers()?;
    let url = up(stack, compose)?;

    let step = Step::start("compose", "requests and logs");
    let id = http::task_is_processed(&format!("{url}/tasks"))?;
    let exec = |arguments: &[&str]| -> Result<String> {
        let mut command = compose.compose();
        process::output(command.args(["exec", "-T", "api"]).args(arguments))
    };
    ensure!(exec(&["id", "-u"])?.trim() == "1000", "the container runs as root");
    exec(&["test", "!", "-e", "/var/run/docker.sock"]).context("the container has Docker's socket")?;
    let has_logs = || {
        let logs = process::output(compose.compose().args(["logs", "--no-color", "api"]));
        logs.is_ok_and(|logs| logs.contains("REPORT RequestId"))
    };
    process::wait_until(Duration::from_secs(30), has_logs).context("`docker compose logs api` shows no request")?;
    step.done("a task is processed; its logs are shown");

    let step = Step::start("compose", "the tests in a container");
    let mut tests = compose.compose();
    tests.args(["run", "--rm", "-T", "dev", "make", "test", "T=totals"]);
    process::run(&mut tests, &stack.log("compose-dev"), |line| step.show(line))?;
    step.done("docker compose run --rm dev make test T=totals");

    process::run(compose.compose().arg("down"), &stack.log("compose-down"), |_| {})?;
    let url = up(stack, compose)?;
    let task = http::get(&format!("{url}/tasks/{id}")).context("`docker compose down` has deleted the task")?;
    ensure!(task["status"] == "completed", "{task}");
    stack.clean()?;
    let volumes = process::output(compose.list("volume").arg("--quiet"))?;
    ensure!(
        volumes.is_empty(),
        "`docker compose down --volumes` has left:\n{volumes}"
    );
    Ok(Totals::one_passed())
}

/// Starts the API; returns its URL.
fn up(stack: &Stack, compose: &Containers) -> Result<String> {
    let (step, began) = (Step::start("compose", "docker compose up --wait"), Instant::now());
    let mut up = compose.compose();
    process::run(up.args(["up", "--wait", "api"]), &stack.log("compose-up"), |line| {
        step.show(line)
    })
    .context("`docker compose up --wait` failed")?;
    let url = process::output(compose.compose().args(["exec", "-T", "api", "make", "url"]))?;
    let seconds = began.elapsed().as_secs();
    step.done(&format!("docker compose up --wait took {seconds} s"));
    Ok(url.trim().to_owned())
}

/// The deployed tests and the contract test, against LocalStack in its open mode.
fn localstack(stack: &Stack, settings: &Settings) -> Result<Totals> {
    let tests = suite::build(&stack.root, &["--test", "deployed"], &stack.log("tests-build"))?;
    stack.tools.install(&[Tool::Contract])?;
    let chromium = CHROMIUM.find_or_install(&stack.log("packages"))?;
    let (deployed, programs) = start::start_and_deploy(stack, settings.profile)?;
    let mut totals = TestProgram::find(&tests, "deployed")?.run(&stack.log("deployed"), |command| {
        set_deployed(command, stack, &deployed);
        command.env("CHROMIUM", &chromium);
        for (tests, reason) in NOT_ON_LOCALSTACK {
            terminal::say(&format!("  - skipped    {tests} {reason}"));
            command.args(["--skip", tests]);
        }
    })?;
    openapi::contract_test(stack, &deployed.api_url, Depth::Short)?;
    totals += Totals::one_passed();
    deploy_again(stack, &deployed.api_url, programs)?;
    totals += Totals::one_passed();
    Ok(totals)
}

/// Deploys changed code, then a changed parameter, which LocalStack itself cannot update.
fn deploy_again(stack: &Stack, api_url: &str, mut programs: Programs) -> Result<()> {
    let step = Step::start("localstack", "deploying changed code");
    let mut deployment = start::local_deployment(stack, STACK_NAME, &stack.database_url()?, Auth::Open)?;
    let health = programs["health"].clone();
    let root = programs.insert("api-info".to_owned(), health).context("a function")?;
    let (swapped, _) = deploy::code(stack, &deployment, &programs)?;
    ensure!(swapped == ["api-info"], "{swapped:?} swapped");
    let served = http::get(&format!("{api_url}/")).map(|document| document["endpoints"].is_object());
    ensure!(!served.unwrap_or_default(), "the previous code still serves");
    step.done("changed code serves");

    programs.insert("api-info".to_owned(), root);
    for parameter in &mut deployment.parameters {
        if parameter.starts_with("LogLevel=") {
            "LogLevel=debug".clone_into(parameter);
        }
    }
    ensure!(
        deploy::template(stack, &deployment)?,
        "a changed parameter was not deployed"
    );
    deploy::code(stack, &deployment, &programs)?;
    let step = Step::start("localstack", "requests after a changed parameter");
    let api_url = start::deployed(stack)?.api_url;
    ensure!(
        http::get(&format!("{api_url}/"))?["endpoints"].is_object(),
        "the code was not restored"
    );
    http::task_is_processed(&format!("{api_url}/tasks"))?;
    step.done("a changed parameter is deployed, and a task is processed");
    Ok(())
}
