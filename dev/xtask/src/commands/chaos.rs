//! Fault injection: `make chaos`, and its short form in `make test` and `make verify`.

use anyhow::{Context, Result, ensure};

use crate::{
    commands::{
        environment::{ALONE, set_deployed, with_stack},
        suite::{self, TestProgram},
    },
    stack::{
        Stack,
        settings::Settings,
        start::{self, Deployed},
    },
    tools::{process, terminal::Step},
};

/// Runs only the chaos tests, at full length.
pub fn run(settings: &Settings, tasks: u32, seed: Option<u64>) -> Result<()> {
    with_stack(settings, ALONE, |stack| {
        let (deployed, _) = start::start_and_deploy(stack, settings.profile)?;
        let tests = suite::build(&settings.root, &["--test", "chaos"], &stack.log("tests-build"))?;
        let mut command = TestProgram::find(&tests, "chaos")?.command();
        set_deployed(&mut command, stack, &deployed);
        command.env("CHAOS_TASKS", tasks.to_string());
        if let Some(seed) = seed {
            command.env("CHAOS_SEED", seed.to_string());
        }
        let status = command.status().context("cannot start the chaos tests")?;
        ensure!(status.success(), "the chaos tests failed ({status}): see above");
        Ok(())
    })
}

/// Runs the chaos tests at short length.
pub fn run_briefly(stack: &Stack, deployed: &Deployed, test: &TestProgram) -> Result<()> {
    let step = Step::start("tests", "chaos");
    let mut command = test.command();
    set_deployed(&mut command, stack, deployed);
    process::run(&mut command, &stack.log("chaos"), |line| {
        step.show(&format!("chaos: {}", line.trim()))
    })?;
    step.done("chaos: no lost work, no duplicated work");
    Ok(())
}
