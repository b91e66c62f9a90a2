//! openapi.json: generating it, linting it, and testing the API against it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

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

/// Tests an API against openapi.json: a closed one, except in LocalStack. Sends valid and invalid requests, follows the
/// document's links, and compares every response with it.
pub fn contract_test(stack: &Stack, api_url: &str, depth: Depth) -> Result<()> {
    let (tools, root) = (&stack.tools, &stack.root);
    tools.install(&[Tool::Contract])?;
    let mut command = Command::new(tools.bin(Tool::Contract).join("schemathesis"));
    command
        .current_dir(root)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HYPOTHESIS_STORAGE_DIRECTORY", root.join(".local/hypothesis"));
    command.args([
        "--config-file",
        "tests/contract/schemathesis.toml",
        "run",
        "openapi.json",
    ]);
    command.args(["--url", api_url]);
    let token = stack.issuer()?.token("schemathesis", "admin", TOKEN_LIFETIME);
    command.args(["--header", &format!("Authorization: Bearer {token}")]);
    if stack.settings.aws == LocalAws::LocalStack {
        // It runs no authorizer, and accepts requests without a token; to TRACE it responds with its
        // own 403.
        command.args(["--exclude-checks", "ignored_auth,missing_required_header,unsupported_method"]);
    }
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

/// `make contract`: the contract test at full length.
pub fn contract(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        let (_, programs) = start::start_and_deploy(stack, Profile::Local)?;
        let closed = start::deploy_another(stack, "closed", Auth::Closed, &programs)?;
        contract_test(stack, &closed.api_url, Depth::Long)
    })
}
