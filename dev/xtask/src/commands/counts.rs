//! `make bench-counts`

use anyhow::Result;

use crate::{
    commands::{
        environment::{self, TEST, with_stack},
        suite::{self, TestProgram},
    },
    stack::{functions::Profile, settings::Settings, start},
    tools::debian::VALGRIND,
};

/// Writes the instruction counts that `make verify` compares with.
pub fn write(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        let valgrind = VALGRIND.find_or_install(&stack.log("packages"))?;
        let (deployed, _) = start::start_and_deploy(stack, Profile::Release)?;
        let tests = suite::build(&stack.root, &["--test", "release"], &stack.log("tests-build"))?;
        let totals = TestProgram::find(&tests, "release")?.run(&stack.log("release"), |command| {
            environment::set_deployed(command, stack, &deployed);
            command
                .env("VALGRIND", valgrind)
                .env("WRITE_INSTRUCTIONS", "1")
                .arg("instructions");
        })?;
        totals.conclude()
    })
}
