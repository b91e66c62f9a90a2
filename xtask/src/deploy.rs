//! Builds the functions and deploys template.yaml, with the SAM CLI as for AWS.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    openapi, process,
    settings::Auth,
    stack::{self, Stack},
    tools::{Tool, Tools},
    ui::Step,
};

/// The name of the CloudFormation stack, as in samconfig.toml.
pub const STACK_NAME: &str = "task-api";

/// The region that local things pretend to be in.
pub const REGION: &str = "us-east-1";

/// The web pages that may call the local API.
const LOCAL_ORIGINS: &str = "http://localhost:*";

/// Builds what changed since the last time, for this machine.
pub fn build(stack: &Stack) -> Result<()> {
    compile(stack, &[])
}

/// The same for AWS's arm64, into the same folders: cargo-lambda fills them anew at each build, so that whoever deploys
/// builds first.
pub fn build_for_arm64(stack: &Stack) -> Result<()> {
    compile(stack, &["--arm64"])
}

fn compile(stack: &Stack, options: &[&str]) -> Result<()> {
    let step = Step::start("build", "compiling the functions (some minutes the first time)");
    let mut command = process::cargo(stack.tools.bin(Tool::CargoLambda).join("cargo-lambda"));
    command.current_dir(&stack.root).env("PATH", stack.tools.path()?);
    process::run(
        command.args(["lambda", "build", "--release"]).args(options),
        &stack.log("build"),
        |line| {
            let line = line.trim_start();
            if line.starts_with("Compiling") {
                step.says(line);
            }
        },
    )?;
    step.done("the functions are in target/lambda");
    Ok(())
}

/// A CloudFormation stack in the emulator.
pub struct Deployment<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its database.
    pub database_url: &'a str,
    /// Who may call its API.
    pub auth: Auth,
}

/// Deploys what was built into the emulator and returns the stack's outputs.
pub fn deploy(stack: &Stack, deployment: &Deployment) -> Result<BTreeMap<String, String>> {
    let Deployment { name, auth, .. } = deployment;
    let step = Step::start("deploy", "template.yaml");
    let mut command = sam(&stack.tools, &stack.root, "deploy")?;
    // Named, because SAM would prefer what an earlier `sam build` may have left in .aws-sam.
    command.args([
        "--template-file",
        "template.yaml",
        "--config-env",
        "local",
        "--stack-name",
        name,
    ]);
    command
        .arg("--parameter-overrides")
        .args(local_parameters(stack, deployment)?);
    into_emulator(&mut command, stack);
    process::run(&mut command, &stack.log("deploy"), |line| {
        if line.starts_with("Uploading") || line.starts_with("Waiting") {
            step.says(line);
        }
    })?;

    step.says("reading the outputs");
    let outputs = outputs(stack, name)?;
    step.done(&format!(
        "template.yaml is deployed, {}",
        match auth {
            Auth::Open => "open to everybody here",
            Auth::Closed => "closed: `make token`",
        }
    ));
    Ok(outputs)
}

/// The parameters of a local deployment, as SAM takes them.
pub fn local_parameters(stack: &Stack, deployment: &Deployment) -> Result<Vec<String>> {
    let Deployment { database_url, auth, .. } = deployment;
    // All of them each time: of those that are not named, the values of the last time would stay.
    Ok(vec![
        "Environment=local".to_owned(),
        format!("Architecture={}", architecture()),
        format!("DatabaseUrl={database_url}"),
        format!("CorsAllowOrigins={LOCAL_ORIGINS}"),
        format!("Auth={}", auth.as_str()),
        format!("JwtIssuer={}", local_issuer::ISSUER),
        format!("JwtAudience={}", local_issuer::AUDIENCE),
        // In quotes, without which SAM would take only its first character.
        format!("LocalJwks='{}'", stack.issuer()?.jwks()),
        format!(
            "LogLevel={}",
            env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned())
        ),
    ])
}

/// The outputs of what is deployed in the emulator.
pub fn outputs(stack: &Stack, name: &str) -> Result<BTreeMap<String, String>> {
    let mut command = sam(&stack.tools, &stack.root, "list")?;
    command.args(["stack-outputs", "--stack-name", name, "--output", "json"]);
    into_emulator(&mut command, stack);
    parse_outputs(&process::output(&mut command)?)
}

/// The outputs of a stack in the AWS account that the caller is logged in to; in their default region if none is named.
pub fn outputs_on_aws(stack: &Stack, name: &str, region: Option<&str>) -> Result<BTreeMap<String, String>> {
    let mut command = Command::new(stack.tools.bin(Tool::Sam).join("sam"));
    command.current_dir(&stack.root).env("SAM_CLI_TELEMETRY", "0");
    if let Some(region) = region {
        command.env("AWS_REGION", region).env("AWS_DEFAULT_REGION", region);
    }
    command.args(["list", "stack-outputs", "--stack-name", name, "--output", "json"]);
    parse_outputs(&process::output(&mut command)?)
}

