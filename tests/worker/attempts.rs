//! The attempts to process a task, as `GET /admin/tasks/{id}` shows them.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use shared::domain::Task;
use sqlx::PgPool;
use task_processor::{TaskError, perform, process};
use tokio_util::sync::CancellationToken;

use crate::support::{App, database, events, execute, row, settings, task};

/// Processes a message about the task, received for the nth time and sent so many seconds from now.
async fn receive(
    pool: &PgPool,
    id: i64,
    times: u32,
    sent_in: i64,
    perform: impl AsyncFn(&Task, &CancellationToken) -> Result<String, TaskError>,
) {
    let mut event = events::sqs(&[id]);
    let sent_at = time::OffsetDateTime::now_utc() + time::Duration::seconds(sent_in);
    let attributes = &mut event["Records"][0]["attributes"];
    attributes["ApproximateReceiveCount"] = json!(times.to_string());
    attributes["SentTimestamp"] = json!((sent_at.unix_timestamp_nanos() / 1_000_000).to_string());
    let event = serde_json::from_value(event).expect("an SQS event");
    let deadline = SystemTime::now() + Duration::from_secs(30);
    let processed = process(&database(pool), event, deadline, settings::TASK_PROCESSOR, perform).await;
    processed.expect("the batch is processed");
}

async fn attempts(app: &App, id: i64) -> Vec<Value> {
    let history = app.get(format!("/admin/tasks/{id}")).await.json();
    history["recent_attempts"].as_array().expect("a list").clone()
}

fn summary(attempts: &[Value]) -> Value {
    let summary = |attempt: &Value| json!([attempt["number"], attempt["outcome"], attempt["error"]]);
    attempts.iter().map(summary).collect()
}

async fn fails(_: &Task, _: &CancellationToken) -> Result<String, TaskError> {
    Err(TaskError::Transient("no connection".to_owned()))
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn each_attempt_shows_why_it_ended(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    assert_eq!(attempts(&app, id).await, [json!(null); 0]);

    receive(&pool, id, 1, -60, fails).await;
    assert_eq!(row(&pool, id).await["result"], Value::Null);
    // The second worker stops without an outcome; the lease of 30 seconds is over.
    let stops = async |_: &Task, _: &_| {
        execute(
            &pool,
            "update tasks set started_at = now() - interval '1 min', lease_expires_at = now() - interval '30 s',
             fencing_token = fencing_token + 1",
        )
        .await;
        Ok("too late".to_owned())
    };
    receive(&pool, id, 2, -60, stops).await;
    receive(&pool, id, 5, -60, fails).await;
    // A redrive.
    receive(&pool, id, 1, 60, perform).await;

    let attempts = attempts(&app, id).await;
    let expected = json!([
        [1, "retried", "no connection"],
        [2, "lost", null],
        [3, "failed", "no connection"],
        [1, "completed", null],
    ]);
    assert_eq!(summary(&attempts), expected);
    let times: Vec<&str> = attempts
        .iter()
        .flat_map(|attempt| ["started_at", "ended_at"].map(|name| attempt[name].as_str().expect("a time")))
        .collect();
    assert!(times[..2].is_sorted() && times[4..].is_sorted(), "{times:?}");
    let lost: Vec<_> = times[2..4]
        .iter()
        .map(|time| {
            time::OffsetDateTime::parse(time, &time::format_description::well_known::Rfc3339).expect("RFC 3339")
        })
        .collect();
    assert_eq!(lost[1] - lost[0], time::Duration::seconds(30));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn running_attempt_has_no_end_and_may_be_discarded(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let interferes = async |_: &Task, _: &_| {
        let running = attempts(&app, id).await;
        assert_eq!(summary(&running), json!([[1, "running", null]]));
        assert_eq!(running[0]["ended_at"], Value::Null);
        let patched = app.patch(format!("/tasks/{id}"), json!({"status": "pending"})).await;
        assert_eq!(patched.status(), 200);
        Ok("too late".to_owned())
    };
    receive(&pool, id, 1, -60, interferes).await;
    let discarded = attempts(&app, id).await;
    assert_eq!(summary(&discarded), json!([[1, "discarded", null]]));
    assert!(discarded[0]["ended_at"].is_string());
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn last_ten_attempts_are_kept_when_queued_again(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    for times in 1..=4 {
        receive(&pool, id, times, -60, fails).await;
    }
    let gives_up = async |task: &Task, _: &_| Err(TaskError::Permanent(format!("attempt {}", task.attempts)));
    for _ in 0..8 {
        receive(&pool, id, 1, -60, gives_up).await;
        assert_eq!(app.post(format!("/tasks/{id}/process"), None).await.status(), 202);
    }
    let ten: Vec<Value> = [
        (3, "retried", "no connection"),
        (4, "retried", "no connection"),
        (5, "failed", "attempt 5"),
    ]
    .into_iter()
    .chain([(1, "failed", "attempt 1"); 7])
    .map(|(number, outcome, error)| json!([number, outcome, error]))
    .collect();
    assert_eq!(summary(&attempts(&app, id).await), json!(ten));
    receive(&pool, id, 1, -60, perform).await;
    let newest = summary(&attempts(&app, id).await);
    assert_eq!(
        (newest.as_array().map(Vec::len), &newest[9]),
        (Some(10), &json!([1, "completed", null]))
    );
}

/// What each completed task costs: `make scale` measures the rest.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_that_completes_at_once_stores_no_attempts(pool: PgPool) {
    let id = task(&pool, "t").await;
    receive(&pool, id, 1, -60, perform).await;
    let row = row(&pool, id).await;
    assert_eq!(
        (&row["status"], &row["earlier_attempts"]),
        (&json!("completed"), &Value::Null)
    );
}

/// The previous version leaves `started_at` when it releases a task.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn attempts_of_previous_version_are_kept(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    execute(
        &pool,
        "update tasks set attempts = 1, started_at = now() - interval '1 min'",
    )
    .await;
    assert_eq!(summary(&attempts(&app, id).await), json!([[1, "retried", null]]));
    receive(&pool, id, 2, -60, perform).await;
    assert_eq!(
        summary(&attempts(&app, id).await),
        json!([[1, "retried", null], [2, "completed", null]])
    );
}
