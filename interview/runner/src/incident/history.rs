//! What became of the tasks that the API accepted, and the shortest history that proves a loss.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::Value;

use super::{
    spec::Scene,
    traffic::{self, Accepted},
};

/// The longest timeline, in lines.
const LINES: usize = 10;

/// The report continues a reason with it.
const INDENT: &str = "      ";

/// What became of the accepted tasks.
pub struct Kept {
    accepted: Vec<Accepted>,
    /// The stored rows, by id.
    rows: BTreeMap<i64, Value>,
    /// The length of each task's history.
    changes: BTreeMap<i64, i64>,
    /// The tasks that a worker has claimed, and those that the incident stored as completed.
    worked_on: BTreeSet<i64>,
    /// How often each task was completed, if more than once.
    completed_twice: Vec<(i64, i64)>,
    /// Titles that several tasks have, and the ids of these.
    created_twice: Vec<(String, Vec<i64>)>,
    /// The tasks whose messages are in the dead-letter queue.
    dead_letters: BTreeSet<i64>,
}

impl Kept {
    /// Waits until every accepted task is settled, for a while.
    pub fn find(scene: &Scene, settle: Duration) -> Result<Self> {
        let mut database = scene.live.database()?;
        let began = Instant::now();
        let titles = scene.titles();
        let (accepted, rows) = loop {
            let accepted = traffic::accepted(&scene.folder)?;
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
            "select task_id as id, count(*) as changes, count(*) filter (where event = 'completed') as count,
                    bool_or(event = 'claimed') or array_agg(event) = '{completed}'::text[] as is_worked_on
             from incident.log group by task_id order by changes, task_id",
        )?;
        let number = |row: &Value, name: &str| row[name].as_i64().unwrap_or_default();
        let created = database.rows(&format!(
            "select title, array_agg(id order by id) as ids from tasks where title like '{titles}'
             group by title having count(*) > 1 order by title"
        ))?;
        Ok(Self {
            accepted,
            rows,
            changes: completed
                .iter()
                .map(|row| (number(row, "id"), number(row, "changes")))
                .collect(),
            worked_on: completed
                .iter()
                .filter(|row| row["is_worked_on"] == true)
                .filter_map(|row| row["id"].as_i64())
                .collect(),
            completed_twice: completed
                .iter()
                .map(|row| (number(row, "id"), number(row, "count")))
                .filter(|(_, count)| *count > 1)
                .collect(),
            created_twice: created
                .iter()
                .filter_map(|row| {
                    let ids = row["ids"].as_array()?.iter().filter_map(Value::as_i64);
                    Some((row["title"].as_str()?.to_owned(), ids.collect()))
                })
                .collect(),
            dead_letters: tasks_of(&scene.live.dead_letters().unwrap_or_default()),
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
            "completed" if result == task.result() && !self.worked_on.contains(&task.id) => {
                Some("is completed, but no worker has claimed it".to_owned())
            }
            "completed" if result == task.result() => None,
            "completed" => Some(format!("has another result: {result:?}")),
            "failed" => Some(format!("is failed: {result}")),
            status => Some(format!("is {status}")),
        }
    }

    pub fn lost(&self, scene: &Scene) -> Result<(), String> {
        let wrong = self.accepted.iter().filter_map(|task| Some((task, self.loss(task)?)));
        let wrong: Vec<_> = wrong.collect();
        // The one with the shortest history.
        let shortest = wrong.iter().min_by_key(|(task, _)| self.changes.get(&task.id));
        let Some((task, reason)) = shortest else {
            return Ok(());
        };
        let place = match self.dead_letters.contains(&task.id) {
            true => "its message is in the dead-letter queue",
            false => "it has no message in the dead-letter queue",
        };
        Err(format!(
            "{} of {}; for example, task {} {reason}\n{}\n{INDENT}      now  it {reason}; {place}",
            wrong.len(),
            self.accepted.len(),
            task.id,
            timeline(scene, task.id)
        ))
    }

    pub fn doubled(&self, scene: &Scene) -> Result<(), String> {
        if let Some((id, count)) = self.completed_twice.first() {
            let others = self.completed_twice.len();
            return Err(format!(
                "{others} processed again; for example, task {id} was completed {count} times\n{}",
                timeline(scene, *id)
            ));
        }
        match self.created_twice.first() {
            Some((title, ids)) => {
                let timelines = ids
                    .iter()
                    .map(|id| format!("{INDENT}task {id}\n{}", timeline(scene, *id)));
                Err(format!(
                    "{} created again; for example, {} tasks have the title {title:?}\n{}",
                    self.created_twice.len(),
                    ids.len(),
                    timelines.take(2).collect::<Vec<_>>().join("\n")
                ))
            }
            None => Ok(()),
        }
    }
}

/// The tasks that messages are about. Malformed messages are about none.
pub fn tasks_of(messages: &[String]) -> BTreeSet<i64> {
    let messages = messages
        .iter()
        .filter_map(|body| serde_json::from_str::<Value>(body).ok());
    messages.filter_map(|message| message["task_id"].as_i64()).collect()
}

/// What happened to a task: its changes in the database, and what the processor logged.
pub fn timeline(scene: &Scene, id: i64) -> String {
    let mut lines = Vec::new();
    for task in traffic::accepted(&scene.folder).unwrap_or_default() {
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
        return format!("{INDENT}it left no trace");
    };
    let line = |(at, text): &(u64, String)| {
        let seconds = Duration::from_millis(at - first).as_secs_f64();
        format!("{INDENT}{seconds:>7.1} s  {text}")
    };
    let mut drawn: Vec<String> = lines.iter().map(line).collect();
    if drawn.len() > LINES {
        let omitted = drawn.len() - LINES + 1;
        drawn.splice(
            LINES / 2..LINES / 2 + omitted,
            [format!("{INDENT}     …     {omitted} more lines")],
        );
    }
    drawn.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_timeline_keeps_beginning_and_end() {
        let lines: Vec<(u64, String)> = (0..30).map(|at| (5_000 + at * 500, format!("event {at}"))).collect();
        let drawn = draw(&lines);
        let drawn: Vec<&str> = drawn.lines().collect();
        assert_eq!(drawn.len(), LINES);
        assert_eq!(drawn[0], "          0.0 s  event 0");
        assert_eq!(drawn[LINES / 2], "           …     21 more lines");
        assert_eq!(drawn[LINES - 1], "         14.5 s  event 29");
        assert_eq!(draw(&lines[..2]), "          0.0 s  event 0\n          0.5 s  event 1");
        assert_eq!(draw(&[]), "      it left no trace");
    }
}
