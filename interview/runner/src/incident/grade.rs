//! `make grade` during an incident: service restored, nothing lost, nothing doubled, cause named.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use xtask::{stack::settings::Settings, tools::terminal::Step};

use super::{
    State,
    live::{Live, now},
    spec::Scene,
    traffic::{self, Accepted, Event, Pause},
};

/// How long a new task may take, from the request to its result.
const PROMPT: Duration = Duration::from_secs(10);

/// How many new tasks must be processed, one after the other.
const PROBES: usize = 3;

/// How long a grade waits for accepted tasks: a visibility timeout and a little.
const SETTLE: Duration = Duration::from_secs(25);

/// The longest timeline, in lines.
const LINES: usize = 10;

/// A check: what holds, or the reason why it does not.
pub struct Check {
    sentence: &'static str,
    reason: Option<String>,
}

impl Check {
    fn new(sentence: &'static str, result: Result<(), String>) -> Self {
        let reason = result.err();
        Self { sentence, reason }
    }

    pub fn passed(&self) -> bool {
        self.reason.is_none()
    }
}

/// Seconds from the beginning of an incident.
#[derive(Debug, PartialEq, Serialize)]
pub struct Times {
    incident: String,
    /// To the first time that the right cause was named, with evidence.
    pub detect: Option<f64>,
    /// To the first request of the time since when clients are served again.
    mitigate: Option<f64>,
    /// To the first grade that passed.
    prove: Option<f64>,
    /// How many other causes were named.
    wrong_causes: usize,
}

impl Times {
    pub fn is_mitigated(&self) -> bool {
        self.mitigate.is_some()
    }
}

/// Grades the active incident of the stack of `make up`.
pub fn run(settings: &Settings) -> Result<()> {
    let (_, mut state) = super::active(settings)?;
    let step = Step::start("checks", "creating tasks, and waiting for those that were accepted");
    let (checks, at) = checks(&state, SETTLE)?;
    step.done("the stack is checked");
    let passed = checks.iter().filter(|check| check.passed()).count();
    if passed == checks.len() && state.proved.is_none() {
        state.proved = Some(at);
        state.write()?;
    }
    println!("\n{}\n\n{}\n{}", state.name, report(&checks), describe(&times(&state)));
    ensure!(
        passed == checks.len(),
        "{} of {} checks failed",
        checks.len() - passed,
        checks.len()
    );
    println!("To end it and restore the stack: make incident-reset\n");
    Ok(())
}

pub fn report(checks: &[Check]) -> String {
    let mut text = String::new();
    for Check { sentence, reason } in checks {
        // Writing to a String cannot fail.
        let _ = match reason {
            None => writeln!(text, "  ✓ {sentence}"),
            Some(reason) => writeln!(text, "  ✗ {sentence}\n      {}", reason.replace('\n', "\n      ")),
        };
    }
    let passed = checks.iter().filter(|check| check.passed()).count();
    let _ = writeln!(text, "\n{passed} of {} checks passed", checks.len());
    text
}

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
    let checks = vec![
        Check::new("new tasks are processed within 10 s each", served),
        Check::new("every accepted task is stored and completed, with its result", lost),
        Check::new("no task was created or processed twice", doubled),
        Check::new("the root cause is named, with evidence", cause(state)),
    ];
    // Before the clients continue: every task up to now is settled, or has failed a check.
    Ok((checks, now()))
}

