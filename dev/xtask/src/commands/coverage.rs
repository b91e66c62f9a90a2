//! `make coverage`

use anyhow::{Context, Result, ensure};

use crate::{
    commands::environment::{InProcess, TEST, with_stack},
    stack::settings::Settings,
    tools::process,
};

/// Excluded files: developer tools, the tests themselves, and each `main.rs`, which only the
/// deployed functions run.
const NOT_COVERED: &str = "dev/|tests/|interview/|main.rs";

/// Runs the in-process tests with coverage: prints a table and writes HTML to coverage/.
pub fn run(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        stack.tools.install_cargo_llvm_cov()?;
        let in_process = InProcess::prepare(stack)?;
        let llvm_cov = |arguments: &[&str]| {
            let mut command = process::cargo("cargo", &settings.root);
            in_process.set(&mut command);
            command.env("PATH", stack.tools.path()?).arg("llvm-cov").args(arguments);
            let status = command.args(["--ignore-filename-regex", NOT_COVERED]).status();
            let status = status.context("cannot start cargo")?;
            ensure!(status.success(), "cargo llvm-cov failed ({status}): see above");
            Ok(())
        };
        llvm_cov(&[
            "--workspace",
            "--exclude",
            "xtask",
            "--lib",
            "--test",
            "functions",
            "--html",
            "--output-dir",
            "coverage",
        ])?;
        llvm_cov(&["report"])?;
        println!("\nLine by line: coverage/html/index.html");
        Ok(())
    })
}
