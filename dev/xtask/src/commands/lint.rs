//! `make lint`

use std::process::Command;

use anyhow::Result;

use crate::{
    commands::openapi,
    stack::{
        Stack,
        aws::REGION,
        deploy::{sam, templates},
        regions,
    },
    tools::{process, python::Tool, terminal::Step},
};

fn run_logged(stack: &Stack, command: &mut Command) -> Result<()> {
    process::run(command.current_dir(&stack.root), &stack.log("lint"), |_| {})
}

/// Translates template.yaml for each environment, which the tests of the template read.
pub fn translate(stack: &Stack) -> Result<()> {
    stack.tools.install(&[Tool::Sam])?;
    let mut translate = Command::new(stack.tools.bin(Tool::Sam).join("python"));
    translate
        .env("AWS_DEFAULT_REGION", REGION)
        .args(["dev/tools/translate.py", "template.yaml"])
        .arg(templates(stack));
    run_logged(stack, &mut translate)
}

/// Lints template.yaml, its translation for each environment, bootstrap.yaml, and openapi.json.
pub fn run(stack: &Stack) -> Result<()> {
    let (tools, root) = (&stack.tools, &stack.root);
    tools.install(&[Tool::Checkov, Tool::Sam])?;
    let step = Step::start("lint", "sam validate --lint");
    let run = |command: &mut Command| run_logged(stack, command);
    run(sam(tools, root, "validate")?.arg("--lint"))?;

    step.show("translating template.yaml");
    translate(stack)?;

    step.show("cfn-lint");
    let file = |name: &str| templates(stack).join(format!("{name}.json"));
    let mut cfn_lint = Command::new(tools.bin(Tool::Sam).join("cfn-lint"));
    run(cfn_lint.args(["template.yaml", "bootstrap.yaml"]))?;
    // SAM has resolved a parameter and its mapping.
    let mut cfn_lint = Command::new(tools.bin(Tool::Sam).join("cfn-lint"));
    cfn_lint.args(["--ignore-checks", "W2001,W7001", "--template"]);
    run(cfn_lint.args(["local", "sandbox", "prod"].map(file)))?;

    step.show("checkov");
    let mut checkov = Command::new(tools.bin(Tool::Checkov).join("checkov"));
    checkov.args(["--config-file", ".checkov.yaml", "--file"]);
    run(checkov.args(["sandbox.resolved", "prod-with-options.resolved", "bootstrap"].map(file)))?;
    step.show("policies");
    // checkov's, because it has a copy of the Service Authorization Reference.
    let mut policies = Command::new(tools.bin(Tool::Checkov).join("python"));
    policies.arg("dev/tools/policies.py");
    run(policies.args(
        [
            "local.resolved",
            "sandbox.resolved",
            "prod-with-options.resolved",
            "bootstrap",
        ]
        .map(file),
    ))?;
    step.done("template.yaml and bootstrap.yaml pass SAM, cfn-lint and checkov");
    openapi::lint(tools, root, &stack.log("lint"))
}

/// Lints prod for every region that template.yaml accepts. It translates nothing: after [`run`].
pub fn regions(stack: &Stack) -> Result<()> {
    let regions = regions::accepted(&stack.root)?;
    let step = Step::start("lint", &format!("cfn-lint for {} regions", regions.len()));
    let mut cfn_lint = Command::new(stack.tools.bin(Tool::Sam).join("cfn-lint"));
    cfn_lint.current_dir(&stack.root).arg("--regions").args(&regions);
    cfn_lint.args(["--ignore-checks", "W2001,W7001", "--template"]);
    cfn_lint.arg(templates(stack).join("prod.json"));
    process::run(&mut cfn_lint, &stack.log("lint-regions"), |_| {})?;
    step.done(&format!("template.yaml passes cfn-lint in {} regions", regions.len()));
    Ok(())
}
