//! Builds the functions and deploys template.yaml, with the SAM CLI as for AWS.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};

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
    compile(stack, &[] as &[&str], "the functions are in target/lambda")
}

/// The same for AWS's arm64, into the same folders: cargo-lambda fills them anew at each build, so that whoever deploys
/// builds first.
pub fn build_for_arm64(stack: &Stack) -> Result<()> {
    compile(stack, &["--arm64"], "the functions are in target/lambda")
}

/// Builds what the functions are measured against, in the same way, and returns the folder.
pub fn build_references(stack: &Stack) -> Result<PathBuf> {
    let folder = stack.root.join("target/lambda-references");
    let arguments = ["--package", "empty", "--lambda-dir"].map(OsStr::new);
    let arguments = [&arguments[..], &[folder.as_os_str()]].concat();
    compile(stack, &arguments, "the empty function is in target/lambda-references")?;
    Ok(folder)
}

fn compile(stack: &Stack, options: &[impl AsRef<OsStr>], done: &str) -> Result<()> {
    let step = Step::start("build", "compiling the functions (some minutes the first time)");
    let mut command = process::cargo(stack.tools.bin(Tool::CargoLambda).join("cargo-lambda"));
    command.current_dir(&stack.root).env("PATH", stack.tools.path()?);
    process::run(
        command.args(["lambda", "build", "--release"]).args(options),
        &stack.log("build"),
        |line| step.follows_cargo(line),
    )?;
    step.done(done);
    Ok(())
}

/// Deploys a template into the emulator, as the stack `name`, and returns the stack's outputs. `shape` is for people.
pub fn deploy(
    stack: &Stack,
    name: &str,
    template: &Path,
    parameters: &[String],
    shape: &str,
) -> Result<BTreeMap<String, String>> {
    let step = Step::start("deploy", "template.yaml");
    mark_packages(&stack.root, parameters)?;
    let mut command = sam(&stack.tools, &stack.root, "deploy")?;
    // With its whole path, because SAM would look for it beside the template.
    command.arg("--config-file").arg(stack.root.join("samconfig.toml"));
    command.args(["--config-env", "local"]);
    // Named, because SAM would prefer what an earlier `sam build` may have left in .aws-sam.
    command.arg("--template-file").arg(template);
    command
        .args(["--stack-name", name, "--parameter-overrides"])
        .args(parameters);
    into_emulator(&mut command, stack);
    process::run(&mut command, &stack.log("deploy"), |line| {
        if line.starts_with("Uploading") || line.starts_with("Waiting") {
            step.says(line);
        }
    })?;

    step.says("reading the outputs");
    let outputs = outputs(stack, name)?;
    step.done(&format!("template.yaml is deployed, {shape}"));
    Ok(outputs)
}

/// The sandbox's shape of template.yaml, as far as the emulator goes: tools/emulated_sandbox.py.
pub fn emulated_sandbox(stack: &Stack, database_url: &str) -> Result<PathBuf> {
    let template = stack.folder.join("emulated-sandbox.json");
    let mut python = Command::new(stack.tools.bin(Tool::Sam).join("python"));
    python.current_dir(&stack.root).arg("tools/emulated_sandbox.py");
    process::output(python.arg("template.yaml").arg(&template).arg(database_url))?;
    Ok(template)
}

/// What a local deployment needs to be told.
pub struct Local<'a> {
    /// Its database, as its functions reach it.
    pub database_url: &'a str,
    /// Who may call its API.
    pub auth: Auth,
}

/// The parameters of a local deployment, as SAM takes them.
pub fn local_parameters(stack: &Stack, local: &Local) -> Result<Vec<String>> {
    let Local { database_url, auth } = local;
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

/// Checks template.yaml, what CloudFormation gets of it for each environment, and openapi.json.
pub fn lint(stack: &Stack) -> Result<()> {
    let (tools, root) = (&stack.tools, &stack.root);
    tools.install(&[Tool::CargoLambda, Tool::Checkov, Tool::Sam])?;
    let step = Step::start("lint", "sam validate --lint");
    let log = stack.log("lint");
    let run = |command: &mut Command| process::run(command.current_dir(root), &log, |_| {});
    run(sam(tools, root, "validate")?.arg("--lint"))?;

    step.says("translating template.yaml");
    let templates = templates(stack);
    let mut translate = Command::new(tools.bin(Tool::Sam).join("python"));
    translate.env("AWS_DEFAULT_REGION", REGION);
    run(translate.arg("tools/translate.py").arg("template.yaml").arg(&templates))?;

    step.says("cfn-lint");
    let file = |name: &str| templates.join(name).with_extension("json");
    let mut cfn_lint = Command::new(tools.bin(Tool::Sam).join("cfn-lint"));
    run(cfn_lint
        .arg("template.yaml")
        .args(["local", "sandbox", "prod"].map(file)))?;

    step.says("checkov");
    let mut checkov = Command::new(tools.bin(Tool::Checkov).join("checkov"));
    checkov.args(["--config-file", ".checkov.yaml", "--file"]);
    run(checkov.args(["sandbox.resolved", "prod.resolved"].map(|name| templates.join(format!("{name}.json")))))?;
    step.done("template.yaml is clean: SAM, cfn-lint, checkov");
    openapi::lint(tools, root, &log)
}

/// Where [`lint`] leaves what CloudFormation gets of template.yaml: see tools/translate.py.
pub fn templates(stack: &Stack) -> PathBuf {
    stack.folder.join("templates")
}

/// Puts a digest of template.yaml and its parameters into each package.
///
/// What a function's alias points to is a version, which keeps the environment that it was published with, and SAM
/// publishes another only when the package has changed. Without this a changed parameter would not reach the functions.
pub fn mark_packages(root: &Path, parameters: &[String]) -> Result<()> {
    let mut digest = Sha256::new_with_prefix(fs::read(root.join("template.yaml"))?);
    for parameter in parameters {
        digest.update(parameter);
        digest.update("\n");
    }
    let digest = format!("{:x}\n", digest.finalize());
    for package in fs::read_dir(root.join("target/lambda"))? {
        let mark = package?.path().join("parameters.sha256");
        // The same content is the same package.
        if fs::read_to_string(&mark).is_ok_and(|marked| marked == digest) {
            continue;
        }
        fs::write(&mark, &digest).with_context(|| format!("cannot write {}", mark.display()))?;
    }
    Ok(())
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
pub fn architecture() -> &'static str {
    match env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}
