//! Tasks that are cancelled while their message waits, and while they are performed.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use shared::domain::Task;
use sqlx::PgPool;
use task_processor::{Processed, TaskError, process};
use tokio_util::sync::CancellationToken;

use crate::support::{App, Proxy, database, events, execute, row, settings, task};

/// Processes messages about these tasks.
async fn receive(
    database: &shared::store::Database,
    ids: &[i64],
    perform: impl AsyncFn(&Task, &CancellationToken) -> Result<String, TaskError>,
) -> Processed {
    let event = serde_json::from_value(events::sqs(ids)).expect("an SQS event");
    let deadline = SystemTime::now() + Duration::from_secs(60);
    let processed = process(database, event, deadline, settings::TASK_PROCESSOR, perform).await;
    processed.expect("the batch is processed")
}

/// Waits for the token, as long work does.
async fn until_cancelled(cancellation: &CancellationToken) -> Result<String, TaskError> {
    let cancelled = tokio::time::timeout(Duration::from_secs(30), cancellation.cancelled());
    cancelled.await.expect("the token is cancelled");
    Err(TaskError::Transient("stopped early".to_owned()))
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn cancelled_task_never_runs_and_message_is_deleted(pool: PgPool) {
    let app = App::new(&pool);
    let (id, other) = (task(&pool, "t").await, task(&pool, "t").await);
    assert_eq!(app.post(format!("/tasks/{id}/cancel"), None).await.status(), 200);
    let before = row(&pool, id).await;
    let perform = async |task: &Task, _: &_| {
        assert_eq!(task.id.get(), other, "only the other task is performed");
        Ok("done".to_owned())
    };
    let processed = receive(&database(&pool), &[id, other], perform).await;
    assert_eq!((processed.retries.len(), processed.metrics.completed), (0, 1));
    assert_eq!(row(&pool, id).await, before);
    assert_eq!(row(&pool, other).await["status"], "completed");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn outcome_of_cancelled_task_is_discarded(pool: PgPool) {
    let app = App::new(&pool);
    for ends in [
        Ok("too late".to_owned()),
        Err(TaskError::Permanent("too late".to_owned())),
        Err(TaskError::Transient("too late".to_owned())),
    ] {
        let id = task(&pool, "t").await;
        let perform = async |_: &Task, _: &_| {
            assert_eq!(app.post(format!("/tasks/{id}/cancel"), None).await.status(), 200);
            ends.clone()
        };
        let processed = receive(&database(&pool), &[id], perform).await;
        assert_eq!((processed.metrics.completed, processed.metrics.failed), (0, 0));
        let stored = row(&pool, id).await;
        assert_eq!(
            (&stored["status"], &stored["result"]),
            (&json!("cancelled"), &Value::Null)
        );
        let history = app.get(format!("/admin/tasks/{id}")).await.json();
        let attempts = history["recent_attempts"].as_array().expect("a list");
        assert_eq!((attempts.len(), &attempts[0]["outcome"]), (1, &json!("discarded")));
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn worker_of_cancelled_task_can_stop_early(pool: PgPool) {
    let app = App::new(&pool);
    let (cancelled, deleted, kept) = (task(&pool, "t").await, task(&pool, "t").await, task(&pool, "t").await);
    let started = Instant::now();
    let perform = async |task: &Task, cancellation: &CancellationToken| match task.id.get() {
        id if id == cancelled => {
            assert_eq!(app.post(format!("/tasks/{id}/cancel"), None).await.status(), 200);
            until_cancelled(cancellation).await
        }
        id if id == deleted => {
            execute(&pool, &format!("delete from tasks where id = {id}")).await;
            until_cancelled(cancellation).await
        }
        _ => {
            // Longer than the first look-up.
            tokio::time::sleep(Duration::from_secs(6)).await;
            assert!(!cancellation.is_cancelled());
            Ok("done".to_owned())
        }
    };
    receive(&database(&pool), &[cancelled, deleted, kept], perform).await;
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    assert_eq!(row(&pool, cancelled).await["status"], "cancelled");
    assert_eq!(row(&pool, deleted).await, Value::Null);
    assert_eq!(row(&pool, kept).await["result"], "done");
}

/// (A short batch takes two round trips: `batch_of_any_size_is_two_statements`.)
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn only_long_batches_look_up_their_leases(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let database = proxy.database(&pool);
    let mut used = Vec::new();
    // The first two also connect, or prepare statements.
    for seconds in [0, 6, 0, 6] {
        let ids = [task(&pool, "t").await, task(&pool, "t").await];
        let before = proxy.round_trips();
        let perform = async |_: &Task, _: &_| {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok("done".to_owned())
        };
        assert_eq!(receive(&database, &ids, perform).await.metrics.completed, 2);
        used.push(proxy.round_trips() - before);
    }
    assert_eq!(used[2..], [2, 3]);
}
