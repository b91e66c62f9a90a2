//! `make verify`: the checks that need release builds or much time. `make test` has the rest.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::{
    commands::{
        chaos, check,
        environment::{Environment, TEST, with_stack},
        lint,
        openapi::{self, Depth},
        queries,
        suite::{self, TestProgram, Totals},
    },
    stack::{
        functions::{self, Profile, Programs},
        settings::Settings,
        start,
    },
    tools::{
        debian::{CHROMIUM, VALGRIND},
        parallel::side_by_side,
        process,
        python::Tools,
        terminal,
    },
};

/// Arguments of [`suite::build`].
const TARGETS: [&str; 6] = ["--test", "deployed", "--test", "release", "--test", "chaos"];

/// Rust's target for AWS's arm64.
const ARM64: &str = "aarch64-unknown-linux-gnu";

/// Runs them on a separate stack.
pub fn run(settings: &Settings) -> Result<()> {
    let root = &settings.root;
    let mut totals = Totals::default();
    with_stack(settings, TEST, |stack| {
        check::format(root)?;
        check::clippy(root, &stack.log("clippy"))?;
        check::documentation(root, &stack.log("doc"))?;
        let chromium = CHROMIUM.find_or_install(&stack.log("packages"))?;
        let valgrind = VALGRIND.find_or_install(&stack.log("packages"))?;
        let (mut programs, mut tests) = (Programs::new(), Vec::new());
        side_by_side([&mut || start::postgres_and_aws(stack).map(drop), &mut || {
            tests = suite::build(root, &TARGETS, &stack.log("tests-build"))?;
            programs = functions::build(&stack.tools, root, Profile::Release, &stack.log("build"))?;
            lint::run(stack)?;
            lint::regions(stack)
        }])?;
        queries::check(root, &start::database(stack)?, &stack.log("queries"))?;

        let environment = Environment::prepare(stack, &programs, &chromium)?;
        let mut run = |name: &str| {
            let test = TestProgram::find(&tests, name)?;
            totals += test.run(&stack.log(name), |command| {
                environment.set(command);
                command.env("VALGRIND", &valgrind);
            })?;
            anyhow::Ok(())
        };
        // The sizes and instruction counts first.
        run("release")?;
        run("deployed")?;
        openapi::contract_test(stack, &environment.closed.api_url, Depth::Long)?;
        chaos::run_briefly(stack, &environment.open, TestProgram::find(&tests, "chaos")?)?;
        totals += Totals::one_passed();
        totals += Totals::one_passed();
        Ok(())
    })?;
    build_for_arm64(settings)?;
    terminal::print_seconds();
    totals.conclude()
}

/// Builds the functions as deployed to AWS. Last, because target/lambda then has programs that do
/// not run on this machine.
fn build_for_arm64(settings: &Settings) -> Result<()> {
    let root = &settings.root;
    let mut rustup = Command::new("rustup");
    rustup.current_dir(root).args(["target", "add", ARM64]);
    if !has_target(root) && process::output(&mut rustup).is_err() {
        terminal::say(&format!(
            "  - arm64      skipped: the target {ARM64} cannot be installed: rustup target add {ARM64}"
        ));
        return Ok(());
    }
    let tools = Tools::new(root);
    functions::build_release(&tools, root, &["--arm64"], &root.join(".local/logs/arm64.log"))
}

/// True if Rust's target for arm64 is installed.
fn has_target(root: &Path) -> bool {
    let mut rustc = Command::new("rustc");
    let sysroot = process::output(rustc.current_dir(root).args(["--print", "sysroot"])).unwrap_or_default();
    Path::new(sysroot.trim()).join("lib/rustlib").join(ARM64).exists()
}