fn served(scene: &Scene) -> Result<(), String> {
    for number in 0..PROBES {
        let task = Accepted::new(
            scene,
            200_000 + usize::try_from(now() % 100_000_000).unwrap_or_default(),
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

/// What became of the accepted tasks.
struct Kept {
    accepted: Vec<Accepted>,
    /// The stored rows, by id.
    rows: BTreeMap<i64, Value>,
    /// The length of each task's history.
    changes: BTreeMap<i64, i64>,
    /// How often each task was completed, if more than once.
    completed_twice: Vec<(i64, i64)>,
    /// Titles that several tasks have, and their number.
    created_twice: Vec<(String, i64)>,
    /// The bodies of the messages in the dead-letter queue.
    dead_letters: Vec<String>,
}

impl Kept {
    /// Waits until every accepted task is settled, for a while.
    fn find(scene: &Scene, settle: Duration) -> Result<Self> {
        let mut database = scene.live.database()?;
        let began = Instant::now();
        let titles = scene.titles();
        let (accepted, rows) = loop {
            let accepted = accepted(scene)?;
            let ids: Vec<String> = accepted.iter().map(|task| task.id.to_string()).collect();
            let rows = database.rows(&format!(
                "select id, title, description, shown_status(status, lease_expires_at) as status, result
                 from tasks where id = any ('{{{}}}'::bigint[])",
                ids.join(",")
            ))?;
            let is_open = |row: &&Value| matches!(row["status"].as_str(), Some("pending" | "processing"));
            let open = rows.iter().filter(is_open).count();
            if open == 0 || began.elapsed() > settle {
                let rows = rows.into_iter().filter_map(|row| Some((row["id"].as_i64()?, row)));
                break (accepted, rows.collect());
            }
            thread::sleep(Duration::from_millis(250));
        };
        let completed = database.rows(
            "select task_id as id, count(*) as changes, count(*) filter (where event = 'completed') as count
             from incident.log group by task_id order by changes, task_id",
        )?;
        let number = |row: &Value, name: &str| row[name].as_i64().unwrap_or_default();
        let created = database.rows(&format!(
            "select title, count(*) as count from tasks where title like '{titles}'
             group by title having count(*) > 1 order by title"
        ))?;
        Ok(Self {
            accepted,
            rows,
            changes: completed
                .iter()
                .map(|row| (number(row, "id"), number(row, "changes")))
                .collect(),
            completed_twice: completed
                .iter()
                .map(|row| (number(row, "id"), number(row, "count")))
                .filter(|(_, count)| *count > 1)
                .collect(),
            created_twice: created
                .iter()
                .filter_map(|row| Some((row["title"].as_str()?.to_owned(), row["count"].as_i64()?)))
                .collect(),
            dead_letters: scene.live.dead_letters().unwrap_or_default(),
        })
    }

    /// What is wrong with a task, if anything.
    fn loss(&self, task: &Accepted) -> Option<String> {
        let Some(row) = self.rows.get(&task.id) else {
            return Some("is not stored".to_owned());
        };
        let status = row["status"].as_str().unwrap_or_default();
        let result = row["result"].as_str().unwrap_or_default();
        if row["title"] != task.title.as_str() || row["description"] != task.description.as_str() {
            return Some("is not what the client sent".to_owned());
        }
        match status {
            "completed" if result == task.result() => None,
            "completed" => Some(format!("has another result: {result:?}")),
            "failed" => Some(format!("is failed: {result}")),
            status => Some(format!("is {status}")),
        }
    }

    fn lost(&self, scene: &Scene) -> Result<(), String> {
        let wrong = self.accepted.iter().filter_map(|task| Some((task, self.loss(task)?)));
        let wrong: Vec<_> = wrong.collect();
        // The one with the shortest history.
        let shortest = wrong.iter().min_by_key(|(task, _)| self.changes.get(&task.id));
        let Some((task, reason)) = shortest else {
            return Ok(());
        };
        let is_its = |body: &String| {
            let body = serde_json::from_str::<Value>(body);
            body.is_ok_and(|body| body["task_id"].as_i64() == Some(task.id))
        };
        let place = match self.dead_letters.iter().any(is_its) {
            true => "its message is in the dead-letter queue",
            false => "it has no message in the dead-letter queue",
        };
        Err(format!(
            "{} of {}; for example, task {} {reason}\n{}\n    now      it {reason}; {place}",
            wrong.len(),
            self.accepted.len(),
            task.id,
            timeline(scene, task.id)
        ))
    }

    fn doubled(&self, scene: &Scene) -> Result<(), String> {
        if let Some((id, count)) = self.completed_twice.first() {
            let others = self.completed_twice.len();
            return Err(format!(
                "{others} processed again; for example, task {id} was completed {count} times\n{}",
                timeline(scene, *id)
            ));
        }
        match self.created_twice.first() {
            Some((title, count)) => Err(format!(
                "{} created again; for example, {count} tasks have the title {title:?}",
                self.created_twice.len()
            )),
            None => Ok(()),
        }
    }
}

fn accepted(scene: &Scene) -> Result<Vec<Accepted>> {
    let events = traffic::events(&scene.folder)?;
    let accepted = events.into_iter().filter_map(|event| match event {
        Event::Accepted(task) => Some(task),
        Event::Refused(_) => None,
    });
    Ok(accepted.collect())
}

/// What happened to a task: its changes in the database, and what the processor logged.
fn timeline(scene: &Scene, id: i64) -> String {
    let mut lines = Vec::new();
    for task in accepted(scene).unwrap_or_default() {
        if task.id == id {
            lines.push((task.at, "accepted".to_owned()));
        }
    }
    let logged = format!(
        "select (extract(epoch from at) * 1000)::bigint as at, event, coalesce(': ' || detail, '') as detail
         from incident.log where task_id = {id} order by at"
    );
    let rows = scene.live.database().and_then(|mut database| database.rows(&logged));
    for row in rows.unwrap_or_default() {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        lines.push((row["at"].as_u64().unwrap_or_default(), text("event") + &text("detail")));
    }
    let since = lines.iter().map(|(at, _)| *at).min().unwrap_or_default();
    for (at, line) in scene.live.log("task-processor", since).unwrap_or_default() {
        if line["taskId"].as_i64() == Some(id) {
            let message = line["message"].as_str().unwrap_or_default();
            let reason = line["reason"].as_str().map(|reason| format!(" ({reason})"));
            lines.push((at, format!("log: {message}{}", reason.unwrap_or_default())));
        }
    }
    lines.sort();
    draw(&lines)
}

/// The lines with their times since the first; those in the middle are counted if there are many.
fn draw(lines: &[(u64, String)]) -> String {
    let Some((first, _)) = lines.first() else {
        return "it left no trace".to_owned();
    };
    let line = |(at, text): &(u64, String)| {
        let seconds = Duration::from_millis(at - first).as_secs_f64();
        format!("{seconds:>7.1} s  {text}")
    };
    let mut drawn: Vec<String> = lines.iter().map(line).collect();
    if drawn.len() > LINES {
        let omitted = drawn.len() - LINES + 1;
        drawn.splice(
            LINES / 2..LINES / 2 + omitted,
            [format!("     …     {omitted} more lines")],
        );
    }
    drawn.join("\n")
}

fn cause(state: &State) -> Result<(), String> {
    let incident = &state.incident;
    match state.named.last() {
        None => Err("none is named: make cause".to_owned()),
        Some(named) if named.cause != incident.cause => Err(format!("{} is not the cause", named.cause)),
        Some(named) if !incident.is_evidence(&named.evidence) => Err(
            "the evidence does not show it: it should say where you saw the cause itself, and in which values, not \
             only its effects"
                .to_owned(),
        ),
        Some(_) => Ok(()),
    }
}

/// The times of an incident so far.
pub fn times(state: &State) -> Times {
    let seconds = |at: u64| Duration::from_millis(at.saturating_sub(state.began)).as_secs_f64();
    let is_right =
        |named: &&super::Named| named.cause == state.incident.cause && state.incident.is_evidence(&named.evidence);
    Times {
        incident: state.name.clone(),
        detect: state.named.iter().find(is_right).map(|named| seconds(named.at)),
        mitigate: state.proved.and_then(|proved| Some(seconds(mitigated(state, proved)?))),
        prove: state.proved.map(seconds),
        wrong_causes: state
            .named
            .iter()
            .filter(|named| named.cause != state.incident.cause)
            .count(),
    }
}

/// When the time began in which every request succeeded and every task was completed promptly, up
/// to the proof.
fn mitigated(state: &State, proved: u64) -> Option<u64> {
    let completed = "select task_id as id, min((extract(epoch from at) * 1000)::bigint) as at
                     from incident.log where event = 'completed' group by task_id";
    let rows = state
        .scene
        .live
        .database()
        .and_then(|mut database| database.rows(completed));
    let rows = rows.unwrap_or_default();
    let completed = rows
        .iter()
        .filter_map(|row| Some((row["id"].as_i64()?, row["at"].as_u64()?)));
    let completed = completed.collect();
    let events = traffic::events(&state.scene.folder).ok()?;
    since_served(&events, &completed, state.began, proved)
}

fn since_served(events: &[Event], completed: &BTreeMap<i64, u64>, began: u64, proved: u64) -> Option<u64> {
    let limit = u64::try_from(PROMPT.as_millis()).ok()?;
    let is_prompt = |task: &Accepted| {
        completed
            .get(&task.id)
            .is_some_and(|at| at.saturating_sub(task.at) <= limit)
    };
    let trouble = events.iter().filter_map(|event| match event {
        Event::Refused(refused) => Some(refused.at),
        // Stored by the incident itself, long before.
        Event::Accepted(task) if (100_000..200_000).contains(&task.number) => None,
        Event::Accepted(task) => (!is_prompt(task)).then_some(task.at),
    });
    let last = trouble.filter(|at| *at <= proved).max().unwrap_or(began);
    let served = events.iter().filter_map(|event| match event {
        Event::Accepted(task) => (task.at > last && task.at <= proved).then_some(task.at),
        Event::Refused(_) => None,
    });
    served.min()
}

fn describe(times: &Times) -> String {
    let show = |time: Option<f64>| time.map_or("not yet".to_owned(), |time| format!("{time:.0} s"));
    format!(
        "  cause named   {}\n  served again  {}\n  all checks    {}\n",
        show(times.detect),
        show(times.mitigate),
        show(times.prove)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::traffic::Refused;

    fn task(number: usize, at: u64) -> Event {
        Event::Accepted(Accepted {
            number,
            id: i64::try_from(number).expect("small"),
            at,
            title: String::new(),
            description: String::new(),
        })
    }

    #[test]
    fn mitigation_is_first_request_after_the_trouble() {
        let refused = Event::Refused(Refused {
            at: 30_000,
            request: "GET /tasks/2".to_owned(),
            status: 503,
        });
        let events = [
            task(1, 1_000),
            task(2, 20_000),
            refused,
            task(3, 40_000),
            task(4, 50_000),
        ];
        let completed = BTreeMap::from([(1, 1_500), (2, 60_000), (3, 40_100), (4, 50_100)]);
        assert_eq!(since_served(&events, &completed, 0, 70_000), Some(40_000));
        // Completed too late, or not at all.
        for late in [Some(60_001), None] {
            let mut completed = completed.clone();
            match late {
                Some(at) => completed.insert(4, at),
                None => completed.remove(&4),
            };
            assert_eq!(since_served(&events, &completed, 0, 70_000), None);
        }
        assert_eq!(since_served(&events[..1], &completed, 0, 70_000), Some(1_000));
    }

    #[test]
    fn long_timeline_keeps_beginning_and_end() {
        let lines: Vec<(u64, String)> = (0..30).map(|at| (5_000 + at * 500, format!("event {at}"))).collect();
        let drawn = draw(&lines);
        let drawn: Vec<&str> = drawn.lines().collect();
        assert_eq!(drawn.len(), LINES);
        assert_eq!(drawn[0], "    0.0 s  event 0");
        assert_eq!(drawn[LINES / 2], "     …     21 more lines");
        assert_eq!(drawn[LINES - 1], "   14.5 s  event 29");
        assert_eq!(draw(&lines[..2]), "    0.0 s  event 0\n    0.5 s  event 1");
        assert_eq!(draw(&[]), "it left no trace");
    }
}
