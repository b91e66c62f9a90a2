//! Scheduled tasks: when their messages are sent, and what workers make of them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use queue::TaskQueue;
use serde_json::{Value, json};
use shared::domain::{Status, Task};
use sqlx::PgPool;
use task_metrics::Metrics;
use task_processor::{Processed, process};
use task_reconciler::{Progress, SweepReport};
use tokio_util::sync::CancellationToken;

use crate::support::{
    App, client_config, database, events, eventually, execute, in_seconds, row, settings, sqs_stub, store_status, task,
};

/// Inserts a task that is scheduled for now plus this interval, and was changed a minute ago.
async fn scheduled(pool: &PgPool, after: &str) -> i64 {
    let id = task(pool, "t").await;
    store_status(pool, id, Status::Scheduled).await;
    let schedule = format!(
        "update tasks set run_at = now() + interval '{after}', enqueued_at = null, updated_at = now() - interval '1 min'
         where id = {id}"
    );
    execute(pool, &schedule).await;
    id
}

/// Processes messages about these tasks.
async fn receive(pool: &PgPool, ids: &[i64]) -> Processed {
    let event = serde_json::from_value(events::sqs(ids)).expect("an SQS event");
    let deadline = SystemTime::now() + Duration::from_secs(60);
    let perform = async |_: &Task, _: &CancellationToken| Ok("done".to_owned());
    let processed = process(&database(pool), event, deadline, settings::TASK_PROCESSOR, perform).await;
    processed.expect("the batch is processed")
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_whose_time_has_come_is_processed(pool: PgPool) {
    let id = scheduled(&pool, "-1 s").await;
    let before = row(&pool, id).await;
    let processed = receive(&pool, &[id]).await;
    assert_eq!((processed.retries.len(), processed.metrics.completed), (0, 1));
    // The message was sent long before. What counts is how long after its time the task was started.
    let latency = processed.metrics.queue_latencies[0];
    assert!(latency < Duration::from_secs(30), "{latency:?}");
    let after = row(&pool, id).await;
    assert_eq!(
        (
            &after["status"],
            &after["attempts"],
            &after["run_at"],
            &after["requested_at"]
        ),
        (&json!("completed"), &json!(1), &before["run_at"], &before["run_at"])
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn early_message_is_postponed_by_what_remains(pool: PgPool) {
    let (early, now) = (scheduled(&pool, "40 s").await, task(&pool, "t").await);
    let before = row(&pool, early).await;
    let processed = receive(&pool, &[early, now]).await;
    let delays: Vec<i32> = processed.retries.iter().map(|retry| retry.seconds).collect();
    assert!(matches!(delays[..], [36..=40]), "{delays:?}");
    assert_eq!(row(&pool, early).await, before);
    assert_eq!(row(&pool, now).await["status"], "completed");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn much_too_early_message_is_acknowledged(pool: PgPool) {
    let id = scheduled(&pool, "2 min").await;
    let before = row(&pool, id).await;
    let processed = receive(&pool, &[id]).await;
    assert_eq!((processed.retries.len(), processed.metrics.completed), (0, 0));
    assert_eq!(row(&pool, id).await, before);
}

/// Processes the messages of the queue, as they come, until the task is completed. Returns how many
/// batches that took.
async fn work_off(app: &App, pool: &PgPool, id: i64) -> usize {
    let batches = AtomicUsize::new(0);
    let completed = eventually(30, "the task is completed", async || {
        let event = app.queue().await.poll(10).await;
        if !event.records.is_empty() {
            batches.fetch_add(1, Ordering::Relaxed);
            app.process(event).await.expect("processed");
        }
        (row(pool, id).await["status"] == "completed").then_some(())
    });
    completed.await;
    batches.into_inner()
}

/// How long after its time a worker has started on the task, in seconds.
async fn lateness(pool: &PgPool, id: i64) -> f64 {
    let late = "select extract(epoch from started_at - run_at)::float8 from tasks where id = $1";
    let late = sqlx::query_scalar(late).bind(id).fetch_one(pool).await;
    late.expect("both times")
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn postponed_message_returns_when_time_has_come(pool: PgPool) {
    let app = App::new(&pool);
    let id = scheduled(&pool, "3 s").await;
    let message = json!({"task_id": id}).to_string();
    app.queue().await.send(&[message]).await;
    assert_eq!(work_off(&app, &pool, id).await, 2);
    let late = lateness(&pool, id).await;
    assert!((0.0..2.0).contains(&late), "{late} s late");
}

/// What docs/api.md states: never early, and at most two seconds late.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn created_task_runs_when_its_time_has_come(pool: PgPool) {
    let app = App::new(&pool);
    let created = app.post("/tasks", json!({"title": "t", "run_at": in_seconds(3)})).await;
    let id = created.id();
    assert_eq!(work_off(&app, &pool, id).await, 1);
    let late = lateness(&pool, id).await;
    assert!((0.0..2.0).contains(&late), "{late} s late");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn rescheduled_task_runs_once_at_its_new_time(pool: PgPool) {
    let app = App::new(&pool);
    let created = app.post("/tasks", json!({"title": "t", "run_at": in_seconds(2)})).await;
    let id = created.id();
    let patch = json!({"run_at": in_seconds(5)});
    assert_eq!(app.patch(format!("/tasks/{id}"), patch).await.status(), 200);
    // The next sweep, which waits for a moment, in case the task is new.
    execute(&pool, "update tasks set updated_at = updated_at - interval '1 min'").await;
    assert_eq!(app.sweep(None).await.expect("swept").sent, 1);
    work_off(&app, &pool, id).await;
    let late = lateness(&pool, id).await;
    assert!((0.0..2.0).contains(&late), "{late} s late");
    assert_eq!(row(&pool, id).await["fencing_token"], 1);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn swept_message_is_received_when_time_has_come(pool: PgPool) {
    let app = App::new(&pool);
    let id = scheduled(&pool, "4 s").await;
    assert_eq!(app.sweep(None).await.expect("swept").sent, 1);
    assert_eq!(work_off(&app, &pool, id).await, 1);
    let late = lateness(&pool, id).await;
    assert!((0.0..2.0).contains(&late), "{late} s late");
}

/// Runs a sweep. Returns the task and the delay of each message that it sends, sorted, and its report.
async fn sweep(pool: &PgPool) -> (Vec<(i64, i64)>, SweepReport) {
    let sent = Arc::<Mutex<Vec<(i64, i64)>>>::default();
    let log = Arc::clone(&sent);
    let respond = move |action: &str, request: Value| {
        if action == "GetQueueAttributes" {
            return json!({"Attributes": {}});
        }
        let entries = request["Entries"].as_array().expect("entries");
        let successful = entries.iter().map(|entry| {
            let id: i64 = entry["Id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
            let delay = entry["DelaySeconds"].as_i64().unwrap_or_default();
            log.lock().expect("not poisoned").push((id, delay));
            json!({"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": ""})
        });
        json!({"Successful": successful.collect::<Value>(), "Failed": []})
    };
    let sqs = client_config().endpoint_url(sqs_stub(respond).await);
    let queue = TaskQueue::new(sqs, "http://sqs/000000000000/stub".to_owned());
    let (settings, metrics) = (&settings::TASK_RECONCILER, &Metrics::none());
    let (progress, time) = (&Progress::default(), Duration::from_secs(30));
    let report = task_reconciler::sweep(&database(pool), &queue, metrics, settings, progress, time, None).await;
    let mut sent = sent.lock().expect("not poisoned").clone();
    sent.sort_unstable();
    (sent, report.expect("swept"))
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_sends_messages_shortly_before_their_time(pool: PgPool) {
    let overdue = scheduled(&pool, "-1 h").await;
    let soon = scheduled(&pool, "100 s").await;
    for after in ["130 s", "1 h", "1 year"] {
        scheduled(&pool, after).await;
    }
    // Its message is on its way: create-task may be about to mark it.
    let new = scheduled(&pool, "100 s").await;
    execute(&pool, &format!("update tasks set updated_at = now() where id = {new}")).await;
    let (sent, report) = sweep(&pool).await;
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert_eq!(sent[0], (overdue, 0));
    assert!(sent[1].0 == soon && (95..=100).contains(&sent[1].1), "{sent:?}");
    assert_eq!(
        report,
        SweepReport {
            sent: 2,
            ..SweepReport::default()
        }
    );
    assert_eq!(
        sweep(&pool).await,
        (Vec::new(), SweepReport::default()),
        "they are marked"
    );
    let status: String = sqlx::query_scalar("select distinct status::text from tasks")
        .fetch_one(&pool)
        .await
        .expect("one status");
    assert_eq!(status, "scheduled", "a sweep runs no task");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn message_is_lost_an_hour_after_its_time(pool: PgPool) {
    // Sent two hours ago. As settings::TASK_RECONCILER says, a message counts as lost after an hour.
    for (after, is_lost) in [("-61 min", true), ("-59 min", false), ("1 min", false)] {
        let id = scheduled(&pool, after).await;
        execute(&pool, "update tasks set enqueued_at = now() - interval '2 h'").await;
        let expected: &[(i64, i64)] = if is_lost { &[(id, 0)] } else { &[] };
        assert_eq!(sweep(&pool).await.0, expected, "{after}");
        // The same after a transient failure: the retries of its message began at its time.
        execute(
            &pool,
            "update tasks set status = 'pending', enqueued_at = now() - interval '2 h'",
        )
        .await;
        assert_eq!(sweep(&pool).await.0, expected, "{after}");
        execute(&pool, "delete from tasks").await;
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_reads_only_scheduled_tasks_whose_time_comes(pool: PgPool) {
    // More than a sweep examines of those that are waiting.
    execute(
        &pool,
        "insert into tasks (title, status, updated_at, run_at)
         select 't', 'scheduled', '2020-01-01', now() + interval '1 h' + n * interval '1 s'
         from generate_series(1, 60000) as n",
    )
    .await;
    let due = scheduled(&pool, "-1 s").await;
    let (sent, report) = sweep(&pool).await;
    assert_eq!((sent, report.left), (vec![(due, 0)], 0));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_sends_thousands_of_scheduled_tasks(pool: PgPool) {
    // Many have the same time.
    execute(
        &pool,
        "insert into tasks (title, status, updated_at, run_at)
         select 't', 'scheduled', '2020-01-01', date_trunc('minute', now()) - n % 2 * interval '1 min'
         from generate_series(1, 1300) as n",
    )
    .await;
    let mut sent = BTreeSet::new();
    // On a busy machine an attempt may take too long.
    for _ in 0..10 {
        sent.extend(sweep(&pool).await.0.into_iter().map(|(id, _)| id));
        if sent.len() == 1300 {
            return;
        }
    }
    panic!("{} messages were sent by ten sweeps", sent.len());
}
