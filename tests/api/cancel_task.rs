//! `POST /tasks/{id}/cancel`

use serde_json::{Value, json};
use shared::domain::Status;
use sqlx::PgPool;

use crate::support::{App, Gateway, eventually, execute, row, store_status, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn open_task_is_cancelled_once(pool: PgPool) {
    for gateway in [Gateway::Rest, Gateway::Http] {
        for status in [Status::Pending, Status::Processing, Status::Scheduled] {
            let app = App::new(&pool);
            let id = task(&pool, "t").await;
            store_status(&pool, id, status).await;
            execute(&pool, "update tasks set attempts = 2").await;
            let before = row(&pool, id).await;
            let cancel = || app.post(format!("/tasks/{id}/cancel"), None).via(gateway);
            let response = cancel().await;
            assert_eq!((response.status(), response.header("etag")), (200, "\"2\""));
            let cancelled = response.json();
            let mut expected = app.get(format!("/tasks/{id}")).await.json();
            assert_eq!(cancelled, expected);
            assert_eq!(
                (&cancelled["status"], &cancelled["result"], &cancelled["attempts"]),
                (&json!("cancelled"), &Value::Null, &json!(2))
            );
            let stored = row(&pool, id).await;
            assert_eq!(stored["lease_expires_at"], Value::Null);
            assert_eq!(stored["settled_at"], stored["updated_at"]);
            for untouched in ["title", "enqueued_at", "requested_at", "fencing_token", "created_at"] {
                assert_eq!(stored[untouched], before[untouched], "{untouched}");
            }
            assert_eq!(app.messages().await, [""; 0]);

            // Again: the same task.
            let again = cancel().await;
            assert_eq!((again.status(), again.header("etag")), (200, "\"2\""));
            assert_eq!(again.json(), expected.take());
            assert_eq!(row(&pool, id).await, stored);
            let history = app.get(format!("/admin/tasks/{id}")).await.json();
            let last = history["timeline"].as_array().and_then(|timeline| timeline.last());
            assert_eq!(last.map(|entry| &entry["event"]), Some(&json!("cancelled")));
        }
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_that_has_ended_is_409_and_unchanged(pool: PgPool) {
    let app = App::new(&pool);
    for status in [Status::Completed, Status::Failed] {
        let id = task(&pool, "t").await;
        store_status(&pool, id, status).await;
        let before = row(&pool, id).await;
        let response = app.post(format!("/tasks/{id}/cancel"), None).await;
        response.assert_problem(409, "Conflict");
        let name = status.as_str();
        assert_eq!(
            response.json()["detail"],
            format!("Task {id} is {name}: only a task that has not ended can be cancelled.")
        );
        assert_eq!(row(&pool, id).await, before);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unknown_and_malformed_ids_cancel_nothing(pool: PgPool) {
    let app = App::new(&pool);
    let other = task(&pool, "t").await;
    let before = row(&pool, other).await;
    let cancel = |id: &'static str| app.post(format!("/tasks/{id}/cancel"), None);
    cancel("9").await.assert_problem(404, "Not Found");
    for id in ["0", "abc", "9223372036854775808"] {
        cancel(id).await.assert_problem(422, "Unprocessable Entity");
    }
    assert_eq!(row(&pool, other).await, before);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn if_match_cancels_only_that_version(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let path = format!("/tasks/{id}/cancel");
    let cancel = async |tags: &str| app.post(&path, None).header("if-match", tags).await;
    let before = row(&pool, id).await;
    for stale in ["\"0\"", "\"2\"", "W/\"1\"", "nonsense"] {
        cancel(stale).await.assert_problem(412, "Precondition Failed");
        assert_eq!(row(&pool, id).await, before);
    }
    assert_eq!(cancel("\"7\", \"1\"").await.status(), 200);
    // It is the caller's view that counts, even if nothing would change.
    cancel("\"1\"").await.assert_problem(412, "Precondition Failed");
    assert_eq!(cancel("\"2\"").await.status(), 200);
    assert_eq!(cancel("*").await.status(), 200);
    assert_eq!(row(&pool, id).await["version"], 2);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn concurrent_cancels_change_task_once(pool: PgPool) {
    for _ in 0..20 {
        let id = task(&pool, "t").await;
        let cancel = || App::new(&pool).post(format!("/tasks/{id}/cancel"), None);
        let (one, two) = tokio::join!(cancel(), cancel());
        assert_eq!((one.status(), two.status()), (200, 200));
        assert_eq!(one.json(), two.json());
        assert_eq!(row(&pool, id).await["version"], 2);
    }
}

/// The statement waits for the row, and then finds another status than it has read.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn cancel_behind_outcome_is_409(pool: PgPool) {
    let id = task(&pool, "t").await;
    store_status(&pool, id, Status::Processing).await;
    let mut worker = pool.begin().await.expect("a transaction");
    sqlx::raw_sql("update tasks set status = 'completed', lease_expires_at = null, settled_at = now(), version = 2")
        .execute(&mut *worker)
        .await
        .expect("settled");
    let app = App::new(&pool);
    let path = format!("/tasks/{id}/cancel");
    let committing = async {
        let waiting = "select count(*) from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        let is_waiting = async || {
            let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&pool).await.expect("a count");
            (waiting > 0).then_some(())
        };
        eventually(5, "the cancellation waits for the row", is_waiting).await;
        worker.commit().await.expect("committed");
    };
    let (response, ()) = tokio::join!(async { app.post(&path, None).await }, committing);
    response.assert_problem(409, "Conflict");
    assert_eq!(row(&pool, id).await["status"], "completed");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn cancelled_task_is_processed_again_on_request(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    assert_eq!(app.post(format!("/tasks/{id}/cancel"), None).await.status(), 200);
    assert_eq!(app.post(format!("/tasks/{id}/process"), None).await.status(), 202);
    let stored = row(&pool, id).await;
    assert_eq!(
        (&stored["status"], &stored["settled_at"], &stored["attempts"]),
        (&json!("pending"), &Value::Null, &json!(0))
    );
    assert_eq!(app.messages().await, [json!({"task_id": id}).to_string()]);
}
