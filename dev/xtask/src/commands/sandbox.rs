//! `make deploy-sandbox` and `make destroy-sandbox`: template.yaml in the AWS account that the caller is logged in to.

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
    stack::{Stack, deploy, functions, package, parameters, settings::Settings},
    tools::{
        process,
        python::{Tool, Tools},
        terminal::{self, Step},
    },
};

/// The name of the CloudFormation stack, as in samconfig.toml.
const STACK_NAME: &str = "task-api-sandbox";

/// What the first `make deploy-sandbox` found out: parameters of template.yaml, and the two below.
type Answers = BTreeMap<String, String>;

/// The answer that names the account, so that a later command does not meet another one.
const ACCOUNT: &str = "Account";

/// The answer that names the region.
const REGION: &str = "Region";

/// `make deploy-sandbox`
pub fn deploy(settings: &Settings) -> Result<()> {
    let stack = Stack::local(settings)?;
    stack.tools.install(&[Tool::CargoLambda, Tool::Sam])?;
    let file = answers_file(&settings.root);
    let answers = match read_answers(&file)? {
        Some(answers) => {
            let caller = caller(&stack.tools, region(&answers)?)?;
            greet(&caller, region(&answers)?);
            ensure_same_account(&answers, &caller)?;
            answers
        }
        None => {
            let answers = first_time(&stack.tools)?;
            write_answers(&file, &answers)?;
            println!("\nSaved in {}; change it there.", file.display());
            answers
        }
    };
    let costs = fs::read_to_string(settings.root.join("docs/deploy.md"))?;
    println!(
        "\nWhat {STACK_NAME} costs a month while nobody uses it:\n\n{}\n",
        sandbox_costs(&costs)?
    );
    if !settings.yes && !terminal::agree(&format!("Deploy it to {}?", region(&answers)?))? {
        println!("Nothing was deployed.");
        return Ok(());
    }

    functions::build_release(&stack.tools, &stack.root, &["--arm64"], &stack.log("build"))?;
    let step = Step::start(
        "deploy",
        "template.yaml (Aurora takes a quarter of an hour the first time)",
    );
    let parameters = parameters::sandbox(&answers);
    let mark = package::digest_of_parameters(&stack.root, &parameters)?;
    package::mark_all(&stack.root.join("target/lambda"), &mark)?;
    let mut command = aws_command(Command::new(stack.tools.bin(Tool::Sam).join("sam")), region(&answers)?);
    command.current_dir(&stack.root).env("SAM_CLI_TELEMETRY", "0");
    command.args(["deploy", "--template-file", "template.yaml", "--config-env", "sandbox"]);
    command.args(["--no-confirm-changeset", "--no-progressbar", "--parameter-overrides"]);
    command.args(parameters);
    process::run(&mut command, &stack.log("deploy-sandbox"), |line| {
        if line.contains("_IN_PROGRESS") || line.contains("_COMPLETE") {
            step.says(line);
        }
    })
    .context("`make destroy-sandbox` removes what there is of it")?;
    let outputs = deploy::outputs_on_aws(&stack.tools, &stack.root, STACK_NAME, Some(region(&answers)?))?;
    step.done("template.yaml is deployed");
    announce(&outputs, &answers)
}

