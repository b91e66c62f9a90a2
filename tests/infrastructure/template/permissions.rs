//! Do the roles allow what the functions call, and nothing else? Each function is called with an SQS that notes what it
//! is asked for.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use serde_json::json;
use sqlx::PgPool;

use super::{checks::allowed_in_sqs, templates};
use crate::support::{Call, NO_METRICS, Recorder, TestQueue, database, execute, task};

/// Compares what was called with what the function's role allows.
fn assert_allowed(function: &str, called: BTreeSet<String>, besides: &[&str]) {
    // IAM has no words of their own for batches (Service Authorization Reference, "Amazon SQS").
    let called = called.into_iter();
    let mut needed: BTreeSet<String> = called
        .map(|action| action.trim_end_matches("Batch").to_owned())
        .collect();
    needed.extend(besides.iter().map(|&action| action.to_owned()));
    let allowed = allowed_in_sqs(&templates()["prod"]);
    assert_eq!(Some(&needed), allowed.get(function), "{function}");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn create_task(pool: PgPool) {
    let (sqs, queue) = (Recorder::start().await, TestQueue::create().await);
    let (database, sender) = (database(&pool), queue.sender_through(&sqs));
    let settings = create_task::Settings {
        idempotency_key_seconds: 60,
    };
    let call = Call::new("POST", "/tasks").header("content-type", "application/json");
    let call = call.body(r#"{"title":"t"}"#);
    let answer = call.send(|request| create_task::handle(&database, &sender, &NO_METRICS, &settings, request));
    assert_eq!(answer.await.status, 201);
    assert_allowed("create-task", sqs.actions(), &[]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn process_task(pool: PgPool) {
    let (sqs, queue) = (Recorder::start().await, TestQueue::create().await);
    let (database, sender) = (database(&pool), queue.sender_through(&sqs));
    let call = Call::task("POST", task(&pool, "t").await, "/process");
    let answer = call.send(|request| process_task::handle(&database, &sender, request));
    assert_eq!(answer.await.status, 202);
    assert_allowed("process-task", sqs.actions(), &[]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_processor(pool: PgPool) {
    let (sqs, queue) = (Recorder::start().await, TestQueue::create().await);
    let bodies = [json!({"task_id": task(&pool, "t").await}).to_string(), "{}".to_owned()];
    queue.send(&bodies).await;
    let event = queue.receive_as_event(2).await;
    let settings = task_processor::Settings {
        max_receive_count: 5,
        retry_delay_seconds: 1,
    };
    let (database, sender) = (database(&pool), queue.sender_through(&sqs));
    let deadline = SystemTime::now() + Duration::from_secs(30);
    let outcome = task_processor::handle(&database, &sender, &NO_METRICS, settings, event, deadline).await;
    assert_eq!(outcome.expect("a partial success").batch_item_failures.len(), 1);
    // Lambda's pollers use the function's role (AWS Lambda Developer Guide, "Creating and configuring an Amazon SQS
    // event source mapping").
    let mapping = ["ReceiveMessage", "DeleteMessage", "GetQueueAttributes"];
    assert_allowed("task-processor", sqs.actions(), &mapping);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_reconciler(pool: PgPool) {
    let (sqs, queue) = (Recorder::start().await, TestQueue::create().await);
    execute(
        &pool,
        "insert into tasks (title, updated_at) values ('t', now() - interval '1 h')",
    )
    .await;
    let settings = task_reconciler::Settings {
        lost_after_seconds: 3600,
        max_attempts: 10,
        sweep_limit: 10,
    };
    let (database, sender) = (database(&pool), queue.sender_through(&sqs));
    let report = task_reconciler::sweep(&database, &sender, &settings, None).await;
    assert_eq!(report.expect("a sweep").sent, 1);
    assert_allowed("task-reconciler", sqs.actions(), &[]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn admin_status(pool: PgPool) {
    let (sqs, queue) = (Recorder::start().await, TestQueue::create().await);
    let (database, queue) = (database(&pool), queue.sender_through(&sqs));
    let call = Call::new("GET", "/admin/status");
    let answer = call.send(|request| admin_status::handle(&database, &queue, &queue, request));
    assert_eq!(answer.await.status, 200);
    assert_allowed("admin-status", sqs.actions(), &[]);
}

#[tokio::test]
async fn admin_redrive() {
    let sqs = Recorder::start().await;
    let (source, dead) = (TestQueue::create().await, TestQueue::create().await);
    dead.send(&["a message".to_owned()]).await;
    let queue = dead.as_dead_letter_queue_through(&sqs, &source);
    let call = Call::new("POST", "/admin/redrive");
    let answer = call.send(|request| admin_redrive::handle(&queue, request));
    assert_eq!(answer.await.status, 202);
    assert_allowed("admin-redrive", sqs.actions(), &[]);
}
