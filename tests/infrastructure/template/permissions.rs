//! The roles allow exactly the calls of SQS and Lambda that the functions make. A recorder between
//! each function and SQS, and a stub of the event source mapping, collect them.

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::PgPool;

use super::{
    checks::{allowed_in_lambda, allowed_in_sqs},
    templates,
};
use crate::support::{App, Recorder, execute, mapping, mapping::MappingLog, task};

/// Compares the recorded calls with what the function's role allows.
fn assert_allowed(function: &str, called: BTreeSet<String>, besides: &[&str]) {
    // IAM has no separate actions for batches (Service Authorization Reference, "Amazon SQS").
    let called = called.into_iter();
    let mut needed: BTreeSet<String> = called
        .map(|action| action.trim_end_matches("Batch").to_owned())
        .collect();
    needed.extend(besides.iter().map(|&action| action.to_owned()));
    let allowed = allowed_in_sqs(&templates()["prod"]);
    assert_eq!(Some(&needed), allowed.get(function), "{function}");
}

/// Functions whose SQS calls are recorded.
async fn recorded(pool: &PgPool) -> (App, Recorder) {
    let sqs = Recorder::start().await;
    (App::new(pool).with_sqs(sqs.client_config()), sqs)
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn create_task(pool: PgPool) {
    let (app, sqs) = recorded(&pool).await;
    assert_eq!(app.post("/tasks", json!({"title": "t"})).await.status(), 201);
    assert_allowed("create-task", sqs.actions(), &[]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn process_task(pool: PgPool) {
    let (app, sqs) = recorded(&pool).await;
    let path = format!("/tasks/{}/process", task(&pool, "t").await);
    assert_eq!(app.post(path, None).await.status(), 202);
    assert_allowed("process-task", sqs.actions(), &[]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_processor(pool: PgPool) {
    let (app, sqs) = recorded(&pool).await;
    let bodies = [json!({"task_id": task(&pool, "t").await}).to_string(), "{}".to_owned()];
    app.queue().await.send(&bodies).await;
    let event = app.queue().await.receive_as_event(2).await;
    let response = app.process(event).await;
    assert_eq!(response.expect("a partial success").batch_item_failures.len(), 1);
    // Lambda's pollers use the function's role (AWS Lambda Developer Guide, "Creating and
    // configuring an Amazon SQS event source mapping").
    let mapping = ["ReceiveMessage", "DeleteMessage", "GetQueueAttributes"];
    assert_allowed("task-processor", sqs.actions(), &mapping);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_reconciler(pool: PgPool) {
    let (app, sqs) = recorded(&pool).await;
    let (mapping, lambda) = mapping::mapping().await;
    let app = app.with_mapping(mapping);
    let insert = "insert into tasks (title, updated_at) values ('t', now() - interval '1 h')";
    execute(&pool, insert).await;
    assert_eq!(app.sweep(None).await.expect("a sweep").sent, 1);
    assert_allowed("task-reconciler", sqs.actions(), &[]);
    assert_allowed_in_lambda("task-reconciler", &lambda);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn admin_status(pool: PgPool) {
    let (app, sqs) = recorded(&pool).await;
    let (mapping, lambda) = mapping::mapping().await;
    let app = app.with_mapping(mapping);
    assert_eq!(app.get("/admin/status").await.status(), 200);
    assert_allowed("admin-status", sqs.actions(), &[]);
    assert_allowed_in_lambda("admin-status", &lambda);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn admin_processing(pool: PgPool) {
    let (mapping, lambda) = mapping::mapping().await;
    let app = App::new(&pool).with_mapping(mapping);
    assert_eq!(app.get("/admin/processing").await.status(), 200);
    let pause = json!({"paused": true});
    assert_eq!(app.put("/admin/processing", pause).await.status(), 200);
    assert_allowed_in_lambda("admin-processing", &lambda);
}

/// The same for requests about the event source mapping.
fn assert_allowed_in_lambda(function: &str, requests: &MappingLog) {
    let requests = requests.lock().expect("not poisoned");
    let called = requests.iter().map(|request| match request.method().as_str() {
        "GET" => "GetEventSourceMapping".to_owned(),
        "PUT" => "UpdateEventSourceMapping".to_owned(),
        other => panic!("{other} is neither"),
    });
    let called: BTreeSet<String> = called.collect();
    let allowed = allowed_in_lambda(&templates()["prod"]);
    assert_eq!(Some(&called), allowed.get(function), "{function}");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn admin_redrive(pool: PgPool) {
    let (app, sqs) = recorded(&pool).await;
    app.dead_letters().await.send(&["a message".to_owned()]).await;
    assert_eq!(app.post("/admin/redrive", None).await.status(), 202);
    assert_allowed("admin-redrive", sqs.actions(), &[]);
}
