//! Deploys template.yaml into the emulator. If the template, its parameters or the set of functions
//! changed, the SAM CLI deploys them, as on AWS ([`template`]). Changed functions get their code
//! through the Lambda API, as with `sam sync --code` ([`code`]). If nothing changed, nothing is
//! deployed.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    stack::{
        Stack,
        aws::{Aws, CloudFormationStack, REGION},
        functions::{self, Programs},
        package,
        settings::LocalAws,
    },
    tools::{
        files, parallel, process,
        python::{Tool, Tools},
        terminal::Step,
    },
};

/// The name of the CloudFormation stack, as in samconfig.toml.
pub const STACK_NAME: &str = "task-api";

/// The time limit of a deployment. One to LocalStack takes 40 s, and 155 s on a busy machine. SAM
/// itself waits for half an hour, even if the stack was rolled back.
const DEPLOY_LIMIT: Duration = Duration::from_secs(600);

/// The time limit of deleting a stack, which takes seconds.
const DELETE_LIMIT: Duration = Duration::from_secs(120);

/// A deployment of template.yaml.
pub struct Deployment<'a> {
    /// The name of its CloudFormation stack.
    pub name: &'a str,
    /// All of its parameters, as SAM takes them: an omitted parameter would keep its previous
    /// value.
    pub parameters: Vec<String>,
    /// Set if the template is that of the sandbox.
    pub emulated_sandbox: Option<EmulatedSandbox<'a>>,
    /// A description for the terminal.
    pub shape: &'a str,
}

/// The sandbox's shape, as far as the emulator goes: dev/tools/emulated_sandbox.py.
pub struct EmulatedSandbox<'a> {
    /// The database of its functions.
    pub database_url: &'a str,
    /// The migrator's program, which runs during the deployment.
    pub migrator: &'a Path,
}

/// The recorded state of a deployment. There is no record while SAM deploys, nor after a failure.
#[derive(Serialize, Deserialize)]
struct Record {
    /// A digest of everything except the code.
    inputs: String,
    /// CloudFormation's time of the last update. Another time means another deployment, or older
    /// state after the emulator was killed.
    updated: String,
    outputs: BTreeMap<String, String>,
    /// The functions' names in Lambda, by folder.
    names: BTreeMap<String, String>,
    /// The functions whose code was replaced since SAM deployed.
    code: BTreeMap<String, Code>,
}

/// The code of a function.
#[derive(Serialize, Deserialize)]
struct Code {
    /// The digest of its program on this machine.
    program: String,
    /// The digest of its package in Lambda.
    package: String,
}

/// Deploys everything except the code, if it changed; returns whether it did. The functions may
/// still be compiling: new ones get a placeholder.
pub fn template(stack: &Stack, deployment: &Deployment) -> Result<bool> {
    let functions = functions::names(&stack.root)?;
    let inputs = inputs(stack, deployment, &functions)?;
    let aws = Aws::new(stack.emulator.url());
    let file = record_file(stack, deployment);
    let there = aws.stack(deployment.name)?;
    if let (Some(record), Some(there)) = (Record::read(&file)?, &there)
        && record.describes(&inputs, there)
        && record.has_all(&aws)?
    {
        return Ok(false);
    }
    let step = Step::start("deploy", "template.yaml");
    files::remove_if_exists(fs::remove_file(&file))?;
    let folder = stack.folder.join("deployments").join(deployment.name);
    let sandbox = deployment.emulated_sandbox.as_ref();
    let at_once = sandbox.map(|sandbox| ("migrator", sandbox.migrator));
    let mut template = package::prepare(&folder, &stack.root, &functions, at_once)?;
    match sandbox {
        Some(sandbox) => template = emulated_sandbox(stack, &template, sandbox.database_url)?,
        None => package::omit_tls_policy(&template)?,
    }
    if there.is_some() && stack.settings.aws == LocalAws::LocalStack {
        // LocalStack cannot update AWS::Lambda::Alias: the update would be rolled back, and leave
        // functions without their alias. Deploying again is also the way out of a failed state.
        step.show(&format!(
            "deleting the previous stack, which LocalStack cannot update (at most {} s)",
            DELETE_LIMIT.as_secs()
        ));
        aws.delete_stack(deployment.name, DELETE_LIMIT)
            .with_context(|| start_afresh(stack))?;
    }
    sam_deploy(stack, deployment, &template, |doing| step.show(doing)).with_context(|| {
        let status = match aws.stack(deployment.name) {
            Ok(Some(there)) => format!("the stack {} is {}", deployment.name, there.status),
            Ok(None) => format!("there is no stack {}", deployment.name),
            Err(error) => format!("{error:#}"),
        };
        format!("template.yaml was not deployed; {status}. {}", start_afresh(stack))
    })?;
    let there = aws.stack(deployment.name)?;
    let there = there.with_context(|| format!("SAM succeeded, but there is no stack {}", deployment.name))?;
    Record::of(inputs, there, &functions).write(&file)?;
    step.done(&format!("template.yaml is deployed, {}", deployment.shape));
    Ok(true)
}

