//! The checks of an incident: service restored, nothing lost, nothing doubled, what broke it gone,
//! cause named.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    State,
    history::{Kept, timeline},
    live::{Live, now},
    spec::Scene,
    traffic::{self, Accepted, Pause, STORED},
};
use crate::report::Check;

/// How long a new task may take, from the request to its result.
pub const PROMPT: Duration = Duration::from_secs(10);

/// How many new tasks must be processed, one after the other.
const PROBES: usize = 3;

/// The checks, in their order.
pub const SERVED: &str = "new_tasks_are_processed_within_10_seconds_each";
pub const KEPT: &str = "every_accepted_task_is_stored_and_completed_with_its_result";
pub const ONCE: &str = "no_task_was_created_or_completed_twice";
pub const GONE: &str = "what_broke_the_stack_is_gone";
pub const CAUSE: &str = "the_root_cause_is_named_with_evidence";

/// Checks an incident's stack, and returns when. Waits for accepted tasks for a while.
pub fn checks(state: &State, settle: Duration) -> Result<(Vec<Check>, u64)> {
    let scene = &state.scene;
    let _pause = Pause::begin(&scene.folder)?;
    let served = served(scene);
    let kept = Kept::find(scene, settle).map_err(|error| format!("the database cannot be read: {error:#}"));
    let (lost, doubled) = match &kept {
        Ok(kept) => (kept.lost(scene), kept.doubled(scene)),
        Err(error) => (Err(error.clone()), Err(error.clone())),
    };
    let gone = state.incident.remains(scene);
    let checks = [
        (SERVED, served),
        (KEPT, lost),
        (ONCE, doubled),
        (GONE, gone),
        (CAUSE, cause(state)),
    ];
    let checks = checks.into_iter().map(|(name, result)| match result {
        Ok(()) => Check::ok(name),
        Err(reason) => Check::failed(name, reason),
    });
    // Before the clients continue: every task up to now is settled, or has failed a check.
    Ok((checks.collect(), now()))
}

fn served(scene: &Scene) -> Result<(), String> {
    for number in 0..PROBES {
        let task = Accepted::new(
            scene,
            2 * STORED + usize::try_from(now() % 100_000_000).unwrap_or_default(),
        );
        let began = Instant::now();
        let created = traffic::create(scene, task).map_err(|error| format!("{error:#}"))?;
        let Some(task) = created else {
            return Err(format!("task {} of {PROBES}: POST /tasks fails", number + 1));
        };
        await_completed(&scene.live, task.id, began).map_err(|reason| {
            format!(
                "task {} of {PROBES}: {reason}\n{}",
                number + 1,
                timeline(scene, task.id)
            )
        })?;
    }
    Ok(())
}

/// Waits until a task is completed.
fn await_completed(live: &Live, id: i64, began: Instant) -> Result<(), String> {
    loop {
        let (status, task) = live.api(&format!("GET /tasks/{id}"), &Value::Null, None);
        match task["status"].as_str() {
            Some("completed") if status == 200 => return Ok(()),
            _ if began.elapsed() < PROMPT => thread::sleep(Duration::from_millis(200)),
            Some(still) => return Err(format!("task {id} is {still} after 10 s")),
            None => return Err(format!("GET /tasks/{id} fails with {status}")),
        }
    }
}

/// Creates a task, waits until it is completed, and deletes it.
pub fn probe(live: &Live, title: &str) -> Result<()> {
    let began = Instant::now();
    let id = loop {
        let (status, task) = live.api("POST /tasks", &json!({"title": title}), None);
        match task["id"].as_i64() {
            Some(id) => break id,
            None if began.elapsed() < PROMPT => thread::sleep(Duration::from_millis(200)),
            None => bail!("POST /tasks fails with {status}: {task}"),
        }
    };
    await_completed(live, id, began).map_err(anyhow::Error::msg)?;
    let (status, response) = live.api(&format!("DELETE /tasks/{id}"), &Value::Null, None);
    ensure!(status == 200, "DELETE /tasks/{id} fails with {status}: {response}");
    Ok(())
}

pub fn cause(state: &State) -> Result<(), String> {
    let incident = &state.incident;
    match state.named.last() {
        None => Err("none is named: make cause".to_owned()),
        Some(named) if named.cause == incident.cause && incident.is_evidence(&named.evidence) => Ok(()),
        // The same for both: otherwise the list could be tried one by one.
        Some(_) => Err(
            "it is another cause, or the evidence does not show it: that says where you saw the cause itself, and in \
             which values, not only its effects"
                .to_owned(),
        ),
    }
}
