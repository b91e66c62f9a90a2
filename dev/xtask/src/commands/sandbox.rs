//! `make deploy-sandbox` and `make destroy-sandbox`: template.yaml in the AWS account that the user
//! is logged in to.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    stack::{Stack, deploy, functions, package, parameters, regions, settings::Settings},
    tools::{
        process,
        python::{Tool, Tools},
        terminal::{self, Step},
    },
};

/// The name of the CloudFormation stack, as in samconfig.toml.
const STACK_NAME: &str = "task-api-sandbox";

/// What the first `make deploy-sandbox` asked for and found out: parameters of template.yaml, the
/// account and the region.
type Choices = BTreeMap<String, String>;

/// The key of the account, which later commands compare with the current one.
const ACCOUNT: &str = "Account";

/// The key of the region.
const REGION: &str = "Region";

/// `make deploy-sandbox`
pub fn deploy(settings: &Settings) -> Result<()> {
    let stack = Stack::local(settings)?;
    stack.tools.install(&[Tool::CargoLambda, Tool::Sam])?;
    let file = choices_file(&settings.root);
    let choices = match read_choices(&file)? {
        Some(choices) => {
            regions::ensure_accepted(&stack.root, region(&choices)?)?;
            let identity = identity(&stack.tools, region(&choices)?)?;
            print_identity(&identity, region(&choices)?);
            ensure_same_account(&choices, &identity)?;
            print_concurrency(&identity, &stack.root)?;
            choices
        }
        None => {
            let choices = first_time(&stack)?;
            write_choices(&file, &choices)?;
            println!(
                "\nSaved in {}; to change these settings, edit the file.",
                file.display()
            );
            choices
        }
    };
    let costs = fs::read_to_string(settings.root.join("docs/deploy.md"))?;
    println!(
        "\nThe monthly costs of an idle {STACK_NAME}:\n\n{}\n",
        sandbox_costs(&costs)?
    );
    if !settings.yes && !terminal::confirm(&format!("Deploy to {}?", region(&choices)?))? {
        println!("Canceled; nothing was deployed.");
        return Ok(());
    }

    functions::build_release(&stack.tools, &stack.root, &["--arm64"], &stack.log("build"))?;
    let step = Step::start("deploy", "template.yaml (Aurora takes 15 minutes the first time)");
    let parameters = parameters::sandbox(&choices);
    let mark = package::digest_of_parameters(&stack.root, &parameters)?;
    package::mark_all(&stack.root.join("target/lambda"), &mark)?;
    let mut command = aws_command(Command::new(stack.tools.bin(Tool::Sam).join("sam")), region(&choices)?);
    command.current_dir(&stack.root).env("SAM_CLI_TELEMETRY", "0");
    command.args(["deploy", "--template-file", "template.yaml", "--config-env", "sandbox"]);
    command.args(["--no-confirm-changeset", "--no-progressbar", "--parameter-overrides"]);
    command.args(parameters);
    process::run(&mut command, &stack.log("deploy-sandbox"), |line| {
        if line.contains("_IN_PROGRESS") || line.contains("_COMPLETE") {
            step.show(line);
        }
    })
    .context("the deployment failed; `make destroy-sandbox` deletes what it has created")?;
    let outputs = deploy::outputs_on_aws(&stack.tools, &stack.root, STACK_NAME, Some(region(&choices)?))?;
    step.done("template.yaml is deployed");
    announce(&outputs, &choices)
}

/// `make destroy-sandbox`
pub fn destroy(settings: &Settings) -> Result<()> {
    let tools = Tools::new(&settings.root);
    tools.install(&[Tool::Sam])?;
    let file = choices_file(&settings.root);
    let choices = read_choices(&file)?;
    let region = match &choices {
        Some(choices) => region(choices)?.to_owned(),
        None => ask_for_region(&tools, |region| {
            let ends_with_a_number = region.ends_with(|last: char| last.is_ascii_digit());
            error_unless(
                region.split('-').count() >= 3 && ends_with_a_number,
                "A region looks like eu-central-1.",
            )
        })?,
    };
    let identity = identity(&tools, &region)?;
    print_identity(&identity, &region);
    if let Some(choices) = &choices {
        ensure_same_account(choices, &identity)?;
    }
    println!("\nThis deletes the stack {STACK_NAME} with its database and all tasks, without a backup.");
    if !settings.yes && !terminal::confirm("Delete everything?")? {
        println!("Canceled; nothing was deleted.");
        return Ok(());
    }

    let mut command = account(&tools, "destroy", &region);
    let status = command.args([STACK_NAME, &region]).status()?;
    ensure!(
        status.success(),
        "the sandbox is only partly deleted: run `make destroy-sandbox` again"
    );
    if file.exists() {
        fs::remove_file(&file)?;
    }
    println!(
        "
{STACK_NAME} is deleted. What remains costs nothing:

  KMS           the key of the alarm topic, \"pending deletion\" for 7 days
  API Gateway   the account's log role, if the sandbox had created it; all APIs of the region use it
  CloudWatch    metrics (they expire after 15 months) and traces (30 days)
"
    );
    Ok(())
}