/// Replaces the code of the functions whose programs changed; returns their names and the stack's
/// outputs.
pub fn code(
    stack: &Stack,
    deployment: &Deployment,
    programs: &Programs,
) -> Result<(Vec<String>, BTreeMap<String, String>)> {
    let file = record_file(stack, deployment);
    let mut record = Record::read(&file)?.context("template.yaml is not deployed; deploy it: make up")?;
    let aws = Aws::new(stack.emulator.url());
    let changed = record.changed(&aws, programs)?;
    let swapped = record.swap(&aws, programs, &changed);
    record.write(&file)?;
    swapped?;
    Ok((
        changed.into_iter().map(|(function, _)| function).collect(),
        record.outputs,
    ))
}

fn record_file(stack: &Stack, deployment: &Deployment) -> PathBuf {
    let folder = stack.folder.join("deployments");
    folder.join(deployment.name).join("deployed.json")
}

/// A digest of everything that is deployed except the functions' code.
fn inputs(stack: &Stack, deployment: &Deployment, functions: &[String]) -> Result<String> {
    let mut digest = Sha256::new();
    for file in ["template.yaml", "samconfig.toml", "dev/tools/emulated_sandbox.py"] {
        digest.update(fs::read(stack.root.join(file)).with_context(|| format!("cannot read {file}"))?);
    }
    for text in deployment.parameters.iter().chain(functions) {
        digest.update(text);
        digest.update("\n");
    }
    Ok(format!("{:x}", digest.finalize()))
}

fn sam_deploy(stack: &Stack, deployment: &Deployment, template: &Path, show: impl Fn(&str)) -> Result<()> {
    let mut command = sam(&stack.tools, &stack.root, "deploy")?;
    // An absolute path, because SAM looks for a relative one beside the template.
    command.arg("--config-file").arg(stack.root.join("samconfig.toml"));
    command.args(["--config-env", "local"]);
    // Explicit, because SAM prefers a template that an earlier `sam build` may have left in
    // .aws-sam.
    command.arg("--template-file").arg(template);
    command.args(["--stack-name", deployment.name, "--parameter-overrides"]);
    command.args(&deployment.parameters);
    into_emulator(&mut command, stack);
    let log = stack.log(&format!("deploy-{}", deployment.name));
    process::run_within(Some(DEPLOY_LIMIT), &mut command, &log, |line| {
        if line.starts_with("Uploading") {
            show(line);
        } else if line.starts_with("Waiting") {
            show(&format!("{line} (at most {} s)", DEPLOY_LIMIT.as_secs()));
        }
    })
}

/// What to do if a deployment failed for a reason that is not in the template.
fn start_afresh(stack: &Stack) -> &'static str {
    match stack.settings.aws {
        LocalAws::LocalStack if stack.containers.is_none() => {
            "To deploy to an empty LocalStack (Postgres keeps the tasks): docker compose restart localstack"
        }
        LocalAws::LocalStack => {
            "To deploy to an empty LocalStack (Postgres keeps the tasks): make down AWS=localstack, \
             then make up AWS=localstack"
        }
        LocalAws::Ministack => {
            "If the template is not the reason: make down, then make up; or, if the data may be deleted, \
             make clean-data, then make up"
        }
    }
}

impl Record {
    fn of(inputs: String, there: CloudFormationStack, functions: &[String]) -> Self {
        // Only those in the template: the local one has no migrator.
        let names = functions.iter().filter_map(|function| {
            let name = there.functions.get(&logical_id(function))?;
            Some((function.clone(), name.clone()))
        });
        Self {
            inputs,
            names: names.collect(),
            updated: there.updated,
            outputs: there.outputs,
            code: BTreeMap::new(),
        }
    }