/// `make destroy-sandbox`
pub fn destroy(settings: &Settings) -> Result<()> {
    let tools = Tools::new(&settings.root);
    tools.install(&[Tool::Sam])?;
    let file = answers_file(&settings.root);
    let answers = read_answers(&file)?;
    let region = match &answers {
        Some(answers) => region(answers)?.to_owned(),
        None => ask_for_region(&tools)?,
    };
    let caller = caller(&tools, &region)?;
    greet(&caller, &region);
    if let Some(answers) = &answers {
        ensure_same_account(answers, &caller)?;
    }
    println!("\nThis deletes the stack {STACK_NAME}, its tasks and its database, without a backup.");
    if !settings.yes && !terminal::agree("Delete all of it?")? {
        println!("Nothing was deleted.");
        return Ok(());
    }

    let mut command = account(&tools, "destroy", &region);
    let status = command.args([STACK_NAME, &region]).status()?;
    ensure!(status.success(), "not all is deleted: run `make destroy-sandbox` again");
    if file.exists() {
        fs::remove_file(&file)?;
    }
    println!(
        "
Nothing of {STACK_NAME} remains that costs anything. What AWS itself keeps for a while:

  KMS           the key of the alarm topic, \"pending deletion\" for 7 days, free of charge
  API Gateway   the account's setting for log roles, if the sandbox had set it: it names a role that is gone
  CloudWatch    metrics and traces, which expire (15 months, 30 days)
"
    );
    Ok(())
}

fn answers_file(root: &Path) -> PathBuf {
    root.join(".local/sandbox.toml")
}

