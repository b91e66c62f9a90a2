//! `make openapi`, and what holds openapi.json against the API.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    commands::environment::{TEST, with_stack},
    stack::{
        Stack, TOKEN_LIFETIME,
        functions::Profile,
        settings::{Auth, Settings},
        start,
    },
    tools::{
        process,
        python::{Tool, Tools},
        terminal::Step,
    },
};

/// Writes openapi.json, as the `openapi` crate makes it from the functions.
pub fn refresh(root: &Path) -> Result<()> {
    let step = Step::start("openapi", "collecting it from the functions");
    let mut command = process::cargo("cargo", root);
    command.args(["run", "--quiet", "--bin", "openapi"]);
    fs::write(root.join("openapi.json"), process::output(&mut command)?)?;
    step.done("openapi.json is up to date");
    Ok(())
}

/// Reads openapi.json with Redocly CLI.
pub fn lint(tools: &Tools, root: &Path, log: &Path) -> Result<()> {
    let redocly = tools.install_redocly()?;
    let step = Step::start("lint", "openapi.json");
    let mut command = Command::new(redocly);
    command.current_dir(root).env("PATH", tools.path_with(Tool::Node)?);
    command.args(["lint", "openapi.json", "--config", "dev/tools/redocly/redocly.yaml"]);
    process::run(&mut command, log, |_| {})?;
    step.done("openapi.json is clean");
    Ok(())
}

/// How many requests [`contract_test`] sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Some 700, the same each time; a minute.
    Short,
    /// Thousands, others each time; four minutes. Schemathesis ends by naming the seed.
    Long,
}

/// Holds a closed API against openapi.json: sends what the document allows and what it forbids, follows its links, and
/// compares every answer with it.
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
    match depth {
        Depth::Short => command.args(["--seed", "1", "--max-examples", "15"]),
        Depth::Long => command.args(["--max-examples", "50", "--max-time", "240"]),
    };
    let step = Step::start("contract", "sending requests");
    let log = stack.log("contract");
    let tested = process::run(&mut command, &log, |_| {});
    tested.context("the API does not do what openapi.json says")?;
    step.done(&format!(
        "the API does what openapi.json says; its requests: {}",
        log.display()
    ));
    Ok(())
}

/// `make contract`: holds the API against openapi.json, at full length.
pub fn contract(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        let (_, programs) = start::start_and_deploy(stack, Profile::Local)?;
        let closed = start::deploy_another(stack, "closed", Auth::Closed, &programs)?;
        contract_test(stack, &closed.api_url, Depth::Long)
    })
}