fn choices_file(root: &Path) -> PathBuf {
    root.join(".local/sandbox.toml")
}

fn read_choices(file: &Path) -> Result<Option<Choices>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(toml::from_str(&text).with_context(|| {
            format!(
                "{} is malformed; correct it, or delete it to be asked again",
                file.display()
            )
        })?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn write_choices(file: &Path, choices: &Choices) -> Result<()> {
    let text = format!(
        "# The account, the region and the parameters of template.yaml for `make deploy-sandbox`.\n{}",
        toml::to_string(choices)?
    );
    fs::create_dir_all(file.parent().context("the file has no parent folder")?)?;
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn region(choices: &Choices) -> Result<&str> {
    let region = choices
        .get(REGION)
        .context(".local/sandbox.toml has no Region; add it, or delete the file to be asked again")?;
    Ok(region)
}

/// Asks the questions of the first deployment.
fn first_time(stack: &Stack) -> Result<Choices> {
    let tools = &stack.tools;
    let accepted = regions::accepted(&stack.root)?;
    println!("\nThe first deployment from this clone: four questions. Enter accepts the default in [brackets].\n");
    let region = ask_for_region(tools, |region| {
        error_unless(
            accepted.iter().any(|one| one == region),
            "template.yaml does not accept this region: docs/deploy.md, \"Regions\".",
        )
    })?;
    let identity = identity(tools, &region)?;
    print_identity(&identity, &region);
    print_concurrency(&identity, &stack.root)?;
    let issuer = terminal::ask(
        "Token issuer (`iss`), such as https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_abc",
        "",
        |issuer| error_unless(issuer.starts_with("https://"), "The issuer must begin with https://."),
    )?;
    let audience = terminal::ask("Token audience (`aud`)", "task-api", |_| None)?;
    let email = terminal::ask("Email address for alarms (empty for none)", "", |email| {
        error_unless(
            email.is_empty() || email.contains('@'),
            "An email address contains an @.",
        )
    })?;
    Ok(Choices::from([
        (ACCOUNT.to_owned(), identity.account),
        (REGION.to_owned(), region),
        ("JwtIssuer".to_owned(), issuer),
        ("JwtAudience".to_owned(), audience),
        ("AlarmEmail".to_owned(), email),
        ("ApiLogRole".to_owned(), identity.api_log_role),
    ]))
}

fn ask_for_region(tools: &Tools, validate: impl Fn(&str) -> Option<&'static str>) -> Result<String> {
    let configured = process::output(Command::new(python(tools)).arg(script(tools)).arg("region"))?;
    terminal::ask("AWS region", configured.trim(), validate)
}

/// The table of costs in docs/deploy.md.
fn sandbox_costs(document: &str) -> Result<&str> {
    let (_, rest) = document
        .split_once("<!-- make deploy-sandbox shows this -->")
        .context("docs/deploy.md has no line `<!-- make deploy-sandbox shows this -->` before the table of costs")?;
    let (table, _) = rest
        .split_once("<!-- to here -->")
        .context("docs/deploy.md has no line `<!-- to here -->` after the table of costs")?;
    Ok(table.trim())
}

fn announce(outputs: &BTreeMap<String, String>, choices: &Choices) -> Result<()> {
    let api_url = outputs
        .get("ApiUrl")
        .context("the deployed stack has no output ApiUrl")?;
    let region = region(choices)?;
    println!("\nThe sandbox is deployed.\n");
    for (name, value) in outputs {
        println!("  {name:<24}{value}");
    }
    println!(
        "
It is public and requires a token of your issuer. The first request for tasks takes about 15 s, because it resumes the
database:

  curl -i {api_url}/health
  curl -i {api_url}/tasks -H \"authorization: Bearer $TOKEN\"

  AWS_REGION={region} make dlq STACK={STACK_NAME}    its dead-letter queue
  make deploy-sandbox                     deploy changes
  make destroy-sandbox                    delete everything"
    );
    if choices.get("AlarmEmail").is_some_and(|email| !email.is_empty()) {
        println!("\nTo receive alarms, confirm the subscription in the email from AWS.");
    }
    Ok(())
}

/// The AWS identity that the user is logged in as.
struct Identity {
    account: String,
    arn: String,
    /// The right value for the parameter ApiLogRole.
    api_log_role: String,
    /// The concurrent executions of the account and region that no function has reserved.
    concurrency: u64,
}

fn identity(tools: &Tools, region: &str) -> Result<Identity> {
    let text = process::output(account(tools, "inspect", region).arg(region)).context(
        "cannot read your AWS identity. Log in with `aws sso login` or `aws login`; to use another profile than the \
         default one, set AWS_PROFILE=…",
    )?;
    let found: Value = serde_json::from_str(&text)?;
    let text = |key: &str| {
        let text = found[key].as_str();
        let text = text.with_context(|| format!("dev/tools/account.py printed no {key}"))?;
        Ok::<_, anyhow::Error>(text.to_owned())
    };
    Ok(Identity {
        account: text("account")?,
        arn: text("arn")?,
        api_log_role: text("api_log_role")?,
        concurrency: found["concurrency"]
            .as_u64()
            .context("dev/tools/account.py printed no concurrency")?,
    })
}

fn print_identity(identity: &Identity, region: &str) {
    println!("AWS account {} in {region}, as {}", identity.account, identity.arn);
    if let Ok(endpoint) = std::env::var("AWS_ENDPOINT_URL") {
        println!("AWS_ENDPOINT_URL is set: this is {endpoint}, not AWS");
    }
}

fn print_concurrency(identity: &Identity, root: &Path) -> Result<()> {
    let template = fs::read_to_string(root.join("template.yaml")).context("cannot read template.yaml")?;
    println!(
        "{}",
        compare_concurrency(identity.concurrency, needed_concurrency(&template)?)
    );
    Ok(())
}

/// The concurrent executions of a sandbox in the worst case, from the mapping `Capacity`.
fn needed_concurrency(template: &str) -> Result<u64> {
    let sandbox = template
        .lines()
        .find(|line| line.starts_with("    sandbox: {") && line.contains(" Burst: "));
    let number = sandbox
        .and_then(|line| line.split_once(" Concurrency: ")?.1.split(',').next()?.parse().ok())
        .context("template.yaml has no Concurrency of the sandbox in Capacity")?;
    Ok(number)
}

fn compare_concurrency(available: u64, needed: u64) -> String {
    let numbers = format!("Lambda runs {available} functions of this account and region at a time");
    if available >= needed {
        return format!("{numbers}; the sandbox needs {needed} at most.");
    }
    format!(
        "Warning: {numbers}, and the sandbox can need {needed}. Beyond that Lambda rejects requests (5xx) and \
         messages, which then reach the dead-letter queue sooner. Request more (Service Quotas, AWS Lambda, \
         \"Concurrent executions\"), or lower RequestsPerSecond and Burst in template.yaml."
    )
}

fn ensure_same_account(choices: &Choices, identity: &Identity) -> Result<()> {
    match choices.get(ACCOUNT) {
        Some(account) if *account != identity.account => bail!(
            "the sandbox is in account {account}, but you are logged in to {}.\n\
             Log in to {account}, or delete .local/sandbox.toml to create another sandbox in this account",
            identity.account
        ),
        _ => Ok(()),
    }
}

/// A command of dev/tools/account.py.
fn account(tools: &Tools, command: &str, region: &str) -> Command {
    let mut python = aws_command(Command::new(python(tools)), region);
    python.arg(script(tools)).arg(command);
    python
}

fn python(tools: &Tools) -> PathBuf {
    tools.bin(Tool::Sam).join("python")
}

fn script(tools: &Tools) -> PathBuf {
    tools.lock_folder().join("account.py")
}

fn aws_command(mut command: Command, region: &str) -> Command {
    command.env("AWS_REGION", region).env("AWS_DEFAULT_REGION", region);
    command
}

fn error_unless(valid: bool, error: &'static str) -> Option<&'static str> {
    (!valid).then_some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn choices_survive_a_round_trip() {
        let file = root().join("target/xtask-tests/sandbox/choices.toml");
        let _ = fs::remove_file(&file);
        assert_eq!(read_choices(&file).expect("a missing file is no error"), None);
        let choices = Choices::from([
            (ACCOUNT.to_owned(), "012345678901".to_owned()),
            ("AlarmEmail".to_owned(), String::new()),
        ]);
        write_choices(&file, &choices).expect("written");
        assert_eq!(read_choices(&file).expect("read"), Some(choices));
    }

    #[test]
    fn another_account_is_refused() {
        let identity = Identity {
            account: "111111111111".to_owned(),
            arn: "arn:aws:iam::111111111111:user/developer".to_owned(),
            api_log_role: "create".to_owned(),
            concurrency: 1000,
        };
        let choices = |account: &str| Choices::from([(ACCOUNT.to_owned(), account.to_owned())]);
        ensure_same_account(&choices("111111111111"), &identity).expect("the same");
        let error = ensure_same_account(&choices("222222222222"), &identity).expect_err("another");
        assert!(error.to_string().contains("222222222222"), "{error}");
    }

    #[test]
    fn too_small_concurrency_is_reported() {
        let template = fs::read_to_string(root().join("template.yaml")).expect("a template");
        let needed = needed_concurrency(&template).expect("a number");
        assert!((11..1000).contains(&needed), "{needed}");
        assert!(needed_concurrency("    sandbox: { Burst: 40 }").is_err());
        // The concurrency of many new accounts.
        let report = compare_concurrency(10, needed);
        assert!(report.starts_with("Warning: Lambda runs 10 functions"), "{report}");
        assert!(report.contains(&format!("can need {needed}")), "{report}");
        for enough in [needed, 1000] {
            let report = compare_concurrency(enough, needed);
            assert!(
                report.starts_with(&format!("Lambda runs {enough} functions")),
                "{report}"
            );
        }
    }

    #[test]
    fn document_has_table_of_costs() {
        let document = fs::read_to_string(root().join("docs/deploy.md")).expect("a document");
        let table = sandbox_costs(&document).expect("a table");
        assert!(
            table.starts_with("| sandbox |") && table.contains("together"),
            "{table}"
        );
    }
}