fn read_answers(file: &Path) -> Result<Option<Answers>> {
    match fs::read_to_string(file) {
        Ok(text) => {
            Ok(Some(toml::from_str(&text).with_context(|| {
                format!("{} is not what it should be", file.display())
            })?))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn write_answers(file: &Path, answers: &Answers) -> Result<()> {
    let text = format!(
        "# Where `make deploy-sandbox` deploys to, and with which parameters of template.yaml.\n{}",
        toml::to_string(answers)?
    );
    fs::create_dir_all(file.parent().context("it is in .local")?)?;
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn region(answers: &Answers) -> Result<&str> {
    let region = answers.get(REGION).context(".local/sandbox.toml names no Region")?;
    Ok(region)
}

/// Asks what only a person knows.
fn first_time(tools: &Tools) -> Result<Answers> {
    println!("\nThe first deployment from here: four questions. An empty answer takes what is in [brackets].\n");
    let region = ask_for_region(tools)?;
    let caller = caller(tools, &region)?;
    greet(&caller, &region);
    let issuer = terminal::ask(
        "Who issues the tokens (their `iss`), like https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_abc",
        "",
        |issuer| complain_unless(issuer.starts_with("https://"), "It begins with https://."),
    )?;
    let audience = terminal::ask("Whom they are for (their `aud`)", "task-api", |_| None)?;
    let email = terminal::ask(
        "Who gets a mail when an alarm goes off (nobody, if empty)",
        "",
        |email| {
            complain_unless(
                email.is_empty() || email.contains('@'),
                "A mail address has an @ in it.",
            )
        },
    )?;
    Ok(Answers::from([
        (ACCOUNT.to_owned(), caller.account),
        (REGION.to_owned(), region),
        ("JwtIssuer".to_owned(), issuer),
        ("JwtAudience".to_owned(), audience),
        ("AlarmEmail".to_owned(), email),
        ("ApiLogRole".to_owned(), caller.api_log_role),
    ]))
}

fn ask_for_region(tools: &Tools) -> Result<String> {
    let configured = process::output(Command::new(python(tools)).arg(script(tools)).arg("region"))?;
    terminal::ask("AWS region", configured.trim(), |region| {
        let ends_with_a_number = region.ends_with(|last: char| last.is_ascii_digit());
        complain_unless(
            region.split('-').count() >= 3 && ends_with_a_number,
            "It looks like eu-central-1.",
        )
    })
}

/// The table of docs/deploy.md, so that there is only one.
fn sandbox_costs(document: &str) -> Result<&str> {
    let (_, rest) = document
        .split_once("<!-- make deploy-sandbox shows this -->")
        .context("docs/deploy.md has the table of costs")?;
    let (table, _) = rest
        .split_once("<!-- to here -->")
        .context("the table of costs has an end")?;
    Ok(table.trim())
}

fn announce(outputs: &BTreeMap<String, String>, answers: &Answers) -> Result<()> {
    let api_url = outputs.get("ApiUrl").context("template.yaml has no output ApiUrl")?;
    let region = region(answers)?;
    println!("\nThe sandbox is deployed.\n");
    for (name, value) in outputs {
        println!("  {name:<24}{value}");
    }
    println!(
        "
It is public, and lets in who has a token of your issuer (the first request wakes the database: some 15 s):

  curl -i {api_url}/health
  curl -i {api_url}/tasks -H \"authorization: Bearer $TOKEN\"

  AWS_REGION={region} make dlq STACK={STACK_NAME}    its dead-letter queue
  make deploy-sandbox                     deploy what changed
  make destroy-sandbox                    delete all of it"
    );
    if answers.get("AlarmEmail").is_some_and(|email| !email.is_empty()) {
        println!("\nAlarms reach you once you have confirmed the mail from AWS.");
    }
    Ok(())
}

/// Whom AWS takes us for.
struct Caller {
    account: String,
    arn: String,
    /// The right value for the parameter ApiLogRole.
    api_log_role: String,
}

fn caller(tools: &Tools, region: &str) -> Result<Caller> {
    let text = process::output(account(tools, "look", region).arg(region)).context(
        "AWS does not say who you are. Log in (`aws sso login`, `aws login`), and name a profile that is not the default \
         one: AWS_PROFILE=…",
    )?;
    let found: Value = serde_json::from_str(&text)?;
    let text = |key: &str| Ok::<_, anyhow::Error>(found[key].as_str().context("a text")?.to_owned());
    Ok(Caller {
        account: text("account")?,
        arn: text("arn")?,
        api_log_role: text("api_log_role")?,
    })
}

fn greet(caller: &Caller, region: &str) {
    println!("AWS account {} in {region}, as {}", caller.account, caller.arn);
    if let Ok(endpoint) = std::env::var("AWS_ENDPOINT_URL") {
        println!("AWS_ENDPOINT_URL is set: this is not AWS, but {endpoint}");
    }
}

fn ensure_same_account(answers: &Answers, caller: &Caller) -> Result<()> {
    match answers.get(ACCOUNT) {
        Some(account) if *account != caller.account => bail!(
            "the sandbox is in the account {account}, and you are logged in to {}.\n\
             Log in to the other one; or delete .local/sandbox.toml to have a sandbox here as well",
            caller.account
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

fn complain_unless(fine: bool, complaint: &'static str) -> Option<&'static str> {
    (!fine).then_some(complaint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn answers_are_read_as_they_were_written() {
        let file = root().join("target/xtask-tests/sandbox/answers.toml");
        let _ = fs::remove_file(&file);
        assert_eq!(read_answers(&file).expect("no file is no error"), None);
        let answers = Answers::from([
            (ACCOUNT.to_owned(), "012345678901".to_owned()),
            ("AlarmEmail".to_owned(), String::new()),
        ]);
        write_answers(&file, &answers).expect("written");
        assert_eq!(read_answers(&file).expect("read"), Some(answers));
    }

    #[test]
    fn another_account_than_the_first_time_is_refused() {
        let caller = Caller {
            account: "111111111111".to_owned(),
            arn: "arn:aws:iam::111111111111:user/somebody".to_owned(),
            api_log_role: "create".to_owned(),
        };
        let answers = |account: &str| Answers::from([(ACCOUNT.to_owned(), account.to_owned())]);
        ensure_same_account(&answers("111111111111"), &caller).expect("the same");
        let error = ensure_same_account(&answers("222222222222"), &caller).expect_err("another");
        assert!(error.to_string().contains("222222222222"), "{error}");
    }

    #[test]
    fn the_table_of_costs_is_in_the_document() {
        let document = fs::read_to_string(root().join("docs/deploy.md")).expect("a document");
        let table = sandbox_costs(&document).expect("a table");
        assert!(
            table.starts_with("| sandbox |") && table.contains("together"),
            "{table}"
        );
    }
}
