//! The proof of every incident (part of `make verify`): it breaks a stack so that checks fail, the
//! reference remedy repairs that, and the reset leaves the stack as it was.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
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
    spec::{self, CAUSES, Incident},
};

/// How long an incident may take until it shows.
const SHOWS: Duration = Duration::from_secs(60);

/// How long the stack may take after the remedy: a visibility timeout after the last retry.
const RECOVERS: Duration = Duration::from_secs(90);

/// Proves every incident, or the one that is named; within an exercise there are none.
pub fn prove(settings: &Settings, only: Option<&str>) -> Result<()> {
    let mut names = spec::names(&settings.root);
    names.retain(|name| only.is_none_or(|only| only == name));
    if names.is_empty() {
        return Ok(());
    }
    with_stack(settings, "incident", |stack| {
        start::start_and_deploy(stack, settings.profile)?;
        for name in &names {
            let began = Instant::now();
            let incident = Incident::read(&settings.root, name)?;
            prove_one(stack, name, incident).with_context(|| format!("the incident {name}"))?;
            terminal::say(&format!(
                "  ✓ proved     incident {name}: it shows, the remedy repairs it, the reset restores the stack ({} s)",
                began.elapsed().as_secs()
            ));
        }
        Ok(())
    })
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

fn prove_one(stack: &Stack, name: &str, incident: Incident) -> Result<()> {
    let live = Live::of(stack)?;
    grade::probe(&live, "Before").context("the stack does not work before")?;
    // Tasks and messages that are not the incident's.
    live.database()?
        .execute("insert into tasks (title, status, result, settled_at) values ('Mine', 'failed', 'no', now())")?;
    live.send(&live.dead_letters, "not the incident's")?;
    let before = picture(stack)?;
    let mut state = super::start(stack, name, incident)?;
    let outcome = prove_repair(&mut state);
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

fn prove_repair(state: &mut State) -> Result<()> {
    let failed = |checks: &[grade::Check]| -> BTreeSet<usize> {
        checks
            .iter()
            .enumerate()
            .filter(|(_, check)| !check.passed())
            .map(|(at, _)| at)
            .collect()
    };
    // Clients first meet it.
    thread::sleep(Duration::from_secs(3));
    let began = Instant::now();
    loop {
        let (checks, _) = grade::checks(state, Duration::from_secs(2))?;
        let failed = failed(&checks);
        ensure!(failed.contains(&3), "an unnamed cause passes");
        // One of the first two; nothing is doubled by the incident itself.
        if failed.contains(&0) || failed.contains(&1) {
            ensure!(!failed.contains(&2), "it doubles tasks:\n{}", grade::report(&checks));
            break;
        }
        ensure!(began.elapsed() < SHOWS, "no check fails:\n{}", grade::report(&checks));
    }
    let wrong = CAUSES.iter().find(|(cause, _)| *cause != state.incident.cause);
    let (wrong, _) = wrong.context("there are several causes")?;
    let convincing = state.incident.convincing.clone();
    let right = state.incident.cause.clone();
    state.scene.run(&state.incident.remedy).context("the remedy")?;
    for (cause, evidence) in [(*wrong, convincing.as_str()), (&right, "it was slow")] {
        state.name_cause(cause, evidence)?;
        ensure!(
            grade::times(state).detect.is_none(),
            "{cause} because {evidence:?} passes"
        );
    }
    state.name_cause(&right, &convincing)?;
    let began = Instant::now();
    loop {
        let (checks, at) = grade::checks(state, Duration::from_secs(20))?;
        if failed(&checks).is_empty() {
            state.proved = Some(at);
            break;
        }
        if began.elapsed() > RECOVERS {
            bail!("the remedy does not repair it:\n{}", grade::report(&checks));
        }
        thread::sleep(Duration::from_secs(1));
    }
    let times = grade::times(state);
    ensure!(times.detect.is_some(), "the cause was not recorded");
    ensure!(times.is_mitigated(), "the mitigation was not recorded");
    Ok(())
}
