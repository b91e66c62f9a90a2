//! The proof of incidents (part of `make verify`): each breaks a stack so that checks fail, the
//! reference remedy repairs that, wrong actions fail a check, and the reset leaves the stack as it
//! was.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::{
    commands::environment::with_stack,
    stack::{Stack, settings::Settings, start},
    tools::terminal,
};

use super::{
    State, grade,
    live::Live,
    restore,
    spec::{CAUSES, Incident, Wrong},
    times::times,
};
use crate::report::{self, Check};

/// How long an incident may take until it shows.
const SHOWS: Duration = Duration::from_secs(60);

/// How long the stack may take after the remedy: five receives of a message, with their
/// visibility timeouts.
const RECOVERS: Duration = Duration::from_secs(180);

/// Proves incidents, and passes on each that is proved.
pub fn prove<'a>(
    settings: &Settings,
    names: impl Iterator<Item = &'a str>,
    proved: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    let mut wrong = Vec::new();
    with_stack(settings, "incident", |stack| {
        start::start_and_deploy(stack, settings.profile)?;
        for name in names {
            let incident = Incident::read(&settings.root, name)?;
            match prove_one(stack, name, &incident) {
                Ok(()) => proved(name)?,
                Err(error) => {
                    terminal::say(&format!("  ✗ wrong      incident {name}: {error:#}"));
                    wrong.push(format!("the incident {name}: {error:#}"));
                }
            }
        }
        Ok(())
    })?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The stack as far as an incident may change it.
fn picture(stack: &Stack) -> Result<Vec<Value>> {
    let live = Live::of(stack)?;
    let mut picture = live.database()?.rows(
        "select title, status::text, result from tasks union all
         select rolname, rolcanlogin::text, rolconnlimit::text from pg_roles where rolname not like 'pg\\_%' union all
         select datname, '', '' from pg_database union all
         select nspname, '', '' from pg_namespace where nspname not like 'pg\\_%' union all
         select tgname, tgrelid::regclass::text, '' from pg_trigger where not tgisinternal
         order by 1, 2, 3",
    )?;
    let mapping = live.lambda(
        &format!("GET /2015-03-31/event-source-mappings/{}", live.mapping),
        &Value::Null,
    )?;
    picture.push(mapping["State"].clone());
    for queue in [&live.queue, &live.dead_letters] {
        let attributes = live.attributes(queue)?;
        for name in [
            "Policy",
            "RedrivePolicy",
            "VisibilityTimeout",
            "ApproximateNumberOfMessages",
        ] {
            picture.push(attributes[name].clone());
        }
    }
    for function in live.functions.keys().filter(|function| *function != "authorizer") {
        picture.push(live.version(function)?.into());
    }
    Ok(picture)
}

fn prove_one(stack: &Stack, name: &str, incident: &Incident) -> Result<()> {
    let said = |what: &str, began: Instant| {
        terminal::say(&format!(
            "  ✓ proved     incident {name}: {what} ({} s)",
            began.elapsed().as_secs()
        ));
    };
    let began = Instant::now();
    restored(stack, name, incident, repaired)?;
    said("it shows, the remedy repairs it, the reset restores the stack", began);
    for wrong in &incident.wrong {
        let began = Instant::now();
        restored(stack, name, incident, |state| fails(state, wrong)).with_context(|| format!("{:?}", wrong.action))?;
        said(&format!("\"{}\" fails {}", wrong.action, wrong.fails), began);
    }
    Ok(())
}

