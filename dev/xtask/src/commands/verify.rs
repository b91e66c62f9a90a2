//! `make verify`: what needs release builds or much time. `make test` has the rest.

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

/// What [`suite::build`] builds.
const TARGETS: [&str; 6] = ["--test", "deployed", "--test", "release", "--test", "chaos"];

/// The target of AWS's arm64.
const ARM64: &str = "aarch64-unknown-linux-gnu";

/// Verifies all of it, on a stack of its own.
pub fn run(settings: &Settings) -> Result<()> {
    let root = &settings.root;
    let mut totals = Totals::default();
    with_stack(settings, TEST, |stack| {
        check::format(root)?;
        check::clippy(root, &stack.log("clippy"))?;
        let chromium = CHROMIUM.find_or_install(&stack.log("packages"))?;
        let valgrind = VALGRIND.find_or_install(&stack.log("packages"))?;
        let (mut programs, mut tests) = (Programs::new(), Vec::new());
        side_by_side([&mut || start::postgres_and_aws(stack).map(drop), &mut || {
            tests = suite::build(root, &TARGETS, &stack.log("tests-build"))?;
            programs = functions::build(&stack.tools, root, Profile::Release, &stack.log("build"))?;
            lint::run(stack)
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
        // Those first that count or measure what was built.
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

/// Builds the functions as they are deployed to AWS. Last, because it fills target/lambda with programs that do not run
/// here.
fn build_for_arm64(settings: &Settings) -> Result<()> {
    let root = &settings.root;
    if !has_target(root) {
        terminal::say(&format!(
            "  - arm64      not built: this Rust has no {ARM64} (rustup target add {ARM64})"
        ));
        return Ok(());
    }
    let tools = Tools::new(root);
    functions::build_release(&tools, root, &["--arm64"], &root.join(".local/logs/arm64.log"))
}

/// True if Rust can compile for arm64.
fn has_target(root: &Path) -> bool {
    let mut rustc = Command::new("rustc");
    let sysroot = process::output(rustc.current_dir(root).args(["--print", "sysroot"])).unwrap_or_default();
    Path::new(sysroot.trim()).join("lib/rustlib").join(ARM64).exists()
}
