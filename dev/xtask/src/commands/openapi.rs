//! openapi.json: generating it, linting it, and testing the API against it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use toml::Table;

use crate::{
    commands::environment::{TEST, with_stack},
    stack::{
        Stack, TOKEN_LIFETIME,
        functions::Profile,
        settings::{Auth, LocalAws, Settings},
        start,
    },
    tools::{
        process,
        python::{Tool, Tools},
        terminal::Step,
    },
};

/// `make openapi`: generates openapi.json from the functions, with the crate `openapi`.
pub fn refresh(root: &Path) -> Result<()> {
    let step = Step::start("openapi", "generating openapi.json");
    let mut command = process::cargo("cargo", root);
    command.args(["run", "--quiet", "--bin", "openapi"]);
    fs::write(root.join("openapi.json"), process::output(&mut command)?)?;
    step.done("openapi.json is up to date");
    Ok(())
}

/// Lints openapi.json with Redocly CLI.
pub fn lint(tools: &Tools, root: &Path, log: &Path) -> Result<()> {
    let redocly = tools.install_redocly()?;
    let step = Step::start("lint", "openapi.json");
    let mut command = Command::new(redocly);
    command.current_dir(root).env("PATH", tools.path_with(Tool::Node)?);
    command.args(["lint", "openapi.json", "--config", "dev/tools/redocly/redocly.yaml"]);
    process::run(&mut command, log, |_| {})?;
    step.done("openapi.json passes Redocly");
    Ok(())
}

/// The length of a [`contract_test`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// About 700 requests, the same each time; a minute.
    Short,
    /// Thousands of requests, different each time; four minutes. Schemathesis prints the seed at
    /// the end.
    Long,
}

/// Tests an API against openapi.json: a closed one, except in LocalStack. Sends valid and invalid
/// requests, follows the document's links, and compares every response with it.
pub fn contract_test(stack: &Stack, api_url: &str, depth: Depth) -> Result<()> {
    let (tools, root) = (&stack.tools, &stack.root);
    tools.install(&[Tool::Contract])?;
    let mut config = root.join("tests/contract/schemathesis.toml");
    if stack.settings.aws == LocalAws::LocalStack {
        let text = fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
        config = stack.folder.join("schemathesis.toml");
        fs::create_dir_all(&stack.folder)?;
        fs::write(&config, for_localstack(&text)?)?;
    }
    let mut command = Command::new(tools.bin(Tool::Contract).join("schemathesis"));
    command
        .current_dir(root)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HYPOTHESIS_STORAGE_DIRECTORY", root.join(".local/hypothesis"));
    command.arg("--config-file").arg(config).args(["run", "openapi.json"]);
    command.args(["--url", api_url]);
    let token = stack.issuer()?.token("schemathesis", "admin", TOKEN_LIFETIME);
    command.args(["--header", &format!("Authorization: Bearer {token}")]);
    match depth {
        Depth::Short => command.args(["--seed", "1", "--max-examples", "15"]),
        Depth::Long => command.args(["--max-examples", "50", "--max-time", "240"]),
    };
    let step = Step::start("contract", "sending requests");
    let log = stack.log("contract");
    let tested = process::run(&mut command, &log, |_| {});
    tested.context("the API violates openapi.json")?;
    step.done(&format!(
        "the API conforms to openapi.json; all requests: {}",
        log.display()
    ));
    Ok(())
}

/// tests/contract/schemathesis.toml without what LocalStack's free image cannot pass.
fn for_localstack(config: &str) -> Result<String> {
    let mut config: Table = config.parse().context("schemathesis.toml is malformed")?;
    // It runs no authorizer, so requests without a token are accepted. No other header is required.
    let disabled = Table::from_iter([("enabled".to_owned(), false.into())]);
    for check in ["ignored_auth", "missing_required_header"] {
        table(&mut config, "checks").insert(check.to_owned(), disabled.clone().into());
    }
    // To TRACE and QUERY it responds with a 403 of its own. The others are schemathesis's default.
    let methods = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"];
    table(table(&mut config, "phases"), "coverage").insert("unexpected-methods".to_owned(), methods.to_vec().into());
    Ok(toml::to_string(&config)?)
}

/// The table of this name, which the file must have.
fn table<'a>(config: &'a mut Table, name: &str) -> &'a mut Table {
    let value = config.entry(name).or_insert_with(|| Table::new().into());
    value.as_table_mut().expect("a table")
}

/// `make contract`: the contract test at full length.
pub fn contract(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        let (_, programs) = start::start_and_deploy(stack, Profile::Local)?;
        let closed = start::deploy_another(stack, "closed", Auth::Closed, &programs)?;
        contract_test(stack, &closed.api_url, Depth::Long)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localstack_is_tested_without_authorizer_trace_and_query() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/contract/schemathesis.toml");
        let text = fs::read_to_string(file).expect("a file");
        let mut expected: Table = text.parse().expect("TOML");
        let config: Table = for_localstack(&text).expect("valid").parse().expect("TOML");
        let exceptions: Table = r#"
            [checks]
            ignored_auth.enabled = false
            missing_required_header.enabled = false
            [phases.coverage]
            unexpected-methods = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"]
        "#
        .parse()
        .expect("TOML");
        for (name, check) in exceptions["checks"].as_table().expect("checks") {
            expected["checks"]
                .as_table_mut()
                .expect("checks")
                .insert(name.clone(), check.clone());
        }
        let methods = exceptions["phases"]["coverage"]["unexpected-methods"].clone();
        let coverage = expected["phases"]["coverage"].as_table_mut().expect("a phase");
        coverage.insert("unexpected-methods".to_owned(), methods);
        assert_eq!(config, expected, "nothing else differs");
    }
}