/// Begins an incident, does something, ends it, and compares the stack with that from before.
fn restored(stack: &Stack, name: &str, incident: &Incident, work: impl FnOnce(&mut State) -> Result<()>) -> Result<()> {
    let live = Live::of(stack)?;
    grade::probe(&live, "Before").context("the stack does not work before")?;
    // Tasks and messages that are not the incident's.
    live.database()?
        .execute("insert into tasks (title, status, result, settled_at) values ('Mine', 'failed', 'no', now())")?;
    live.send(&live.dead_letters, "not the incident's")?;
    let before = picture(stack)?;
    let mut state = super::start(stack, name, incident.clone())?;
    let outcome = work(&mut state);
    let remarks = restore::restore(stack, &state);
    outcome?;
    ensure!(remarks?.is_empty(), "the reset leaves differences");
    let after = picture(stack)?;
    ensure!(
        before == after,
        "the reset does not restore everything: {before:#?} became {after:#?}"
    );
    // The next incident finds an empty queue.
    live.database()?.execute("delete from tasks where title = 'Mine'")?;
    live.sqs("PurgeQueue", &serde_json::json!({"QueueUrl": live.dead_letters}))?;
    Ok(())
}

/// The names of the checks that fail.
fn failed(checks: &[Check]) -> Vec<&str> {
    let failed = checks.iter().filter(|check| !check.passed());
    failed.map(|check| check.name.as_str()).collect()
}

/// Waits until the incident shows: without action, service fails or accepted tasks are not kept.
fn shows(state: &State) -> Result<()> {
    // Clients first meet it.
    thread::sleep(Duration::from_secs(3));
    let began = Instant::now();
    loop {
        let (checks, _) = grade::checks(state, Duration::from_secs(2))?;
        let failed = failed(&checks);
        ensure!(failed.contains(&grade::CAUSE), "an unnamed cause passes");
        if failed.contains(&grade::SERVED) || failed.contains(&grade::KEPT) {
            ensure!(
                !failed.contains(&grade::ONCE),
                "it doubles tasks:\n{}",
                report::of_checks(&checks)
            );
            return Ok(());
        }
        ensure!(
            began.elapsed() < SHOWS,
            "no check fails:\n{}",
            report::of_checks(&checks)
        );
    }
}

/// Proves that the remedy repairs the incident, and that only the right cause with evidence passes.
fn repaired(state: &mut State) -> Result<()> {
    shows(state)?;
    let wrong = CAUSES.iter().find(|(cause, _)| *cause != state.incident.cause);
    let (wrong, _) = wrong.context("there are several causes")?;
    let convincing = state.incident.convincing.clone();
    let right = state.incident.cause.clone();
    state.scene.run(&state.incident.remedy).context("the remedy")?;
    for (cause, evidence) in [(*wrong, convincing.as_str()), (&right, "it was slow")] {
        state.name_cause(cause, evidence)?;
        ensure!(
            grade::cause(state).is_err() && times(state).detect.is_none(),
            "{cause} because {evidence:?} passes"
        );
    }
    state.name_cause(&right, &convincing)?;
    let began = Instant::now();
    loop {
        let (checks, at) = grade::checks(state, Duration::from_secs(20))?;
        state.graded(&checks, at);
        if failed(&checks).is_empty() {
            break;
        }
        ensure!(
            began.elapsed() < RECOVERS,
            "the remedy does not repair it:\n{}",
            report::of_checks(&checks)
        );
        thread::sleep(Duration::from_secs(1));
    }
    let times = times(state);
    ensure!(times.detect.is_some(), "the cause was not recorded");
    ensure!(times.mitigate.is_some(), "the mitigation was not recorded");
    ensure!(times.prove.is_some(), "the proof was not recorded");
    Ok(())
}

/// Proves that a wrong action fails its check.
fn fails(state: &State, wrong: &Wrong) -> Result<()> {
    shows(state)?;
    state.scene.run(&wrong.steps)?;
    // It takes effect.
    thread::sleep(Duration::from_secs(5));
    let (checks, _) = grade::checks(state, Duration::from_secs(5))?;
    ensure!(
        failed(&checks).contains(&wrong.fails.as_str()),
        "{} passes:\n{}",
        wrong.fails,
        report::of_checks(&checks)
    );
    Ok(())
}