    fn read(file: &Path) -> Result<Option<Self>> {
        match fs::read(file) {
            // A malformed file counts as no record: everything is deployed again.
            Ok(json) => Ok(serde_json::from_slice(&json).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    fn write(&self, file: &Path) -> Result<()> {
        let new = file.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, file).with_context(|| format!("cannot write {}", file.display()))
    }

    /// True if CloudFormation has this deployment, with these inputs.
    fn describes(&self, inputs: &str, there: &CloudFormationStack) -> bool {
        self.inputs == inputs && there.is_complete() && self.updated == there.updated
    }

    /// True if Lambda has every function.
    fn has_all(&self, aws: &Aws) -> Result<bool> {
        for name in self.names.values() {
            if aws.code(name)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The functions whose program differs from Lambda's, with the program's digest.
    fn changed(&self, aws: &Aws, programs: &Programs) -> Result<Vec<(String, String)>> {
        let is_current = |function: &str, program: &str, package: Option<String>| {
            let code = self.code.get(function);
            code.is_some_and(|code| code.program == program && Some(&code.package) == package.as_ref())
        };
        let compare = |(function, name): (&String, &String)| -> Result<Option<(String, String)>> {
            let program = package::digest_of_program(program(programs, function)?)?;
            let package = aws.code(name)?;
            Ok((!is_current(function, &program, package)).then(|| (function.clone(), program)))
        };
        let compared: Vec<Result<_>> = parallel::all(self.names.iter().map(|named| move || compare(named)));
        let mut changed = Vec::new();
        for function in compared {
            changed.extend(function?);
        }
        Ok(changed)
    }

    /// Replaces the code of these functions in parallel, and records those that succeeded.
    fn swap(&mut self, aws: &Aws, programs: &Programs, changed: &[(String, String)]) -> Result<()> {
        let swap = |function: &str| {
            let zip = package::zip_program(program(programs, function)?)?;
            aws.replace_code(&self.names[function], &zip)
        };
        let swapped: Vec<Result<String>> = parallel::all(changed.iter().map(|(function, _)| move || swap(function)));
        let mut outcome = Ok(());
        for ((function, program), package) in changed.iter().zip(swapped) {
            match package {
                Ok(package) => {
                    let program = program.clone();
                    self.code.insert(function.clone(), Code { program, package });
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}

fn program<'a>(programs: &'a Programs, function: &str) -> Result<&'a Path> {
    match programs.get(function) {
        Some(program) => Ok(program),
        None => bail!("the function {function} is deployed, but has no folder in functions/; deploy again: make up"),
    }
}

/// A function's logical id in template.yaml: `GetTaskFunction` for `get-task`.
pub fn logical_id(function: &str) -> String {
    let words = function.split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    words.collect::<String>() + "Function"
}

fn emulated_sandbox(stack: &Stack, template: &Path, database_url: &str) -> Result<PathBuf> {
    let output = template.with_file_name("emulated-sandbox.json");
    let mut python = Command::new(stack.tools.bin(Tool::Sam).join("python"));
    python.current_dir(&stack.root).arg("dev/tools/emulated_sandbox.py");
    process::output(python.arg(template).arg(&output).arg(database_url))?;
    Ok(output)
}

/// The outputs of a stack in the AWS account that the user is logged in to; `None` means the
/// default region.
pub fn outputs_on_aws(
    tools: &Tools,
    root: &Path,
    name: &str,
    region: Option<&str>,
) -> Result<BTreeMap<String, String>> {
    let mut command = Command::new(tools.bin(Tool::Sam).join("sam"));
    command.current_dir(root).env("SAM_CLI_TELEMETRY", "0");
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
        .context("`sam list stack-outputs` did not print a list")?
        .iter()
        .map(|output| Some((text(output, "OutputKey")?, text(output, "OutputValue")?)))
        .collect::<Option<_>>()
        .context("`sam list stack-outputs` printed an output without key or value")
}

/// Where `make lint` writes the translated templates that CloudFormation gets: see
/// dev/tools/translate.py.
pub fn templates(stack: &Stack) -> PathBuf {
    stack.folder.join("templates")
}

/// A SAM command in the project's folder.
pub fn sam(tools: &Tools, root: &Path, command: &str) -> Result<Command> {
    let mut sam = sam_program("sam", tools, root)?;
    sam.arg(command);
    Ok(sam)
}

/// `sam logs`, for more functions than it follows by itself.
pub fn sam_logs(tools: &Tools, root: &Path) -> Result<Command> {
    let mut python = sam_program("python", tools, root)?;
    python.arg("dev/tools/logs.py");
    Ok(python)
}

fn sam_program(name: &str, tools: &Tools, root: &Path) -> Result<Command> {
    let mut program = Command::new(tools.bin(Tool::Sam).join(name));
    program
        .current_dir(root)
        .env("PATH", tools.path()?)
        .env("SAM_CLI_TELEMETRY", "0")
        .env("AWS_DEFAULT_REGION", REGION);
    Ok(program)
}

/// Directs every AWS call of the command to the stack's emulator, whatever account the user is
/// logged in to.
pub fn into_emulator(command: &mut Command, stack: &Stack) {
    into_aws_at(command, &stack.emulator.url());
}

/// Directs every AWS call of the command to this URL.
pub fn into_aws_at(command: &mut Command, url: &str) {
    command
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_SESSION_TOKEN")
        .env("AWS_ENDPOINT_URL", url)
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", "local")
        .env("AWS_REGION", REGION)
        .env("AWS_DEFAULT_REGION", REGION);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_names_each_function_after_its_folder() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let template = fs::read_to_string(root.join("template.yaml")).expect("a template");
        for function in functions::names(&root).expect("names") {
            let (_, resource) = template
                .split_once(&format!("\n  {}:\n", logical_id(&function)))
                .unwrap_or_else(|| panic!("template.yaml has no {function}"));
            let code = resource.lines().find_map(|line| line.trim().strip_prefix("CodeUri: "));
            assert_eq!(code, Some(format!("target/lambda/{function}").as_str()));
        }
    }

    #[test]
    fn malformed_record_is_none() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask-tests/record");
        fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("deployed.json");
        let _ = fs::remove_file(&file);
        assert!(Record::read(&file).expect("no file").is_none());
        fs::write(&file, "{\"inputs\":").expect("written");
        assert!(Record::read(&file).expect("half a file").is_none());
    }
}
