//! `POST /tasks/{id}/process`

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{App, Gateway, execute, refusing_sqs, row, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_becomes_pending_and_is_enqueued(pool: PgPool) {
    for gateway in [Gateway::Rest, Gateway::Http] {
        let app = App::new(&pool);
        let id = task(&pool, "t").await;
        execute(
            &pool,
            "update tasks set status = 'failed', result = 'r', attempts = 5, settled_at = now(), enqueued_at = '2020-01-01'",
        )
        .await;
        let response = app.post(format!("/tasks/{id}/process"), None).via(gateway).await;
        assert_eq!(response.status(), 202);
        assert_eq!(
            response.json(),
            json!({"message": format!("Task {id} queued for processing"), "task_id": id})
        );
        let stored = row(&pool, id).await;
        assert_eq!(
            (&stored["status"], &stored["result"], &stored["attempts"]),
            (&json!("pending"), &Value::Null, &json!(0))
        );
        assert!(
            stored["enqueued_at"]
                .as_str()
                .is_some_and(|time| !time.starts_with("2020")),
            "{stored}"
        );
        assert_eq!(app.messages().await, [json!({"task_id": id}).to_string()]);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn leased_task_is_409_and_unchanged(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    execute(
        &pool,
        "update tasks set status = 'processing', lease_expires_at = now() + interval '1 minute'",
    )
    .await;
    let before = row(&pool, id).await;
    let process = || app.post(format!("/tasks/{id}/process"), None);
    process().await.assert_problem(409, "Conflict");
    assert_eq!(row(&pool, id).await, before);
    assert_eq!(app.messages().await, [""; 0]);

    execute(&pool, "update tasks set lease_expires_at = now()").await;
    assert_eq!(process().await.status(), 202, "the lease has expired");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unknown_and_malformed_ids_send_no_message(pool: PgPool) {
    let app = App::new(&pool);
    let process = |id: &'static str| app.post(format!("/tasks/{id}/process"), None);
    process("1").await.assert_problem(404, "Not Found");
    process("0").await.assert_problem(422, "Unprocessable Entity");
    assert_eq!(app.messages().await, [""; 0]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unreachable_sqs_leaves_task_unsent(pool: PgPool) {
    let app = App::new(&pool).with_sqs(refusing_sqs().await);
    let id = task(&pool, "t").await;
    let response = app.post(format!("/tasks/{id}/process"), None).await;
    assert_eq!(response.status(), 202);
    let stored = row(&pool, id).await;
    assert_eq!(
        (&stored["status"], &stored["enqueued_at"]),
        (&json!("pending"), &Value::Null)
    );
}
