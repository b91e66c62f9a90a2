//! `POST /tasks/{id}/process`

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Call, Gateway, TestQueue, database, execute, queue_nobody_serves, row, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_task_becomes_pending_again_and_is_enqueued(pool: PgPool) {
    for gateway in [Gateway::Rest, Gateway::Http] {
        let (database, queue) = (database(&pool), TestQueue::create().await);
        let sender = queue.sender();
        let id = task(&pool, "t").await;
        execute(
            &pool,
            "update tasks set status = 'failed', result = 'r', attempts = 5, settled_at = now(), enqueued_at = '2020-01-01'",
        )
        .await;
        let call = Call::task("POST", id, "/process");
        let answer = call
            .send_via(gateway, |request| process_task::handle(&database, &sender, request))
            .await;
        assert_eq!(answer.status, 202);
        assert_eq!(
            answer.json(),
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
        assert_eq!(queue.bodies().await, [json!({"task_id": id}).to_string()]);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn while_a_worker_holds_the_task_it_is_409_and_nothing_changes(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await);
    let sender = queue.sender();
    let id = task(&pool, "t").await;
    execute(
        &pool,
        "update tasks set status = 'processing', lease_expires_at = now() + interval '1 minute'",
    )
    .await;
    let before = row(&pool, id).await;
    let process =
        || Call::task("POST", id, "/process").send(|request| process_task::handle(&database, &sender, request));
    process().await.assert_problem(409, "Conflict");
    assert_eq!(row(&pool, id).await, before);
    assert_eq!(queue.bodies().await, [""; 0]);

    execute(&pool, "update tasks set lease_expires_at = now()").await;
    assert_eq!(process().await.status, 202, "the worker let its lease expire");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unknown_and_impossible_ids_send_nothing(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await);
    let sender = queue.sender();
    let process = |id: &'static str| {
        Call::task("POST", id, "/process").send(|request| process_task::handle(&database, &sender, request))
    };
    process("1").await.assert_problem(404, "Not Found");
    process("0").await.assert_problem(422, "Unprocessable Entity");
    assert_eq!(queue.bodies().await, [""; 0]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn without_sqs_the_task_is_marked_as_not_enqueued(pool: PgPool) {
    let (database, queue) = (database(&pool), queue_nobody_serves(false).await);
    let id = task(&pool, "t").await;
    let call = Call::task("POST", id, "/process");
    let answer = call
        .send(|request| process_task::handle(&database, &queue, request))
        .await;
    assert_eq!(answer.status, 202);
    let stored = row(&pool, id).await;
    assert_eq!(
        (&stored["status"], &stored["enqueued_at"]),
        (&json!("pending"), &Value::Null)
    );
}