fn parse_outputs(json: &str) -> Result<BTreeMap<String, String>> {
    let outputs: Value = serde_json::from_str(json)?;
    let text = |output: &Value, key: &str| output[key].as_str().map(str::to_owned);
    outputs
        .as_array()
        .context("a list of outputs")?
        .iter()
        .map(|output| Some((text(output, "OutputKey")?, text(output, "OutputValue")?)))
        .collect::<Option<_>>()
        .context("outputs with a key and a value")
}

/// Follows the functions' logs until interrupted.
pub fn follow_logs(stack: &Stack) -> Result<()> {
    let mut command = sam(&stack.tools, &stack.root, "logs")?;
    command.args(["--stack-name", STACK_NAME, "--tail"]);
    into_emulator(&mut command, stack);
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit()).status()?;
    Ok(())
}

/// Serves the routes with `cargo lambda watch`: a changed file rebuilds, the next request sees it.
pub fn dev(stack: &Stack, port: u16) -> Result<()> {
    process::ensure_free(port, "DEV_PORT", "the development server")?;
    let deployed = stack::up(stack)?;
    println!("\nServing http://localhost:{port} with hot reload (the first request of each route compiles it).\n");
    let mut command = process::cargo(stack.tools.bin(Tool::CargoLambda).join("cargo-lambda"));
    command.current_dir(&stack.root).env("PATH", stack.tools.path()?);
    command.args(["lambda", "watch", "--invoke-address", "127.0.0.1", "--concurrency", "4"]);
    command.args(["--invoke-port", &port.to_string()]);
    into_emulator(&mut command, stack);
    command
        .env("DATABASE_URL", &deployed.database_url)
        .env("QUEUE_URL", &deployed.task_queue_url)
        .env("DEAD_LETTER_QUEUE_URL", &deployed.dead_letter_queue_url)
        .env("CORS_ALLOW_ORIGINS", LOCAL_ORIGINS)
        // It asks no authorizer.
        .env("AUTH", Auth::Open.as_str());
    let status = command.status().context("cannot start cargo-lambda")?;
    anyhow::ensure!(status.success(), "cargo lambda watch ended: {status}");
    Ok(())
}

/// Checks template.yaml, what SAM makes of it, and openapi.json.
pub fn lint(stack: &Stack) -> Result<()> {
    let (tools, root) = (&stack.tools, &stack.root);
    tools.install(&[Tool::CargoLambda, Tool::Sam])?;
    let step = Step::start("lint", "sam validate --lint");
    let log = stack.log("lint");
    process::run(sam(tools, root, "validate")?.arg("--lint"), &log, |_| {})?;
    step.says("cfn-lint");
    let mut cfn_lint = Command::new(tools.bin(Tool::Sam).join("cfn-lint"));
    process::run(cfn_lint.current_dir(root).arg("template.yaml"), &log, |_| {})?;
    step.says("cfn-lint on the translated template");
    let translated = translated_template(stack);
    let mut translate = Command::new(tools.bin(Tool::Sam).join("python"));
    translate.env("AWS_DEFAULT_REGION", REGION);
    translate
        .current_dir(root)
        .arg("tools/translate.py")
        .arg("template.yaml")
        .arg(&translated);
    process::run(&mut translate, &log, |_| {})?;
    let mut cfn_lint = Command::new(tools.bin(Tool::Sam).join("cfn-lint"));
    process::run(cfn_lint.current_dir(root).arg(&translated), &log, |_| {})?;
    step.done("template.yaml is clean, raw and translated");
    openapi::lint(tools, root, &log)
}

/// Where [`lint`] leaves what SAM makes of template.yaml.
pub fn translated_template(stack: &Stack) -> PathBuf {
    stack.folder.join("translated.json")
}

/// A SAM command in the project's folder.
pub fn sam(tools: &Tools, root: &Path, command: &str) -> Result<Command> {
    let mut sam = Command::new(tools.bin(Tool::Sam).join("sam"));
    sam.current_dir(root)
        .arg(command)
        .env("PATH", tools.path()?)
        .env("SAM_CLI_TELEMETRY", "0")
        .env("AWS_DEFAULT_REGION", REGION);
    Ok(sam)
}

/// Sends every AWS call of the command into the emulator, whatever account the user is logged in to.
pub fn into_emulator(command: &mut Command, stack: &Stack) {
    command
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_SESSION_TOKEN")
        .env("AWS_ENDPOINT_URL", stack.emulator.url())
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", "local")
        .env("AWS_REGION", REGION)
        .env("AWS_DEFAULT_REGION", REGION);
}

/// The CPU of this machine as AWS calls it.
fn architecture() -> &'static str {
    match env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}
