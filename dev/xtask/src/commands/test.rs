//! `make test`: all tests, on fresh stacks.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use anyhow::Result;

use crate::{
    commands::{
        chaos, dead_letters,
        environment::{ALONE, Environment, InProcess, TEST, set_deployed, with_stack},
        lint,
        openapi::{self, Depth},
        suite::{self, IN_PROCESS, TestProgram, Totals, run_in_process},
    },
    stack::{
        deploy,
        functions::{self, Profile, Programs},
        settings::Settings,
        start::{self, Deployed},
    },
    tools::{
        debian::CHROMIUM,
        parallel::{Handover, side_by_side},
        python::Tool,
        terminal,
    },
};

/// The test programs that need a deployment, a translated template, or a stack alone.
const NOT_IN_PROCESS: [&str; 4] = ["infrastructure", "deployed", "documentation", "chaos"];

/// Those that `make test T=…` includes. The others need a second stack, which takes too long to
/// start.
const FILTERED: [&str; 2] = ["infrastructure", "deployed"];

/// Arguments of [`suite::build`]: the in-process tests and these programs.
fn targets<'a>(programs: &[&'a str]) -> Vec<&'a str> {
    let programs = programs.iter().flat_map(|program| ["--test", program]);
    IN_PROCESS.into_iter().chain(programs).collect()
}

/// Runs every test, on fresh stacks, with functions of the profile `local`. Stacks, compiling and
/// linting run in parallel; each part starts as soon as its inputs are available.
pub fn run(settings: &Settings, filter: Option<&str>) -> Result<()> {
    if let Some(filter) = filter {
        return run_some(settings, filter);
    }
    let totals = Mutex::new(Totals::default());
    let add = |ran: Totals| *totals.lock().unwrap_or_else(PoisonError::into_inner) += ran;
    with_stack(settings, TEST, |stack| {
        with_stack(settings, ALONE, |alone| {
            let root = &settings.root;
            let (built, tests) = (Handover::<Built>::default(), Handover::<Vec<TestProgram>>::default());
            let (services, deployed) = (Handover::<InProcess>::default(), Handover::<Environment>::default());
            let (linted, documented) = (Handover::<()>::default(), Handover::<Deployed>::default());
            side_by_side([
                &mut || {
                    let programs = functions::build(&stack.tools, root, Profile::Local, &stack.log("build"))?;
                    let dead_letters = dead_letters::build(root)?;
                    built.provide(Built { programs, dead_letters });
                    tests.provide(suite::build(
                        root,
                        &targets(&NOT_IN_PROCESS),
                        &stack.log("tests-build"),
                    )?);
                    Ok(())
                },
                &mut || {
                    services.provide(InProcess::prepare(stack)?);
                    stack.tools.install(&Tool::ALWAYS)?;
                    let chromium = CHROMIUM.find_or_install(&stack.log("packages"))?;
                    deployed.provide(Environment::prepare(stack, &built.wait()?.programs, &chromium)?);
                    Ok(())
                },
                &mut || {
                    stack.tools.install(&Tool::ALWAYS)?;
                    start::postgres_and_aws(alone)?;
                    let built = built.wait()?;
                    let deployed = start::deploy_local(alone, &built.programs)?;
                    let tests = tests.wait()?;
                    let documentation = TestProgram::find(tests, "documentation")?;
                    add(documentation.run(&alone.log("documentation"), |command| {
                        set_deployed(command, alone, &deployed);
                        command.env("DEAD_LETTERS", &built.dead_letters);
                    })?);
                    documented.provide(deployed);
                    Ok(())
                },
                &mut || {
                    lint::run(stack)?;
                    linted.provide(());
                    Ok(())
                },
                // One after the other, because they are sensitive to timing; only the documents'
                // commands, which mostly wait, run in parallel with them.
                &mut || {
                    linted.wait()?;
                    let (tests, services, environment) = (tests.wait()?, services.wait()?, deployed.wait()?);
                    for test in tests
                        .iter()
                        .filter(|test| !NOT_IN_PROCESS.contains(&test.name.as_str()))
                    {
                        add(run_in_process(test, stack, &[], |command| services.set(command))?);
                    }
                    for name in ["infrastructure", "deployed"] {
                        let test = TestProgram::find(tests, name)?;
                        add(test.run(&stack.log(name), |command| environment.set(command))?);
                    }
                    openapi::contract_test(stack, &environment.closed.api_url, Depth::Short)?;
                    chaos::run_briefly(alone, documented.wait()?, TestProgram::find(tests, "chaos")?)?;
                    add(Totals::one_passed());
                    add(Totals::one_passed());
                    Ok(())
                },
            ])
        })
    })?;
    terminal::print_seconds();
    totals.into_inner().unwrap_or_else(PoisonError::into_inner).conclude()
}

/// The programs that are compiled before the tests.
struct Built {
    programs: Programs,
    dead_letters: PathBuf,
}

/// Runs only the tests whose names contain the filter, and starts only what they need.
fn run_some(settings: &Settings, filter: &str) -> Result<()> {
    let mut totals = Totals::default();
    with_stack(settings, TEST, |stack| {
        let root = &settings.root;
        let tests = suite::build(root, &targets(&FILTERED), &stack.log("tests-build"))?;
        let wanted: Vec<&TestProgram> = tests.iter().filter(|test| test.has(filter).unwrap_or(true)).collect();
        let wants = |name: &str| wanted.iter().any(|test| test.name == name);
        if wants("infrastructure") {
            lint::translate(stack)?;
        }
        let environment = match wants("deployed") {
            true => {
                let chromium = CHROMIUM.find_or_install(&stack.log("packages"))?;
                let (_, programs) = start::start_and_deploy(stack, Profile::Local)?;
                Some(Environment::prepare(stack, &programs, &chromium)?)
            }
            false => None,
        };
        let in_process = InProcess::prepare(stack)?;
        for test in wanted {
            totals += test.run(&stack.log(&test.name), |command| {
                match &environment {
                    Some(environment) => environment.set(command),
                    None => in_process.set(command),
                }
                command.env("TEMPLATES", deploy::templates(stack)).arg(filter);
            })?;
        }
        Ok(())
    })?;
    totals.conclude()
}
